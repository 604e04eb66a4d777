"""A3C with 1, 2 and 4 workers, and A2C in one process with one thread and with two: steps per second, and scores."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.scaling, or saccade bench scaling")

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..training.trackers import read_lines
from .parts.groups import Group, curves_of, runs_of, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, curve_figure, interquartile_mean, means, number

kind = "A3C's steps per second and score with 1, 2 and 4 workers, against A2C in one process with 1 and 2 threads"
takes_env = True

ENV, SEEDS, WORKERS, THREADS = "CartPole-v1", 3, (1, 2, 4), (1, 2)
WORLDS = {"CartPole-v1": (200_000, 8, 100), "ALE/Breakout-v5": (100_000, 16, 10)}  # steps, copies, games to evaluate
WARM_UP = 0.2  # share of a run that does not count for its speed: workers begin, memory is allocated
# what both have, whatever presets say
SETTINGS = ("--preset", "none", "--learning-rate", "7e-4", "--rollout-steps", "5", "--discount", "0.99")


def groups_of(env: str) -> dict[str, Group]:
    """Every worker, and the one process, has as many copies of the world."""
    steps, copies, games = WORLDS.get(env, WORLDS["CartPole-v1"])
    options = [*SETTINGS, "--num-envs", str(copies), "--evaluate-episodes", str(games), "--precision", "float32"]
    if env.startswith("ALE/"):
        options += ["--clip-rewards", "--evaluate-epsilon", "0.01"]
    groups = {
        f"a2c-{threads}": Group(
            f"A2C, one process, {threads} thread{'s' * (threads > 1)}",
            steps,
            train("a2c", env, *options, "--env.threads", str(threads)),
            most_threads=threads,
        )
        for threads in THREADS
    }
    return groups | {
        f"a3c-{workers}": Group(
            f"A3C, {workers} worker{'s' * (workers > 1)}",
            steps,
            train("a3c", env, *options, "--workers", str(workers)),
        )
        for workers in WORKERS
    }


def runs(options: BenchOptions) -> list[Run]:
    """Seed by seed, so that all sides share the machine's ups and downs."""
    return runs_of(groups_of(options.env or ENV), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Speeds, their ratios, the lag of gradients, and scores."""
    env = options.env or ENV
    groups, done = groups_of(env), by_group(outcomes)
    speed = {name: steady_speed([o.folder for o in found]) for name, found in done.items() if found}
    rows = []
    for name, rate in speed.items():
        found = done[name]
        ratios = (number(rate / speed[base]) if base in speed else "–" for base in ("a3c-1", "a2c-2"))
        rows.append((groups[name].label, number(rate), *ratios, lag_of(found), str(interquartile_mean(means(found)))))
    first = next(iter(groups.values()))
    steps = options.steps or first.steps
    header = ("", "steps/s", "times A3C with 1", "times A2C with 2 threads", "lag: mean, most", "score: IQM [95 %]")
    table = Table(f"{env}: {steps:,} steps; medians of seeds", header, rows)
    notes = [
        "Each worker is a process with one torch thread and as many copies of the world as the one process of A2C has; "
        "speeds are of training alone, without the first fifth of each run. Runs that share the cores with something "
        "else (--jobs above 1) say nothing about speed.",
        "The lag is the number of updates by other workers between the reading of parameters and the writing of the "
        "gradient that was computed at them.",
        *single_seed_note(outcomes),
    ]
    figures = {"scaling-speed": speed_figure(speed, env)}
    if curves := curves_of(groups, outcomes):
        figures["scaling-curves"] = curve_figure(curves, steps, f"{env}, training episodes")
    return Report([table], notes, {"env": env, "steps_per_second": speed}, figures)


def steady_speed(folders: Sequence[Path]) -> float:
    """Environment steps per second once a run is going; the median of runs."""
    found = []
    for folder in folders:
        lines = read_lines(folder / "metrics.jsonl")
        begin = next(line for line in lines if line["step"] >= WARM_UP * lines[-1]["step"])
        seconds = lines[-1]["seconds"] - begin["seconds"]
        found.append((lines[-1]["step"] - begin["step"]) / seconds if seconds else 0.0)
    return statistics.median(found)


def lag_of(outcomes: Sequence[Outcome]) -> str:
    """Mean and greatest, over all runs; the synchronous form has none."""
    lags = [outcome.result["lag"] for outcome in outcomes if outcome.result is not None and "lag" in outcome.result]
    if not lags:
        return "–"
    return f"{statistics.fmean(lag['mean'] for lag in lags):.2f}, {max(lag['most'] for lag in lags)}"


def speed_figure(speed: dict[str, float], env: str) -> Figure:
    """Steps per second over the number of workers, and the synchronous form's as level lines."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    points = [(workers, speed[f"a3c-{workers}"]) for workers in WORKERS if f"a3c-{workers}" in speed]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", label="A3C")
    for threads, style in zip(THREADS, ("--", ":"), strict=True):
        if f"a2c-{threads}" in speed:
            label = f"A2C, {threads} thread{'s' * (threads > 1)}"
            axes.axhline(speed[f"a2c-{threads}"], linestyle=style, color="gray", label=label)
    axes.set(title=env, xlabel="workers", ylabel="environment steps per second", xticks=WORKERS)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("scaling")
