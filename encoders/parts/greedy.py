"""Contrastive divergence of one layer of a deep Boltzmann machine while there are no others: what will be read from two
sides is counted twice (Salakhutdinov & Hinton 2009, AISTATS, section 3.1, equations 12 to 17)."""

from __future__ import annotations

import torch
from torch import Tensor

from .gibbs import Gradient, Machine
from .labelled import JointGradient, Labelled, draw_class, hidden_given, joint_contrast, log_posterior
from .units import UNITS


def doubled_walk(machine: Machine, v: Tensor, steps: int, up: int, down: int) -> tuple[Tensor, Gradient]:
    """CD-k from v `[N, V]`, with hidden inputs counted `up` times and visible ones `down` times.

    Returns the first step's squared error, a mean over the rows, and the gradient.
    """
    bits, (weight, below, above) = UNITS["bernoulli"], machine[:3]
    hidden, h = bits.mean_and_sample(torch.addmm(above, v, weight.T, alpha=up))
    error, fantasy, count = v.new_zeros(()), v, max(len(v), 1)
    for step in range(steps):
        if step:
            h = bits.sample(torch.addmm(above, fantasy, weight.T, alpha=up), None)
        mean, fantasy = bits.mean_and_sample(torch.addmm(below, h, weight, alpha=down))
        if not step:
            error = (mean - v).square().sum() / count
    after = torch.addmm(above, fantasy, weight.T, alpha=up).sigmoid()
    return error, Gradient(
        (after.T @ fantasy - hidden.T @ v) / count, (fantasy - v).sum(0) / count, (after - hidden).sum(0) / count
    )


def labelled_walk(model: Labelled, v: Tensor, y: Tensor, known: Tensor, steps: int) -> tuple[Tensor, JointGradient]:
    """CD-k of the highest layer with its label units on means v `[N, V]` of the layer below, which counts its input
    twice, as it will have another below it; labels that are not `known` (bool `[N, 1]`) are drawn given v.

    Returns the first step's squared error, a mean over the rows, and the gradient.
    """
    machine = model.machine
    y = torch.where(known, y, draw_class(log_posterior(model, v)))
    hidden, h = UNITS["bernoulli"].mean_and_sample(hidden_given(model, v, y))
    fantasy, drawn, error = v, y, v.new_zeros(())
    for step in range(steps):
        if step:
            h = UNITS["bernoulli"].sample(hidden_given(model, fantasy, drawn), None)
        a = torch.addmm(machine.visible_bias, h, machine.weight, alpha=2)
        mean, fantasy = UNITS["bernoulli"].mean_and_sample(a)
        drawn = draw_class(model.label_bias + h @ model.label_weight)
        if not step:
            error = (mean - v).square().sum() / max(len(v), 1)
    after = hidden_given(model, fantasy, drawn).sigmoid()
    return error, joint_contrast((v, y, hidden), (fantasy, drawn, after), v.new_ones(len(v)))
