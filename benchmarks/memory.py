"""Every memory against recall and the T-maze, of lengths 10, 50 and 200, in a value-based and a policy-based agent."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.memory, or saccade bench memory")

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ..envs.errors import UserError
from .parts.groups import Group, curves_of, runs_of, single_seed_note, train
from .parts.learners import words
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, curve_figure, means, number, speeds

kind = "lstm, gru, ntm, dnc and none on recall and T-mazes of lengths 10, 50 and 200, in DRQN and A2C"
takes_env = True

SEEDS = 3
STEPS = {  # of the environments in each run, by the length of the task; replay learns from a step more than once
    "drqn": {10: 50_000, 50: 100_000, 200: 400_000},
    "a2c": {10: 100_000, 50: 300_000, 200: 1_000_000},
}
MEMORIES = {  # options of each; the states and the costs of a step are of like size
    "none": (),
    "lstm": ("--memory.hidden", "64", "--memory.horizon", "{horizon}"),
    "gru": ("--memory.hidden", "64", "--memory.horizon", "{horizon}"),
    "ntm": ("--memory.hidden", "64", "--memory.width", "16"),
    "dnc": ("--memory.hidden", "64", "--memory.slots", "32", "--memory.width", "16"),
}
LABELS = {"none": "feed-forward"}


class Task(NamedTuple):
    """A kind of world."""

    name: str  # in tables
    env: str  # with {length}
    solved: float  # the least mean of greedy episodes
    chance: float  # the best mean without a memory


TASKS = {
    "recall": Task("recall", "diagnostic/recall-{length}", 0.95, 0.0),
    "t-maze": Task("T-maze", "diagnostic/t-maze-{length}", 3.8, 1.95),
}


class Cell(NamedTuple):
    """One setting: its seeds are one number of the table."""

    agent: str
    task: str
    length: int
    memory: str

    @property
    def group(self) -> str:
        return f"{self.agent}-{self.task}-{self.length}-{self.memory}"

    @property
    def env(self) -> str:
        return TASKS[self.task].env.format(length=self.length)

    @property
    def steps(self) -> int:
        return STEPS[self.agent][self.length]

    @property
    def unroll(self) -> int:
        """Steps of an episode that an able player needs: gradients reach from the answer to the cue. That is what is
        compared here, not how well a memory does without."""
        return self.length if self.task == "recall" else self.length + self.length // 2


def cells(options: BenchOptions) -> list[Cell]:
    """All settings, or with `--env` those of one world.

    Raises:
        UserError: it is none of this benchmark's worlds.
    """
    found = [
        Cell(agent, task, length, memory)
        for task in TASKS
        for length in STEPS["drqn"]
        for memory in MEMORIES
        for agent in STEPS
    ]
    worlds = {cell.env for cell in found}
    if options.env is not None and options.env not in worlds:
        raise UserError(f"memory has no world {options.env!r}; --env is one of: {', '.join(sorted(worlds))}")
    return [cell for cell in found if options.env in (None, cell.env)]


def agent_options(cell: Cell) -> tuple[str, ...]:
    """The agent's name and settings."""
    unroll = str(cell.unroll)
    if cell.agent == "a2c":
        return ("a2c", "--rollout-steps", unroll, *words("--learning-rate 3e-3 --optimizer adam --gae-lambda 0.95"))
    shared = words("--learning-rate 1e-3 --learning-starts 5000 --target-interval 1000 --n-step 5")
    exploration = ("--epsilon-decay-steps", str(cell.steps // 5), "--epsilon-final", "0.05")
    if cell.memory == "none":  # without a memory a transition is all there is to replay
        return ("dqn", *shared, *exploration)
    sequences = ("--sequence-length", unroll, "--burn-in", "0", "--sequence-interval", unroll)
    return ("drqn", *shared, *exploration, *sequences, "--update-interval", str(max(64, cell.unroll)))


def memory_options(cell: Cell) -> tuple[str, ...]:
    """The memory's name and settings; gates begin such that they keep over an episode, where they can be told so."""
    if cell.memory == "none":
        return ()
    return ("--memory", cell.memory, *(word.format(horizon=cell.unroll) for word in MEMORIES[cell.memory]))


def groups(options: BenchOptions) -> dict[str, Group]:
    """The runs of every setting, seeds apart."""
    found = {}
    for cell in cells(options):
        agent, *settings = agent_options(cell)
        encoder = ("--preset", "none", "--encoder", "mlp", "--encoder.hidden", "32")
        worlds = ("--num-envs", "16", "--save-interval-seconds", "3600", "--no-save-replay")
        label = f"{cell.agent}, {LABELS.get(cell.memory, cell.memory)}"
        arguments = train(agent, cell.env, *encoder, *memory_options(cell), *settings, *worlds)
        found[cell.group] = Group(label, cell.steps, arguments)
    return found


def runs(options: BenchOptions) -> list[Run]:
    """Three seeds of each setting."""
    return runs_of(groups(options), options, SEEDS)


def _row(cell: Cell, done: Sequence[Outcome], asked: int) -> tuple[str, ...]:
    label, task = LABELS.get(cell.memory, cell.memory), TASKS[cell.task]
    if not done:
        return (label, cell.agent, "–", f"0 of {asked}", "all runs failed", "–")
    scores = means(done)
    solved = f"{sum(score >= task.solved for score in scores)} of {asked}"
    steps, speed = f"{done[0].run.steps:,}", number(statistics.median(speeds(done)))
    return (label, cell.agent, steps, solved, ", ".join(map(number, scores)), speed)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """For each world how many seeds solve it, their scores, and the learning curves of all memories."""
    chosen, done = groups(options), by_group(outcomes)
    tables, figures, share = [], {}, {}
    for env in dict.fromkeys(cell.env for cell in cells(options)):
        here = [cell for cell in cells(options) if cell.env == env and cell.group in done]
        if not here:
            continue
        task = TASKS[here[0].task]
        asked = {cell.group: sum(outcome.run.group == cell.group for outcome in outcomes) for cell in here}
        rows = [_row(cell, done[cell.group], asked[cell.group]) for cell in here]
        title = (
            f"{task.name} over {here[0].length} steps: solved is a mean of at least {task.solved:g} in 100 greedy "
            f"episodes; without a memory {task.chance:g} is the best there is"
        )
        tables.append(
            Table(title, ("memory", "agent", "environment steps", "solved", "mean of each seed", "steps/s"), rows)
        )
        for cell in here:
            good = sum(score >= task.solved for score in means(done[cell.group]))
            share[cell.group] = good / asked[cell.group]
        for agent in STEPS:
            names = {cell.group for cell in here if cell.agent == agent}
            curves = curves_of(chosen, [outcome for outcome in outcomes if outcome.run.group in names])
            if curves:
                stem = f"memory-{here[0].task}-{here[0].length}-{agent}"
                steps = options.steps or STEPS[agent][here[0].length]
                figures[stem] = curve_figure(curves, steps, f"{task.name} over {here[0].length} steps, {agent}")
    notes = [
        "Gradients reach back as far as the cue: drqn replays sequences, a2c unrolls, as long as the recall (T-maze: "
        "half as long again). The gates of lstm and gru begin such that they keep for 2 steps to as many, evenly "
        "spread (--memory.horizon); ntm and dnc are told nothing. Feed-forward in drqn's rows is dqn. Behind a "
        "perceptron of 32 units each.",
        *single_seed_note(outcomes),
    ]
    return Report(tables, notes, {"solved": share}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("memory")
