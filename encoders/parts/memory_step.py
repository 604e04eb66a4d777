"""One step of the DNC's memory in C++, with its gradient written out: what `DNC.remember` does in torch.

The links `[B, N, N]` are by far the largest tensor of a DNC, and automatic differentiation passes over them some forty
times in a step; small memories spend their time on some three hundred calls of torch instead. Here each number of the
links is read and written once going forward, and read once more with its gradient coming back.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import addressing, native

_CONSTANTS = ("NORM_FLOOR", "USAGE_FLOOR", "USAGE_RANKS", "LINK_FLOOR")
_DEFINED = "".join(f"#define {name} {getattr(addressing, name)}\n" for name in _CONSTANTS)
SOURCE = _DEFINED + native.read("dnc_links.cpp", "dnc_memory.cpp", "dnc_step.cpp")


class Sizes(NamedTuple):
    """Of a step."""

    rows: int
    heads: int
    slots: int
    width: int
    switches: int  # 1: masked, 2: deallocate, 4: sharpen


def native_step(*tensors: Tensor) -> ctypes.CDLL | None:
    """The compiled step, where it serves such tensors and there is a compiler."""
    return native.load(SOURCE) if native.serves(*tensors) else None


def memory_step(library: ctypes.CDLL, vector: Tensor, state: tuple[Tensor, ...], switches: int) -> tuple[Tensor, ...]:
    """The memory's state after a step, and the read vectors.

    Args:
        library: as `native_step` returns it.
        vector: interface vector `[B, size]`, before its parts are brought into their ranges.
        state: memory `[B, N, W]`, usage, precedence and write weights `[B, N]`, links `[B, N, N]`, read weights
            `[B, R, N]`.
        switches: 1 for masked, 2 for deallocate, 4 for sharpen, added.

    Returns:
        the state, and the read vectors `[B, R, W]`.
    """
    return _MemoryStep.apply(library, switches, vector, *state)


class _MemoryStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, switches: int, *given: Tensor) -> tuple[Tensor, ...]:
        inputs = [tensor.contiguous() for tensor in given]
        memory, read = inputs[1], inputs[6]
        sizes = Sizes(read.shape[0], read.shape[1], read.shape[2], memory.shape[2], switches)
        new = [torch.empty_like(tensor) for tensor in inputs[1:]]
        vectors = memory.new_empty(sizes.rows, sizes.heads, sizes.width)
        tape = memory.new_empty(sizes.rows, (7 + 5 * sizes.heads) * sizes.slots)
        tensors: list[Tensor | None] = [*inputs, *new, vectors, tape]
        _call(library, tensors, sizes, forward=True)
        # the links' new value, the largest of all, is not needed
        ctx.save_for_backward(*inputs, *new[:4], new[5], tape)
        ctx.library, ctx.sizes = library, sizes
        ctx.set_materialize_grads(False)
        return (*new, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, memory, usage, precedence, write, read, tape = ctx.saved_tensors
        sizes: Sizes = ctx.sizes
        like = (memory, usage, precedence, write, None, read, memory.new_empty(sizes.rows, sizes.heads, sizes.width))
        known = [
            tensor.contiguous() if tensor is not None else None if other is None else torch.zeros_like(other)
            for tensor, other in zip(gradients, like, strict=True)
        ]
        results: list[Tensor | None] = [torch.empty_like(tensor) for tensor in inputs]
        if not ctx.needs_input_grad[7]:
            results[5] = None  # the first links are given
        tensors: list[Tensor | None] = [
            *inputs,
            memory,
            usage,
            precedence,
            write,
            None,
            read,
            None,
            tape,
            *known,
            *results,
        ]
        _call(ctx.library, tensors, sizes, forward=False)
        return (None, None, *results)


def _call(library: ctypes.CDLL, tensors: list[Tensor | None], sizes: Sizes, forward: bool) -> None:
    first = tensors[0]
    assert first is not None
    numbers = (*sizes, torch.get_num_threads(), first.element_size(), int(forward))
    library.dnc_step(native.pointers(tensors), *map(ctypes.c_int64, numbers))
