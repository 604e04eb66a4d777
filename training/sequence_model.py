"""An encoder that answers at the steps of a sequence: what `saccade fit` trains on sequences, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data.sequences import NOT_ASKED, Batch, Sequences
from ..encoders.base import Encoder
from .classifier import interval
from .task import TaskModel, dense_head

STEPS_AT_ONCE = 50_000  # in judging; padding counts


class SequenceModel(TaskModel):
    """Encoder, dense layers with ReLU, and one output per class or bit, at every step that is asked for one."""

    def __init__(
        self,
        encoder: Encoder,
        outputs: int,
        hidden: tuple[int, ...] = (),
        *,
        asks_bits: bool = False,
        answers: float | None = None,
        frozen: bool = False,
    ):
        """`answers`: mean number that a sequence is asked for. With it, every answer of the training set counts alike,
        also where batches hold sequences of one kind; without, those of a batch share one weight."""
        super().__init__(encoder, frozen)
        self.asks_bits, self.answers = asks_bits, answers
        self.head = dense_head(math.prod(encoder.feature_shape), hidden, outputs)
        self.train()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits `[M, outputs]` and targets (int64 `[M]`, or bits `[M, outputs]`) of the M steps that are asked."""
        x, mask, target = (batch[name].transpose(0, 1) for name in ("x", "mask", "target"))
        features = self.sequence_features(x, mask, batch["reset"].T if "reset" in batch else None)
        asked = self.asked(batch)
        return self.head(features[asked]), target[asked]

    def asked(self, batch: Batch) -> Tensor:
        """Bool `[L, B]`: the steps with a target."""
        target = batch["target"].transpose(0, 1)
        return (target[..., 0] if self.asks_bits else target) != NOT_ASKED

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per step that is asked: cross-entropy of the class, or of all its bits together."""
        logits, target = self(batch)
        nats = self.cross_entropy(logits, target)
        if self.answers is not None:
            nats = nats * (len(nats) / (len(batch["target"]) * self.answers))
        return {"cross_entropy": nats}

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each step, `[M]`."""
        if self.asks_bits:
            return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").sum(-1)
        return F.cross_entropy(logits.float(), target, reduction="none")


class Answers(NamedTuple):
    """How each of N sequences was answered."""

    asked: np.ndarray  # int64 [N]: answers, or bits, that were asked for
    wrong: np.ndarray  # int64 [N]
    nats: np.ndarray  # float64 [N]: summed over what was asked

    def report(self, split: Sequences, groups: tuple[str, ...]) -> dict[str, Any]:
        """What result.json says: shares of mistakes, of sequences without any, and by group."""
        asked, wrong = int(self.asked.sum()), int(self.wrong.sum())
        low, high = interval(wrong, asked)
        found: dict[str, Any] = {
            "error": wrong / asked,
            "low": low,
            "high": high,
            "mistakes": wrong,
            "asked": asked,
            "sequences": len(self.asked),
            "without_mistake": float((self.wrong == 0).mean()),
            "cross_entropy": float(self.nats.sum() / asked),
        }
        if split.group is None:
            return found
        group = split.group.cpu().numpy()
        present = [number for number in range(len(groups)) if (group == number).any()]
        errors = {groups[n]: float(self.wrong[group == n].sum() / self.asked[group == n].sum()) for n in present}
        return found | {"groups": errors, "mean_of_groups": float(np.mean(list(errors.values())))}


@torch.no_grad()
def answer(model: SequenceModel, split: Sequences, compute: Compute | None = None) -> Answers:
    """Answer all of `split` in eval mode; the model is back in the mode it was in afterwards."""
    compute = compute or Compute()
    was_training = model.training
    model.eval()
    table = np.zeros((3, len(split)))
    try:
        for index in by_length(split):
            batch = {name: value.to(compute.device) for name, value in split.take(index).items()}
            with compute.autocast():
                logits, target = model(batch)
            row = model.asked(batch).nonzero()[:, 1]
            nats = model.cross_entropy(logits, target)
            if model.asks_bits:
                counts, wrong = torch.full_like(row, target.shape[1]), ((logits > 0) != (target > 0.5)).sum(1)
            else:
                counts, wrong = torch.ones_like(row), logits.argmax(1) != target
            sums = [torch.zeros(len(index), dtype=torch.float64, device=row.device) for _ in range(3)]
            for total, values in zip(sums, (counts, wrong, nats), strict=True):
                total.index_add_(0, row, values.double())
            table[:, index.cpu().numpy()] = torch.stack(sums).cpu().numpy()
    finally:
        model.train(was_training)
    return Answers(table[0].astype(np.int64), table[1].astype(np.int64), table[2])


def by_length(split: Sequences) -> Iterator[Tensor]:
    """Indices of all sequences, int64, in batches of about equal length and at most `STEPS_AT_ONCE` steps."""
    lengths = split.lengths.cpu()
    order = lengths.argsort(stable=True)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * int(lengths[order[stop]]) <= STEPS_AT_ONCE:
            stop += 1
        yield order[start:stop].to(split.start.device)
        start = stop
