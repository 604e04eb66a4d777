"""Value-learning losses against hand numbers; exploration and schedules; the DQN update against a slow one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from rollouts import Dense
from saccade.agents.dqn import DQN, Config, build
from saccade.agents.parts import q_losses
from saccade.agents.parts.compute import Compute
from saccade.agents.parts.exploration import AnnealedEpsilonGreedy, EpsilonGreedy, Greedy, make_exploration
from saccade.agents.parts.networks import acting_copy, follow, target_copy
from saccade.agents.parts.optimisers import Optimisers
from saccade.agents.parts.replay import Batch
from saccade.agents.parts.schedules import Linear
from saccade.agents.parts.shared_rmsprop import Flat
from saccade.encoders import make_encoder
from saccade.encoders.base import FeedForward, Group, Inputs
from saccade.encoders.mlp import Config as MLPConfig
from saccade.envs import make_env
from saccade.envs.errors import SpecError, UserError
from saccade.training.loop import Position, run

Q_TM1 = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.5]])
A_TM1 = torch.tensor([0, 1, 1])
R_T = torch.tensor([1.0, -1.0, 0.0])
DISCOUNT_T = torch.tensor([0.9, 0.0, 0.5])
Q_T = torch.tensor([[2.0, 5.0], [1.0, 1.0], [4.0, -4.0]])


def test_q_learning_error_by_hand() -> None:
    error = q_losses.td_target(R_T, DISCOUNT_T, q_losses.max_value(Q_T)) - q_losses.select(Q_TM1, A_TM1)
    # 1 + .9 * 5 - 1 = 4.5; -1 + 0 - 4 = -5; 0 + .5 * 4 - .5 = 1.5
    assert error.tolist() == pytest.approx([4.5, -5.0, 1.5])


def test_double_q_learning_error_by_hand() -> None:
    selector = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 7.0]])
    value_t = q_losses.double_value(Q_T, selector)
    error = q_losses.td_target(R_T, DISCOUNT_T, value_t) - q_losses.select(Q_TM1, A_TM1)
    # 1 + .9 * 2 - 1 = 1.8; -5; 0 + .5 * -4 - .5 = -2.5
    assert error.tolist() == pytest.approx([1.8, -5.0, -2.5])


def test_no_gradient_reaches_the_target() -> None:
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T.clone().requires_grad_()
    error = q_losses.td_target(R_T, DISCOUNT_T, q_losses.max_value(q_t)) - q_losses.select(q_tm1, A_TM1)
    error.sum().backward()
    assert q_t.grad is None
    assert q_tm1.grad.tolist() == [[-1, 0], [0, -1], [0, -1]]


def test_huber_is_quadratic_then_linear() -> None:
    error = torch.tensor([3.0, 0.5, 0.0, -1.0, -4.0], requires_grad=True)
    loss = q_losses.huber(error)
    assert loss.tolist() == pytest.approx([2.5, 0.125, 0.0, 0.5, 3.5])
    loss.sum().backward()
    assert error.grad.tolist() == pytest.approx([1, 0.5, 0, -1, -1])
    assert q_losses.squared(error.detach() - 1).tolist() == pytest.approx([2.0, 0.125, 0.5, 2.0, 12.5])


@pytest.mark.parametrize("clip", [False, True])
def test_gradient_in_closed_form_is_that_of_the_loss(clip: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, target, weight = (torch.randn(size, generator=generator) for size in ((20, 3), (20,), (20,)))
    q, action = (2 * q).requires_grad_(), torch.arange(20) % 3
    error = target - q_losses.select(q, action)
    loss = (weight * (q_losses.huber if clip else q_losses.squared)(error)).mean()
    (expected,) = torch.autograd.grad(loss, q)
    assert 0 < (error.abs() > 1).sum() < 20  # both parts of the loss
    torch.testing.assert_close(q_losses.value_gradient(q.detach(), action, error.detach(), weight, clip), expected)


def test_dueling_streams_by_hand() -> None:
    value, advantage = torch.tensor([[10.0]]), torch.tensor([[1.0, 2.0, 6.0]])
    assert q_losses.dueling(value, advantage).tolist() == [[8.0, 9.0, 13.0]]


def test_linear_schedule() -> None:
    schedule = Linear(1.0, 0.1, steps=100, begin=50)
    assert [schedule(step) for step in (0, 50, 100, 150, 10_000)] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    assert Linear(1.0, 0.1, steps=0)(0) == 0.1


def test_exploration_objects_are_what_the_settings_describe() -> None:
    assert isinstance(make_exploration(0, 0, 10), Greedy)
    assert isinstance(make_exploration(0.25, 0.25, 10), EpsilonGreedy)
    annealed = make_exploration(1, 0.001, 10)
    assert isinstance(annealed, AnnealedEpsilonGreedy)
    assert [annealed.epsilon(step) for step in (0, 5, 10)] == pytest.approx([1.0, 0.5005, 0.001])


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5, 1.0])
def test_epsilon_is_the_share_of_random_actions(epsilon: float) -> None:
    random, greedy = np.random.default_rng(0), np.full(200_000, 3)
    actions = EpsilonGreedy(epsilon)(greedy, 4, 0, random)
    share = np.bincount(actions, minlength=4) / len(actions)
    assert share == pytest.approx([epsilon / 4] * 3 + [1 - 0.75 * epsilon], abs=0.005)
    assert (greedy == 3).all()


def small_dqn(config: Config, env_id: str = "CartPole-v1", num_envs: int = 2) -> tuple[DQN, Position, object]:
    env = make_env(env_id, num_envs)
    torch.manual_seed(0)
    encoder = make_encoder("mlp", env.spec.observation, MLPConfig(hidden=(16,)))
    agent = build(config, env.spec, encoder, Compute(), seed=0)
    return agent, Position.begin(env, agent, env.reset(0)), env


SMALL = Config(
    batch_size=8, replay_capacity=500, learning_starts=20, update_interval=4, updates_per_interval=2, target_interval=64
)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("huber", [False, True])
@pytest.mark.parametrize("prioritised", [False, True])
def test_one_gradient_equals_a_slow_one(double: bool, huber: bool, prioritised: bool) -> None:
    config = dataclasses.replace(
        SMALL, double=double, huber=huber, prioritised=prioritised, n_step=2, max_gradient_norm=None
    )
    agent, position, env = small_dqn(config)
    for step, _ in run(env, agent, position, learn=False):
        agent.observe(step)
        if position.steps > 100:
            break
    agent.target = target_copy(agent.network)
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = agent.replay.sample(8, 2, 0.9, 0.5)
    target_q = agent.target(batch.next_obs)
    target = (
        agent._double_target(batch, target_q, slice(0, 8))
        if double
        else batch.reward + batch.discount * target_q.amax(1)
    )
    total = torch.zeros(())
    for i in range(8):
        q_next = agent.target(batch.next_obs[i : i + 1])[0].detach()
        best = agent.network(batch.next_obs[i : i + 1])[0].argmax() if double else q_next.argmax()
        goal = batch.reward[i] + batch.discount[i] * q_next[best]
        error = goal - agent.network(batch.obs[i : i + 1])[0, batch.action[i]]
        one = 0.5 * error**2 if not huber or abs(error) <= 1 else abs(error) - 0.5
        total = total + batch.weight[i] * one / 8
    slow = torch.autograd.grad(total, list(agent.network.parameters()))
    agent._gradient_step(batch, target, slice(0, 8))
    torch.testing.assert_close([p.grad for p in agent.network.parameters()], list(slow), rtol=1e-4, atol=1e-6)


def test_gradient_steps_and_targets_come_when_they_are_due() -> None:
    agent, position, env = small_dqn(SMALL)
    targets = []
    for _ in run(env, agent, position):
        online = next(agent.network.parameters())
        targets.append(torch.equal(next(agent.target.parameters()), online))
        if position.steps >= 300:
            break
    # the loop updates before it observes: the last step of each iteration is not yet due
    due = (agent.steps - agent.config.learning_starts) // 4 * 2
    assert abs(agent.updates - due) <= 4
    assert 2 <= sum(targets[20:]) <= 8  # equal only just after a copy


def test_what_is_due_and_at_which_rate_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _, _ = small_dqn(dataclasses.replace(SMALL, learning_rate_decay_steps=100))
    scales: list[float] = []
    monkeypatch.setattr(agent.optimisers, "scale_learning_rate", scales.append)

    def due(steps: int, held: int, *, is_ready: bool = True) -> int:
        agent.steps = steps
        monkeypatch.setattr(agent, "replay", range(held))
        return agent.due(is_ready=is_ready)

    assert due(19, 19) == 0  # the replay wants 20; from here on steps count
    assert due(22, 22) == 0
    assert due(32, 32) == 3 * 2  # 13 steps: three bursts of two, and one step over
    assert due(34, 34) == 0
    assert due(35, 35) == 2
    assert due(60, 60, is_ready=False) == 0
    assert due(63, 63) == 0
    assert due(164, 164) == 26 * 2
    assert scales == pytest.approx([0.68, 0.65, 0.0])


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_target_follows(rate: float) -> None:
    online, target = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        online.weight.fill_(5.0)
        online.running_mean.fill_(7.0)
    follow(target, online, rate)
    assert target.weight.tolist() == pytest.approx([1 + 4 * rate] * 3)
    assert target.running_mean.tolist() == [7.0] * 3


def test_the_acting_copy_shares_tensors_and_stays_in_eval_mode() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    acting = acting_copy(network)
    network.train()
    assert not acting.training
    assert not any(module.training for module in acting.modules())
    with torch.no_grad():
        network[0].weight.fill_(2.0)
    network(torch.randn(8, 3))
    assert torch.equal(acting[0].weight, network[0].weight)
    assert torch.equal(acting[1].running_mean, network[1].running_mean)
    assert network[1].running_mean.abs().sum() > 0


class PlainGradient(FeedForward):
    """Asks for SGD."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def parameter_groups(self) -> list[Group]:
        return [Group("all", list(self.network.parameters()), optimizer="sgd")]


def test_weights_that_acting_keeps_cast_follow_every_change() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(12, 4))
    acting, x = acting_copy(network), torch.randn(5, 2, 3, 3)
    seen: list[torch.Tensor] = []

    def check(change: str) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.inference_mode():
                found = acting(x)
            expected = network(x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected), change
        assert not any(torch.equal(found, earlier) for earlier in seen), f"{change} changed nothing"
        seen.append(found.clone())
        expected.float().square().sum().backward()

    check("as built")
    parameters = list(network.parameters())
    rules = {"fused Adam": {}, "Adam": {"compute": Compute(fused=False)}, "RMSProp": {"rmsprop_decay": 0.9}}
    for rule, options in rules.items():
        optimisers = Optimisers(parameters, Dense(1, 1), learning_rate=0.1, **options)
        optimisers.apply()
        check(rule)
    optimisers = Optimisers([], PlainGradient(network), learning_rate=0.1)
    optimisers.apply()
    check("SGD")
    network.load_state_dict({name: value + 1 for name, value in network.state_dict().items()})
    check("loading")
    flat = Flat([("rmsprop", 0.1, parameters)])
    flat.values.mul_(0.5)
    flat.changed()
    check("a shared vector")
    network.double()
    assert torch.equal(acting(x.double()), network(x.double()))  # without autocast as they are


def test_clipped_rewards_are_learned_from_but_scores_are_not_clipped() -> None:
    agent, position, env = small_dqn(dataclasses.replace(SMALL, clip_rewards=True))
    for step, _ in run(env, agent, position, learn=False):
        scaled = step._replace(reward=step.reward * 7)
        agent.observe(scaled)
        assert (scaled.reward[scaled.valid] == 7).all()
        if position.steps > 40:
            break
    assert agent.replay.sample(30).reward.max() == 1


def test_greedy_without_exploration() -> None:
    agent, position, _ = small_dqn(SMALL)
    inputs = Inputs(torch.from_numpy(position.obs)[None])
    q = agent.network(inputs.obs[0])
    for _ in range(5):
        assert (agent.act(inputs, (), None, explore=False).action == q.argmax(-1).numpy()).all()
    explored = {tuple(agent.act(inputs, (), None, explore=True).action) for _ in range(50)}
    assert len(explored) == 4  # epsilon is 1 at step 0: all pairs of two actions


def test_box_actions_are_refused() -> None:
    env = make_env("Pendulum-v1", 1)
    encoder = make_encoder("mlp", env.spec.observation)
    with pytest.raises(SpecError, match="discrete actions; Pendulum-v1 has continuous"):
        build(Config(), env.spec, encoder, Compute(), 0)


@pytest.mark.parametrize("name", ["batch_size", "update_interval", "n_step", "replay_capacity", "learning_rate"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_that_make_no_sense_are_refused(name: str, value: int) -> None:
    env = make_env("CartPole-v1", 1)
    encoder = make_encoder("mlp", env.spec.observation)
    with pytest.raises(UserError, match=f"{name} must be above 0"):
        build(dataclasses.replace(Config(), **{name: value}), env.spec, encoder, Compute(), 0)


def test_bfloat16_gives_nearly_the_same_gradient() -> None:
    """Norm and direction of the gradient; single numbers may differ by their rounding."""
    env = make_env("ALE/Pong-v5", 1)
    gradients = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        encoder = make_encoder("conv", env.spec.observation)
        compute = Compute(bfloat16=bfloat16, channels_last=bfloat16)
        agent = build(
            dataclasses.replace(Config(), replay_capacity=100, max_gradient_norm=None),
            env.spec,
            encoder,
            compute,
            seed=0,
        )
        random = torch.Generator().manual_seed(0)
        obs, next_obs = (torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8, generator=random) for _ in range(2))
        action, ones = torch.arange(8) % env.spec.action.count, torch.ones(8)
        batch = Batch(obs, action, ones, 0.9 * ones, next_obs, ones, np.arange(8))
        target = agent._double_target(batch, torch.zeros(8, env.spec.action.count), slice(0, 8))
        agent._gradient_step(batch, target, slice(0, 8))
        gradients.append(torch.cat([p.grad.float().flatten() for p in agent.network.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99
    assert gradients[1].norm().item() == pytest.approx(gradients[0].norm().item(), rel=0.05)
