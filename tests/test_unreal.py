"""UNREAL: A2C and nothing else without its tasks, A2C and their gradients with them; what each task may see."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from agent_cases import changed, snapshot
from dots import ENVS, SIZE, Dots
from playing import begin, steps_of
from saccade.agents import a2c, find_agent, make_agent, unreal
from saccade.agents.parts.auxiliary_tasks import AuxiliaryTasks, ValueReplay, Window, known_transitions, remember
from saccade.agents.parts.compute import Compute
from saccade.agents.parts.pixel_control import PixelControl
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Encoder, Inputs, WithMemory, remembered
from saccade.envs import make_env
from saccade.envs.base import VectorEnv
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.evaluate import evaluate

SHORT: dict[str, Any] = {"rollout_steps": 6, "sequence_length": 6, "replay_capacity": 300}
OFF = {"pixel_control": 0.0, "reward_prediction": 0.0, "value_replay": 0.0}


def small(name: str, spec: ObservationSpec) -> Encoder:
    sizes = {"mlp": {"hidden": (16,)}, "gru": {"hidden": 8}}[name]
    return make_encoder(name, spec, find_encoder(name).Config(**sizes))


def with_memory(env: VectorEnv) -> WithMemory:
    perception = small("mlp", env.spec.observation)
    return WithMemory(perception, small("gru", remembered(perception, env.spec.action)), env.spec.action)


def make(env: VectorEnv, seed: int = 0, remembers: bool = True, **settings: Any) -> unreal.Unreal:
    torch.manual_seed(seed)
    encoder = with_memory(env) if remembers else small("mlp", env.spec.observation)
    agent = make_agent("unreal", env.spec, encoder, unreal.Config(**SHORT | settings), seed=seed)
    assert isinstance(agent, unreal.Unreal)
    return agent


def play(agent, env: VectorEnv, rounds: int, position=None) -> list[dict]:
    """The metrics of each update."""
    return [metrics for _, metrics in steps_of(env, agent, position or begin(agent, env), rounds) if metrics]


def test_without_tasks_it_is_a2c():
    results = []
    for name in ("a2c", "unreal"):
        env = Dots()
        torch.manual_seed(0)
        encoder = with_memory(env)
        config = a2c.Config(rollout_steps=6) if name == "a2c" else unreal.Config(**SHORT, **OFF)
        agent = make_agent(name, env.spec, encoder, config, seed=0)
        assert len(play(agent, env, 40)) == 6
        results.append(snapshot(agent.network))
    ours, theirs = results
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_tasks_gradients_are_added_to_those_of_a2c():
    """With the same replayed experience, computed apart."""
    env = Dots()
    agent = make(env, feature_control=0.1)
    position = begin(agent, env)
    for _ in steps_of(env, agent, position, 29):
        pass
    while agent.store.count < 6:
        next(steps_of(env, agent, position, 1))
    rollout, random = agent.finished(), agent.replay.random.bit_generator.state
    assert rollout is not None
    names = ["pixel_control", "reward_prediction", "value_replay", "feature_control"]
    metrics = agent.accumulate(rollout)
    found = {name: p.grad.clone() for name, p in agent.network.named_parameters()}
    assert {f"loss/{name}" for name in names} <= metrics.keys()
    a2c.A2C.accumulate(agent, rollout)
    agent.replay.random.bit_generator.state = random
    for window in agent.tasks.windows():
        batch, features = agent._replayed(window)
        total, losses = agent.tasks.losses(window, batch, features)
        total.backward()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, metrics[f"loss/{name}"])
    for name, parameter in agent.network.named_parameters():
        assert found[name].any(), name
        torch.testing.assert_close(parameter.grad, found[name], msg=name)


def test_reward_prediction_does_not_see_the_memory():
    env = Dots()
    agent = make(env)
    play(agent, env, 20)
    agent.optimisers.clear()
    window = agent.tasks.tasks["reward_prediction"].window
    assert not window.remembers
    agent.tasks.losses(window, *agent._replayed(window))[0].backward()
    encoder = agent.network.encoder
    assert all(p.grad is None for p in encoder.memory.parameters())
    assert all(p.grad is not None for p in encoder.perception.parameters())


@pytest.mark.parametrize("stored_state", ["stored", "zero"])
def test_replayed_sequences_are_read_as_they_were_when_acting(stored_state: str):
    """Before any update, by the place in the ring. Where no state is stored, sequences that begin with an episode."""
    env = Dots()
    agent = make(env, stored_state=stored_state, rollout_steps=200, sequence_length=4)
    steps = [step for step, _ in steps_of(env, agent, begin(agent, env), 40)]
    obs, action, reward, reset = (
        torch.from_numpy(np.stack([getattr(step, name) for step in steps]))
        for name in ("obs", "action", "reward", "reset")
    )
    last = [torch.cat([torch.zeros_like(x[:1]), x[:-1]]) for x in (action, reward)]
    encoder = agent.network.encoder
    with torch.no_grad():
        acted = encoder(Inputs(obs, *last), encoder.initial_state(ENVS), reset)[0]
    # an episode's last observation takes a slot of its own
    slot = np.arange(40)[:, None] + np.cumsum([step.ended for step in steps], 0) - [step.ended for step in steps]
    time_of = {int(slot[t, e]) + e * agent.replay.size: (t, e) for t, e in np.ndindex(40, ENVS)}
    batch = agent.replay.sample(100, agent.initial_state(100))
    with torch.no_grad():
        replayed = remember(encoder, batch, batch.inputs.obs)
    begins = batch.reset[0]
    assert 0 < begins.sum() < 100
    compared = 0
    for i, b in np.ndindex(5, 100):
        place = time_of.get(int(batch.start[b]) + i)
        if place is not None and (stored_state == "stored" or begins[b]):
            torch.testing.assert_close(replayed[i, b], acted[place])
            compared += 1
    assert compared > 30


def test_pixel_control_is_for_images_alone():
    assert list(make(Dots()).tasks.tasks) == ["pixel_control", "reward_prediction", "value_replay"]
    world = make_env("diagnostic/recall-3", ENVS)
    assert list(make(world).tasks.tasks) == ["reward_prediction", "value_replay"]
    with pytest.raises(SpecError, match="pixel control needs images"):
        make(world, pixel_control=0.1)
    with pytest.raises(UserError, match="lower pixel_cell"):
        make(Dots(), pixel_cell=9)


@pytest.mark.parametrize("task", ["pixel_control", "reward_prediction", "value_replay", "feature_control"])
def test_each_task_alone(task: str):
    env = Dots()
    agent = make(env, **OFF | {task: 1.0})
    assert list(agent.tasks.tasks) == [task]
    heads = dict(agent.tasks.named_parameters())
    assert all(p.requires_grad for p in heads.values())
    before = snapshot(agent.network)
    metrics = play(agent, env, 13)
    assert [{"loss/" + task} <= each.keys() for each in metrics] == [True, True]
    moved = changed(agent.network, before)
    assert {f"tasks.{name}" for name in heads} <= moved


def test_encoders_may_compute_in_bfloat16():
    env = Dots()
    torch.manual_seed(0)
    settings = unreal.Config(**SHORT, feature_control=0.1)
    agent = make_agent("unreal", env.spec, with_memory(env), settings, Compute(bfloat16=True))
    before = snapshot(agent.network)
    (metrics,) = play(agent, env, 7)
    assert all(np.isfinite(float(value)) for value in metrics.values())
    assert {name for name, _ in agent.network.named_parameters()} <= changed(agent.network, before)


def test_a_q_agent_can_take_the_tasks():
    """What its own replay gives is what they read."""
    env = Dots()
    settings = {"sequence_length": 5, "burn_in": 0, "n_step": 1, "replay_capacity": 300, "learning_starts": 10_000}
    agent = make_agent("drqn", env.spec, with_memory(env), find_agent("drqn").Config(**settings))
    play(agent, env, 30)
    encoder, sequences = agent.network.encoder, agent.replay.sample(7, agent.initial_state(7))
    tasks = AuxiliaryTasks(
        {
            "pixel_control": PixelControl(8, env.spec, 5),
            "value_replay": ValueReplay(lambda features: agent.network.head(features).amax(-1), 5, 0.9),
        },
        {"pixel_control": 1.0, "value_replay": 1.0},
    )
    (window,) = tasks.windows()
    total, losses = tasks.losses(
        window, sequences.trajectory(slice(0, 5)), remember(encoder, sequences, sequences.inputs.obs)
    )
    total.backward()
    assert list(losses) == ["pixel_control", "value_replay"]
    parameters = (*tasks.parameters(), *encoder.parameters(), *agent.network.head.parameters())
    assert all(p.grad is not None for p in parameters)


@pytest.mark.parametrize(
    ("field", "value"),
    [("stored_state", "none"), ("optimizer", "sgd"), ("pixel_control", -1.0), ("sequence_length", 0)],
)
def test_settings_that_make_no_sense(field: str, value: Any):
    with pytest.raises(UserError, match=field):
        make(Dots(), **{field: value})


def test_continuous_actions_are_refused():
    with pytest.raises(SpecError, match="discrete"):
        make(make_env("diagnostic/box", ENVS))


@pytest.mark.parametrize("stored_state", ["stored", "zero"])
def test_with_images_it_resumes_exactly(stored_state: str):
    """As the contract's tests, with pixel and feature control."""
    settings = {"stored_state": stored_state, "feature_control": 0.1}
    agent, env = make(Dots(), **settings), Dots()
    position = begin(agent, env)
    play(agent, env, 40, position)
    saved = copy.deepcopy((agent.state_dict(), env.state_dict(), position.state_dict()))
    loaded, other = make(Dots(), seed=1, **settings), Dots()
    elsewhere = begin(loaded, other)
    loaded.load_state_dict(saved[0])
    for name, _, tensors in agent.replay.chunks():
        loaded.replay.load_chunk(name, copy.deepcopy(tensors))
    other.load_state_dict(saved[1])
    elsewhere.load_state_dict(saved[2])
    results = []
    for going, world, place in ((agent, env, position), (loaded, other, elsewhere)):
        metrics = play(going, world, 30, place)
        results.append(({k: float(v) for k, v in metrics[-1].items()}, snapshot(going.network)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


def test_what_was_interrupted_is_not_replayed_as_one_episode():
    env = Dots()
    agent = make(env)
    play(agent, env, 16)
    agent.interrupt()
    play(agent, env, 16)
    batch = agent.replay.sample(200, agent.initial_state(200)).trajectory(slice(0, 6))
    known = known_transitions(batch)
    place = batch.obs.flatten(2).long().argmax(-1) % SIZE
    follows = (place[:-1] + batch.action) % SIZE == place[1:]
    assert follows[known].all()


def test_rewards_and_pixels_are_learned_while_it_plays():
    env = Dots()
    agent = make(
        env,
        remembers=False,
        learning_rate=3e-3,
        optimizer="adam",
        control_discount=0.5,
        pixel_control=1.0,
        entropy_weight=1.0,
        max_gradient_norm=None,
        replay_capacity=1500,
        sequences=16,
    )
    losses = [{k: float(v) for k, v in each.items()} for each in play(agent, env, 700)]
    early, late = losses[:10], losses[-10:]
    for name, share in (("loss/pixel_control", 0.5), ("loss/reward_prediction", 0.8)):
        assert np.mean([m[name] for m in late]) < share * np.mean([m[name] for m in early]), name
    window = agent.tasks.tasks["reward_prediction"].window
    assert window == Window(3, remembers=False, is_skewed=True)


def test_it_learns_as_a2c_does():
    env = make_env("diagnostic/observation-action", 8)
    settings = {"rollout_steps": 5, "learning_rate": 5e-3, "sequence_length": 5, "discount": 0.5}
    torch.manual_seed(0)
    agent = make_agent(
        "unreal", env.spec, make_encoder("mlp", env.spec.observation), dataclasses.replace(unreal.Config(), **settings)
    )
    play(agent, env, 400)
    assert evaluate(agent, lambda count: make_env(env.spec.id, count), 100, seed=1000).mean > 0.9
