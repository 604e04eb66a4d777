"""Flickering Pong: each frame is black by chance. What a recurrent agent makes of single frames, at equal frames."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.flicker, or saccade bench flicker")

from collections.abc import Sequence

from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, curve_figure

kind = "flickering Pong: DRQN of single frames, DQN of single frames, DQN of stacks (hours per seed)"
takes_env = True

ENV, SEEDS, STEPS = "ALE/Pong-v5", 1, 1_000_000
FLICKER = 0.5  # Hausknecht and Stone 2015, section 5
FRAMES_PER_STEP = 4


def groups(options: BenchOptions) -> dict[str, Group]:
    """Three settings; `--env` takes another game, `--steps` other lengths, and exploration with them."""
    env, steps = options.env or ENV, options.steps or STEPS
    decays = ("--learning-rate-decay-steps", "0", "--epsilon-decay-steps", str(max(1, steps // 10)))
    shared = ("--env.flicker", str(FLICKER), *decays)
    settings = {
        "drqn": ("drqn, single frames", train("drqn", env, "--env.stack", "1", *shared)),
        "dqn": ("dqn, single frames", train("dqn", env, "--env.stack", "1", *shared)),
        "dqn-stacked": ("dqn, stacks of 4", train("dqn", env, "--env.stack", "4", *shared)),
    }
    return {name: Group(label, steps, arguments, most_threads=None) for name, (label, arguments) in settings.items()}


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each, unless more are asked for."""
    return runs_of(groups(options), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Scores beside each other, curves, and how they were come by."""
    env, steps, chosen = options.env or ENV, options.steps or STEPS, groups(options)
    title = f"{env}, each frame black with probability {FLICKER:g}: 30 whole games at ε 0.05"
    notes = [
        f"All see the same number of frames, {FRAMES_PER_STEP * steps:,}, and evaluation flickers as training does. "
        "Each has its preset for Atari, all double, dueling, 3-step, prioritised; drqn has an LSTM, sequences of 20 "
        "steps after 10 of burn-in. The paper's figure for DRQN is 12.1, after far more frames.",
        *single_seed_note(outcomes),
    ]
    curves = curves_of(chosen, outcomes)
    figures = {"flicker": curve_figure(curves, steps, f"{env}, flickering, training games")} if curves else {}
    protocol = {"flicker": FLICKER, "frames_per_step": FRAMES_PER_STEP, "steps": steps}
    return Report([score_table(title, chosen, outcomes)], notes, {"protocol": protocol}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("flicker")
