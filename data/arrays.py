"""A user's own vectors: `PATH.npy`, with `PATH.labels.npy` beside it where there are labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Dataset, Split

kind = "your own vectors, float32 [examples, numbers], with labels in PATH.labels.npy where there are any"
HELD_OUT_SHARE = 20  # a twentieth each for validation and for testing


def load(path: Path, seed: int) -> Dataset:
    """Float32 vectors `[N, D]` and integer labels `[N]`, -1 = none.

    The split into 90 % for training, 5 % for validation and 5 % for testing follows from `seed`. The file is mapped
    and read in its order, so that it is in memory once.

    Raises:
        UserError: no such file, it is damaged, or holds something else.
    """
    x = _open(path)
    if x.dtype != np.float32 or x.ndim != 2:
        is_image = x.dtype == np.uint8 and x.ndim in (3, 4)
        why = "images come from mnist, cifar10 or env:ID; here, flatten and scale them" if is_image else "convert it"
        raise UserError(f"{path} holds {x.dtype} {list(x.shape)}, not float32 [examples, numbers]; {why}")
    if len(x) < HELD_OUT_SHARE or not x.shape[1]:
        raise UserError(f"{path} holds {list(x.shape)}; it needs {HELD_OUT_SHARE} examples or more, of some numbers")
    if not np.isfinite([x.min(), x.max()]).all():
        raise UserError(f"{path} holds numbers that are not finite; remove them")
    label, classes = _labels(path.with_suffix(".labels.npy"), len(x))
    order = np.random.default_rng(seed).permutation(len(x))
    held_out = len(x) // HELD_OUT_SHARE
    parts = map(np.sort, np.split(order, [len(x) - 2 * held_out, len(x) - held_out]))
    train, validation, test = (Split(torch.from_numpy(x[part]), torch.from_numpy(label[part])) for part in parts)
    low = 0.0 if x.min() >= 0 else -np.inf  # what reads counts asks for it
    return Dataset(str(path), ObservationSpec((x.shape[1],), low=low), train, validation, test, classes)


def _labels(path: Path, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int64 `[count]` and the names of the classes."""
    if not path.exists():
        return np.full(count, -1), ()
    label = _open(path)
    if label.shape != (count,) or label.dtype.kind not in "iu":
        raise UserError(f"{path} holds {label.dtype} {list(label.shape)}, not {count:,} integers, one for each example")
    label = label.astype(np.int64)
    if label.min() < -1 or label.max() >= count:
        wrong = label.min() if label.min() < -1 else label.max()
        raise UserError(f"{path} holds the label {wrong}; labels count from 0, and -1 says that there is none")
    return label, tuple(str(number) for number in range(label.max() + 1))


def _open(path: Path) -> np.ndarray:
    """Memory-mapped; changes to it do not reach the file."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array: {error}") from error
