"""Restricted Boltzmann machines as values: two layers of units, their energy, and block Gibbs steps between them.

    E(v, h) = - b v - c h - v W h, plus for Gaussian units s^2 / 2 and for counts log s!

Gaussian visible units may have variances of their own; then, after Cho, Ilin & Raiko (2011, ICANN, equation 5),

    E(v, h) = sum_i (v_i - b_i)^2 / (2 sigma_i^2) - c h - sum_ij (v_i / sigma_i^2) W_ij h_j

so that v given h is N(b + W h, sigma^2). Words ("softmax") are counts v with a fixed total D: the replicated softmax of
Salakhutdinov & Hinton (2009, NIPS, equations 3 to 5), whose hidden bias is D c.

Everything here is a pure function of tensors in any floating-point type; all that is drawn comes from `generator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .units import HALF_LOG_2PI, UNITS, sample_words

Visible = Literal["bernoulli", "gaussian", "poisson", "softmax"]
Hidden = Literal["bernoulli", "gaussian", "relu"]


class Machine(NamedTuple):
    """The parameters of a restricted Boltzmann machine, and what its units are."""

    weight: Tensor  # [H, V]
    visible_bias: Tensor  # [V]
    hidden_bias: Tensor  # [H]
    visible: Visible = "bernoulli"
    hidden: Hidden = "bernoulli"
    log_variance: Tensor | None = None  # [V], of Gaussian visible units; None: variance 1

    def to(self, dtype: torch.dtype) -> Machine:
        """The same in another floating-point type, cut off from gradients."""
        weight, visible_bias, hidden_bias = (part.detach().to(dtype) for part in self[:3])
        variance = None if self.log_variance is None else self.log_variance.detach().to(dtype)
        return Machine(weight, visible_bias, hidden_bias, self.visible, self.hidden, variance)


def scaled(machine: Machine, v: Tensor) -> Tensor:
    """What the hidden units read of v `[N, V]`: v over its variance."""
    return v if machine.log_variance is None else v * (-machine.log_variance).exp()


def hidden_input(machine: Machine, v: Tensor) -> Tensor:
    """Total input of the hidden units, `[N, V]` to `[N, H]`."""
    if machine.visible == "softmax":
        return v @ machine.weight.T + v.sum(1, keepdim=True) * machine.hidden_bias
    return torch.addmm(machine.hidden_bias, scaled(machine, v), machine.weight.T)


def visible_input(machine: Machine, h: Tensor) -> Tensor:
    """Total input of the visible units (of Gaussian ones the mean), `[N, H]` to `[N, V]`."""
    return torch.addmm(machine.visible_bias, h, machine.weight)


def hidden_mean(machine: Machine, v: Tensor) -> Tensor:
    """E[h | v], `[N, V]` to `[N, H]`."""
    return UNITS[machine.hidden].mean(hidden_input(machine, v))


def visible_mean(machine: Machine, h: Tensor, totals: Tensor | None = None) -> Tensor:
    """E[v | h], `[N, H]` to `[N, V]`. `totals` `[N]`: how many words, with "softmax"."""
    return mean_of_visible(machine, visible_input(machine, h), totals)


def mean_of_visible(machine: Machine, a: Tensor, totals: Tensor | None = None) -> Tensor:
    """E[v] given its total input `[N, V]`."""
    if machine.visible == "softmax":
        assert totals is not None
        return totals.unsqueeze(1) * a.softmax(1)
    return UNITS[machine.visible].mean(a)


def sample_hidden(machine: Machine, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A draw of h given v, `[N, V]` to `[N, H]`."""
    return UNITS[machine.hidden].sample(hidden_input(machine, v), generator)


def sample_visible(
    machine: Machine, h: Tensor, totals: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """A draw of v given h, `[N, H]` to `[N, V]`; `totals` as in `visible_mean`."""
    return draw_visible(machine, visible_input(machine, h), totals, generator)


def draw_visible(
    machine: Machine, a: Tensor, totals: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """A draw of v given its total input `[N, V]`."""
    if machine.visible == "softmax":
        assert totals is not None
        return sample_words(a, totals, generator)
    if machine.log_variance is not None:
        noise = UNITS["gaussian"].sample(torch.zeros_like(a), generator)
        return a + noise * (0.5 * machine.log_variance).exp()
    return UNITS[machine.visible].sample(a, generator)


def gibbs(machine: Machine, v: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """v `[N, V]` after `steps` times drawing h given v and v given h; each step goes on from the one before."""
    totals = v.sum(1) if machine.visible == "softmax" else None
    for _ in range(steps):
        v = sample_visible(machine, sample_hidden(machine, v, generator), totals, generator)
    return v


def means_along(machine: Machine, v: Tensor, steps: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """E[v | h] of one chain from v `[N, V]` after each of these rising numbers of steps, at least 1: `[S, N, V]`."""
    totals, done, means = v.sum(1), 0, []
    for step in steps:
        v, done = gibbs(machine, v, step - 1 - done, generator), step
        a = visible_input(machine, sample_hidden(machine, v, generator))
        mean, v = visible_mean_and_draw(machine, a, totals, generator)
        means.append(mean)
    return torch.stack(means)


class Walk(NamedTuple):
    """What contrastive divergence needs of a batch."""

    hidden: Tensor  # [N, H]: E[h | v] of the data
    fantasy: Tensor  # [N, V]: v after the last step
    error: Tensor  # scalar: squared error of the first step's mean, mean over the rows


def walk(machine: Machine, v: Tensor, steps: int, draws: bool = True, generator: torch.Generator | None = None) -> Walk:
    """The chain of CD-k: one chain from the data v `[N, V]`, whose every step goes on from the step before.

    Args:
        draws: False: v is set to its mean given h at every step (Hinton 2010, section 3.2).
    """
    totals = v.sum(1) if machine.visible == "softmax" else None
    hidden, h = UNITS[machine.hidden].mean_and_sample(hidden_input(machine, v), generator)
    mean, fantasy = visible_mean_and_draw(machine, visible_input(machine, h), totals, generator)
    error = (mean - v).square_().sum() / len(v)
    for _ in range(steps - 1):
        h = sample_hidden(machine, fantasy if draws else mean, generator)
        mean, fantasy = visible_mean_and_draw(machine, visible_input(machine, h), totals, generator)
    return Walk(hidden, fantasy if draws else mean, error)


def visible_mean_and_draw(
    machine: Machine, a: Tensor, totals: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """E[v] and a draw of v given its total input `[N, V]`, without gradients."""
    if machine.visible == "bernoulli":
        return UNITS["bernoulli"].mean_and_sample(a, generator)
    return mean_of_visible(machine, a, totals), draw_visible(machine, a, totals, generator)


def visible_energy(machine: Machine, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """The part of the energy that is v's alone, `[N, V]` to `[N]`; `bias`: another one, `[V]` or `[N, V]`."""
    b = machine.visible_bias if bias is None else bias
    if machine.visible == "gaussian":
        return 0.5 * scaled(machine, (v - b).square()).sum(1)
    energy = -(v @ b if b.dim() == 1 else (v * b).sum(1))
    if machine.visible in ("poisson", "softmax"):
        energy = energy + torch.lgamma(v + 1).sum(1)
    if machine.visible == "softmax":  # the number of texts with these counts is D! / prod v!
        energy = energy - torch.lgamma(v.sum(1) + 1)
    return energy


def energy(machine: Machine, v: Tensor, h: Tensor) -> Tensor:
    """E(v, h), `[N, V]` and `[N, H]` to `[N]`; not for rectified hidden units, which stand for many bits each."""
    joint = visible_energy(machine, v) - (h * hidden_input(machine, v)).sum(1)
    return joint + 0.5 * h.square().sum(1) if machine.hidden == "gaussian" else joint


def free_energy(machine: Machine, v: Tensor) -> Tensor:
    """-log of the sum of exp(-E(v, h)) over all h, `[N, V]` to `[N]`: log p(v) = -F(v) - log Z."""
    return visible_energy(machine, v) - UNITS[machine.hidden].log_partition(hidden_input(machine, v)).sum(1)


def hidden_free_energy(machine: Machine, h: Tensor, total: int | None = None) -> Tensor:
    """-log of the sum of exp(-E(v, h)) over all v, `[N, H]` to `[N]`; "softmax": over all texts of `total` words."""
    a = visible_input(machine, h)
    own = 0.5 * h.square().sum(1) if machine.hidden == "gaussian" else 0.0
    if machine.visible == "softmax":
        assert total is not None
        return own - total * (h @ machine.hidden_bias + a.logsumexp(1))
    if machine.visible == "gaussian":
        summed = 0.5 * scaled(machine, a.square() - machine.visible_bias.square()) + HALF_LOG_2PI
        summed = summed if machine.log_variance is None else summed + 0.5 * machine.log_variance
    else:
        summed = UNITS[machine.visible].log_partition(a)
    return own - h @ machine.hidden_bias - summed.sum(1)


class Gradient(NamedTuple):
    """Of a free energy by the parameters, mean over the examples."""

    weight: Tensor  # [H, V]
    visible_bias: Tensor  # [V]
    hidden_bias: Tensor  # [H]
    log_variance: Tensor | None = None  # [V]


def contrast(machine: Machine, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> Gradient:
    """The gradient of F(v of the data) - F(v of the model): <v h>_model - <v h>_data (Hinton 2002, equation 5).

    Args:
        data: v `[N, V]` and E[h | v] `[N, H]`.
        model: the same of the model's draws, perhaps of another number.
    """
    (v, h), (v_model, h_model) = data, model
    signed = torch.cat([h_model / len(v_model), h / -len(v)])
    both = torch.cat([v_model, v])
    weight = torch.mm(signed.T, scaled(machine, both))  # one product: it is written only once
    shares = torch.cat([v.new_full((len(v_model),), 1 / len(v_model)), v.new_full((len(v),), -1 / len(v))])
    visible_bias = scaled(machine, shares @ both)
    hidden_bias = (signed * both.sum(1, keepdim=True) if machine.visible == "softmax" else signed).sum(0)
    if machine.log_variance is None:
        return Gradient(weight, visible_bias, hidden_bias)
    log_variance = _by_log_variance(machine, v, h) - _by_log_variance(machine, v_model, h_model)
    return Gradient(weight, visible_bias, hidden_bias, log_variance)


def _by_log_variance(machine: Machine, v: Tensor, h: Tensor) -> Tensor:
    """The mean of dF / dlog sigma^2 (Cho, Ilin & Raiko 2011, equation 8), `[V]`."""
    slope = v * (h @ machine.weight) - 0.5 * (v - machine.visible_bias).square()
    return scaled(machine, slope.mean(0))
