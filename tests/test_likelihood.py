"""log Z and likelihoods of Boltzmann machines, against sums over all states in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from saccade.encoders.parts import gibbs, likelihood
from saccade.encoders.parts.gibbs import Machine
from saccade.encoders.parts.tempering import Path, base_rates
from saccade.envs.errors import UserError
from torch import Tensor


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)), dtype=torch.float64)


def machine(above: int, below: int, seed: int, scale: float = 0.5, **kinds: str) -> Machine:
    """With `above` hidden and `below` visible units."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (((above, below), scale), ((below,), 1.0), ((above,), 1.0))
    parts = [size * torch.randn(shape, generator=generator, dtype=torch.float64) for shape, size in sizes]
    return Machine(*parts, **kinds)  # type: ignore[arg-type]


def path_of(model: Machine, seed: int = 0) -> Path:
    """With base rates from 200 samples of the model."""
    return Path(model, base_rates(model, likelihood.exact_samples(model, 200, torch.Generator().manual_seed(seed))))


def test_enumeration_is_the_sum_over_both_layers():
    model = machine(3, 4, seed=0)
    total = 0.0
    for v, h in itertools.product(itertools.product([0, 1], repeat=4), itertools.product([0, 1], repeat=3)):
        x, y = np.array(v, np.float64), np.array(h, np.float64)
        w, b, c = (part.numpy() for part in model[:3])
        total += math.exp(b @ x + c @ y + y @ w @ x)
    assert likelihood.exact_log_partition(model) == pytest.approx(math.log(total), abs=1e-12)
    assert likelihood.exact_log_partition(model, block=3) == pytest.approx(math.log(total), abs=1e-12)
    turned = Machine(model.weight.T, model.hidden_bias, model.visible_bias)  # the other layer is enumerated
    assert likelihood.exact_log_partition(turned) == pytest.approx(math.log(total), abs=1e-12)


def test_exact_samples_are_as_frequent_as_their_probability():
    for hidden in (3, 6):  # either layer
        model = machine(hidden, 4, seed=1)
        v = likelihood.exact_samples(model, 20_000, torch.Generator().manual_seed(0))
        expected = (-gibbs.free_energy(model, states(4))).softmax(0)
        found = torch.bincount((v @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16) / len(v)
        assert ((found - expected).abs() < 5 * (expected / len(v)).sqrt()).all()


def test_likelihoods_of_all_states_sum_to_one():
    model = machine(5, 4, seed=2)
    found = likelihood.log_likelihood(model, states(4), likelihood.exact_log_partition(model), rows=5)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_pseudo_likelihoods_have_the_mean_of_all_conditionals():
    """Every value is V log p(v_i | the others) of some i, by the probabilities of all states; all i are drawn alike."""
    model = machine(5, 4, seed=3)
    x = states(4)[5]
    probability = (-gibbs.free_energy(model, states(4))).softmax(0)
    conditional = []
    for place, value in enumerate((8, 4, 2, 1)):
        flipped = 5 - value if x[place] else 5 + value
        conditional.append(4 * math.log(probability[5] / (probability[5] + probability[flipped])))
    found = likelihood.pseudo_log_likelihood(model, x.expand(8000, -1), torch.Generator().manual_seed(0), rows=3000)
    counts = [int((found - value).abs().lt(1e-9).sum()) for value in conditional]
    assert sum(counts) == 8000
    assert all(abs(count - 2000) < 200 for count in counts)  # five standard deviations


def test_annealing_meets_ten_random_machines():
    """Within 0.1 nat each, and every interval of three standard errors holds the truth."""
    for seed in range(10):
        model = machine(11 + seed, 8 + seed % 4, seed, scale=0.3 + 0.05 * seed)
        exact = likelihood.exact_log_partition(model)
        path, generator = path_of(model), torch.Generator().manual_seed(seed)
        found = likelihood.annealed_log_partition(path, likelihood.temperatures(300), 60, generator=generator)
        assert abs(found.value - exact) < 0.1, seed
        assert found.low <= exact <= found.high, seed
        assert found.high - found.low < 0.5, seed
        assert found.seconds > 0


def test_the_walk_backwards_meets_them_from_the_other_side():
    for seed in range(3):
        model = machine(14, 9, seed, scale=0.6)
        exact = likelihood.exact_log_partition(model)
        path, generator = path_of(model), torch.Generator().manual_seed(seed)
        samples = likelihood.exact_samples(model, 60, generator)
        found = likelihood.reverse_log_partition(path, samples, likelihood.temperatures(300), generator)
        assert abs(found.value - exact) < 0.1
        assert found.low <= exact <= found.high


def test_hurried_walks_err_to_their_own_sides():
    """Means of single chains' log weights: below forwards, above backwards (Jensen), by more with fewer steps."""
    model = machine(12, 8, seed=3, scale=1.0)
    exact, path = likelihood.exact_log_partition(model), path_of(model)
    generator, gaps = torch.Generator().manual_seed(0), []
    for steps in (4, 60):
        betas = likelihood.temperatures(steps)
        below = path.start_log_partition() + likelihood.annealed_weights(path, betas, 4000, generator=generator).mean()
        samples = likelihood.exact_samples(model, 4000, generator)
        above = path.start_log_partition() - likelihood.reverse_weights(path, samples, betas, generator).mean()
        assert below < exact < above
        gaps.append(float(above - below))
    assert gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize(
    ("kinds", "total"),
    [
        ({}, None),
        ({"hidden": "gaussian"}, None),
        ({"visible": "gaussian"}, None),
        ({"visible": "poisson"}, None),
        ({"visible": "softmax"}, 4),
    ],
)
def test_weights_are_unbiased_however_few_the_steps(kinds: dict[str, str], total: int | None):
    """The mean weight of 20,000 walks of 8 steps is Z, for every kind of units."""
    model = machine(4, 5, seed=4, scale=0.2, **kinds)
    if kinds.get("visible") == "gaussian":
        model = model._replace(log_variance=torch.linspace(-1, 1, 5, dtype=torch.float64))
    if kinds.get("visible") == "poisson":
        model = model._replace(weight=0.5 * model.weight)  # counts grow exponentially, and so does the weights' spread
    exact = likelihood.exact_log_partition(model, total)
    path = Path(model, 0.8 * model.visible_bias)
    found = likelihood.annealed_log_partition(
        path, likelihood.temperatures(8), 20_000, total, torch.Generator().manual_seed(0)
    )
    assert found.standard_error < 0.02
    assert abs(found.value - exact) < 4 * found.standard_error
    assert found.low <= exact <= found.high


def test_texts_of_one_length_at_a_time():
    """Exact samples of a machine of words, and a refusal where their log Z would not be that of all."""
    model = machine(4, 3, seed=4, scale=0.5, visible="softmax")
    texts = likelihood.exact_samples(model, 20_000, torch.Generator().manual_seed(0), total=2)
    kinds = torch.tensor([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.float64)
    log_z = likelihood.exact_log_partition(model, 2)
    expected = likelihood.log_likelihood(model, kinds, log_z).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-9)
    found = torch.stack([(texts == kind).all(1).double().mean() for kind in kinds])
    assert ((found - expected).abs() < 5 * (expected / len(texts)).sqrt()).all()
    longer = torch.cat([kinds, 2 * kinds[:1]])
    path, betas = Path(model, 0.8 * model.visible_bias), likelihood.temperatures(8)
    with pytest.raises(UserError, match="unequal length"):
        likelihood.log_likelihood(model, longer, log_z)
    with pytest.raises(UserError, match="unequal length"):
        likelihood.reverse_log_likelihood(path, longer, betas)
    with pytest.raises(UserError, match="unequal length"):
        likelihood.reverse_log_partition(path, longer, betas)


def test_reverse_likelihoods_are_near_and_not_above():
    model = machine(10, 8, seed=5, scale=0.8)
    path, generator = path_of(model), torch.Generator().manual_seed(0)
    x = likelihood.exact_samples(model, 40, generator)
    exact = likelihood.log_likelihood(model, x, likelihood.exact_log_partition(model))
    found = likelihood.reverse_log_likelihood(path, x, likelihood.temperatures(300), 10, generator)
    assert abs((found - exact).mean()) < 0.1
    hurried = likelihood.reverse_log_likelihood(path, x, likelihood.temperatures(5), 1, generator)
    assert hurried.mean() < exact.mean()


def test_intervals_are_three_standard_errors_of_the_weights():
    weights = torch.tensor([0.0, 0.2, -0.1, 0.4], dtype=torch.float64)
    w = np.exp(weights.numpy())
    error = w.std(ddof=1) / 2
    up = likelihood._estimate(weights, 5.0, 1, 0.0)
    assert up.value == pytest.approx(5 + np.log(w.mean()))
    assert (up.low, up.high) == pytest.approx(tuple(5 + np.log(w.mean() + part * error) for part in (-3, 3)))
    assert up.effective == pytest.approx(w.sum() ** 2 / (w**2).sum())
    down = likelihood._estimate(weights, 5.0, -1, 0.0)
    assert (down.low, down.high) == pytest.approx(tuple(5 - np.log(w.mean() + part * error) for part in (3, -3)))
    wild = torch.tensor([0.0, 30.0], dtype=torch.float64)
    assert likelihood._estimate(wild, 0.0, 1, 0.0).low == -math.inf
    assert likelihood._estimate(wild, 0.0, -1, 0.0).high == math.inf


def test_the_published_schedule():
    betas = likelihood.temperatures(14_500)
    assert len(betas) == 14_501
    assert (betas[0], betas[500], betas[4500], betas[-1]) == pytest.approx((0, 0.5, 0.9, 1))
    assert all(a < b for a, b in itertools.pairwise(betas))
    assert len(likelihood.temperatures(3)) == 4


def test_base_rates_give_independent_units_the_datas_means():
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    model = machine(2, 2, seed=0)
    expected = 0.95 * x.mean(0) + 0.025
    torch.testing.assert_close(base_rates(model, x).sigmoid(), expected)
    counts = base_rates(model._replace(visible="poisson"), 3 * x)
    torch.testing.assert_close(counts.exp(), 3 * x.mean(0) + 0.025)


def test_what_cannot_be_summed_is_refused():
    with pytest.raises(UserError, match="at most 24 bits"):
        likelihood.exact_log_partition(machine(30, 30, seed=0))
    model = machine(3, 3, seed=0, hidden="relu")
    with pytest.raises(UserError, match="rectified"):
        likelihood.annealed_log_partition(Path(model, model.visible_bias), likelihood.temperatures(5))
    with pytest.raises(UserError, match="at least 3 steps"):
        likelihood.temperatures(2)
