"""The general Boltzmann machine against sums over all states, and learning by both methods."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import boltzmann, make_encoder
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor


def spec(size: int) -> ObservationSpec:
    return ObservationSpec((size,), low=0.0, high=1.0)


def make(size: int = 3, **settings) -> boltzmann.Boltzmann:
    torch.manual_seed(0)
    encoder = make_encoder("boltzmann", spec(size), boltzmann.Config(**{"hidden": 2, "initial": 0.8, **settings}))
    assert isinstance(encoder, boltzmann.Boltzmann)
    with torch.no_grad():
        encoder.bias.normal_()
    return encoder


class Naive:
    """The same machine by loops, in float64."""

    def __init__(self, encoder: boltzmann.Boltzmann):
        self.weight = encoder.weight().detach().double().numpy()
        self.bias = encoder.bias.detach().double().numpy()
        self.visible, units = encoder.visible, len(self.bias)
        self.states = list(itertools.product([0.0, 1.0], repeat=units))
        self.share = np.exp([-self.energy(s) for s in self.states])
        self.total = self.share.sum()

    def energy(self, state: tuple[float, ...]) -> float:
        units = range(len(state))
        pairs = sum(self.weight[i, j] * state[i] * state[j] for i in units for j in units if i < j)
        return -pairs - sum(self.bias[i] * state[i] for i in units)

    def given(self, v: tuple[float, ...]) -> tuple[float, np.ndarray, np.ndarray]:
        """p(v), and the mean products and means of all units given v."""
        mine = [n for n, s in enumerate(self.states) if s[: self.visible] == v]
        share = self.share[mine]
        table = np.array([self.states[n] for n in mine])
        products = np.einsum("s,si,sj->ij", share, table, table) / share.sum()
        return share.sum() / self.total, products, (share @ table) / share.sum()

    def free(self) -> tuple[np.ndarray, np.ndarray]:
        table, share = np.array(self.states), self.share / self.total
        return np.einsum("s,si,sj->ij", share, table, table), share @ table


def data() -> Tensor:
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def test_partition_likelihood_and_hidden_means_are_sums_over_states():
    encoder = make()
    naive = Naive(encoder)
    assert encoder.log_partition().item() == pytest.approx(np.log(naive.total), rel=1e-5)
    for row, likelihood, features in zip(data(), encoder.log_likelihood(data()), encoder.encode(data()), strict=True):
        share, _, means = naive.given(tuple(row.tolist()))
        assert likelihood.item() == pytest.approx(np.log(share), abs=1e-4)
        np.testing.assert_allclose(features.detach().numpy(), means[3:], atol=1e-5)


def expected_gradients(encoder: boltzmann.Boltzmann, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of minus the mean log-likelihood: free less clamped products and means."""
    naive = Naive(encoder)
    found = [naive.given(tuple(row.tolist())) for row in x]
    products, means = naive.free()
    upper = np.triu(products - np.mean([p for _, p, _ in found], 0), 1)
    return upper, means - np.mean([m for _, _, m in found], 0)


def test_the_exact_gradient_is_free_less_clamped_products():
    encoder = make()
    encoder.loss({"x": data()})["surprise"].mean().backward()
    upper, bias = expected_gradients(encoder, data())
    np.testing.assert_allclose(encoder.upper.grad.numpy(), upper, atol=1e-5)
    np.testing.assert_allclose(encoder.bias.grad.numpy(), bias, atol=1e-5)


def test_the_sampled_gradient_comes_to_the_exact_one():
    encoder = make(method="gibbs", chains=4000, sweeps=20)
    x = data().repeat(500, 1)
    encoder.loss({"x": x})["pseudo"].backward()
    upper, bias = expected_gradients(encoder, data())
    # 2,000 clamped rows and 4,000 chains of 20 correlated sweeps: five standard errors are below .03
    np.testing.assert_allclose(encoder.upper.grad.numpy(), upper, atol=0.03)
    np.testing.assert_allclose(encoder.bias.grad.numpy(), bias, atol=0.03)
    assert np.abs(upper).max() > 0.1


@pytest.mark.parametrize("method", ["exact", "gibbs"])
def test_samples_are_of_the_distribution(method: str):
    encoder = make(method=method)
    naive = Naive(encoder)
    drawn = encoder.sample(20_000, torch.Generator().manual_seed(1))
    for v in itertools.product([0.0, 1.0], repeat=3):
        share = float((drawn == torch.tensor(v)).all(1).float().mean())
        assert share == pytest.approx(naive.given(v)[0], abs=0.02)


def test_annealing_begins_hot_and_ends_at_one():
    temperatures = make(annealing=3, sweeps=2, first_temperature=8.0).temperatures()
    assert temperatures == pytest.approx([8.0, 4.0, 2.0, 1.0, 1.0])


def learned(x: Tensor, updates: int, rate: float, **settings) -> float:
    """Mean surprise in nats after training."""
    encoder = make(initial=0.5, **settings).train()
    with torch.no_grad():
        encoder.bias.zero_()
    optimisers = Optimisers([], encoder, learning_rate=rate)
    for _ in range(updates):
        optimisers.step(sum(loss.mean() for loss in encoder.loss({"x": x}).values()))
    return -encoder.log_likelihood(x).mean().item()


def test_hidden_units_learn_what_pairs_cannot_tell():
    """Three bits of even parity: any two are independent, so that without hidden units 2.08 nats are left of 1.39."""
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert learned(x, 1200, 2e-2, hidden=4) < 1.6


def test_sampling_learns_too():
    """Two opposite patterns: log 2 = .69 nats of the 2.8 of four fair bits."""
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]).repeat(50, 1)
    found = learned(x, 150, 5e-3, size=4, hidden=2, method="gibbs", sweeps=5, chains=200, annealing=5)
    assert found < 1.2


def test_mean_field_is_near_the_exact_means_where_hidden_units_hardly_meet():
    encoder = make(hidden=13, initial=0.1, method="gibbs")
    v, weight = encoder.read_visible(data()), encoder.weight()
    table = boltzmann.all_states(13, v)
    exact = encoder._hidden_scores(v, weight, table).softmax(1) @ table
    torch.testing.assert_close(encoder.encode(data()), exact, atol=0.01, rtol=0)


def test_bad_settings_and_observations_are_refused():
    for settings in ({"method": "guess"}, {"hidden": 0}, {"first_temperature": 0.5}, {"method": "exact", "hidden": 20}):
        with pytest.raises(UserError, match="boltzmann"):
            make(**settings)
    for wrong in (spec(65), ObservationSpec((3,)), ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20)):
        with pytest.raises(SpecError, match="boltzmann"):
            make_encoder("boltzmann", wrong)
