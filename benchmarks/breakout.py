"""Breakout: DQN with its best switches, PPO and PQN; whole games, unclipped."""

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

kind = "Breakout: DQN with its best switches, PPO and PQN; 30 whole games afterwards (two to four hours per run)"

ENV, HUMAN, SEEDS = "ALE/Breakout-v5", 30.5, 1  # human score: Mnih et al. 2015, extended data table 2
ROLLOUT_STEPS = 5_000_000  # of PPO and PQN, half of their presets': what fits into a few hours


def _groups(options: BenchOptions) -> dict[str, Group]:
    steps = options.steps or ROLLOUT_STEPS
    decay = ("--learning-rate-decay-steps", str(steps))
    explore = ("--epsilon-decay-steps", str(steps // 10))  # as the paper has it
    return {
        "dqn": Group("dqn", default_plan("dqn", ENV).run.steps, train("dqn", ENV), most_threads=None),
        "ppo": Group("ppo", steps, train("ppo", ENV, *decay), most_threads=None),
        "pqn": Group("pqn", steps, train("pqn", ENV, *decay, *explore), most_threads=None),
    }


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each, unless more are asked for."""
    return runs_of(_groups(options), options, SEEDS)


def protocol(agent: str, steps: int, env: str = ENV) -> dict[str, Any]:
    """What the score of `agent` means."""
    plan = default_plan(agent, env)
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


def told(stated: dict[str, Any]) -> str:
    """A protocol in one line."""
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in stated.items())


def in_words(score: dict[str, Any]) -> str:
    """The games of one run; `low` and `high` are None where it played one."""
    interval = "" if score["low"] is None else f", 95 % interval over games {score['low']:.1f} to {score['high']:.1f}"
    return f"mean {score['mean']:.1f}{interval}, from {min(score['scores']):.0f} to {max(score['scores']):.0f}."


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Scores, protocols and curves."""
    groups = _groups(options)
    groups = {name: group for name, group in groups.items() if any(o.run.group == name for o in outcomes)}
    stated = {name: protocol(name, options.steps or group.steps) for name, group in groups.items()}
    best = [
        f"{groups[outcome.run.group].label}, seed {outcome.run.seed}: {in_words(outcome.result['score'])}"
        for outcome in outcomes
        if outcome.result is not None
    ]
    words = [f"Protocol, {groups[name].label}. {told(each)}" for name, each in stated.items()]
    notes = [*best, *words, *single_seed_note(outcomes)]
    curves, title = curves_of(groups, outcomes), f"{ENV}, training games (unclipped)"
    figures = {
        f"breakout-{name}": curve_figure({group.label: curves[group.label]}, options.steps or group.steps, title)
        for name, group in groups.items()
        if group.label in curves
    }
    table = score_table(f"{ENV}: whole games, unclipped (a person: 30.5, random: 1.7)", groups, outcomes, HUMAN)
    return Report([table], notes, {"protocol": stated}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("breakout")
