"""The world's contract: `VectorEnv`, the `Outcome` it returns, and the `Step` that the training loop makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from .errors import SpecError
from .spec import EnvSpec


class Outcome(NamedTuple):
    """What one `send` led to, for the environments in `env_index`. Arrays are the caller's to keep."""

    env_index: np.ndarray  # int64 [B]
    next_obs: np.ndarray  # [B, ...] what the action led to: at the end of an episode its true last observation
    obs: np.ndarray  # [B, ...] what to act on now: `next_obs`, or the first observation of a new episode
    reward: np.ndarray  # float32 [B] never clipped
    terminated: np.ndarray  # bool [B] the episode ended and nothing follows
    truncated: np.ndarray  # bool [B] the episode was cut off; its last observation still has a value
    discount: np.ndarray  # float32 [B] 0 where nothing more is to be earned (terminated, or a life lost), else 1
    valid: np.ndarray  # bool [B] False: the action was ignored (the step after an end, under next-step autoreset)


class Step(NamedTuple):
    """One transition of each environment in `env_index`, as agents observe it. Arrays `[B, ...]`, see `Outcome`."""

    env_index: np.ndarray
    obs: np.ndarray
    action: np.ndarray
    extras: dict[str, np.ndarray]  # what the agent wants remembered of its own choice
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    discount: np.ndarray
    next_obs: np.ndarray
    reset: np.ndarray  # bool [B] `obs` is the first of an episode
    valid: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        """bool [B] the episode is over, for whichever reason."""
        return self.terminated | self.truncated


class VectorEnv(ABC):
    """`spec.num_envs` copies of one world. Agents never see Gymnasium's autoreset modes: only subclasses do."""

    spec: EnvSpec

    @abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode in every environment; returns `obs [num_envs, ...]`."""

    @abstractmethod
    def send(self, action: np.ndarray) -> None:
        """Start a step. `action` is int64 `[B]`, or float32 `[B, *shape]` within the action box's bounds."""

    @abstractmethod
    def recv(self) -> Outcome:
        """Finish the step that `send` started."""

    def watch(self, seed: int) -> np.ndarray:
        """`reset`, and from then on `render` shows the first environment."""
        return self.reset(seed)

    def render(self) -> np.ndarray:
        """The first environment as people see it: uint8 `[H, W, 3]`.

        Raises:
            SpecError: this world has no picture.
        """
        raise SpecError(f"{self.spec.id} has no picture to show")

    def state_dict(self) -> dict[str, Any] | None:
        """All that is needed to go on exactly, as arrays and plain values; None where it cannot be cloned."""
        return None

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        """Go on from `state_dict()`. Returns the observations to act on; called instead of `reset`."""
        raise ValueError(f"{self.spec.id} cannot be cloned")

    def close(self) -> None:  # noqa: B027 (most worlds have nothing to give back)
        """Give processes and windows back. Safe to call twice."""
