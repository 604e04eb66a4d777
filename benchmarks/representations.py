"""Does this representation help this agent? Learners, frozen, fine-tuned and co-trained, against plain training."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.representations, or saccade bench representations")

import json
import os
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..envs import EnvOptions, make_env
from ..envs.errors import UserError
from ..training.trackers import SCORE, read_lines
from .parts.groups import single_seed_note
from .parts.intervals import Line, estimate, interval_figure
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number, training_curve
from .parts.runner import labelled, places

kind = "DQN from images: scratch, random shift, and seven learners, each frozen, fine-tuned and co-trained"
takes_env = True

ENV, SEEDS, EPISODES = "pixels/CartPole-v1", 5, 50
MODES = ("frozen", "finetune", "cotrain")
PER_PIXEL = ("linear", "autoencoder", "vae", "rbm", "gaussian-rbm", "dbn")  # whose own loss is a sum over pixels
WINDOW = 0.2  # share of a run over which training episodes count as its score at a moment


class Size(NamedTuple):
    """What fits a world: chosen on learning from scratch alone."""

    steps: int  # environment steps of each run
    channels: str  # of the convolutions, 3x3 with stride 2, which all conv nets here share
    code: int  # width of the features, for all
    agent: tuple[str, ...]  # options of `saccade train`
    image_size: int
    frames: int  # recorded by random play, for pretraining
    epochs: int  # over them
    pixels: int = 1  # of an observation


SMALL = Size(12_000, "16 32 32", 50, (), 40, 10_000, 10)
ATARI = Size(400_000, "32 64 64", 256, ("--hidden", "512", "--learning-rate-decay-steps", "0"), 84, 50_000, 10)


def learners(size: Size) -> dict[str, tuple[str, ...]]:
    """Each row's learner and the settings of its encoder: the conv nets and the widths of the features are the same."""
    channels, code = ("--encoder.channels", *size.channels.split()), str(size.code)
    conv = ("--encoder.architecture", "conv", *channels)
    return {
        "linear": ("linear", "--encoder.code", code),
        # squared error through a sigmoid learns nothing but black from such dark pictures
        "autoencoder": ("autoencoder", *conv, "--encoder.code", code, "--encoder.loss", "bernoulli"),
        "vae": ("vae", *conv, "--encoder.hidden", "--encoder.activation", "relu", "--encoder.latents", code),
        "contrastive": ("contrastive", *conv, "--encoder.hidden", "--encoder.features", code),
        "rbm": ("rbm", "--encoder.hidden", code),
        "gaussian-rbm": ("rbm", "--encoder.hidden", code, "--encoder.visible", "gaussian"),
        "dbn": ("dbn", "--encoder.hidden", str(4 * size.code), code),
    }


class Cell(NamedTuple):
    """One row of the table."""

    label: str
    encoder: tuple[str, ...]  # options of `saccade train`; {seed} stands for the seed
    learner: str | None = None  # whose pretraining it begins with


def cells(size: Size, folder: str) -> dict[str, Cell]:
    """All rows by group name; `folder` is where pretraining lies."""
    plain = ("--encoder", *learners(size)["contrastive"], "--encoder.momentum", "0")
    found = {
        "scratch": Cell("from scratch", plain),
        "scratch-shift": Cell("from scratch, random shift", (*plain, "--encoder.augment-agent", "4")),
        "random-frozen": Cell("random features, frozen", (*plain, "--encoder-mode", "frozen")),
    }
    for learner in learners(size):
        for mode in MODES:
            options = ["--encoder", f"{folder}/pretrain-{learner}-seed{{seed}}", "--encoder-mode", mode]
            if mode == "cotrain" and learner in PER_PIXEL:
                options += ["--encoder-weight", f"{1 / size.pixels:.2g}"]
            found[f"{learner}-{mode}"] = Cell(f"{learner}, {mode}", tuple(options), learner)
    return found


def size_for(options: BenchOptions) -> Size:
    """Sizes for the world asked for, and the steps asked for.

    Raises:
        UserError: no such world, or it shows no images.
    """
    name = _env(options)
    size = ATARI if name.startswith("ALE/") else SMALL
    env = make_env(name, 1, EnvOptions(image_size=size.image_size))
    try:
        pixels = env.spec.observation.size
        if not env.spec.observation.is_image:
            raise UserError(
                f"representations are compared on images, but {name} shows {env.spec.observation.describe()}"
            )
    finally:
        env.close()
    return size._replace(steps=options.steps or size.steps, pixels=pixels)


def preparations(options: BenchOptions) -> list[Run]:
    """Each learner trained once for each seed, on frames of the world in random play."""
    size = size_for(options)
    budget = ("--frames", str(size.frames), "--epochs", str(size.epochs), "--picture-interval", "0")
    return [
        Run(
            f"pretrain-{row}",
            seed,
            ("saccade", "pretrain", learner, "--data", f"env:{_env(options)}", *_images(size), *settings, *budget),
        )
        for seed in range(options.seeds or SEEDS)
        for row, (learner, *settings) in learners(size).items()
    ]


def runs(options: BenchOptions) -> list[Run]:
    """Every cell with every seed, seed by seed, so that all cells share the machine's ups and downs."""
    size = size_for(options)
    return [
        Run(name, seed, (*_train(options, size), *(word.format(seed=seed) for word in cell.encoder)), size.steps)
        for seed in range(options.seeds or SEEDS)
        for name, cell in cells(size, _folder(options)).items()
    ]


def _env(options: BenchOptions) -> str:
    return options.env or ENV


def _train(options: BenchOptions, size: Size) -> tuple[str, ...]:
    """The words that all cells share."""
    steps = ("--steps", str(size.steps), "--evaluate-episodes", str(EPISODES))
    return ("saccade", "train", "dqn", "--env", _env(options), *_images(size), *size.agent, *steps)


def _images(size: Size) -> tuple[str, ...]:
    return ("--env.image-size", str(size.image_size))


def _folder(options: BenchOptions) -> str:
    """Where the runs go, as it is typed here: results then name no directory of this machine."""
    return os.path.relpath(places(labelled("representations", options.env), options.out).runs)


class Measured(NamedTuple):
    """What a run came to."""

    after: float  # mean of greedy episodes with the final parameters
    during: float  # mean of the learning curve
    in_time: float  # training episodes when the wall time of scratch was over, pretraining counted
    seconds: float  # of training
    pretraining: float  # seconds


def weigh(outcome: Outcome, learner: str | None, limit: float) -> Measured:
    """`limit`: seconds that learning from scratch takes for all its steps."""
    assert outcome.result is not None
    before = 0.0
    if learner is not None:
        folder = outcome.folder.with_name(f"pretrain-{learner}-seed{outcome.run.seed}")
        before = float(json.loads((folder / "result.json").read_text())["seconds"])
    curve = training_curve(outcome.folder, outcome.run.steps)
    return Measured(
        outcome.result["score"]["mean"],
        float(np.mean(curve)),
        score_at(outcome.folder, limit - before),
        outcome.result["seconds"],
        before,
    )


def score_at(folder: Path, seconds: float) -> float:
    """Mean training score in the last fifth of a run's first `seconds`, or of the run where it took less; NaN where
    no episode ended until then."""
    records = [(r["seconds"], r[SCORE]) for r in read_lines(folder / "metrics.jsonl") if r.get(SCORE) is not None]
    records = [(time, score) for time, score in records if time <= seconds]
    if not records:
        return float("nan")
    end = records[-1][0]
    return statistics.fmean(score for time, score in records if time >= (1 - WINDOW) * end)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """One table, one figure, and the command of every cell."""
    size, name = size_for(options), _env(options)
    asked = {outcome.run.group for outcome in outcomes}
    rows = {group: cell for group, cell in cells(size, _folder(options)).items() if group in asked}
    done = {group: found for group, found in by_group(outcomes).items() if found}
    limit = (
        statistics.median(o.result["seconds"] for o in done.get("scratch", ()) if o.result) if "scratch" in done else 0
    )
    measured = {
        group: [weigh(outcome, rows[group].learner, limit) for outcome in found] for group, found in done.items()
    }
    title = f"{name}, DQN, {size.steps:,} steps: interquartile means over seeds [95 % interval]"
    figure = {"representations": _figure(title, rows, measured)} if measured else {}
    notes = [*_notes(size, limit), _commands(size, options, rows), *single_seed_note(outcomes)]
    data = {
        "cells": {group: [one._asdict() for one in found] for group, found in measured.items()},
        "scratch_seconds": limit,
        "env": name,
    }
    return Report([_table(title, rows, done, measured)], notes, data, figure)


def _table(
    title: str, rows: dict[str, Cell], done: dict[str, list[Outcome]], measured: dict[str, list[Measured]]
) -> Table:
    columns = (
        "what the agent sees with",
        "seeds",
        "greedy, after all steps",
        "while training",
        "at equal wall time",
        "seconds, pretraining + training",
        "parameters trained (frozen)",
    )
    lines = []
    for group, found in measured.items():
        counts = _result(done[group][0])["parameters"]
        lines.append(
            (
                rows[group].label,
                str(len(found)),
                *(str(estimate([getattr(one, field) for one in found])) for field in ("after", "during", "in_time")),
                f"{_median(found, 'pretraining')} + {_median(found, 'seconds')}",
                f"{counts['training']:,} ({counts['frozen']:,})",
            )
        )
    return Table(title, columns, lines)


def _result(outcome: Outcome) -> dict[str, Any]:
    assert outcome.result is not None
    return outcome.result


def _median(found: Sequence[Measured], field: str) -> str:
    return number(statistics.median(getattr(one, field) for one in found))


def _figure(title: str, rows: dict[str, Cell], measured: dict[str, list[Measured]]) -> Figure:
    """Intervals of all cells under each other, at equal frames and at equal wall time."""
    panels = {"after": "score after equally many steps", "in_time": "training score after equal wall time"}
    names = list(learners(SMALL))
    lines = [
        Line(
            rows[group].label,
            f"C{names.index(learner)}" if (learner := rows[group].learner) else "black",
            {field: [getattr(one, field) for one in found] for field in panels},
            is_reference=group == "scratch",
        )
        for group, found in measured.items()
    ]
    return interval_figure(title, panels, lines)


def _notes(size: Size, limit: float) -> list[str]:
    wall_time = (
        f"At equal wall time: training episodes in the last fifth before {limit:,.0f} s, the median time of learning "
        "from scratch, had passed; cells that were through before count as they ended, and could have gone on."
    )
    if not limit:
        wall_time = "Nothing is known at equal wall time: learning from scratch, which sets the time, was not measured."
    return [
        f"The agent, its head and the width of the features ({size.code}) are the same in every cell, and so are the "
        f"convolutions ({size.channels} channels, 3x3, stride 2) of all but `linear`, which is one linear map, and the "
        f"Boltzmann machines, which are dense (`dbn` with {4 * size.code} units below its features). From scratch, "
        "agents see through the net of `contrastive`. Settings were chosen on learning from scratch "
        "alone, and no other cell was tuned. Co-training counts reconstructions per pixel, contrast in nats.",
        f"Pretraining: {size.epochs} epochs over {size.frames:,} frames of random play, for each learner and seed; "
        "they are not counted among the steps. At equal wall time its updates count, recording does not.",
        f"Greedy: mean of {EPISODES} episodes with the final parameters on fresh seeds. While training: mean of the "
        f"learning curve, random actions included. {wall_time} All runs took turns on one machine.",
    ]


def _commands(size: Size, options: BenchOptions, rows: dict[str, Cell]) -> str:
    """What to type for every cell, once for all seeds."""
    folder, read = _folder(options), {f"pretrain-{cell.learner}" for cell in rows.values()}
    lines = [
        f"saccade {shlex.join(run.arguments[1:])} --seed 0 --out {folder}/{run.name}"
        for run in preparations(options)
        if run.seed == 0 and run.group in read
    ]
    for group, cell in rows.items():
        words = [word.format(seed=0) for word in (*_train(options, size)[1:], *cell.encoder)]
        lines.append(f"saccade {shlex.join(words)} --seed 0 --out {folder}/{group}-seed0")
    return "Commands of the first seed:\n\n```\n" + "\n".join(lines) + "\n```"


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("representations")
