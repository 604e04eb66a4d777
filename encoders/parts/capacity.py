"""How much an associative memory holds: which patterns stay where they are, and which are found from damaged copies.

Memories are given as functions of states `[N, D]`, so that every form of a Hopfield net is asked the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STILL = 0.01  # most that any unit of a fixed point moves in one step; between signs that is: none moves

Move = Callable[[Tensor], Tensor]  # states [N, D] to states [N, D]


def random_patterns(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Of -1 and 1, float32 `[count, size]`."""
    return torch.randint(0, 2, (count, size), generator=generator).float() * 2 - 1


def damaged(patterns: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Patterns `[N, D]` with so large a share of the units, by chance, turned to their opposite."""
    flips = torch.rand(patterns.shape, generator=generator) < share
    return torch.where(flips.to(patterns.device), -patterns, patterns)


def overlap(found: Tensor, patterns: Tensor) -> Tensor:
    """Cosine of each state and its pattern, `[N, D]` twice to `[N]`: 1 is the pattern itself, up to its length."""
    return torch.cosine_similarity(found, patterns, dim=1)


def fixed(step: Move, patterns: Tensor) -> float:
    """Share of the patterns `[N, D]` that one step of all units leaves as they are."""
    return float(((step(patterns) - patterns).abs().amax(1) <= STILL).float().mean())


def found_again(retrieve: Move, patterns: Tensor, share: float, held: float, generator: torch.Generator) -> float:
    """Share of the patterns `[N, D]` that overlap by `held` or more with what a damaged copy becomes."""
    return float((overlap(retrieve(damaged(patterns, share, generator)), patterns) >= held).float().mean())
