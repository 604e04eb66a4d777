"""Hebbian learning of principal components: Oja's subspace rule and Sanger's rule, linear and non-linear.

With centred input x, u = W x and y = f(u), the rules are

    Oja (1989, International Journal of Neural Systems 1, 61):   dW_i = y_i (x - sum_j W_j y_j)
    Sanger (1989, Neural Networks 2, 459, equation 4):           dW_i = y_i (x - sum_{j <= i} W_j y_j)

Both are y_i e_i with e_i what is left of the input, and descend |e_i|^2 / 2 through the decoder only: the way through
the encoder, f'(u_i) (W_i e_i) x, vanishes on average for linear units whose weights are orthonormal. For non-linear
units it does not, so that there the rule is y_i e_i + f'(u_i) (W_i e_i) x, the whole gradient (Karhunen & Joutsensalo
1994, Neural Networks 7, 113).

The learning rate counts in units of the input's variance: alpha = rate * gain / mean squared norm of x. So one rate
serves digits and game frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group, Stage, Trajectory
from .parts.coders import UnitScale, observed_losses, require_numbers

kind = "principal components by Oja's or Sanger's rule, linear or non-linear"

Rule = Literal["oja", "sanger"]
Units = Literal["linear", "tanh", "sigmoid"]
MEMORY = 1000.0  # batches over which mean and variance of the input are averaged at most


@dataclass(frozen=True)
class Config:
    code: int = 10  # units
    rule: Rule = "sanger"  # oja finds the subspace, sanger the components themselves
    activation: Units = "linear"
    gain: float = 200.0  # times the trainer's rate, which is the rule's step in units of the input's variance


class Hebbian(FeedForward):
    """One layer whose weights follow a rule; as a loss under plain descent, see `loss`."""

    window = 1
    mean: Tensor
    power: Tensor
    batches: Tensor

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape = (config.code,)
        self.scale = UnitScale(spec)
        self.weight = nn.Parameter(torch.empty(config.code, spec.size))
        nn.init.orthogonal_(self.weight)
        self.register_buffer("mean", torch.zeros(spec.size))
        self.register_buffer("power", torch.ones(()))  # mean squared norm of the centred input
        self.register_buffer("batches", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        return activate(self._centred(x) @ self.weight.T, self.config.activation)

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, D]` to observations in unit scale, float32 `[N, *shape]`."""
        return (self.mean + code @ self.weight).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]`: its value is the squared error, its gradient minus the rule's step.

        The gradient of the batch's mean with respect to `weight` is exactly -gain / power times the mean of `update`.
        """
        if self.training:
            self._follow(self.scale(batch["x"]).flatten(1))
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            x = self._centred(batch["x"])
            step, left = update(self.weight, x, self.config.rule, self.config.activation)
            step *= self.config.gain / self.power
        along = (self.weight * step).sum()
        return {"reconstruction": left.square().sum(1) - (along - along.detach())}

    def stages(self) -> Sequence[Stage]:
        return [Stage(self.config.rule, [self.weight], self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def parameter_groups(self) -> list[Group]:
        return [Group("hebbian", [self.weight], optimizer="sgd")]

    def _centred(self, x: Tensor) -> Tensor:
        return self.scale(x).flatten(1) - self.mean

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        """Average mean and mean squared norm, over all batches so far, later over the last ones."""
        self.batches += 1
        share = 1 / self.batches.clamp(max=MEMORY)
        self.mean.lerp_(x.mean(0), share)
        power = (x - self.mean).square().sum(1).mean()
        self.power.lerp_(power, share).clamp_(min=1e-6)


def activate(u: Tensor, activation: Units) -> Tensor:
    return u if activation == "linear" else u.tanh() if activation == "tanh" else u.sigmoid()


def update(weight: Tensor, x: Tensor, rule: Rule, activation: Units) -> tuple[Tensor, Tensor]:
    """The rule's step `[K, D]`, the mean over the batch, and what is left of the input after all units `[N, D]`.

    Args:
        weight: `[K, D]`.
        x: centred input `[N, D]`.
    """
    number = len(x)
    u = x @ weight.T
    y = activate(u, activation)
    left = x - y @ weight
    overlap = y.T @ y / number
    if rule == "sanger":
        overlap = overlap.tril()
    step = y.T @ x / number - overlap @ weight
    if activation != "linear":
        slope = 1 - y.square() if activation == "tanh" else y * (1 - y)
        gram = weight @ weight.T
        if rule == "sanger":
            gram = gram.tril()
        agreement = u - y @ gram.T  # [N, K]: W_i e_i
        step = step + (slope * agreement).T @ x / number
    return step, left


def build(config: Config, spec: ObservationSpec) -> Hebbian:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "hebbian")
    for name, known in (("rule", get_args(Rule)), ("activation", get_args(Units))):
        if getattr(config, name) not in known:
            raise UserError(f"hebbian: unknown {name} {getattr(config, name)!r}; known: {', '.join(known)}")
    if config.code < 1:
        raise UserError(f"hebbian: code must be a positive number of units, not {config.code}")
    if not config.gain > 0:
        raise UserError(f"hebbian: gain must be positive, not {config.gain}")
    return Hebbian(config, spec)
