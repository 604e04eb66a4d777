"""Classic control without velocities: what a single look at the world shows, so that an agent needs a memory.

The physics, rewards and ends are Gymnasium's; only what is seen differs. CartPole without velocities is an old
first test of recurrent agents (Wierstra et al. 2007, "Solving deep memory POMDPs with recurrent policy gradients").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UnknownNameError
from .options import EnvOptions
from .registered import RegisteredEnv

# which numbers of an observation are positions and angles; the others are velocities
VISIBLE: dict[str, tuple[int, ...]] = {
    "Acrobot-v1": (0, 1, 2, 3),  # cosine and sine of both angles
    "CartPole-v0": (0, 2),
    "CartPole-v1": (0, 2),
    "MountainCar-v0": (0,),
    "MountainCarContinuous-v0": (0,),
    "Pendulum-v1": (0, 1),  # cosine and sine
}


class MaskedEnv(VectorEnv):
    """Copies of a classic-control world that show float32 `[positions and angles]` only."""

    def __init__(self, env_id: str, num_envs: int, options: EnvOptions):
        name = env_id.removeprefix("masked/")
        if name not in VISIBLE:
            raise UnknownNameError("environment", env_id, [f"masked/{known}" for known in VISIBLE])
        self._env = RegisteredEnv(name, num_envs, options)
        self._visible = list(VISIBLE[name])
        full = self._env.spec.observation
        low, high = (tuple(np.array(bound)[self._visible].tolist()) for bound in (full.low, full.high))
        seen = replace(full, shape=(len(low),), low=low, high=high)
        self.spec = replace(self._env.spec, id=env_id, observation=seen)

    def reset(self, seed: int) -> np.ndarray:
        return self._env.reset(seed)[:, self._visible]

    def send(self, action: np.ndarray) -> None:
        self._env.send(action)

    def recv(self) -> Outcome:
        outcome = self._env.recv()
        next_obs = outcome.next_obs[:, self._visible]
        obs = next_obs if outcome.obs is outcome.next_obs else outcome.obs[:, self._visible]
        return outcome._replace(next_obs=next_obs, obs=obs)

    def render(self) -> np.ndarray:
        return self._env.render()

    def state_dict(self) -> dict[str, Any] | None:
        return self._env.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        return self._env.load_state_dict(saved)[:, self._visible]

    def close(self) -> None:
        self._env.close()
