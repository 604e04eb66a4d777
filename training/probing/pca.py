"""Principal components in closed form: what every learner's reconstruction and codes are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MOST_NUMBERS = 4096  # of one example: up to there the covariance is decomposed, beyond it the Gram matrix of examples
MOST_EXAMPLES = 3000  # of which the Gram matrix is taken

Blocks = Callable[[], Iterator[Tensor]]  # a fresh pass over the examples, float32 [n, S] at a time


class PCA(NamedTuple):
    """A linear code of K numbers."""

    mean: Tensor  # float32 [S]
    components: Tensor  # float32 [K, S], orthonormal rows, by falling variance
    variance: Tensor  # float32 [K], of each code over the examples it was fitted to
    examples: int  # that it was fitted to

    @property
    def width(self) -> int:
        return len(self.components)

    def encode(self, x: Tensor) -> Tensor:
        """`[N, S]` to codes `[N, K]`."""
        return (x - self.mean) @ self.components.T

    def decode(self, codes: Tensor) -> Tensor:
        """Codes `[N, K]` to `[N, S]`."""
        return codes @ self.components + self.mean

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def fit_pca(blocks: Blocks, width: int) -> PCA:
    """The `width` leading components, or all there are if those are fewer.

    Exact for the examples it reads: all of them where one has at most MOST_NUMBERS numbers; of larger ones only the
    first MOST_EXAMPLES, as their covariance would not fit into memory.

    Args:
        blocks: called for each pass over the examples, `[n, S]` with values of order one.
    """
    first = next(blocks())
    if first.shape[1] > MOST_NUMBERS:
        return _from_gram(_first_examples(blocks), width)
    count, total = 0, torch.zeros(first.shape[1], dtype=torch.float64, device=first.device)
    for block in blocks():
        total += block.sum(0, dtype=torch.float64)
        count += len(block)
    mean = (total / count).float()
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=first.device)
    for block in blocks():
        centred = block - mean
        scatter += centred.T @ centred  # float32 products of centred numbers, float64 sums over blocks
    values, vectors = torch.linalg.eigh(scatter / count)
    kept = min(width, len(values), count)
    components = vectors.flip(1)[:, :kept].T.float().contiguous()
    return PCA(mean, components, values.flip(0)[:kept].clamp(min=0).float(), count)


def _first_examples(blocks: Blocks) -> Tensor:
    found: list[Tensor] = []
    for block in blocks():
        found.append(block[: MOST_EXAMPLES - sum(map(len, found))])
        if sum(map(len, found)) == MOST_EXAMPLES:
            break
    return torch.cat(found)


def _from_gram(x: Tensor, width: int) -> PCA:
    """By the inner products of the examples: XXᵀu = λu gives XᵀX(Xᵀu) = λ(Xᵀu)."""
    mean = x.mean(0)
    centred = x - mean
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    values, vectors = values.flip(0), vectors.flip(1)
    count = min(width, int((values > 1e-6 * values[0]).sum()))
    components = torch.nn.functional.normalize(vectors[:, :count].T.float() @ centred, dim=1)
    return PCA(mean, components, (values[:count] / len(x)).float(), len(x))
