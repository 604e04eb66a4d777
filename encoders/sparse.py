"""Sparse autoencoders: units that are rarely active (KL penalty), or a fixed number of active units (k-sparse)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Stage, Trajectory
from .parts.coders import UnitScale, observed_losses, require_numbers
from .parts.stacks import Error, Level, check_error, reconstruction_error, weight_decay

kind = "sparse autoencoder: KL-sparse or k-sparse"

Method = Literal["kl", "k"]


@dataclass(frozen=True)
class Config:
    method: Method = "k"  # kl: sigmoid units of low mean activity; k: linear units, only the k strongest speak
    code: int = 1000  # units
    k: int = 25  # k: active units in training, per example (Makhzani & Frey 2013, section 4)
    k_start: int = 100  # k: active units at first; falls to k over the first half of training, so that no unit dies
    support: float = 3.0  # k: times k units are active in codes that are used (their alpha, section 2.2)
    rho: float = 0.05  # kl: wanted mean activity of each unit (Ng 2011, CS294A notes, section 3)
    penalty: float = 3.0  # kl: weight of the divergence; the reconstruction is a sum over pixels
    tied: bool = True  # the decoder uses the encoder's weights, transposed
    loss: Error = "squared"  # per example
    weight_decay: float = 0.0  # times half the sum of squared weights


class Sparse(FeedForward):
    """One layer with more units than it may use at a time."""

    window = 1
    progress: Tensor

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.shape = config, spec.shape
        self.feature_shape = (config.code,)
        self.scale = UnitScale(spec)
        self.sigmoid = config.loss == "bernoulli"
        self.level = Level(spec.size, config.code, "sigmoid" if config.method == "kl" else "linear", tied=config.tied)
        with torch.no_grad():
            for weight in self.level.weights():
                weight *= 0.25  # hundreds of units answer at once at first
        self.register_buffer("progress", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        code = self.level.encode(self.scale(x).flatten(1))
        if self.config.method == "k":
            return keep_largest(code, min(math.ceil(self.config.support * self.config.k), self.config.code))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Codes `[N, D]` to observations in unit scale, float32 `[N, *shape]`."""
        logits = self.level.decode(code).float()
        return (logits.sigmoid() if self.sigmoid else logits).unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`reconstruction` `[N]`; with kl also `sparsity`, a scalar in nats over all units; `weight_decay`."""
        config, x = self.config, self.scale(batch["x"]).flatten(1)
        code = self.level.encode(x)
        losses = {}
        if config.method == "kl":
            losses["sparsity"] = config.penalty * bernoulli_divergence(config.rho, code.float().mean(0)).sum()
        else:
            code = keep_largest(code, self._active())
        losses["reconstruction"] = reconstruction_error(self.level.decode(code), x, config.loss, self.sigmoid)
        return losses | weight_decay(self.level.weights(), config.weight_decay)

    def stages(self) -> Sequence[Stage]:
        return [Stage("sparse", list(self.parameters()), self.loss)]

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return observed_losses(self, batch)

    def _active(self) -> int:
        """Active units now: in training on the way from `k_start` to `k`, else `k`."""
        config = self.config
        if not self.training:
            return config.k
        left = max(0.0, 1 - 2 * float(self.progress))
        return round(config.k + (max(config.k_start, config.k) - config.k) * left)


def keep_largest(code: Tensor, number: int) -> Tensor:
    """`code` `[N, D]` with all but the `number` largest elements of each row set to 0."""
    if number >= code.shape[1]:
        return code
    largest, where = code.topk(number, dim=1, sorted=False)
    return torch.zeros_like(code).scatter(1, where, largest)


def bernoulli_divergence(rho: float, activity: Tensor) -> Tensor:
    """KL divergence in nats of Bernoulli variables of mean `activity` `[D]` from those of mean `rho`, `[D]`."""
    activity = activity.clamp(1e-6, 1 - 1e-6)
    return rho * (math.log(rho) - activity.log()) + (1 - rho) * (math.log1p(-rho) - torch.log1p(-activity))


def build(config: Config, spec: ObservationSpec) -> Sparse:
    """Raises SpecError for tokens, UserError for settings that make no sense."""
    require_numbers(spec, "sparse")
    check_error(config.loss, "sparse")
    if config.method not in get_args(Method):
        raise UserError(f"sparse: unknown method {config.method!r}; known: {', '.join(get_args(Method))}")
    if config.method == "k" and not 1 <= config.k <= config.code:
        raise UserError(f"sparse: k must lie between 1 and the {config.code} units of the code, not {config.k}")
    if config.code < 1 or config.support < 1 or config.k_start < 0:
        raise UserError("sparse: code must be positive, support at least 1, k_start not negative")
    if config.method == "kl" and not 0 < config.rho < 1:
        raise UserError(f"sparse: rho is a mean activity between 0 and 1, not {config.rho}")
    if config.penalty < 0 or config.weight_decay < 0:
        raise UserError("sparse: penalty and weight_decay must not be negative")
    if config.loss == "bernoulli" and not UnitScale(spec).bounded:
        raise SpecError("encoder 'sparse' needs bounded observations for the Bernoulli loss")
    return Sparse(config, spec)
