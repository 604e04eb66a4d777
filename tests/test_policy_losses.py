"""Losses and advantages of actor-critics against step-by-step second implementations, and RMSProp by its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rollouts import Dense
from saccade.agents.parts import policy_losses
from saccade.agents.parts.optimisers import Optimisers
from saccade.agents.parts.returns import gae, vtrace
from saccade.benchmarks import throughput
from saccade.benchmarks.parts import peer_policies
from torch import nn


def sequences(length, seed=0):
    """Rewards, discounts, values before and after, traces and ratios `[T, 3]`; some episodes end."""
    rng = np.random.default_rng(seed)
    r, before, after = rng.normal(size=(3, length, 3))
    discount = 0.9 * (rng.random((length, 3)) > 0.15)
    trace = 0.8 * (rng.random((length, 3)) > 0.2)
    return r, discount, before, after, trace, np.exp(rng.normal(size=(length, 3)))


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def naive_gae(r, d, before, after, trace):
    """The sum of its definition, forwards: every later error times all discounts and traces up to it."""
    advantage = np.zeros_like(r)
    for t in range(len(r)):
        weight = np.ones(3)
        for k in range(t, len(r)):
            advantage[t] += weight * (r[k] + d[k] * after[k] - before[k])
            weight = weight * d[k] * trace[k]
    return advantage


@pytest.mark.parametrize("length", [1, 2, 5, 33])
def test_gae_is_its_sum(length):
    r, d, before, after, trace, _ = sequences(length)
    np.testing.assert_allclose(
        gae(*tensors(r, d, before, after, trace)), naive_gae(r, d, before, after, trace), atol=1e-12
    )


def test_gae_by_hand():
    # errors 1 + .5 * 4 - 2 = 1 and 3 + 0 - 4 = -1; the second counts .5 * .5 at the first
    r, d, before, after = torch.tensor([[1.0, 3.0], [0.5, 0.0], [2.0, 4.0], [4.0, 9.0]])
    assert gae(r, d, before, after, 0.5).tolist() == [0.75, -1.0]


@pytest.mark.parametrize("length", [1, 2, 5, 33])
def test_vtrace_is_its_sum(length):
    r, d, before, after, trace, ratio = sequences(length)
    rho = np.minimum(ratio, 1)
    targets, advantages = np.zeros_like(r), np.zeros_like(r)
    for t in reversed(range(length)):
        weight = np.ones(3)
        targets[t] = before[t]
        for k in range(t, length):
            targets[t] += weight * rho[k] * (r[k] + d[k] * after[k] - before[k])
            weight = weight * d[k] * rho[k] * trace[k]
        later = trace[t] * (targets[t + 1] - before[t + 1]) if t + 1 < length else 0
        advantages[t] = rho[t] * (r[t] + d[t] * (after[t] + later) - before[t])
    ours = vtrace(*tensors(r, d, before, after, ratio, trace))
    np.testing.assert_allclose(ours[0], targets, atol=1e-12)
    np.testing.assert_allclose(ours[1], advantages, atol=1e-12)


def test_vtrace_of_ones_own_steps_is_gae():
    r, d, before, after, trace, _ = tensors(*sequences(9))
    targets, advantages = vtrace(r, d, before, after, torch.ones_like(r), trace)
    expected = gae(r, d, before, after, trace)
    torch.testing.assert_close(targets - before, expected)
    torch.testing.assert_close(advantages, expected)


def test_clipped_surrogate_by_hand():
    """Gains stop paying beyond the clip, losses do not."""
    ratio, advantage = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1]]), torch.tensor([[1.0, 1.0, -1.0, -1.0, 2.0]])
    log_prob = ratio.log().requires_grad_()
    weight = torch.full_like(ratio, 0.2)
    loss = policy_losses.clipped_policy_loss(log_prob, torch.zeros_like(ratio), advantage, 0.2, weight)
    assert loss.item() == pytest.approx(-0.2 * (1.2 + 0.5 - 1.5 - 0.8 + 2.2))
    (gradient,) = torch.autograd.grad(loss, log_prob)
    np.testing.assert_allclose(gradient, -0.2 * np.array([[0, 0.5, -1.5, 0, 2.2]]), rtol=1e-6)
    kl, clipped = policy_losses.policy_change(log_prob, torch.zeros_like(ratio), 0.2, weight)
    assert clipped.item() == pytest.approx(0.8)
    assert kl.item() == pytest.approx(0.2 * (ratio - 1 - ratio.log()).sum().item(), rel=1e-5)


def test_clipped_values_by_hand():
    value = torch.tensor([0.5, 3.0, 3.0], requires_grad=True)  # near the old one; far towards the return; far from it
    old, returns, weight = torch.zeros(3), torch.tensor([1.0, 5.0, -5.0]), torch.ones(3)
    loss = policy_losses.clipped_value_loss(value, old, returns, 1.0, weight)
    assert loss.item() == pytest.approx(0.5 * (0.25 + 16 + 64))
    assert torch.autograd.grad(loss, value)[0].tolist() == [-0.5, 0.0, 8.0]


def test_explained_variance():
    returns, mask = torch.tensor([1.0, 2.0, 3.0, 99.0]), torch.tensor([True, True, True, False])
    for values, expected in ((returns, 1.0), (returns + 7, 1.0), (torch.zeros(4), 0.0), (-returns, -3.0)):
        assert policy_losses.explained_variance(values, returns, mask).item() == pytest.approx(expected)


def test_rmsprop_by_its_formula():
    encoder, head = Dense(2, 3), nn.Linear(3, 1)
    settings = {"learning_rate": 0.1, "epsilon": 0.01, "rmsprop_decay": 0.9}
    optimisers = Optimisers(head.parameters(), encoder, **settings)
    rng, weight = np.random.default_rng(0), head.weight.detach().numpy().copy()
    square = np.zeros_like(weight)
    for _ in range(5):
        gradient = rng.normal(size=weight.shape).astype(np.float32)
        for parameter in (*head.parameters(), *encoder.parameters()):
            parameter.grad = torch.zeros_like(parameter)
        head.weight.grad = torch.from_numpy(gradient)
        optimisers.apply()
        square = 0.9 * square + 0.1 * gradient**2
        weight -= 0.1 * gradient / np.sqrt(square + 0.01)
        np.testing.assert_allclose(head.weight.detach(), weight, rtol=1e-5)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_the_peer_has_the_same_settings(name):
    plan = throughput.task_plan(name, threads=1)
    settings = peer_policies.hyper_parameters(plan)
    assert settings["vf_coef"] == {"a2c": 0.25, "ppo": 0.5}[name]
    assert settings["n_steps"] == plan.agent_config.rollout_steps == {"a2c": 5, "ppo": 128}[name]
    assert plan.run.num_envs == {"a2c": 16, "ppo": 8}[name]
    if name == "ppo":
        assert settings["batch_size"] == 256
