"""Breakout: DQN with its best switches, whole games, unclipped."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.breakout, or saccade bench breakout")

from collections.abc import Sequence
from typing import Any

from ..envs.atari import resolve_protocol
from ..training.plan import default_plan
from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, curve_figure

kind = "Breakout: DQN with its best switches, 30 whole games afterwards (two to three hours per seed)"

ENV, HUMAN, SEEDS = "ALE/Breakout-v5", 30.5, 1  # human score: Mnih et al. 2015, extended data table 2


def _groups() -> dict[str, Group]:
    return {"dqn": Group("dqn", default_plan("dqn", ENV).run.steps, train("dqn", ENV), most_threads=None)}


def runs(options: BenchOptions) -> list[Run]:
    """One seed, unless more are asked for."""
    return runs_of(_groups(), options, SEEDS)


def protocol(steps: int) -> dict[str, Any]:
    """What the score means."""
    plan = default_plan("dqn", ENV)
    chosen = resolve_protocol(plan.env_options)
    return {
        "sticky_actions": chosen.sticky_actions,
        "life_lost": "ends what can be earned, not the game" if chosen.life_loss else "not told to the learner",
        "no_op_starts": chosen.noop_max,
        "fire_to_begin": chosen.fire_reset,
        "frame_skip": chosen.frame_skip,
        "cap_frames_per_game": chosen.max_frames,
        "training_frames": chosen.frame_skip * steps,
        "games": plan.run.evaluate_episodes,
        "epsilon": plan.run.evaluate_epsilon,
        "score": "unclipped, whole games",
    }


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Score, protocol and curve."""
    groups = _groups()
    steps = options.steps or groups["dqn"].steps
    stated = protocol(steps)
    title = f"{ENV}: {stated['games']} whole games at ε {stated['epsilon']}, unclipped (a person: 30.5, random: 1.7)"
    words = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in stated.items())
    best = [
        f"Seed {outcome.run.seed}: mean {score['mean']:.1f}, 95 % interval over games {score['low']:.1f} to "
        f"{score['high']:.1f}, from {min(score['scores']):.0f} to {max(score['scores']):.0f}."
        for outcome in outcomes
        if outcome.result is not None
        for score in (outcome.result["score"],)
    ]
    notes = [
        *best,
        f"Protocol. {words}. Frames are {stated['frame_skip']} times the steps.",
        *single_seed_note(outcomes),
    ]
    curves = curves_of(groups, outcomes)
    figures = {"breakout": curve_figure(curves, steps, f"{ENV}, training games (unclipped)")} if curves else {}
    return Report([score_table(title, groups, outcomes, HUMAN)], notes, {"protocol": stated}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("breakout")
