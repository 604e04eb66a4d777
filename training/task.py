"""What a supervised run learns: a task makes the model, the loop over its examples, and the judgement.

`fit` is one program for all of them; what differs between images with a class and sequences with answers is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..agents.parts.compute import Compute
from ..encoders.base import Encoder, Group, Inputs
from ..encoders.parts.augment_images import Augmentation
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .epochs import BatchSource, Loss, Trainer
from .fit_plan import FitPlan
from .optimise import Optimiser

SplitName = Literal["validation", "test"]


@dataclass(frozen=True)
class Judged:
    """How well a model does on a split."""

    error: float  # what early stopping and the choice of settings look at; less is better
    values: dict[str, float]  # logged after an epoch, "error" among them
    report: dict[str, Any]  # goes into result.json
    detail: Any = None  # whatever the task's pictures need


class TaskModel(nn.Module):
    """An encoder with something on top. A frozen encoder stays in eval mode, without gradient."""

    def __init__(self, encoder: Encoder, frozen: bool = False):
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        if frozen:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> TaskModel:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def gradients_reach_encoder(self) -> torch.set_grad_enabled:
        """A context in which the encoder is called: without gradients where it is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    def sequence_features(self, x: Tensor, mask: Tensor, reset: Tensor | None = None) -> Tensor:
        """The encoder's features `[L, B, D]` of padded sequences `[L, B, ...]`; `mask` and `reset`: bool `[L, B]`."""
        with self.gradients_reach_encoder():
            inputs = Inputs(x, mask=None if bool(mask.all()) else mask)
            return self.encoder.read_sequences(inputs, reset).flatten(2)

    def after_update(self) -> None:
        if not self.frozen:
            self.encoder.after_update()

    def groups(self, encoder_rate: float) -> list[Group]:
        """Who trains how: the encoder's own groups at `encoder_rate` times their rate, and all the rest, "head"."""
        groups = [] if self.frozen else self.encoder.parameter_groups()
        own = [
            group._replace(name=f"encoder.{group.name}", learning_rate_factor=group.learning_rate_factor * encoder_rate)
            for group in groups
        ]
        encoders = {id(parameter) for parameter in self.encoder.parameters()}
        rest: list[nn.Parameter] = [p for p in self.parameters() if id(p) not in encoders]
        return [*own, Group("head", rest)]


def dense_head(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Dense layers with ReLU between them, and none behind the last."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def plain_trainer(plan: FitPlan, model: TaskModel, loss: Loss, batches: BatchSource, compute: Compute) -> Trainer:
    """The loop that the plan's settings say, over `batches` with `loss`."""
    run = plan.run
    optimiser = Optimiser(
        model.groups(run.encoder_rate),
        learning_rate=run.learning_rate,
        rule=run.optimizer,
        momentum=run.momentum,
        beta2=run.beta2,
        weight_decay=run.weight_decay,
        max_gradient_norm=run.max_gradient_norm,
        compute=compute,
    )
    return Trainer(
        model,
        loss,
        optimiser,
        batches,
        epochs=run.epochs,
        schedule=run.schedule,
        warmup=run.warmup,
        compute=compute,
        after_update=model.after_update,
    )


def refuse_image_settings(plan: FitPlan) -> None:
    """Raises UserError where the plan of sequences or texts asks what only images and vectors with a class can do."""
    run = plan.run
    if plan.augment != Augmentation() or run.alternate_flip or run.views != "one":
        raise UserError(
            f"{plan.task} holds sequences, which cannot be moved or mirrored: leave out --augment, --alternate-flip "
            "and --views"
        )
    if run.labels or run.held_out:
        raise UserError(f"{plan.task}: --labels and --held-out are for images only")


class Task(ABC):
    """Subclasses hold their data; a run holds one of them."""

    spec: ObservationSpec  # of what the encoder reads, one step of it where there are sequences
    unit: str = "examples"  # what is counted
    is_heavy: bool = False  # as much is computed as for images: worth all cores, and bfloat16
    watched: tuple[str, str] = ("validation/error", "validation error {:.2%}")  # in the progress bar

    @abstractmethod
    def make_model(self, plan: FitPlan, *, weights: bool) -> TaskModel:
        """The model before training, drawn from the plan's seed.

        Args:
            weights: take the bundle's, where there is one, and fit to the data what is to be; False: a checkpoint will.

        Raises:
            UserError: the encoder or the bundle does not fit the data.
        """

    @abstractmethod
    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        """The loop over the training examples."""

    @abstractmethod
    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        """All of a split in eval mode; `is_final`: for the result, once, with all the plan asks for."""

    @abstractmethod
    def score(self, judged: Judged) -> dict[str, Any]:
        """What a run is known by, from the test set: {"mean": a number, "what": in words}."""

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        """More that result.json says of the run."""
        return {}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        """Pictures of the judged test set and of the model, by name."""
        return {}

    def save_beside(self, bundle: Path) -> None:
        """Write what belongs to the encoder in `bundle` and is no part of it, such as the words of its tokens."""
        return

    def begin_epoch(self, trainer: Trainer) -> None:
        """Called before the first batch of every epoch but the first, and after a resumption."""
        return
