"""Boltzmann machines whose visible layer has a group of label units, of which exactly one is on.

With y one of C classes, as a row of label units,

    E(v, y, h) = E(v, h) - d . y - h . U y

(Hinton, Osindero & Teh 2006, section 5; Larochelle & Bengio 2008, ICML, section 2). p(y | v) is a sum over the classes
alone, since given v and y the hidden units are independent (equation 2 there).

Pure functions of tensors; a machine's variances are 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .gibbs import Machine, hidden_input, visible_energy, visible_input, visible_mean_and_draw
from .units import UNITS


class Labelled(NamedTuple):
    """The parameters of a machine with label units."""

    machine: Machine
    label_weight: Tensor  # [H, C]
    label_bias: Tensor  # [C]


def hidden_given(model: Labelled, v: Tensor, y: Tensor) -> Tensor:
    """Total input of the hidden units, v `[N, V]` and y `[N, C]` to `[N, H]`."""
    return hidden_input(model.machine, v) + y @ model.label_weight.T


def class_scores(model: Labelled, v: Tensor) -> Tensor:
    """log of the sum of exp(d . y + h . (c + W v + U y)) over h, for each class y: v `[N, V]` to `[N, C]`."""
    a = hidden_input(model.machine, v).unsqueeze(1) + model.label_weight.T
    return model.label_bias + UNITS[model.machine.hidden].log_partition(a).sum(2)


def log_posterior(model: Labelled, v: Tensor) -> Tensor:
    """log p(y | v), exactly, `[N, V]` to `[N, C]`."""
    return class_scores(model, v).log_softmax(1)


def posterior_hidden(model: Labelled, v: Tensor) -> Tensor:
    """E[h | v], over the classes as likely as they are, `[N, V]` to `[N, H]`."""
    a = hidden_input(model.machine, v).unsqueeze(1) + model.label_weight.T
    units = UNITS[model.machine.hidden]
    chance = (model.label_bias + units.log_partition(a).sum(2)).softmax(1)
    return (chance.unsqueeze(2) * units.mean(a)).sum(1)


def joint_free_energy(model: Labelled, v: Tensor) -> Tensor:
    """F(v, y) for each class y, v `[N, V]` to `[N, C]`: log p(v, y) = -F(v, y) - log Z."""
    return visible_energy(model.machine, v).unsqueeze(1) - class_scores(model, v)


def draw_class(scores: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Label units `[N, C]` drawn by the softmax of `[N, C]`."""
    drawn = torch.multinomial(scores.softmax(1), 1, generator=generator).squeeze(1)
    return F.one_hot(drawn, scores.shape[1]).to(scores.dtype)


class JointWalk(NamedTuple):
    """A chain from the data."""

    hidden: Tensor  # [N, H]: E[h | v, y] of the data
    mean: Tensor  # [N, V]: E[v | h] of the last step
    v: Tensor  # [N, V], after the last step
    y: Tensor  # [N, C], likewise
    error: Tensor  # scalar: squared error of the first step's mean, mean over the rows


def joint_walk(
    model: Labelled,
    v: Tensor,
    y: Tensor,
    steps: int,
    *,
    clamped: bool = False,
    generator: torch.Generator | None = None,
) -> JointWalk:
    """`steps` times h given v and y, then v and y given h. `clamped`: y stays what it was."""
    machine, first, error = model.machine, v, v.new_zeros(())
    hidden, h = UNITS[machine.hidden].mean_and_sample(hidden_given(model, v, y), generator)
    mean = v
    for step in range(steps):
        if step:
            h = UNITS[machine.hidden].sample(hidden_given(model, v, y), generator)
        mean, v = visible_mean_and_draw(machine, visible_input(machine, h), None, generator)
        if not clamped:
            y = draw_class(model.label_bias + h @ model.label_weight, generator)
        if not step:
            error = (mean - first).square().sum() / max(len(v), 1)
    return JointWalk(hidden, mean, v, y, error)


class JointGradient(NamedTuple):
    """Of a joint free energy by the parameters."""

    weight: Tensor  # [H, V]
    visible_bias: Tensor  # [V]
    hidden_bias: Tensor  # [H]
    label_weight: Tensor  # [H, C]
    label_bias: Tensor  # [C]


def joint_contrast(
    data: tuple[Tensor, Tensor, Tensor], model: tuple[Tensor, Tensor, Tensor], weights: Tensor
) -> JointGradient:
    """The gradient of the mean of w (F(v, y of the data) - F(v, y of the model)) (Larochelle & Bengio 2008, section 3).

    Args:
        data: v `[N, V]`, y `[N, C]` and E[h | v, y] `[N, H]`.
        model: the same of as many draws of the model.
        weights: w `[N]`.
    """
    v, y, h = (torch.cat([theirs, ours]) for ours, theirs in zip(data, model, strict=True))
    share = (weights / max(len(weights), 1)).repeat(2)
    share[len(weights) :].neg_()
    signed = (h * share.unsqueeze(1)).T
    return JointGradient(signed @ v, share @ v, signed.sum(1), signed @ y, share @ y)
