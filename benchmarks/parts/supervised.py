"""What the benchmarks of `saccade fit` share: groups of runs, and their tables and curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...training.trackers import read_lines
from .plan import BenchOptions, Outcome, Run
from .report import Table, by_group, number


class FitGroup(NamedTuple):
    """One setting: the words behind `saccade fit`."""

    label: str  # in tables and figures
    arguments: tuple[str, ...]  # task and options, without seed, threads and directory
    target: str = "–"  # what is to be reached, for people
    seeds: int | None = None  # where it takes another number than the benchmark's own
    most_threads: int | None = None


def fit_runs(groups: Mapping[str, FitGroup], options: BenchOptions, seeds: int) -> list[Run]:
    """Runs seed by seed, so that all groups share the machine's ups and downs."""
    counts = {name: options.seeds or group.seeds or seeds for name, group in groups.items()}
    return [
        Run(name, seed, ("saccade", "fit", *group.arguments), 0, group.most_threads)
        for seed in range(max(counts.values()))
        for name, group in groups.items()
        if seed < counts[name]
    ]


def accuracy_table(title: str, groups: Mapping[str, FitGroup], outcomes: Sequence[Outcome]) -> Table:
    """Test accuracy of every group: each seed's, and the mean with the 95 % interval over test images and seeds."""
    rows = []
    for name, done in by_group(outcomes).items():
        group = groups[name]
        if not done:
            rows.append((group.label, "all runs failed", "–", group.target, "–", "–", "–", "–"))
            continue
        tests = [outcome.result["test"] for outcome in done if outcome.result is not None]
        results = [outcome.result for outcome in done if outcome.result is not None]
        low, high = statistics.mean(t["low"] for t in tests), statistics.mean(t["high"] for t in tests)
        epochs, mean = results[0]["epochs"], 100 * statistics.mean(t["accuracy"] for t in tests)
        rows.append(
            (
                f"{group.label}, {epochs} epochs",
                f"{mean:.2f} [{100 - 100 * high:.2f}, {100 - 100 * low:.2f}]",
                ", ".join(f"{100 * t['accuracy']:.2f}" for t in tests),
                group.target,
                number(statistics.median(r["seconds"] for r in results)),
                number(statistics.median(r.get("core_seconds", math.nan) for r in results)),
                number(statistics.median(r["steps_per_second"] for r in results)),
                str(results[0]["threads"]),
            )
        )
    columns = (
        "",
        "test accuracy, % [95 % interval of one run]",
        "of each seed",
        "aim",
        "seconds",
        "core-seconds",
        "images/s",
        "threads",
    )
    return Table(title, columns, rows)


def error_figure(groups: Mapping[str, FitGroup], outcomes: Sequence[Outcome], title: str) -> Figure:
    """Validation error against seconds of training, the median of the seeds at each epoch."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, done in by_group(outcomes).items():
        curves = [error_curve(outcome.folder) for outcome in done]
        length = min(map(len, curves), default=0)
        if length:
            seconds, error = np.median([curve[:length] for curve in curves], axis=0).T
            axes.plot(seconds, error, label=groups[name].label, linewidth=1.5, marker=".")
    axes.set(title=title, xlabel="seconds of training", ylabel="validation error", yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2%}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
    axes.tick_params(which="both", labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def error_curve(folder: Path) -> np.ndarray:
    """(seconds, validation error) after each epoch that was judged, `[epochs, 2]`; errors of 0 are left out."""
    records = read_lines(folder / "metrics.jsonl")
    points = [(record["seconds"], record["validation/error"]) for record in records if record.get("validation/error")]
    return np.array(points, dtype=np.float64).reshape(-1, 2)
