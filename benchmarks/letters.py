"""The founding experiment: capital letters from fonts, a shallow net, a deep one, and the deep one pre-trained."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.letters, or saccade bench letters")

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from .. import data
from ..agents.parts.compute import Compute
from ..data import Dataset, Split
from ..data.letters import FONTS, SHORT_TEST
from ..encoders import find_encoder
from ..encoders.parts.augment_images import Augmentation
from ..training import device
from ..training.fit_plan import FitConfig, FitPlan
from ..training.optimise import Rule
from ..training.pictures import grid_figure
from ..training.pretrain_plan import PretrainConfig, PretrainPlan
from .few_labels import accuracy, error_of, interval_of, pretrained, read_cell, trained
from .parts.plan import BenchOptions, chosen
from .parts.report import Report, Table
from .parts.runner import places, processors

kind = "letters from fonts, one held out: 841-100-26 against 841-100-300-100-50-26, with and without pre-training"

SEEDS = 5
DEEP = (100, 300, 100, 50)  # units of the hidden layers
BATCH, EPOCHS = 100, 100
RATES: dict[Rule, tuple[float, ...]] = {  # the tuning budget, the same for all: one run each on the first seed
    "sgd": (0.1, 0.3, 1.0),
    "adam": (1e-3, 3e-3, 1e-2),
}
RULES: dict[Rule, str] = {"sgd": "gradient descent with momentum, as then", "adam": "Adam"}
PRETRAINING = PretrainConfig(epochs=200, batch_size=BATCH, picture_interval=0)  # 50 for each layer, in turn
# a rate of 0.1; as in the code that was published with Hinton & Salakhutdinov (2006), but the momentum stays; not tuned
MACHINES = {"hidden": DEEP, "gain": 100.0, "momentum": 0.5, "l2": 2e-4}


class Arm(NamedTuple):
    """A net, and where its weights come from."""

    label: str
    encoder: str
    settings: dict[str, Any]
    then: str  # of the founding experiment's 312 test images, in per cent


def _random(hidden: tuple[int, ...]) -> dict[str, Any]:
    """Sigmoid layers with random weights that keep the scale of what passes, by the encoder that has such."""
    return {
        "hidden": hidden[:-1],
        "code": hidden[-1],
        "activation": "sigmoid",
        "code_activation": "sigmoid",
        "initialisation": "he",
    }


ARMS = {
    "shallow": Arm("841-100-26, random weights", "autoencoder", _random(DEEP[:1]), "74.0"),
    "deep": Arm("841-100-300-100-50-26, random weights", "autoencoder", _random(DEEP), "about 1"),
    "pretrained": Arm("841-100-300-100-50-26, pre-trained as a DBN", "dbn", MACHINES, "85.6"),
}
choices = tuple(ARMS)


class Cell(NamedTuple):
    """One arm, one rule of descent."""

    arm: str
    rule: Rule
    rate: float  # chosen by validation error
    tuning: dict[str, float]  # rate -> validation error, first seed
    errors: list[float]  # of all test images, each seed
    short: list[float]  # of the first 312

    @property
    def validation(self) -> float:
        return min(self.tuning.values())


def measure(options: BenchOptions) -> Report:
    """Train what is not there yet: a run that was stopped goes on."""
    dataset, folder = data.load("letters"), places("letters", options.out).runs
    assert isinstance(dataset, Dataset)
    arms, seeds, cells = chosen(options.only, choices), options.seeds or SEEDS, list[Cell]()
    compute = device.choose(dataset.spec, precision="float32", threads=options.threads or processors())
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(transient=True) as progress:
        task = progress.add_task("nets", total=len(arms) * len(RATES))
        for arm in arms:
            for rule in RATES:
                file = folder / f"{arm}-{rule}.json"
                known = read_cell(file, seeds, RATES[rule])
                cells.append(Cell(**known) if known else _measure(arm, rule, dataset, folder, seeds, compute))
                file.write_text(json.dumps(cells[-1]._asdict()))
                progress.advance(task)
    return Report(
        [_table(cells)],
        [*_verdict(cells), *_notes(), f"Computed with {device.describe(compute)}."],
        {"cells": [cell._asdict() for cell in cells], "rates": RATES, "seeds": seeds},
        {"letters": bars(cells), "letters-sheet": sheet(dataset)},
    )


def bundle_of(folder: Path, seed: int, threads: int) -> Path:
    """The machines of a seed, trained one upon the other on the training images."""
    run = dataclasses.replace(PRETRAINING, seed=seed, threads=threads)
    plan = PretrainPlan("dbn", "letters", run, find_encoder("dbn").Config(**MACHINES))
    return pretrained(plan, folder / f"dbn-seed{seed}")


def plan_of(arm: str, rule: Rule, rate: float, seed: int, bundle: Path | None) -> FitPlan:
    """The supervised run. All arms read the same examples as often, in batches of the same size."""
    run = FitConfig(
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=rate,
        optimizer=rule,
        schedule="cosine",
        encoder_mode="scratch" if bundle is None else "finetune",
        validate_interval=EPOCHS,
        seed=seed,
    )
    config = find_encoder(ARMS[arm].encoder).Config(**ARMS[arm].settings)
    if bundle is not None:
        config = dataclasses.replace(config, rule="trainer")
    return FitPlan("letters", ARMS[arm].encoder, run, Augmentation(), config, None if bundle is None else str(bundle))


def _measure(arm: str, rule: Rule, dataset: Dataset, folder: Path, seeds: int, compute: Compute) -> Cell:
    def train(rate: float, seed: int) -> Any:
        bundle = bundle_of(folder, seed, torch.get_num_threads()) if arm == "pretrained" else None
        return trained(plan_of(arm, rule, rate, seed, bundle), dataset, compute)

    tried = {rate: train(rate, 0) for rate in RATES[rule]}
    tuning = {rate: error_of(one, dataset.validation, dataset, compute) for rate, one in tried.items()}
    best = min(tuning, key=lambda rate: tuning[rate])
    nets = [tried[best], *(train(best, seed) for seed in range(1, seeds))]
    short = Split(dataset.test.x[:SHORT_TEST], dataset.test.label[:SHORT_TEST])
    errors, few = ([error_of(net, split, dataset, compute) for net in nets] for split in (dataset.test, short))
    return Cell(arm, rule, best, {f"{rate:g}": error for rate, error in tuning.items()}, errors, few)


def _table(cells: list[Cell]) -> Table:
    rows = [
        (
            ARMS[cell.arm].label,
            RULES[cell.rule],
            f"{cell.rate:g}",
            f"{100 - 100 * cell.validation:.1f}",
            accuracy(cell.errors, 1),
            accuracy(cell.short, 1),
            ARMS[cell.arm].then,
        )
        for cell in cells
    ]
    columns = ("", "trained by", "rate", "validation", "2,600 test images", f"the first {SHORT_TEST}", "founding, 312")
    return Table("Accuracy in %, mean over seeds and its 95 % interval", columns, rows)


def best_cells(cells: list[Cell]) -> dict[str, Cell]:
    """For each arm the rule that its validation images chose."""
    found = dict[str, Cell]()
    for cell in sorted(cells, key=lambda cell: -cell.validation):
        found[cell.arm] = cell
    return found


def _verdict(cells: list[Cell]) -> list[str]:
    """How far ahead the pre-trained net is, by one rule and with each net's best."""
    found = []
    for name, group in {
        **{RULES[rule]: [cell for cell in cells if cell.rule == rule] for rule in RULES},
        "the rule that each net's validation images choose": cells,
    }.items():
        best = best_cells(group)
        if set(best) == set(ARMS):
            lead = {
                arm: 100 * (statistics.mean(best[arm].errors) - statistics.mean(best["pretrained"].errors))
                for arm in ("shallow", "deep")
            }
            word = "ahead of both" if min(lead.values()) > 0 else "not ahead of both"
            found.append(
                f"With {name} the pre-trained net is {word}: {lead['shallow']:+.1f} points against the shallow net, "
                f"{lead['deep']:+.1f} against the same net from random weights."
            )
    return found


def bars(cells: list[Cell]) -> Figure:
    """Errors of all test images, a bar for each arm and rule, with the interval over the seeds."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    arms = [arm for arm in ARMS if any(cell.arm == arm for cell in cells)]
    for number, (rule, label) in enumerate(RULES.items()):
        shown = [cell for cell in cells if cell.rule == rule]
        means = [100 * statistics.mean(cell.errors) for cell in shown]
        reach = [100 * interval_of(cell.errors)[1] - mean for cell, mean in zip(shown, means, strict=True)]
        known = [r if r == r else 0.0 for r in reach]  # one seed has no interval
        axes.bar([arms.index(cell.arm) + 0.4 * number - 0.2 for cell in shown], means, 0.38, yerr=known, label=label)
    axes.set_xticks(range(len(arms)), [ARMS[arm].label.replace(", ", "\n") for arm in arms], fontsize=8)
    axes.set(ylabel="test error, %", title="Letters, a font held out and more noise: mean and 95 % interval over seeds")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def sheet(dataset: Dataset) -> Figure:
    """One image of each letter of each font, of the training set and of the test set."""
    count, letters = len(dataset.classes), "".join(dataset.classes)
    parts = [dataset.train.x[: count * (len(FONTS) - 1)], dataset.test.x[: count * len(FONTS)]]
    images = 1 - torch.cat(parts).float().view(-1, count, *dataset.spec.shape[1:]) / 255
    rows = [f"{name}, {font}" for name, fonts in (("train", FONTS[:-1]), ("test", FONTS)) for font in fonts]
    return grid_figure(images.numpy(), "letters as they are learned and as they are judged", rows=rows, columns=letters)


def _notes() -> list[str]:
    budget = "; ".join(f"{rule}: {', '.join(f'{rate:g}' for rate in rates)}" for rule, rates in RATES.items())
    return [
        f"Sigmoid units, {EPOCHS} epochs of batches of {BATCH}, a rate that falls by a cosine; rates ({budget}) "
        "chosen by validation error on the first seed, for every net and rule. Random weights have deviation "
        "4 / sqrt(inputs), with which sigmoids keep the scale of what passes through them.",
        "Pre-training: 50 epochs of CD-1 for each of the four layers on the training images, rate 0.1, momentum 0.5, "
        "decay 2e-4; not tuned. It is fine-tuned with a new linear layer.",
        f"3,120 training images of {', '.join(FONTS[:-1])}; 1,040 for validation and 2,600 for the test, both with "
        f"{FONTS[-1]} too, turned and moved further and with more noise. What was done then is known by its figures "
        "only: fonts, noise and numbers of images are ours.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("letters")
