"""Groups of runs that differ in their seed only, and the tables and figures that all such benchmarks share."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .plan import BenchOptions, Outcome, Run
from .report import Table, by_group, interquartile_mean, means, number, speeds, training_curve


class Group(NamedTuple):
    """One setting of a benchmark."""

    label: str  # in tables and figures
    steps: int  # environment steps of each run
    arguments: tuple[str, ...]  # behind `python -m`, without steps, seed, threads and directory
    most_threads: int | None = 1  # of torch; networks of a few units lose by sharing


def train(agent: str, env: str, *options: str) -> tuple[str, ...]:
    """The arguments of `saccade train`."""
    return ("saccade", "train", agent, "--env", env, *options)


def runs_of(groups: Mapping[str, Group], options: BenchOptions, seeds: int) -> list[Run]:
    """`seeds` runs of each group unless the options say otherwise.

    They come seed by seed, so that all groups share the machine's ups and downs.
    """
    return [
        Run(name, seed, (*group.arguments, "--steps", str(steps)), steps, group.most_threads)
        for seed in range(options.seeds or seeds)
        for name, group in groups.items()
        for steps in (options.steps or group.steps,)
    ]


def score_table(
    title: str, groups: Mapping[str, Group], outcomes: Sequence[Outcome], threshold: float | None = None
) -> Table:
    """Interquartile mean over seeds of the evaluation, each seed's mean, and how many reach `threshold`."""
    rows = []
    for name, done in by_group(outcomes).items():
        if not done:
            rows.append((groups[name].label, "–", "all runs failed", *["–"] * (threshold is not None), "–"))
            continue
        scores = means(done)
        asked = sum(outcome.run.group == name for outcome in outcomes)
        reached = (f"{sum(s >= threshold for s in scores)} of {asked}",) if threshold is not None else ()
        rows.append(
            (
                f"{groups[name].label}, {done[0].run.steps:,} steps",
                str(interquartile_mean(scores)),
                ", ".join(map(number, scores)),
                *reached,
                number(statistics.median(speeds(done))),
            )
        )
    reach = (f"at least {threshold:g}",) if threshold is not None else ()
    return Table(title, ("", "IQM [95 % interval]", "mean of each seed", *reach, "steps/s"), rows)


def curves_of(groups: Mapping[str, Group], outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    """Training scores by label: `[seeds, BINS]`, without runs in which no episode ended."""
    curves: dict[str, np.ndarray] = {}
    for name, done in by_group(outcomes).items():
        found = [training_curve(outcome.folder, outcome.run.steps) for outcome in done]
        found = [curve for curve in found if np.isfinite(curve).all()]
        if found:
            curves[groups[name].label] = np.stack(found)
    return curves


def single_seed_note(outcomes: Sequence[Outcome]) -> list[str]:
    """What intervals mean where there is one seed: nothing."""
    if len({outcome.run.seed for outcome in outcomes}) > 1:
        return []
    return ["One seed: an interval over seeds cannot be given; that over this run's episodes is in the JSON file."]
