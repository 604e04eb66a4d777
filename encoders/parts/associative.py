"""Associative memories: how patterns are stored in pairwise weights, how states move, and what energy they have.

States and patterns are -1 or +1 in float32; Hopfield (1982, PNAS 79, 2554). The dense form of `attend` is for any real
numbers (Ramsauer et al. 2021, "Hopfield Networks is All You Need", ICLR, arXiv:2008.02217).
"""

from __future__ import annotations

import torch
from torch import Tensor


def hebbian(patterns: Tensor) -> Tensor:
    """Sum of the patterns' outer products over the number of units, no unit on itself: `[P, D]` to `[D, D]`."""
    return (patterns.T @ patterns / patterns.shape[1]).fill_diagonal_(0)


def pseudo_inverse(patterns: Tensor) -> Tensor:
    """The projection on the space of the patterns (Personnaz, Guyon & Dreyfus 1985, J. Physique Lett. 46, 359), without
    its diagonal: patterns `[P, D]` that are independent are fixed points, at most D - 1 of them."""
    wide = patterns.double()
    return (torch.linalg.pinv(wide) @ wide).to(patterns.dtype).fill_diagonal_(0)


def energy(weight: Tensor, state: Tensor) -> Tensor:
    """-s W s / 2 of states `[N, D]`: `[N]`."""
    return -0.5 * (state @ weight * state).sum(1)


def settled(field: Tensor, state: Tensor, least: Tensor | float = 0.0) -> Tensor:
    """The sign of the field; a unit that feels `least` or less stays as it is."""
    return torch.where(field.abs() <= least, state, field.sign())


def least_field(weight: Tensor) -> Tensor:
    """What may be rounding alone: ties are common between few units, and must not depend on how sums are ordered."""
    return 1e-5 * weight.abs().amax()


def synchronous(weight: Tensor, state: Tensor, sweeps: int) -> Tensor:
    """All units at once, until nothing moves, at most `sweeps` times. It may end in a cycle of two states."""
    least = least_field(weight)
    for _ in range(sweeps):
        after = settled(state @ weight, state, least)
        if torch.equal(after, state):
            break
        state = after
    return state


def asynchronous(weight: Tensor, state: Tensor, sweeps: int, generator: torch.Generator | None = None) -> Tensor:
    """One unit after the other, so that the energy never rises, until nothing moves, at most `sweeps` times.

    Args:
        weight: `[D, D]`, symmetric, 0 on the diagonal.
        state: `[N, D]`, all moved in the same order.
        generator: draws a new order for each sweep; None: from the first unit to the last.
    """
    columns, size, least = state.T.contiguous(), state.shape[1], least_field(weight)  # a unit's states lie together
    for _ in range(sweeps):
        before = columns.clone()
        order = range(size) if generator is None else torch.randperm(size, generator=generator).tolist()
        for unit in order:
            columns[unit] = settled(weight[unit] @ columns, columns[unit], least)
        if torch.equal(before, columns):
            break
    return columns.T.contiguous()


def attend(patterns: Tensor, state: Tensor, beta: float) -> Tensor:
    """One step of the dense form: the patterns `[P, D]`, weighted by softmax(beta patterns state): equation 3."""
    return (beta * (state @ patterns.T)).softmax(1) @ patterns


def dense_energy(patterns: Tensor, state: Tensor, beta: float) -> Tensor:
    """Equation 2: -lse(beta patterns state) / beta + |s|^2 / 2 + log P / beta + M^2 / 2, M the largest norm: `[N]`."""
    alike = torch.logsumexp(beta * (state @ patterns.T), dim=1) - torch.tensor(float(len(patterns))).log()
    return 0.5 * (state.square().sum(1) + patterns.square().sum(1).max()) - alike / beta
