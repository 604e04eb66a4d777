"""Discriminative restricted Boltzmann machine: one whose label units make it a classifier by itself.

Larochelle & Bengio 2008 (ICML, "Classification using discriminative restricted Boltzmann machines"): p(y | x) is exact,
so its log is descended as it is; the hybrid adds contrastive divergence on the joint density, weighted (section 4), and
examples without a label add it on p(x) (section 5), for which their class is drawn from p(y | x).

The paper descends example by example with a plain rate; here what trains it chooses the rule, Adam by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import UnitScale, mean_losses, observed, require_numbers
from .parts.gibbs import Machine, hidden_mean, visible_mean
from .parts.given import with_gradient
from .parts.labelled import (
    JointGradient,
    Labelled,
    draw_class,
    hidden_given,
    joint_contrast,
    joint_walk,
    log_posterior,
    posterior_hidden,
)
from .parts.likelihoods import binarise
from .parts.units import UNITS

kind = "discriminative restricted Boltzmann machine: exact p(y | x), hybrid with the joint density"

Visible = Literal["auto", "bernoulli", "gaussian"]
Binarise = Literal["none", "dynamic", "threshold"]
Features = Literal["posterior", "input"]
SAMPLING_STEPS = 1000  # of Gibbs from noise


@dataclass(frozen=True)
class Config:
    hidden: int = 500  # units
    classes: int = 10  # of the labels
    discriminative: float = 1.0  # weight of -log p(y | x)
    generative: float = 0.01  # weight of -log p(x, y), by contrastive divergence; the paper's hybrid on MNIST
    unlabelled: float = 0.1  # weight of -log p(x) of examples without a label, likewise
    visible: Visible = "auto"  # auto: bernoulli where all elements are bounded, else gaussian
    binarise: Binarise = "none"  # of values in 0..1: probabilities as they are, bits drawn each time, or at 1/2
    steps: int = 1  # of Gibbs, the k of CD-k
    l2: float = 0.0  # weight decay by half the sum of squared weights
    features: Features = "posterior"  # hidden means given x, over its classes; or with all label units off


class Drbm(FeedForward):
    """One layer of features, a classifier and a density of observations and labels."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.scale = UnitScale(spec)
        bits = config.visible == "bernoulli" or (config.visible == "auto" and self.scale.bounded)
        self.visible: Literal["bernoulli", "gaussian"] = "bernoulli" if bits else "gaussian"
        self.sigmoid = bits
        self.feature_shape, self.needs_labels = (config.hidden,), bool(config.discriminative)
        self.weight = nn.Parameter(_uniform(config.hidden, spec.size))
        self.label_weight = nn.Parameter(_uniform(config.hidden, config.classes))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))
        self.label_bias = nn.Parameter(torch.zeros(config.classes))
        # p(y | x) alone knows nothing of it
        self.visible_bias = nn.Parameter(torch.zeros(spec.size), requires_grad=self._is_density())

    def labelled(self) -> Labelled:
        """The parameters as they are; what is computed from them has gradients."""
        return Labelled(self.machine(), self.label_weight, self.label_bias)

    def machine(self) -> Machine:
        """The part without label units."""
        return Machine(self.weight, self.visible_bias, self.hidden_bias, self.visible)

    def read_visible(self, x: Tensor, draws: bool = True) -> Tensor:
        """Observations to values of the visible units, float32 `[N, V]`; bits drawn anew where the config says so."""
        if draws and self.config.binarise == "dynamic":
            return binarise(x if x.dtype == torch.uint8 else self.scale(x)).flatten(1)
        v = self.scale(x).flatten(1)
        return (v >= 0.5).to(v.dtype) if self.config.binarise == "threshold" else v

    def encode(self, x: Tensor) -> Tensor:
        v = self.read_visible(x, draws=False)
        return (
            hidden_mean(self.machine(), v) if self.config.features == "input" else posterior_hidden(self.labelled(), v)
        )

    def classify(self, x: Tensor) -> Tensor:
        """log p(y | x), exactly: observations `[N, ...]` to float32 `[N, classes]`."""
        return log_posterior(self.labelled(), self.read_visible(x, draws=False)).float()

    def decode(self, code: Tensor) -> Tensor:
        """Features `[N, H]` to means of observations in unit scale, float32 `[N, *shape]`."""
        return visible_mean(self.machine(), code).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The means after one mean-field step up and down: unit scale, float32 `[N, *shape]`."""
        return self.decode(posterior_hidden(self.labelled(), self.read_visible(x, draws=False)))

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        steps: int = SAMPLING_STEPS,
        label: Tensor | None = None,
    ) -> Tensor:
        """Means after Gibbs steps from noise, float32 `[count, *shape]` in unit scale.

        Args:
            label: int64 `[count]`, clamped; None: the label units are drawn along.
        """
        device = self.weight.device
        drawn_on = device if generator is None else generator.device
        v = torch.rand(count, self.weight.shape[1], generator=generator, device=drawn_on).round().to(device)
        generator = generator if drawn_on == device else None
        model, clamped = self.labelled(), label is not None
        y = draw_class(self.label_bias.expand(count, -1), generator) if label is None else self._units(label, v)
        return joint_walk(model, v, y, steps, clamped=clamped, generator=generator).mean.unflatten(1, self.shape)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`classification` `[N]`, the weighted -log p(y | x), 0 without a label; and `reconstruction`, a scalar: its
        value is the squared error after one step, its gradient that of contrastive divergence on the joint density,
        both times their weight.

        Raises:
            UserError: a label beyond `classes`.
        """
        x, config = batch["x"], self.config
        label = batch.get("label")
        label = torch.full((len(x),), -1, device=x.device) if label is None else label.to(self.weight.device)
        v, known = self.read_visible(x), label >= 0
        losses = dict[str, Tensor]()
        posterior = None
        if config.discriminative:
            posterior = log_posterior(self.labelled(), v)
            chosen = posterior.gather(1, self._checked(label).unsqueeze(1)).squeeze(1)
            losses["classification"] = -config.discriminative * torch.where(known, chosen, torch.zeros_like(chosen))
        if self._is_density():
            error, gradient = self._generative(v, label, posterior)
            losses["reconstruction"] = with_gradient(error, [getattr(self, n) for n in gradient._fields], gradient)
        if config.l2:
            losses["weight_decay"] = config.l2 / 2 * (self.weight.square().sum() + self.label_weight.square().sum())
        return losses

    def stages(self) -> Sequence[Stage]:
        return [Stage("drbm", [p for p in self.parameters() if p.requires_grad], self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return mean_losses(self.loss({"x": observed(batch)}))

    @torch.no_grad()
    def _generative(self, v: Tensor, label: Tensor, posterior: Tensor | None) -> tuple[Tensor, JointGradient]:
        """The first step's error times the mean weight, and the weighted gradient of contrastive divergence."""
        with torch.autocast(v.device.type, enabled=False):
            model, known = self.labelled(), label >= 0
            v = v.to(self.weight.dtype)
            y = self._units(self._checked(label), v)
            if not bool(known.all()):  # the gradient of log p(x) is the joint's, mean over the classes given x
                scores = log_posterior(model, v) if posterior is None else posterior.detach().to(v.dtype)
                y = torch.where(known.unsqueeze(1), y, draw_class(scores))
            went = joint_walk(model, v, y, self.config.steps)
            h = UNITS[model.machine.hidden].mean(hidden_given(model, went.v, went.y))
            weights = v.new_tensor([self.config.unlabelled, self.config.generative])[known.long()]
            error = went.error * weights.sum() / max(len(v), 1)
            return error, joint_contrast((v, y, went.hidden), (went.v, went.y, h), weights)

    def _units(self, label: Tensor, like: Tensor) -> Tensor:
        return F.one_hot(label.to(like.device), self.config.classes).to(like.dtype)

    def _checked(self, label: Tensor) -> Tensor:
        """Classes, 0 for none."""
        if len(label) and not label.is_cuda and int(label.max()) >= self.config.classes:
            raise UserError(f"drbm: there is a label {int(label.max())}; give --encoder.classes {int(label.max()) + 1}")
        return label.clamp(min=0)

    def _is_density(self) -> bool:
        return bool(self.config.generative or self.config.unlabelled)


def _uniform(rows: int, columns: int) -> Tensor:
    """As the paper begins (section 6): uniform up to the root of the larger side's inverse."""
    return (torch.rand(rows, columns) * 2 - 1) / max(rows, columns) ** 0.5


def build(config: Config, spec: ObservationSpec) -> Drbm:
    """Raises SpecError for tokens and for bits from unbounded numbers, UserError for settings that make no sense."""
    require_numbers(spec, "drbm")
    choices = {"visible": get_args(Visible), "binarise": get_args(Binarise), "features": get_args(Features)}
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise UserError(f"drbm: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    for name, least in (("hidden", 1), ("classes", 2), ("steps", 1)):
        if getattr(config, name) < least:
            raise UserError(f"drbm: {name} must be at least {least}, not {getattr(config, name)}")
    for name in ("discriminative", "generative", "unlabelled", "l2"):
        if not getattr(config, name) >= 0:
            raise UserError(f"drbm: {name} must not be negative, but is {getattr(config, name)}")
    if not (config.discriminative or config.generative or config.unlabelled):
        raise UserError("drbm: with discriminative, generative and unlabelled all 0 there is nothing to learn")
    bits = UnitScale(spec).bounded and config.visible != "gaussian"
    if not bits and (config.visible == "bernoulli" or config.binarise != "none"):
        raise SpecError(f"encoder 'drbm' makes bits only of bounded observations, not of {spec.describe()}")
    return Drbm(config, spec)
