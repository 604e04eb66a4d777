"""Distributions that codes may be made to follow."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...envs.errors import UserError

Prior = Literal["gaussian", "mixture", "swiss_roll"]
MODES = 10  # of the mixture, and parts of the roll
# The mixture's Gaussians lie on a circle like petals: radius, deviation along it outwards and across.
_RADIUS, _OUTWARDS, _ACROSS = 4.0, 0.8, 0.25
_TURNS, _WIDTH, _NOISE = 1.5, 4.0, 0.1  # of the roll: turns, radius at its end, deviation


def draw(prior: Prior, label: Tensor, latents: int, generator: torch.Generator | None = None) -> Tensor:
    """Codes `[N, latents]` drawn from `prior`, one for each of `label` (int64 `[N]`).

    "gaussian": standard, whatever the label. "mixture" (ten Gaussians on a circle) and "swiss_roll" are of two latents;
    of row n with label m >= 0 the draw comes from mode (or tenth of the roll) m modulo 10, with label -1 from any
    (Makhzani et al. 2016, arXiv:1511.05644, section 2.3).
    """
    drawn_on = label.device if generator is None else generator.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=drawn_on).to(label.device)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=drawn_on).to(label.device)

    count = len(label)
    if prior == "gaussian":
        return randn(count, latents)
    mode = torch.where(label >= 0, label % MODES, (rand(count) * MODES).long().clamp(max=MODES - 1))
    if prior == "mixture":
        angle = mode * (2 * math.pi / MODES)
        outwards, across = randn(2, count) * torch.tensor([[_OUTWARDS], [_ACROSS]], device=label.device)
        along = torch.stack([angle.cos(), angle.sin()], 1)
        beside = torch.stack([-angle.sin(), angle.cos()], 1)
        return (_RADIUS + outwards).unsqueeze(1) * along + across.unsqueeze(1) * beside
    share = ((mode + rand(count)) / MODES).sqrt()  # equally dense along the roll
    angle = share * (2 * math.pi * _TURNS)
    roll = torch.stack([angle.cos(), angle.sin()], 1) * (_WIDTH * share).unsqueeze(1)
    return roll + _NOISE * randn(count, 2)


def check_prior(prior: str, latents: int, encoder: str) -> None:
    """Raise UserError for an unknown name, or a number of latents that the prior does not have."""
    if prior not in get_args(Prior):
        raise UserError(f"{encoder}: unknown prior {prior!r}; known: {', '.join(get_args(Prior))}")
    if latents < 1 or (prior != "gaussian" and latents != 2):
        raise UserError(f"{encoder}: prior {prior!r} does not have {latents} latents; give --encoder.latents 2")
