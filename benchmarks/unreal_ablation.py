"""UNREAL taken apart: A2C with a memory in a maze, with each auxiliary task beside it, and with all of them."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.unreal_ablation, or saccade bench unreal_ablation")

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from .parts.groups import Group, curves_of, runs_of, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import BINS, Report, Table, by_group, curve_figure, interquartile_mean, means, number, speeds

kind = "A2C with an LSTM in a maze, alone, with each of UNREAL's auxiliary tasks, and with all of them"
takes_env = True

ENV, SEEDS, STEPS = "maze/3", 3, 800_000  # the base agent alone learns nothing of maze/5 in 600,000
TASKS = {"pixel-control": 0.01, "reward-prediction": 1.0, "value-replay": 1.0}  # option and weight
# what all have, whatever presets say
SETTINGS = (
    *("--preset", "none", "--memory", "lstm", "--memory.hidden", "256", "--memory-reads-last"),
    *("--num-envs", "16", "--rollout-steps", "20", "--learning-rate", "7e-4", "--discount", "0.99"),
    *("--entropy-weight", "0.01", "--evaluate-episodes", "20"),
)
BASE, ALL = "base", "all"
FINAL = BINS // 5  # parts of a curve whose mean is its final score
SMOOTH = 5  # parts of a curve whose mean must reach it


def groups_of(env: str, steps: int) -> dict[str, Group]:
    """The base agent, one task beside it at a time, all of them."""
    options = [*SETTINGS, *(("--env.image-size", "42") if env.startswith("maze/") else ())]
    groups = {BASE: Group("A2C", steps, train("a2c", env, *options))}
    chosen = {task: (task,) for task in TASKS} | {ALL: tuple(TASKS)}
    for name, tasks in chosen.items():
        weights = [word for task in TASKS for word in (f"--{task}", str(TASKS[task] if task in tasks else 0.0))]
        label = "UNREAL: all three" if name == ALL else f"A2C + {name.replace('-', ' ')}"
        groups[name] = Group(label, steps, train("unreal", env, *options, *weights))
    return groups


def runs(options: BenchOptions) -> list[Run]:
    """Three seeds of each of the five settings."""
    return runs_of(groups_of(options.env or ENV, STEPS), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """A figure of training scores with intervals; when each setting is as good as the base agent in the end."""
    env, steps = options.env or ENV, options.steps or STEPS
    groups, done = groups_of(env, steps), by_group(outcomes)
    found = curves_of(groups, outcomes)  # by label
    curves = {name: found[group.label] for name, group in groups.items() if group.label in found}
    target = float(curves[BASE][:, -FINAL:].mean()) if BASE in curves else np.nan
    rows, data = [], {}
    for name, group in groups.items():
        if name not in done:
            continue  # it was not asked for
        if name not in curves:
            rows.append((group.label, "all runs failed", *["–"] * 5))
            continue
        curve, reached = curves[name], [steps_to(each, target, steps) for each in curves[name]]
        final = interquartile_mean(curve[:, -FINAL:].mean(1))
        data[name] = {"final": final._asdict(), "steps_to_reach": reached, "gain": float(gain(curves, name))}
        rows.append(
            (
                group.label,
                str(final),
                str(interquartile_mean(curve.mean(1))),
                when(reached, steps),
                share(curves, name),
                str(interquartile_mean(means(done[name]))),
                number(statistics.median(speeds(done[name]))),
            )
        )
    header = (
        "",
        "final training score: IQM [95 %]",
        "mean of the whole curve",
        "steps to the base agent's final score: median (of the run), seeds",
        "share of all tasks' gain",
        "greedy episodes afterwards",
        "steps/s",
    )
    table = Table(f"{env}, {steps:,} steps; interquartile means over seeds [95 % interval]", header, rows)
    notes = [
        f"Final: the last {FINAL / BINS:.0%} of the run. A run has reached the base agent's final score (the mean of "
        f"its seeds) when {SMOOTH / BINS:.0%} of the run on end have that mean. The gain of a task is how much higher "
        "its mean of the whole curve is than the base agent's, and its share that of the gain of all together; shares "
        "need not add up. With all weights 0 UNREAL is A2C, to the last bit.",
        *single_seed_note(outcomes),
    ]
    figures = {"unreal_ablation": curve_figure(found, steps, f"{env}, training episodes")} if curves else {}
    return Report([table], notes, {"env": env, "target": target, "groups": data}, figures)


def steps_to(curve: np.ndarray, target: float, steps: int) -> int | None:
    """Environment steps after which the mean of `SMOOTH` parts of `curve` `[BINS]` was first at least `target`."""
    running = np.convolve(curve, np.full(SMOOTH, 1 / SMOOTH), "valid")
    reached = np.flatnonzero(running >= target)
    return int((reached[0] + SMOOTH) * steps / BINS) if len(reached) else None


def when(reached: Sequence[int | None], steps: int) -> str:
    """The median, its share of the run, and how many seeds: one that never came counts as later than all."""
    there = [each for each in reached if each is not None]
    middle = statistics.median_high([steps + 1 if each is None else each for each in reached])
    median = "never" if middle > steps else f"{middle:,} ({middle / steps:.0%})"
    return f"{median}, {len(there)} of {len(reached)}"


def gain(curves: Mapping[str, np.ndarray], name: str) -> float:
    """How much higher the mean of the whole curve is than the base agent's."""
    return curves[name].mean() - curves[BASE].mean() if BASE in curves else np.nan


def share(curves: Mapping[str, np.ndarray], name: str) -> str:
    """Of the gain of all tasks together; a dash where that is none."""
    if name == BASE or ALL not in curves or not gain(curves, ALL) > 0:
        return "–"
    return f"{gain(curves, name) / gain(curves, ALL):.0%}"


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("unreal_ablation")
