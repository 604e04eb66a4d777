"""Mean and covariance of vectors that come in batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Moments(nn.Module):
    """Running sums in float32, centred, so that nothing cancels (Chan, Golub & LeVeque 1983, The American Statistician
    37, 242, equation 2.1b)."""

    count: Tensor
    mean: Tensor
    scatter: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scatter", torch.zeros(size, size))  # sum of outer products of deviations from the mean

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take `x` `[N, size]` into account, in float32 whatever the autocast type."""
        with torch.autocast(x.device.type, enabled=False):
            x, number = x.float(), len(x)
            mean = x.mean(0)
            shift, total = mean - self.mean, self.count + number
            centred = x - mean
            self.scatter.addmm_(centred.T, centred)
            self.scatter += torch.outer(shift, shift) * (self.count * number / total)
            self.mean += shift * (number / total)
            self.count.copy_(total)

    def covariance(self) -> Tensor:
        """`[size, size]`, divided by the count."""
        return self.scatter / self.count

    def components(self, number: int) -> Tensor:
        """The first principal components, orthonormal rows `[number, size]`, the strongest first.

        The largest element of each is positive, so that the same data give the same signs everywhere.
        """
        _, vectors = torch.linalg.eigh(self.covariance())  # ascending
        rows = vectors.T.flip(0)[:number]
        largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
        return rows * largest.sign()
