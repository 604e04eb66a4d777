"""A matrix that is used at every step of a sequence, with its gradient in one product over all steps.

Summed up step by step, that gradient costs as much memory traffic as the matrix has numbers, at each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Notes = dict[int, tuple[Tensor, Tensor]]  # what a step multiplied, and the gradient by its result


class Repeated:
    """`addend + x @ weight.T`, at most `steps` times within one forward pass. A second derivative is refused."""

    def __init__(self, weight: Tensor, steps: int):
        """`weight` is `[outputs, inputs]`."""
        self.weight, self.taken, self.notes = weight, 0, Notes()
        self.marks: Tensor | None = None
        if steps > 1 and weight.requires_grad and torch.is_grad_enabled():
            self.marks = _Collect.apply(weight, steps, self.notes)

    def __call__(self, addend: Tensor, x: Tensor) -> Tensor:
        """addend `[N, outputs]` or `[outputs]`, x `[N, inputs]`; returns `[N, outputs]`."""
        if self.marks is None:
            return torch.addmm(addend, x, self.weight.t())
        self.taken += 1
        return _Multiply.apply(addend, x, self.weight.detach(), self.marks, self.taken - 1, self.notes)


class _Collect(torch.autograd.Function):
    """Going forward, nothing: one mark per step, which says coming back whether that step took part."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, steps: int, notes: Notes) -> Tensor:
        ctx.notes, ctx.shape = notes, weight.shape
        return weight.new_zeros(steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, marks: Tensor) -> tuple[Tensor | None, ...]:
        notes = [ctx.notes.pop(step) for step in marks.nonzero().flatten().tolist()]
        if not notes:
            return marks.new_zeros(ctx.shape), None, None
        inputs, gradients = (torch.cat(tensors) for tensors in zip(*notes, strict=True))
        return gradients.t() @ inputs, None, None


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, addend: Tensor, x: Tensor, weight: Tensor, marks: Tensor, step: int, notes: Notes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step, ctx.notes, ctx.broadcast, ctx.steps = step, notes, addend.dim() == 1, len(marks)
        return torch.addmm(addend, x, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        ctx.notes[ctx.step] = (x, gradient)
        mark = gradient.new_zeros(ctx.steps)
        mark[ctx.step] = 1
        return gradient.sum(0) if ctx.broadcast else gradient, gradient @ weight, None, mark, None, None
