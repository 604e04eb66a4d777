"""Actor-learners on shared parameters: the rule, and what one of them does. Of their processes see test_workers.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, TinyDNC
from playing import begin, steps_of
from saccade.agents import a2c, a3c, make_agent, unreal
from saccade.agents.parts.actor_learner import ActorLearner, among_others
from saccade.agents.parts.shared_rmsprop import LAG_MOST, LAG_SUM, STEPS, UPDATES, Flat, Piece, Rules, SharedParameters
from saccade.encoders import make_encoder
from saccade.encoders.base import Encoder, FeedForward
from saccade.envs import make_env
from saccade.envs.base import VectorEnv
from saccade.envs.errors import UserError
from saccade.training.arguments import parse_train
from saccade.training.plan import default_plan
from saccade.training.train import train
from torch import nn


def test_the_rule_is_rmsprop_with_its_constant_inside_the_root():
    rng = np.random.default_rng(0)
    decay, epsilon, rates = 0.9, 0.01, (0.1, 0.02, 0.5)
    pieces = tuple(
        Piece(*each) for each in zip((0, 4, 6), (4, 6, 9), ("rmsprop", "rmsprop", "sgd"), rates, strict=True)
    )
    rules = Rules(pieces, decay, epsilon, decay_steps=100)
    values, squares = torch.randn(9), torch.zeros(9)
    expected, mean = values.double().numpy().copy(), np.zeros(9)
    for steps in (0, 10, 50, 90, 120):
        gradient = rng.normal(size=9)
        rules.apply(values, squares, torch.from_numpy(gradient).float(), steps)
        left = max(1 - steps / 100, 0)
        for piece in pieces:
            for i in range(piece.start, piece.stop):
                if piece.rule == "sgd":
                    expected[i] -= left * piece.rate * gradient[i]
                    continue
                mean[i] = decay * mean[i] + (1 - decay) * gradient[i] ** 2
                expected[i] -= left * piece.rate * gradient[i] / np.sqrt(mean[i] + epsilon)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(squares, mean, rtol=1e-5)


def test_parameters_become_views_of_one_vector_and_keep_their_layout():
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=torch.channels_last)
    x = torch.randn(5, 3, 3, 3)
    before, strides = net(x), [p.stride() for p in net.parameters()]
    first, last = list(net[0].parameters()), list(net[2].parameters())
    flat = Flat([("rmsprop", 0.1, first), ("sgd", 0.2, last)])
    assert flat.pieces == (Piece(0, 52, "rmsprop", 0.1), Piece(52, 86, "sgd", 0.2))
    torch.testing.assert_close(net(x), before, rtol=0, atol=0)
    assert [p.stride() for p in net.parameters()] == strides
    flat.values.mul_(2)
    torch.testing.assert_close(first[0], flat.views(flat.values)[0])
    assert len(flat.views(flat.values)) == len(first)
    net(x).square().sum().backward()
    expected = [(p - p.grad).detach().clone() for p in net.parameters() if p.grad is not None]
    flat.values.sub_(flat.gather())
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
    first[0].grad = None
    assert not flat.gather()[:48].any()
    assert flat.gather()[52:].any()


def test_the_lag_is_the_number_of_updates_by_others_between_reading_and_writing():
    shared = SharedParameters(torch.zeros(3), Rules((Piece(0, 3, "sgd", 1.0),), 0.9, 0.01, 0)).share(2)
    shared.base, shared.total = 100, 150
    one, two = shared.seat(0), shared.seat(1)
    mine, theirs = torch.empty(3), torch.empty(3)
    one.take(mine)
    two.take(theirs)
    assert two.bring(torch.tensor([1.0, 0, 0]), 10, theirs) == (0, 110, False)
    assert two.bring(torch.tensor([1.0, 0, 0]), 10, theirs) == (0, 120, False)
    assert mine.tolist() == [0, 0, 0]
    assert one.bring(torch.tensor([0, 1.0, 0]), 20, mine) == (2, 140, False)
    assert mine.tolist() == [-2, -1, 0]
    assert theirs.tolist() == [-2, 0, 0]
    assert two.bring(torch.zeros(3), 10, theirs) == (1, 150, True)
    assert shared.tally[:, STEPS].tolist() == [20, 30]
    assert shared.tally[:, UPDATES].tolist() == [1, 3]
    assert shared.tally[:, LAG_SUM].tolist() == [2, 1]
    assert shared.tally[:, LAG_MOST].tolist() == [2, 1]


def test_told_to_stop_every_seat_says_so():
    shared = SharedParameters(torch.zeros(1), Rules((Piece(0, 1, "sgd", 1.0),), 0.9, 0.01, 0)).share(1)
    shared.stop.fill_(1)
    assert shared.seat(0).bring(torch.zeros(1), 1, torch.zeros(1)).is_last


SETTINGS = {"learning_rate": 0.01, "learning_rate_decay_steps": 2000, "clip_rewards": True, "max_gradient_norm": 0.2}


def pair(encoder: Callable[[VectorEnv], Encoder]) -> tuple[Any, ActorLearner, VectorEnv, VectorEnv]:
    """A2C and A3C that begin alike, each with a world of its own."""
    found = []
    for name, module in (("a2c", a2c), ("a3c", a3c)):
        torch.manual_seed(1)
        env = make_env("CartPole-v1", 3)
        found.append((make_agent(name, env.spec, encoder(env), module.Config(**SETTINGS), seed=2), env))
    (ours, world), (theirs, other_world) = found
    assert isinstance(theirs, ActorLearner)
    return ours, theirs, world, other_world


@pytest.mark.parametrize(
    "encoder",
    [lambda env: make_encoder("mlp", env.spec.observation), lambda env: TinyDNC(env.spec.observation)],
    ids=["mlp", "memory"],
)
def test_alone_it_is_a2c_step_for_step(encoder: Callable[[VectorEnv], Encoder]):
    synchronous, alone, world, other_world = pair(encoder)
    rounds = 150
    played = [
        [(step.action.tolist(), metrics) for step, metrics in steps_of(env, agent, begin(agent, env), rounds)]
        for agent, env in ((synchronous, world), (alone, other_world))
    ]
    assert [action for action, _ in played[0]] == [action for action, _ in played[1]]
    for (_, ours), (_, theirs) in zip(*played, strict=True):
        assert {**ours, "lag": 0.0}.keys() == theirs.keys() if ours else not theirs
    for ours, theirs in zip(synchronous.network.parameters(), alone.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert alone.total_steps == 3 * 145  # the last rollout waits for the next step
    squares = alone.state_dict()["optimisers"]["rmsprop"]["state"]
    for ours, theirs in zip(
        synchronous.state_dict()["optimisers"]["rmsprop"]["state"].values(), squares.values(), strict=True
    ):
        torch.testing.assert_close(ours["square"], theirs["square"], atol=1e-8, rtol=1e-5)
        assert ours["square"].any()


def test_a_checkpoint_of_a2c_goes_on_as_a3c():
    synchronous, alone, world, other_world = pair(lambda env: make_encoder("mlp", env.spec.observation))
    position = begin(synchronous, world)
    list(steps_of(world, synchronous, position, 51))
    alone.load_state_dict(synchronous.state_dict())
    place = begin(alone, other_world)
    other_world.load_state_dict(world.state_dict())
    place.load_state_dict(position.state_dict())
    for agent, env, where in ((synchronous, world, position), (alone, other_world, place)):
        list(steps_of(env, agent, where, 50))
    for ours, theirs in zip(synchronous.network.parameters(), alone.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_unreal_does_as_it_did_when_it_can_share():
    found = []
    for wrap in (lambda agent: agent, lambda agent: among_others(agent, "unreal")):
        torch.manual_seed(1)
        env = make_env("CartPole-v1", 2)
        settings = unreal.Config(replay_capacity=200, learning_rate=0.01, max_gradient_norm=0.2)
        agent = wrap(make_agent("unreal", env.spec, make_encoder("mlp", env.spec.observation), settings, seed=2))
        torch.manual_seed(1)
        played = list(steps_of(env, agent, begin(agent, env), 80))
        assert any("loss/value_replay" in metrics for _, metrics in played)
        found.append(agent.network.state_dict())
    for ours, theirs in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


class UnitNorm(FeedForward):
    """Its own rule keeps the rows of its weight at length 1."""

    feature_shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))

    @torch.no_grad()
    def after_update(self) -> None:
        self.layer.weight.div_(self.layer.weight.norm(dim=1, keepdim=True))


def test_what_the_encoders_own_rule_changes_reaches_the_others():
    env = make_env("CartPole-v1", 3)
    agent = make_agent("a3c", env.spec, UnitNorm())
    assert isinstance(agent, ActorLearner)
    other = make_agent("a3c", env.spec, UnitNorm(), seed=1)
    assert isinstance(other, ActorLearner)
    list(steps_of(env, agent, begin(agent, env), 60))
    other.sit(agent.shared.seat(0))
    torch.testing.assert_close(other.network.encoder.layer.weight.norm(dim=1), torch.ones(4))


def test_buffers_are_each_ones_own():
    env = make_env("CartPole-v1", 3)
    agents = [make_agent("a3c", env.spec, BatchNormAutoencoder(env.spec.observation), seed=seed) for seed in (0, 1)]
    one, other = agents
    assert isinstance(one, ActorLearner)
    assert isinstance(other, ActorLearner)
    list(steps_of(env, one, begin(one, env), 30))
    other.sit(one.shared.seat(0))
    means = [name for name in one.own() if name.endswith("running_mean")]
    assert means
    assert not one.own().keys() & {name for name, p in one.network.named_parameters() if p.requires_grad}
    assert any(not torch.equal(one.own()[name], other.own()[name]) for name in means)
    other.set_own(one.own())
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_reaches_nobody():
    env = make_env("CartPole-v1", 2)
    agent = make_agent("a3c", env.spec, make_encoder("mlp", env.spec.observation))
    assert isinstance(agent, ActorLearner)
    before = agent.shared.values.clone()
    next(iter(agent.network.value.parameters())).data.fill_(1e38)
    with pytest.raises(UserError, match="not finite after 0 steps"):
        list(steps_of(env, agent, begin(agent, env), 20))
    assert torch.equal(agent.shared.values, before)


def test_who_can_learn_with_others():
    env = make_env("CartPole-v1", 2)

    def made(name: str, config: Any = None) -> Any:
        return make_agent(name, env.spec, make_encoder("mlp", env.spec.observation), config)

    assert isinstance(among_others(made("a2c"), "a2c"), ActorLearner)
    for name, config, word in (
        ("dqn", None, "one process"),
        ("a2c", a2c.Config(optimizer="adam"), "--optimizer must be rmsprop"),
        ("a2c", a2c.Config(scale_values=True), "--scale-values must be False"),
    ):
        with pytest.raises(UserError, match=word):
            among_others(made(name, config), name)


def test_workers_on_the_command_line(tmp_path: Path):
    plan = parse_train("a3c", ["--env", "CartPole-v1", "--workers", "2", "--num-envs", "4", "--memory", "lstm"]).plan
    assert (plan.run.workers, plan.run.num_envs, plan.memory) == (2, 4, "lstm")
    assert parse_train("a3c", []).plan.run.workers == 0
    for words, message in (
        (["--workers", "-1"], "workers must not be negative"),
        (["--cluster", "auto"], "--workers 8"),
        (["--wire", "float16"], "wire"),
    ):
        with pytest.raises(UserError, match=message):
            parse_train("a3c", words)
    plan = default_plan("dqn", "CartPole-v1")
    with pytest.raises(UserError, match="dqn learns in one process: --workers is for a3c"):
        train(dataclasses.replace(plan, run=dataclasses.replace(plan.run, workers=2)), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()
