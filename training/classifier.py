"""An encoder with a head that names classes: the model of `saccade fit`, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data import Split
from ..encoders.base import Encoder
from ..encoders.parts.augment_images import crop_images, pad_images
from ..envs.errors import UserError
from .epochs import in_order
from .fit_plan import Views
from .task import TaskModel, dense_head

_Z = 1.959964  # of a 95 % interval
_EVALUATED = 500  # examples at a time


class Classifier(TaskModel):
    """Encoder, dense layers with ReLU, one output per class."""

    def __init__(
        self, encoder: Encoder, classes: int, hidden: tuple[int, ...] = (), scale: float = 1.0, frozen: bool = False
    ):
        """`scale`: what the logits are multiplied with; below 1 the head is slower to be sure of itself."""
        super().__init__(encoder, frozen)
        self.scale = scale
        self.head = dense_head(math.prod(encoder.feature_shape), hidden, classes)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, classes]` of observations `[N, ...]`."""
        return self.classify(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """Flat features `[N, D]` of observations `[N, ...]`."""
        with self.gradients_reach_encoder():
            return self.encoder.read(x).flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        """Logits `[N, classes]` of features `[N, D]`."""
        logits = self.head(features)
        return logits if self.scale == 1 else logits * self.scale


class Average:
    """A running average of a module's parameters and floating-point buffers, for evaluation (Polyak averaging).

    It is updated every `interval` updates, and young averages forget faster: the decay is at most (1 + n) / (10 + n)
    after n of them.
    """

    def __init__(self, module: nn.Module, decay: float, interval: int = 5):
        self.decay, self.interval, self.count = decay, interval, 0
        self._live = [t for t in module.state_dict(keep_vars=True).values() if t.is_floating_point()]
        self._mean = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take note of the module after so many updates in all."""
        if updates % self.interval:
            return
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self._mean, [tensor.detach() for tensor in self._live], 1 - decay)
        self.count += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the module's values with the average; do it again to undo it."""
        for live, mean in zip(self._live, self._mean, strict=True):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": list(self._mean)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.count = saved["count"]
        for mean, value in zip(self._mean, saved["mean"], strict=True):
            mean.copy_(value)


class Judgement(NamedTuple):
    """How well a classifier does on a split."""

    cross_entropy: float  # nats per example
    confusion: np.ndarray  # int64 [classes, classes]: how often the row's class was called the column's

    @property
    def examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def mistakes(self) -> int:
        return self.examples - int(np.trace(self.confusion))

    def to_json(self) -> dict[str, Any]:
        low, high = interval(self.mistakes, self.examples)
        error = self.mistakes / self.examples
        return {"error": error, "low": low, "high": high, "mistakes": self.mistakes, "examples": self.examples} | {
            "accuracy": 1 - error,
            "cross_entropy": self.cross_entropy,
        }


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays within 0..1 and holds for small shares, too."""
    share, z2 = hits / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


@torch.no_grad()
def judge(
    classifier: Classifier, split: Split, classes: int, compute: Compute | None = None, views: Views = "one"
) -> Judgement:
    """All labelled examples of `split` in eval mode; the classifier is back in the mode it was in afterwards.

    Args:
        views: logits are averaged over the image itself, its mirror image ("flip"), and copies that are moved by a
            pixel to two sides ("shift").
    """
    compute = compute or Compute()
    was_training = classifier.training
    classifier.eval()
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=compute.device)
    loss = torch.zeros((), dtype=torch.float64, device=compute.device)
    try:
        for batch in in_order(split, _EVALUATED, compute.device):
            known = batch["label"] >= 0
            x, label = (batch["x"], batch["label"]) if known.all() else (batch["x"][known], batch["label"][known])
            with compute.autocast():
                logits = torch.stack([classifier(view).float() for view in views_of(x, views)]).mean(0)
            loss += F.cross_entropy(logits, label, reduction="sum")
            confusion += (label * classes + logits.argmax(1)).bincount(minlength=classes * classes)
    finally:
        classifier.train(was_training)
    table = confusion.view(classes, classes).cpu().numpy()
    return Judgement(float(loss) / max(int(table.sum()), 1), table)


def views_of(x: Tensor, views: Views) -> Iterable[Tensor]:
    """Images `[N, C, H, W]` as they are judged; see `judge`."""
    if views == "one":
        return [x]
    moved = [x]
    if "shift" in views:
        size = (x.shape[-2], x.shape[-1])
        wide, zero = pad_images(x, 1, "reflect"), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        moved += [crop_images(wide, zero + place, zero + place, size) for place in (0, 2)]
    return [*moved, *(view.flip(-1) for view in moved)] if "flip" in views else moved


def few_labels(split: Split, count: int, classes: int, seed: int) -> Split:
    """`count` labelled examples of `split`, of each class as many as of any other but for one.

    Raises:
        UserError: there are not so many.
    """
    generator = np.random.default_rng([seed, count])
    label = split.label.cpu().numpy()
    chosen = []
    for number, kind in enumerate(generator.permutation(classes)):
        members = np.flatnonzero(label == kind)
        wanted = count // classes + (number < count % classes)
        if wanted > len(members):
            raise UserError(
                f"--labels {count} needs {wanted:,} examples of class {kind}, but there are {len(members):,}"
            )
        chosen.append(generator.permutation(members)[:wanted])
    index = torch.from_numpy(np.sort(np.concatenate(chosen))).to(split.label.device)
    taken = split.take(index)
    return Split(taken["x"], taken["label"])
