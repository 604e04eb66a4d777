"""What every agent promises, with each encoder that it takes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_cases import (
    BOX,
    DISCRETE,
    ENCODERS,
    ENVS,
    Case,
    changed,
    every_case,
    first_update,
    inputs_for,
    plain_case,
    plain_encoder,
    snapshot,
    trajectory,
    watched,
)
from playing import begin, steps_of
from saccade.agents import find_agent, list_agents, make_agent
from saccade.encoders.base import Encoder
from saccade.envs import make_env
from saccade.envs.errors import SpecError, UserError
from saccade.training import checkpoint


@pytest.mark.parametrize("name", list_agents())
def test_every_agent_acts_somewhere_and_refuses_the_rest_by_name(name: str):
    accepted = 0
    for world, encoder in itertools.product((DISCRETE, BOX), ("mlp", "dnc")):
        try:
            Case(name, ENCODERS[encoder], world).build()
        except SpecError as error:
            assert name in str(error)  # noqa: PT017  what is accepted does not raise
            assert world in str(error) or "memory" in str(error)  # noqa: PT017
        else:
            accepted += 1
    assert accepted


@pytest.mark.parametrize("name", list_agents())
def test_every_agent_describes_itself(name: str):
    entry = find_agent(name)
    assert entry.kind
    assert "\n" not in entry.kind
    assert entry.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert entry.Config() == entry.Config()


def impossible_settings() -> list[tuple[str, str, Any]]:
    """Numbers that nothing can mean: negative counts, and rates of zero, below, or none."""
    found: list[tuple[str, str, Any]] = []
    for agent in list_agents():
        for field in dataclasses.fields(find_agent(agent).Config):
            if type(field.default) is int:
                found.append((agent, field.name, -1))
            if field.name == "learning_rate":
                found += [(agent, field.name, 0.0), (agent, field.name, -1e-3), (agent, field.name, math.nan)]
    return found


@pytest.mark.parametrize(("name", "field", "value"), impossible_settings())
def test_settings_that_make_no_sense(name: str, field: str, value: Any):
    env = make_env(DISCRETE, ENVS)
    config = find_agent(name).Config(**{field: value})
    with pytest.raises(UserError, match=field):
        make_agent(name, env.spec, plain_encoder(name, env.spec.observation), config)


@every_case
@pytest.mark.parametrize("explore", [False, True])
def test_actions_fit_the_world(case: Case, explore: bool):
    agent, env = case.build()
    spec, state = env.spec.action, agent.initial_state(ENVS)
    action = agent.act(inputs_for(env), state, torch.ones(1, ENVS, dtype=torch.bool), explore=explore)
    if spec.is_discrete:
        assert action.action.shape == (ENVS,)
        assert action.action.dtype == np.int64
        assert ((action.action >= 0) & (action.action < spec.count)).all()
    else:
        assert action.action.shape == (ENVS, *spec.shape)
        assert action.action.dtype == np.float32
        assert ((action.action >= spec.low) & (action.action <= spec.high)).all()
    assert [leaf.shape for leaf in action.state] == [leaf.shape for leaf in state]
    assert all(len(values) == ENVS for values in action.extras.values())


@every_case
def test_greedy_actions_repeat_and_exploration_varies(case: Case):
    agent, env = case.build()
    inputs, reset = inputs_for(env), torch.ones(1, ENVS, dtype=torch.bool)
    greedy, explored = [], []
    for _ in range(20):
        greedy.append(agent.act(inputs, agent.initial_state(ENVS), reset, explore=False).action.tolist())
        explored.append(agent.act(inputs, agent.initial_state(ENVS), reset, explore=True).action.tolist())
    assert all(action == greedy[0] for action in greedy)
    assert any(action != explored[0] for action in explored)


@every_case
def test_acting_changes_no_parameter_and_no_buffer(case: Case):
    agent, env = case.build()
    first_update(agent, env)  # whatever training has switched on is on
    before, training = snapshot(agent.network), [module.training for module in agent.network.modules()]
    state = agent.initial_state(ENVS)
    for explore in (True, False, True):
        state = agent.act(inputs_for(env), state, torch.ones(1, ENVS, dtype=torch.bool), explore=explore).state
    assert not changed(agent.network, before)
    assert [module.training for module in agent.network.modules()] == training


@every_case
def test_between_actions_the_encoders_state_is_carried(case: Case):
    """What `act` returns is the encoder's state after the observation; a reset forgets the one before."""
    agent, env = case.build()
    encoder = copy.deepcopy(agent.network.encoder).eval()
    inputs, reset = inputs_for(env), torch.zeros(1, ENVS, dtype=torch.bool)
    state = agent.act(inputs, agent.initial_state(ENVS), reset, explore=True).state
    expected = encoder(inputs, encoder.initial_state(ENVS), reset)[1]
    assert len(state) == len(expected)
    for ours, theirs in zip(state, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    again = agent.act(inputs, state, ~reset, explore=True).state
    for ours, theirs in zip(again, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@every_case
def test_an_update_trains_the_whole_encoder(case: Case):
    """Every parameter moves, momentum copies too; what the encoder learns for itself is in the metrics."""
    torch.manual_seed(0)
    agent, env = case.build()
    encoder = agent.network.encoder
    assert isinstance(encoder, Encoder)
    before = snapshot(encoder)
    metrics = first_update(agent, env)
    moved = changed(encoder, before)
    assert {name for name, _ in encoder.named_parameters()} <= moved
    values = {name: float(value) for name, value in metrics.items()}
    assert all(math.isfinite(value) for value in values.values())
    assert any(name.startswith("loss/") for name in values)
    names = encoder.auxiliary_losses(trajectory(env), None)
    assert {f"loss/{name}" for name in names} <= values.keys()


@plain_case
def test_the_encoders_wishes_are_honoured(case: Case):
    """Groups keep their rates, frozen parameters stay, each step has its `after_update`, and only learning augments."""
    encoder, whole = watched(case)
    agent, env = case.build(encoder=whole)
    before = snapshot(encoder)
    for _ in range(3):
        agent.act(inputs_for(env), agent.initial_state(ENVS), None, explore=True)
    assert not any(encoder.counts.values())
    first_update(agent, env)
    assert changed(encoder, before) == {"quick.weight", "quick.bias"}
    assert encoder.counts["updates"] == encoder.counts["after_update"] > 0
    assert encoder.counts["auxiliary"] > 0
    assert encoder.counts["augment"] > 0
    assert all((obs > 3).all() for obs in encoder.learned)  # observations lie within -1..1, augmented ones within 4..6


@every_case
def test_a_loaded_agent_goes_on_exactly(case: Case, tmp_path: Path):
    """Through a checkpoint into an agent of another seed: the same actions, and the same parameters later."""
    agent, env = case.build()
    position = begin(agent, env)
    rounds = 300
    updates = sum(bool(metrics) for _, metrics in steps_of(env, agent, position, rounds))
    chunks = agent.replay.chunks() if agent.replay is not None else ()
    saved = {"agent": agent.state_dict(), "env": env.state_dict(), "position": position.state_dict()}
    checkpoint.save(tmp_path, rounds, saved, chunks)
    loaded, other_env = case.build(seed=1)
    state = checkpoint.load(tmp_path)
    loaded.load_state_dict(state["agent"])
    for name, _, content in checkpoint.load_chunks(tmp_path):
        assert loaded.replay is not None
        loaded.replay.load_chunk(name, content)
    other_position = begin(loaded, other_env)
    other_env.load_state_dict(state["env"])
    other_position.load_state_dict(state["position"])
    results = []
    for going, world, place in ((agent, env, position), (loaded, other_env, other_position)):
        torch.manual_seed(7)  # of the encoders' own draws; a run saves torch's generator beside the agent
        played = list(steps_of(world, going, place, rounds))
        updates += sum(bool(metrics) for _, metrics in played)
        results.append((np.stack([step.action for step, _ in played]), snapshot(going.network)))
    assert updates > 2
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    assert not {name for name, tensor in results[0][1].items() if not torch.equal(tensor, results[1][1][name])}


@plain_case
def test_same_seed_same_agent(case: Case):
    results = []
    for seed in (3, 3, 4):
        agent, env = case.build(seed=seed)
        torch.manual_seed(seed)
        first_update(agent, env)
        results.append(snapshot(agent.network))
    ours, again, other = results
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert any(not torch.equal(ours[name], other[name]) for name in ours)


@plain_case
def test_a_policy_is_loaded_alone(case: Case):
    """To evaluate, `load_policy` suffices: the same greedy actions, without optimiser and data."""
    agent, env = case.build()
    first_update(agent, env)
    fresh, _ = case.build(seed=1)
    fresh.load_policy(agent.state_dict())
    inputs, reset = inputs_for(env, seed=5), torch.ones(1, ENVS, dtype=torch.bool)
    ours, theirs = (
        going.act(inputs, going.initial_state(ENVS), reset, explore=False).action for going in (fresh, agent)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert not changed(fresh.network, snapshot(agent.network))
