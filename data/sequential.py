"""MNIST as sequences: a digit row by row, 28 steps (Le, Jaitly and Hinton 2015, "A Simple Way to Initialize Recurrent
Networks of Rectified Linear Units", has pixel by pixel, 784 steps). Which digit it was is told at the last step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..envs.spec import ObservationSpec
from . import mnist
from .base import Split
from .sequences import NOT_ASKED, Batch, SequenceDataset, Sequences

WIDTHS = {"sequential-mnist": 28, "pixel-mnist": 1}  # bytes that a step shows
KINDS = {
    "sequential-mnist": "mnist's digits row by row: 28 steps of 28 bytes, the class at the last",
    "pixel-mnist": "mnist's digits pixel by pixel: 784 steps of one byte, the class at the last",
}


@dataclass(frozen=True)
class Digits(Sequences):
    """Steps that lie where the images do. `target` is int8, an eighth of the memory; `take` gives int64."""

    def take(self, index: Tensor) -> Batch:
        batch = super().take(index)
        return batch | {"target": batch["target"].long()}


def load(name: str) -> SequenceDataset:
    """`sequential-mnist`: uint8 `[28]` a step; `pixel-mnist`: uint8 `[1]`. Raises UserError as `mnist.load` does."""
    digits, width = mnist.load(), WIDTHS[name]
    return SequenceDataset(
        name,
        ObservationSpec((width,), "uint8", 0, 255),
        len(digits.classes),
        train=_read(digits.train, width),
        validation=_read(digits.validation, width),
        test=_read(digits.test, width),
        classes=digits.classes,
    )


def _read(images: Split, width: int) -> Sequences:
    steps = images.x[0].numel() // width
    target = torch.full((len(images), steps), NOT_ASKED, dtype=torch.int8)
    target[:, -1] = images.label
    return Digits(images.x.reshape(-1, width), target.reshape(-1), torch.arange(len(images) + 1) * steps)
