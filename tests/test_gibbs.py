"""Units, energies and chains of Boltzmann machines: against sums over all states, and exact distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from saccade.encoders.parts import bits, gibbs, tempering, units
from saccade.encoders.parts.gibbs import Machine
from saccade.encoders.parts.likelihood import exact_samples
from saccade.envs.spec import ObservationSpec
from scipy.special import spence
from scipy.stats import norm
from torch import Tensor

BITS = ObservationSpec((6,), low=0.0, high=1.0)
SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def machine(hidden: int = 4, visible: int = 5, kind: str = "bernoulli", above: str = "bernoulli", seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((hidden, visible), (visible,), (hidden,))
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    variance = 0.5 * torch.randn(visible, generator=generator, dtype=torch.float64) if kind == "gaussian" else None
    return Machine(*parts, kind, above, variance)  # type: ignore[arg-type]


def values(kind: str, count: int, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if kind == "gaussian":
        return torch.randn(count, width, generator=generator, dtype=torch.float64)
    high = 2 if kind == "bernoulli" else 4
    return torch.randint(high, (count, width), generator=generator).double()


# units


@pytest.mark.parametrize("kind", list(units.UNITS))
def test_a_units_mean_is_the_slope_of_its_log_partition(kind: str):
    a = torch.linspace(-4, 4, 17, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(units.UNITS[kind].log_partition(a).sum(), a)
    torch.testing.assert_close(slope, units.UNITS[kind].mean(a.detach()))


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "poisson"])
def test_draws_have_the_mean_and_spread_of_the_kind(kind: str):
    a = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)
    mean, drawn = units.UNITS[kind].mean_and_sample(a.expand(40_000, 3), torch.Generator().manual_seed(0))
    mean = mean[0]
    torch.testing.assert_close(mean, units.UNITS[kind].mean(a))
    variance = {"bernoulli": mean * (1 - mean), "gaussian": torch.ones(3), "poisson": mean}[kind]
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.var(0), variance.double(), rtol=0.05, atol=0.01)


def test_rectified_draws_are_normal_and_cut():
    a = torch.tensor([-1.5, 0.0, 6.0], dtype=torch.float64)
    drawn = units.UNITS["relu"].sample(a.expand(40_000, 3), torch.Generator().manual_seed(0))
    middle, deviation = a.numpy(), a.sigmoid().sqrt().numpy()
    expected = middle * norm.cdf(middle / deviation) + deviation * norm.pdf(middle / deviation)
    np.testing.assert_allclose(drawn.mean(0).numpy(), expected, atol=0.02)
    assert drawn.min() == 0
    assert abs(drawn[:, 2].mean() - units.UNITS["relu"].mean(a)[2]) < 0.03  # what it stands for, where it is large


def test_the_log_partition_of_rectified_units_is_the_dilogarithm():
    a = torch.linspace(-20, 20, 81, dtype=torch.float64)
    expected = torch.from_numpy(-spence(1 + np.exp(a.numpy())))
    torch.testing.assert_close(units.rectified_log_partition(a), expected, rtol=0, atol=1e-9)
    # and nearly the bits that it stands for
    bits = torch.nn.functional.softplus(a[20:61, None] - torch.arange(200) + 0.5 - 1).sum(1)
    torch.testing.assert_close(units.rectified_log_partition(a[20:61]), bits, rtol=0.01, atol=0.02)


def test_words_are_as_many_as_asked_and_follow_the_softmax():
    a, totals = torch.tensor([0.0, 1.0, -1.0]).expand(3000, 3), torch.arange(3000) % 4
    counts = units.sample_words(a, totals, torch.Generator().manual_seed(0))
    assert torch.equal(counts.sum(1), totals.float())
    torch.testing.assert_close(counts.sum(0) / totals.sum(), a[0].softmax(0), rtol=0, atol=0.03)


def test_compiled_bits_have_the_means_and_follow_the_seed():
    a = torch.linspace(-5, 5, 5000).repeat(20)
    mean, drawn = bits.mean_and_bits(a, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean, a.sigmoid(), rtol=1e-6, atol=1e-7)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    errors = (drawn - mean).view(200, 500).mean(1) / (mean * (1 - mean)).view(200, 500).mean(1).sqrt() * 500**0.5
    assert errors.abs().max() < 4.5
    assert 0.8 < errors.std() < 1.2
    again, other = (bits.mean_and_bits(a, torch.Generator().manual_seed(seed))[1] for seed in (0, 1))
    assert torch.equal(again, drawn)
    assert 0.25 < (other != drawn).float().mean() / (2 * mean * (1 - mean)).mean() / 1 < 1.25
    edges = bits.mean_and_bits(torch.tensor([-1e30, 1e30, float("nan")]).repeat(1000))
    assert edges[1].view(1000, 3)[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert edges[0].view(1000, 3)[:, 2].isnan().all()


def test_compiled_bits_are_philoxs():
    """Against Philox4x32-7 written out in Python integers."""
    if bits._library() is None:
        pytest.skip("no compiler")
    count = 4 * 600 - 1
    a = torch.linspace(-2, 2, count)
    key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=torch.Generator().manual_seed(9)))
    mean, drawn = bits.mean_and_bits(a, torch.Generator().manual_seed(9))
    for place in (0, 1, 17, 599):
        for quarter, draw in enumerate(philox(place, key % 2**64)):
            index = quarter * 600 + place
            if index < count:
                assert drawn[index] == float((draw >> 8) / 2**24 < mean[index])


def philox(place: int, key: int) -> list[int]:
    c, k = [place, 0, 0, 0], [key % 2**32, key >> 32]
    for _ in range(7):
        p = (0xD2511F53 * c[0], 0xCD9E8D57 * c[2])
        c = [(p[1] >> 32) ^ c[1] ^ k[0], p[1] % 2**32, (p[0] >> 32) ^ c[3] ^ k[1], p[0] % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


# energies


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "poisson", "softmax"])
def test_free_energy_sums_over_all_hidden_states(kind: str):
    model, v = machine(kind=kind), values(kind, 6)
    h = states(4)
    energies = torch.stack([gibbs.energy(model, row.expand(len(h), 5), h) for row in v])
    torch.testing.assert_close(gibbs.free_energy(model, v), -(-energies).logsumexp(1))


def test_the_energy_is_the_sum_by_hand():
    model, v, h = machine(), values("bernoulli", 3), states(4)[[3, 9, 14]]
    w, b, c = (part.numpy() for part in model[:3])
    by_hand = [
        -sum(b[i] * x[i] for i in range(5))
        - sum(c[j] * y[j] for j in range(4))
        - sum(y[j] * w[j, i] * x[i] for i in range(5) for j in range(4))
        for x, y in zip(v.numpy(), h.numpy(), strict=True)
    ]
    np.testing.assert_allclose(gibbs.energy(model, v, h).numpy(), by_hand)


def test_both_ways_of_summing_out_agree():
    model = machine()
    by_visible = (-gibbs.free_energy(model, states(5))).logsumexp(0)
    by_hidden = (-gibbs.hidden_free_energy(model, states(4))).logsumexp(0)
    torch.testing.assert_close(by_visible, by_hidden)


def test_gaussian_and_count_units_integrate_to_their_closed_form():
    """One visible unit, numerically over a fine grid, or over all counts that matter."""
    for kind, grid, width in (
        ("gaussian", torch.linspace(-30, 30, 60_001, dtype=torch.float64), 1e-3),
        ("poisson", torch.arange(120, dtype=torch.float64), 1.0),
    ):
        model = machine(3, 1, kind)
        total = (-gibbs.free_energy(model, grid.unsqueeze(1))).logsumexp(0) + np.log(width)
        expected = (-gibbs.hidden_free_energy(model, states(3))).logsumexp(0)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


def test_texts_of_a_length_sum_to_their_closed_form():
    model, total = machine(3, 4, "softmax"), 3
    counts = [c for c in itertools.product(range(total + 1), repeat=4) if sum(c) == total]
    found = (-gibbs.free_energy(model, torch.tensor(counts, dtype=torch.float64))).logsumexp(0)
    expected = (-gibbs.hidden_free_energy(model, states(3), total)).logsumexp(0)
    torch.testing.assert_close(found, expected)


# chains


@pytest.mark.parametrize("seed", [0, 1])
def test_gibbs_steps_leave_the_machines_distribution_alone(seed: int):
    model, count = machine(3, 4, seed=seed), 40_000
    generator = torch.Generator().manual_seed(seed)
    v = gibbs.gibbs(model, exact_samples(model, count, generator), 2, generator)
    assert_frequencies(v, exact_probabilities(model))


def test_a_long_walk_forgets_the_data_and_a_walk_is_one_chain():
    """A chain that began anew at every step would stay where one step leads."""
    model = machine(3, 4)
    v = torch.tensor([[1.0, 0, 1, 0]], dtype=torch.float64).expand(40_000, 4)
    torch.manual_seed(0)
    fantasy = gibbs.walk(model, v, steps=40).fantasy
    assert_frequencies(fantasy, exact_probabilities(model))
    exact = transition(model)
    torch.manual_seed(0)
    for steps in (1, 2):
        fantasy = gibbs.walk(model, v, steps=steps).fantasy
        assert_frequencies(fantasy, torch.linalg.matrix_power(exact, steps)[0b1010])


def test_exchanges_leave_all_temperatures_alone():
    model, count = machine(3, 4), 20_000
    path = tempering.Path(model, tempering.no_rates(model))
    betas = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    scaled = [
        model._replace(**dict(zip(Machine._fields[:3], (b * part for part in model[:3]), strict=True))) for b in betas
    ]
    chains = torch.stack([exact_samples(one, count, generator) for one in scaled])
    moved = chains
    for _ in range(4):
        moved = tempering.tempered_step(path, moved, betas, generator)
    for one, v in zip(scaled, moved, strict=True):
        assert_frequencies(v, exact_probabilities(one))
    exchanged = tempering.exchange(path, chains, betas, generator)
    assert not torch.equal(exchanged, chains)
    assert torch.equal(exchanged.sum(0), chains.sum(0))  # nobody is lost


def exact_probabilities(model: Machine) -> Tensor:
    return (-gibbs.free_energy(model, states(model.weight.shape[1]))).softmax(0)


def transition(model: Machine) -> Tensor:
    """The exact matrix of one Gibbs step over all visible states."""
    v, h = states(model.weight.shape[1]), states(model.weight.shape[0])
    up, down = gibbs.hidden_mean(model, v), gibbs.visible_mean(model, h)

    def probability(mean: Tensor, state: Tensor) -> Tensor:
        return torch.where(state > 0, mean.unsqueeze(1), 1 - mean.unsqueeze(1)).prod(2)

    return probability(up, h) @ probability(down, v)


def assert_frequencies(v: Tensor, expected: Tensor) -> None:
    """Within five standard errors in every state."""
    places = 2 ** torch.arange(v.shape[1] - 1, -1, -1).double()
    found = torch.bincount((v @ places).long(), minlength=len(expected)) / len(v)
    assert ((found - expected).abs() < 5 * (expected / len(v)).sqrt() + 1e-4).all()


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "poisson", "softmax"])
@pytest.mark.parametrize("above", ["bernoulli", "gaussian", "relu"])
def test_contrast_is_the_gradient_of_the_free_energies(kind: str, above: str):
    model = machine(kind=kind, above=above)
    parameters = [
        part.clone().requires_grad_() for part in (*model[:3], *([model.log_variance] * (kind == "gaussian")))
    ]
    with_gradients = Machine(*parameters[:3], kind, above, *parameters[3:])  # type: ignore[arg-type]
    v, fantasy = values(kind, 7), values(kind, 12)[7:]
    difference = gibbs.free_energy(with_gradients, v).mean() - gibbs.free_energy(with_gradients, fantasy).mean()
    difference.backward()
    found = gibbs.contrast(model, (v, gibbs.hidden_mean(model, v)), (fantasy, gibbs.hidden_mean(model, fantasy)))
    for parameter, gradient in zip(parameters, found, strict=False):
        torch.testing.assert_close(gradient, parameter.grad)
