"""Ways to step many copies of a Gymnasium world; `RegisteredEnv` chooses one. All speak in raw observations."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv

from .errors import SpecError


class Stepped(NamedTuple):
    """What one step of all copies led to; raw observations, else as in `Outcome`."""

    next_obs: np.ndarray
    obs: np.ndarray  # `next_obs` itself where no episode ended
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray


class Stepper(Protocol):
    """Copies of a world that are stepped together."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space

    def reset(self, seed: int) -> np.ndarray: ...

    def send(self, action: np.ndarray) -> None: ...

    def recv(self) -> Stepped: ...

    def render(self) -> np.ndarray | None: ...

    def state_dict(self) -> dict[str, Any] | None: ...

    def load_state_dict(self, saved: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def spread_seed(seed: int, count: int) -> list[int]:
    """Seeds for `count` copies; unlike `seed + i` they are not shared with the next run's."""
    return [int(each) for each in np.random.SeedSequence(seed).generate_state(count)]


class EnvLoop:
    """Scalar environments, one after the other; where an episode ends, the next one begins in the same step.

    Gymnasium's `SyncVectorEnv` does the same; half of its time goes into merging `info` and copying.
    """

    def __init__(self, spec: EnvSpec, count: int):
        pictures = _ask_for_pictures(spec)
        # time limits are counted here, so that they can be saved
        self._envs = [
            gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **pictures) for _ in range(count)
        ]
        self._limit = spec.max_episode_steps or float("inf")
        self._lengths = [0] * count
        self._action = np.empty(0)
        self.observation_space = self._envs[0].observation_space
        self.action_space = self._envs[0].action_space
        self._discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)

    def reset(self, seed: int) -> np.ndarray:
        return self.reset_each(spread_seed(seed, len(self._envs)))

    def reset_each(self, seeds: list[int]) -> np.ndarray:
        """`reset` with one seed for each copy."""
        space = self.observation_space
        self._lengths = [0] * len(self._envs)
        obs = [env.reset(seed=seed)[0] for env, seed in zip(self._envs, seeds, strict=True)]
        for each in obs:
            if np.shape(each) != space.shape:
                raise SpecError(
                    f"an observation of shape {list(np.shape(each))} came from a world that promises {space}"
                )
        return np.array(obs, space.dtype)

    def send(self, action: np.ndarray) -> None:
        self._action = action

    def recv(self) -> Stepped:
        count = len(self._envs)
        next_obs = np.empty((count, *(self.observation_space.shape or ())), self.observation_space.dtype)
        reward = np.empty(count, np.float32)
        terminated, truncated = np.empty(count, bool), np.empty(count, bool)
        first_obs = {}
        actions = self._action.tolist() if self._discrete else self._action
        for i, action in enumerate(actions):
            next_obs[i], reward[i], over, cut, _ = self._envs[i].step(action)
            length = self._lengths[i] + 1
            cut = cut or length >= self._limit
            terminated[i], truncated[i] = over, cut
            if over or cut:
                first_obs[i], _ = self._envs[i].reset()
                length = 0
            self._lengths[i] = length
        obs = next_obs
        if first_obs:
            obs = next_obs.copy()
            for i, first in first_obs.items():
                obs[i] = first
        return Stepped(next_obs, obs, reward, terminated, truncated, np.ones(count, bool))

    def render(self) -> np.ndarray | None:
        """The first copy's picture, or None where the world has none."""
        return _as_picture(self._envs[0].render()) if self._envs[0].render_mode else None

    def state_dict(self) -> dict[str, Any] | None:
        """Classic control keeps all it needs in `state` and its generator; other worlds cannot be cloned."""
        worlds: list[Any] = [env.unwrapped for env in self._envs]
        if not all(type(world).__module__.startswith("gymnasium.envs.classic_control.") for world in worlds):
            return None
        return {
            "state": [np.array(world.state) for world in worlds],  # not all of one type in MountainCarContinuous
            "lengths": list(self._lengths),
            "generators": [world.np_random.bit_generator.state for world in worlds],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._lengths = list(saved["lengths"])
        for env, state, generator in zip(self._envs, saved["state"], saved["generators"], strict=True):
            env.reset()
            world: Any = env.unwrapped
            world.state = state.copy()
            world.np_random.bit_generator.state = generator

    def close(self) -> None:
        for env in self._envs:
            env.close()


class NextStepVector:
    """A world's own vectorised implementation, which begins a new episode on the step after an end."""

    def __init__(self, spec: EnvSpec, count: int):
        pictures = _ask_for_pictures(spec)
        self._env: VectorEnv = gymnasium.make_vec(spec, count, vectorization_mode="vector_entry_point", **pictures)
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._ended = np.zeros(count, bool)
        self._action = np.empty(0)

    def reset(self, seed: int) -> np.ndarray:
        self._ended[:] = False
        return self._env.reset(seed=seed)[0]

    def send(self, action: np.ndarray) -> None:
        self._action = action

    def recv(self) -> Stepped:
        obs, reward, terminated, truncated, _ = self._env.step(self._action)
        valid = ~self._ended
        self._ended = terminated | truncated
        return Stepped(obs, obs, reward.astype(np.float32, copy=False), terminated, truncated, valid)

    def render(self) -> np.ndarray | None:
        frames: Any = self._env.render() if self._env.render_mode else None
        return _as_picture(frames[0]) if frames else None

    def state_dict(self) -> dict[str, Any] | None:
        """Only Gymnasium's CartPole is known well enough to be cloned."""
        world = self._env.unwrapped
        if not isinstance(world, CartPoleVectorEnv):
            return None
        return {
            "state": np.array(world.state),
            "lengths": world.steps.copy(),
            "ended": self._ended.copy(),
            "generator": world.np_random.bit_generator.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        world: Any = self._env.unwrapped
        world.reset()
        world.state = saved["state"].copy()
        world.steps = saved["lengths"].copy()
        world.prev_done = saved["ended"].copy()
        world.np_random.bit_generator.state = saved["generator"]
        self._ended = saved["ended"].copy()

    def close(self) -> None:
        self._env.close()


def _ask_for_pictures(spec: EnvSpec) -> dict[str, Any]:
    """The argument with which a world that can draw will do so; it costs nothing until a picture is asked for."""
    creator: Any = spec.entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    drawn = "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())
    return {"render_mode": "rgb_array"} if drawn else {}


def _as_picture(frame: Any) -> np.ndarray | None:
    return np.asarray(frame, np.uint8) if np.ndim(frame) == 3 else None
