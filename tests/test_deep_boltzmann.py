"""The deep Boltzmann machine: folding, mean field, the bound and every gradient against sums over all states."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from bars import bars
from encoder_cases import SPECS
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import deep_boltzmann
from saccade.encoders.deep_boltzmann import Config, Dbm
from saccade.encoders.parts import deep as deeps
from saccade.encoders.parts import gibbs
from saccade.encoders.parts.deep import Deep
from saccade.encoders.parts.likelihood import exact_log_partition, log_likelihood
from saccade.encoders.parts.units import UNITS
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.probing.chain_figures import machine_weights
from torch import Tensor

SIZES = [(4, 3, 2), (3, 2, 3, 2), (2, 3, 2, 2, 2)]
every_depth = pytest.mark.parametrize("sizes", SIZES, ids=str)


def tiny(sizes: tuple[int, ...], seed: int = 0, scale: float = 0.7) -> Deep:
    generator = torch.Generator().manual_seed(seed)
    weights = [
        scale * torch.randn(b, a, generator=generator, dtype=torch.float64) for a, b in itertools.pairwise(sizes)
    ]
    biases = [0.5 * torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return Deep(tuple(weights), tuple(biases))


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def log_weights(deep: Deep) -> tuple[list[Tensor], Tensor]:
    """All states of all layers, and minus their energy by its definition."""
    every = states(sum(deep.sizes))
    layers = list(every.split(list(deep.sizes), 1))
    total = sum(((layer @ bias) for layer, bias in zip(layers, deep.biases, strict=True)), torch.zeros(len(every)))
    for number, weight in enumerate(deep.weights):
        total = total + ((layers[number] @ weight.T) * layers[number + 1]).sum(1)
    return layers, total


@every_depth
def test_the_folded_machine_has_the_same_energies_and_partition(sizes: tuple[int, ...]):
    deep = tiny(sizes)
    layers, expected = log_weights(deep)
    machine = deeps.folded(deep)
    even, odd = deeps.fold(layers)
    torch.testing.assert_close(-gibbs.energy(machine, even, odd), expected)
    assert exact_log_partition(machine) == pytest.approx(float(expected.logsumexp(0)), abs=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(deeps.unfold(even, odd, sizes), layers, strict=True))
    for ours, theirs in zip(deeps.split_weight(machine.weight, sizes), deep.weights, strict=True):
        assert torch.equal(ours, theirs)


@every_depth
def test_the_bound_is_below_log_p_and_rises_with_every_round(sizes: tuple[int, ...]):
    deep = tiny(sizes)
    layers, weights = log_weights(deep)
    v = states(sizes[0])
    of_v = [weights[(layers[0] == row).all(1)].logsumexp(0) for row in v]
    exact = torch.stack(of_v)  # log p(v) + log Z
    bounds = [deeps.bound(deep, v, deeps.mean_field(deep, v, rounds)) for rounds in (0, 1, 2, 5, 50)]
    for before, after in itertools.pairwise(bounds):
        assert (after >= before - 1e-12).all()
    assert (bounds[-1] < exact).all()
    assert (exact - bounds[-1]).max() < 0.5
    found = deeps.mean_field(deep, v, 200)  # a fixed point of equation 5
    whole = [v, *found, None]
    for number in range(1, len(sizes)):
        below, above = whole[number - 1], whole[number + 1]
        assert below is not None
        a = below @ deep.weights[number - 1].T + deep.biases[number]
        a = a if above is None else a + above @ deep.weights[number]
        torch.testing.assert_close(found[number - 1], a.sigmoid())


def test_the_bound_is_the_mean_energy_and_entropy_of_independent_units():
    deep, sizes = tiny(SIZES[1]), SIZES[1]
    layers, weights = log_weights(deep)
    v = torch.tensor([[1.0, 0, 1]], dtype=torch.float64)
    means = [torch.rand(1, size, dtype=torch.float64) for size in sizes[1:]]
    rows = (layers[0] == v).all(1)
    q = torch.ones(int(rows.sum()), dtype=torch.float64)
    for mean, layer in zip(means, layers[1:], strict=True):
        q = q * (mean * layer[rows] + (1 - mean) * (1 - layer[rows])).prod(1)
    torch.testing.assert_close(deeps.bound(deep, v, means), (q * (weights[rows] - q.log())).sum().view(1))


@every_depth
def test_a_centred_step_is_the_step_of_the_machine_whose_units_are_centred(sizes: tuple[int, ...]):
    """Of any function of the parameters: by autograd through those of the centred machine, which are carried back."""
    deep, generator = tiny(sizes), torch.Generator().manual_seed(1)
    offsets = [torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes]
    v = torch.rand(3, sizes[0], generator=generator, dtype=torch.float64)

    def plain(weights: Sequence[Tensor], centred_biases: Sequence[Tensor]) -> Deep:
        biases = list(centred_biases)
        for number, weight in enumerate(weights):
            biases[number] = biases[number] - offsets[number + 1] @ weight
            biases[number + 1] = biases[number + 1] - weight @ offsets[number]
        return Deep(tuple(weights), tuple(biases))

    def value(machine: Deep) -> Tensor:
        return deeps.bound(machine, v, deeps.mean_field(machine, v, 3)).sum()

    leaves = [part.clone().requires_grad_() for part in (*deep.weights, *deep.biases)]
    value(Deep(tuple(leaves[: len(deep.weights)]), tuple(leaves[len(deep.weights) :]))).backward()
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    found = deeps.centred(Deep(tuple(grads[: len(deep.weights)]), tuple(grads[len(deep.weights) :])), offsets)

    zeros = [torch.zeros_like(weight) for weight in deep.weights]
    shift = plain(deep.weights, [torch.zeros_like(bias) for bias in deep.biases]).biases
    start = [*deep.weights, *(bias - moved for bias, moved in zip(deep.biases, shift, strict=True))]
    leaves = [part.clone().requires_grad_() for part in start]
    value(plain(leaves[: len(zeros)], leaves[len(zeros) :])).backward()
    steps = [leaf.grad for leaf in leaves if leaf.grad is not None]
    expected = plain(steps[: len(zeros)], steps[len(zeros) :])
    for ours, theirs in zip((*found.weights, *found.biases), (*expected.weights, *expected.biases), strict=True):
        torch.testing.assert_close(ours, theirs)


# the learner

BITS = ObservationSpec((5,), low=0.0, high=1.0)
SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)


def make(spec: ObservationSpec = BITS, seed: int = 0, **settings: object) -> Dbm:
    """In float64, with parameters that are all away from 0."""
    torch.manual_seed(seed)
    learner = deep_boltzmann.build(Config(**{"hidden": (4, 3), "chains": 6, **settings}), spec).train()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(torch.randn_like(parameter))
    learner.double()
    learner.scale.float()
    return learner


def numpied(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("hidden", [(4, 3), (4, 3, 2)])
def test_the_gradient_is_chains_less_mean_field_statistics(hidden: tuple[int, ...]):
    """By loops over the examples and the chains, layer by layer."""
    learner = make(hidden=hidden, l2=0.1, centred=False)
    x = torch.rand(7, 5).round().double()
    learner.scale.double()
    torch.manual_seed(3)
    learner.loss({"x": x})["reconstruction"].backward()
    sizes = (5, *hidden)
    chains = learner.chains
    odd = gibbs.hidden_mean(deeps.folded(learner.deep()), chains)
    model = [numpied(layer) for layer in deeps.unfold(chains, odd, sizes)]
    data = [numpied(x), *[numpied(mean) for mean in learner.means(x)]]
    for number in range(len(hidden)):
        expected = np.zeros((sizes[number + 1], sizes[number]))
        for sign, layers in ((1, model), (-1, data)):
            for below, above in zip(layers[number], layers[number + 1], strict=True):
                expected += sign * np.outer(above, below) / len(layers[0])
        weight = learner.weights[number]
        assert weight.grad is not None
        np.testing.assert_allclose(numpied(weight.grad), expected + 0.1 * numpied(weight), atol=1e-12)
    for number, bias in enumerate(learner.biases):
        np.testing.assert_allclose(numpied(bias.grad), model[number].mean(0) - data[number].mean(0), atol=1e-12)


def test_chains_move_in_training_only_and_by_gibbs_steps():
    learner = make(steps=3)
    learner.chains_began.fill_(True)
    before, x = learner.chains.clone(), torch.rand(7, 5).round().double()
    torch.manual_seed(3)
    expected = gibbs.gibbs(deeps.folded(learner.deep()), before, 3)
    learner.scale.double()
    torch.manual_seed(3)
    learner.loss({"x": x})
    assert torch.equal(learner.chains, expected)
    learner.eval()
    learner.loss({"x": x})
    assert torch.equal(learner.chains, expected)


@pytest.mark.parametrize("labels", [0, 2])
def test_gradients_are_centred_by_means_given_data(labels: int):
    x, label = torch.rand(7, 5).round().double(), torch.arange(7) % 2
    grads, offsets = [], []
    for centred in (False, True):
        learner = make(labels=labels, centred=centred)
        learner.scale.double()
        torch.manual_seed(3)
        learner.loss({"x": x, "label": label})["reconstruction"].backward()
        grads.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
        offsets.append(learner.offsets)
        sizes = [5, 4, 3, *([labels] if labels else [])]
        assert torch.equal(learner.offsets[:5], x.mean(0))
        torch.testing.assert_close(learner.offsets[5:9], learner.eval()._settled(x, {"label": label})[0][1].mean(0))
    weights = [grads[0][f"weights.{number}"] for number in range(2)]
    biases = [grads[0][f"biases.{number}"] for number in range(3)]
    if labels:
        weights, biases = [*weights, grads[0]["label_weight"].T], [*biases, grads[0]["label_bias"]]
    expected = deeps.centred(Deep(tuple(weights), tuple(biases)), offsets[1].split(sizes))
    names = ["weights.0", "weights.1", "biases.0", "biases.1", "biases.2"]
    for name, theirs in zip(names, [*expected.weights[:2], *expected.biases[:3]], strict=True):
        torch.testing.assert_close(grads[1][name], theirs)
    if labels:
        torch.testing.assert_close(grads[1]["label_weight"], expected.weights[2].T)
        torch.testing.assert_close(grads[1]["label_bias"], expected.biases[3])
    learner.train()
    before = learner.offsets.clone()
    learner.loss({"x": torch.zeros(4, 5).double(), "label": label[:4]})
    torch.testing.assert_close(learner.offsets[:5], 0.99 * before[:5])


@pytest.mark.parametrize("labels", [0, 2])
def test_chains_begin_at_data(labels: int):
    """A machine that keeps either of two patterns for ever, of which the data have one."""
    learner = make(chains=20, labels=labels)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.fill_(-20.0 * (parameter.dim() == 1))  # units of a pattern, or none of them
        for number, weight in enumerate(learner.weights):
            weight.fill_(20.0 if number else 10.0)
        learner.chains.zero_()
    learner.scale.double()
    x = torch.ones(7, 5).double()
    learner.eval()
    learner.loss({"x": x})
    assert not learner.chains_began
    assert not learner.chains.any()
    learner.train()
    learner.loss({"x": x, "label": torch.ones(7, dtype=torch.int64)})
    assert learner.chains_began
    assert learner.chains.all()
    learner.loss({"x": torch.zeros_like(x)})
    assert learner.chains.all()


@pytest.mark.parametrize(("layer", "up", "down"), [(1, 2, 1), (2, 2, 2), (3, 1, 2)])
def test_a_greedy_layer_counts_twice_what_will_have_two_neighbours(layer: int, up: int, down: int):
    learner = make(hidden=(4, 3, 2))
    learner.scale.double()
    v = torch.rand(7, (5, 4, 3)[layer - 1]).double()
    torch.manual_seed(3)
    learner.layer_loss({"x": v}, layer)["reconstruction"].backward()
    w, b, c = learner.weights[layer - 1], learner.biases[layer - 1], learner.biases[layer]
    torch.manual_seed(3)
    h = UNITS["bernoulli"].mean_and_sample(up * (v @ w.T) + c)
    fantasy = UNITS["bernoulli"].mean_and_sample(down * (h[1] @ w) + b)[1]
    after = (up * (fantasy @ w.T) + c).sigmoid()
    torch.testing.assert_close(w.grad, ((after.T @ fantasy - h[0].T @ v) / 7).detach())
    torch.testing.assert_close(b.grad, (fantasy - v).mean(0).detach())
    torch.testing.assert_close(c.grad, (after - h[0]).mean(0).detach())


def test_it_learns_a_distribution():
    """Exact mean log-likelihood, by the folded machine; log 1/8 = -2.1 is the best, fair bits have -11.1."""
    torch.manual_seed(0)
    learner, x = deep_boltzmann.build(Config(hidden=(12, 4), chains=50, gain=200.0), SMALL).train(), bars()
    for stage in learner.stages():
        with torch.no_grad():
            data = stage.input(x) if stage.input else x
        optimisers, updates = Optimisers([], learner, learning_rate=1e-3), 700 if stage.name == "all layers" else 100
        for number in range(updates):
            optimisers.scale_learning_rate(1 - number / updates)
            optimisers.step(stage.loss({"x": data})["reconstruction"])
    machine = deeps.folded(Deep(tuple(learner.weights), tuple(learner.biases))).to(torch.float64)
    log_z = exact_log_partition(machine)
    v, above = x.flatten(1).double() / 255, states(4)
    joint = torch.stack([log_likelihood(machine, torch.cat([v, h.expand(8, -1)], 1), log_z) for h in above])
    exact = joint.logsumexp(0)  # the sum over the highest layer
    assert exact.mean() > -5.3
    bound = learner.bound(x).double() - log_z
    assert (bound <= exact + 1e-4).all()
    assert (bound > exact - 1.5).all()


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = BITS, **settings: object) -> Callable[[], object]:
        return lambda: deep_boltzmann.build(Config(**settings), spec)  # type: ignore[arg-type]

    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"]), SpecError, "bounded"),
        (built(hidden=(5,)), UserError, "rbm"),
        (built(features="some"), UserError, "unknown features"),
        (built(chains=0), UserError, "chains"),
        (built(l2=-1.0), UserError, "l2"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()


def test_probing_draws_the_weights_of_every_layer():
    assert {name: tuple(w.shape) for name, w in machine_weights(make()).items()} == {
        "weights.0": (4, 5),
        "weights.1": (3, 4),
    }
