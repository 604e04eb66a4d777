"""Worlds so small that their values are known exactly: each tests one thing that an agent must get right.

Every world is a `Diagnostic`: a cue is drawn at the start of an episode, what is seen depends on cue and time, and what
an action earns on cue, time and action. The last observation of an episode looks like any other, so that an agent that
looks beyond a termination learns a wrong value instead of being lucky. With discount γ, and V* the value of the best
policy:

| id | an episode | V*, and what it tests |
| --- | --- | --- |
| `one-step` | one step, reward 1 | 1: values are learned, nothing follows a termination |
| `observation` | one step, a cue of ±1, reward = cue | the cue: values depend on observations |
| `delayed` | two steps, reward 1 at the second | γ, then 1: the discount |
| `endless` | constant reward 1, cut off after five steps | 1 / (1 - γ): where an episode is cut off, value remains |
| `action` | one step, reward +1 for action 1, -1 for action 0 | 1 (Q = -1, 1): actions matter |
| `observation-action` | one step, +1 if action 1 answers +1 or action 0 answers -1, else -1 | 1; blind agents earn 0 |
| `recall-N` | N steps (5 in `recall`): a cue at the first, answered as above at the last | γ^(N - 1); memoryless 0 |
| `noisy` | as `observation-action`, a faint cue among 7 louder noises (`MIXING`) | 1; codes of what is loud: 0 |
| `box` | one step, a cue c in [-1, 1], reward -(a - c / 2)² for an action a in [-1, 1] | 0: continuous actions |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UnknownNameError, UserError
from .spec import ActionSpec, EnvSpec, ObservationSpec

Array = np.ndarray


def _draw_sign(generator: np.random.Generator, count: int) -> Array:
    return generator.choice(np.array([-1, 1], np.float32), count)


def _draw_noisy(generator: np.random.Generator, count: int) -> Array:
    """`[B, 8]`: ±0.1, and noise of twice that standard deviation."""
    noise = generator.uniform(-0.35, 0.35, (count, 7))
    return np.concatenate([0.1 * _draw_sign(generator, count)[:, None], noise], axis=1).astype(np.float32)


def _draw_uniform(generator: np.random.Generator, count: int) -> Array:
    return generator.uniform(-1, 1, count).astype(np.float32)


def _see_cue(cue: Array, time: Array) -> Array:
    return cue[:, None]


def _see_nothing(cue: Array, time: Array) -> Array:
    return np.ones((len(cue), 1), np.float32)


def _see_mixed(cue: Array, time: Array) -> Array:
    return cue @ MIXING


def _pay_one(cue: Array, time: Array, action: Array) -> Array:
    return np.ones(len(cue), np.float32)


def _pay_answer(cue: Array, time: Array, action: Array) -> Array:
    return np.where((action == 1) == (cue > 0), 1.0, -1.0)


# `noisy` shows cue @ MIXING: orthonormal rows (a Householder reflection), of which the first is the sign's direction
MIXING: Array = (np.eye(8) - np.full((8, 8), 0.25)).astype(np.float32)


@dataclass(frozen=True)
class Diagnostic:
    """One world. `cue` is `[B]`, or `[B, ...]`; `time` and discrete `action` are `[B]`."""

    length: int  # steps in an episode
    see: Callable[[Array, Array], Array]  # cue, time -> observation [B, features]
    pay: Callable[[Array, Array, Array], Array]  # cue, time, action -> reward [B]
    score_range: tuple[float, float]
    draw: Callable[[np.random.Generator, int], Array] = _draw_sign  # generator, B -> cue
    features: int = 1
    truncates: bool = False  # episodes are cut off instead of ending
    continuous: bool = False


def _recall(length: int) -> Diagnostic:
    """A cue at the first step is asked for at the last; the second feature says that it is asked for."""

    def see(cue: Array, time: Array) -> Array:
        asked = time == length - 1
        return np.stack([cue * (time == 0), asked], axis=1).astype(np.float32)

    def pay(cue: Array, time: Array, action: Array) -> Array:
        return _pay_answer(cue, time, action) * (time == length - 1)

    return Diagnostic(length, see, pay, (-1, 1), features=2)


DIAGNOSTICS = {
    "one-step": Diagnostic(1, _see_nothing, _pay_one, (1, 1)),
    "observation": Diagnostic(1, _see_cue, lambda cue, time, action: cue, (-1, 1)),
    "delayed": Diagnostic(
        2,
        lambda cue, time: (time % 2).astype(np.float32)[:, None],
        lambda cue, time, action: time == 1,
        (1, 1),
    ),
    "endless": Diagnostic(5, _see_nothing, _pay_one, (5, 5), truncates=True),
    "action": Diagnostic(1, _see_nothing, lambda cue, time, action: 2 * action - 1, (-1, 1)),
    "observation-action": Diagnostic(1, _see_cue, _pay_answer, (-1, 1)),
    "recall": _recall(5),
    "noisy": Diagnostic(
        1,
        _see_mixed,
        lambda cue, time, action: _pay_answer(cue[:, 0], time, action),
        (-1, 1),
        draw=_draw_noisy,
        features=8,
    ),
    "box": Diagnostic(
        1,
        _see_cue,
        lambda cue, time, action: -((action[:, 0] - cue / 2) ** 2),
        (-2.25, 0),
        draw=_draw_uniform,
        continuous=True,
    ),
}


def _find(name: str) -> Diagnostic:
    stem, _, length = name.rpartition("-")
    if stem == "recall" and length.isdecimal():
        if int(length) < 2:
            raise UserError(f"recall needs at least 2 steps, one to see and one to answer, not {length}")
        return _recall(int(length))
    if name not in DIAGNOSTICS:
        known = [*DIAGNOSTICS, "t-maze"]  # which has a file of its own
        raise UnknownNameError("environment", f"diagnostic/{name}", [f"diagnostic/{each}" for each in known])
    return DIAGNOSTICS[name]


class DiagnosticEnv(VectorEnv):
    """Copies of one `Diagnostic`; episodes follow one another in the same step."""

    def __init__(self, env_id: str, num_envs: int):
        self.world = world = _find(env_id.removeprefix("diagnostic/"))
        action = ActionSpec(shape=(1,), low=(-1.0,), high=(1.0,)) if world.continuous else ActionSpec(count=2)
        observation = ObservationSpec((world.features,), "float32", -1.0, 1.0)
        self.spec = EnvSpec(env_id, num_envs, observation, action, score_range=world.score_range)
        self._generator = np.random.default_rng(0)
        self._cue = np.zeros(num_envs, np.float32)
        self._time = np.zeros(num_envs, np.int64)
        self._action = np.zeros(num_envs)

    def reset(self, seed: int) -> np.ndarray:
        self._generator = np.random.default_rng(seed)
        self._cue = self.world.draw(self._generator, self.spec.num_envs)
        self._time = np.zeros(self.spec.num_envs, np.int64)
        return self.world.see(self._cue, self._time)

    def send(self, action: np.ndarray) -> None:
        low, high = (-1, 1) if self.world.continuous else (0, 1)
        if not ((action >= low) & (action <= high)).all():
            raise UserError(f"actions must be {low} to {high}, not {action.tolist()}")
        self._action = action

    def recv(self) -> Outcome:
        count, world = self.spec.num_envs, self.world
        reward = world.pay(self._cue, self._time, self._action).astype(np.float32)
        time = self._time + 1
        next_obs = obs = world.see(self._cue, time)
        ended = time == world.length
        self._time = np.where(ended, 0, time)
        if ended.any():
            self._cue = self._cue.copy()
            self._cue[ended] = world.draw(self._generator, int(ended.sum()))
            obs = world.see(self._cue, self._time)
        never = np.zeros(count, bool)
        terminated, truncated = (never, ended) if world.truncates else (ended, never)
        discount = 1.0 - terminated.astype(np.float32)
        valid = np.ones(count, bool)
        return Outcome(np.arange(count), next_obs, obs, reward, terminated, truncated, discount, valid)

    def state_dict(self) -> dict[str, Any]:
        return {
            "cue": self._cue.copy(),
            "time": self._time.copy(),
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self._cue, self._time = saved["cue"].copy(), saved["time"].copy()
        self._generator.bit_generator.state = saved["generator"]
        return self.world.see(self._cue, self._time)
