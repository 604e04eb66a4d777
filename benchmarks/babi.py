"""bAbI: twenty kinds of questions about little stories, learned together, task by task beside published errors."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.babi, or saccade bench babi")

import statistics
from collections.abc import Sequence

from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, error_figure, fit_runs

kind = "bAbI en-10k, all twenty tasks together: DNC, LSTM, transformer; errors by task (hours)"

SEEDS = 1
FAILED = 0.05  # a task with more wrong answers counts as failed (Weston et al. 2016)
BOUND = 0.1578  # mean error that the founding material reports of its DNC
# mean errors of each task in per cent, 20 runs: Graves et al. 2016, Extended Data Table 1, joint training, "DNC1"
GRAVES = (
    *(9.0, 39.2, 39.6, 0.4, 1.5, 6.9, 9.8, 5.5, 7.7, 9.6),
    *(3.3, 5.0, 3.1, 11.0, 27.2, 53.6, 32.4, 4.2, 64.6, 0.0),
)
# Csordás and Schmidhuber 2019 (arXiv:1904.10278), table 1, "DNC-MD": masks and deallocation
MASKED = (
    *(0.0, 6.9, 12.4, 0.1, 1.3, 0.1, 3.0, 2.5, 0.1, 0.5),
    *(0.0, 0.2, 0.1, 2.0, 23.6, 53.9, 39.8, 2.0, 40.7, 0.1),
)
PUBLISHED = {"DNC, Graves 2016": GRAVES, "DNC, Csordás 2019": MASKED}
MEANS = {  # likewise of all tasks
    "LSTM (Graves et al. 2016)": 27.3,
    "DNC with layer norm and bypass dropout (Franke et al. 2018)": 6.3,
    "the same, reading both ways": 3.2,
}
GROUPS = {
    "dnc": FitGroup("DNC", ("babi", "--encoder", "dnc")),
    "lstm": FitGroup("LSTM", ("babi", "--encoder", "lstm")),
    "transformer": FitGroup("transformer", ("babi", "--encoder", "transformer")),
}


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Errors by task of the seed with the lowest validation error, and means over seeds."""
    done = {name: found for name, found in by_group(outcomes).items() if found}
    best = {name: min(found, key=_validation) for name, found in done.items()}
    tasks = list(next(iter(best.values())).result["test"]["groups"]) if best else []  # type: ignore[index]
    columns = {
        GROUPS[name].label: [100 * one.result["test"]["groups"][task] for task in tasks]
        for name, one in best.items()
        if one.result is not None
    }
    columns |= {name: [errors[int(task.split()[0]) - 1] for task in tasks] for name, errors in PUBLISHED.items()}
    rows = [(task, *(f"{errors[n]:.1f}" for errors in columns.values())) for n, task in enumerate(tasks)]
    rows.append(("mean of the tasks", *(f"{statistics.fmean(errors):.2f}" for errors in columns.values())))
    failed = (sum(error > 100 * FAILED for error in errors) for errors in columns.values())
    rows.append((f"tasks with more than {100 * FAILED:g}", *map(str, failed)))
    hours = [statistics.median(o.result["seconds"] for o in found if o.result) / 3600 for found in done.values()]
    rows.append(("hours", *map(number, hours), *("–" for _ in PUBLISHED)))
    table = Table("bAbI en-10k, joint: wrong words of answers, test set, %", ("task", *columns), rows)
    means = {n: [o.result["test"]["mean_of_groups"] for o in found if o.result] for n, found in done.items()}
    published = "; ".join(f"{name} {error} %" for name, error in MEANS.items())
    notes = [
        "One story with all of its questions is a sequence; answers are asked at the token `-`, word by word where "
        "there are several. Trained on 90 % of the training stories, the rest for validation. A column is the "
        "seed with the lowest mean error on validation stories. Task 3 is of version 1.0, whose stories are shorter.",
        "The published columns are means over runs (Graves: 20, in which 11.2 tasks failed on average; here those "
        f"tasks count whose mean did). Further published means: {published}.",
        *(
            f"{GROUPS[n].label}: mean error of each seed {', '.join(f'{v:.2%}' for v in values)}."
            for n, values in means.items()
        ),
        f"To be beaten: the LSTM of the same table, and {BOUND:.2%}.",
    ]
    figures = {"babi": error_figure(GROUPS, outcomes, "bAbI, validation error while training")} if done else {}
    return Report([table], notes, {"mean_errors": means}, figures)


def _validation(outcome: Outcome) -> float:
    assert outcome.result is not None
    return float(outcome.result["validation"]["mean_of_groups"])


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("babi")
