"""Contractive autoencoders: codes that change little with the input (Rifai et al. 2011, ICML)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import ACTIVATIONS, Activation, UnitScale, observed_losses, require_numbers
from .parts.stacks import Error, Level, Stack, greedy_stages, reconstruction_error

kind = "contractive autoencoder with the exact penalty, one level or stacked"


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = ()  # units of the levels below the code
    code: int = 1000  # units of the highest level
    activation: Activation = "sigmoid"  # of every level
    penalty: float = 0.1  # times the squared Frobenius norm of a level's Jacobian
    tied: bool = True  # the decoder uses the encoder's weights, transposed


class Contractive(FeedForward):
    """Levels that are trained one after the other, each as a contractive autoencoder of the one below."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape = (config.code,)
        self.scale = UnitScale(spec)
        sizes = (spec.size, *config.hidden, config.code)
        self.stack = Stack(
            [Level(inputs, units, config.activation, tied=config.tied) for inputs, units in itertools.pairwise(sizes)]
        )

    def encode(self, x: Tensor) -> Tensor:
        return self.stack.encode(self._read(x))

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, D]` to observations in unit scale, float32 `[N, *shape]`."""
        logits = self.stack.decode(code).float()
        return (logits.sigmoid() if self.scale.bounded else logits).unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """All levels at once, each on the codes of those below, which get no gradient from it. Each value `[N]`."""
        losses, x = {}, batch["x"]
        for number, level in enumerate(self.stack.levels):
            for name, value in self._level_loss(number, {"x": x}).items():
                losses[f"{name}_{number + 1}"] = value
            x = level.encode(x if number else self._read(x)).detach()
        return losses

    def stages(self) -> Sequence[Stage]:
        return greedy_stages(self.stack, self._read, self._level_loss)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def _level_loss(self, number: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Equation 4: inputs in 0..1 are restored by cross-entropy, others by squared error."""
        level = self.stack.levels[number]
        x = batch["x"] if number else self._read(batch["x"])
        bounded = self.config.activation == "sigmoid" if number else self.scale.bounded
        error: Error = "bernoulli" if bounded else "squared"
        before = level.up(x)
        logits = level.decode(level.activation(before))
        if number and not bounded:
            logits = self.stack.levels[number - 1].activation(logits)
        return {
            "reconstruction": reconstruction_error(logits, x, error, sigmoid=bounded),
            "contraction": self.config.penalty
            * squared_jacobian(level.up.weight, before, level.activation(before), self.config.activation),
        }

    def _read(self, x: Tensor) -> Tensor:
        return self.scale(x).flatten(1)


def squared_jacobian(weight: Tensor, before: Tensor, after: Tensor, activation: Activation) -> Tensor:
    """The squared Frobenius norm `[N]` of the Jacobian of `after = f(x weight.T + bias)` with respect to x, exactly.

    Its elements are f'(before_j) weight_ji, so the norm is a sum over units (equation 6), in float32.

    Args:
        weight: `[K, D]`.
        before, after: `[N, K]`, the units before and after their activation.
    """
    with torch.autocast(weight.device.type, enabled=False):
        return slopes(before.float(), after.float(), activation).square() @ weight.float().square().sum(1)


def slopes(before: Tensor, after: Tensor, activation: Activation) -> Tensor:
    """The derivative of the activation, from its argument and its value."""
    if activation == "sigmoid":
        return after * (1 - after)
    if activation == "tanh":
        return 1 - after.square()
    if activation == "relu":
        return (before > 0).to(before.dtype)
    if activation == "silu":
        return before.sigmoid() + after * (1 - before.sigmoid())
    negative = after + (_SELU_SCALE * _SELU_ALPHA if activation == "selu" else 1.0)
    return torch.where(before > 0, _SELU_SCALE if activation == "selu" else 1.0, negative)


_SELU_SCALE, _SELU_ALPHA = F.selu(torch.ones(())).item(), 1.6732632423543772


def build(config: Config, spec: ObservationSpec) -> Contractive:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "contractive")
    if config.activation not in ACTIVATIONS:
        raise UserError(f"contractive: unknown activation {config.activation!r}; known: {', '.join(ACTIVATIONS)}")
    if min((*config.hidden, config.code)) < 1:
        raise UserError(f"contractive: units must be positive, not {(*config.hidden, config.code)}")
    if config.penalty < 0:
        raise UserError(f"contractive: penalty must not be negative, but is {config.penalty}")
    return Contractive(config, spec)
