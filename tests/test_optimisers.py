"""The agents' optimisers: clipping apart, each group by its own rule."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from rollouts import Dense
from saccade.agents.parts.compute import Compute
from saccade.agents.parts.optimisers import LeanAdam, Optimisers
from saccade.encoders.base import Group
from saccade.envs.errors import SpecError
from torch import nn


class Grouped(Dense):
    """Asks for plain SGD and a clipping of its own."""

    def parameter_groups(self):
        return [
            Group("weight", [self.layer.weight], learning_rate_factor=10.0, optimizer="sgd", max_gradient_norm=0.5),
            Group("bias", [self.layer.bias]),
        ]


def test_optimisers_clip_apart_and_follow_each_rule():
    encoder, head = Grouped(2, 3), nn.Linear(3, 1)
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=0.1, max_gradient_norm=2.0)
    before = {id(p): p.detach().clone() for p in (*head.parameters(), *encoder.parameters())}
    weights = [(encoder.layer.weight, 30.0), (encoder.layer.bias, 4.0), (head.weight, 5.0), (head.bias, 12.0)]
    norm = optimisers.step(sum(scale * parameter.flatten()[0] for parameter, scale in weights))
    assert float(norm) == pytest.approx((30**2 + 4**2 + 5**2 + 12**2) ** 0.5)
    moved = [(before[id(p)] - p.detach()).flatten()[0].item() for p, _ in weights]
    assert moved[0] == pytest.approx(
        0.1 * 10 * 0.5, rel=1e-4
    )  # SGD at ten times the rate along a gradient clipped to 0.5
    np.testing.assert_allclose(moved[1:], 0.1, rtol=1e-4)  # Adam's first step is the rate, whatever the gradient
    clipped = [parameter.grad.flatten()[0].item() for parameter, _ in weights]
    np.testing.assert_allclose(clipped, [0.5, 2, 2 * 5 / 13, 2 * 12 / 13], rtol=1e-4)


def test_frozen_parameters_are_left_out():
    encoder, head = Dense(2).requires_grad_(False), nn.Linear(16, 1)
    before = encoder.layer.weight.clone()
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=0.1)
    norm = optimisers.step(head(encoder.encode(torch.ones(1, 2))).sum())
    assert torch.equal(before, encoder.layer.weight)
    whole = torch.linalg.vector_norm(torch.cat([head.weight.grad.flatten(), head.bias.grad]))
    assert float(norm) == pytest.approx(whole.item())


def test_a_rule_that_is_not_there_is_refused():
    encoder = Dense(2)
    encoder.parameter_groups = lambda: [Group("odd", list(encoder.parameters()), optimizer="rprop")]
    with pytest.raises(SpecError, match="rprop"):
        Optimisers([], encoder, learning_rate=0.1)


@pytest.mark.parametrize("fused", [True, False])
def test_steps_go_on_from_the_state_whatever_the_kernels(fused):
    encoder, head = Grouped(2, 3), nn.Linear(3, 1)
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=0.1, compute=Compute(fused=fused))
    x = torch.randn(5, 2)

    def step(encoder, head, optimisers):
        optimisers.step(head(encoder.encode(x)).square().sum())
        return [p.detach().clone() for p in (*head.parameters(), *encoder.parameters())]

    step(encoder, head, optimisers)
    other_encoder, other_head = copy.deepcopy(encoder), copy.deepcopy(head)
    other = Optimisers(other_head.parameters(), other_encoder, learning_rate=0.1, compute=Compute(fused=fused))
    other.load_state_dict(copy.deepcopy(optimisers.state_dict()))
    for a, b in zip(step(encoder, head, optimisers), step(other_encoder, other_head, other), strict=True):
        assert torch.equal(a, b)


def test_rates_scale_from_where_they_began():
    encoder, head = Grouped(2, 3), nn.Linear(3, 1)
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=0.1)
    for factor in (0.5, 0.25):
        optimisers.scale_learning_rate(factor)
    before = encoder.layer.weight.detach().clone()
    optimisers.step(encoder.layer.weight.sum() * 0.1)
    torch.testing.assert_close(before - encoder.layer.weight, torch.full_like(before, 0.1 * 10 * 0.25 * 0.1))


def test_the_lean_step_is_torchs_own_and_goes_on_after_loading():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    lean = LeanAdam(layers[0].parameters(), lr=0.01, fused=True)
    own = torch.optim.Adam(layers[1].parameters(), lr=0.01, fused=True)
    for number in range(30):
        if number == 15:
            state = copy.deepcopy(lean.state_dict())
            lean = LeanAdam(layers[0].parameters(), lr=0.5, fused=True)
            lean.load_state_dict(state)
        x = torch.randn(4, 5)
        for layer, optimizer, step in zip(layers, (lean, own), (lean.lean_step, own.step), strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            if number == 20:
                layer.bias.grad = None
            step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(layers[0].bias, layers[1].bias)
    assert lean.state_dict()["state"][0]["step"] == 30
