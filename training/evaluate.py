"""How good is an agent? Whole episodes on fresh seeds, with an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from ..agents.base import Action, Agent
from ..agents.parts.exploration import EpsilonGreedy
from ..encoders.base import Inputs, State
from ..envs.base import VectorEnv
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from . import checkpoint
from .loop import Position, run
from .plan import Plan, build, make_world
from .trackers import EpisodeStatistics

FRESH_SEEDS = 1_000_000  # added to a run's seed: worlds that training never saw
MOST_ENVS = 25


@dataclass(frozen=True)
class Score:
    """Scores of whole episodes; `low` and `high` are the 95 % interval of the mean (Student's t), None for one."""

    mean: float
    low: float | None
    high: float | None
    episodes: int
    scores: list[float]
    lengths: list[int]

    @classmethod
    def of(cls, scores: list[float], lengths: list[int]) -> Score:
        mean = float(np.mean(scores))
        if len(scores) < 2:  # nothing says how much they differ
            return cls(mean, None, None, len(scores), scores, lengths)
        half = float(stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores))
        return cls(mean, mean - half, mean + half, len(scores), scores, lengths)


class _EpsilonAgent:
    """An agent whose actions are replaced by random ones now and then."""

    def __init__(self, agent: Agent, actions: int, epsilon: float, seed: int):
        self.agent, self.actions = agent, actions
        self.exploration, self.random = EpsilonGreedy(epsilon), np.random.default_rng(seed)
        self.initial_state, self.device = agent.initial_state, agent.device

    def act(self, inputs: Inputs, state: State, reset: torch.Tensor | None, *, explore: bool) -> Action:
        action = self.agent.act(inputs, state, reset, explore=explore)
        return action._replace(action=self.exploration(action.action, self.actions, 0, self.random))


def with_epsilon(agent: Agent, spec: EnvSpec, epsilon: float, seed: int) -> Any:
    """`agent`, or what acts like it but for a share `epsilon` of random actions.

    Raises:
        SpecError: `epsilon` is positive and actions are continuous.
    """
    if epsilon == 0:
        return agent
    if not spec.action.is_discrete:
        raise SpecError("random actions by epsilon are for discrete actions; evaluate with --epsilon 0")
    return _EpsilonAgent(agent, spec.action.count, epsilon, seed)


def evaluate(
    agent: Agent,
    make: Callable[[int], VectorEnv],
    episodes: int,
    seed: int,
    epsilon: float = 0.0,
    progress: Callable[[int], None] = lambda done: None,
) -> Score:
    """Play `episodes` whole episodes, greedily but for a share `epsilon` of random actions.

    Each environment plays equally many, decided beforehand, so that short episodes are not favoured.

    Args:
        make: gives so many environments.
        progress: told how many episodes are done.

    Raises:
        SpecError: `epsilon` with continuous actions.
    """
    count = next(n for n in range(min(MOST_ENVS, episodes), 0, -1) if episodes % n == 0)
    env = make(count)
    actor = with_epsilon(agent, env.spec, epsilon, seed)
    statistics, left = EpisodeStatistics(count), np.full(count, episodes // count)
    scores: list[float] = []
    lengths: list[int] = []
    try:
        position = Position.begin(env, actor, env.reset(seed))
        for step, _ in run(env, actor, position, explore=False, learn=False):
            for episode in statistics.update(step):
                if left[episode.env_index]:
                    left[episode.env_index] -= 1
                    scores.append(episode.score)
                    lengths.append(episode.length)
                    progress(len(scores))
            if not left.any():
                return Score.of(scores, lengths)
    finally:
        env.close()
    raise AssertionError("the loop never ends by itself")


class Player(NamedTuple):
    """A trained agent and its world."""

    plan: Plan
    agent: Agent
    make_world: Callable[[int], VectorEnv]  # so many copies, as the agent sees them


def load_agent(directory: Path, encoder: str | None = None) -> Player:
    """The agent of a run directory, ready to act.

    Raises:
        UserError: no run or checkpoint there, or it does not fit this version.
    """
    plan = Plan.load(directory, encoder)
    state = checkpoint.load(directory / "checkpoint")
    env, agent, _ = build(plan, num_envs=1, directory=directory)
    env.close()
    try:
        agent.load_policy(state["agent"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint in {directory} is not of the agent in its config.json: {error}") from error
    return Player(plan, agent, lambda count: make_world(plan, count, env))


def evaluate_run(
    directory: Path,
    episodes: int,
    epsilon: float | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Score:
    """Evaluate the agent of a run directory; `epsilon` and `seed` default to those of the run's own evaluation."""
    if episodes < 1:
        raise UserError(f"episodes must be positive, not {episodes}")
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise UserError(f"epsilon must lie between 0 and 1, not {epsilon}")
    plan, agent, world = load_agent(directory, encoder)
    return evaluate(
        agent,
        world,
        episodes,
        FRESH_SEEDS + plan.run.seed if seed is None else seed,
        plan.run.evaluate_epsilon if epsilon is None else epsilon,
        progress,
    )
