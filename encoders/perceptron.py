"""Perceptron: one weight vector per class, moved by each mistake (Rosenblatt 1958, Psychological Review 65, 386).

Where an example x of class y scores no higher than its strongest rival r, w_y += x and w_r -= x; with two classes the
difference of their weights follows Rosenblatt's own rule, twice as fast (Duda, Hart & Stork 2001, section 5.12, on
Kesler's construction). On separable data the mistakes are few (Novikoff 1962; Crammer & Singer 2003 for many classes):
at most 2 R^2 / gamma^2, with R the largest norm of an example, its constant 1 for the bias included, and gamma the
margin by which some weights of total norm 1 separate the classes.

As a loss under plain descent: the mean over the batch of max(0, score of r - score of y), whose gradient is minus the
rule's step, a tie included. `fit` takes one example after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage
from .parts.coders import UnitScale, require_numbers

kind = "perceptron: Rosenblatt's rule for two or more classes; the features are their scores"


@dataclass(frozen=True)
class Config:
    classes: int = 10  # labels are 0 to classes - 1
    gain: float = (
        1000.0  # times the trainer's rate is the rule's step; its size changes no decision if weights begin at 0
    )
    spread: float = 0.01  # standard deviation of the weights at first; 0: as Rosenblatt begins


class Perceptron(FeedForward):
    """The features are the classes' scores; labels -1 (none) teach nothing."""

    needs_labels = True

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.feature_shape = (config.classes,)
        self.scale = UnitScale(spec)
        self.weight = nn.Parameter(config.spread * torch.randn(config.classes, spec.size))
        self.bias = nn.Parameter(torch.zeros(config.classes))

    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.scale(x).flatten(1), self.weight, self.bias)

    def predict(self, x: Tensor) -> Tensor:
        """The class of each observation `[N, ...]`: int64 `[N]`."""
        return self.encode(x).argmax(1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`perceptron` `[N]`: by how much the strongest rival is ahead; 0 where nothing beats or equals the class.

        Raises:
            UserError: a label is not among the classes.
        """
        scores, label = self.encode(batch["x"]), batch.get("label")
        if label is None:
            return {"perceptron": 0 * scores.sum(1)}
        self._check(label)
        known = label >= 0
        index = label.clamp(min=0).unsqueeze(1)
        own = scores.gather(1, index).squeeze(1)
        rival = scores.scatter(1, index, -torch.inf).max(1).values  # of equal ones the gradient goes to one
        wrong = known & (own <= rival)
        return {"perceptron": torch.where(wrong, rival - own, 0 * own)}

    def stages(self) -> Sequence[Stage]:
        return [Stage("perceptron", list(self.parameters()), self.loss)]

    def parameter_groups(self) -> list[Group]:
        return [Group("perceptron", list(self.parameters()), self.config.gain, optimizer="sgd")]

    @torch.no_grad()
    def fit(self, x: Tensor, label: Tensor, epochs: int = 100) -> list[int]:
        """Rosenblatt's rule, one example after the other, until an epoch passes without a mistake.

        Args:
            x: `[N, ...]`.
            label: int64 `[N]`; -1: left out.

        Returns:
            mistakes in each epoch; the last is 0 where the data were separated.

        Raises:
            UserError: a label is not among the classes.
        """
        self._check(label)
        rows, labels = self.scale(x).flatten(1)[label >= 0], label[label >= 0].tolist()
        mistakes = []
        for _ in range(epochs):
            wrong = 0
            for row, own in zip(rows, labels, strict=True):
                scores = self.weight @ row + self.bias
                mine = float(scores[own])
                scores[own] = -torch.inf
                rival = int(scores.argmax())
                if mine <= float(scores[rival]):
                    wrong += 1
                    self.weight[own] += row
                    self.weight[rival] -= row
                    self.bias[own] += 1
                    self.bias[rival] -= 1
            mistakes.append(wrong)
            if not wrong:
                break
        return mistakes

    def _check(self, label: Tensor) -> None:
        if label.numel() and int(label.max()) >= self.config.classes:
            raise UserError(f"perceptron: label {int(label.max())} is not among {self.config.classes} classes")


def build(config: Config, spec: ObservationSpec) -> Perceptron:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "perceptron")
    if config.classes < 2:
        raise UserError(f"perceptron: it tells two classes or more apart, not {config.classes}")
    if not config.gain > 0 or config.spread < 0:
        raise UserError("perceptron: gain must be positive, spread must not be negative")
    return Perceptron(config, spec)
