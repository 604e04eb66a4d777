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
PUBLISHED = {  # mean errors in per cent over their seeds
    "DNC (Graves et al. 2016)": 16.7,
    "with masks, deallocation and sharper links (Csordás and Schmidhuber 2019)": 9.5,
    "with layer norm and bypass dropout (Franke et al. 2018)": 6.3,
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
    rows = [
        (task, *(f"{one.result['test']['groups'][task]:.1%}" for one in best.values() if one.result is not None))
        for task in tasks
    ]
    summaries = {
        "mean of the tasks": lambda test: f"{test['mean_of_groups']:.2%}",
        f"tasks with more than {FAILED:.0%}": lambda test: str(sum(e > FAILED for e in test["groups"].values())),
    }
    for label, say in summaries.items():
        rows.append((label, *(say(one.result["test"]) for one in best.values() if one.result is not None)))
    hours = [statistics.median(o.result["seconds"] for o in found if o.result) / 3600 for found in done.values()]
    rows.append(("hours", *map(number, hours)))
    table = Table(
        "bAbI en-10k, joint: wrong words of answers, test set", ("task", *(GROUPS[n].label for n in done)), rows
    )
    means = {n: [o.result["test"]["mean_of_groups"] for o in found if o.result] for n, found in done.items()}
    published = "; ".join(f"{name} {error} %" for name, error in PUBLISHED.items())
    notes = [
        "One story with all of its questions is a sequence; answers are asked at the token `-`, word by word where "
        "there are several. Trained on 90 % of the training stories, the rest for validation. A column is the "
        "seed with the lowest mean error on validation stories. Task 3 is of version 1.0, whose stories are shorter.",
        f"Published means: {published}.",
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
