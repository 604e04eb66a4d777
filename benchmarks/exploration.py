"""Eight ways to explore, for DQN on CartPole-v1: greedy, four constant shares of random actions, three that fall."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.exploration, or saccade bench exploration")

from collections.abc import Sequence

import numpy as np

from .parts.groups import Group, runs_of, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, curve_figure, interquartile_mean, means, training_curve

kind = "greedy, constant and annealed exploration for DQN on CartPole-v1, as one figure"

ENV, SEEDS, STEPS = "CartPole-v1", 5, 50_000
DECAY_SHARE = 0.5  # of the run in which epsilon falls
# name -> label, epsilon at first, epsilon at last
SETTINGS = {
    "greedy": ("greedy", 0.0, 0.0),
    "constant-0.05": ("ε = 0.05", 0.05, 0.05),
    "constant-0.25": ("ε = 0.25", 0.25, 0.25),
    "constant-0.5": ("ε = 0.5", 0.5, 0.5),
    "constant-0.9": ("ε = 0.9", 0.9, 0.9),
    "annealed-1": ("ε 1 → 0.001", 1.0, 0.001),
    "annealed-0.5": ("ε 0.5 → 0.001", 0.5, 0.001),
    "annealed-0.25": ("ε 0.25 → 0.001", 0.25, 0.001),
}


def _groups(steps: int) -> dict[str, Group]:
    groups = {}
    for name, (label, first, last) in SETTINGS.items():
        epsilon = ("--epsilon-initial", str(first), "--epsilon-final", str(last))
        decay = ("--epsilon-decay-steps", str(max(int(DECAY_SHARE * steps), 1)))
        groups[name] = Group(label, steps, train("dqn", ENV, *epsilon, *decay))
    return groups


def runs(options: BenchOptions) -> list[Run]:
    """Five seeds of each of the eight settings."""
    return runs_of(_groups(options.steps or STEPS), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """One figure of training scores with intervals; a table of what was learned and what it cost to learn it."""
    steps = options.steps or STEPS
    rows, curves, data = [], {}, {}
    for name, done in by_group(outcomes).items():
        label = SETTINGS[name][0]
        if not done:
            rows.append((label, "all runs failed", "–"))
            continue
        curve = np.stack([training_curve(outcome.folder, steps) for outcome in done])
        training = interquartile_mean(curve.mean(1))
        rows.append((label, str(interquartile_mean(means(done))), str(training)))
        data[name] = training._asdict()
        if np.isfinite(curve).all():
            curves[label] = curve
    title = f"Exploration: DQN on {ENV}, {steps:,} steps; interquartile means over seeds [95 % interval]"
    table = Table(title, ("exploration", "greedy episodes afterwards", "episodes while training"), rows)
    figures = {"exploration": curve_figure(curves, steps, f"Exploration: DQN on {ENV}, training episodes")}
    notes = [
        f"Annealed: linear over the first {DECAY_SHARE:.0%} of the run. Greedy episodes: mean of 100 with the final "
        "parameters, on fresh seeds. Episodes while training: the mean of the learning curve, random actions included.",
        *single_seed_note(outcomes),
    ]
    return Report([table], notes, {"training_score": data}, figures if curves else {})


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("exploration")
