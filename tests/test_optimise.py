"""Optimisers of trainers against torch's own, rates by hand, means by hand."""

from __future__ import annotations

import math

import pytest
import torch
from saccade.agents.parts.compute import Compute
from saccade.data import Batches, Split
from saccade.encoders.base import Encoder, Group
from saccade.envs.errors import SpecError
from saccade.training.epochs import Best, Means, Trainer, evaluate_losses, means_of
from saccade.training.optimise import Optimiser, groups_of, rate_factor
from torch import nn


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def loss_of(net: nn.Module) -> torch.Tensor:
    return net(torch.arange(15.0).view(5, 3) / 10).square().sum()


def torch_rule(rule: str, groups: list[dict]) -> torch.optim.Optimizer:
    return {
        "adam": lambda: torch.optim.Adam(groups, lr=0.01),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.01),
        "sgd": lambda: torch.optim.SGD(groups, lr=0.01, momentum=0.5),
        "nesterov": lambda: torch.optim.SGD(groups, lr=0.01, momentum=0.5, nesterov=True),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=0.01),
        "adagrad": lambda: torch.optim.Adagrad(groups, lr=0.01),
    }[rule]()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", ["adam", "adamw", "sgd", "nesterov", "rmsprop", "adagrad"])
def test_rules_are_torchs_and_decay_spares_biases(rule, decay, fused):
    ours, theirs = two_layers(), two_layers()
    optimiser = Optimiser(
        [Group("all", list(ours.parameters()))],
        learning_rate=0.01,
        rule=rule,
        momentum=0.5,
        weight_decay=decay,
        compute=Compute(fused=fused),
    )
    weights, biases = ([p for p in theirs.parameters() if p.dim() == dims] for dims in (2, 1))
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    reference = torch_rule(rule, groups)
    for _ in range(4):
        optimiser.step(loss_of(ours))
        reference.zero_grad()
        loss_of(theirs).backward()
        reference.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_the_decay_of_mean_squares_is_adams_and_leaves_other_rules_alone(fused):
    ours, theirs = two_layers(), two_layers()
    group = [Group("all", list(ours.parameters()))]
    optimiser = Optimiser(group, learning_rate=0.01, beta2=0.9, compute=Compute(fused=fused))
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.9))
    for step in range(4):
        optimiser.step(loss_of(ours) * (100 if step == 1 else 1))
        reference.zero_grad()
        (loss_of(theirs) * (100 if step == 1 else 1)).backward()
        reference.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-5, atol=1e-6)
    Optimiser(group, learning_rate=0.01, rule="sgd", beta2=0.9).step(loss_of(ours))


class Grouped(Encoder):
    feature_shape = (2,)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(3))

    def forward(self, inputs, state=(), reset=None): ...

    def parameter_groups(self):
        return [
            Group("a", [self.a], learning_rate_factor=2.0, optimizer="sgd"),
            Group("b", [self.b], max_gradient_norm=0.5),
            Group("both", []),
        ]


def test_groups_have_their_own_rates_rules_and_limits():
    """The gradient of each is its value (3, 4), of length 5."""
    encoder = Grouped()
    optimiser = Optimiser(
        groups_of(encoder, encoder.parameters()),
        learning_rate=0.1,
        rule="sgd",
        momentum=0.0,
        weight_decay=100.0,  # of vectors nothing decays
        max_gradient_norm=math.sqrt(50),  # of a and c together: exactly their length
    )
    optimiser.step(sum(p.square().sum() / 2 for p in encoder.parameters()))
    torch.testing.assert_close(encoder.a.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.2))
    torch.testing.assert_close(encoder.b.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.1 * 0.1), rtol=1e-5, atol=0)
    torch.testing.assert_close(encoder.c.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.1))
    optimiser.scale_rates(0.0)
    before = [p.detach().clone() for p in encoder.parameters()]
    optimiser.step(sum(p.square().sum() for p in encoder.parameters()))
    torch.testing.assert_close([p.detach() for p in encoder.parameters()], before, rtol=0, atol=0)


def test_groups_of_some_parameters():
    encoder = Grouped()
    groups = groups_of(encoder, [encoder.c, encoder.b])
    assert [(group.name, [id(p) for p in group.parameters]) for group in groups] == [
        ("b", [id(encoder.b)]),
        ("rest", [id(encoder.c)]),
    ]
    assert groups[0].max_gradient_norm == 0.5
    assert [group.name for group in groups_of(encoder, [encoder.a])] == ["a"]


def test_frozen_parameters_stay_and_unknown_rules_are_refused():
    net = two_layers()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    optimiser = Optimiser([Group("all", list(net.parameters()))], learning_rate=0.1)
    optimiser.step(loss_of(net))
    assert torch.equal(net[0].weight, before)
    with pytest.raises(SpecError, match="group 'x' asks for optimizer 'lion'"):
        Optimiser([Group("x", list(net.parameters()), optimizer="lion")], learning_rate=0.1)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0]),
        ("cosine", 0.0, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0]),
        ("constant", 0.5, [0.01, 0.5, 1, 1]),
        ("linear", 0.25, [0.01, 1, 2 / 3, 0]),
        ("onecycle", 0.0, [0.01, 0.25 / 0.3, (1 + math.cos(math.pi * 2 / 7)) / 2, 0]),
        ("onecycle", 0.5, [0.01, 0.5, 1, 0]),
    ],
)
def test_rates_by_hand(schedule, warmup, expected):
    assert [rate_factor(schedule, t, warmup) for t in (0, 0.25, 0.5, 1)] == pytest.approx(expected, abs=1e-9)


def test_means_weigh_by_examples():
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}, 3)
    again = Means()
    again.load_state_dict(means.state_dict())
    again.add({"a": torch.tensor(5.0), "b": torch.tensor(8.0)}, 1)
    assert again.read() == {"a": 2.0, "b": 2.0}
    assert again.read() == {}


def test_the_total_is_the_sum_of_means():
    losses = means_of({"rows": torch.tensor([1.0, 2.0, 6.0]), "batch": torch.tensor(0.5, dtype=torch.bfloat16)})
    assert {name: value.item() for name, value in losses.items()} == {"rows": 3.0, "batch": 0.5, "loss": 3.5}
    assert all(value.dtype == torch.float32 for value in losses.values())


def numbers(count: int) -> Split:
    return Split(torch.arange(float(count)).unsqueeze(1), torch.full((count,), -1))


def test_evaluation_reads_each_example_once_and_moves_nothing():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    def loss(batch):
        assert not net.training
        return {"value": batch["x"].squeeze(1), "noise": torch.randn(()), "grad": torch.tensor(torch.is_grad_enabled())}

    first = evaluate_losses(net, loss, numbers(7), 3, seed=1)
    assert first["value"] == 3.0
    assert first["grad"] == 0.0
    assert evaluate_losses(net, loss, numbers(7), 3, seed=1) == first
    assert evaluate_losses(net, loss, numbers(7), 3, seed=2)["noise"] != first["noise"]
    assert torch.equal(torch.rand(2), expected)
    assert net.training


def test_a_trainer_counts_updates_and_fills_the_clock():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))
            self.register_buffer("progress", torch.zeros(()))

    net, seen, rates, updated = Net(), [], [], []

    def loss(batch):
        seen.append(net.progress.item())
        rates.append(optimiser._groups[0]["lr"])
        return {"loss_": (net.w * batch["x"]).sum()}

    optimiser = Optimiser([Group("w", [net.w])], learning_rate=1.0)
    trainer = Trainer(
        net,
        loss,
        optimiser,
        Batches(numbers(5), 2, seed=0),
        epochs=2,
        schedule="linear",
        after_update=lambda: updated.append(len(seen)),
        progress=(0.5, 1.0),
    )
    assert list(trainer) == [False, True, False, True]
    assert seen == [0.5, 0.625, 0.75, 0.875]
    assert rates == [1.0, 0.75, 0.5, 0.25]
    assert updated == [1, 2, 3, 4]
    assert trainer.is_over
    assert trainer.epoch == 2
    assert list(trainer) == []


def test_the_best_is_kept_and_patience_ends():
    net = nn.Linear(1, 1, bias=False)
    best = Best(patience=2)
    for value, weight, over in ((2.0, 1.0, False), (1.0, 2.0, False), (1.0, 3.0, False), (1.5, 4.0, True)):
        nn.init.constant_(net.weight, weight)
        best.update(value, net)
        assert best.is_over == over
    again = Best(patience=2)
    again.load_state_dict(best.state_dict())
    again.restore(net)
    assert net.weight.item() == 2.0
    never = Best(patience=0)
    for value in (1.0, 2.0, 3.0):
        never.update(value, net)
    assert not never.is_over
