"""Restricted Boltzmann machines: energies by enumeration, statistics by hand, chains against exact distributions."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from encoder_cases import SPECS, observations
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import rbm
from saccade.encoders.parts import bits, gibbs, tempering, units
from saccade.encoders.parts.gibbs import Machine
from saccade.encoders.parts.given import with_gradient
from saccade.encoders.parts.likelihood import exact_log_partition, exact_samples, log_likelihood
from saccade.encoders.rbm import Config, Rbm
from saccade.envs.errors import SpecError, UserError
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


# the rule


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


def make(spec: ObservationSpec = BITS, seed: int = 0, **settings: object) -> Rbm:
    torch.manual_seed(seed)
    return rbm.build(Config(**{"hidden": 4, "initial": 0.5, **settings}), spec).train()  # type: ignore[arg-type]


def gradients_of(learner: Rbm, x: Tensor, seed: int = 3) -> dict[str, Tensor]:
    learner.zero_grad()
    torch.manual_seed(seed)
    learner.loss({"x": x})["reconstruction"].backward()
    return {
        name: parameter.grad.clone() for name, parameter in learner.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("steps", [1, 3])
def test_the_losss_gradient_is_model_less_data_statistics(steps: int):
    """As NumPy writes contrastive divergence, from the same draws."""
    learner, x = make(steps=steps), torch.rand(8, 6).round()
    found = gradients_of(learner, x)
    model = learner.machine().to(torch.float32)
    torch.manual_seed(3)
    fantasy = gibbs.walk(model, x, steps).fantasy
    w, _, c = (part.numpy().astype(np.float64) for part in model[:3])
    up = [1 / (1 + np.exp(-(v.numpy() @ w.T + c))) for v in (x, fantasy)]
    v_data, v_model = x.numpy(), fantasy.numpy()
    by_hand = np.zeros((4, 6))
    for n, j, i in np.ndindex(8, 4, 6):
        by_hand[j, i] += (up[1][n, j] * v_model[n, i] - up[0][n, j] * v_data[n, i]) / 8
    np.testing.assert_allclose(found["weight"].numpy(), by_hand, atol=1e-6)
    np.testing.assert_allclose(found["visible_bias"].numpy(), v_model.mean(0) - v_data.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["hidden_bias"].numpy(), up[1].mean(0) - up[0].mean(0), atol=1e-6)


def test_persistent_chains_go_on_where_they_were_in_training_only():
    learner, x = make(method="pcd", chains=7, steps=2), torch.rand(8, 6).round()
    before = learner.chains.clone()
    torch.manual_seed(3)
    expected = gibbs.gibbs(learner.machine().to(torch.float32), before[0], 2)
    found = gradients_of(learner, x)
    assert torch.equal(learner.chains[0], expected)
    v, c = expected.numpy(), learner.hidden_bias.detach().numpy()
    up = 1 / (1 + np.exp(-(v @ learner.weight.detach().numpy().T + c)))
    data = learner.read(x).detach().numpy()
    by_hand = up.T @ v / 7 - data.T @ x.numpy() / 8
    np.testing.assert_allclose(found["weight"].numpy(), by_hand, atol=1e-6)
    learner.eval()
    learner.loss({"x": x})
    assert torch.equal(learner.chains[0], expected)


def test_decay_sparsity_and_momentum_join_the_gradient():
    x = torch.rand(8, 6).round()
    plain = gradients_of(make(), x)
    learner = make(l1=0.3, l2=0.2)
    weight = learner.weight.detach()
    decayed = gradients_of(learner, x)
    torch.testing.assert_close(decayed["weight"], plain["weight"] + 0.2 * weight + 0.3 * weight.sign())
    assert torch.equal(decayed["hidden_bias"], plain["hidden_bias"])
    learner = make(sparsity=2.0, target=0.2)
    sparse = gradients_of(learner, x)
    activity = 0.95 * 0.2 + 0.05 * learner.read(x).detach().mean(0)
    slope = 2.0 * (activity - 0.2)
    torch.testing.assert_close(learner.activity, activity)
    torch.testing.assert_close(sparse["hidden_bias"], plain["hidden_bias"] + slope)
    torch.testing.assert_close(sparse["weight"], plain["weight"] + torch.outer(slope, x.mean(0)))
    learner = make(momentum=0.5)
    assert torch.equal(gradients_of(learner, x)["weight"], plain["weight"])
    torch.testing.assert_close(gradients_of(learner, x)["weight"], 1.5 * plain["weight"])


def test_k_rises_with_progress():
    learner = make(steps=1, last_steps=5)
    assert learner._steps() == 1
    learner.progress.fill_(0.5)
    assert learner._steps() == 3
    learner.progress.fill_(1.0)
    assert learner._steps() == 5


def test_a_given_gradient_is_scaled_by_what_follows():
    w = torch.ones(2, requires_grad=True)
    value = with_gradient(torch.tensor(3.0), [w], [torch.tensor([1.0, 2.0])])
    assert value == 3
    (2 * value).backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2, 4]


# the learner


def patterns() -> Tensor:
    """Bars in 4x4 pixels, rows or columns: 8 of 65,536 images, so a good density gives each nearly 1/8."""
    rows = torch.zeros(4, 4, 4)
    rows[range(4), range(4)] = 1
    return torch.cat([rows, rows.mT]).unsqueeze(1).mul(255).to(torch.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "cd", "steps": 5},
        {"method": "pcd", "chains": 50},
        {"method": "tempering", "chains": 10, "temperatures": 4},
    ],
)
def test_it_learns_a_distribution(settings: dict[str, object]):
    """Exact mean log-likelihood; log 1/8 = -2.1 is the best, fair bits have -11.1."""
    learner, x = make(SMALL, hidden=16, initial=0.01, gain=300.0, **settings), patterns()
    optimisers, updates = Optimisers([], learner, learning_rate=1e-3), 700
    for number in range(updates):
        optimisers.scale_learning_rate(1 - number / updates)
        optimisers.step(learner.loss({"x": x})["reconstruction"])
    model = learner.machine().to(torch.float64)
    v = learner.read_visible(x).double()
    assert log_likelihood(model, v, exact_log_partition(model)).mean() > -3.3


def test_a_learned_deviation_finds_the_datas():
    learner = make(ObservationSpec((3,)), hidden=2, initial=0.01, visible="gaussian", learn_deviation=True, gain=100.0)
    optimisers = Optimisers([], learner, learning_rate=1e-3)
    deviations = torch.tensor([0.3, 1.0, 2.0])
    for _ in range(600):
        optimisers.step(learner.loss({"x": 1.0 + torch.randn(64, 3) * deviations})["reconstruction"])
        learner.after_update()
    assert learner.log_variance is not None
    torch.testing.assert_close((0.5 * learner.log_variance).exp().detach(), deviations, rtol=0.2, atol=0)
    assert (learner.reconstruct(torch.ones(1, 3)) - 1).abs().max() < 0.4


def test_features_are_means_draws_or_inputs():
    x = torch.rand(5, 6)
    inputs = make(features="inputs").read(x)
    means = make().read(x)
    torch.testing.assert_close(inputs.sigmoid(), means)
    learner = make(features="samples")
    draws = torch.stack([learner.read(x) for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), means, rtol=0, atol=0.06)
    learner.read(x).sum().backward()  # the gradient of the means
    assert learner.weight.grad is not None
    assert learner.weight.grad.any()


def test_bytes_become_probabilities_or_bits():
    x = torch.tensor([0, 51, 127, 128, 255], dtype=torch.uint8).view(1, 1, 1, 5).expand(4000, 1, 5, 5)
    spec = ObservationSpec((1, 5, 5), "uint8", 0.0, 255.0)
    torch.testing.assert_close(make(spec).read_visible(x)[0, :5], torch.tensor([0, 51, 127, 128, 255]) / 255)
    assert make(spec, binarise="threshold").read_visible(x)[0, :5].tolist() == [0, 0, 0, 1, 1]
    torch.manual_seed(0)
    drawn = make(spec, binarise="dynamic").read_visible(x)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0)[:5], torch.tensor([0, 51, 127, 128, 255]) / 255, rtol=0, atol=0.03)


def test_the_free_energy_gap_compares_validation_with_training():
    learner = make()
    train, validation = torch.ones(9, 6), torch.zeros(5, 6)
    gap = learner.monitor(train, validation)["free_energy_gap"]
    expected = learner.free_energy(validation)[0] - learner.free_energy(train)[0]
    torch.testing.assert_close(gap, expected.detach())


def test_weights_begin_small():
    torch.manual_seed(0)
    assert 0.009 < rbm.build(Config(), SPECS["image"]).weight.std() < 0.011


def test_samples_come_from_the_density():
    """Two visible units that are nearly always on, one that is nearly always off."""
    learner = make(ObservationSpec((3,), low=0.0, high=1.0), hidden=2, initial=0.01)
    with torch.no_grad():
        learner.visible_bias.copy_(torch.tensor([4.0, 4.0, -4.0]))
    drawn = learner.sample(50, torch.Generator().manual_seed(0), steps=5)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([4.0, 4.0, -4.0]).sigmoid(), rtol=0, atol=0.02)


@pytest.mark.parametrize("settings", [{"visible": "poisson"}, {"visible": "softmax"}, {"hidden_units": "relu"}])
def test_counts_and_rectified_units_learn(settings: dict[str, object]):
    spec = ObservationSpec((6,), low=0.0)
    rates = torch.tensor([[4.0, 4, 4, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 4, 4, 4]])
    torch.manual_seed(1)
    x = torch.poisson(rates.repeat(100, 1))
    learner = make(spec, hidden=6, initial=0.01, gain=10.0, **settings)
    optimisers = Optimisers([], learner, learning_rate=1e-3)
    before = (learner.reconstruct(x) - x).square().sum(1).mean()
    for _ in range(500):
        optimisers.step(learner.loss({"x": x})["reconstruction"])
    after = (learner.reconstruct(x) - x).square().sum(1).mean()
    assert after < 0.6 * before


def refusals() -> list[tuple[Callable[[], object], type[Exception], str]]:
    def built(spec: ObservationSpec = BITS, **settings: object) -> Callable[[], object]:
        return lambda: rbm.build(Config(**settings), spec)  # type: ignore[arg-type]

    return [
        (built(SPECS["tokens"]), SpecError, "tokens"),
        (built(SPECS["vector"], visible="bernoulli"), SpecError, "bounded"),
        (built(SPECS["vector"], binarise="dynamic"), SpecError, "bits"),
        (built(visible="binary"), UserError, "unknown visible"),
        (built(method="CD"), UserError, "unknown method"),
        (built(features="all"), UserError, "unknown features"),
        (built(visible="softmax", method="pcd"), UserError, "method cd"),
        (built(hidden=0), UserError, "hidden"),
        (built(l2=-1.0), UserError, "l2"),
        (built(momentum=1.0), UserError, "momentum"),
        (built(gain=0.0), UserError, "gain"),
    ]


@pytest.mark.parametrize(("action", "error", "word"), refusals())
def test_what_makes_no_sense_is_refused(action: Callable[[], object], error: type[Exception], word: str):
    with pytest.raises(error, match=word):
        action()


def test_an_empty_batch_is_no_error():
    learner = make()
    loss = learner.auxiliary_losses(empty(), None)["reconstruction"]
    assert loss == 0
    loss.backward()


def empty():
    from saccade.encoders.base import Trajectory

    obs = observations(BITS, 3, 2)
    zeros = torch.zeros(2, 2)
    return Trajectory(obs, zeros.long(), zeros, zeros, torch.zeros(3, 2).bool(), torch.zeros(2, 2).bool())
