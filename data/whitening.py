"""What is done to images before sparse coding: patches, contrast normalisation, standardisation, whitening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from .base import Split

CHUNK = 4096  # images that are gathered at a time


def unit_scale(x: Tensor) -> Tensor:
    """float32, with uint8 mapped from 0..255 to 0..1 and everything else as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def patches(split: Split, size: int, count: int, seed: int) -> Tensor:
    """`count` square patches at random places of random images, with replacement.

    Returns:
        `[count, C, size, size]`, of the type that the images `[N, C, H, W]` have.

    Raises:
        UserError: these are no images, or smaller than the patches; or a number is not positive.
    """
    if size < 1 or count < 1:
        raise UserError(f"the size and the number of patches must be positive, not {size} and {count}")
    shape = split.take(torch.zeros(1, dtype=torch.int64, device=split.label.device))["x"].shape[1:]
    if len(shape) != 3 or min(shape[1:]) < size:
        raise UserError(f"patches of {size} × {size} cannot be cut out of observations of shape {list(shape)}")
    random = np.random.default_rng(seed)
    image = torch.from_numpy(random.integers(len(split), size=count))
    top, left = (torch.from_numpy(random.integers(length - size + 1, size=count)) for length in shape[1:])
    across = torch.arange(size)
    number, channel = torch.arange(CHUNK)[:, None, None, None], torch.arange(shape[0])[:, None, None]
    cut = []
    for index, y, x in zip(image.split(CHUNK), top.split(CHUNK), left.split(CHUNK), strict=True):
        images = split.take(index.to(split.label.device))["x"]
        row, column = (y[:, None] + across)[:, None, :, None], (x[:, None] + across)[:, None, None, :]
        cut.append(images[number[: len(index)], channel, row, column])
    return torch.cat(cut)


def normalise_contrast(x: Tensor, epsilon: float = 10 / 255**2) -> Tensor:
    """Each example `[N, ...]` in unit scale with its own mean subtracted, then divided by √(variance + epsilon).

    Coates, Ng and Lee 2011 ("An Analysis of Single-Layer Networks"), section 4.1; their epsilon is 10 for 0..255.
    """
    flat = unit_scale(x).flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / (centred.square().mean(1, keepdim=True) + epsilon).sqrt()).view(x.shape)


@dataclass(frozen=True)
class Standardisation:
    """Each channel with mean 0 and variance 1 over the data it was fitted to."""

    mean: Tensor  # float32 [C, 1, 1], or [D] for vectors
    deviation: Tensor  # likewise

    def __call__(self, x: Tensor) -> Tensor:
        """float32 `[N, ...]` of `x` `[N, ...]`."""
        return (unit_scale(x) - self.mean) / self.deviation

    def undo(self, x: Tensor) -> Tensor:
        """What was standardised, in unit scale."""
        return x * self.deviation + self.mean


def fit_standardisation(x: Tensor) -> Standardisation:
    """From images `[N, C, H, W]`, by channel, or vectors `[N, D]`, by element. What is constant keeps its scale."""
    axes = (0, 2, 3) if x.dim() == 4 else (0,)
    mean = _mean(x, lambda part: part.mean(axes, keepdim=True)[0])
    deviation = _mean(x, lambda part: (part - mean).square().mean(axes, keepdim=True)[0]).sqrt()
    return Standardisation(mean.float(), torch.where(deviation > 0, deviation, 1.0).float())


def _mean(x: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over all examples of `statistic`, a mean over those it is given, in double precision and unit scale.

    Sums of many pixels in single precision are off in the third digit; the whole in double precision needs much memory.
    """
    return torch.stack([statistic(unit_scale(part).double()) * len(part) for part in x.split(CHUNK)]).sum(0) / len(x)


@dataclass(frozen=True)
class Whitening:
    """Uncorrelated pixels of equal variance, turned back so that they resemble the image: ZCA (Bell and Sejnowski 1997,
    "The 'Independent Components' of Natural Scenes Are Edge Filters"; Krizhevsky 2009, appendix A)."""

    mean: Tensor  # float32 [D]
    matrix: Tensor  # float32 [D, D] symmetric
    inverse: Tensor  # float32 [D, D] symmetric

    def __call__(self, x: Tensor) -> Tensor:
        """float32 `[N, ...]` of `x` `[N, ...]`, which has D numbers in each example."""
        return ((unit_scale(x).flatten(1) - self.mean) @ self.matrix).view(x.shape)

    def undo(self, x: Tensor) -> Tensor:
        """What was whitened, in unit scale."""
        return (x.flatten(1) @ self.inverse + self.mean).view(x.shape)


def fit_whitening(x: Tensor, epsilon: float = 1e-3) -> Whitening:
    """From examples `[N, ...]`: U (Λ + epsilon I)^-½ Uᵀ, where U Λ Uᵀ is the covariance in unit scale.

    Args:
        x: N should be well above the number of elements D of an example; D³ operations are needed.
        epsilon: added to all variances: directions that vary less (noise, or nothing at all) are not amplified.

    Raises:
        UserError: epsilon is not positive.
    """
    if epsilon <= 0:
        raise UserError(f"whitening: epsilon must be positive, not {epsilon}")
    mean = _mean(x.flatten(1), lambda part: part.mean(0))
    covariance = _mean(x.flatten(1), lambda part: (part - mean).T @ (part - mean) / len(part))
    variance, directions = torch.linalg.eigh(covariance)
    scale = (variance.clamp(min=0) + epsilon).sqrt()
    matrix, inverse = (directions * factor @ directions.T for factor in (1 / scale, scale))
    return Whitening(mean.float(), matrix.float(), inverse.float())
