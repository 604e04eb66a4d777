"""Pong: how many steps and how long PPO takes until it wins."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.pong, or saccade bench pong")

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..training.trackers import SCORE, read_lines
from .breakout import in_words, protocol, told
from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, curve_figure, number

kind = "Pong: steps and wall time of PPO until its games are won by 18 points (one to two hours)"

ENV, ENOUGH, SEEDS, STEPS = "ALE/Pong-v5", 18.0, 1, 4_000_000


def _groups(options: BenchOptions) -> dict[str, Group]:
    decay = ("--learning-rate-decay-steps", str(options.steps or STEPS))
    return {"ppo": Group("ppo", STEPS, train("ppo", ENV, *decay), most_threads=None)}


def runs(options: BenchOptions) -> list[Run]:
    """One seed, unless more are asked for."""
    return runs_of(_groups(options), options, SEEDS)


class Reached(NamedTuple):
    """When the mean score of recent training games first was enough."""

    steps: int
    seconds: float


def first_reached(folder: Path, score: float = ENOUGH) -> Reached | None:
    """None: it never was."""
    for record in read_lines(folder / "metrics.jsonl"):
        if record.get(SCORE) is not None and record[SCORE] >= score:
            return Reached(record["step"], record["seconds"])
    return None


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Scores of whole games, when training games were won, and the curve."""
    groups, steps = _groups(options), options.steps or STEPS
    rows, notes, data = [], [], dict[str, Any]()
    for outcome in outcomes:
        if outcome.result is None:
            continue
        found = first_reached(outcome.folder)
        when = ("not reached", "–") if found is None else (f"{found.steps:,}", number(found.seconds / 60))
        rows.append((outcome.run.name, *when, number(outcome.result["seconds"] / 60), str(outcome.result["threads"])))
        notes.append(f"{outcome.run.name}: {in_words(outcome.result['score'])}")
        data[outcome.run.name] = None if found is None else found._asdict()
    title = f"When the mean of recent training games first reached {ENOUGH:g} (best: 21)"
    columns = ("", "steps", "minutes of training", "minutes for all steps", "threads")
    tables = [
        score_table(f"{ENV}: whole games afterwards (a person: 9.3, random: -20.7)", groups, outcomes, ENOUGH),
        Table(title, columns, rows),
    ]
    stated = protocol("ppo", steps, ENV)
    notes += [f"Protocol. {told(stated)}", *single_seed_note(outcomes)]
    figure = curve_figure(curves_of(groups, outcomes), steps, f"{ENV}, training games")
    return Report(tables, notes, {"protocol": stated, "reached": data}, {"pong": figure})


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("pong")
