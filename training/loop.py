"""The one loop: environments and an agent in, a stream of steps out. Statistics and checkpoints consume the stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..agents.base import Agent, Metrics
from ..encoders.base import Inputs, State
from ..envs.base import Outcome, Step, VectorEnv
from ..envs.errors import UserError


class NonFiniteError(UserError):
    """An environment or a network produced a number that is none."""


@dataclass
class Position:
    """Where a run stands between two steps; changed in place by `run`, so that it can be saved at any `yield`."""

    obs: np.ndarray  # [B, ...] what to act on
    reset: np.ndarray  # bool [B] `obs` is the first of an episode
    last_action: np.ndarray  # [B, ...] zeros at the start of an episode
    last_reward: np.ndarray  # float32 [B] likewise
    state: State  # the encoder's, before reading `obs`
    steps: int = 0  # valid environment steps so far

    @classmethod
    def begin(cls, env: VectorEnv, agent: Agent, obs: np.ndarray) -> Position:
        """At the first observations `obs` of new episodes."""
        count, action = env.spec.num_envs, env.spec.action
        kind = np.int64 if action.is_discrete else np.float32
        return cls(
            obs,
            np.ones(count, bool),
            np.zeros((count, *action.shape), kind),
            np.zeros(count, np.float32),
            agent.initial_state(count),
        )

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "state": list(self.state)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved, state=tuple(saved["state"]))


def run(
    env: VectorEnv, agent: Agent, position: Position, *, explore: bool = True, learn: bool = True
) -> Iterator[tuple[Step, Metrics]]:
    """Act, learn while the emulators run, observe; for ever. Stop by no longer asking.

    Args:
        env: already reset, with its observations in `position`.
        agent: whose `act` and, if `learn`, `observe` and `update` are called.
        position: where to begin; kept up to date in place.
        explore: passed on to `agent.act`.
        learn: False to evaluate.

    Raises:
        NonFiniteError: an observation, reward or action is not finite; the message names the step.
    """
    device = agent.device
    while True:
        action = agent.act(*_inputs(position, device), explore=explore)
        env.send(action.action)
        metrics = agent.update() if learn else {}
        outcome = env.recv()
        step = Step(
            outcome.env_index,
            position.obs,
            action.action,
            action.extras,
            outcome.reward,
            outcome.terminated,
            outcome.truncated,
            outcome.discount,
            outcome.next_obs,
            position.reset,
            outcome.valid,
        )
        position.steps += len(outcome.valid) if outcome.valid.all() else int(outcome.valid.sum())
        _check_finite(outcome, env.spec.id, position.steps)
        if learn:
            agent.observe(step)
        _advance(position, step, outcome, action.state)
        yield step, metrics


def _inputs(position: Position, device: str) -> tuple[Inputs, State, torch.Tensor | None]:
    """What `act` reads; what only matters to a memory is left out where there is none."""
    if not position.state:
        return Inputs(_tensor(position.obs, device)), (), None
    last = _tensor(position.last_action, device), _tensor(position.last_reward, device)
    return Inputs(_tensor(position.obs, device), *last), position.state, _tensor(position.reset, device)


def _tensor(array: np.ndarray, device: str) -> torch.Tensor:
    tensor = torch.from_numpy(array).unsqueeze(0)
    return tensor if device == "cpu" else tensor.to(device)


def _advance(position: Position, step: Step, outcome: Outcome, state: State) -> None:
    # after an ignored action (valid False) the next observation begins an episode, as after an end
    began = step.ended
    if not step.valid.all():
        began = began | ~step.valid
    position.obs, position.reset, position.state = outcome.obs, began, state
    position.last_action, position.last_reward = step.action, step.reward
    if began.any():
        keep = ~began
        position.last_action = step.action * keep.reshape(-1, *[1] * (step.action.ndim - 1)).astype(step.action.dtype)
        position.last_reward = step.reward * keep


def _check_finite(outcome: Outcome, env_id: str, step: int) -> None:
    if not np.isfinite(outcome.reward).all():
        raise NonFiniteError(f"{env_id} paid a reward that is not finite at step {step}")
    if outcome.next_obs.dtype.kind == "f" and not np.isfinite(outcome.next_obs).all():
        raise NonFiniteError(f"{env_id} showed an observation that is not finite at step {step}")
