"""Losses whose gradient was computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_gradient(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """`value`, a scalar, whose gradient by each of `parameters` is the tensor at the same place in `gradients`.

    The gradients are handed out, not copied, and given away: nobody may write to them afterwards, and there is one
    backward pass only.
    """
    return _Given.apply(value, tuple(gradients), *parameters)


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.gradients = ctx.gradients, None  # the last hold on them, or they would be copied into `.grad`
        if found is None:
            raise RuntimeError("the gradient of this loss has been given away: backward a second time")
        is_one = not scale.is_cuda and float(scale) == 1.0  # as in training alone: passes over the weights are saved
        needed = ctx.needs_input_grad[2:]
        given = [(g if is_one else g * scale) if need else None for g, need in zip(found, needed, strict=True)]
        return None, None, *given
