"""Where a sequence is cut, so that between cuts nothing is reset and padding comes last."""

from __future__ import annotations

import torch
from torch import Tensor


def cuts(reset: Tensor | None, mask: Tensor | None, length: int) -> list[int]:
    """Steps before which a sequence is cut, 0 and `length` included. Waits for an accelerator once, if there is
    anything to look at, and never for a single step."""
    if length == 1 or (reset is None and mask is None):
        return [0, length]
    before: list[Tensor] = []
    if reset is not None:
        before.append(reset[1:])
    if mask is not None:
        before.append(mask[1:] & ~mask[:-1])
    at = (before[0] if len(before) == 1 else before[0] | before[1]).any(1)
    return [0, *(t + 1 for t, cut in enumerate(at.tolist()) if cut), length]


def last_real(x: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """The last `count` real steps of each row of `x` `[T, B, ...]`, whose padding (`mask` `[T, B]` False) comes last:
    `[count, B, ...]`. There must be as many."""
    if mask is None:
        return x[len(x) - count :]
    end = mask.sum(0)
    return x[end - count + torch.arange(count, device=x.device).unsqueeze(1), torch.arange(len(end), device=x.device)]
