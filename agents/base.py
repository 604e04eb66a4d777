"""The agent's contract: act on observations, observe what came of it, update from what was observed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from ..encoders.base import Inputs, State
from ..envs.base import Step

Metrics = dict[str, Tensor | float]  # scalars by name; tensors are read only when they are logged


class Replay(Protocol):
    """What a checkpoint needs of an agent's replay."""

    def chunks(self) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        """(name, version, tensors) of each piece that holds data; the version grows when a piece changes."""
        ...

    def load_chunk(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Put a piece back that `chunks` gave."""
        ...

    def clear(self) -> None:
        """Forget everything, as when a checkpoint was saved without it."""
        ...


class Action(NamedTuple):
    """What an agent does now in each of B environments."""

    action: np.ndarray  # int64 [B], or float32 [B, *shape]
    state: State  # the encoder's state after reading the observation
    extras: dict[str, np.ndarray]  # to be remembered in the `Step`, `[B, ...]` each


class Agent(ABC):
    """Holds parameters, optimiser and data; the mathematics of its update are pure functions in `parts`."""

    network: nn.Module  # encoder and heads, all that is trained
    device: str = "cpu"  # where `act` wants its inputs
    replay: Replay | None = None  # checkpoints save its chunks beside the agent's state
    compiles: bool = False  # whether it heeds `Compute.compile`

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The encoder's state before the first observation."""

    @abstractmethod
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        """Actions for `inputs` (`[1, B, ...]`), greedy unless `explore`. Changes nothing but random numbers."""

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
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""

    def load_policy(self, saved: dict[str, Any]) -> None:
        """Of `state_dict()`, load what acting needs only: to evaluate."""
        self.network.load_state_dict(saved["network"])
