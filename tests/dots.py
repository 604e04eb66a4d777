"""A world of pictures for tests that need the rewards and the pixels to be known."""

from __future__ import annotations

from typing import Any

import numpy as np
from saccade.envs.base import Outcome, VectorEnv
from saccade.envs.spec import ActionSpec, EnvSpec, ObservationSpec

ENVS, SIZE, LIMIT = 3, 8, 9  # copies; pixels a side; steps of an episode


class Dots(VectorEnv):
    """A dot that action 1 moves one pixel on; it earns 1 where the row ends, and begins anew. Episodes are cut off."""

    def __init__(self, num_envs: int = ENVS):
        self.spec = EnvSpec("dots", num_envs, ObservationSpec((1, SIZE, SIZE), "uint8", 0, 255), ActionSpec(count=2))
        self.place, self.time = np.zeros((2, num_envs), np.int64)
        self.action = self.place

    def see(self) -> np.ndarray:
        picture = np.zeros((self.spec.num_envs, 1, SIZE * SIZE), np.uint8)
        picture[np.arange(self.spec.num_envs), 0, self.place + SIZE * np.arange(self.spec.num_envs)] = 255
        return picture.reshape(-1, 1, SIZE, SIZE)

    def reset(self, seed: int) -> np.ndarray:
        self.place = np.random.default_rng(seed).integers(0, SIZE, self.spec.num_envs)
        self.time = np.arange(self.spec.num_envs)  # episodes do not end together
        return self.see()

    def send(self, action: np.ndarray) -> None:
        self.action = action

    def recv(self) -> Outcome:
        moved = self.place + self.action
        reward = (moved == SIZE).astype(np.float32)
        self.place, self.time = moved % SIZE, self.time + 1
        ended = self.time >= LIMIT
        next_obs = self.see()
        self.time = np.where(ended, 0, self.time)
        self.place = np.where(ended, 0, self.place)
        every, none = np.ones(self.spec.num_envs, bool), np.zeros(self.spec.num_envs, bool)
        index = np.arange(self.spec.num_envs)
        return Outcome(index, next_obs, self.see(), reward, none, ended, every.astype(np.float32), every)

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place.copy(), "time": self.time.copy()}

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self.place, self.time = saved["place"].copy(), saved["time"].copy()
        return self.see()
