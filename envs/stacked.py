"""Stacks of the last frames of an episode, around worlds that show single ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .base import Outcome, VectorEnv


class StackedEnv(VectorEnv):
    """`env`, which shows images `[C, H, W]`, seen as `[stack * C, H, W]`, oldest first; missing frames are zero."""

    def __init__(self, env: VectorEnv, stack: int):
        self._env = env
        frame = env.spec.observation
        channels, *sides = frame.shape
        shape = (stack * channels, *sides)
        self.spec = replace(env.spec, observation=replace(frame, shape=shape, stack=stack))
        self._channels = channels
        self._obs = np.zeros((env.spec.num_envs, *shape), frame.dtype)

    def _begin(self, frames: np.ndarray) -> np.ndarray:
        stacks = np.zeros((len(frames), *self.spec.observation.shape), frames.dtype)
        stacks[:, -self._channels :] = frames
        return stacks

    def reset(self, seed: int) -> np.ndarray:
        self._obs = self._begin(self._env.reset(seed))
        return self._obs

    def watch(self, seed: int) -> np.ndarray:
        self._obs = self._begin(self._env.watch(seed))
        return self._obs

    def send(self, action: np.ndarray) -> None:
        self._env.send(action)

    def recv(self) -> Outcome:
        outcome = self._env.recv()
        which = outcome.env_index
        next_obs = np.concatenate([self._obs[which][:, self._channels :], outcome.next_obs], axis=1)
        next_obs[~outcome.valid, : -self._channels] = 0  # the ignored step after an end shows a new episode
        obs = next_obs
        ended = outcome.terminated | outcome.truncated
        if outcome.obs is not outcome.next_obs and ended.any():
            obs = next_obs.copy()
            obs[ended] = self._begin(outcome.obs[ended])
        self._obs = self._obs.copy()  # what was given away stays as it was
        self._obs[which] = obs
        return outcome._replace(next_obs=next_obs, obs=obs)

    def render(self) -> np.ndarray:
        return self._env.render()

    def state_dict(self) -> dict[str, Any] | None:
        world = self._env.state_dict()
        return None if world is None else {"world": world, "obs": self._obs.copy()}

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self._env.load_state_dict(saved["world"])
        self._obs = saved["obs"].copy()
        return self._obs

    def close(self) -> None:
        self._env.close()


def stacked(env: VectorEnv, stack: int | None) -> VectorEnv:
    """`env`, behind a `StackedEnv` where more than one frame is asked for."""
    return StackedEnv(env, stack) if stack is not None and stack > 1 else env
