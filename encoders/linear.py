"""A linear autoencoder: at its best it spans the principal components (Baldi & Hornik 1989, Neural Networks 2, 53)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import UnitScale, observed_losses, require_numbers
from .parts.initialise import initialise
from .parts.moments import Moments
from .parts.stacks import reconstruction_error

kind = "linear autoencoder, by gradients or as principal components in closed form"

Solver = Literal["gradient", "pca"]
LARGEST_COVARIANCE = 8192  # numbers in an observation; the matrix has their square


@dataclass(frozen=True)
class Config:
    code: int = 30  # numbers in the code
    solver: Solver = "gradient"  # pca: one epoch gathers the covariance, then its eigenvectors are the weights


class Linear(FeedForward):
    """Two linear maps with biases and nothing between them."""

    window = 1

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape = (config.code,)
        self.scale = UnitScale(spec)
        self.up, self.down = nn.Linear(spec.size, config.code), nn.Linear(config.code, spec.size)
        initialise(self, "orthogonal", 1.0)
        self.moments = Moments(spec.size) if config.solver == "pca" else None

    def encode(self, x: Tensor) -> Tensor:
        return self.up(self.scale(x).flatten(1))

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, D]` to observations in unit scale, float32 `[N, *shape]`."""
        return self.down(code).float().unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]`: the squared error."""
        x = self.scale(batch["x"]).flatten(1)
        return {"reconstruction": reconstruction_error(self.down(self.up(x)), x, "squared", sigmoid=False)}

    def stages(self) -> Sequence[Stage]:
        parameters = [*self.up.parameters(), *self.down.parameters()]
        if self.moments is None:
            return [Stage("gradient", parameters, self.loss)]
        return [Stage("covariance", parameters, self._gathering_loss, finish=self._solve)]

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the weights to the principal components of `x` `[N, ...]`, which may replace all training."""
        moments = Moments(self.up.in_features).to(self.up.weight.device)
        for part in x.split(1000):
            moments.add(self.scale(part).flatten(1))
        self._set(moments)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def _gathering_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.training and self.moments is not None:
            self.moments.add(self.scale(batch["x"]).flatten(1))
        return self.loss(batch)

    def _solve(self) -> None:
        if self.moments is not None and self.moments.count > 0:
            self._set(self.moments)

    @torch.no_grad()
    def _set(self, moments: Moments) -> None:
        components = moments.components(self.config.code)
        self.up.weight.copy_(components)
        self.up.bias.copy_(-components @ moments.mean)
        self.down.weight.copy_(components.T)
        self.down.bias.copy_(moments.mean)


def build(config: Config, spec: ObservationSpec) -> Linear:
    """Raises SpecError for tokens, UserError for sizes that make no sense."""
    require_numbers(spec, "linear")
    if config.solver not in get_args(Solver):
        raise UserError(f"linear: unknown solver {config.solver!r}; known: {', '.join(get_args(Solver))}")
    if config.code < 1:
        raise UserError(f"linear: code must be a positive size, not {config.code}")
    if config.solver == "pca" and not config.code <= spec.size <= LARGEST_COVARIANCE:
        raise UserError(
            f"linear: solver pca needs observations of {config.code} (the code) to {LARGEST_COVARIANCE:,} numbers, "
            f"not {spec.size:,}; use --encoder.solver gradient"
        )
    return Linear(config, spec)
