"""The T-maze (Bakker 2001, "Reinforcement learning with long short-term memory", section 4): a cue, a way, a choice.

The first place of a corridor shows whether the reward lies to the north or to the south of the junction at its other
end, N steps to the east. All places in between look alike, so that at the junction only a memory of the cue helps:
without one, the best that can be earned on average is (4 - 0.1) / 2 = 1.95 instead of 4.

As in the paper: three numbers are seen (cue 110 or 011, corridor 101, junction 010), the actions are north, east, south
and west, the right one of north and south earns 4 at the junction, the other -0.1, and both end the episode; standing
still costs 0.1. Deviations: going back costs 0.1 too, so that long corridors test memory and not the patience of a
random walk; and an episode is cut off after 4 (N + 1) steps.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UserError
from .spec import ActionSpec, EnvSpec, ObservationSpec

DEFAULT_LENGTH = 10
NORTH, EAST, SOUTH, WEST = range(4)
RIGHT, WRONG = 4.0, -0.1
_CORRIDOR, _JUNCTION, _CUE_NORTH, _CUE_SOUTH = range(4)
_LOOKS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 1, 1]], np.float32)


def is_t_maze(env_id: str) -> bool:
    """Whether `env_id` is `diagnostic/t-maze` or `diagnostic/t-maze-N`."""
    return re.fullmatch(r"diagnostic/t-maze(-\d+)?", env_id) is not None


class TMazeEnv(VectorEnv):
    """Copies of a T-maze; episodes follow one another in the same step."""

    def __init__(self, env_id: str, num_envs: int):
        """
        Raises:
            UserError: a corridor of no step.
        """
        length = env_id.removeprefix("diagnostic/t-maze").removeprefix("-")
        self.length = int(length or DEFAULT_LENGTH)
        if self.length < 1:
            raise UserError("a t-maze needs a corridor of at least 1 step, as in diagnostic/t-maze-1")
        self.limit = 4 * (self.length + 1)
        # the worst is to earn nothing but -0.1 until the end
        score_range = (WRONG * self.limit, RIGHT)
        observation = ObservationSpec((3,), "float32", 0.0, 1.0)
        self.spec = EnvSpec(env_id, num_envs, observation, ActionSpec(count=4), score_range=score_range)
        self._generator = np.random.default_rng(0)
        self._north = np.zeros(num_envs, bool)  # where the reward lies
        self._place, self._time, self._action = (np.zeros(num_envs, np.int64) for _ in range(3))

    def reset(self, seed: int) -> np.ndarray:
        self._generator = np.random.default_rng(seed)
        count = self.spec.num_envs
        self._north = self._draw(count)
        self._place, self._time = np.zeros(count, np.int64), np.zeros(count, np.int64)
        return self._see()

    def _draw(self, count: int) -> np.ndarray:
        return self._generator.integers(0, 2, count).astype(bool)

    def _see(self) -> np.ndarray:
        look = np.where(self._place == self.length, _JUNCTION, _CORRIDOR)
        return _LOOKS[np.where(self._place == 0, np.where(self._north, _CUE_NORTH, _CUE_SOUTH), look)]

    def send(self, action: np.ndarray) -> None:
        if not ((action >= 0) & (action <= 3)).all():
            raise UserError(f"actions must be 0 to 3, not {action.tolist()}")
        self._action = action

    def recv(self) -> Outcome:
        action, count = self._action, self.spec.num_envs
        terminated = (self._place == self.length) & ((action == NORTH) | (action == SOUTH))
        place = np.clip(self._place + (action == EAST) - (action == WEST), 0, self.length)
        is_right = terminated & ((action == NORTH) == self._north)
        reward = np.where(is_right, RIGHT, np.where(place > self._place, 0.0, WRONG)).astype(np.float32)
        self._place, self._time = place, self._time + 1
        next_obs = obs = self._see()
        truncated = (self._time >= self.limit) & ~terminated
        ended = terminated | truncated
        if ended.any():
            self._north[ended] = self._draw(int(ended.sum()))
            self._place[ended], self._time[ended] = 0, 0
            obs = self._see()
        discount = 1.0 - terminated.astype(np.float32)
        return Outcome(np.arange(count), next_obs, obs, reward, terminated, truncated, discount, np.ones(count, bool))

    def state_dict(self) -> dict[str, Any]:
        return {
            "north": self._north.copy(),
            "place": self._place.copy(),
            "time": self._time.copy(),
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self._north, self._place, self._time = (saved[name].copy() for name in ("north", "place", "time"))
        self._generator.bit_generator.state = saved["generator"]
        return self._see()
