"""Binary codes, packed, and the search for those that differ in few bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

WORD = 64  # bits
PART = 1 << 22  # words compared at once

Packed = NDArray[np.uint64]


def pack(bits: Tensor) -> Packed:
    """Bits (anything above 1/2 is 1) `[N, D]` to words `[N, D / 64, rounded up]`, filled up with 0."""
    rows = np.packbits((bits > 0.5).cpu().numpy(), axis=1)
    missing = -rows.shape[1] % (WORD // 8)
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing)))).view(np.uint64)


def distances(queries: Packed, codes: Packed) -> NDArray[np.int64]:
    """Numbers of bits in which packed codes differ: `[Q, W]` and `[N, W]` to `[Q, N]`."""
    found = np.empty((len(queries), len(codes)), np.int64)
    step = max(PART // max(codes.size, 1), 1)
    for begin in range(0, len(queries), step):
        differ = queries[begin : begin + step, None] ^ codes[None]
        found[begin : begin + step] = np.bitwise_count(differ).sum(2)
    return found


def search(queries: Packed, codes: Packed, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The `number` nearest codes of each query, the nearest first and of equals the first: (places, distances), both
    `[Q, number]`."""
    found = distances(queries, codes)
    places = np.argsort(found, axis=1, kind="stable")[:, :number]
    return places, np.take_along_axis(found, places, axis=1)
