"""MNIST read step by step: by rows and by pixels, with recurrent nets and a transformer."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.sequential_mnist, or saccade bench sequential_mnist")

from collections.abc import Sequence

from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, error_figure, fit_runs

kind = "MNIST row by row and pixel by pixel: LSTM, GRU, transformer; test accuracy"

SEEDS = 1
GROUPS = {
    **{
        f"rows-{encoder}": FitGroup(f"28 rows, {encoder}", ("sequential-mnist", "--encoder", encoder))
        for encoder in ("lstm", "gru", "transformer")
    },
    "pixels-lstm": FitGroup("784 pixels, lstm", ("pixel-mnist", "--encoder", "lstm")),
}


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    rows = []
    for name, done in by_group(outcomes).items():
        results = [outcome.result for outcome in done if outcome.result is not None]
        if results:
            accuracies = ", ".join(f"{100 - 100 * result['test']['error']:.2f}" for result in results)
            minutes, speed = results[0]["seconds"] / 60, results[0]["steps_per_second"]
            rows.append((GROUPS[name].label, accuracies, str(results[0]["epochs"]), number(minutes), number(speed)))
    columns = ("", "test accuracy, %", "epochs", "minutes", "images/s")
    title = "MNIST as sequences, all 10,000 test images, answered after the last step"
    figures = {"sequential_mnist": error_figure(GROUPS, outcomes, "validation error while training")}
    return Report([Table(title, columns, rows)], [], {}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("sequential_mnist")
