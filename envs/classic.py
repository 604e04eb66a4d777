"""Many pendulums at once: Gymnasium's own `PendulumEnv`, whose arithmetic holds for arrays as it does for numbers."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.pendulum import DEFAULT_X, DEFAULT_Y
from gymnasium.envs.registration import EnvSpec

from .steppers import Stepped


class PendulumBatch:
    """`count` pendulums in one `PendulumEnv`, with the copies along the last axis of its state `[2, count]`.

    Ten times as fast as a loop over 32. Episodes never terminate; a new one begins in the step that cuts one off.
    """

    def __init__(self, spec: EnvSpec, count: int):
        made = gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, render_mode="rgb_array")
        self._world: Any = made.unwrapped
        self._limit = spec.max_episode_steps or float("inf")
        self._lengths = np.zeros(count, np.int64)
        self._action = np.zeros((count, 1), np.float32)
        self.observation_space, self.action_space = made.observation_space, made.action_space

    def reset(self, seed: int) -> np.ndarray:
        self._world.reset(seed=seed)
        self._world.state = self._draw_states(len(self._lengths))
        self._lengths[:] = 0
        return self._see()

    def _draw_states(self, count: int) -> np.ndarray:
        bound = np.array([[DEFAULT_X], [DEFAULT_Y]])
        return self._world.np_random.uniform(-bound, bound, (2, count))

    def _see(self) -> np.ndarray:
        return np.ascontiguousarray(self._world._get_obs().T)

    def send(self, action: np.ndarray) -> None:
        self._action = action

    def recv(self) -> Stepped:
        seen, reward, *_ = self._world.step(self._action.T)
        next_obs = obs = np.ascontiguousarray(seen.T)
        self._lengths += 1
        truncated = self._lengths >= self._limit
        if truncated.any():
            self._lengths[truncated] = 0
            self._world.state[:, truncated] = self._draw_states(int(truncated.sum()))
            obs = self._see()
        never, always = np.zeros(len(truncated), bool), np.ones(len(truncated), bool)
        return Stepped(next_obs, obs, reward.astype(np.float32), never, truncated, always)

    def render(self) -> np.ndarray | None:
        world = self._world
        state, torque = world.state, world.last_u
        world.state, world.last_u = state[:, 0], None if torque is None else torque[0]
        frame = world.render()
        world.state, world.last_u = state, torque
        return frame

    def state_dict(self) -> dict[str, Any] | None:
        return {
            "state": self._world.state.copy(),
            "lengths": self._lengths.copy(),
            "generator": self._world.np_random.bit_generator.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._world.reset()
        self._world.state = saved["state"].copy()
        self._world.np_random.bit_generator.state = saved["generator"]
        self._lengths = saved["lengths"].copy()

    def close(self) -> None:
        self._world.close()
