"""Any world that Gymnasium knows, with true last observations and termination and truncation apart."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registered

from .base import Outcome, VectorEnv
from .classic import PendulumBatch
from .errors import SpecError, UserError
from .options import EnvOptions
from .spaces import read_actions, read_observations
from .spec import EnvSpec
from .steppers import EnvLoop, NextStepVector, Stepper
from .workers import EnvWorkers

# below so many copies, stepping scalar environments in a loop is quicker than vectorised ones
_WORTH_VECTORISING = 6


def import_package(env_id: str) -> str:
    """The id without its package, which is imported so that it can register its worlds.

    Raises:
        UserError: there is no such package.
    """
    package, _, name = env_id.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"cannot import {package!r}, which {env_id!r} asks for ({error}); install it first"
            ) from error
    return name


def is_registered(env_id: str) -> bool:
    """Whether Gymnasium knows it. What has a family of its own does not count: Atari games, MiniGrid, ViZDoom."""
    return env_id in gymnasium.registry and not _is_elsewhere(env_id)


def _is_elsewhere(env_id: str) -> bool:
    return str(gymnasium.registry[env_id].entry_point).startswith(("ale_py", "minigrid", "vizdoom"))


def list_registered() -> list[str]:
    """Ids in Gymnasium's registry, the newest version of each, without what has a family of its own."""
    newest: dict[str, int] = {}
    for env_id in gymnasium.registry:
        name, _, version = env_id.rpartition("-v")
        if version.isdecimal() and not name.startswith("GymV") and not _is_elsewhere(env_id):
            newest[name] = max(int(version), newest.get(name, 0))
    return sorted(f"{name}-v{version}" for name, version in newest.items())


class RegisteredEnv(VectorEnv):
    """Copies of a world from Gymnasium's registry.

    Six or more copies of a world that has a vectorised implementation (CartPole) are stepped by that; it resets on the
    step after an end, and `valid` is False there. As many pendulums are stepped as one. Everything else is stepped one
    copy after the other, here or in `options.workers` processes, and begins its next episode in the same step.
    """

    def __init__(self, env_id: str, num_envs: int, options: EnvOptions, spec: Registered | None = None):
        """`spec` says how to make a world that is in no registry."""
        self._env = _choose_stepper(spec or gymnasium.spec(env_id), num_envs, min(options.workers, num_envs))
        try:
            observation, self._convert_obs = read_observations(self._env.observation_space, env_id)
            action, self._convert_action = read_actions(self._env.action_space, env_id)
        except SpecError:
            self._env.close()
            raise
        self.spec = EnvSpec(env_id, num_envs, observation, action)
        self._index = np.arange(num_envs)
        self._obs = np.zeros((num_envs, *observation.shape), observation.dtype)

    def reset(self, seed: int) -> np.ndarray:
        self._obs = self._convert_obs(self._env.reset(seed))
        return self._obs

    def send(self, action: np.ndarray) -> None:
        self._env.send(self._convert_action(action))

    def recv(self) -> Outcome:
        stepped = self._env.recv()
        next_obs = self._convert_obs(stepped.next_obs)
        self._obs = next_obs if stepped.obs is stepped.next_obs else self._convert_obs(stepped.obs)
        discount = 1.0 - stepped.terminated.astype(np.float32)
        return Outcome(self._index.copy(), next_obs, self._obs, *stepped[2:5], discount, stepped.valid)

    def render(self) -> np.ndarray:
        frame = self._env.render()
        return super().render() if frame is None else frame

    def state_dict(self) -> dict[str, Any] | None:
        saved = self._env.state_dict()
        return None if saved is None else {**saved, "obs": self._obs.copy()}

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self._env.load_state_dict(saved)
        self._obs = saved["obs"].copy()
        return self._obs

    def close(self) -> None:
        self._env.close()


def _choose_stepper(spec: Registered, num_envs: int, workers: int) -> Stepper:
    try:
        if workers:
            return EnvWorkers(spec, num_envs, workers)
        if spec.vector_entry_point and num_envs >= _WORTH_VECTORISING:
            return NextStepVector(spec, num_envs)
        if spec.id == "Pendulum-v1" and num_envs >= _WORTH_VECTORISING:
            return PendulumBatch(spec, num_envs)
        return EnvLoop(spec, num_envs)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"cannot make {spec.id}: {error}".replace("\n", " ")) from error
