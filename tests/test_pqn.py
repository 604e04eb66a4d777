"""PQN: lambda-returns and an update against their definitions, environment by environment; and that it learns."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from rollouts import BOX, SPEC, Dense, Player, Recurrent, connected
from saccade.agents import pqn
from saccade.agents.parts.compute import Compute
from saccade.encoders.base import Encoder, Inputs
from saccade.envs import make_env
from saccade.envs.base import Step
from saccade.envs.errors import SpecError, UserError
from saccade.training.loop import Position, run
from torch import Tensor

STEPS = 7
CONFIG = pqn.Config(
    rollout_steps=STEPS, epochs=1, minibatches=1, discount=0.9, max_gradient_norm=None, epsilon_decay_steps=30
)


def make_agent(config: pqn.Config = CONFIG, encoder: Encoder | None = None) -> pqn.PQN:
    torch.manual_seed(0)
    agent = pqn.build(config, SPEC, encoder or Dense(2), Compute(), 0)
    assert isinstance(agent, pqn.PQN)
    return agent


def naive_loss(agent: pqn.PQN, network: pqn.QNetwork, steps: list[Step], start: tuple, last: tuple) -> Tensor:
    """Half the mean squared error of the values of what was done, one environment after the other."""
    config, errors = agent.config, []
    for i in range(3):
        state = tuple(leaf[i : i + 1] for leaf in start)
        action, reward = (torch.as_tensor(x[i])[None, None].float() for x in last)
        chosen, best, following = [], [], {}
        for t, step in enumerate(steps):
            inputs = Inputs(torch.from_numpy(step.obs[i])[None, None], action, reward)
            features, state = network.encoder(inputs, state, torch.tensor([[bool(step.reset[i])]]))
            q = network.q(features)[0, 0]
            chosen.append(q[step.action[i]])
            best.append(q.max().item())
            action, reward = torch.tensor([[float(step.action[i])]]), torch.tensor([[step.reward[i]]])
            if step.truncated[i] or t == len(steps) - 1:
                inputs = Inputs(torch.from_numpy(step.next_obs[i])[None, None], action, reward)
                following[t] = network.q(network.encoder(inputs, state)[0]).max().item()
            if step.ended[i] or not step.valid[i]:
                action, reward = torch.zeros_like(action), torch.zeros_like(reward)
        later = None  # the return from the next step on, where there is one in the rollout and the episode
        for t in reversed(range(len(steps))):
            step = steps[t]
            value = following.get(t, best[t + 1] if t + 1 < len(steps) else np.nan)
            ahead = value if later is None or step.ended[i] else None
            if ahead is None:
                ahead = (1 - config.trace_lambda) * value + config.trace_lambda * later
            later = step.reward[i] + config.discount * step.discount[i] * ahead
            if step.valid[i]:
                errors.append(later - chosen[t])
    return 0.5 * torch.stack(errors).square().mean()


@pytest.mark.parametrize("encoder", [Dense, Recurrent])
@pytest.mark.parametrize("acts_before", [True, False])
@pytest.mark.parametrize("trace", [0.0, 0.65, 1.0])
def test_update_is_the_gradient_of_the_loss_by_definition(encoder: type[Encoder], acts_before: bool, trace: float):
    """Of a rollout in the middle of episodes, of which some end, are cut off, or are followed by ignored steps."""
    agent = make_agent(replace(CONFIG, trace_lambda=trace), encoder(2))
    steps = connected(2 * STEPS + 1, seed=4)
    player = Player(agent)
    player.play(steps[:STEPS])
    assert agent.finished() is not None
    start, last = player.state, player.last
    rollout = player.play(steps[STEPS:-1])
    assert any(step.truncated.any() for step in rollout[:-1])
    assert any((step.discount == 0).any() for step in rollout)
    assert not all(step.valid.all() for step in rollout)
    network = copy.deepcopy(agent.network)
    start = tuple(leaf.clone() for leaf in start)
    expected = torch.autograd.grad(naive_loss(agent, network, rollout, start, last), list(network.parameters()))
    if acts_before:
        player.act(steps[-1])
    agent.update()
    for parameter, gradient in zip(agent.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-5, rtol=1e-4)


def test_every_step_is_learned_from_in_every_pass():
    agent = make_agent(replace(CONFIG, epochs=3, minibatches=4))
    counts: list[int] = []
    learn = agent._learn
    agent._learn = lambda part: counts.append(int(part.valid.sum())) or learn(part)  # type: ignore[func-returns-value]
    steps = Player(agent).play(connected(STEPS))
    agent.update()
    valid = sum(int(step.valid.sum()) for step in steps)
    assert len(counts) == 12
    assert [sum(counts[start : start + 4]) for start in (0, 4, 8)] == [valid] * 3


def test_rewards_may_be_clipped():
    clipped, plain = (make_agent(replace(CONFIG, clip_rewards=True)) for _ in range(2))
    steps = connected(STEPS)
    Player(clipped).play([step._replace(reward=50 * step.reward) for step in steps])
    Player(plain).play([step._replace(reward=(50 * step.reward).clip(-1, 1)) for step in steps])
    assert clipped.update() == plain.update()


def test_exploration_falls_and_greedy_actions_do_not_explore():
    agent = make_agent(replace(CONFIG, epsilon_final=0.0))
    player, steps = Player(agent), connected(60)
    inputs = Inputs(torch.from_numpy(steps[0].obs)[None])
    greedy = agent.act(inputs, (), None, explore=False).action
    drawn = [tuple(agent.act(inputs, (), None, explore=True).action) for _ in range(50)]
    assert len(set(drawn)) > 5  # epsilon is 1
    player.play(steps[:STEPS])
    metrics = agent.update()
    assert metrics["exploration/epsilon"] == pytest.approx(1 - agent.steps / 30)
    for begin in range(STEPS, 6 * STEPS, STEPS):
        player.play(steps[begin : begin + STEPS])
        metrics = agent.update()
    assert metrics["exploration/epsilon"] == 0
    assert not (
        agent.act(inputs, (), None, explore=True).action != agent.act(inputs, (), None, explore=False).action
    ).any()
    assert greedy.shape == (3,)


def test_it_goes_on_from_a_saved_state():
    agent, steps = make_agent(), connected(3 * STEPS)
    Player(agent).play(steps[:STEPS])
    agent.update()
    other = make_agent()
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    played = [Player(each).play(steps[STEPS : 2 * STEPS]) for each in (agent, other)]
    for ours, theirs in zip(*played, strict=True):
        assert (ours.action == theirs.action).all()
    assert agent.update() == other.update()


@pytest.mark.parametrize(
    ("field", "value"),
    [("minibatches", 0), ("trace_lambda", 1.5), ("epsilon_final", -0.1), ("hidden", (0,)), ("rollout_steps", 0)],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: object):
    with pytest.raises(UserError, match=f"pqn: {field}"):
        make_agent(replace(CONFIG, **{field: value}))  # type: ignore[arg-type]


def test_continuous_actions_and_too_short_rollouts_are_refused():
    with pytest.raises(SpecError, match="Try ppo"):
        pqn.build(CONFIG, BOX, Dense(2), Compute(), 0)
    encoder = Dense(2)
    encoder.window = 9
    with pytest.raises(SpecError, match="--rollout-steps 9"):
        make_agent(CONFIG, encoder)


FAST = pqn.Config(learning_rate=0.01, rollout_steps=16, minibatches=4, epsilon_final=0.1, epsilon_decay_steps=4000)


def learn(env_id: str, encoder: type[Dense] | type[Recurrent], config: pqn.Config, steps: int) -> pqn.PQN:
    torch.manual_seed(0)
    env = make_env(env_id, 16)
    agent = pqn.build(config, env.spec, encoder(env.spec.observation.size), Compute(), 0)
    assert isinstance(agent, pqn.PQN)
    position = Position.begin(env, agent, env.reset(0))
    for _ in itertools.takewhile(lambda _: position.steps < steps, run(env, agent, position)):
        pass
    return agent


def greedy_reward(agent: pqn.PQN, env_id: str, steps: int) -> float:
    """Mean reward of a step, over whole episodes of 50 copies."""
    env = make_env(env_id, 50)
    stream = run(env, agent, Position.begin(env, agent, env.reset(123)), explore=False, learn=False)
    return float(np.mean([step.reward for step, _ in itertools.islice(stream, steps)]))


def test_memory_learns_recall_and_a_blind_agent_cannot():
    found = [
        greedy_reward(learn("diagnostic/recall-3", e, FAST, 12_000), "diagnostic/recall-3", 30)
        for e in (Recurrent, Dense)
    ]
    assert found[0] == pytest.approx(1 / 3)
    assert abs(found[1]) < 0.15


def test_values_are_learned_beyond_where_an_episode_is_cut_off():
    agent = learn("diagnostic/endless", Dense, replace(FAST, discount=0.8), 12_000)
    values = agent.network.values(agent.network.encoder(Inputs(torch.ones(1, 1, 1)))[0])
    assert values.item() == pytest.approx(5, abs=0.25)  # 1 / (1 - 0.8)
