"""Grids of units and what lies near what on them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["rectangular", "hexagonal"]
Neighbourhood = Literal["gaussian", "bubble"]
SLACK = 1e-3  # on distances between units, against rounding


def positions(rows: int, columns: int, layout: Layout) -> Tensor:
    """Where the units stand, row by row: `[rows * columns, 2]` of (x, y); nearest units are 1 apart.

    Hexagonal: every other row is shifted by a half, and rows are the square root of 3/4 apart.
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    across, down = x.flatten().float(), y.flatten().float()
    if layout == "hexagonal":
        across, down = across + 0.5 * (down % 2), down * math.sqrt(0.75)
    return torch.stack([across, down], dim=1)


def squared_distances(rows: int, columns: int, layout: Layout, wrap: bool = False) -> Tensor:
    """Between all units, `[K, K]`. `wrap`: each edge touches the opposite one; hexagonal grids need even rows then."""
    place = positions(rows, columns, layout)
    apart = (place[:, None] - place[None]).abs()
    if wrap:
        height = rows * (math.sqrt(0.75) if layout == "hexagonal" else 1.0)
        apart = torch.minimum(apart, torch.tensor([float(columns), height]) - apart)
    return apart.square().sum(2)


def neighbours(squared: Tensor, layout: Layout) -> Tensor:
    """Bool `[K, K]`: units that touch: 8 around one on a rectangular grid, corners included, 6 on a hexagonal one."""
    reach = 2.0 if layout == "rectangular" else 1.0
    return (squared > SLACK) & (squared < reach + SLACK)


def weights(squared: Tensor, radius: float, neighbourhood: Neighbourhood) -> Tensor:
    """How much units follow one that wins, from `squared` distances on the grid: 1 where that is 0."""
    if neighbourhood == "bubble":
        return (squared <= radius * radius + SLACK).to(squared.dtype)
    return torch.exp(squared / (-2 * radius * radius))
