"""The deep Boltzmann machine with label units: mean field, bounds, draws and gradients against sums over all states."""

from __future__ import annotations

import itertools

import pytest
import torch
from bars import bars as images
from saccade.agents.parts.optimisers import Optimisers
from saccade.data.base import Dataset, Split
from saccade.encoders import deep_boltzmann
from saccade.encoders.deep_boltzmann import Config, Dbm
from saccade.encoders.parts import multimodal
from saccade.encoders.parts.deep import Deep
from saccade.encoders.parts.multimodal import Joint
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.probing import figures
from saccade.training.probing.subject import Subject
from torch import Tensor

CLASSES = 3
SIZES = [(4, 3, 2), (3, 2, 3, 2)]  # labels stand beside layer 2, or 3: they move with odd layers, or even ones
every_depth = pytest.mark.parametrize("sizes", SIZES, ids=str)


def tiny(sizes: tuple[int, ...], scale: float = 0.8) -> Joint:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = tuple(normal(above, below) for below, above in itertools.pairwise(sizes))
    return Joint(Deep(weights, tuple(map(normal, sizes))), normal(sizes[-1], CLASSES), normal(CLASSES))


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def every(joint: Joint) -> tuple[list[Tensor], Tensor, Tensor]:
    """All states of all layers with each label, and minus their energy by its definition."""
    bits = states(sum(joint.deep.sizes))
    label = torch.arange(CLASSES).repeat_interleave(len(bits))
    layers = list(bits.repeat(CLASSES, 1).split(list(joint.deep.sizes), 1))
    y = torch.eye(CLASSES, dtype=torch.float64)[label]
    minus = y @ joint.label_bias + ((layers[-1] @ joint.label_weight) * y).sum(1)
    for layer, bias in zip(layers, joint.deep.biases, strict=True):
        minus = minus + layer @ bias
    for number, weight in enumerate(joint.deep.weights):
        minus = minus + ((layers[number] @ weight.T) * layers[number + 1]).sum(1)
    return layers, y, minus


def table(joint: Joint) -> tuple[Tensor, Tensor]:
    """All v, and log p(v, y) + log Z for each of them and each label, `[V, C]`."""
    layers, y, minus = every(joint)
    v = states(joint.deep.sizes[0])
    exact = [
        [minus[(layers[0] == row).all(1) & (y[:, label] == 1)].logsumexp(0) for label in range(CLASSES)] for row in v
    ]
    return v, torch.tensor(exact, dtype=torch.float64)


@every_depth
def test_bounds_are_below_log_p_and_rise_with_every_round(sizes: tuple[int, ...]):
    joint = tiny(sizes)
    v, exact = table(joint)
    of_class = [multimodal.class_bounds(joint, v, rounds) for rounds in (0, 1, 2, 5, 50)]
    unknown = torch.zeros(len(v), 1, dtype=torch.bool)
    inferred = [multimodal.bound(joint, *multimodal.mean_field(joint, v, None, unknown, n)) for n in (0, 1, 2, 5, 50)]
    for bounds, target in ((of_class, exact), (inferred, exact.logsumexp(1))):
        for before, after in itertools.pairwise(bounds):
            assert (after >= before - 1e-12).all()
        assert (bounds[-1] < target).all()
        assert (target - bounds[-1]).max() < 0.6
    guess, truth = of_class[-1].softmax(1), exact.softmax(1)
    assert (guess - truth).abs().max() < 0.12


@every_depth
def test_what_is_drawn_given_the_other_is_as_likely_as_it_is(sizes: tuple[int, ...]):
    """p(v | y) with y clamped, p(y | v) with v clamped, and p(v, y) with neither: many short chains."""
    joint, count = tiny(sizes), 10_000
    v, exact = table(joint)
    generator = torch.Generator().manual_seed(1)
    even = torch.rand(count, sum(sizes[::2]), generator=generator, dtype=torch.float64).round()
    layers = multimodal.from_even(joint, even)
    for label in range(CLASSES):
        y = torch.eye(CLASSES, dtype=torch.float64)[label].expand(count, -1)
        drawn, kept = multimodal.gibbs(joint, (layers, y), 40, generator, ("y",))
        assert torch.equal(kept, y)
        torch.testing.assert_close(shares(drawn[0]), exact[:, label].softmax(0), atol=0.02, rtol=0)
    start = torch.eye(CLASSES, dtype=torch.float64)[torch.arange(count) % CLASSES]
    for row in (0, 5, len(v) - 1):
        clamped = [v[row].expand(count, -1), *layers[1:]]
        drawn, y = multimodal.gibbs(joint, (clamped, start), 40, generator, ("v",))
        assert torch.equal(drawn[0], clamped[0])
        torch.testing.assert_close(y.mean(0), exact[row].softmax(0), atol=0.02, rtol=0)
    drawn, y = multimodal.gibbs(joint, (layers, start), 40, generator)
    found = torch.stack([shares(drawn[0], y[:, label]) for label in range(CLASSES)], 1) / count
    torch.testing.assert_close(found, exact.flatten().softmax(0).view_as(exact), atol=0.02, rtol=0)


def shares(v: Tensor, weight: Tensor | None = None) -> Tensor:
    """How often each state of v is found, or how much weight it has."""
    number = (v @ (2.0 ** torch.arange(v.shape[1] - 1, -1, -1, dtype=v.dtype))).long()
    found = torch.bincount(number, weight, minlength=2 ** v.shape[1]).double()
    return found / len(v) if weight is None else found


@every_depth
def test_the_gradient_is_that_of_the_mean_bound_and_log_z(sizes: tuple[int, ...]):
    """With all states, as likely as they are, in place of the chains, it is minus the gradient of bound - log Z."""
    joint = tiny(sizes)
    layers, y, minus = every(joint)
    leaves = [part.clone().requires_grad_() for part in (*joint.deep.weights, *joint.deep.biases, *joint[1:])]
    depth = len(joint.deep.weights)
    live = Joint(Deep(tuple(leaves[:depth]), tuple(leaves[depth:-2])), leaves[-2], leaves[-1])
    v, label = torch.rand(5, sizes[0], dtype=torch.float64).round(), torch.tensor([0, 2, -1, 1, -1])
    units, known = multimodal.label_units(label, CLASSES, v)
    data = multimodal.mean_field(joint, v, units, known, 5)
    assert torch.equal(data[1][known.squeeze(1)], units[known.squeeze(1)])
    (every(live)[2].logsumexp(0) - multimodal.bound(live, *data).mean()).backward()
    chance = minus.softmax(0).mul(len(minus)).unsqueeze(1)  # rows weighed in one side of each product
    found = multimodal.contrast(data, ([layer * chance.sqrt() for layer in layers], y * chance.sqrt()))
    for ours, leaf in zip([*found.deep.weights, found.label_weight], [*leaves[:depth], leaves[-2]], strict=True):
        torch.testing.assert_close(ours, leaf.grad)
    found = multimodal.contrast(data, ([layer * chance for layer in layers], y * chance))
    for ours, leaf in zip([*found.deep.biases, found.label_bias], [*leaves[depth:-2], leaves[-1]], strict=True):
        torch.testing.assert_close(ours, leaf.grad)


def test_fantasies_have_means_where_layers_are_odd():
    joint = tiny(SIZES[0])
    even = torch.rand(50, 6, dtype=torch.float64).round()
    state = multimodal.from_even(joint, even), torch.zeros(50, CLASSES, dtype=torch.float64)
    layers, y = multimodal.expected(joint, state)
    torch.testing.assert_close(y, (layers[2] @ joint.label_weight + joint.label_bias).softmax(1))
    a = layers[0] @ joint.deep.weights[0].T + layers[2] @ joint.deep.weights[1] + joint.deep.biases[1]
    torch.testing.assert_close(layers[1], a.sigmoid())
    assert torch.equal(torch.cat(layers[::2], 1), even)


# the learner

SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)


def bars() -> tuple[Tensor, Tensor]:
    """Bars in 4x4 pixels: rows are one class and columns the other."""
    return images(), torch.tensor([0] * 4 + [1] * 4)


def make(**settings: object) -> Dbm:
    torch.manual_seed(0)
    return deep_boltzmann.build(Config(**{"hidden": (12, 8), "chains": 50, "labels": 2, **settings}), SMALL).train()  # type: ignore[arg-type]


def test_it_learns_to_draw_either_given_the_other():
    learner, (x, label) = make(hidden=(24, 24), gain=300.0, steps=3, iterations=5, initial=0.1), bars()
    for stage in learner.stages():
        with torch.no_grad():
            data = stage.input(x) if stage.input else x
        optimisers, updates = Optimisers([], learner, learning_rate=1e-3), 600 if stage.name == "all layers" else 400
        for number in range(updates):
            optimisers.scale_learning_rate(1 - number / updates)
            optimisers.step(stage.loss({"x": data, "label": label})["reconstruction"])
    learner.eval()
    assert torch.equal(learner.classify(x).argmax(1), label)
    generator = torch.Generator().manual_seed(0)
    found = learner.sample_labels(x.repeat(20, 1, 1, 1), generator, steps=50)
    assert (found == label.repeat(20)).float().mean() > 0.85
    asked = torch.tensor([0, 1]).repeat(50)
    drawn = learner.sample(100, generator, steps=100, label=asked)
    rows, columns = drawn.mean(3).amax(2).flatten(), drawn.mean(2).amax(2).flatten()  # a whole row has mean 1
    assert ((columns > rows).long() == asked).float().mean() > 0.85
    assert learner.sample(5, generator, steps=2).shape == (5, 1, 4, 4)


@pytest.mark.parametrize("hidden", [(5, 4), (5, 4, 3)])
def test_chains_move_in_training_only_and_every_parameter_learns(hidden: tuple[int, ...]):
    learner, (x, label) = make(hidden=hidden, l2=0.1), bars()
    chains, labels = learner.chains.clone(), learner.label_chains.clone()
    learner.eval()
    learner.loss({"x": x, "label": label})
    assert torch.equal(learner.chains, chains)
    assert torch.equal(learner.label_chains, labels)
    learner.train()
    learner.loss({"x": x, "label": label})["reconstruction"].backward()
    assert not torch.equal(learner.chains, chains)
    assert torch.equal(learner.label_chains.sum(1), torch.ones(50))
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in learner.parameters())
    learner.zero_grad()
    learner.stages()[-2].loss({"x": torch.rand(8, hidden[-2]), "label": label})["reconstruction"].backward()
    assert learner.label_weight.grad is not None
    assert learner.weights[0].grad is None or len(hidden) == 1


def test_without_labels_there_are_no_new_parameters():
    assert not any("label" in name for name in make(labels=0).state_dict())
    for action in (lambda one, x: one.classify(x), lambda one, x: one.sample_labels(x)):
        with pytest.raises(UserError, match="--encoder"):
            action(make(labels=0), bars()[0])
    with pytest.raises(UserError, match="--encoder"):
        make(labels=0).sample(2, label=torch.tensor([0, 1]))
    with pytest.raises(UserError, match="labels 6"):
        make().loss({"x": bars()[0], "label": torch.full((8,), 5)})


def test_probing_draws_images_of_each_label():
    learner, (x, label) = make(), bars()
    split = Split(x, label)
    subject = Subject("deep_boltzmann", learner, Dataset("bars", SMALL, split, split, split, classes=("row", "column")))
    subject.encode(("test",))
    assert "clamped" in figures.wanted(subject, 0)
    assert figures.draw("clamped", subject, 0)
    without = Subject("deep_boltzmann", make(labels=0), subject.dataset)
    without.encode(("test",))
    assert "clamped" not in figures.wanted(without, 0)
