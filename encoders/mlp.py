"""A multilayer perceptron for observations of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward
from .parts.initialise import Initialisation, initialise

kind = "multilayer perceptron, for vectors and flattened images"

Activation = Literal["relu", "tanh", "elu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
_GAINS = {"relu": 2**0.5, "tanh": 5 / 3, "elu": 2**0.5}  # keep the scale of the activations; ELU is taken as ReLU


@dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (64, 64)  # units of each layer; the last are the features
    activation: Activation = "relu"  # after every layer
    initialisation: Initialisation = "orthogonal"  # of the weights; biases start at 0
    layer_norm: bool = False  # before every activation (Ba et al. 2016, arXiv:1607.06450)
    scale: bool = False  # map elements with two finite bounds to -1..1; the others stay as they are


class Mlp(FeedForward):
    """Dense layers, each with an optional layer normalisation and an activation. uint8 is scaled to 0..1."""

    offset: Tensor
    factor: Tensor

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.scaled = config.scale or spec.dtype == "uint8"
        offset, factor = _scaling(config, spec)
        # Constants of the world, not of the learning: they come from the spec again, so checkpoints do not hold them.
        self.register_buffer("offset", torch.from_numpy(offset), persistent=False)
        self.register_buffer("factor", torch.from_numpy(factor), persistent=False)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((spec.size, *config.hidden[:-1]), config.hidden, strict=True):
            layers.append(nn.Linear(inputs, outputs))
            layers += [nn.LayerNorm(outputs)] * config.layer_norm
            layers.append(_ACTIVATIONS[config.activation]())
        self.layers = nn.Sequential(*layers)
        self.feature_shape = (config.hidden[-1],)
        initialise(self, config.initialisation, _GAINS[config.activation])

    def encode(self, x: Tensor) -> Tensor:
        x = x.flatten(1).to(self.factor.dtype)
        return self.layers((x - self.offset) * self.factor if self.scaled else x)


def _scaling(config: Config, spec: ObservationSpec) -> tuple[np.ndarray, np.ndarray]:
    """offset and factor, float32 `[spec.size]` or `[1]`, such that the network reads (obs - offset) * factor."""
    if not config.scale:
        return np.zeros(1, np.float32), np.full(1, 1 / 255 if spec.dtype == "uint8" else 1, np.float32)
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), spec.size) for bound in _bounds(spec))
    # Gymnasium writes "unbounded" as the largest float32 too (CartPole's velocities), whose scale would erase the rest.
    finite = (np.abs(low) < 1e18) & (np.abs(high) < 1e18) & (high > low)
    low, high = np.where(finite, low, -1), np.where(finite, high, 1)
    return ((low + high) / 2).astype(np.float32), (2 / (high - low)).astype(np.float32)


def _bounds(spec: ObservationSpec) -> tuple[tuple[float, ...] | float, tuple[float, ...] | float]:
    return (0, 255) if spec.dtype == "uint8" else (spec.low, spec.high)


def build(config: Config, spec: ObservationSpec) -> Mlp:
    """Raises SpecError for tokens, UserError for sizes and settings that make no sense."""
    if spec.vocabulary:
        raise SpecError(f"encoder 'mlp' reads numbers, not tokens (vocabulary {spec.vocabulary}); embed them first")
    if not (np.issubdtype(spec.dtype, np.floating) or spec.dtype in ("uint8", "bool")):
        raise SpecError(f"encoder 'mlp' reads floating-point numbers, uint8 or bool, not {spec.describe()}")
    if spec.size < 1:
        raise SpecError(f"encoder 'mlp' needs at least one number, not {spec.describe()}")
    if not config.hidden or min(config.hidden) < 1:
        raise UserError(f"mlp: hidden must be one or more positive sizes, not {config.hidden}")
    if config.activation not in get_args(Activation):
        raise UserError(f"mlp: unknown activation {config.activation!r}; known: {', '.join(get_args(Activation))}")
    return Mlp(config, spec)
