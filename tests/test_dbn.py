"""The deep belief network: each layer is a machine of its own, trained on the one below; unrolling, labels, draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bars import bars, scrambled
from encoder_cases import SPECS
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import dbn, rbm
from saccade.encoders.dbn import Config, Dbn
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)
BITS = ObservationSpec((16,), low=0.0, high=1.0)


def make(spec: ObservationSpec = SMALL, seed: int = 0, **settings: object) -> Dbn:
    torch.manual_seed(seed)
    return dbn.build(Config(**{"hidden": (12, 8), **settings}), spec).train()  # type: ignore[arg-type]


def train(learner: Dbn, x: Tensor, updates: int, rate: float = 1e-3, label: Tensor | None = None) -> None:
    """Stage by stage, with the codes of the layers below computed once before."""
    for stage in learner.stages():
        with torch.no_grad():
            data = stage.input(x) if stage.input else x
        optimisers = Optimisers([], learner, learning_rate=rate)
        for _ in range(updates):
            batch = {"x": data} if label is None else {"x": data, "label": label}
            optimisers.step(torch.stack([loss.mean() for loss in stage.loss(batch).values()]).sum())
        if stage.finish is not None:
            stage.finish()


def test_features_are_the_layers_means_one_after_the_other():
    learner = make(hidden=(12, 8, 5))
    scrambled(learner)
    v = bars().flatten(1).float() / 255
    for layer in learner.layers:
        v = (v @ layer.weight.T + layer.hidden_bias).sigmoid()
    torch.testing.assert_close(learner.read(bars()), v)
    down = v
    for layer in reversed(learner.layers):
        down = (down @ layer.weight + layer.visible_bias).sigmoid()
    torch.testing.assert_close(learner.reconstruct(bars()), down.unflatten(1, (1, 4, 4)))


def test_a_layer_learns_as_a_machine_on_the_means_below():
    """The second stage's gradient is that of an `rbm` with the same parameters, from the same draws; no other layer
    gets any. So it is with all layers at once."""
    learner = make(l2=0.1)
    scrambled(learner)
    means = (bars().flatten(1).float() / 255 @ learner.layers[0].weight.T + learner.layers[0].hidden_bias).sigmoid()
    alone = rbm.build(rbm.Config(hidden=8, l2=0.1), ObservationSpec((12,), low=0.0, high=1.0)).train()
    alone.load_state_dict(learner.layers[1].state_dict())
    torch.manual_seed(3)
    alone.loss({"x": means.detach()})["reconstruction"].backward()
    stage = learner.stages()[1]
    assert stage.input is not None
    torch.testing.assert_close(stage.input(bars()), means)
    torch.manual_seed(3)
    stage.loss({"x": stage.input(bars()).detach()})["reconstruction"].backward()
    torch.testing.assert_close(learner.layers[1].weight.grad, alone.weight.grad)
    torch.testing.assert_close(learner.layers[1].visible_bias.grad, alone.visible_bias.grad)
    assert learner.layers[0].weight.grad is None
    learner.zero_grad()
    losses = learner.loss({"x": bars()})
    assert list(losses) == ["layer_1_reconstruction", "layer_2_reconstruction"]
    losses["layer_2_reconstruction"].backward()
    assert learner.layers[0].weight.grad is None


def test_unrolling_changes_nothing_until_it_learns():
    """The autoencoder begins as the layers' own way up and down; then reconstructions become better, and they alone
    move (Hinton & Salakhutdinov 2006, figure 1)."""
    learner, x = make(unroll=1.0, code="gaussian", hidden=(12, 3)), bars()
    *layers, whole = learner.stages()
    scrambled(nn.ModuleList(learner.layers))
    before = learner.read(x), learner.reconstruct(x)
    assert layers[-1].finish is not None
    layers[-1].finish()
    assert learner.unrolled
    torch.testing.assert_close((learner.read(x), learner.reconstruct(x)), before)
    torch.testing.assert_close(
        before[0].detach(),
        (learner.means(x, 1) @ learner.layers[1].weight.T).detach() + learner.layers[1].hidden_bias.detach(),
    )
    loss = whole.loss({"x": x})["reconstruction"]
    torch.testing.assert_close(loss, (before[1] - x / 255).square().flatten(1).sum(1))
    weight, optimisers = learner.layers[0].weight.clone(), Optimisers([], learner, learning_rate=1e-2)
    for _ in range(200):
        optimisers.step(whole.loss({"x": x})["reconstruction"].mean())
    assert whole.loss({"x": x})["reconstruction"].mean() < 0.5 * loss.mean()
    assert torch.equal(learner.layers[0].weight, weight)
    fresh = make(unroll=1.0, code="gaussian", hidden=(12, 3), seed=1)
    fresh.load_state_dict(learner.state_dict())
    torch.testing.assert_close(fresh.read(x), learner.read(x))


def test_a_stack_learns_to_restore_and_draws_what_it_has_seen():
    learner, x = make(hidden=(24, 24), gain=300.0, steps=3), bars()
    train(learner, x, updates=500)
    assert (learner.reconstruct(x) - x / 255).square().flatten(1).sum(1).mean() < 0.3  # the mean image has 3
    drawn = learner.sample(100, torch.Generator().manual_seed(0), steps=50).round().flatten(1)
    seen = (drawn.unsqueeze(1) == (x / 255).flatten(1)).all(2).any(1)
    assert seen.float().mean() > 0.4  # by chance 1 of 8,192


def test_labels_are_clamped_and_recognised():
    """Rows are one class and columns the other."""
    learner, x, label = make(hidden=(24, 24), gain=300.0, labels=2), bars(), torch.tensor([0] * 4 + [1] * 4)
    train(learner, x, updates=500, label=label)
    assert torch.equal(learner.classify(x).argmax(1), label)
    torch.testing.assert_close(learner.classify(x).exp().sum(1), torch.ones(8))
    asked = torch.tensor([0, 1]).repeat(50)
    drawn = learner.sample(100, torch.Generator().manual_seed(0), steps=50, label=asked)
    rows, columns = drawn.mean(3).amax(2).flatten(), drawn.mean(2).amax(2).flatten()  # a whole row has mean 1
    assert ((columns > rows).long() == asked).float().mean() > 0.85
    assert learner.sample(2, torch.Generator().manual_seed(0), steps=2).shape == (2, 1, 4, 4)


def test_rates_are_those_of_each_layers_units():
    groups = {
        group.name: group for group in make(unroll=1.0, code="gaussian", gain=7.0, linear_gain=0.5).parameter_groups()
    }
    factors = {name: (group.learning_rate_factor, group.optimizer) for name, group in groups.items()}
    assert factors == {"layer 1": (7.0, "sgd"), "layer 2": (0.5, "sgd"), "unrolled": (1.0, None)}
    (group,) = make(rule="trainer").parameter_groups()
    assert (group.learning_rate_factor, group.optimizer) == (1.0, None)
    assert [g.learning_rate_factor for g in make(ObservationSpec((3,))).parameter_groups()] == [5.0, 20.0]


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = BITS, **settings: object) -> Callable[[], object]:
        return lambda: dbn.build(Config(**settings), spec)  # type: ignore[arg-type]

    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"], visible="bernoulli"), SpecError, "bounded"),
        (built(SPECS["vector"], loss="bernoulli", unroll=1.0), SpecError, "squared"),
        (built(hidden=()), UserError, "hidden"),
        (built(code="relu"), UserError, "unknown code"),
        (built(method="tempering"), UserError, "unknown method"),
        (built(rule="adam"), UserError, "unknown rule"),
        (built(unroll=-1.0), UserError, "unroll"),
        (built(labels=3, momentum=0.5), UserError, "labels"),
        (built(momentum=1.0), UserError, "momentum"),
        (lambda: make().classify(bars()), UserError, "--encoder.labels"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()
