"""From a supervised plan to its model and the loop over its training examples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data import Batches, Dataset, Split
from ..encoders.parts.augment_images import Augmentation, augment, flip_where
from .classifier import Classifier, few_labels
from .epochs import Trainer, in_order
from .fit_encoder import first_encoder, takes_weights
from .fit_plan import FitPlan
from .task import plain_trainer

LOOKED_AT = 5_000  # training images that an encoder is fitted to before training


@runtime_checkable
class FitsToData(Protocol):
    """An encoder with something that is set from data before training, such as a whitening."""

    def fit_to(self, x: Tensor) -> None:
        """`x` `[N, ...]`: some thousand observations, as they are stored."""
        ...


@dataclass(frozen=True)
class Alternating(Split):
    """Images of which a random half is mirrored in even epochs, and the other half in odd ones."""

    mirrored: Tensor  # bool [N], in even epochs
    epoch: Tensor  # int64 [], written to by whoever counts

    def take(self, index: Tensor) -> dict[str, Tensor]:
        batch = super().take(index)
        now = self.mirrored.index_select(0, index) ^ (self.epoch % 2 == 1)
        return batch | {"x": flip_where(batch["x"], now)}

    def to(self, device: str) -> Alternating:
        moved = {name: getattr(self, name).to(device) for name in ("x", "label", "mirrored", "epoch")}
        return dataclasses.replace(self, **moved)


def make_classifier(plan: FitPlan, dataset: Dataset, *, weights: bool = True) -> Classifier:
    """The model before training, drawn from the plan's seed.

    Args:
        weights: take the bundle's, where there is one, and fit to the data what is to be; False: a checkpoint will.

    Raises:
        UserError: the encoder or the bundle does not fit the data.
    """
    run = plan.run
    torch.manual_seed(run.seed)
    encoder = first_encoder(plan, dataset.spec, weights=weights)
    if weights and not takes_weights(plan) and isinstance(encoder, FitsToData):
        encoder.fit_to(dataset.train.take(torch.arange(min(LOOKED_AT, len(dataset.train))))["x"])
    frozen = run.encoder_mode == "frozen"
    return Classifier(encoder, len(dataset.classes), run.hidden, run.head_scale, frozen)


def make_trainer(plan: FitPlan, dataset: Dataset, classifier: Classifier, compute: Compute) -> Trainer:
    """The loop over the training examples that the plan names."""
    run, train = plan.run, dataset.train
    known = train.label >= 0
    if not known.all():
        chosen = train.take(known.nonzero().flatten())
        train = Split(chosen["x"], chosen["label"])
    if run.labels:
        train = few_labels(train, run.labels, len(dataset.classes), run.seed)
    is_encoded = classifier.frozen and plan.augment == Augmentation() and not run.alternate_flip
    if is_encoded:  # nothing about the features will change: they are computed once
        train = _encoded(classifier, train, compute)
    elif run.alternate_flip:
        generator = torch.Generator().manual_seed(run.seed)
        mirrored = torch.rand(len(train), generator=generator) < 0.5
        train = Alternating(train.x, train.label, mirrored, torch.zeros((), dtype=torch.int64))

    def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"]
        logits = classifier.classify(x) if is_encoded else classifier(augment(x, plan.augment))
        error = F.cross_entropy(logits.float(), batch["label"], reduction="none", label_smoothing=run.label_smoothing)
        return {"cross_entropy": error}

    batches = Batches(train, min(run.batch_size, len(train)), run.seed, compute.device)
    return plain_trainer(plan, classifier, loss, batches, compute)


@torch.no_grad()
def _encoded(classifier: Classifier, split: Split, compute: Compute) -> Split:
    with compute.autocast():
        parts = [classifier.encode(batch["x"]).float() for batch in in_order(split, 1000, compute.device)]
    return Split(torch.cat(parts), split.label.to(compute.device))
