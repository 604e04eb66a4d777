"""The estimators of the probe, each against an oracle: sklearn, NumPy, naive loops, or numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.encoders import find_encoder, make_encoder
from saccade.envs.spec import ObservationSpec
from saccade.training.probing import filters, logistic, neighbours, pca
from saccade.training.probing.code_statistics import code_statistics, effective_rank, hoyer, saturated_units
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

# --- principal components


def test_pca_is_the_truncated_singular_value_decomposition():
    x = torch.randn(200, 12) @ torch.randn(12, 12) + 3
    fitted = pca.fit_pca(lambda: iter(x.split(60)), 4)
    oracle = SklearnPCA(4, svd_solver="full").fit(x.numpy())
    assert fitted.examples == 200
    assert fitted.width == 4
    np.testing.assert_allclose(np.abs(fitted.components.numpy() @ oracle.components_.T), np.eye(4), atol=1e-4)
    np.testing.assert_allclose(fitted.variance.numpy() * 200 / 199, oracle.explained_variance_, rtol=1e-4)
    expected = oracle.inverse_transform(oracle.transform(x.numpy()))
    np.testing.assert_allclose(fitted.reconstruct(x).numpy(), expected, atol=1e-4)


def test_pca_of_large_examples_goes_by_inner_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pca, "MOST_NUMBERS", 20)
    monkeypatch.setattr(pca, "MOST_EXAMPLES", 15)
    x = torch.randn(40, 30) + 1
    fitted = pca.fit_pca(lambda: iter(x.split(10)), 99)
    _, values, vectors = torch.linalg.svd(x[:15] - x[:15].mean(0), full_matrices=False)
    assert (fitted.examples, fitted.width) == (15, 14)  # the mean took one dimension
    torch.testing.assert_close((fitted.components @ vectors[:14].T).abs(), torch.eye(14), atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted.variance, values[:14].square() / 15, atol=1e-4, rtol=1e-4)


def test_pca_is_no_wider_than_its_examples():
    x = torch.randn(50, 3)
    fitted = pca.fit_pca(lambda: iter([x]), 10)
    assert fitted.width == 3
    torch.testing.assert_close(fitted.reconstruct(x), x, atol=1e-5, rtol=0)


# --- logistic regression


def clusters(count: int, width: int, classes: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    label = torch.arange(count) % classes
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(classes, width, generator=generator)
    x = centres[label] + spread * torch.randn(count, width, generator=generator)
    return x * torch.logspace(-1, 2, width), label


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-5])
def test_logistic_regression_reaches_sklearns_loss(penalty: float, preconditioned: bool):
    x, label = clusters(400, 20, 4)
    x = logistic.Scale.of(x)(x)
    helper = logistic.Preconditioner.of(x) if preconditioned else None
    ours = logistic.fit_logistic(x, label, 4, penalty, preconditioner=helper)
    oracle = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-8, max_iter=10_000).fit(x.numpy(), label.numpy())
    theirs = logistic.Logistic(torch.from_numpy(oracle.coef_.T).float(), torch.from_numpy(oracle.intercept_).float())
    best = logistic.loss_of(theirs, x, label, penalty)
    assert logistic.loss_of(ours, x, label, penalty) == pytest.approx(best, abs=1e-3)
    assert ours.accuracy(x, label) == pytest.approx(oracle.score(x.numpy(), label.numpy()), abs=0.01)


def test_a_fit_may_start_at_another_ones_end():
    x, label = clusters(300, 8, 3)
    x = logistic.Scale.of(x)(x)
    helper = logistic.Preconditioner.of(x)
    first = logistic.fit_logistic(x, label, 3, 0.01, preconditioner=helper)
    again = logistic.fit_logistic(x, label, 3, 0.01, start=first, preconditioner=helper)
    torch.testing.assert_close(again.weight, first.weight, atol=1e-2, rtol=0)


def test_standardised_features_have_mean_0_and_deviation_1_and_constants_vanish():
    x = torch.randn(500, 4) * torch.tensor([5, 1, 1e6, 1e-6]) + torch.tensor([100.0, 0, 0, 0])
    x[:, 1] = 0.7
    scaled = logistic.Scale.of(x)(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 0, 1, 1]), atol=1e-4, rtol=0)


def test_the_penalty_is_chosen_on_validation():
    """Noise that only a strong penalty ignores."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 60, generator=generator)
    label = (x[:, 0] + 1.5 * torch.randn(2000, generator=generator) > 0).long()
    few, rest = (x[:80], label[:80]), (x[80:], label[80:])
    chosen = logistic.choose_logistic(*few, rest, 2)
    weak = logistic.fit_logistic(*few, 2, 1e-5)
    assert chosen.penalty >= 1e-2
    assert chosen.validation == chosen.model.accuracy(*rest) > weak.accuracy(*rest)


def test_few_labels_are_balanced_and_depend_on_the_seed_alone():
    label = torch.arange(90) % 3
    rows = logistic.draw_balanced(label, 3, 12, torch.Generator().manual_seed(1))
    again = logistic.draw_balanced(label, 3, 12, torch.Generator().manual_seed(1))
    other = logistic.draw_balanced(label, 3, 12, torch.Generator().manual_seed(2))
    assert rows is not None
    assert again is not None
    assert other is not None
    assert label[rows].bincount().tolist() == [4, 4, 4]
    assert rows.unique().numel() == 12
    assert rows.tolist() == again.tolist() != other.tolist()
    assert logistic.draw_balanced(label, 3, 2, torch.Generator()) is None  # not one of each class
    assert logistic.draw_balanced(label, 3, 93, torch.Generator()) is None  # more than there are


def test_few_label_accuracy_comes_with_students_interval():
    x, label = clusters(900, 10, 3, spread=1.5)
    x = logistic.Scale.of(x)(x)
    thirds = [(x[rows], label[rows]) for rows in torch.arange(900).split(300)]
    found = logistic.few_labels(thirds[0], thirds[1], thirds[2], 3, counts=(3, 31, 1000))
    assert [few.labels for few in found] == [3, 30]  # 31 is not divisible by 3, and 1000 are not there
    for few in found:
        half = 2.776 * np.std(few.draws, ddof=1) / 5**0.5  # Student's t of 4 degrees of freedom
        assert few.mean == pytest.approx(np.mean(few.draws))
        assert few.high - few.mean == pytest.approx(half, rel=1e-3)
    assert found[0].mean < found[1].mean


# --- nearest neighbours


def naive_neighbours(queries: np.ndarray, examples: np.ndarray, count: int, metric: str) -> list[list[int]]:
    rows = []
    for query in queries:
        if metric == "euclidean":
            distance = [float(((query - example) ** 2).sum()) for example in examples]
        else:
            norms = [float(np.linalg.norm(query) * np.linalg.norm(example)) for example in examples]
            distance = [-float(query @ example) / norm for example, norm in zip(examples, norms, strict=True)]
        rows.append(sorted(range(len(examples)), key=distance.__getitem__)[:count])
    return rows


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_are_those_of_naive_loops(offset: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    monkeypatch.setattr(neighbours, "GROUP", 4)
    examples, queries = (torch.randn(n, 5) * torch.linspace(0.5, 2, 5) + offset for n in (90, 20))
    found = neighbours.nearest(queries, examples, 6)
    exact = queries.double().numpy(), examples.double().numpy()
    assert found["euclidean"].tolist() == naive_neighbours(*exact, 6, "euclidean")
    if not offset:  # far from the origin all cosines are 1 to float32's last digit
        assert found["cosine"].tolist() == naive_neighbours(*exact, 6, "cosine")


@pytest.mark.parametrize("columns", [5, 127, 128, 1000, 1024, 3000])
def test_the_top_of_groups_is_the_top(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "GROUP", 16)
    scores = torch.randn(11, columns)
    assert torch.equal(neighbours.top(scores, 5), scores.topk(5, 1).indices)


def test_a_tied_vote_goes_to_the_nearer():
    labels = torch.tensor([[2, 1, 1, 2, 0], [0, 1, 2, 3, 3], [4, 3, 2, 1, 0], [1, 1, 1, 1, 1]])
    assert neighbours.vote(labels, 5).tolist() == [2, 3, 4, 1]


def test_the_number_of_neighbours_is_chosen_on_validation():
    """Every fifth training label is wrong: one neighbour errs as often, fifteen outvote it."""
    generator = torch.Generator().manual_seed(0)
    x, label = torch.rand(3000, 2, generator=generator), torch.zeros(3000, dtype=torch.int64)
    label[x[:, 0] > 0.5] = 1
    wrong = label[:1000].clone()
    wrong[::5] = 1 - wrong[::5]
    found = neighbours.neighbour_accuracies(
        (x[:1000], wrong), (x[1000:2000], label[1000:2000]), (x[2000:], label[2000:]), 2
    )
    assert found["euclidean"].voters == 15
    assert found["euclidean"].accuracy > 0.95
    assert found["euclidean"].validation > 0.95


# --- statistics


def test_effective_rank_by_hand():
    axes = torch.cat([torch.eye(3), -torch.eye(3)])  # centred, three equal singular values
    assert effective_rank(axes) == pytest.approx(3)
    assert effective_rank(axes + 50) == pytest.approx(3)  # the mean does not count
    stretched = axes * torch.tensor([2.0, 1.0, 1.0])  # singular values in proportion 2 : 1 : 1
    assert effective_rank(stretched) == pytest.approx(np.exp(0.5 * np.log(2) + 0.5 * np.log(4)))
    assert effective_rank(torch.ones(5, 4)) == 0
    wide = torch.randn(6, 40)
    assert effective_rank(wide) == pytest.approx(effective_rank(wide.T - wide.T.mean(1, keepdim=True)), abs=2)


def test_effective_rank_is_that_of_the_singular_values():
    codes = torch.randn(100, 7) * torch.logspace(0, -3, 7)
    values = np.linalg.svd((codes - codes.mean(0)).numpy().astype(np.float64), compute_uv=False)
    share = values / values.sum()
    assert effective_rank(codes) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_hoyer_is_0_for_equal_units_and_1_for_a_single_one():
    assert hoyer(torch.ones(3, 16)) == pytest.approx(0)
    assert hoyer(3 * torch.eye(16)) == pytest.approx(1)
    assert hoyer(torch.cat([torch.ones(1, 16), torch.eye(16)[:1], torch.zeros(1, 16)])) == pytest.approx(0.5)
    # D = 4, z = (3, 4, 0, 0): (2 - 7/5) / (2 - 1)
    assert hoyer(torch.tensor([[3.0, 4.0, 0.0, 0.0]])) == pytest.approx(0.6)


def test_active_dead_and_zero_units_by_hand():
    codes = torch.zeros(100, 4)
    codes[:50, 0] = 1.0  # variance 0.25
    codes[:50, 1] = 0.1  # variance 0.0025
    codes[:, 2] = 5.0  # never varies, nor does the last
    found = code_statistics(codes)
    assert (found.units, found.active_units, found.dead_units) == (4, 1, 2)
    assert found.zeros == pytest.approx(0.5)
    assert found.deviation == pytest.approx(((0.25 + 0.0025) / 4) ** 0.5)


def test_units_at_the_ends_of_their_range_are_saturated():
    sigmoid = torch.rand(1000, 3) * 0.8 + 0.1
    sigmoid[:, 1] = (torch.rand(1000) > 0.5) * 0.998 + 0.001
    assert saturated_units(sigmoid) == 1
    assert saturated_units(sigmoid * 2 - 1) == 1  # a tanh
    assert saturated_units(torch.randn(100, 3)) is None  # unbounded
    assert saturated_units(torch.relu(torch.randn(1000, 3) - 2).clamp(max=0.9)) in (0, None)  # zeros of a ReLU are rest


# --- filters


IMAGE = ObservationSpec((3, 36, 36), "uint8", 0.0, 255.0)


def found(name: str, **settings: object) -> tuple[filters.Filters | None, filters.Filters | None]:
    encoder = make_encoder(name, IMAGE, find_encoder(name).Config(**settings))
    return filters.first_layer(encoder, IMAGE), filters.last_layer(encoder, IMAGE)


def test_dense_filters_are_shown_as_images():
    encoder = make_encoder("linear", IMAGE, find_encoder("linear").Config(code=5))
    reading, writing = filters.first_layer(encoder, IMAGE), filters.last_layer(encoder, IMAGE)
    assert reading is not None
    assert writing is not None
    assert torch.equal(reading.weight.flatten(1), encoder.up.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(writing.weight.flatten(1), encoder.down.weight.T)  # type: ignore[union-attr]
    assert reading.weight.shape == (5, *IMAGE.shape)
    assert not reading.is_kernel


def test_kernels_are_those_of_the_first_and_last_convolution():
    reading, writing = found("autoencoder", architecture="conv", channels=(7, 9))
    assert reading is not None
    assert writing is not None
    assert (*reading.weight.shape,) == (7, 3, 3, 3)
    assert (*writing.weight.shape,) == (7, 3, 4, 4)
    reading, writing = found("conv")
    assert reading is not None
    assert (*reading.weight.shape,) == (32, 3, 8, 8)
    assert writing is None  # it decodes nothing


def test_tied_weights_are_shown_once_and_some_encoders_have_none():
    reading, writing = found("autoencoder", hidden=(6,), tied=True)
    assert reading is not None
    assert (*reading.weight.shape,) == (6, *IMAGE.shape)
    assert writing is None
    assert found("flat") == (None, None)


@pytest.mark.parametrize("shape", [(500, 1, 9, 9), (5, 3, 8, 8), (40, 4, 8, 8), (1, 1, 3, 3)])
def test_filters_of_every_shape_are_drawn(shape: tuple[int, ...]):
    spec = ObservationSpec((shape[1], 36, 36), "uint8", 0.0, 255.0, stack=shape[1] if shape[1] != 3 else 1)
    title = filters.figure(filters.Filters(torch.randn(shape), True), spec, "filters").get_suptitle()
    assert ("96 of 500" in title) == (shape[0] == 500)
    assert ("4 frames each" in title) == (shape[1] == 4)
