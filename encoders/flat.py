"""The observation as it is, flattened: for agents that read ready-made features, and for models of raw inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..envs.errors import SpecError
from ..envs.spec import ObservationSpec
from .base import FeedForward

kind = "the observation as it is, flattened; nothing is learned"


@dataclass(frozen=True)
class Config:
    pass


class Flat(FeedForward):
    """Features are the numbers observed, uint8 scaled to 0..1. There are no parameters."""

    def __init__(self, spec: ObservationSpec):
        super().__init__()
        self.feature_shape = (spec.size,)
        self.factor = 1 / 255 if spec.dtype == "uint8" else 1.0

    def encode(self, x: Tensor) -> Tensor:
        x = x.flatten(1).float()
        return x if self.factor == 1 else x * self.factor


def build(config: Config, spec: ObservationSpec) -> Flat:
    """Raises SpecError for tokens and for what holds no numbers."""
    if spec.vocabulary:
        raise SpecError(f"encoder 'flat' reads numbers, not tokens (vocabulary {spec.vocabulary}); embed them first")
    if not (np.issubdtype(spec.dtype, np.floating) or spec.dtype in ("uint8", "bool")):
        raise SpecError(f"encoder 'flat' reads floating-point numbers, uint8 or bool, not {spec.describe()}")
    if spec.size < 1:
        raise SpecError(f"encoder 'flat' needs at least one number, not {spec.describe()}")
    return Flat(spec)
