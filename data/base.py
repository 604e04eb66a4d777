"""What a data set is: three splits of examples in memory, gathered by index on whatever device they lie on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec


@dataclass(frozen=True)
class Split:
    """Examples in memory, or memory-mapped. A subclass may store them otherwise and build them in `take`."""

    x: Tensor  # [N, ...] as stored: uint8 images [N, C, H, W], float32 vectors [N, D]
    label: Tensor  # int64 [N]; -1 = none

    def __len__(self) -> int:
        """Examples that `take` can give."""
        return len(self.label)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """The examples at `index` (int64 `[B]`, on the data's device): "x" `[B, ...]` and "label" int64 `[B]`."""
        return {"x": self.x.index_select(0, index), "label": self.label.index_select(0, index)}

    def to(self, device: str) -> Split:
        """The same examples in the memory of `device`; those that lie there already are not copied."""
        return replace(self, x=self.x.to(device), label=self.label.to(device))


@dataclass(frozen=True)
class Dataset:
    """Examples to learn from, to choose settings by, and to report on; no example is in two of the splits."""

    name: str
    spec: ObservationSpec  # of one example as `take` gives it
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...] = ()  # names of the labels; () = no labels


def hold_out(x: np.ndarray, label: np.ndarray, count: int) -> tuple[Split, Split]:
    """(all but the last `count` examples, those last), sharing the memory of `x` `[N, ...]` and `label` `[N]`."""
    images, labels = torch.from_numpy(x), torch.from_numpy(label.astype(np.int64))
    kept = len(labels) - count
    return Split(images[:kept], labels[:kept]), Split(images[kept:], labels[kept:])


def redivide(dataset: Dataset, held_out: int) -> Dataset:
    """The same data with the last `held_out` examples of training and validation for validation, and the rest to train.

    Raises:
        UserError: nothing would be left to train on, or the examples are built as they are taken.
    """
    parts = (dataset.train, dataset.validation)
    total = sum(map(len, parts))
    if any(type(part) is not Split for part in parts):
        raise UserError(f"{dataset.name} cannot be divided anew: leave out --held-out")
    if held_out >= total:
        raise UserError(f"--held-out {held_out} leaves nothing of {total} examples of {dataset.name} to train on")
    x, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "label"))
    first, last = (Split(x[half], label[half]) for half in (slice(-held_out), slice(-held_out, None)))
    return replace(dataset, train=first, validation=last)
