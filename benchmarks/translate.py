"""Dates as people write them to ISO: encoders, attention, greedy and beam search, and where the decoder looks."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.translate, or saccade bench translate")

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..agents.parts.compute import Compute
from ..training.fit import load_judged
from ..training.fit_plan import FitPlan
from ..training.tasks import find_task
from ..training.translate_task import TranslateTask, Translator, attention_figure
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, error_figure, fit_runs

kind = "dates in four languages to ISO, character by character: exact matches of held-out dates, and the attention map"

SEEDS = 3
GOAL = 0.99
GROUPS = {
    "lstm": FitGroup("LSTM, both directions, additive attention", ("dates", "--encoder", "lstm"), "99", most_threads=1),
    "gru": FitGroup("GRU, both directions, additive attention", ("dates", "--encoder", "gru"), most_threads=1),
    "dot": FitGroup(
        "LSTM, both directions, dot attention",
        ("dates", "--encoder", "lstm", "--task.attention", "dot"),
        most_threads=1,
    ),
    "causal": FitGroup(
        "LSTM, forwards only, additive attention",
        ("dates", "--encoder", "lstm", "--encoder.no-bidirectional", "--encoder.hidden", "128"),
        most_threads=1,
    ),
}
SHOWN = (0, 3, 5, 7, 9, 11)  # test pairs on the map


def runs(options: BenchOptions) -> list[Run]:
    """With one seed the first group alone; with more, its variants too."""
    several = (options.seeds or SEEDS) > 1
    return fit_runs(GROUPS if several else {"lstm": GROUPS["lstm"]}, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Exact matches by greedy and by beam search, the learning curves and the first run's attention map."""
    done = by_group(outcomes)
    rows = [_row(GROUPS[name], found) for name, found in done.items()]
    columns = (
        "",
        "exact, greedy, %",
        "of each seed",
        "exact, beam, %",
        "wrong symbols, %",
        "aim, %",
        "seconds",
        "core-seconds",
    )
    figures = {"translate": error_figure(GROUPS, outcomes, "Dates to ISO: share of validation dates with a mistake")}
    if done.get("lstm"):
        figures["translate-attention"] = map_of(done["lstm"][0].folder)
    reached = [_mean(found, "exact") >= GOAL for name, found in done.items() if name == "lstm" and found]
    title = "2,000 test dates, none of which occurs in training in any format; judged once"
    return Report([Table(title, columns, rows)], _notes(), {"met": bool(reached) and all(reached)}, figures)


def map_of(folder: Path) -> Figure:
    """The attention map of a run."""
    plan = FitPlan.load(folder)
    task = find_task(plan)
    assert isinstance(task, TranslateTask)
    model = task.make_model(plan, weights=False)
    assert isinstance(model, Translator)
    load_judged(folder, model)
    return attention_figure(model, task.dataset, SHOWN, Compute())


def _mean(found: Sequence[Outcome], name: str) -> float:
    return statistics.mean(outcome.result["test"][name] for outcome in found if outcome.result is not None)


def _row(group: FitGroup, found: Sequence[Outcome]) -> tuple[str, ...]:
    results = [outcome.result for outcome in found if outcome.result is not None]
    if not results:
        return (group.label, "all runs failed", "–", "–", "–", group.target, "–", "–")
    tests = [result["test"] for result in results]
    return (
        f"{group.label}, {results[0]['epochs']} epochs",
        f"{100 * _mean(found, 'exact'):.2f}",
        ", ".join(f"{100 * test['exact']:.2f}" for test in tests),
        f"{100 * statistics.mean(test['beam']['exact'] for test in tests):.2f}",
        f"{100 * _mean(found, 'wrong_symbols'):.3f}",
        group.target,
        number(statistics.median(result["seconds"] for result in results)),
        number(statistics.median(result["core_seconds"] for result in results)),
    )


def _notes() -> list[str]:
    return [
        "25,000 generated pairs of 21 formats in four languages (English, German, French, Spanish), letters as they "
        "are, small or capital; every day of 1950 to 2049 belongs to one split only. Decoder: a GRU of 128 units with "
        "additive attention (Bahdanau, Cho and Bengio 2015) or dot attention (Luong, Pham and Manning 2015). The beam "
        "is 4 wide. Seconds are those of updates on one thread; where others used the machine too, core-seconds tell "
        "what it took.",
        "One seed is of the first setting alone; `--seeds 3` runs GRU, dot attention and a causal encoder as well.",
        "On the map, a row is what the decoder told, and the columns what it read: darker, where it looked more.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("translate")
