"""Recording what an environment shows to a random or a trained agent; `recording.py` says how it is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import make_env
from .base import VectorEnv
from .errors import UserError
from .recording import Recipe, Recording, Table, only_one, open_recording
from .spec import ActionSpec, EnvSpec

__all__ = ["Policy", "Recipe", "Recording", "open_recording", "random_policy", "record"]

FLUSH_SECONDS = 10.0  # at most so much is lost when the process is killed


@dataclass(frozen=True)
class Policy:
    """Who acts while a recording is made."""

    name: str  # part of the recording's name: another policy, or another state of the same, needs another name
    act: Callable[[np.ndarray], np.ndarray]  # observations [B, ...] -> int64 [B], or float32 [B, *shape]


def record(directory: Path, recipe: Recipe, frames: int, policy: Policy | None = None) -> Iterator[int]:
    """Record into `directory` until it holds `frames` observations; go on with what is there already.

    Whoever stops asking stops the recording; what was recorded by then stays. A recording that was interrupted differs
    from one that was not: all its columns begin new episodes there. Where another process records into `directory`,
    this waits for it.

    Args:
        directory: made where it is not there.
        recipe: must be that of the recording in `directory`, if there is one.
        frames: observations in all columns together.
        policy: acts; its name is the recipe's. None: random actions.

    Yields:
        how many of the `frames` there are.

    Raises:
        UserError: another recording, or a damaged one, is there; the disk is full; or the policy's actions do not fit
            the world.
    """
    if policy is not None and policy.name != recipe.policy:
        raise UserError(f"the recipe's policy is {recipe.policy!r}, not {policy.name!r}; give both the same name")
    if policy is None and recipe.policy != "random":
        raise UserError(f"recording {recipe.env} by {recipe.policy!r} needs that policy; only 'random' is built in")
    rows = recipe.rows(frames)
    with only_one(directory):
        env = make_env(recipe.env, recipe.num_envs, recipe.options)
        try:
            table = Table(directory, recipe, env.spec, rows)
            try:
                if table.remaining(rows):
                    yield from _record(env, table, rows, policy or random_policy(env.spec, recipe.seed + table.done))
            finally:
                table.flush()
        finally:
            env.close()


def random_policy(spec: EnvSpec, seed: int) -> Policy:
    """Uniform actions; where a box is unbounded, from the standard normal distribution."""
    random, action, count = np.random.default_rng(seed), spec.action, spec.num_envs
    if action.is_discrete:
        return Policy("random", lambda obs: random.integers(action.count, size=count))
    low, high = (np.array(bound, np.float32).reshape(action.shape) for bound in (action.low, action.high))
    bounded = (np.abs(low) < 1e18) & (np.abs(high) < 1e18)
    floor, width = np.where(bounded, low, 0), np.where(bounded, high, 0) - np.where(bounded, low, 0)

    def act(obs: np.ndarray) -> np.ndarray:
        uniform = floor + width * random.random((count, *action.shape), np.float32)
        normal = random.standard_normal((count, *action.shape), np.float32)
        return np.clip(np.where(bounded, uniform, normal), low, high).astype(np.float32)

    return Policy("random", act)


def _record(env: VectorEnv, table: Table, rows: int, policy: Policy) -> Iterator[int]:
    obs = env.reset(table.recipe.seed + table.done)
    begins = np.ones(len(obs), bool)
    flushed = time.monotonic()
    while missing := table.remaining(rows):
        action = _checked(policy.act(obs), env.spec.action, len(obs))
        env.send(action)
        outcome = env.recv()
        table.add(obs, begins, action, outcome)
        obs, begins = outcome.obs, outcome.terminated | outcome.truncated | ~outcome.valid
        if time.monotonic() - flushed > FLUSH_SECONDS:
            table.flush()
            flushed = time.monotonic()
        if (left := table.remaining(rows)) < missing:
            yield rows * env.spec.num_envs - left


def _checked(action: np.ndarray, spec: ActionSpec, count: int) -> np.ndarray:
    expected = (count, *spec.shape)
    if np.shape(action) != expected or not np.isfinite(action).all():
        raise UserError(f"the policy chose {np.shape(action)} actions, not {expected} finite ones")
    return np.asarray(action, np.int64 if spec.is_discrete else np.float32)
