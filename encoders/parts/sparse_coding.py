"""Sparse codes over a fixed dictionary: minimise |x - D z|^2 + sparsity |z|_1 (+ agreement |z - target|^2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor


def shrink(z: Tensor, threshold: Tensor | float) -> Tensor:
    """Elements move towards 0 by `threshold` and stop there; a negative threshold counts as 0."""
    bound = threshold.clamp(min=0) if isinstance(threshold, Tensor) else max(threshold, 0.0)
    return z - z.clamp(-bound, bound)  # type: ignore[arg-type, operator]  # both bounds are of one type


def largest_curvature(dictionary: Tensor) -> float:
    """The largest eigenvalue of 2 D^T D, the Lipschitz constant of the squared error's gradient. `[D, K]`."""
    return 2 * float(torch.linalg.matrix_norm(dictionary.detach().float(), 2)) ** 2


def energy(
    x: Tensor,
    dictionary: Tensor,
    code: Tensor,
    sparsity: float,
    target: Tensor | None = None,
    agreement: float = 0.0,
) -> Tensor:
    """What `ista` and `fista` minimise, `[N]`."""
    value = (x - code @ dictionary.T).square().sum(1) + sparsity * code.abs().sum(1)
    return value if target is None else value + agreement * (code - target).square().sum(1)


def ista(x: Tensor, dictionary: Tensor, sparsity: float, iterations: int, start: Tensor | None = None) -> Tensor:
    """Proximal gradient descent (Beck & Teboulle 2009, equation 1.4). Arguments as `fista`."""
    step, code = 1 / largest_curvature(dictionary), _start(x, dictionary, start)
    gram, drive = dictionary.T @ dictionary, x @ dictionary
    for _ in range(iterations):
        code = shrink(code - step * 2 * (code @ gram - drive), step * sparsity)
    return code


def fista(
    x: Tensor,
    dictionary: Tensor,
    sparsity: float,
    iterations: int,
    start: Tensor | None = None,
    target: Tensor | None = None,
    agreement: float = 0.0,
) -> Tensor:
    """The same with momentum (Beck & Teboulle 2009, equations 4.1-4.3), whose error falls as 1 / iterations^2.

    Args:
        x: `[N, D]`.
        dictionary: `[D, K]`.
        start: codes to begin with, `[N, K]`; None: zeros.
        target: codes that the solution is drawn to, by the weight `agreement`.

    Returns:
        codes `[N, K]`.
    """
    agreement = 0.0 if target is None else agreement
    step = 1 / (largest_curvature(dictionary) + 2 * agreement)
    # a step from z: z - step * 2 (z D^T D - x D + agreement (z - target)), written as one matrix product
    keep = (1 - 2 * step * agreement) * torch.eye(dictionary.shape[1], device=x.device)
    matrix = keep - 2 * step * (dictionary.T @ dictionary)
    drive = 2 * step * (x @ dictionary if target is None else x @ dictionary + agreement * target)
    code = ahead = _start(x, dictionary, start)
    for momentum in islice(momenta(), iterations):
        new = shrink(torch.addmm(drive, ahead, matrix), step * sparsity)
        ahead = new + momentum * (new - code)
        code = new
    return code


def momenta() -> Iterator[float]:
    """How far FISTA looks ahead after each iteration: 0, 0.28, 0.43, ... (Beck & Teboulle 2009, equations 4.2-4.3)."""
    current = 1.0
    while True:
        following = (1 + (1 + 4 * current**2) ** 0.5) / 2
        yield (current - 1) / following
        current = following


def _start(x: Tensor, dictionary: Tensor, start: Tensor | None) -> Tensor:
    return x.new_zeros(len(x), dictionary.shape[1]) if start is None else start.to(x.dtype)
