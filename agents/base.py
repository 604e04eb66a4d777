"""The agent's contract: act on observations, observe what came of it, update from what was observed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..encoders.base import Inputs, State
from ..envs.base import Step

Metrics = dict[str, Tensor | float]  # scalars by name; tensors are read only when they are logged


class Action(NamedTuple):
    """What an agent does now in each of B environments."""

    action: np.ndarray  # int64 [B], or float32 [B, *shape]
    state: State  # the encoder's state after reading the observation
    extras: dict[str, np.ndarray]  # to be remembered in the `Step`, `[B, ...]` each


class Agent(ABC):
    """Holds parameters, optimiser and data; the mathematics of its update are pure functions in `parts`."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The encoder's state before the first observation."""

    @abstractmethod
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        """Choose actions for `inputs` (`[1, B, ...]`), greedily unless `explore`. Changes nothing but random numbers."""

    @abstractmethod
    def observe(self, step: Step) -> None:
        """Remember what happened."""

    @abstractmethod
    def update(self) -> Metrics:
        """Learn as much as the steps observed since the last call are due; {} when that is nothing."""

    @abstractmethod
    def interrupt(self) -> None:
        """The episodes in progress will not go on (a run resumed with new ones): close what is open."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs but the replay's frames: tensors and plain values only."""

    @abstractmethod
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...
