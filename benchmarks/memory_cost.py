"""What a DNC costs inside an agent: 200,000 steps in DRQN and A3C, beside an LSTM."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.memory_cost, or saccade bench memory_cost")

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..training.trackers import read_lines
from .memory import MEMORIES, TASKS, Cell, agent_options, memory_options
from .parts.groups import Group, runs_of, train
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, means, number, speeds

kind = "a DNC of 32 slots inside DRQN and A3C for 200,000 steps: no NaN, and its cost per step against an LSTM's"

SEEDS, STEPS, LENGTH = 1, 200_000, 50
AGENTS = {"drqn": "drqn", "a3c": "a2c"}  # and whose settings in `memory` it takes
COMPARED = ("lstm", "dnc")


def groups(options: BenchOptions) -> dict[str, Group]:
    """Both agents with both memories, on recall."""
    found = {}
    for agent, like in AGENTS.items():
        for memory in COMPARED:
            cell = Cell(like, "recall", LENGTH, memory)
            settings = ("--preset", "none", "--encoder", "mlp", "--encoder.hidden", "32", *memory_options(cell))
            settings += (*agent_options(cell)[1:], "--num-envs", "16", "--save-interval-seconds", "3600")
            own = ("--no-save-replay",) if agent == "drqn" else ("--workers", "1")
            if agent == "a3c":  # its optimiser is its own: shared RMSProp
                place = settings.index("--optimizer")
                settings = (*settings[:place], *settings[place + 2 :])
            found[f"{agent}-{memory}"] = Group(f"{agent}, {memory}", STEPS, train(agent, cell.env, *settings, *own))
    return found


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each, unless more are asked for."""
    return runs_of(groups(options), options, SEEDS)


def is_finite(folder: Path) -> bool:
    """Whether all that a run has logged is: losses, norms of gradients, scores."""
    numbers = (value for record in read_lines(folder / "metrics.jsonl") for value in record.values())
    return all(math.isfinite(value) for value in numbers if isinstance(value, float))


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Speeds, and their ratios within each agent."""
    done, rows, data = by_group(outcomes), [], {}
    median = {name: statistics.median(speeds(found)) for name, found in done.items() if found}
    for name, found in done.items():
        if not found:
            rows.append((name, "–", "all runs failed", "–", "–", "–"))
            continue
        lstm = f"{name.split('-')[0]}-lstm"
        ratio = median[lstm] / median[name] if lstm in median else math.nan
        finite = all(is_finite(outcome.folder) for outcome in found)
        steps = f"{found[0].result['steps']:,}" if found[0].result else "–"
        scores = ", ".join(map(number, means(found)))
        rows.append((name, steps, scores, "yes" if finite else "NO", number(median[name]), f"{ratio:.1f}"))
        data[name] = {"steps_per_second": median[name], "times_lstm": ratio, "is_finite": finite}
    columns = ("", "steps", "mean of each seed", "all finite", "steps/s with learning", "cost of a step, times LSTM's")
    title = f"{TASKS['recall'].name} over {LENGTH} steps, unrolled over as many"
    notes = [
        f"LSTM: {' '.join(MEMORIES['lstm'][:2])}. DNC: {' '.join(MEMORIES['dnc'])}, an LSTM as controller, one read "
        "head. 16 environments; a3c with one worker. Solved is a mean of "
        f"{TASKS['recall'].solved:g}; all else as in the benchmark `memory`. Finite: every loss, gradient norm and "
        "score that was logged.",
    ]
    return Report([Table(title, columns, rows)], notes, {"cost": data})


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("memory_cost")
