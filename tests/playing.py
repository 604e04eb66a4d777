"""Agents at play, for the tests of agents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from saccade.agents.base import Agent, Metrics
from saccade.envs.base import Step, VectorEnv
from saccade.training.loop import Position, run


def begin(agent: Agent, env: VectorEnv, seed: int = 0) -> Position:
    return Position.begin(env, agent, env.reset(seed))


def steps_of(env: VectorEnv, agent: Agent, position: Position, rounds: int) -> Iterator[tuple[Step, Metrics]]:
    """`rounds` steps of every environment, exploring and learning."""
    return itertools.islice(run(env, agent, position), rounds)
