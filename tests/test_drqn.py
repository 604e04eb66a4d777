"""Recurrent Q-learning: targets and gradients against slow ones, states against those that acted, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from playing import begin
from saccade.agents import make_agent
from saccade.agents.drqn import DRQN, Config
from saccade.agents.parts import q_losses
from saccade.agents.parts.compute import Compute
from saccade.agents.parts.networks import target_copy
from saccade.agents.parts.sequence_replay import SequenceBatch
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import Encoder, Inputs, WithMemory
from saccade.envs import make_env
from saccade.envs.base import Step, VectorEnv
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.loop import run
from torch import Tensor

ENVS = 4
SHORT: dict[str, Any] = {
    "batch_size": 6,
    "sequence_length": 6,
    "burn_in": 4,
    "replay_capacity": 1200,
    "learning_starts": 100,
    "discount": 0.9,
}


def memory(name: str, spec: ObservationSpec, **sizes: int) -> Encoder:
    return make_encoder(name, spec, find_encoder(name).Config(**(sizes or {"hidden": 8})))


def make(world: str, name: str = "lstm", seed: int = 0, **settings: Any) -> tuple[DRQN, VectorEnv]:
    torch.manual_seed(seed)
    env = make_env(world, ENVS)
    agent = make_agent("drqn", env.spec, memory(name, env.spec.observation), Config(**SHORT | settings), seed=seed)
    assert isinstance(agent, DRQN)
    return agent, env


def played(agent: DRQN, env: VectorEnv, rounds: int) -> Iterator[tuple[Step, tuple[Tensor, ...]]]:
    """Steps and the states before them, observed but not learned from."""
    position = begin(agent, env)
    state = position.state
    for count, (step, _) in enumerate(run(env, agent, position, learn=False)):
        agent.observe(step)
        yield step, state
        state = position.state
        if count == rounds:
            return


def sample(agent: DRQN, count: int) -> SequenceBatch:
    return agent.replay.sample(count, agent.initial_state(count), beta=0.5)


# numbers


@pytest.mark.parametrize("x", [-1e4, -3.0, -0.1, 0.0, 0.5, 1.0, 250.0])
def test_rescaling_is_the_papers_and_its_inverse_undoes_it(x: float):
    epsilon = 1e-3
    h = np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x
    assert q_losses.rescale(torch.tensor(x)).item() == pytest.approx(h, rel=1e-5, abs=1e-6)
    root = (np.sqrt(1 + 4 * epsilon * (abs(h) + 1 + epsilon)) - 1) / (2 * epsilon)
    assert q_losses.unrescale(torch.tensor(h)).item() == pytest.approx(np.sign(h) * (root**2 - 1), rel=1e-5, abs=1e-5)
    assert q_losses.unrescale(torch.tensor(h)).item() == pytest.approx(x, rel=1e-5, abs=1e-6)


def test_sequence_priorities_by_hand():
    error = torch.tensor([[1.0, -4.0], [-3.0, 100.0], [2.0, 0.0]])
    real = torch.tensor([[True, True], [True, False], [True, True]])
    # 0.75 * 3 + 0.25 * 2; 0.75 * 4 + 0.25 * (4 + 0) / 2
    assert q_losses.sequence_priority(error, real, 0.75).tolist() == pytest.approx([2.75, 3.5])


def slow_target(agent: DRQN, batch: SequenceBatch, value: Tensor, t: int, b: int) -> float:
    """The n-step target of step t of sequence b, a step at a time; `value` `[T, B]` is what may be bootstrapped."""
    config, total, discount = agent.config, 0.0, 1.0
    for _ in range(config.n_step):
        if not batch.acted[t, b]:
            break
        reward = batch.reward[t, b].item()
        total += discount * (max(-1.0, min(1.0, reward)) if config.clip_rewards else reward)
        discount *= config.discount * batch.discount[t, b].item()
        t += 1
    bootstrap = value[t, b].item()
    if not config.rescale:
        return total + discount * bootstrap
    root = (np.sqrt(1 + 0.004 * (abs(bootstrap) + 1.001)) - 1) / 0.002
    total += discount * np.sign(bootstrap) * (root**2 - 1)
    return float(np.sign(total) * (np.sqrt(abs(total) + 1) - 1) + 0.001 * total)


def step_by_step(network: Any, batch: SequenceBatch, b: int) -> Tensor:
    """Values `[T, A]` of sequence b, one observation after the other."""
    state, values = tuple(leaf[b : b + 1] for leaf in batch.state), []
    for t in range(len(batch.reset)):
        one = Inputs(*(x[t : t + 1, b : b + 1] for x in batch.inputs if x is not None))
        q, _, state = network(one, state, batch.reset[t : t + 1, b : b + 1])
        values.append(q[0, 0])
        if t == SHORT["burn_in"] - 1:
            state = tuple(leaf.detach() for leaf in state)
    return torch.stack(values)


@pytest.mark.parametrize(
    "settings",
    [
        {"double": False, "huber": False},
        {"n_step": 3, "rescale": True},
        {"n_step": 2, "prioritised": True, "clip_rewards": True, "dueling": True},
    ],
    ids=["plain", "rescaled", "prioritised"],
)
@pytest.mark.parametrize("world", ["diagnostic/recall-3", "diagnostic/endless"])
def test_one_gradient_equals_a_slow_one(settings: dict[str, Any], world: str):
    """Episodes end, and are cut off, inside of the sequences."""
    agent, env = make(world, max_gradient_norm=None, **settings)
    for _ in played(agent, env, 100):
        pass
    agent.target = target_copy(agent.network)
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    agent.replay.reward[:] = 2 * np.random.default_rng(0).normal(size=agent.replay.reward.shape)  # errors of all sizes
    batch, config = sample(agent, 6), agent.config
    q = torch.stack([step_by_step(agent.network, batch, b) for b in range(6)], 1)
    q_target = torch.stack([step_by_step(agent.target, batch, b) for b in range(6)], 1).detach()
    best = (q if config.double else q_target).argmax(-1)
    value = q_target.gather(-1, best[..., None])[..., 0]
    total, count, errors = torch.zeros(()), 0, []
    for b in range(6):
        for t in range(config.burn_in, config.burn_in + config.sequence_length):
            if batch.acted[t, b]:
                error = slow_target(agent, batch, value, t, b) - q[t, b, batch.action[t, b]]
                small = not config.huber or abs(error) <= 1
                total = total + batch.weight[b] * (0.5 * error**2 if small else abs(error) - 0.5)
                count += 1
                errors.append(abs(error.item()))
    assert min(errors) < 1 < max(errors)
    assert count < 6 * config.sequence_length  # some are last observations, where nothing was done
    slow = torch.autograd.grad(total / count, list(agent.network.parameters()))
    agent._learn(batch)
    torch.testing.assert_close([p.grad for p in agent.network.parameters()], list(slow), rtol=1e-4, atol=1e-6)


def test_in_bfloat16_gradients_are_nearly_the_same():
    """Burn-in and learned part read the same weights, which autocast must not hand from the one to the other."""
    gradients = []
    for bfloat16 in (False, True):
        agent, env = make("CartPole-v1", max_gradient_norm=None)
        for _ in played(agent, env, 60):
            pass
        agent.compute = Compute(bfloat16=bfloat16)
        agent._learn(sample(agent, 6))
        gradients.append([p.grad.flatten() for p in agent.network.parameters() if p.grad is not None])
    assert len(gradients[1]) == len(list(agent.network.parameters()))
    assert torch.cosine_similarity(torch.cat(gradients[0]), torch.cat(gradients[1]), 0) > 0.98


# states


@pytest.mark.parametrize("name", ["lstm", "gru", "dnc"])
def test_stored_states_are_those_that_acted_and_burn_in_leads_to_them(name: str):
    """As long as no parameter changes."""
    agent, env = make("CartPole-v1", name, sequence_interval=5)
    known: dict[tuple[int, bytes], list[Tensor]] = {}
    for step, state in played(agent, env, 200):
        for row, obs in enumerate(step.obs):
            known[row, obs.tobytes()] = [leaf[row].clone() for leaf in state]
    batch = sample(agent, 40)
    burned = agent._without_gradient(batch)[0]
    start = agent.config.burn_in
    began, known_at_start = batch.reset[: start + 1].any(0), 0
    for b in range(40):
        env_index = int(batch.start[b]) // agent.replay.size
        after = known[env_index, batch.inputs.obs[start, b].numpy().tobytes()]
        if not batch.reset[start, b]:  # there the state before is forgotten
            torch.testing.assert_close([leaf[b] for leaf in burned], after, rtol=1e-5, atol=1e-6)
        if not began[b]:
            known_at_start += 1
            before = known[env_index, batch.inputs.obs[0, b].numpy().tobytes()]
            assert all(torch.equal(leaf[b], kept) for leaf, kept in zip(batch.state, before, strict=True))
    assert known_at_start > 5


def test_a_state_of_zero_is_that_of_a_new_episode():
    agent, env = make("CartPole-v1", stored_state="zero")
    assert all(not step.extras for step, _ in played(agent, env, 100))
    batch = sample(agent, 10)
    assert not batch.reset[0].all()
    assert not any(leaf.any() for leaf in batch.state)


def test_what_came_before_an_episode_changes_nothing_that_is_learned():
    agent, env = make("diagnostic/recall-3", max_gradient_norm=None)
    for _ in played(agent, env, 100):
        pass
    batch = sample(agent, 200)
    rows = torch.nonzero(batch.reset[agent.config.burn_in])[:, 0]
    assert len(rows) > 20
    obs = batch.inputs.obs.clone()
    obs[: agent.config.burn_in, rows] += 10
    gradients = []
    for version in (batch.inputs.obs, obs):
        torch.manual_seed(0)
        saved = agent.state_dict()["network"]
        saved = {name: tensor.clone() for name, tensor in saved.items()}
        agent._learn(batch._replace(inputs=batch.inputs._replace(obs=version)))
        gradients.append([p.grad.clone() for p in agent.network.parameters()])
        agent.network.load_state_dict(saved)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_memories_read_rewards_unclipped_and_losses_clipped_ones():
    agent, env = make("diagnostic/delayed", clip_rewards=True)
    position = begin(agent, env)
    for count, (step, _) in enumerate(run(env, agent, position, learn=False)):
        agent.observe(step._replace(reward=5 * step.reward))
        if count == 100:
            break
    batch = sample(agent, 20)
    assert batch.inputs.last_reward.max() == 5
    zero = torch.zeros(*batch.reset.shape)[agent.config.burn_in :]
    targets = agent._targets(batch, zero[..., None], zero[..., None])
    assert targets.max() == 1


def test_the_priorities_of_sequences_follow_their_errors():
    agent, env = make("diagnostic/recall-3", prioritised=True)
    for _ in played(agent, env, 60):
        pass
    assert set(agent.replay.tree.leaves()) == {0.0, 1.0}
    batch = sample(agent, 6)
    agent._learn(batch)
    changed = agent.replay.tree.get(batch.start)
    assert (changed != 1).all()
    assert np.isfinite(changed).all()


# what is refused


def test_an_encoder_without_memory_is_refused():
    env = make_env("diagnostic/recall", 1)
    with pytest.raises(SpecError, match="add --memory lstm, or train dqn"):
        make_agent("drqn", env.spec, make_encoder("mlp", env.spec.observation))


def test_a_memory_behind_an_encoder_is_accepted():
    env = make_env("diagnostic/recall", 1)
    perception = make_encoder("mlp", env.spec.observation)
    encoder = WithMemory(perception, memory("gru", ObservationSpec(perception.feature_shape)))
    assert isinstance(make_agent("drqn", env.spec, encoder), DRQN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"burn_in": 7}, "burn_in must be at most sequence_length"),
        ({"stored_state": "last"}, "stored or zero"),
        ({"hidden": (0,)}, "positive sizes"),
        ({"replay_capacity": 40}, "no sequence of 11 observations"),
        ({"priority_max_share": 1.5}, "between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        make("diagnostic/recall", **settings)


def test_a_replay_with_too_many_states_of_a_large_memory_is_refused_with_its_size():
    env = make_env("diagnostic/recall", 1)
    large = memory("dnc", env.spec.observation, slots=256, width=64, read_heads=4)
    settings = Config(replay_capacity=20_000_000, sequence_interval=1)
    with pytest.raises(UserError, match=r"needs \d{4}\.\d GB .* are states of 33\d kB"):
        make_agent("drqn", env.spec, large, settings)
