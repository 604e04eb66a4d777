"""How likely data are: under the decoders and posteriors of latent-variable models, and under samples of any model.

Everything is in nats, computed in float32, and summed over the elements of an example.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)


def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x) of bits: logits `[..., N, D]`, x in 0..1 `[N, D]`, to `[..., N]`.

    Where x is a probability itself, this is the mean over bits drawn from it (minus a cross-entropy).
    """
    logits = logits.float()
    return (logits * x).sum(-1) - F.softplus(logits).sum(-1)


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(x; mean, exp(log_variance)), summed over the last axis; shapes broadcast."""
    square = (x - mean.float()).square() * (-log_variance).exp()
    return -0.5 * (square + log_variance + LOG_2PI).sum(-1)


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each element (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def binarise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Bits drawn with probability x, which is in 0..1 or, as uint8, in 0..255: float32 of the same shape.

    Bytes take a third of the time: 16 random bits are compared with 257 x, so probabilities are right to 2^-16.
    """
    if x.dtype != torch.uint8:
        return torch.bernoulli(x, generator=generator)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    draws = words.random_(-(2**63), None, generator=generator).view(torch.int16)[: x.numel()].view(x.shape)
    return (draws < x.to(torch.int16) * 257 - 32768).float()


def importance_weighted(
    log_weights: Callable[[Tensor, int], Tensor], x: Tensor, samples: int, rows: int = 1000
) -> Tensor:
    """log of the mean of `samples` importance weights, `[N]`: a lower bound of log p(x) in expectation that rises
    with `samples` (Burda et al. 2016, arXiv:1509.00519, eq. 8 and theorem 1).

    Args:
        log_weights: (x `[B, ...]`, k) to log p(x, z) - log q(z | x) of k draws of z each, `[k, B]`.
        samples: at least 1.
        rows: draws computed at once; memory grows with it.
    """
    results = []
    chunk = min(samples, rows)
    for part in x.split(max(rows // chunk, 1)):
        total = torch.full((len(part),), -math.inf, device=x.device)
        for done in range(0, samples, chunk):
            count = min(chunk, samples - done)
            total = torch.logaddexp(total, log_weights(part, count).logsumexp(0))
        results.append(total - math.log(samples))
    return torch.cat(results) if results else x.new_zeros(0, dtype=torch.float32)


def parzen_log_likelihood(x: Tensor, samples: Tensor, deviation: float, rows: int = 500) -> Tensor:
    """log density `[N]` of x `[N, D]` under Gaussians of one `deviation` around `samples` `[M, D]`.

    (Parzen windows, as Goodfellow et al. 2014, arXiv:1406.2661, section 5, chose them to judge generators; a bound on
    nothing, and of high variance.) `rows` rows of x are compared at once.
    """
    flat, centres = x.flatten(1), samples.flatten(1)
    constant = math.log(len(centres)) + flat.shape[1] * (math.log(deviation) + 0.5 * LOG_2PI)
    exponents = (-torch.cdist(part, centres).square() / (2 * deviation**2) for part in flat.split(rows))
    return torch.cat([exponent.logsumexp(1) for exponent in exponents]) - constant
