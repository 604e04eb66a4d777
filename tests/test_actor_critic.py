"""A2C and PPO: what an update computes, against its definition; and that both learn."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from rollouts import BOX, SPEC, Dense, Player, Recurrent, connected
from saccade.agents import a2c, ppo
from saccade.agents.parts.compute import Compute
from saccade.encoders.base import Inputs
from saccade.envs import make_env
from saccade.envs.errors import SpecError, UserError
from saccade.training.loop import Position, run

STEPS = 7
AGENTS = {"a2c": a2c, "ppo": ppo}


def make_agent(module, config=None, encoder=None, spec=SPEC, seed=0):
    torch.manual_seed(seed)
    agent = module.build(config or module.Config(), spec, encoder or Dense(2), Compute(), seed)
    with torch.no_grad():  # a policy that ignores its features would hide the encoder from the policy's gradient
        for parameter in (*agent.network.head.parameters(), *agent.network.value.parameters()):
            parameter.normal_()
    return agent


def naive_columns(agent, network, steps, start, last):
    """Each valid step, one environment after the other: value, log-probability, entropy, advantage."""
    config, columns = agent.config, []
    for i in range(3):
        state = tuple(leaf[i : i + 1] for leaf in start)
        action, reward = (torch.as_tensor(x[i])[None, None].float() for x in last)
        value, following, rest = [], {}, []

        def read(obs, i=i, action=None, reward=None, state=(), reset=False):
            inputs = Inputs(torch.from_numpy(obs[i])[None, None], action, reward)
            return network.encoder(inputs, state, torch.tensor([[bool(reset)]]))

        for t, step in enumerate(steps):
            features, state = read(step.obs, i, action, reward, state, step.reset[i])
            policy = network.policy(features)
            choice = torch.as_tensor(step.extras.get("choice", step.action)[i])[None, None]
            value.append(network.values(features)[0, 0])
            rest.append((policy.log_prob(choice)[0, 0], policy.entropy()[0, 0]))
            action, reward = torch.as_tensor(step.action[i])[None, None].float(), torch.tensor([[step.reward[i]]])
            if step.truncated[i] or t == len(steps) - 1:
                after = network.values(read(step.next_obs, i, action, reward, state)[0])
                following[t] = after.item()
            if step.ended[i] or not step.valid[i]:
                action, reward = torch.zeros_like(action), torch.zeros_like(reward)
        advantage = 0.0
        for t in reversed(range(len(steps))):
            step = steps[t]
            v = following[t] if t in following else value[t + 1].item()
            d = config.discount * step.discount[i]
            error = step.reward[i] + d * v - value[t].item()
            advantage = error + d * config.gae_lambda * (0 if step.ended[i] else advantage)
            if step.valid[i]:
                columns.append((value[t], *rest[t], torch.tensor(advantage, dtype=torch.float32)))
    return [torch.stack(column) for column in zip(*columns, strict=True)]


def naive_loss(agent, network, *rollout):
    config = agent.config
    value, log_prob, entropy, advantage = naive_columns(agent, network, *rollout)
    returns = advantage + value.detach()
    if config.normalise_advantages:
        advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    loss = -(advantage * log_prob).mean() - config.entropy_weight * entropy.mean()
    return loss + config.value_weight * 0.5 * (returns - value).square().mean()


A2C = a2c.Config(rollout_steps=STEPS, discount=0.9, max_gradient_norm=None)
PPO = ppo.Config(rollout_steps=STEPS, epochs=1, minibatches=1, discount=0.9, max_gradient_norm=None)


@pytest.mark.parametrize("encoder", [Dense, Recurrent])
@pytest.mark.parametrize("acts_before", [True, False])
@pytest.mark.parametrize(
    ("module", "config", "spec"),
    [
        (a2c, A2C, SPEC),
        (a2c, replace(A2C, gae_lambda=0.8, entropy_weight=0.1, value_weight=0.3), BOX),
        (a2c, replace(A2C, gae_lambda=0.5, normalise_advantages=True), SPEC),
        (ppo, PPO, SPEC),
        (ppo, replace(PPO, normalise_advantages=False), BOX),
    ],
)
def test_update_is_the_gradient_of_the_loss_by_definition(encoder, acts_before, module, config, spec):
    """Of a rollout in the middle of episodes, of which some end, are cut off, or are followed by ignored steps; whether
    the last observations' values come from acting or must be computed. PPO's first step is an ordinary one."""
    size = int(np.prod(spec.action.shape))
    agent = make_agent(module, config, encoder(2) if spec is SPEC or encoder is Dense else Wide(2, size), spec)
    steps = connected(2 * STEPS + 1, seed=4 if spec is SPEC else 3, spec=spec)
    player = Player(agent)
    player.play(steps[:STEPS])
    assert agent.finished() is not None
    start, last = player.state, player.last
    rollout = player.play(steps[STEPS:-1])
    assert any(step.truncated.any() for step in rollout[:-1])
    assert not all(step.valid.all() for step in rollout)
    network = copy.deepcopy(agent.network)
    if encoder is not Dense:
        start = tuple(leaf.clone() for leaf in start)
    expected = torch.autograd.grad(naive_loss(agent, network, rollout, start, last), list(network.parameters()))
    if acts_before:
        player.act(steps[-1])
    metrics = agent.update()
    for parameter, gradient in zip(agent.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-5, rtol=1e-4)
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in expected]))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm.item(), rel=1e-4)


class Wide(Recurrent):
    """Reads actions of several numbers."""

    def __init__(self, size, actions):
        super().__init__(size + actions - 1)

    def forward(self, inputs, state=(), reset=None):
        obs = torch.cat([inputs.obs, inputs.last_action[..., 1:].float()], 2)
        return super().forward(inputs._replace(obs=obs, last_action=inputs.last_action[..., 0]), state, reset)


def test_gradients_can_be_had_without_a_step():
    """For those who apply them elsewhere."""
    agent = make_agent(a2c, A2C)
    Player(agent).play(connected(STEPS))
    before = [p.clone() for p in agent.network.parameters()]
    rollout = agent.finished()
    agent.accumulate(rollout)
    once = [p.grad.clone() for p in agent.network.parameters()]
    agent.accumulate(rollout)
    for parameter, old, gradient in zip(agent.network.parameters(), before, once, strict=True):
        assert torch.equal(parameter, old)
        assert torch.equal(parameter.grad, gradient)
        assert gradient.any()
    assert agent.finished() is None


@pytest.mark.parametrize("config", [replace(A2C, scale_values=True), replace(PPO, scale_values=True)])
def test_values_in_units_of_the_returns(config):
    agent = make_agent(AGENTS["a2c" if isinstance(config, a2c.Config) else "ppo"], config)
    steps = [step._replace(reward=1000 * step.reward) for step in connected(STEPS)]
    Player(agent).play(steps)
    assert float(agent.update()["loss/value"]) < 2
    assert agent.network.value.scale > 100


@pytest.mark.parametrize("name", AGENTS)
def test_rewards_may_be_clipped(name):
    changes = {"rollout_steps": STEPS, "clip_rewards": True}
    clipped, plain = (make_agent(AGENTS[name], AGENTS[name].Config(**changes)) for _ in range(2))
    steps = connected(STEPS)
    Player(clipped).play([s._replace(reward=50 * s.reward) for s in steps])
    Player(plain).play([s._replace(reward=(50 * s.reward).clip(-1, 1)) for s in steps])
    assert clipped.update() == plain.update()


def test_several_passes_and_the_stop_by_divergence():
    base = replace(PPO, learning_rate=0.01, epochs=5, minibatches=3, clip=0.1)
    found = {}
    for target in (None, 1e-4):
        agent = make_agent(ppo, replace(base, target_kl=target))
        Player(agent).play(connected(STEPS))
        found[target] = {name: float(value) for name, value in agent.update().items()}
    assert found[None]["policy/gradient_steps"] == 15
    assert 1 <= found[1e-4]["policy/gradient_steps"] < 15
    assert found[None]["policy/clipped"] > 0
    assert found[None]["policy/kl"] > found[1e-4]["policy/kl"]
    assert found[None]["value/explained_variance"] == found[1e-4]["value/explained_variance"]


@pytest.mark.parametrize("name", AGENTS)
def test_rate_falls_linearly_to_nothing(name):
    settings = {"rollout_steps": STEPS, "learning_rate_decay_steps": STEPS * 3}
    agent = make_agent(AGENTS[name], AGENTS[name].Config(**settings))
    before = [p.clone() for p in agent.network.parameters()]
    Player(agent).play([step._replace(valid=np.ones(3, bool)) for step in connected(STEPS)])
    assert agent.update()
    assert all(torch.equal(a, p) for a, p in zip(before, agent.network.parameters(), strict=True))


@pytest.mark.parametrize("name", AGENTS)
def test_an_interrupted_rollout_is_forgotten(name):
    agent = make_agent(AGENTS[name], AGENTS[name].Config(rollout_steps=STEPS), Recurrent(2))
    Player(agent).play(connected(STEPS - 1))
    agent.interrupt()
    Player(agent).play(connected(1))
    assert not agent.update()
    Player(agent).play(connected(STEPS - 1))
    assert agent.update()


def test_an_agent_with_memory_must_have_acted():
    agent = make_agent(a2c, replace(A2C, rollout_steps=1), Recurrent(2))
    step = connected(1)[0]._replace(terminated=np.zeros(3, bool), truncated=np.ones(3, bool))
    with pytest.raises(RuntimeError, match="act before"):
        agent.observe(step)


@pytest.mark.parametrize("name", AGENTS)
def test_an_encoder_that_needs_longer_sequences_is_refused(name):
    encoder = Dense(2)
    encoder.window = 9
    with pytest.raises(SpecError, match=f"{name}: .*--rollout-steps 9"):
        make_agent(AGENTS[name], AGENTS[name].Config(rollout_steps=8), encoder)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("a2c", "optimizer", "sgd"),
        ("a2c", "rollout_steps", 0),
        ("a2c", "gae_lambda", 1.5),
        ("ppo", "minibatches", 0),
        ("ppo", "clip", 0.0),
        ("ppo", "target_kl", 0.0),
        ("ppo", "discount", -0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, field, value):
    with pytest.raises(UserError, match=f"{name}: {field}"):
        make_agent(AGENTS[name], replace(AGENTS[name].Config(), **{field: value}))


def learn(module, env_id, encoder, config, steps):
    torch.manual_seed(0)
    env = make_env(env_id, 16)
    agent = module.build(config, env.spec, encoder(env.spec.observation.size), Compute(), 0)
    position = Position.begin(env, agent, env.reset(0))
    for _ in itertools.takewhile(lambda _: position.steps < steps, run(env, agent, position)):
        pass
    return agent


def greedy_reward(agent, env_id, steps):
    """Mean reward of a step, over whole episodes of 50 copies."""
    env = make_env(env_id, 50)
    stream = run(env, agent, Position.begin(env, agent, env.reset(123)), explore=False, learn=False)
    return np.mean([step.reward for step, _ in itertools.islice(stream, steps)])


FAST = {
    "a2c": a2c.Config(learning_rate=0.01),
    "ppo": ppo.Config(learning_rate=0.01, rollout_steps=16, minibatches=2),
}


@pytest.mark.parametrize("name", AGENTS)
def test_learns_to_answer_what_it_sees(name):
    agent = learn(AGENTS[name], "diagnostic/observation-action", Dense, FAST[name], 3000)
    assert greedy_reward(agent, "diagnostic/observation-action", 10) == 1


def test_a2c_learns_with_adam_too():
    config = replace(FAST["a2c"], optimizer="adam")
    agent = learn(a2c, "diagnostic/observation-action", Dense, config, 3000)
    assert greedy_reward(agent, "diagnostic/observation-action", 10) == 1


@pytest.mark.parametrize("name", AGENTS)
def test_learns_a_continuous_action(name):
    agent = learn(AGENTS[name], "diagnostic/box", Dense, replace(FAST[name], learning_rate=0.003), 24_000)
    assert greedy_reward(agent, "diagnostic/box", 20) > -0.01


@pytest.mark.parametrize("name", AGENTS)
def test_memory_learns_recall_and_a_blind_agent_cannot(name):
    rewards = [
        greedy_reward(learn(AGENTS[name], "diagnostic/recall-3", e, FAST[name], 8000), "diagnostic/recall-3", 30)
        for e in (Recurrent, Dense)
    ]
    assert rewards[0] == pytest.approx(1 / 3)
    assert abs(rewards[1]) < 0.15


@pytest.mark.parametrize("name", AGENTS)
def test_values_are_learned_beyond_where_an_episode_is_cut_off(name):
    agent = learn(AGENTS[name], "diagnostic/endless", Dense, replace(FAST[name], discount=0.8), 12_000)
    values = agent.network.values(agent.network.encoder(Inputs(torch.ones(1, 1, 1)))[0])
    assert values.item() == pytest.approx(5, abs=0.25)  # 1 / (1 - 0.8), though an episode earns 3.36 discounted
