"""CartPole without velocities: recurrent agents, PPO as it is without its memory, and DQN as it plays CartPole."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.masked_cartpole, or saccade bench masked_cartpole")

from collections.abc import Sequence

from ..training.plan import default_plan
from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, curve_figure

kind = "CartPole without velocities: PPO and DRQN with an LSTM to 475 of 500, PPO and DQN without a memory"

ENV, SOLVED, SEEDS = "masked/CartPole-v1", 475, 5


def groups() -> dict[str, Group]:
    """With a memory as their presets have them, and without."""
    ppo, drqn = (default_plan(agent, ENV).run.steps for agent in ("ppo", "drqn"))
    plain = ("--preset", "cartpole", "--learning-rate-decay-steps", str(drqn))
    return {
        "ppo-lstm": Group("PPO, LSTM", ppo, train("ppo", ENV)),
        "drqn-lstm": Group("DRQN, LSTM", drqn, train("drqn", ENV)),
        "ppo-none": Group("PPO without a memory", ppo, train("ppo", ENV, "--memory", "none")),
        "dqn-none": Group("DQN", drqn, train("dqn", ENV, *plain)),
    }


def runs(options: BenchOptions) -> list[Run]:
    """Five seeds of each setting."""
    return runs_of(groups(), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """How many seeds solve it, and the learning curves of each agent with a memory and without."""
    title = f"{ENV}, mean of 100 greedy episodes with the final parameters on fresh seeds"
    settings = groups()
    curves, figures = curves_of(settings, outcomes), {}
    for stem, names in (("ppo", ("ppo-lstm", "ppo-none")), ("drqn", ("drqn-lstm", "dqn-none"))):
        chosen = {
            settings[name].label: curves[settings[name].label] for name in names if settings[name].label in curves
        }
        if chosen:
            steps = options.steps or settings[names[0]].steps
            figures[f"masked_cartpole-{stem}"] = curve_figure(chosen, steps, f"{ENV}, training episodes")
    notes = ["An agent sees the cart's position and the pole's angle alone.", *single_seed_note(outcomes)]
    return Report([score_table(title, settings, outcomes, SOLVED)], notes, {"threshold": SOLVED}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("masked_cartpole")
