"""The probe of whole bundles, of every kind of observation; `test_probing.py` tests the estimators."""

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
from saccade.encoders.parts.likelihood import exact_log_partition, log_likelihood
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import load_bundle, save_bundle
from saccade.training.pictures import MOST_BYTES
from saccade.training.pretrain import pretrain
from saccade.training.pretrain_plan import PretrainConfig, PretrainPlan
from saccade.training.probe import ProbeOptions, find_data, probe
from saccade.training.probing import likelihood
from sklearn.decomposition import PCA as SklearnPCA
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

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


def test_the_likelihood_of_a_density(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Exactly and by annealing the same; of a deep machine and a VAE a bound; of what is no density nothing."""
    data = blobs(ObservationSpec((6,), low=-2.0, high=2.0), labelled=False)
    machine = bundle(tmp_path / "rbm", "rbm", data.spec, {"hidden": 5, "initial": 0.5, "binarise": "threshold"})
    quick = {"pictures": False, "baselines": False}
    exact = judged(machine, data, **quick)["likelihood"]
    encoder = load_bundle(machine).encoder
    v = encoder.read_visible(data.test.x).double()  # type: ignore[operator]
    model = encoder.machine().to(torch.float64)  # type: ignore[operator]
    assert exact["nats"] == pytest.approx(float(log_likelihood(model, v, exact_log_partition(model)).mean()))
    assert exact["low"] < exact["nats"] < exact["high"]
    assert "enumeration" in exact["how"]
    monkeypatch.setattr(likelihood, "EXACT_UNITS", 0)
    annealed = judged(machine, data, annealing=500, out=tmp_path / "again", **quick)["likelihood"]
    assert annealed["nats"] == pytest.approx(exact["nats"], abs=0.05)
    assert annealed["low"] <= exact["nats"] + 1e-9 <= annealed["high"] + 2e-9
    assert annealed["backwards"] == pytest.approx(annealed["forwards"], abs=0.3)
    assert "forwards" in (tmp_path / "again" / "probe.md").read_text()
    assert "likelihood" not in judged(machine, data, annealing=0, out=tmp_path / "none", **quick)
    deep = bundle(tmp_path / "dbm", "deep_boltzmann", data.spec, {"hidden": (4, 3), "binarise": "threshold"})
    assert judged(deep, data, annealing=100, **quick)["likelihood"]["nats"] < 0
    vae = bundle(tmp_path / "vae", "vae", data.spec, {"hidden": (8,), "latents": 2})
    found = judged(vae, data, **quick)["likelihood"]
    assert found["low"] < found["nats"] < found["high"] < 0
    plain = bundle(tmp_path / "plain", "autoencoder", data.spec, DENSE)
    assert "likelihood" not in judged(plain, data, **quick)


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
