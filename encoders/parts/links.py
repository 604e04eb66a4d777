"""One step of the DNC's temporal links in torch, with its gradient written out (Graves et al. 2016, Methods).

The links `[B, N, N]` are by far the largest tensor of a DNC, so a step's time is that of passing over them. Nothing
N x N is kept for the gradient but the links themselves. `memory_step` does better where it serves; this serves
everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def link_step(links: Tensor, write_weights: Tensor, precedence: Tensor, read_weights: Tensor) -> tuple[Tensor, ...]:
    """(links, forward, backward): `addressing.update_links`, and `addressing.follow` on the new ones.

    Args:
        links: `[B, N, N]`, of the step before.
        write_weights: `[B, N]`, of this step.
        precedence: `[B, N]`, of the step before.
        read_weights: `[B, R, N]`, of the step before.

    Returns:
        links `[B, N, N]`, forward and backward `[B, R, N]`.
    """
    return _LinkStep.apply(links, write_weights, precedence, read_weights)


class _LinkStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, links: Tensor, write: Tensor, precedence: Tensor, read: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(links, write, precedence, read)
        ctx.set_materialize_grads(False)
        new = _updated(links, write, precedence)
        return new, read @ new.mT, read @ new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, ...]:
        links, write, precedence, read = ctx.saved_tensors
        d_new, d_forward, d_backward = gradients
        d_forward = torch.zeros_like(read) if d_forward is None else d_forward
        d_backward = torch.zeros_like(read) if d_backward is None else d_backward
        new = _updated(links, write, precedence)
        d_read = d_forward @ new + d_backward @ new.mT
        total = torch.cat([d_forward, read], 1).mT @ torch.cat([read, d_backward], 1)
        total = total if d_new is None else total.add_(d_new)
        total.diagonal(dim1=1, dim2=2).zero_()
        d_precedence = (write.unsqueeze(1) @ total).squeeze(1)
        products = total * links
        d_write = (total @ precedence.unsqueeze(2)).squeeze(2) - products.sum(2) - products.sum(1)
        return total * (1 - write.unsqueeze(2) - write.unsqueeze(1)), d_write, d_precedence, d_read


def _updated(links: Tensor, write: Tensor, precedence: Tensor) -> Tensor:
    """The new links, with one temporary."""
    new = (1 - write.unsqueeze(2) - write.unsqueeze(1)).mul_(links)
    new.baddbmm_(write.unsqueeze(2), precedence.unsqueeze(1))
    new.diagonal(dim1=1, dim2=2).zero_()
    return new
