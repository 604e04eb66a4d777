"""Pendulum-v1: REINFORCE with a Gaussian policy."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.pendulum, or saccade bench pendulum")

from collections.abc import Sequence

from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, curve_figure

kind = "Pendulum-v1: REINFORCE with continuous actions, 4 million steps"

ENV, GOOD, SEEDS, STEPS = "Pendulum-v1", -400, 3, 4_000_000
GROUPS = {"reinforce": Group("reinforce, Gaussian policy", STEPS, train("reinforce", ENV))}


def runs(options: BenchOptions) -> list[Run]:
    """Three seeds."""
    return runs_of(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Final scores and the learning curve."""
    title = f"{ENV}, mean of 100 greedy episodes with the final parameters on fresh seeds (0 is perfect)"
    curves = curves_of(GROUPS, outcomes)
    figure = {"pendulum": curve_figure(curves, options.steps or STEPS, f"{ENV}, training episodes")} if curves else {}
    notes = single_seed_note(outcomes)
    return Report([score_table(title, GROUPS, outcomes, GOOD)], notes, {"threshold": GOOD}, figure)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("pendulum")
