"""Agents learn what they should, and no more, in worlds whose answers are known (see `envs.diagnostics`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from doubles import TinyDNC
from playing import begin, steps_of
from saccade.agents import find_agent, list_agents, make_agent
from saccade.agents.base import Agent
from saccade.agents.dqn import DQN
from saccade.encoders import make_encoder
from saccade.encoders.base import Encoder, Inputs
from saccade.envs import make_env
from saccade.envs.spec import ObservationSpec
from saccade.training.evaluate import evaluate
from torch import Tensor

ENVS = 8
DISCOUNT = 0.5
QUICK: dict[str, dict[str, Any]] = {  # settings to learn in a second or two; of the fields that an agent has
    "dqn": {
        "learning_rate": 3e-3,
        "learning_starts": 100,
        "update_interval": 8,
        "updates_per_interval": 2,
        "target_interval": 80,
        "replay_capacity": 2000,
        "epsilon_final": 0.2,
        "epsilon_decay_steps": 1000,
    },
    "reinforce": {"learning_rate": 5e-3, "episodes_per_update": 16},
    "a2c": {"learning_rate": 5e-3},
    "a3c": {"learning_rate": 5e-3},
    "ppo": {"learning_rate": 5e-3, "rollout_steps": 16},
    "pqn": {
        "learning_rate": 5e-3,
        "rollout_steps": 8,
        "minibatches": 4,
        "epsilon_final": 0.2,
        "epsilon_decay_steps": 1000,
    },
    "unreal": {"learning_rate": 5e-3, "rollout_steps": 5, "sequence_length": 5, "replay_capacity": 2000},
}
WITHOUT_MEMORY = sorted({*list_agents()} - {"drqn"})  # of drqn see test_drqn_learning.py
EVERY_AGENT = pytest.mark.parametrize("name", WITHOUT_MEMORY)


def learn(name: str, world: str, rounds: int, encoder: Encoder | None = None, **settings: Any) -> Agent:
    """An agent after `rounds` steps in each of 8 copies of a world."""
    env = make_env(f"diagnostic/{world}", ENVS)
    config = find_agent(name).Config(**{"discount": DISCOUNT} | QUICK.get(name, {}) | settings)
    agent = make_agent(name, env.spec, encoder or make_encoder("mlp", env.spec.observation), config)
    for _ in steps_of(env, agent, begin(agent, env), rounds):
        pass
    return agent


def score(agent: Agent, world: str, episodes: int = 200) -> float:
    """Mean of greedy episodes on fresh seeds."""
    return evaluate(agent, lambda count: make_env(f"diagnostic/{world}", count), episodes, seed=1000).mean


@torch.no_grad()
def action_values(agent: Agent, observations: list[list[float]]) -> Tensor:
    """What `agent` thinks of `observations` `[N, ...]`: `[N, A]`, or `[N, 1]` where it judges observations only."""
    obs = torch.tensor(observations)
    network: Any = agent.network
    if isinstance(agent, DQN):
        return network(obs)
    return network.values(network.encoder(Inputs(obs[None]))[0])[0, :, None]


@EVERY_AGENT
@pytest.mark.parametrize(
    ("world", "observations", "values"),
    [
        ("one-step", [[1.0]], [1.0]),
        ("observation", [[-1.0], [1.0]], [-1.0, 1.0]),
        ("delayed", [[0.0], [1.0]], [DISCOUNT, 1.0]),
        ("endless", [[1.0]], [1 / (1 - DISCOUNT)]),
    ],
)
def test_values_are_the_known_ones(name: str, world: str, observations: list[list[float]], values: list[float]):
    agent = learn(name, world, rounds=800)
    expected = torch.tensor(values)[:, None]
    learned = action_values(agent, observations)
    torch.testing.assert_close(learned, expected.expand_as(learned), atol=0.15, rtol=0)


@EVERY_AGENT
@pytest.mark.parametrize("world", ["action", "observation-action"])
def test_the_best_action_is_found(name: str, world: str):
    assert score(learn(name, world, rounds=300), world) == 1.0


@EVERY_AGENT
def test_without_memory_recall_stays_at_chance(name: str):
    assert abs(score(learn(name, "recall", rounds=600, discount=0.9), "recall", episodes=1000)) < 0.15


def test_with_memory_recall_is_solved():
    memory = TinyDNC(ObservationSpec((2,)))
    agent = learn("reinforce", "recall-3", rounds=900, encoder=memory, discount=0.9)
    assert score(agent, "recall-3") > 0.95


def test_continuous_actions_are_learned():
    """The best actions earn 0, the best that do not look at the cue -1/12."""
    agent = learn("reinforce", "box", rounds=1500, episodes_per_update=32)
    assert score(agent, "box", episodes=1000) > -0.01


def test_q_values_of_actions_by_hand():
    agent = learn("dqn", "action", rounds=500)
    torch.testing.assert_close(action_values(agent, [[1.0]]), torch.tensor([[-1.0, 1.0]]), atol=0.1, rtol=0)
