"""Supervised runs: what trains and what does not, labels, averages, resuming, results, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.data import Dataset, Split, redivide
from saccade.encoders import find_encoder
from saccade.encoders.parts.augment_images import Augmentation
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import checkpoint
from saccade.training import fit as fitting
from saccade.training.bundle import load_bundle, save_bundle
from saccade.training.classifier import Average, Classifier, few_labels, interval, judge, views_of
from saccade.training.fit_model import Alternating, make_classifier, make_trainer
from saccade.training.fit_plan import FitConfig, FitPlan, check, default_plan
from saccade.training.label_task import LabelTask
from saccade.training.tasks import find_task
from torch import Tensor, nn

SPEC = ObservationSpec((1, 12, 12), "uint8", 0.0, 255.0)
SMALL = {"channels": (4, 4), "kernel": 3, "dense": (16,), "dropout": 0.25, "batch_norm": True}


def bars(count: int, seed: int) -> Split:
    """Noisy images of one bright bar: upper, lower, left or right."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 4, count)
    x = generator.integers(0, 60, (count, 1, 12, 12))
    for image, kind in zip(x[:, 0], label, strict=True):
        place = [np.s_[1:4], np.s_[8:11], np.s_[:, 1:4], np.s_[:, 8:11]][kind]
        image[place] += 150
    return Split(torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(label))


DATA = Dataset("bars", SPEC, bars(240, 0), bars(60, 1), bars(90, 2), ("upper", "lower", "left", "right"))


@pytest.fixture(autouse=True)
def _small_data(monkeypatch: pytest.MonkeyPatch):
    real = data.load
    monkeypatch.setattr(data, "load", lambda name, **settings: DATA if name == "bars" else real(name, **settings))
    yield
    torch.set_flush_denormal(False)


def plan_of(encoder: str = "convnet", settings: dict | None = None, **run: object) -> FitPlan:
    config = find_encoder(encoder).Config(**(SMALL if settings is None and encoder == "convnet" else settings or {}))
    chosen = {"epochs": 3, "batch_size": 30, "precision": "float32", "threads": 1, "learning_rate": 3e-3} | run
    return FitPlan("bars", encoder, FitConfig(**chosen), Augmentation(), config)  # type: ignore[arg-type]


def bundle_of(tmp_path: Path, encoder: str = "convnet") -> Path:
    plan = plan_of(encoder)
    torch.manual_seed(7)
    made = find_encoder(encoder).build(plan.encoder_config, SPEC)
    save_bundle(tmp_path / "bundle", encoder, plan.encoder_config, SPEC, made, {})
    return tmp_path / "bundle"


def metrics(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_times(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


def test_a_run_learns_and_leaves_its_files(tmp_path: Path):
    result = fitting.fit(plan_of(epochs=8, average=0.9), tmp_path / "run", [])
    assert result["test"]["accuracy"] > 0.95
    assert result["test"]["examples"] == 90  # all of the test set
    assert result["test"]["low"] <= result["test"]["error"] <= result["test"]["high"]
    assert result["epochs"] == 8
    assert result["steps"] == 8 * 240
    assert result["score"]["mean"] == pytest.approx(100 * result["test"]["accuracy"])
    for name in ("config.json", "metrics.jsonl", "result.json", "confusion.png", "curves.png", "filters.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"] == result["test"]
    # the bundle is the encoder that was judged
    bundle = load_bundle(tmp_path / "run")
    state = torch.cat([p.flatten() for p in bundle.encoder.parameters()])
    assert state.isfinite().all()
    assert bundle.card["test"]["error"] == result["test"]["error"]
    assert FitPlan.load(tmp_path / "run") == plan_of(epochs=8, average=0.9)


@pytest.mark.parametrize("name", ["convnet", "fastconv", "mlp", "flat"])
def test_one_batch_is_learned_by_heart(name: str):
    settings = {"convnet": SMALL | {"dropout": 0.0}, "fastconv": {"widths": (8, 16)}}.get(name)
    plan = plan_of(name, settings, epochs=60, batch_size=16, labels=16, learning_rate=1e-2)
    classifier = make_classifier(plan, DATA)
    trainer = make_trainer(plan, DATA, classifier, Compute())
    for _ in trainer:
        pass
    split = trainer.batches.split
    assert len(split) == 16
    assert judge(classifier.train(), split, 4).mistakes == 0


def test_resuming_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped in the middle of an epoch, with augmentation, dropout, batch statistics, averages and mirrored halves."""
    plan = dataclasses.replace(
        plan_of(optimizer="nesterov", schedule="onecycle", weight_decay=1e-3, average=0.9, alternate_flip=True),
        augment=Augmentation(rotate=10, shift=1, brightness=0.1),
    )
    fitting.fit(plan, tmp_path / "whole", [])
    real, count = fitting.Average.update, [0]

    def stopping(self: Average, updates: int) -> None:
        real(self, updates)
        count[0] += 1
        if count[0] == 13:
            fitting.save(going[0])
            raise KeyboardInterrupt

    going: list = []
    build = fitting._build
    monkeypatch.setattr(fitting, "_build", lambda *a, **k: going.append(build(*a, **k)) or going[-1])
    monkeypatch.setattr(fitting.Average, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        # what was read of the 13th batch counts, as after a signal
        fitting.fit(plan, tmp_path / "halves", [])
    monkeypatch.setattr(fitting.Average, "update", real)
    torch.manual_seed(99)
    fitting.resume(tmp_path / "halves", trackers=[])
    ours, theirs = (load_bundle(tmp_path / name).encoder.state_dict() for name in ("halves", "whole"))
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert without_times(metrics(tmp_path / "halves")) == without_times(metrics(tmp_path / "whole"))


def test_same_seed_same_result_and_another_seed_another(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fitting.fit(plan_of(epochs=1, seed=seed), tmp_path / name, [])
    a, b, c = (without_times(metrics(tmp_path / name)) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("augmented", [False, True])
def test_a_frozen_encoder_is_left_as_it_was(tmp_path: Path, augmented: bool):
    bundle = bundle_of(tmp_path)
    plan = dataclasses.replace(
        plan_of(encoder_mode="frozen"),
        bundle=str(bundle),
        augment=Augmentation(shift=1) if augmented else Augmentation(),
    )
    result = fitting.fit(plan, tmp_path / "run", [])
    before, after = (load_bundle(path).encoder.state_dict() for path in (bundle, tmp_path / "run"))
    for name, tensor in before.items():  # parameters, and the statistics of batch normalisation
        assert torch.equal(after[name], tensor), name
    assert result["parameters"] == {"training": 16 * 4 + 4, "frozen": sum(p.numel() for p in _encoder(bundle))}


def _encoder(bundle: Path) -> list[nn.Parameter]:
    return list(load_bundle(bundle).encoder.parameters())


def test_fine_tuning_begins_with_the_bundle_at_its_own_rate(tmp_path: Path):
    bundle = bundle_of(tmp_path)
    plan = dataclasses.replace(plan_of(encoder_mode="finetune", encoder_rate=0.1), bundle=str(bundle))
    classifier = make_classifier(plan, DATA)
    trained = load_bundle(bundle).encoder.state_dict()
    for name, tensor in classifier.encoder.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    trainer = make_trainer(plan, DATA, classifier, Compute())
    rates = {}
    for part in trainer.optimiser._parts.values():
        for group in part.param_groups:
            rates.update({id(parameter): group["lr"] for parameter in group["params"]})
    assert all(rates[id(p)] == pytest.approx(3e-4) for p in classifier.encoder.parameters())
    assert all(rates[id(p)] == pytest.approx(3e-3) for p in classifier.head.parameters())
    next(iter(trainer))
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in classifier.encoder.state_dict().items())


def test_an_encoders_own_rates_are_kept():
    plan = plan_of("fastconv", {"widths": (8, 16), "bias_rate": 5.0}, encoder_rate=2.0)
    groups = {group.name: group for group in make_classifier(plan, DATA).groups(2.0)}
    factors = {name: group.learning_rate_factor for name, group in groups.items()}
    assert factors == {"encoder.weights": 2.0, "encoder.biases": 10.0, "head": 1.0}


def test_an_encoder_is_fitted_to_training_data_before_training():
    plan = plan_of("fastconv", {"widths": (8,)})
    layer = make_classifier(plan, DATA).encoder.whitening  # type: ignore[union-attr]
    assert isinstance(layer, nn.Module)
    y = layer(DATA.train.x)
    assert abs(float(y.detach().mean())) < 1e-2  # of whitened data; it is not of random directions


@pytest.mark.parametrize("count", [4, 10, 23])
def test_labels_are_spread_over_the_classes(count: int):
    few = few_labels(DATA.train, count, 4, seed=3)
    counts = few.label.bincount(minlength=4)
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1
    known = {image.numpy().tobytes(): int(label) for image, label in zip(DATA.train.x, DATA.train.label, strict=True)}
    seen = [image.numpy().tobytes() for image in few.x]
    assert len(set(seen)) == count
    assert all(known[image] == label for image, label in zip(seen, few.label, strict=True))
    assert torch.equal(few_labels(DATA.train, count, 4, seed=3).x, few.x)
    assert not torch.equal(few_labels(DATA.train, count, 4, seed=4).x, few.x)


def test_examples_without_a_label_are_left_out():
    label = DATA.train.label.clone()
    label[:100] = -1
    partly = dataclasses.replace(DATA, train=Split(DATA.train.x, label))
    plan = plan_of("flat")
    trainer = make_trainer(plan, partly, make_classifier(plan, partly), Compute())
    assert torch.equal(trainer.batches.split.label, label[100:])
    assert torch.equal(trainer.batches.split.x, DATA.train.x[100:])


def test_validation_examples_are_held_out_of_training():
    more = redivide(DATA, 10)
    everything = torch.cat([DATA.train.x, DATA.validation.x])
    assert torch.equal(torch.cat([more.train.x, more.validation.x]), everything)
    assert torch.equal(more.train.label, torch.cat([DATA.train.label, DATA.validation.label[:50]]))
    assert torch.equal(more.validation.label, DATA.validation.label[50:])
    assert more.test is DATA.test
    task = find_task(plan_of(held_out=10))
    assert isinstance(task, LabelTask)
    assert len(task.dataset.train) == 290
    with pytest.raises(UserError, match="leaves nothing"):
        redivide(DATA, 300)


def test_examples_that_are_built_as_they_are_taken_are_not_divided_anew():
    split = Alternating(DATA.train.x, DATA.train.label, torch.zeros(240, dtype=torch.bool), torch.zeros(()))
    with pytest.raises(UserError, match="cannot be divided anew"):
        redivide(dataclasses.replace(DATA, train=split), 10)


def test_more_labels_than_there_are():
    with pytest.raises(UserError, match="--labels 400 needs 100"):
        few_labels(DATA.train, 400, 4, seed=0)


def test_alternating_mirrors_each_image_in_every_second_epoch():
    split = Split(torch.arange(8, dtype=torch.uint8).view(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64))
    epoch = torch.zeros((), dtype=torch.int64)
    alternating = Alternating(split.x, split.label, torch.tensor([True, False, True, False]), epoch).to("cpu")
    index = torch.tensor([3, 0, 1])
    first = alternating.take(index)["x"]
    epoch.fill_(1)
    second = alternating.take(index)["x"]
    epoch.fill_(2)
    assert torch.equal(first.flatten(1), torch.tensor([[6, 7], [1, 0], [2, 3]], dtype=torch.uint8))
    assert torch.equal(second, first.flip(-1))
    assert torch.equal(alternating.take(index)["x"], first)


def test_the_average_is_polyaks():
    module = nn.Linear(1, 1, bias=False)
    average, values, expected = Average(module, 0.6, interval=2), [], float(module.weight.detach())
    for step in range(1, 13):
        with torch.no_grad():
            module.weight.fill_(step)
        average.update(step)
        if step % 2 == 0:
            decay = min(0.6, (1 + len(values)) / (10 + len(values)))
            expected = decay * expected + (1 - decay) * step
            values.append(expected)
    average.swap()
    assert float(module.weight.detach()) == pytest.approx(expected)
    average.swap()
    assert float(module.weight.detach()) == 12


class _Fixed(nn.Module):
    """Logits that say the value of the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 3) * 5.0


def test_judging_counts_every_example_once():
    label = torch.tensor([0, 1, 2, 2, 1, -1, 0])
    said = torch.tensor([0, 2, 2, 1, 1, 0, 0])
    split = Split(said.to(torch.uint8).view(7, 1, 1, 1), label)
    found = judge(_Fixed(), split, 3)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.confusion, [[2, 0, 0], [0, 1, 1], [0, 1, 1]])
    assert (found.mistakes, found.examples) == (2, 6)  # the example without a label does not count
    right, wrong = (-np.log(np.exp(v) / (np.exp(5) + 2)) for v in (5, 0))
    assert found.cross_entropy == pytest.approx((4 * right + 2 * wrong) / 6, rel=1e-5)


def test_judging_leaves_the_classifier_training():
    classifier = make_classifier(plan_of(), DATA).train()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    first, second = (judge(classifier, DATA.test, 4).cross_entropy for _ in range(2))
    assert first == second  # no dropout
    assert classifier.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_views():
    x = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    assert len(list(views_of(x, "one"))) == 1
    plain, mirrored = views_of(x, "flip")
    assert torch.equal(plain, x)
    assert torch.equal(mirrored, x.flip(-1))
    views = list(views_of(x, "flip+shift"))
    assert len(views) == 6
    # the image moved right and down by a pixel, reflected at its border
    assert views[1][0, 0].tolist() == [[4, 3, 4], [1, 0, 1], [4, 3, 4]]


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (30, 10_000, 0.0021, 0.00428)],  # as R's binom.confint, "wilson"
)
def test_the_interval_is_wilsons(hits: int, count: int, low: float, high: float):
    assert interval(hits, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_patience_keeps_the_best(tmp_path: Path):
    result = fitting.fit(plan_of("flat", epochs=40, patience=2, learning_rate=0.3), tmp_path / "run", [])
    assert checkpoint.latest(tmp_path / "run" / "checkpoint") is not None
    errors = [line["validation/error"] for line in metrics(tmp_path / "run")]
    assert len(errors) < 40
    assert result["validation"]["error"] == min(errors)


@pytest.mark.parametrize(
    "run",
    [
        {"epochs": 0},
        {"label_smoothing": 1.0},
        {"encoder_mode": "finetune"},
        {"encoder_mode": "cotrain"},
        {"encoder_mode": "frozen", "encoder_rate": 2.0},
        {"hidden": (0,)},
        {"average": -0.1},
    ],
)
def test_settings_that_make_no_sense(run: dict):
    with pytest.raises(UserError):
        check(plan_of(**run))


def test_data_without_labels_and_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = bundle_of(tmp_path)
    other = dataclasses.replace(DATA, spec=ObservationSpec((1, 14, 12), "uint8", 0.0, 255.0))
    monkeypatch.setattr(data, "load", lambda name, **settings: other)
    with pytest.raises(UserError, match="trained on"):
        fitting.fit(dataclasses.replace(plan_of(encoder_mode="finetune"), bundle=str(bundle)), tmp_path / "a", [])
    monkeypatch.setattr(data, "load", lambda name, **settings: dataclasses.replace(DATA, classes=()))
    with pytest.raises(UserError, match="no labels"):
        fitting.fit(plan_of(), tmp_path / "b", [])
    assert not (tmp_path / "b").exists()


def test_recipes_make_sense():
    for task in ("mnist", "cifar10"):
        for encoder in ("flat", "mlp", "convnet", "fastconv"):
            check(default_plan(task, encoder))


def test_the_command_line_from_start_to_resumption(tmp_path: Path, capsys: pytest.CaptureFixture):
    bundle, out = bundle_of(tmp_path), tmp_path / "run"
    words = ["fit", "bars", "--encoder", str(bundle), "--encoder-rate", "0.5", "--epochs", "2", "--threads", "1"]
    assert main([*words, "--batch-size", "30", "--precision", "float32", "--out", str(out)]) == 0
    assert "test accuracy" in capsys.readouterr().out
    plan = FitPlan.load(out)
    assert (plan.encoder, plan.run.encoder_mode, plan.run.encoder_rate) == ("convnet", "finetune", 0.5)
    assert plan.encoder_config.channels == (4, 4)  # the bundle's own settings
    assert main(["fit", "--resume", "--out", str(out), "--threads", "1"]) == 0
    assert main(["fit", "--resume", "--out", str(out), "--epochs", "5"]) == 2
    assert "--epochs 2 and cannot go on with 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "name the task first"),
        (["fit", "brs"], "unknown data set"),
        (["fit", "bars", "--encoder", "convet"], "did you mean 'convnet'"),
        (["fit", "bars", "--encoder", "./nothing"], "there is no bundle"),
        (["fit", "bars", "--epoch", "3"], "epoch"),
        (["fit", "bars", "--augment.hue", "0.1"], "3 colours"),
        (["fit", "--resume", "--out", "./nothing"], "no run directory"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path):
    words = words if "--resume" in words or words == ["fit"] else [*words, "--out", str(tmp_path / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_classifier_reads_maps_and_hidden_layers():
    encoder = find_encoder("resnet").build(find_encoder("resnet").Config(hidden=0), SPEC)
    classifier = Classifier(encoder, 4, hidden=(7,), scale=0.5).eval()
    x = DATA.test.x[:3]
    features = encoder.read(x).flatten(1)
    expected = classifier.head[2](torch.relu(classifier.head[0](features))) * 0.5
    torch.testing.assert_close(classifier(x), expected)
