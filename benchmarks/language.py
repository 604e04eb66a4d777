"""Language models: Penn Treebank by words, Shakespeare by characters, and what they write."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.language, or saccade bench language")

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..training.trackers import read_lines
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.supervised import FitGroup, fit_runs

kind = "language models: Penn Treebank by words, Shakespeare by characters, with a sample (two hours)"

SEEDS = 1
GROUPS = {
    "penn": FitGroup("Penn Treebank, words, LSTM", ("penn", "--encoder", "lstm"), "<= 95 in two hours"),
    "shakespeare": FitGroup("tinyshakespeare, characters, LSTM", ("shakespeare", "--encoder", "lstm")),
}
SHOWN = 500  # characters of a sample


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    rows, notes = [], []
    for name, done in by_group(outcomes).items():
        results = [outcome.result for outcome in done if outcome.result is not None]
        if not results:
            continue
        tests = [result["test"] for result in results]
        rows.append(
            (
                GROUPS[name].label,
                ", ".join(f"{test['perplexity']:.2f}" for test in tests),
                ", ".join(f"{test['bits_per_token']:.3f}" for test in tests),
                GROUPS[name].target,
                number(results[0]["seconds"] / 60),
                f"{results[0]['parameters']['training']:,}",
                f"{results[0]['epochs']}",
                number(results[0]["steps_per_second"]),
            )
        )
        notes.append(f"{GROUPS[name].label} writes: {tests[0]['sample'][:SHOWN]!r}")
    columns = ("", "test perplexity", "bits per token", "aim", "minutes", "parameters", "epochs", "tokens/s")
    title = "Next word or character of the test text, in 20 pieces each read from a blank state; no dynamic evaluation"
    return Report([Table(title, columns, rows)], notes, {}, {"language": curves_figure(outcomes)})


def curves_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Validation perplexity against minutes."""
    groups = {name: done for name, done in by_group(outcomes).items() if done}
    figure = Figure(figsize=(max(4 * len(groups), 5), 4), layout="constrained")
    panels = figure.subplots(1, max(len(groups), 1), squeeze=False)[0]
    for axes, (name, done) in zip(panels, groups.items(), strict=False):
        for outcome in done:
            records = [r for r in read_lines(outcome.folder / "metrics.jsonl") if "validation/perplexity" in r]
            minutes = [r["seconds"] / 60 for r in records]
            axes.plot(minutes, [r["validation/perplexity"] for r in records], marker=".", linewidth=1.2)
        axes.set(title=GROUPS[name].label, xlabel="minutes", yscale="log")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("validation perplexity")
    return figure


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("language")
