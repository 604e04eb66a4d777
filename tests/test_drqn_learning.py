"""Recurrent Q-learning in worlds whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playing import begin
from saccade.agents import make_agent
from saccade.agents.drqn import DRQN, Config
from saccade.agents.parts import q_losses
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Inputs
from saccade.envs import make_env
from saccade.training.evaluate import evaluate
from saccade.training.loop import run
from torch import Tensor

QUICK: dict[str, Any] = {
    "learning_rate": 5e-3,
    "batch_size": 16,
    "sequence_length": 8,
    "burn_in": 2,
    "replay_capacity": 4000,
    "learning_starts": 100,
    "update_interval": 16,
    "target_interval": 160,
    "epsilon_final": 0.2,
    "epsilon_decay_steps": 800,
}


def learn(world: str, rounds: int, **settings: Any) -> DRQN:
    torch.manual_seed(0)
    env = make_env(f"diagnostic/{world}", 8)
    encoder = make_encoder("lstm", env.spec.observation, find_encoder("lstm").Config(hidden=16))
    agent = make_agent("drqn", env.spec, encoder, Config(**QUICK | settings))
    assert isinstance(agent, DRQN)
    for count, _ in enumerate(run(env, agent, begin(agent, env))):
        if count == rounds:
            break
    return agent


@torch.no_grad()
def values(agent: DRQN, observations: list[float]) -> Tensor:
    """Of the observations of one episode: `[T, A]`."""
    obs = torch.tensor(observations)[:, None, None]
    return agent.acting(Inputs(obs), agent.initial_state(1), None)[0][:, 0]


@pytest.mark.parametrize("rescale", [False, True])
def test_values_are_the_known_ones(rescale: bool):
    """gamma, then 1."""
    learned = values(learn("delayed", 400, discount=0.5, rescale=rescale), [0.0, 1.0])
    learned = q_losses.unrescale(learned) if rescale else learned
    torch.testing.assert_close(learned, torch.tensor([[0.5, 0.5], [1.0, 1.0]]), atol=0.1, rtol=0)


def test_where_an_episode_is_cut_off_value_remains():
    """Without it, the last of five observations would be worth 1, not 1 / (1 - gamma)."""
    learned = values(learn("endless", 400, discount=0.5), [1.0] * 5)
    torch.testing.assert_close(learned, torch.full((5, 2), 2.0), atol=0.25, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"n_step": 3, "prioritised": True, "stored_state": "zero", "dueling": True}])
def test_recall_is_solved(settings: dict[str, Any]):
    agent = learn("recall", 350, discount=0.9, **settings)
    assert evaluate(agent, lambda count: make_env("diagnostic/recall", count), 200, seed=1000).mean > 0.95
