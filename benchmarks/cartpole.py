"""CartPole-v1: final parameters, 100 greedy episodes on fresh seeds, for DQN, PQN, REINFORCE and a peer."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.cartpole, or saccade bench cartpole")

import statistics
from collections.abc import Sequence

from .parts import peer_sb3
from .parts.groups import Group, curves_of, runs_of, score_table, single_seed_note, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, curve_figure, number, speeds

kind = "CartPole-v1: DQN, PQN and REINFORCE to 475 of 500, on every seed"

ENV, SOLVED, SEEDS = "CartPole-v1", 475, 5
# The recipe that this project began with: two layers of 16 units, Adam 1e-3, discount 0.98, 8 episodes per update,
# plain returns without a baseline.
BOOK = "--encoder.hidden 16 16 --learning-rate 1e-3 --discount 0.98 --episodes-per-update 8 --baseline none"
GROUPS = {
    "dqn": Group("dqn", 50_000, train("dqn", ENV)),
    "pqn": Group("pqn", 300_000, train("pqn", ENV)),
    "reinforce": Group("reinforce with baseline", 300_000, train("reinforce", ENV)),
    "reinforce-book": Group(
        "reinforce, the book's recipe",
        300_000,
        train("reinforce", ENV, "--preset", "none", "--encoder", "mlp", "--no-normalise-returns", *BOOK.split()),
    ),
}
PEER = {
    "dqn-plain": Group("dqn without double Q-learning, as SB3's", 50_000, train("dqn", ENV, "--no-double")),
    "sb3-dqn": Group("SB3's dqn", 50_000, ("saccade.benchmarks.parts.peer_sb3", "--env", ENV)),
}


def runs(options: BenchOptions) -> list[Run]:
    """Five seeds of each setting."""
    if options.against == "sb3":
        peer_sb3.require_sb3()
    return runs_of(GROUPS | (PEER if options.against == "sb3" else {}), options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """How many seeds solve it, the learning curves, and the speed beside the peer's."""
    groups = GROUPS | PEER
    title = f"{ENV}, mean of 100 greedy episodes with the final parameters on fresh seeds"
    tables = [score_table(title, groups, outcomes, SOLVED)]
    done = by_group(outcomes)
    if done.get("dqn-plain") and done.get("sb3-dqn"):
        tables.append(_speed_table(done))
    figures = {}
    curves = curves_of(groups, outcomes)
    for stem, names in (
        ("dqn", ("dqn", "dqn-plain", "sb3-dqn")),
        ("pqn", ("pqn",)),
        ("reinforce", ("reinforce", "reinforce-book")),
    ):
        chosen = {groups[name].label: curves[groups[name].label] for name in names if groups[name].label in curves}
        if chosen:
            steps = options.steps or groups[names[0]].steps
            figures[f"cartpole-{stem}"] = curve_figure(chosen, steps, f"{ENV}, training episodes")
    return Report(tables, single_seed_note(outcomes), {"threshold": SOLVED}, figures)


def _speed_table(done: dict[str, list[Outcome]]) -> Table:
    ours, theirs = (statistics.median(speeds(done[name])) for name in ("dqn-plain", "sb3-dqn"))
    title = "Whole runs with the same hyper-parameters and threads, by turns; training only"
    rows = [("saccade", number(ours), number(ours / theirs)), ("SB3", number(theirs), "1")]
    return Table(title, ("", "steps/s (median of seeds)", "times SB3"), rows)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("cartpole")
