"""Machines between one without weights, whose samples are free, and a trained one; chains that walk among them.

At inverse temperature beta the weights and the hidden biases are beta times the machine's, and the visible biases lie
beta of the way from the base's to the machine's. With bits this is the path of Salakhutdinov & Murray (2008, ICML,
equations 15 to 18): the geometric mean of the base-rate model and the machine, the hidden units of both summed out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .gibbs import Machine, draw_visible, hidden_free_energy, hidden_input, visible_energy
from .units import UNITS, uniform

SMOOTHING = 0.05  # share of a coin that is mixed into the base rates of bits, so that no pixel is impossible


class Path(NamedTuple):
    """From `base` (beta 0: independent visible units of these biases `[V]`) to `machine` (beta 1).

    `beta` is a number, or `[N, 1]` with one for each row. `totals` `[N]`: how many words, with "softmax".
    """

    machine: Machine
    base: Tensor

    def bias(self, beta: float | Tensor) -> Tensor:
        return self.base + beta * (self.machine.visible_bias - self.base)

    def log_density(self, v: Tensor, a: Tensor, beta: float | Tensor) -> Tensor:
        """log f_beta(v), not normalised, `[N]`; a `[N, H]`: the hidden units' input by `machine` itself."""
        summed = UNITS[self.machine.hidden].log_partition(beta * a).sum(1)
        return summed - visible_energy(self.machine, v, self.bias(beta))

    def step(
        self,
        a: Tensor,
        beta: float | Tensor,
        totals: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The next v `[N, V]` of chains whose hidden units have input a by `machine`; leaves f_beta as it is."""
        h = UNITS[self.machine.hidden].sample(beta * a, generator)
        return draw_visible(self.machine, beta * (h @ self.machine.weight) + self.bias(beta), totals, generator)

    def start(self, count: int, totals: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples at beta 0, `[count, V]`."""
        return draw_visible(self.machine, self.base.repeat(count, 1), totals, generator)

    def start_log_partition(self, total: int | None = None) -> float:
        """log of the sum of f_0, exactly."""
        machine = self.machine
        hidden = torch.zeros_like(machine.hidden_bias)
        empty = machine._replace(weight=torch.zeros_like(machine.weight), visible_bias=self.base, hidden_bias=hidden)
        of_hidden = UNITS[machine.hidden].log_partition(hidden).sum()
        return float(of_hidden - hidden_free_energy(empty, hidden.unsqueeze(0), total).squeeze(0))


def base_rates(machine: Machine, x: Tensor) -> Tensor:
    """Biases `[V]` by which independent visible units have the means of data `[N, V]`."""
    mean = x.mean(0).to(machine.weight.dtype)
    if machine.visible == "gaussian":
        return mean
    if machine.visible == "bernoulli":
        return torch.logit((1 - SMOOTHING) * mean + SMOOTHING / 2)
    return (mean + SMOOTHING / 2).log()


def no_rates(machine: Machine) -> Tensor:
    """The biases of the simplest base: fair bits, else the machine's own."""
    return torch.zeros_like(machine.visible_bias) if machine.visible == "bernoulli" else machine.visible_bias


def tempered_step(path: Path, v: Tensor, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One Gibbs step of every chain, and an exchange of neighbours (Desjardins et al. 2010, AISTATS, section 3).

    Args:
        v: `[R, N, V]`, N chains at each of R temperatures.
        betas: `[R]`.
    """
    temperatures, count = v.shape[:2]
    column = betas.repeat_interleave(count).unsqueeze(1)
    moved = path.step(hidden_input(path.machine, v.flatten(0, 1)), column, None, generator)
    return exchange(path, moved.view_as(v), betas, generator) if temperatures > 1 else moved.view_as(v)


def exchange(path: Path, v: Tensor, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Chains `[R, N, V]` of neighbouring temperatures change places by Metropolis's rule; every other pair is asked,
    and which half is drawn. The product of all f_beta stays as it is."""
    temperatures, count = v.shape[:2]
    first = int(torch.randint(2, (), generator=generator, device=v.device)) if temperatures > 2 else 0
    lower = torch.arange(first, temperatures - 1, 2, device=v.device)
    if not len(lower):
        return v

    def density(at: Tensor, chains: Tensor) -> Tensor:
        rows = v[chains].flatten(0, 1)
        column = betas[at].repeat_interleave(count).unsqueeze(1)
        return path.log_density(rows, hidden_input(path.machine, rows), column).view(len(at), count)

    upper = lower + 1
    gain = density(lower, upper) + density(upper, lower) - density(lower, lower) - density(upper, upper)
    swaps = (uniform(gain, generator).log() < gain).unsqueeze(2)
    exchanged = v.clone()
    exchanged[lower] = torch.where(swaps, v[upper], v[lower])
    exchanged[upper] = torch.where(swaps, v[lower], v[upper])
    return exchanged
