"""Tagging CoNLL-2000: parts of speech and chunks, by a window of words, a BiLSTM and a BiLSTM-CRF."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.tagging, or saccade bench tagging")

import math
import statistics
from collections.abc import Sequence
from typing import Any

from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, error_figure, fit_runs

kind = "CoNLL-2000: POS accuracy and chunk F1 of a window tagger, a BiLSTM and a BiLSTM-CRF"

SEEDS = 1
MUST = {"pos": 96.5, "chunks": 92.5}
GOAL = {"pos": 97.0, "chunks": 94.0}
MEASURE = {"pos": "accuracy", "chunks": "f1"}
_NETS = {
    "window": ("window of five words, MLP", ("--encoder", "mlp")),
    "bilstm": ("BiLSTM", ("--encoder", "lstm")),
    "crf": ("BiLSTM-CRF", ("--encoder", "lstm", "--task.crf")),
}
GROUPS = {
    f"{task}-{name}": FitGroup(label, (task, *words), most_threads=1)
    for task in ("pos", "chunks")
    for name, (label, words) in _NETS.items()
}
GROUPS["chunks-given"] = FitGroup(
    "BiLSTM-CRF, parts of speech given",
    ("chunks", "--encoder", "lstm", "--task.crf", "--task.tags", "25"),
    most_threads=1,
)
NAMES = {"pos": "parts of speech, accuracy", "chunks": "chunks, F1"}


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Accuracy or F1 of every tagger beside what is asked for, and learning curves of both tasks."""
    done = by_group(outcomes)
    columns = (
        "task",
        "tagger",
        "test, %",
        "of each seed",
        "must",
        "goal",
        "precision / recall, %",
        "right words, %",
        "right among unknown words, %",
        "seconds",
        "core-seconds",
    )
    title = "CoNLL-2000, all 2,012 test sentences (47,377 words), judged once"
    table = Table(title, columns, [_row(name, found) for name, found in done.items()])
    figures = {}
    for task, name in NAMES.items():
        groups = {group: GROUPS[group] for group in GROUPS if group.startswith(task)}
        shown = [outcome for outcome in outcomes if outcome.run.group in groups]
        if any(outcome.result is not None for outcome in shown):
            figures[f"tagging-{task}"] = error_figure(groups, shown, f"{name}: 1 minus it, on the validation set")
    return Report([table], _notes(), {"best": best(done), "must": MUST, "goal": GOAL}, figures)


def best(done: dict[str, list[Outcome]]) -> dict[str, float]:
    """The mean over seeds of the best tagger of each task, in per cent."""
    found: dict[str, float] = {}
    for name, outcomes in done.items():
        task = name.partition("-")[0]
        if outcomes:
            found[task] = max(found.get(task, -math.inf), 100 * _mean(outcomes, MEASURE[task]))
    return found


def _tests(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [outcome.result["test"] for outcome in found if outcome.result is not None]


def _mean(found: Sequence[Outcome], name: str) -> float:
    return statistics.mean(test.get(name, math.nan) for test in _tests(found))


def _row(name: str, found: Sequence[Outcome]) -> tuple[str, ...]:
    task = name.partition("-")[0]
    aims = (f"{MUST[task]:.1f}", f"{GOAL[task]:.1f}")
    tests, results = _tests(found), [outcome.result for outcome in found if outcome.result is not None]
    if not tests:
        return (NAMES[task], GROUPS[name].label, "all runs failed", "–", *aims, *["–"] * 5)
    measure = MEASURE[task]
    both = "–" if task == "pos" else " / ".join(f"{100 * _mean(found, part):.2f}" for part in ("precision", "recall"))
    return (
        NAMES[task],
        f"{GROUPS[name].label}, {results[0]['epochs']} epochs",
        f"{100 * _mean(found, measure):.2f}",
        ", ".join(f"{100 * test[measure]:.2f}" for test in tests),
        *aims,
        both,
        f"{100 * _mean(found, 'accuracy'):.2f}",
        f"{100 * _mean(found, 'unknown_accuracy'):.2f}",
        number(statistics.median(result["seconds"] for result in results)),
        number(statistics.median(result["core_seconds"] for result in results)),
    )


def _notes() -> list[str]:
    return [
        "Sections 15 to 18 of the Wall Street Journal for training (8,936 sentences), section 20 for the test (Tjong "
        "Kim Sang and Buchholz 2000). The chunks come from the treebank; the parts of speech are not the treebank's "
        "but were told by Brill's tagger, so accuracy on them is agreement with that tagger. Precision, recall and F1 "
        "of chunks follow the task's own `conlleval`: a chunk is right where its first word, its last word and its "
        "type are.",
        "Every tagger reads a word as a learned vector of 100 numbers, 30 filters over its characters (Ma and Hovy "
        "2016) and a feature of capitals; nothing was learned from other texts. Only where it says so are the parts "
        "of speech of the data read too, as the official task allows. Unknown words occur less than twice in training.",
        "The last weights of a run, averaged, are judged; nothing is chosen by the test set. Seconds are those of "
        "updates on one thread.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("tagging")
