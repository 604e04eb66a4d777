"""Hopfield nets: storage in closed form, energy that only falls, retrieval, capacity, the dense form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import hopfield, make_encoder
from saccade.encoders.parts import associative
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor


def spec(size: int) -> ObservationSpec:
    return ObservationSpec((size,), low=-1.0, high=1.0)


def make(size: int, **settings) -> hopfield.Hopfield:
    torch.manual_seed(0)
    encoder = make_encoder("hopfield", spec(size), hopfield.Config(**settings))
    assert isinstance(encoder, hopfield.Hopfield)
    return encoder.eval()


def bits(count: int, size: int, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.choice([-1.0, 1.0], size=(count, size))).float()


def flipped(patterns: Tensor, share: float, seed: int = 1) -> Tensor:
    chance = torch.from_numpy(np.random.default_rng(seed).random(patterns.shape))
    return torch.where(chance < share, -patterns, patterns)


def test_hebbs_rule_by_hand():
    patterns = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    expected = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 0.0]]) / 3
    torch.testing.assert_close(associative.hebbian(patterns), expected)
    encoder = make(3)
    encoder.fit(patterns)
    torch.testing.assert_close(encoder.weight.detach(), expected)
    # s1 and s3 have opposite signs in both: -2 w13 s1 s3 / 2 = -2/3; else 2/3
    states = torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(encoder.energy(states), torch.tensor([-2 / 3, 2 / 3]))


def test_the_pseudo_inverse_keeps_correlated_patterns_that_hebbs_rule_loses():
    base = bits(1, 60)
    patterns = flipped(base.expand(20, -1), 0.15)
    for storage, kept in (("pseudo-inverse", 20), ("hebbian", 0)):
        encoder = make(60, storage=storage)
        encoder.fit(patterns)
        assert int((encoder.encode(patterns) == patterns).all(1).sum()) == kept
    wide = patterns.numpy().astype(np.float64)
    projection = wide.T @ np.linalg.inv(wide @ wide.T) @ wide  # equation 6 of Personnaz et al.
    np.fill_diagonal(projection, 0)
    np.testing.assert_allclose(associative.pseudo_inverse(patterns).numpy(), projection, atol=1e-5)


def naive_sweep(weight: np.ndarray, state: np.ndarray, order: list[int]) -> tuple[np.ndarray, list[float]]:
    """One sweep, unit by unit, with the energy after each."""
    state, energies = state.copy(), []
    for unit in order:
        field = sum(weight[unit, other] * state[other] for other in range(len(state)))
        if abs(field) > 1e-5:  # the weights are rounded to float32
            state[unit] = np.sign(field)
        energies.append(-0.5 * float(state @ weight @ state))
    return state, energies


@pytest.mark.parametrize("seed", range(3))
def test_energy_never_rises_unit_by_unit(seed: int):
    """Far beyond capacity too; our sweep goes the way of the loop."""
    patterns, state = bits(12, 24, seed), bits(1, 24, seed + 50)
    weight = associative.hebbian(patterns)
    double = weight.numpy().astype(np.float64)
    start = float(associative.energy(weight, state))
    after, energies = naive_sweep(double, state[0].numpy().astype(np.float64), list(range(24)))
    assert (np.diff([start, *energies]) <= 1e-6).all()
    found = associative.asynchronous(weight, state, 1)
    np.testing.assert_array_equal(found[0].numpy(), after)
    assert float(associative.energy(weight, found)) == pytest.approx(energies[-1], abs=1e-4)


@pytest.mark.parametrize("storage", ["hebbian", "pseudo-inverse"])
def test_sweeps_only_lower_the_energy_and_end_in_a_fixed_point(storage: str):
    encoder = make(100, storage=storage, sweeps=50)
    encoder.fit(bits(30, 100))
    generator = torch.Generator().manual_seed(3)
    state = bits(20, 100, seed=9)
    energies = [encoder.energy(state)]
    for _ in range(5):
        state = associative.asynchronous(encoder.weight, state, 1, generator)
        energies.append(encoder.energy(state))
    assert (torch.stack(energies).diff(dim=0) <= 1e-5).all()
    last = encoder.retrieve(state)
    assert torch.equal(associative.synchronous(encoder.weight, last, 1), last)


def test_synchronous_updates_may_cycle_where_asynchronous_ones_settle():
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    state = torch.tensor([[1.0, -1.0]])
    assert torch.equal(associative.synchronous(weight, state, 3), -state)
    assert torch.equal(associative.synchronous(weight, state, 4), state)
    assert torch.equal(associative.asynchronous(weight, state, 4), torch.tensor([[-1.0, -1.0]]))


@pytest.mark.parametrize("retrieval", ["asynchronous", "synchronous"])
def test_damaged_patterns_are_restored(retrieval: str):
    patterns = bits(8, 200)
    encoder = make(200, retrieval=retrieval)
    encoder.fit(patterns)
    assert torch.equal(encoder.encode(flipped(patterns, 0.15)), patterns)
    torch.testing.assert_close(encoder.reconstruct(flipped(patterns, 0.15)), (patterns + 1) / 2)


def test_memory_breaks_down_between_a_tenth_and_a_fifth():
    """Amit et al.: .97 of overlap just below .138 D patterns, no memory above."""
    overlap = {}
    for load in (0.1, 0.2):
        patterns = bits(int(load * 500), 500)
        encoder = make(500, sweeps=30)
        encoder.fit(patterns)
        overlap[load] = float((encoder.encode(patterns) * patterns).mean())
    assert overlap[0.1] > 0.97
    assert overlap[0.2] < 0.7


def test_a_tie_leaves_the_unit_alone():
    assert associative.settled(torch.tensor([0.0, 0.0, -2.0]), torch.tensor([1.0, -1.0, 1.0])).tolist() == [1, -1, -1]


@pytest.mark.parametrize("storage", ["hebbian", "pseudo-inverse"])
def test_descent_from_nothing_is_storage(storage: str):
    """One step is Hebb's, up to its size; many steps of the local rule come to the pseudo-inverse's fixed points."""
    patterns = bits(10, 40)
    encoder = make(40, storage=storage).train()
    optimisers = Optimisers([], encoder, learning_rate=1.0)
    for _ in range(1 if storage == "hebbian" else 200):
        optimisers.step(sum(encoder.loss({"x": patterns}).values()))
    weight = encoder.weight.detach()
    assert torch.equal(weight, weight.T)
    assert not weight.diagonal().any()
    if storage == "hebbian":
        torch.testing.assert_close(weight, associative.hebbian(patterns) / 10)
    else:
        assert torch.equal(encoder.eval().encode(patterns), patterns)


@pytest.mark.parametrize("storage", ["hebbian", "pseudo-inverse", "dense"])
def test_training_stores_the_first_patterns_it_sees(storage: str):
    patterns = bits(12, 50)
    trained, fitted = make(50, storage=storage, patterns=8).train(), make(50, storage=storage, patterns=8)
    (stage,) = trained.stages()
    for batch in patterns.split(5):
        stage.loss({"x": batch})
    stage.finish()
    fitted.fit(patterns[:8])
    torch.testing.assert_close(trained.weight, fitted.weight)
    assert torch.equal(trained.eval().encode(patterns), fitted.encode(patterns))


def test_the_dense_form_against_sums_and_its_energy_falls():
    """More patterns than units; equations 2 and 3 written out."""
    size, count, beta = 20, 60, 0.7
    patterns, state = torch.randn(count, size), torch.randn(5, size)
    x, s = patterns.numpy().astype(np.float64), state.numpy().astype(np.float64)
    share = np.exp(beta * s @ x.T)
    expected = share / share.sum(1, keepdims=True) @ x
    np.testing.assert_allclose(associative.attend(patterns, state, beta).numpy(), expected, rtol=1e-4, atol=1e-4)
    largest = max(float(row @ row) for row in x)
    energy = [
        -np.log(np.mean(np.exp(beta * x @ row))) / beta + 0.5 * row @ row + 0.5 * largest for row in s
    ]  # -lse + log P / beta = -log mean exp
    found = associative.dense_energy(patterns, state, beta)
    np.testing.assert_allclose(found.numpy(), energy, rtol=1e-4, atol=1e-4)
    for _ in range(4):
        state = associative.attend(patterns, state, beta)
        after = associative.dense_energy(patterns, state, beta)
        assert (after <= found + 1e-4).all()
        found = after


def test_the_dense_form_holds_more_patterns_than_units():
    patterns = bits(300, 64)
    encoder = make(64, storage="dense", patterns=400, beta=2.0, sweeps=1)
    encoder.fit(patterns)
    found = encoder.encode(flipped(patterns, 0.1))
    torch.testing.assert_close(found, patterns, atol=0.05, rtol=0)
    with pytest.raises(UserError, match="400"):
        encoder.fit(bits(401, 64))


@pytest.mark.parametrize(
    "settings", [{"storage": "none"}, {"retrieval": "slow"}, {"sweeps": 0}, {"patterns": 0}, {"beta": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(UserError, match="hopfield"):
        make(4, **settings)


def test_what_it_cannot_read():
    with pytest.raises(SpecError, match="dense"):
        make(5000)
    assert make(5000, storage="dense").feature_shape == (5000,)
    with pytest.raises(SpecError, match="hopfield"):
        make_encoder("hopfield", ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20))
