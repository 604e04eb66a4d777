"""Kinds of units of Boltzmann machines, each by functions of its total input: mean, draw, and log partition.

A unit s with total input a has the weight exp(s a) times what its kind gives it without any input: bits 1 each, a
Gaussian exp(-s^2 / 2), a count 1 / s!. The log partition A(a) is the log of the sum (integral) of that weight over all
values of s, so the mean is A'(a) and a layer that is summed out costs minus the sum of its A.

A rectified unit (Nair & Hinton 2010, section 3) stands for endlessly many bits with inputs a - 1/2, a - 3/2, ... Its A
is nearly theirs, sum_i log(1 + exp(a - i + 1/2)), by the integral of log(1 + exp(x)) up to a. Its draw is theirs where
a is large; around 0 the draws' mean is too small by as much as 0.4, which is the price of one draw instead of many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .bits import mean_and_bits

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_DILOGARITHM = (1.0, 1 / 4, 1 / 36, 0.0, -1 / 3600, 0.0, 1 / 211680, 0.0, -1 / 10886400)  # B_n / (n + 1)! with signs
HIGHEST_INPUT = 30.0  # of a count, e^30 is 1e13; beyond, training has left the road


class Units(NamedTuple):
    """A kind of units; every function is elementwise, from total inputs of any shape."""

    mean: Callable[[Tensor], Tensor]
    sample: Callable[[Tensor, torch.Generator | None], Tensor]
    log_partition: Callable[[Tensor], Tensor]

    def mean_and_sample(self, a: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Both at once, without gradients; of bits in one pass."""
        if self.sample is sample_bits:
            return mean_and_bits(a, generator)
        a = a.detach()
        return self.mean(a), self.sample(a, generator)


def uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws from 0..1 of the shape, type and device of `like`."""
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws from the standard normal of the shape, type and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def sample_bits(a: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return mean_and_bits(a, generator)[1]


def gaussian_log_partition(a: Tensor) -> Tensor:
    return 0.5 * a.square() + HALF_LOG_2PI


def sample_gaussian(a: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return a + normal(a, generator)


def sample_rectified(a: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """max(0, a + noise of variance sigmoid(a)) (Nair & Hinton 2010, section 3)."""
    return (a + a.sigmoid().sqrt() * normal(a, generator)).clamp(min=0)


def rectified_log_partition(a: Tensor) -> Tensor:
    """The integral of log(1 + e^x) from minus infinity to a, which is minus the dilogarithm of -e^a; right to 1e-10.

    With s = log(1 + e^-|a|), at most 0.7, it is a short series in s; above 0 the inversion formula mirrors it.
    """
    s = F.softplus(torch.where(a > 0, -a, a))
    series = torch.zeros_like(s)
    for coefficient in reversed(_DILOGARITHM):
        series = (series + coefficient) * s
    return torch.where(a > 0, math.pi**2 / 6 + 0.5 * a.square() - series, series)


def count_mean(a: Tensor) -> Tensor:
    return a.clamp(max=HIGHEST_INPUT).exp()


def sample_counts(a: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return torch.poisson(count_mean(a), generator)


def sample_words(a: Tensor, totals: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Counts `[N, V]` of `totals` (whole numbers `[N]`) words each, drawn by the softmax of a `[N, V]`."""
    most = int(totals.max()) if len(totals) else 0
    counts = torch.zeros_like(a)
    if most:
        words = torch.multinomial(a.softmax(1), most, replacement=True, generator=generator)
        taken = torch.arange(most, device=a.device) < totals.unsqueeze(1)
        counts.scatter_add_(1, words, taken.to(a.dtype))
    return counts


UNITS: dict[str, Units] = {
    "bernoulli": Units(torch.sigmoid, sample_bits, F.softplus),
    "gaussian": Units(lambda a: a, sample_gaussian, gaussian_log_partition),
    "relu": Units(F.softplus, sample_rectified, rectified_log_partition),
    "poisson": Units(count_mean, sample_counts, count_mean),
}
