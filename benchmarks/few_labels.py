"""Few labels: the same net from pre-trained weights and from random ones, with the same tuning."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.few_labels, or saccade bench few_labels")

import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.progress import Progress
from scipy.stats import t as student

from .. import data
from ..agents.parts.compute import Compute
from ..data import Dataset, Split
from ..encoders import find_encoder
from ..encoders.parts.augment_images import Augmentation
from ..training import checkpoint, device
from ..training.bundle import is_bundle
from ..training.classifier import Classifier, judge
from ..training.fit_model import make_classifier, make_trainer
from ..training.fit_plan import FitConfig, FitPlan
from ..training.pretrain import pretrain, resume
from ..training.pretrain_plan import PretrainConfig, PretrainPlan
from .parts.learners import MNIST_TRAIN
from .parts.plan import BenchOptions, chosen
from .parts.report import Report, Table
from .parts.runner import places

kind = "MNIST with 100 to 55,000 labels: from pre-trained weights against random ones, same net and tuning"

SEEDS = 5
COUNTS = {100: 300, 1_000: 800, 10_000: 2_000, MNIST_TRAIN: 5_500}  # labels -> updates
BATCH = 50
RATES = (3e-4, 1e-3, 3e-3)  # the tuning budget: one run each on the first seed, chosen by validation error


class Learner(NamedTuple):
    """A way to pre-train, and so the net that is compared."""

    label: str
    encoder: str
    settings: dict[str, Any]
    run: dict[str, Any]
    counts: tuple[int, ...] = tuple(COUNTS)
    random: tuple[str, dict[str, Any]] | None = None  # encoder and settings of the same net with random weights
    tuned: dict[str, Any] | None = None  # settings that differ once there are labels


def _sigmoid(*units: int) -> tuple[str, dict[str, Any]]:
    """Layers as machines leave them, by the encoder whose random weights suit them: machines begin with tiny ones."""
    names = dict.fromkeys(("activation", "code_activation"), "sigmoid")
    return "autoencoder", {"hidden": units[:-1], "code": units[-1], **names}


# a rate of 0.1; all three as in the code that was published with Hinton & Salakhutdinov (2006), but the momentum stays
_MACHINES = {"gain": 100.0, "momentum": 0.5, "l2": 2e-4}
LEARNERS = {
    "denoising": Learner(
        "denoising autoencoder 784-1000-500-250",
        "autoencoder",
        {
            "hidden": (1000, 500),
            "code": 250,
            "code_activation": "relu",
            "corruption": "masking",
            "strength": 0.5,
            "loss": "bernoulli",
        },
        {"epochs": 10, "schedule": "onecycle"},
    ),
    "contrastive": Learner(
        "contrastive conv net", "contrastive", {}, {"epochs": 4, "batch_size": 256}, (100, 1_000, 10_000)
    ),
    "rbm": Learner(
        "RBM 784-500",
        "dbn",
        {"hidden": (500,), **_MACHINES},
        {"epochs": 15, "schedule": "linear"},
        random=_sigmoid(500),
        tuned={"rule": "trainer"},
    ),
    "dbn": Learner(
        "DBN 784-500-500",
        "dbn",
        {"hidden": (500, 500), **_MACHINES},
        {"epochs": 30, "schedule": "linear"},
        random=_sigmoid(500, 500),
        tuned={"rule": "trainer"},
    ),
    "vae": Learner(
        "VAE 784-500-500-50",
        "vae",
        {"latents": 50, "binarise": "dynamic"},
        {"epochs": 20, "batch_size": 250, "learning_rate": 2e-3, "schedule": "linear"},
    ),
}
choices = tuple(LEARNERS)
ARMS = {"random": "random weights", "frozen": "pre-trained, frozen", "finetune": "pre-trained, fine-tuned"}


class Cell(NamedTuple):
    """One learner, one way to begin, one number of labels."""

    learner: str
    arm: str
    labels: int
    rate: float  # chosen by validation error
    tuning: dict[str, float]  # rate -> validation error
    errors: list[float]  # test error of each seed


def measure(options: BenchOptions) -> Report:
    """Pre-train and measure what is not there yet: a run that was stopped goes on."""
    dataset, folder = data.load("mnist"), places("few_labels", options.out).runs
    threads = options.threads or os.cpu_count() or 1
    cells, names = list[Cell](), chosen(options.only, choices)
    with Progress(transient=True) as progress:
        task = progress.add_task("cells", total=len(ARMS) * sum(len(LEARNERS[name].counts) for name in names))
        for name in names:
            bundle = _pretrained(name, folder / name, threads)
            for arm in ARMS:
                for labels in LEARNERS[name].counts:
                    file = folder / f"{name}-{arm}-{labels}.json"
                    known = read_cell(file, options.seeds or SEEDS, RATES)
                    cells.append(Cell(**known) if known else _measure(name, arm, labels, bundle, dataset, options))
                    file.write_text(json.dumps(cells[-1]._asdict()))
                    progress.advance(task)
    return Report(
        [_table(name, cells) for name in names],
        _notes(),
        {"cells": [cell._asdict() for cell in cells], "rates": RATES, "updates": COUNTS, "batch_size": BATCH},
        {"few_labels": _figure(cells)},
    )


def _pretrained(name: str, folder: Path, threads: int) -> Path:
    """The bundle of a learner, trained on all training images without their labels."""
    learner = LEARNERS[name]
    config = find_encoder(learner.encoder).Config(**learner.settings)
    return pretrained(
        PretrainPlan(learner.encoder, "mnist", PretrainConfig(threads=threads, **learner.run), config), folder
    )


def pretrained(plan: PretrainPlan, folder: Path) -> Path:
    """`folder` with the bundle of `plan`: as it is, resumed where it was stopped on the way, or trained."""
    if is_bundle(folder):
        return folder
    if checkpoint.latest(folder / "checkpoint") is not None:
        resume(folder, trackers=[])
    else:
        pretrain(plan, folder, [])
    return folder


def plan_of(name: str, arm: str, labels: int, bundle: Path, rate: float, seed: int) -> FitPlan:
    """The supervised run of a cell. All arms read as many batches of the same size from the same examples."""
    learner = LEARNERS[name]
    encoder, settings = learner.encoder, learner.settings | (learner.tuned or {})
    if arm == "random" and learner.random is not None:
        encoder, settings = learner.random
    batch = min(BATCH, labels)
    run = FitConfig(
        epochs=max(COUNTS[labels] // (labels // batch), 1),
        batch_size=batch,
        learning_rate=rate,
        schedule="cosine",
        encoder_mode="scratch" if arm == "random" else arm,  # type: ignore[arg-type]
        labels=0 if labels == MNIST_TRAIN else labels,
        seed=seed,
    )
    config = find_encoder(encoder).Config(**settings)
    return FitPlan("mnist", encoder, run, Augmentation(), config, None if arm == "random" else str(bundle))


def trained(plan: FitPlan, dataset: Dataset, compute: Compute) -> Classifier:
    """The classifier of a plan, with the last weights."""
    classifier = make_classifier(plan, dataset)
    compute.place(classifier)
    for _ in make_trainer(plan, dataset, classifier, compute):
        pass
    return classifier


def error_of(classifier: Classifier, split: Split, dataset: Dataset, compute: Compute) -> float:
    """Share of mistakes."""
    found = judge(classifier, split, len(dataset.classes), compute)
    return found.mistakes / found.examples


def _measure(name: str, arm: str, labels: int, bundle: Path, dataset: Dataset, options: BenchOptions) -> Cell:
    compute = device.choose(dataset.spec, threads=options.threads or os.cpu_count() or 1)
    tried = {rate: trained(plan_of(name, arm, labels, bundle, rate, 0), dataset, compute) for rate in RATES}
    tuning = {rate: error_of(one, dataset.validation, dataset, compute) for rate, one in tried.items()}
    best = min(tuning, key=lambda rate: tuning[rate])
    classifiers = [tried[best]]
    for seed in range(1, options.seeds or SEEDS):
        classifiers.append(trained(plan_of(name, arm, labels, bundle, best, seed), dataset, compute))
    errors = [error_of(one, dataset.test, dataset, compute) for one in classifiers]
    return Cell(name, arm, labels, best, {f"{rate:g}": error for rate, error in tuning.items()}, errors)


def read_cell(file: Path, seeds: int, rates: Sequence[float]) -> dict[str, Any] | None:
    """The fields of a cell that an earlier run has measured, if it tried these rates, and then as many seeds."""
    if not file.is_file():
        return None
    cell: dict[str, Any] = json.loads(file.read_text())
    is_same = list(cell["tuning"]) == [f"{rate:g}" for rate in rates] and len(cell["errors"]) == seeds
    return cell if is_same else None


def interval_of(errors: list[float]) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds, by Student's t."""
    if len(errors) < 2:
        return math.nan, math.nan
    reach = float(student.ppf(0.975, len(errors) - 1)) * statistics.stdev(errors) / math.sqrt(len(errors))
    return statistics.mean(errors) - reach, statistics.mean(errors) + reach


def accuracy(errors: list[float], digits: int) -> str:
    """The mean over the seeds in per cent, with its 95 % interval where there are several."""
    mean = f"{100 - 100 * statistics.mean(errors):.{digits}f}"
    if len(errors) < 2:
        return mean
    low, high = interval_of(errors)
    return f"{mean} [{100 - 100 * high:.{digits}f}, {100 - 100 * low:.{digits}f}]"


def _table(name: str, cells: list[Cell]) -> Table:
    rows = []
    for arm, label in ARMS.items():
        row = [label]
        for labels in LEARNERS[name].counts:
            cell = next(c for c in cells if (c.learner, c.arm, c.labels) == (name, arm, labels))
            row.append(f"{accuracy(cell.errors, 2)}, rate {cell.rate:g}")
        rows.append(tuple(row))
    title = f"{LEARNERS[name].label}: test accuracy in %, mean over seeds and its 95 % interval"
    return Table(title, ("", *(f"{labels:,} labels" for labels in LEARNERS[name].counts)), rows)


def _figure(cells: list[Cell]) -> Figure:
    names = list(dict.fromkeys(cell.learner for cell in cells))
    columns = min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 4 * rows), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        for arm, label in ARMS.items():
            shown = [cell for cell in cells if (cell.learner, cell.arm) == (name, arm)]
            means = [statistics.mean(cell.errors) for cell in shown]
            spread = [[mean - min(c.errors) for mean, c in zip(means, shown, strict=True)]]
            spread.append([max(c.errors) - mean for mean, c in zip(means, shown, strict=True)])
            axes.errorbar([cell.labels for cell in shown], means, spread, label=label, marker="o", capsize=3)
        axes.set(xscale="log", yscale="log", xlabel="labels", ylabel="test error", title=LEARNERS[name].label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.tick_params(which="both", labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _notes() -> list[str]:
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    updates = ", ".join(f"{count:,} at {labels:,}" for labels, count in COUNTS.items())
    return [
        f"Same net, same labelled examples, batch {BATCH}, Adam with a falling rate, and as many updates ({updates}) "
        f"in every row; rate out of {rates}, chosen by validation error on the first seed. Seeds differ in the "
        "labelled examples, the order, and the weights that are random. Pre-training saw all 55,000 training images "
        "without labels. No augmentation in the supervised part. Machines (RBM, DBN) are compared with sigmoid layers "
        "of the same sizes whose random weights have deviation 4 / sqrt(inputs); their own, 0.01, would be a handicap.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("few_labels")
