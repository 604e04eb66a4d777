"""The self-organising map: Kohonen's rule against a loop, the batch rule against means, order on the grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import make_encoder, som
from saccade.encoders.parts import grids
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

SQUARE = ObservationSpec((2,), low=0.0, high=1.0)
TOKENS = ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20)


def make(spec: ObservationSpec = SQUARE, **settings) -> som.Som:
    torch.manual_seed(0)
    encoder = make_encoder("som", spec, som.Config(**{"rows": 4, "columns": 3, **settings}))
    assert isinstance(encoder, som.Som)
    return encoder


def square(count: int = 1000) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(size=(count, 2))).float()


def step(encoder: som.Som, x: Tensor, rate: float = 1e-3) -> None:
    optimisers = Optimisers([], encoder.train(), learning_rate=rate)
    optimisers.step(encoder.loss({"x": x})["quantisation"])
    encoder.after_update()


def naive_winner(weight: np.ndarray, x: np.ndarray) -> int:
    return min(range(len(weight)), key=lambda i: float(((x - weight[i]) ** 2).sum()))


def naive_neighbourhood(encoder: som.Som, radius: float) -> np.ndarray:
    columns, units = encoder.config.columns, len(encoder.weight)
    h = np.zeros((units, units))
    for i in range(units):
        for j in range(units):
            dy, dx = i // columns - j // columns, i % columns - j % columns
            h[i, j] = math.exp(-(dx * dx + dy * dy) / (2 * radius * radius))
    return h


@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_a_step_with_one_example_is_kohonens(progress: float):
    encoder, x = make(radius=2.0, last_radius=0.5, last_rate=0.1, gain=300.0), square(1)
    encoder.progress.fill_(progress)
    before = encoder.weight.detach().numpy().astype(np.float64)
    step(encoder, x)
    alpha, radius = 0.3 * 0.1**progress, 2.0 * 0.25**progress
    h = naive_neighbourhood(encoder, radius)[naive_winner(before, x[0].numpy())]
    expected = before + alpha * h[:, None] * (x[0].numpy() - before)  # x - w, not x alone
    np.testing.assert_allclose(encoder.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_steps_of_a_batch_add_up_as_far_as_the_weighted_mean():
    encoder, x = make(radius=1.0, gain=1000.0), square(5)
    before = encoder.weight.detach().numpy().astype(np.float64)
    step(encoder, x)  # a rate of 1
    h = naive_neighbourhood(encoder, 1.0)[[naive_winner(before, row) for row in x.numpy()]]
    expected = before.copy()
    for i in range(len(before)):
        total = sum(h[n, i] * (x[n].numpy() - before[i]) for n in range(5))
        expected[i] += total / max(h[:, i].sum(), 1.0)
    np.testing.assert_allclose(encoder.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [1e-4, 1.0])
def test_the_batch_rule_gives_weighted_means_at_any_rate(rate: float):
    encoder, x = make(rule="batch", radius=1.5, last_radius=1.0), square(40)
    before = encoder.weight.detach().numpy().astype(np.float64)
    step(encoder, x, rate)
    h = naive_neighbourhood(encoder, 1.5)[[naive_winner(before, row) for row in x.numpy()]]
    expected = np.stack([(h[:, i, None] * x.numpy()).sum(0) / h[:, i].sum() for i in range(len(before))])
    np.testing.assert_allclose(encoder.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_batches_fade():
    encoder, x = make(rule="batch", radius=1.0, memory=4.0), square(20)
    step(encoder, x[:10])
    first = encoder.wins.clone()
    step(encoder, x[10:])
    assert first.sum() == 10
    assert encoder.wins.sum() == pytest.approx(0.75 * 10 + 10)


def test_one_epoch_of_fit_is_the_batch_rule():
    encoder, x = make(rows=1, columns=2, radius=1e-3, last_radius=1e-3), square(50)
    encoder.fit(x, epochs=8)  # with no neighbours it is k-means
    owner = np.array([naive_winner(encoder.weight.detach().numpy(), row) for row in x.numpy()])
    for unit in range(2):
        np.testing.assert_allclose(encoder.weight[unit].detach().numpy(), x.numpy()[owner == unit].mean(0), atol=0.03)


@pytest.mark.parametrize("layout", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("rule", ["online", "batch", "fit"])
def test_it_unfolds_over_a_square(layout: str, rule: str):
    x = square()
    encoder = make(rows=6, columns=6, layout=layout, rule="batch" if rule == "batch" else "online", last_radius=0.6)
    before = {name: float(value) for name, value in encoder.errors(x).items()}
    if rule == "fit":
        encoder.fit(x, epochs=20)
    else:
        for number in range(200):
            encoder.progress.fill_(number / 200)
            step(encoder, x[torch.randint(len(x), (200,))])
    after = {name: float(value) for name, value in encoder.errors(x).items()}
    assert after["quantisation_error"] < 0.085  # 36 cells of 1/6: .064 at best
    assert after["topographic_error"] < 0.08 < before["topographic_error"]


def test_errors_are_those_of_a_loop():
    encoder, x = make(layout="rectangular"), square(60)
    weight = encoder.weight.detach().numpy()
    distances, apart = [], 0
    for row in x.numpy():
        d = np.sqrt(((weight - row) ** 2).sum(1))
        first, second = np.argsort(d)[:2]
        distances.append(d[first])
        apart += max(abs(first // 3 - second // 3), abs(first % 3 - second % 3)) > 1
    found = encoder.errors(x)
    assert float(found["quantisation_error"]) == pytest.approx(np.mean(distances), rel=1e-4)
    assert float(found["topographic_error"]) == pytest.approx(apart / 60)


def test_hexagons_have_six_neighbours_and_wrapping_closes_the_grid():
    flat = grids.neighbours(grids.squared_distances(4, 5, "hexagonal"), "hexagonal")
    assert flat.sum(1).max() == 6
    assert flat[0].nonzero().flatten().tolist() == [1, 5]  # right, and below; (1, 0) is shifted to the right
    for layout, count in (("hexagonal", 6), ("rectangular", 8)):
        closed = grids.neighbours(grids.squared_distances(4, 5, layout, wrap=True), layout)
        assert (closed.sum(1) == count).all()
        assert torch.equal(closed, closed.T)


def test_a_bubble_is_all_or_nothing():
    squared = grids.squared_distances(1, 4, "rectangular")
    assert grids.weights(squared, 1.0, "bubble")[0].tolist() == [1, 1, 0, 0]


def test_features():
    x = square(30)
    near = make(features="distances")
    expected = np.sqrt(((x.numpy()[:, None] - near.weight.detach().numpy()[None]) ** 2).sum(2))
    np.testing.assert_allclose(near.encode(x).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    place = make(features="position").encode(x)
    winner = expected.argmin(1)
    np.testing.assert_allclose(place.numpy(), np.stack([winner % 3, winner // 3], 1))
    soft = make(features="soft", temperature=0.5)
    soft.spread.fill_(0.1)
    share = np.exp(-(expected**2) / 0.05)
    np.testing.assert_allclose(soft.encode(x).detach().numpy(), share / share.sum(1, keepdims=True), atol=1e-4)
    torch.testing.assert_close(near.reconstruct(x), near.weight[torch.from_numpy(winner)])


def test_the_relief_is_high_between_clusters():
    encoder = make(rows=1, columns=4)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.9, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(encoder.relief(), torch.tensor([[0.1, 0.45, 0.45, 0.1]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"layout": "round"},
        {"rule": "offline"},
        {"rows": 1, "columns": 1},
        {"rows": 3, "layout": "hexagonal", "wrap": True},
        {"radius": 0.0},
        {"gain": -1.0},
        {"memory": 0.5},
        {"features": "all"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(UserError, match="som"):
        make(**settings)


def test_tokens_are_refused():
    with pytest.raises(SpecError, match="som"):
        make(TOKENS)
