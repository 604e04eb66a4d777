"""REINFORCE: what an update computes, exact resume, and that it learns."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC
from rollouts import BOX, SPEC, Dense, Recurrent, naive_episodes, random_steps
from saccade.agents.parts.compute import Compute
from saccade.agents.reinforce import Config, Reinforce, build
from saccade.encoders.base import Inputs
from saccade.envs import make_env
from saccade.envs.errors import UserError
from saccade.training.loop import Position, run


def make_agent(config=None, encoder=None, spec=SPEC, seed=0) -> Reinforce:
    torch.manual_seed(seed)
    return build(config or Config(), spec, encoder or Dense(2), Compute(), seed)


def fed(agent, steps):
    """The agent having observed `steps`, without an update."""
    for step in steps:
        agent.observe(step)
    return agent


def naive_gradients(agent, episodes):
    """The loss of one update, episode by episode and unpadded, with returns by their definition."""
    config, network = agent.config, copy.deepcopy(agent.network)
    kept = []
    for e in episodes:
        obs, last_action = torch.from_numpy(e.obs)[:, None], np.concatenate([e.action[:1] * 0, e.action])
        last_reward = np.concatenate([[0], e.reward]).astype(np.float32)
        inputs = Inputs(obs, torch.from_numpy(last_action)[:, None], torch.from_numpy(last_reward)[:, None])
        features = network.encoder(inputs, network.encoder.initial_state(1))[0][:, 0]
        following, returns = network.value(features)[-1].item() if network.value else 0.0, []
        for r, d in zip(e.reward[::-1], e.discount[::-1], strict=True):
            following = r + config.discount * d * following
            returns.insert(0, following)
        log_prob = torch.log_softmax(network.head.logits(features[:-1]), 1)
        chosen = log_prob[torch.arange(e.length), torch.from_numpy(e.action)]
        kept.append((torch.tensor(returns), features[:-1], chosen, -(log_prob.exp() * log_prob).sum(1)))
    returns, features, chosen, entropy = (torch.cat(column) for column in zip(*kept, strict=True))
    loss, value = -config.entropy_weight * entropy.mean(), 0.0
    if network.value:
        network.value.rescale(returns)  # changes how its layer is written, but no value
        value = network.value(features)
        loss = loss + config.value_weight * 0.5 * (returns - value).square().mean() / returns.square().mean()
        value = value.detach()
    advantage = returns - value
    if config.normalise_returns:
        advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    loss = loss - (advantage * chosen).mean()
    return torch.autograd.grad(loss, list(network.parameters()))


def assert_gradients(agent, expected):
    for parameter, gradient in zip(agent.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder", [Dense, Recurrent])
@pytest.mark.parametrize("chunk_size", [8192, 60])
@pytest.mark.parametrize(
    "config",
    [
        Config(baseline="none", normalise_returns=False),
        Config(baseline="none"),
        Config(entropy_weight=0.1, value_weight=0.3, discount=0.9),
    ],
)
def test_update_is_the_gradient_of_the_loss_by_definition(encoder, chunk_size, config):
    """However it is padded and cut into pieces; at 60 an episode still fits into a piece."""
    steps = list(random_steps(80))
    agent = make_agent(replace(config, chunk_size=chunk_size), encoder(2))
    expected = naive_gradients(agent, naive_episodes(steps))
    metrics = fed(agent, steps).update()
    assert_gradients(agent, expected)
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in expected]))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm.item(), rel=1e-4)


def test_an_episode_longer_than_a_piece_is_cut_in_time():
    steps = list(random_steps(80))
    agent = make_agent(Config(chunk_size=7))
    expected = naive_gradients(agent, naive_episodes(steps))
    fed(agent, steps).update()
    assert_gradients(agent, expected)  # exact without memory; with memory the gradient, not the value, is cut
    encoder = Recurrent(2)
    cut, whole = make_agent(Config(chunk_size=7), copy.deepcopy(encoder)), make_agent(Config(), encoder)
    pieces, one = fed(cut, steps).update(), fed(whole, steps).update()
    for name in ("loss/value", "policy/entropy", "return/mean"):
        torch.testing.assert_close(pieces[name], one[name])


def test_cut_off_episodes_are_worth_more_only_with_a_baseline():
    step = next(random_steps(1, num_envs=1))
    step = step._replace(truncated=np.array([True]), terminated=np.array([False]), discount=np.ones(1, np.float32))
    spec = replace(SPEC, num_envs=1)
    agent = make_agent(Config(episodes_per_update=1, discount=0.9), spec=spec)
    next_value = agent.network.values(agent.network.encoder(Inputs(torch.from_numpy(step.next_obs)[None]))[0])
    expected = step.reward[0] + 0.9 * next_value.item()
    assert fed(agent, [step]).update()["return/mean"].item() == pytest.approx(expected, rel=1e-5)
    bare = make_agent(Config(episodes_per_update=1, discount=0.9, baseline="none"), spec=spec)
    assert fed(bare, [step]).update()["return/mean"].item() == pytest.approx(step.reward[0])


def test_an_update_waits_for_its_episodes_and_ignored_steps_count_for_nothing():
    agent = make_agent(Config(episodes_per_update=4))
    finished = steps = 0
    for step in random_steps(60):
        agent.observe(step)
        finished += int((step.ended & step.valid).sum())
        steps += int(step.valid.sum())
        metrics = agent.update()
        assert bool(metrics) == (finished >= 4)
        finished = 0 if metrics else finished
    assert agent.steps == steps < 180


def test_rate_falls_linearly_to_nothing():
    agent = make_agent(Config(episodes_per_update=1, learning_rate_decay_steps=60, baseline="none"))
    before = [p.clone() for p in agent.network.parameters()]
    for step in random_steps(20):
        agent.observe(step)
    moved = agent.update()
    assert moved
    assert not torch.equal(before[0], next(iter(agent.network.parameters())))
    after = [p.clone() for p in agent.network.parameters()]
    for step in random_steps(60, seed=1):
        agent.observe(step)
    assert agent.update()
    assert all(torch.equal(a, p) for a, p in zip(after, agent.network.parameters(), strict=True))


def inputs_of(obs):
    count = obs.shape[1]
    return Inputs(obs, torch.zeros(1, count, dtype=torch.int64), torch.zeros(1, count))


def test_greedy_is_the_mode_and_exploring_samples():
    agent = make_agent(spec=replace(SPEC, num_envs=4000))
    with torch.no_grad():
        agent.network.head.logits.weight.zero_()
        agent.network.head.logits.bias.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    inputs = inputs_of(torch.zeros(1, 4000, 2))
    assert (agent.act(inputs, (), None, explore=False).action == 1).all()
    shares = np.bincount(agent.act(inputs, (), None, explore=True).action, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.032)  # four standard errors


def test_actions_of_a_box_stay_within_it_and_the_choice_is_kept():
    agent = make_agent(Config(log_std=1.0), spec=replace(BOX, num_envs=500))
    inputs = Inputs(torch.zeros(1, 500, 2))
    greedy, explored = (agent.act(inputs, (), None, explore=explore) for explore in (False, True))
    assert greedy.action.dtype == np.float32
    np.testing.assert_allclose(greedy.action, np.tile([0.0, 0.5], (500, 1)), atol=0.02)
    assert (explored.action >= [-2, 0]).all()
    assert (explored.action <= [2, 1]).all()
    assert np.abs(explored.extras["choice"]).max() > 2
    np.testing.assert_allclose(
        explored.action, np.clip(explored.extras["choice"] * [2, 0.5] + [0, 0.5], [-2, 0], [2, 1])
    )


def test_acting_leaves_everything_but_random_numbers_alone():
    agent = make_agent(encoder=BatchNormAutoencoder(SPEC.observation))
    before = {name: tensor.clone() for name, tensor in agent.network.state_dict().items()}
    agent.act(inputs_of(torch.randn(1, 3, 2)), (), None, explore=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in agent.network.state_dict().items())


@pytest.mark.parametrize("double", [BatchNormAutoencoder, PersistentRBM, MomentumContrast, TinyDNC])
@pytest.mark.parametrize("spec", [SPEC, BOX])
def test_every_training_parameter_of_an_encoder_is_trained(double, spec):
    encoder = double(spec.observation)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    agent = make_agent(encoder=encoder, spec=spec)
    with torch.no_grad():  # a first policy that ignores its features would hide the encoder from the policy's gradient
        for parameter in agent.network.head.parameters():
            parameter.normal_()
    steps = [
        step._replace(obs=step.obs.clip(-1, 1), next_obs=step.next_obs.clip(-1, 1))
        for step in random_steps(60, spec=spec)
    ]
    metrics = fed(agent, steps).update()
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in metrics.values())
    for name, parameter in encoder.named_parameters():
        assert not torch.equal(before[name], parameter), name  # momentum copies follow in `after_update`


def test_the_update_alone_augments():
    encoder = MomentumContrast(SPEC.observation)
    seen = []
    encoder.augment = lambda obs: seen.append(obs.shape) or obs
    agent = make_agent(encoder=encoder)
    agent.act(inputs_of(torch.zeros(1, 3, 2)), (), None, explore=True)
    assert not seen
    fed(agent, random_steps(60)).update()
    longest = max(e.length for e in naive_episodes(random_steps(60)))
    assert seen[0][0] == longest + 1


def test_a_frozen_encoder_stays_as_it_is():
    encoder = Dense(2).requires_grad_(False)
    before = encoder.layer.weight.clone()
    fed(make_agent(encoder=encoder), random_steps(60)).update()
    assert torch.equal(before, encoder.layer.weight)


@pytest.mark.parametrize(
    ("field", "value"),
    [("episodes_per_update", 0), ("learning_rate", -1.0), ("chunk_size", 0), ("discount", 1.5), ("baseline", "mean")],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        make_agent(replace(Config(), **{field: value}))


def learn(env_id, encoder, config, num_envs, steps):
    torch.manual_seed(0)
    env = make_env(env_id, num_envs)
    agent = make_agent(config, encoder(env.spec.observation.size), env.spec)
    position = Position.begin(env, agent, env.reset(0))
    for _ in itertools.takewhile(lambda _: position.steps < steps, run(env, agent, position)):
        pass
    return agent


def greedy_reward(agent, env_id, steps):
    """Mean reward of a step, over whole episodes of 50 copies."""
    env = make_env(env_id, 50)
    stream = run(env, agent, Position.begin(env, agent, env.reset(123)), explore=False, learn=False)
    return np.mean([step.reward for step, _ in itertools.islice(stream, steps)])


FAST = Config(learning_rate=0.02, episodes_per_update=32)


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_learns_to_answer_what_it_sees(baseline):
    agent = learn("diagnostic/observation-action", Dense, replace(FAST, baseline=baseline), 32, 2000)
    assert greedy_reward(agent, "diagnostic/observation-action", 10) == 1


def test_learns_a_continuous_action():
    agent = learn("diagnostic/box", Dense, replace(FAST, learning_rate=0.003), 32, 10_000)
    assert greedy_reward(agent, "diagnostic/box", 20) > -0.01


def test_memory_learns_recall_and_a_blind_agent_cannot():
    rewards = [
        greedy_reward(learn("diagnostic/recall-3", e, FAST, 32, 8000), "diagnostic/recall-3", 30)
        for e in (Recurrent, Dense)
    ]
    assert rewards[0] == pytest.approx(1 / 3)
    assert abs(rewards[1]) < 0.15


def test_values_are_learned_beyond_where_an_episode_is_cut_off():
    agent = learn("diagnostic/endless", Dense, replace(FAST, discount=0.8), 32, 20_000)
    values = agent.network.values(agent.network.encoder(Inputs(torch.ones(1, 1, 1)))[0])
    assert values.item() == pytest.approx(5, abs=0.25)  # 1 / (1 - 0.8), though an episode earns 3.36 discounted


@pytest.mark.parametrize("encoder", [Dense, Recurrent])
def test_resuming_is_going_on(encoder):
    """Bit for bit, in the middle of episodes, with the environments cloned."""

    def begin(seed):
        env = make_env("CartPole-v1", 3)
        agent = make_agent(Config(episodes_per_update=4), encoder(4), env.spec, seed)
        return env, agent, Position.begin(env, agent, env.reset(seed))

    def advance(env, agent, position):
        for _ in itertools.islice(run(env, agent, position), 150):
            pass

    env, agent, position = begin(0)
    advance(env, agent, position)
    assert agent.store.state_dict()["columns"]["obs"].shape[0] > 0
    again, resumed, place = begin(1)
    resumed.load_state_dict(copy.deepcopy(agent.state_dict()))
    place.load_state_dict(position.state_dict())
    again.load_state_dict(env.state_dict())
    advance(env, agent, position)
    advance(again, resumed, place)
    for one, other in zip(agent.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(agent.random.get_state(), resumed.random.get_state())
    assert agent.steps == resumed.steps


def test_the_same_seed_learns_the_same_and_another_does_not():
    weights = [
        learn("diagnostic/action", Dense, replace(FAST, episodes_per_update=8), 8, 200).network.head.logits.weight
        for _ in range(2)
    ]
    assert torch.equal(*weights)
    drawn = [
        make_agent(seed=seed).act(inputs_of(torch.zeros(1, 99, 2)), (), None, explore=True).action for seed in (0, 1)
    ]
    assert (drawn[0] != drawn[1]).any()
