"""What codes are like, whatever they are codes of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, "Latent space representation"
CONSTANT = 1e-6  # a unit whose values span less, relative to the largest value of any unit, is dead
AT_BOUND = 0.01  # share of a unit's range that counts as at its end
SATURATED = 0.95  # share of a unit's values at the ends
MOST_UNITS = 4096  # beyond, the spectrum is that of so many examples


@dataclass(frozen=True)
class CodeStatistics:
    """Of codes of many examples, in eval mode."""

    units: int
    active_units: int  # variance over the examples > 0.01 (Burda et al. 2016, arXiv:1509.00519)
    dead_units: int  # the same value for every example
    saturated_units: int | None  # at an end of the range almost always; None: the codes have no such range
    effective_rank: float  # of the centred codes
    zeros: float  # share of exact zeros
    hoyer: float  # mean over examples: 0 = all units alike, 1 = one alone
    mean: float
    deviation: float  # root mean square over units


def code_statistics(codes: Tensor) -> CodeStatistics:
    """Statistics of codes, float32 `[N, D]`.

    An encoder with a posterior gives its mean as code, so `active_units` is Burda's A_u = Cov_x(E[u|x]) there.
    """
    variance, mean = torch.var_mean(codes.double(), 0, correction=0)
    span = codes.amax(0) - codes.amin(0)
    dead = span <= CONSTANT * codes.abs().max()
    return CodeStatistics(
        units=codes.shape[1],
        active_units=int((variance > ACTIVE_VARIANCE).sum()),
        dead_units=int(dead.sum()),
        saturated_units=saturated_units(codes),
        effective_rank=effective_rank(codes),
        zeros=float((codes == 0).double().mean()),
        hoyer=hoyer(codes),
        mean=float(mean.mean()),
        deviation=float(variance.mean().sqrt()),
    )


def effective_rank(codes: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred codes `[N, D]`; 0 if they never vary.

    Roy & Vetterli 2007, "The effective rank", definition 1; they do not centre. Here the mean goes first, as it says
    nothing about the examples and would hide all else in codes that are never negative.
    """
    centred = codes.double() - codes.double().mean(0)
    if centred.shape[1] > MOST_UNITS:
        centred = centred[:MOST_UNITS]
    small = centred if centred.shape[0] >= centred.shape[1] else centred.T
    values = torch.linalg.eigvalsh(small.T @ small).clamp(min=0)
    values[values < 1e-12 * values.max()] = 0  # rounding, whose root would count
    singular = values.sqrt()
    if singular.sum() == 0:
        return 0.0
    return float(torch.special.entr(singular / singular.sum()).sum().exp())


def hoyer(codes: Tensor) -> float:
    """Mean sparsity (√D - |z|₁/|z|₂)/(√D - 1) of the rows that are not zero (Hoyer 2004, "Non-negative matrix
    factorization with sparseness constraints", section 3.1)."""
    root = codes.shape[1] ** 0.5
    length = codes.double().norm(dim=1)
    ratio = codes.double().abs().sum(1)[length > 0] / length[length > 0]
    if codes.shape[1] == 1 or not len(ratio):
        return 0.0
    return float(((root - ratio) / (root - 1)).mean())


def saturated_units(codes: Tensor) -> int | None:
    """Units of a sigmoid (codes in 0..1) or tanh (-1..1) that almost never leave the ends of their range.

    Exact zeros are no end: they are what ReLU and k-sparse codes rest at. None where codes lie in neither range, or
    fill so little of it that nothing says they are bounded.
    """
    low, high = float(codes.min()), float(codes.max())
    if low < -1 or high > 1 or high < 0.5 or -0.5 < low < 0:
        return None
    bottom = -1.0 if low < 0 else 0.0
    margin = AT_BOUND * (1 - bottom)
    at_end = (codes >= 1 - margin) | ((codes <= bottom + margin) & (codes != 0))
    return int((at_end.float().mean(0) >= SATURATED).sum())
