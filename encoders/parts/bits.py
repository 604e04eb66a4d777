"""Bits drawn from their total inputs, in one pass over memory where there is a compiler.

The draws cost more than the products of a small machine otherwise: torch makes its random numbers one at a time.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import native

SOURCE = native.read("bits.cpp")
LEAST = 2048  # elements that are worth a call


def mean_and_bits(a: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """sigmoid(a), and bits 0.0 or 1.0 of these probabilities; any shape, without gradients.

    Which draws a generator's state stands for depends on whether the loop could be compiled, and on the size.
    """
    a = a.detach()
    library = _library() if a.numel() >= LEAST and native.serves(a) and a.dtype == torch.float32 else None
    if library is None:
        mean = a.sigmoid()
        return mean, (_uniform(mean, generator) < mean).to(mean.dtype)
    a = a.contiguous()
    mean, bits = torch.empty_like(a), torch.empty_like(a)
    key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator))
    arguments = native.pointers([a, mean, bits])
    library.saccade_bits(*arguments, ctypes.c_int64(a.numel()), ctypes.c_uint64(key & (2**64 - 1)))
    return mean, bits


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _library() -> ctypes.CDLL | None:
    library = native.load(SOURCE)
    if library is not None and library.saccade_bits.argtypes is None:
        library.saccade_bits.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint64]
        library.saccade_bits.restype = None
    return library
