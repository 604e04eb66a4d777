"""One step of the DNC's temporal links with its gradient written out (Graves et al. 2016, "Temporal memory linkage").

The links `[B, N, N]` are by far the largest tensor of a DNC, so a step's time is that of passing over them. Automatic
differentiation passes some forty times. Written out, nothing N x N is kept for the gradient but the links themselves;
the C++ loops read and write each of its numbers once going forward, and read it once more with its gradient.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native
from .links_source import SOURCE

NATIVE_FROM = 1 << 14  # numbers in all links; below it a few torch calls cost no more


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
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
        links, write, precedence, read = tensors = tuple(tensor.contiguous() for tensor in given)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        library = _library(*tensors)
        if library is None:
            new = _updated(links, write, precedence)
            return new, read @ new.mT, read @ new
        new, forward, backward = torch.empty_like(links), torch.empty_like(read), torch.empty_like(read)
        _call(library, (links, write, precedence, read, new, forward, backward), read, forward=True)
        return new, forward, backward

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        links, write, precedence, read = tensors = ctx.saved_tensors
        d_new, d_forward, d_backward = (None if g is None else g.contiguous() for g in gradients)
        d_forward = torch.zeros_like(read) if d_forward is None else d_forward
        d_backward = torch.zeros_like(read) if d_backward is None else d_backward
        library = _library(*tensors)
        if library is None:
            return _gradients(tensors, d_new, d_forward, d_backward)
        d_links = torch.empty_like(links) if ctx.needs_input_grad[0] else None
        d_write, d_precedence, d_read = torch.empty_like(write), torch.empty_like(precedence), torch.empty_like(read)
        results = (d_links, d_write, d_precedence, d_read)
        _call(library, (*tensors, d_new, d_forward, d_backward, *results), read, forward=False)
        return results


def _library(links: Tensor, *others: Tensor) -> ctypes.CDLL | None:
    return native.load(SOURCE) if links.numel() >= NATIVE_FROM and native.serves(links, *others) else None


def _call(library: ctypes.CDLL, tensors: tuple[Tensor | None, ...], read: Tensor, forward: bool) -> None:
    sizes = (*read.shape, torch.get_num_threads(), read.element_size(), int(forward))
    library.link_step(native.pointers(tensors), *map(ctypes.c_int64, sizes))


def _updated(links: Tensor, write: Tensor, precedence: Tensor) -> Tensor:
    """The new links, with one temporary."""
    new = (1 - write.unsqueeze(2) - write.unsqueeze(1)).mul_(links)
    new.baddbmm_(write.unsqueeze(2), precedence.unsqueeze(1))
    new.diagonal(dim1=1, dim2=2).zero_()
    return new


def _gradients(
    tensors: tuple[Tensor, ...], d_new: Tensor | None, d_forward: Tensor, d_backward: Tensor
) -> tuple[Tensor, ...]:
    """Of links, write weights, precedence and read weights, in torch."""
    links, write, precedence, read = tensors
    new = _updated(links, write, precedence)
    d_read = d_forward @ new + d_backward @ new.mT
    total = torch.cat([d_forward, read], 1).mT @ torch.cat([read, d_backward], 1)
    total = total if d_new is None else total.add_(d_new)
    total.diagonal(dim1=1, dim2=2).zero_()
    d_precedence = (write.unsqueeze(1) @ total).squeeze(1)
    products = total * links
    d_write = (total @ precedence.unsqueeze(2)).squeeze(2) - products.sum(2) - products.sum(1)
    return total * (1 - write.unsqueeze(2) - write.unsqueeze(1)), d_write, d_precedence, d_read
