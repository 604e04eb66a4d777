"""Flickering worlds (Hausknecht and Stone 2015, section 5): each frame is shown or is black, by chance.

"At each timestep with probability p = 0.5, the screen is either fully revealed or fully obscured." A frame that was
black stays black in all stacks that hold it, as if stacks were built of what was shown. What ends an episode, and what
people see, does not flicker.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UserError


class FlickerEnv(VectorEnv):
    """`env` with each new frame of each copy zeroed with probability `probability`; works on vectors too."""

    def __init__(self, env: VectorEnv, probability: float):
        self._env, self._probability = env, probability
        self.spec = env.spec
        self._generator = np.random.default_rng(0)
        # which frames of the current stack were shown, oldest first
        self._shown = np.ones((env.spec.num_envs, env.spec.observation.stack), bool)

    def reset(self, seed: int) -> np.ndarray:
        return self._begin(self._env.reset(seed), seed)

    def _begin(self, obs: np.ndarray, seed: int) -> np.ndarray:
        self._generator = np.random.default_rng([seed, 0xF11C])  # not what the worlds draw from the same seed
        self._shown[:] = True
        self._shown[:, -1] = self._draw(len(obs))
        return self._hide(obs, self._shown)

    def _draw(self, count: int) -> np.ndarray:
        return self._generator.random(count) >= self._probability

    def _hide(self, obs: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """A copy of `obs` `[B, ...]` without the frames that `shown` `[B, stack]` denies."""
        frames = obs.reshape(*shown.shape, -1)
        return np.where(shown[:, :, None], frames, np.zeros((), obs.dtype)).reshape(obs.shape)

    def send(self, action: np.ndarray) -> None:
        self._env.send(action)

    def recv(self) -> Outcome:
        outcome = self._env.recv()
        which = outcome.env_index
        shown = np.concatenate([self._shown[which, 1:], self._draw(len(which))[:, None]], axis=1)
        next_obs = obs = self._hide(outcome.next_obs, shown)
        if outcome.obs is not outcome.next_obs:
            ended = outcome.terminated | outcome.truncated
            shown[ended, -1] = self._draw(int(ended.sum()))
            obs = self._hide(outcome.obs, shown) if ended.any() else next_obs
        self._shown[which] = shown
        return outcome._replace(next_obs=next_obs, obs=obs)

    def watch(self, seed: int) -> np.ndarray:
        return self._begin(self._env.watch(seed), seed)

    def render(self) -> np.ndarray:
        return self._env.render()

    def state_dict(self) -> dict[str, Any] | None:
        world = self._env.state_dict()
        if world is None:
            return None
        return {"world": world, "shown": self._shown.copy(), "generator": self._generator.bit_generator.state}

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        obs = self._env.load_state_dict(saved["world"])
        self._shown = saved["shown"].copy()
        self._generator.bit_generator.state = saved["generator"]
        return self._hide(obs, self._shown)

    def close(self) -> None:
        self._env.close()


def flicker(env: VectorEnv, probability: float) -> VectorEnv:
    """`env`, behind a `FlickerEnv` where frames are to vanish at all.

    Raises:
        UserError: no probability.
    """
    if not 0 <= probability <= 1:
        env.close()
        raise UserError(f"flicker is a probability in [0, 1], not {probability}")
    return FlickerEnv(env, probability) if probability else env
