"""The benchmarks of supervised training: their commands, comparisons and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data as datasets
from saccade.benchmarks import BenchOptions, cifar10, few_labels, mnist, optimisers, supervised_speed
from saccade.benchmarks.parts.plan import Outcome, Run
from saccade.benchmarks.parts.supervised import error_curve
from saccade.data import Dataset, Split
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import count_parameters
from saccade.envs.errors import UnknownNameError
from saccade.envs.spec import ObservationSpec
from saccade.training.bundle import load_bundle
from saccade.training.classifier import Classifier
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_model import make_classifier
from saccade.training.fit_plan import FitPlan, check

SUITES = {"mnist": mnist, "cifar10": cifar10}
DIGIT = ObservationSpec((1, 28, 28), "uint8", 0.0, 255.0)


@pytest.fixture
def data() -> Dataset:
    """Forty images of noise for each split."""
    x = torch.randint(0, 256, (40, *DIGIT.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(x, torch.arange(40) % 10)
    return Dataset("digits", DIGIT, split, split, split, tuple("0123456789"))


def plan_of(run: Run) -> FitPlan:
    program, command, task, *words = run.command(Path("out"), 2)[2:]
    assert (program, command) == ("saccade", "fit")
    return parse_fit(task, words).plan


@pytest.mark.parametrize("name", SUITES)
def test_every_command_can_be_parsed(name: str):
    runs = SUITES[name].runs(BenchOptions(seeds=2))
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        plan = plan_of(run)
        assert (plan.task, plan.run.seed) == (name, run.seed)
        assert plan.run.labels == 0  # all of them


def test_the_nets_of_the_founding_material():
    plans = {run.group: plan_of(run) for suite in SUITES.values() for run in suite.runs(BenchOptions(seeds=1))}
    assert plans["convnet"].encoder_config == find_encoder("convnet").Config()
    assert plans["mlp"].encoder_config.hidden == (256, 256)
    plain, norm = plans["plain"].encoder_config, plans["norm"].encoder_config
    assert (plain.channels, plain.dense, plain.crop, plain.batch_norm) == ((64, 64), (384, 192), 24, False)
    assert (norm.channels, norm.batch_norm) == ((64, 64), True)
    assert plans["plain"].augment.crop == 24


@pytest.mark.parametrize("name", SUITES)
def test_reports(name: str, tmp_path: Path):
    outcomes = []
    for run in SUITES[name].runs(BenchOptions(seeds=2)):
        folder = tmp_path / run.name
        folder.mkdir()
        lines = [{"step": 50 * n, "seconds": n, "validation/error": 0.1 / n} for n in (1, 2)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        error = 0.01 + 0.01 * run.seed
        test = {"accuracy": 1 - error, "error": error, "low": error - 0.005, "high": error + 0.005}
        result = {
            "test": test,
            "seconds": 10.0,
            "core_seconds": 9.0,
            "steps_per_second": 500.0,
            "threads": 1,
            "epochs": 3,
        }
        outcomes.append(Outcome(run, folder, result, ""))
    report = SUITES[name].report(outcomes, BenchOptions())
    assert report.tables[0].rows[0][1:3] == ("98.50 [98.00, 99.00]", "99.00, 98.00")
    assert report.figures
    np.testing.assert_allclose(error_curve(outcomes[0].folder), [[1, 0.1], [2, 0.05]])


def test_both_sides_train_the_same_net():
    plain, ours = supervised_speed.plain_net(), make_encoder("convnet", DIGIT)
    assert count_parameters(plain)[0] == count_parameters(ours)[0] + 1024 * 10 + 10
    # same weights, same function; ours reads a map position by position, theirs channel by channel
    weights = dict(zip(["0", "3", "7"], [p for p in ours.parameters() if p.dim() > 1], strict=True))
    layers = dict(plain.named_children())
    biases = [p for p in ours.parameters() if p.dim() == 1]
    with torch.no_grad():
        for (name, weight), bias in zip(weights.items(), biases, strict=True):
            if name == "7":
                weight = weight.view(1024, 7, 7, 64).permute(0, 3, 1, 2).flatten(1)
            layers[name].weight.copy_(weight)  # type: ignore[operator, union-attr]
            layers[name].bias.copy_(bias)  # type: ignore[operator, union-attr]
        x = torch.randint(0, 256, (3, *DIGIT.shape), dtype=torch.uint8)
        torch.testing.assert_close(plain.eval()[:9](x.float() / 255), ours.eval().read(x), atol=1e-4, rtol=1e-4)  # type: ignore[index]


def test_the_plain_loop_reads_one_example_at_a_time():
    split = Split(torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1) * 255, torch.tensor([3, 4]))
    x, label = supervised_speed.Images(split)[1]
    assert (float(x), int(label)) == (1.0, 4)


def digits(count: int) -> Split:
    """Ten patterns with noise: quick to learn."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 10
    patterns = torch.rand(10, 1, 28, 28, generator=generator)
    return Split(patterns[label] + 0.1 * torch.randn(count, 1, 28, 28, generator=generator), label)


@pytest.mark.parametrize("name", optimisers.SETTINGS)
def test_every_optimiser_gets_down(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimisers, "WINDOW", 10)
    monkeypatch.setattr(optimisers, "LBFGS_BATCH", 500)
    curve, _ = optimisers.train(optimisers.SETTINGS[name], digits(500), 0, most=120)
    assert curve.loss[-1] < 0.7 * curve.loss[0] or curve.reached <= 120
    assert (np.diff(curve.batches) >= 10).all()


def test_the_line_goes_through_both_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimisers, "ALPHAS", np.array([0.0, 0.5, 1.0]))
    start, end, split = optimisers.make_net(1), optimisers.make_net(2), digits(50)
    losses = optimisers.on_the_line(end, start, split)
    batch = split.take(torch.arange(50))
    for place, net in ((0, start), (2, end)):
        assert losses[place] == pytest.approx(float(optimisers.loss_of(net, batch).detach()), rel=1e-4)
    assert len(losses) == 3


def test_few_labels_compares_like_with_like(tmp_path: Path):
    for name, learner in few_labels.LEARNERS.items():
        for labels in learner.counts:
            updates = few_labels.COUNTS[labels]
            plans = {arm: few_labels.plan_of(name, arm, labels, tmp_path, 1e-3, 0) for arm in few_labels.ARMS}
            different = {(p.encoder, str(p.encoder_config)) for p in plans.values()}
            assert len(different) == (1 if learner.random is None else 2)
            assert plans["frozen"].encoder_config == plans["finetune"].encoder_config
            assert len({(p.run.epochs, p.run.batch_size, p.run.labels, p.run.seed) for p in plans.values()}) == 1
            run = plans["random"].run
            assert run.epochs * (labels // run.batch_size) == pytest.approx(updates, rel=0.05)
            assert (plans["random"].bundle, plans["random"].run.encoder_mode) == (None, "scratch")
            for plan in plans.values():
                check(plan)


def read_by(net: Classifier, x: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of the matrices that what `net` answers depends on."""
    net(x).sum().backward()
    return [tuple(p.shape) for p in net.encoder.parameters() if p.grad is not None and p.dim() == 2]


@pytest.mark.parametrize("name", ["rbm", "dbn", "vae"])
def test_machines_and_random_layers_are_the_same_net(
    name: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny = {"rbm": {"hidden": (5,)}, "dbn": {"hidden": (5, 4)}, "vae": {"hidden": (5,), "latents": 4}}[name]
    learner = few_labels.LEARNERS[name]
    learner = learner._replace(
        settings=learner.settings | tiny,
        run=learner.run | {"epochs": 2, "batch_size": 20},
        random=learner.random and few_labels._sigmoid(*tiny["hidden"]),
    )
    monkeypatch.setitem(few_labels.LEARNERS, name, learner)
    monkeypatch.setattr(datasets, "load", lambda _, **__: data)
    folder = few_labels._pretrained(name, tmp_path / name, 1)
    bundle = load_bundle(folder).encoder
    x, nets = data.test.x[:5], {}
    for arm in few_labels.ARMS:
        plan = few_labels.plan_of(name, arm, few_labels.MNIST_TRAIN, folder, 1e-3, 0)
        assert plan.run.labels == 0
        nets[arm] = make_classifier(plan, data)
    with torch.no_grad():
        for arm in ("frozen", "finetune"):
            torch.testing.assert_close(nets[arm].encode(x), bundle.read(x).flatten(1))
        assert not torch.allclose(nets["random"].encode(x), bundle.read(x).flatten(1))
    assert read_by(nets["random"], x) == read_by(nets["finetune"], x) != []
    (group,) = nets["finetune"].encoder.parameter_groups() or [None]
    assert group is None or (group.learning_rate_factor, group.optimizer) == (1.0, None)


def test_few_labels_of_one_learner(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learner = few_labels.LEARNERS["rbm"]
    tiny = {"settings": learner.settings | {"hidden": (5,)}, "random": few_labels._sigmoid(5), "counts": (10, 20)}
    run = {"run": learner.run | {"epochs": 1, "batch_size": 20}}
    monkeypatch.setitem(few_labels.LEARNERS, "rbm", learner._replace(**tiny, **run))
    for labels in (10, 20):
        monkeypatch.setitem(few_labels.COUNTS, labels, 2)
    monkeypatch.setattr(few_labels, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(datasets, "load", lambda _, **__: data)
    report = few_labels.measure(BenchOptions(only=("rbm",), seeds=2, out=tmp_path, threads=1))
    (table,) = report.tables
    assert table.columns == ("", "10 labels", "20 labels")
    assert [row[0] for row in table.rows] == list(few_labels.ARMS.values())
    cells = report.data["cells"]
    assert [(cell["arm"], cell["labels"]) for cell in cells] == [(a, n) for a in few_labels.ARMS for n in (10, 20)]
    assert all(len(cell["errors"]) == len(cell["tuning"]) == 2 for cell in cells)
    with pytest.raises(UnknownNameError, match="unknown setting 'dbm'"):
        few_labels.measure(BenchOptions(only=("dbm",), out=tmp_path))


def test_few_labels_report_and_cells_that_are_kept(tmp_path: Path):
    file = tmp_path / "cell.json"
    cell = few_labels.Cell("denoising", "random", 100, 1e-3, {"0.001": 0.3}, [0.2, 0.3])
    file.write_text(json.dumps(cell._asdict()))
    assert few_labels.Cell(**few_labels.read_cell(file, 2, (1e-3,))) == cell
    assert few_labels.read_cell(file, 3, (1e-3,)) is None
    assert few_labels.read_cell(file, 2, (1e-3, 1e-2)) is None  # tuned on another grid
    assert few_labels.accuracy([0.2], 2) == "80.00"  # one seed gives no interval
    assert few_labels.accuracy([0.2, 0.2], 1) == "80.0 [80.0, 80.0]"
    low, high = few_labels.interval_of([0.2, 0.3])
    assert (low, high) == (pytest.approx(0.25 - 12.706 * 0.05, abs=1e-3), pytest.approx(0.25 + 12.706 * 0.05, abs=1e-3))
