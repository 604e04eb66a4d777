"""Probabilistic max pooling: maps of units in blocks, of which at most one is on (Lee et al. 2009, ICML, section 3.3).

Given its inputs, a block is one draw by a softmax over its units and "none", whose input is 0 (equations 10 and 11);
its pooling unit is on where any is. Blocks at the right and lower border are smaller where a map ends within them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .units import uniform


def blocks_of(a: Tensor, size: int, fill: float = -math.inf) -> Tensor:
    """A map `[N, K, H, W]` to its blocks `[N, K, rows, columns, size * size]`; what is beyond the border is `fill`."""
    height, width = a.shape[2:]
    padded = F.pad(a, (0, -width % size, 0, -height % size), value=fill)
    blocks = padded.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # [N, K, rows, size, columns, size]
    return blocks.transpose(3, 4).flatten(4)


def map_of(blocks: Tensor, size: int, height: int, width: int) -> Tensor:
    """The other way round."""
    parts = blocks.unflatten(4, (size, size)).transpose(3, 4)
    return parts.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def pooled_means(a: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chances that units are on, `[N, K, H, W]` like their inputs `a`, and pooling units `[N, K, rows, columns]`."""
    chances = _chances(a, size)
    return map_of(chances[..., 1:], size, *a.shape[2:]), 1 - chances[..., 0]


def pooled_draw(a: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Bits of the units, at most one in each block, `[N, K, H, W]`."""
    above = _chances(a, size).cumsum(4)
    u = uniform(above[..., :1], generator)
    bits = (u < above[..., 1:]) & (u >= above[..., :-1])
    return map_of(bits.to(a.dtype), size, *a.shape[2:])


def pooled_log_partition(a: Tensor, size: int) -> Tensor:
    """log of the sum of exp(h . a) over all states that are allowed, `[N]`."""
    return F.softplus(blocks_of(a, size).logsumexp(4)).flatten(1).sum(1)


def _chances(a: Tensor, size: int) -> Tensor:
    """Of "none" and of each unit of a block, `[N, K, rows, columns, 1 + size * size]`."""
    blocks = blocks_of(a, size)
    return torch.cat([torch.zeros_like(blocks[..., :1]), blocks], 4).softmax(4)
