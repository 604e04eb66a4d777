"""The probe: every estimator against an oracle, then whole bundles of every kind of observation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saccade import data as datasets
from saccade.__main__ import main
from saccade.data.base import Dataset, Split
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.flat import Config as Flat
from saccade.encoders.linear import Config as LinearConfig
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import load_bundle, save_bundle
from saccade.training.pictures import MOST_BYTES
from saccade.training.pretrain import pretrain
from saccade.training.pretrain_plan import PretrainConfig, PretrainPlan
from saccade.training.probe import ProbeOptions, find_data, probe
from saccade.training.probing import logistic, neighbours, pca
from saccade.training.probing.code_statistics import code_statistics, effective_rank, hoyer, saturated_units
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.linear_model import LogisticRegression
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
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
    x = torch.randn(500, 3) * 5 + 100
    x[:, 1] = 7
    scaled = logistic.Scale.of(x)(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 0, 1]), atol=1e-4, rtol=0)


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


# --- whole bundles


SQUARE = ObservationSpec((1, 20, 20), "uint8", 0.0, 255.0)
STACKED = ObservationSpec((4, 20, 20), "uint8", 0.0, 255.0, stack=4)
COLOURED = ObservationSpec((3, 20, 20), "uint8", 0.0, 255.0)
VECTOR = ObservationSpec((6,), low=-2.0, high=2.0)
DENSE = {"hidden": (12,), "code": 2}


def blobs(spec: ObservationSpec, labelled: bool = True, sizes: tuple[int, int, int] = (200, 60, 60)) -> Dataset:
    """Three classes: where the light stands, or the sign of the numbers."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        label = torch.arange(count) % 3
        noise = torch.rand(count, *spec.shape, generator=generator)
        if spec.dtype != "uint8":
            return Split(noise + label.view(-1, 1) - 1.5, label if labelled else torch.full_like(label, -1))
        x = (60 * noise).byte()
        for row, number in enumerate(label.tolist()):
            x[row, ..., 6 * number : 6 * number + 6] += 150
        return Split(x, label if labelled else torch.full_like(label, -1))

    return Dataset("blobs", spec, *map(split, sizes), classes=("left", "middle", "right") if labelled else ())


def bundle(directory: Path, name: str, spec: ObservationSpec, settings: dict[str, Any]) -> Path:
    config = find_encoder(name).Config(**settings)
    save_bundle(directory, name, config, spec, make_encoder(name, spec, config), {"data": {"name": "blobs"}})
    return directory


def judged(directory: Path, data: Dataset, **settings: Any) -> dict[str, Any]:
    found = probe(directory, data, ProbeOptions(**({"embedding": 0} | settings)))
    out = settings.get("out", directory / "probe")
    assert json.loads((out / "probe.json").read_text()) == found
    assert {path.stem for path in out.glob("*.png")} == set(found["pictures"])
    for path in out.glob("*.png"):
        assert path.stat().st_size <= MOST_BYTES
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "| codes |" in (out / "probe.md").read_text()
    return found


def test_an_autoencoder_of_labelled_images_gets_everything(tmp_path: Path):
    directory = bundle(tmp_path / "ae", "autoencoder", SQUARE, DENSE | {"corruption": "masking"})
    found = judged(directory, blobs(SQUARE), embedding=50)
    pictures = {"reconstructions", "filters", "decoder_filters", "codes", "manifold", "interpolation", "arithmetic"}
    assert set(found["pictures"]) == pictures
    assert set(found["accuracy"]) == {"codes", "pca", "raw"}
    assert found["accuracy"]["raw"]["linear"]["accuracy"] == 1
    assert found["accuracy"]["raw"]["euclidean"]["accuracy"] == 1
    assert [few["labels"] for few in found["accuracy"]["pca"]["few_labels"]] == [9, 99]
    assert (found["width"], found["pca_width"], found["size"]) == (2, 2, 400)
    assert found["reconstruction"]["pca"] < found["reconstruction"]["learner"]
    events = [value.tag for event in events_in(directory / "probe") for value in event.summary.value]
    assert {f"probe/{name}" for name in pictures} <= set(events)
    assert "probe/linear/codes" in events


def events_in(directory: Path) -> list[Any]:
    (path,) = directory.glob("events.out.tfevents.*")
    return list(EventFileLoader(str(path)).Load())


def test_reconstruction_errors_are_those_of_a_loop(tmp_path: Path):
    data = blobs(SQUARE)
    found = judged(bundle(tmp_path / "ae", "autoencoder", SQUARE, DENSE), data, pictures=False, baselines=False)
    x = data.test.x.float().flatten(1) / 255
    encoder = load_bundle(tmp_path / "ae").encoder
    with torch.no_grad():
        restored = encoder.reconstruct(data.test.x).flatten(1)  # type: ignore[operator]
    assert found["reconstruction"]["learner"] == pytest.approx(float((restored - x).square().sum(1).mean()), rel=1e-5)
    assert found["root_error"]["learner"] == pytest.approx(float((restored - x).norm(dim=1).mean()), rel=1e-5)
    train = data.train.x.numpy().reshape(200, -1) / 255
    oracle = SklearnPCA(2, svd_solver="full").fit(train)
    guess = oracle.inverse_transform(oracle.transform(x.numpy()))
    expected = float(((guess - x.numpy()) ** 2).sum(1).mean())
    assert found["reconstruction"]["pca"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "spec", "settings", "missing", "labelled"),
    [
        ("autoencoder", STACKED, {"architecture": "conv", "channels": (4,), "code": 5}, {"manifold"}, False),
        ("autoencoder", COLOURED, {"architecture": "conv", "channels": (4,), "code": 0}, {"manifold"}, True),
        ("vae", SQUARE, {}, {"manifold"}, False),
        ("linear", COLOURED, {"code": 2}, set(), False),
        ("mlp", SQUARE, {"hidden": (8, 8)}, {"reconstructions", "interpolation"}, True),
        ("autoencoder", VECTOR, DENSE, {"reconstructions", "filters", "manifold", "interpolation"}, True),
        ("mlp", VECTOR, {"hidden": (1,)}, {"codes"}, False),
    ],
)
def test_every_kind_of_encoder_and_observation(
    name: str, spec: ObservationSpec, settings: dict[str, Any], missing: set[str], labelled: bool, tmp_path: Path
):
    found = judged(bundle(tmp_path / "b", name, spec, settings), blobs(spec, labelled), baselines=False)
    assert ("accuracy" in found) == labelled
    assert not missing & set(found["pictures"])
    if not missing:
        assert "manifold" in found["pictures"]
    assert ("arithmetic" in found["pictures"]) == (labelled and "interpolation" in found["pictures"])
    assert ("reconstruction" in found) == (name != "mlp")
    assert found["statistics"]["units"] == found["width"]


def test_embeddings_are_drawn_where_codes_have_three_numbers(tmp_path: Path):
    directory = bundle(tmp_path / "b", "mlp", VECTOR, {"hidden": (3,)})
    found = judged(directory, blobs(VECTOR), embedding=40, baselines=False)
    assert "tsne" in found["pictures"]


def test_examples_without_a_label_do_not_count(tmp_path: Path):
    data = blobs(VECTOR)
    for split in (data.train, data.validation, data.test):
        split.label[: len(split) // 2] = -1
    found = judged(bundle(tmp_path / "b", "flat", VECTOR, {}), data)
    assert found["accuracy"]["raw"]["linear"]["accuracy"] == 1
    none = replace(data, test=Split(data.test.x, torch.full_like(data.test.label, -1)))
    with pytest.raises(UserError, match="no labelled test examples"):
        probe(tmp_path / "b", none)


def test_a_probe_changes_nothing_and_repeats_itself(tmp_path: Path):
    directory, data = bundle(tmp_path / "b", "autoencoder", SQUARE, DENSE | {"batch_norm": True}), blobs(SQUARE)
    before = (directory / "encoder.safetensors").read_bytes()
    first = judged(directory, data, embedding=30, baselines=False)
    pictures = {path.name: path.read_bytes() for path in (directory / "probe").glob("*.png")}
    second = judged(directory, data, embedding=30, baselines=False)
    for report in (first, second):
        del report["seconds"]
    assert first == second
    assert pictures == {path.name: path.read_bytes() for path in (directory / "probe").glob("*.png")}
    assert (directory / "encoder.safetensors").read_bytes() == before
    assert len(events_in(directory / "probe")) > 1  # of the second probe alone


def test_bad_input_is_one_clear_error(tmp_path: Path):
    directory = bundle(tmp_path / "b", "flat", VECTOR, {})
    with pytest.raises(SpecError, match=r"reads float32 \[6\], but blobs shows uint8 \[1, 20, 20\]"):
        probe(directory, blobs(SQUARE))
    with pytest.raises(UserError, match="unknown data set 'blobs'"):
        probe(directory)  # the card says so
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        probe(directory, blobs(VECTOR), ProbeOptions(out=tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="no such directory"):
        probe(tmp_path / "nothing", "mnist")


def test_without_a_name_the_data_are_those_of_the_training(tmp_path: Path):
    """Split as they were then, whatever the seed of the probe."""
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32))
    plan = PretrainPlan("linear", str(tmp_path / "mine.npy"), PretrainConfig(epochs=1, seed=3), LinearConfig(code=2))
    pretrain(plan, tmp_path / "run", [])
    expected = datasets.load(plan.data, seed=3).test.x
    for directory in (tmp_path / "run", tmp_path / "run" / "bundle"):
        assert torch.equal(find_data(directory, None, ProbeOptions()).test.x, expected)
        assert torch.equal(find_data(directory, plan.data, ProbeOptions()).test.x, expected)
    lonely = tmp_path / "lonely"
    (tmp_path / "run" / "bundle").rename(lonely)
    assert find_data(lonely, None, ProbeOptions(seed=3)).test.x.equal(expected)
    save_bundle(tmp_path / "b", "flat", Flat(), VECTOR, make_encoder("flat", VECTOR), {})
    with pytest.raises(UserError, match="give --data NAME"):
        find_data(tmp_path / "b", None, ProbeOptions())


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    np.save(tmp_path / "mine.npy", rows)
    np.save(tmp_path / "mine.labels.npy", (rows[:, 0] > 0).astype(np.int64))
    directory = bundle(tmp_path / "b", "linear", ObservationSpec((6,)), {"code": 2})
    words = ["probe", str(directory), "--data", str(tmp_path / "mine.npy"), "--no-pictures"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for text in ("squared error", "linear, %", "effective rank", "PCA", "raw", str(directory / "probe")):
        assert text in shown
    assert main(["probe", str(directory), "--data", "mnits"]) == 2
    assert "did you mean 'mnist'" in capsys.readouterr().err
