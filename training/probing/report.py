"""What the probe found, as a table on the screen, in Markdown, in JSON and in TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...envs.errors import UserError
from ..trackers import TensorBoard
from .likelihood import REVERSED

RESULT_FILE, TABLE_FILE = "probe.json", "probe.md"
TITLES = {"codes": "codes", "pca": "PCA", "raw": "raw"}  # what is judged, in the order of the rows
STATISTICS = {
    "active_units": "active units (variance > 0.01)",
    "dead_units": "dead units",
    "saturated_units": "saturated units",
    "effective_rank": "effective rank",
    "zeros": "share of zeros",
    "hoyer": "Hoyer sparsity",
    "deviation": "deviation of a unit",
}


def write(directory: Path, report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    """Write all of it into `directory`; what an earlier probe left there goes.

    Raises:
        UserError: the directory holds something else, or cannot be written.
    """
    if directory.exists() and not _is_ours(directory):
        raise UserError(f"{directory} exists and holds no probe; choose another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old in (*directory.glob("*.png"), *directory.glob("events.out.tfevents.*")):
            old.unlink()
        for name, content in pictures.items():
            (directory / f"{name}.png").write_bytes(content)
        (directory / TABLE_FILE).write_text(markdown(report), encoding="utf-8")
        board = TensorBoard(directory)
        board.log(0, 0.0, scalars(report))
        for name, content in pictures.items():
            board.picture(0, f"probe/{name}", content)
        board.close()
        (directory / RESULT_FILE).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from error


def _is_ours(directory: Path) -> bool:
    return directory.is_dir() and ((directory / RESULT_FILE).is_file() or not any(directory.iterdir()))


def scalars(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers worth comparing between bundles, by a TensorBoard tag."""
    found = {}
    for name in ("learner", "pca"):
        if name in report.get("reconstruction", {}):
            found[f"probe/squared_error/{name}"] = report["reconstruction"][name]
    for name, judged in report.get("accuracy", {}).items():
        for metric in ("linear", "euclidean", "cosine"):
            found[f"probe/{metric}/{name}"] = judged[metric]["accuracy"]
        found |= {f"probe/labels_{few['labels']}/{name}": few["mean"] for few in judged["few_labels"]}
    if "likelihood" in report:
        found["probe/log_likelihood"] = report["likelihood"]["nats"]
    statistics = report.get("statistics", {})
    return found | {f"probe/codes/{name}": statistics[name] for name in STATISTICS if statistics.get(name) is not None}


def table_of(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The main table: headings (the codes, PCA codes and raw observations), and a row for each measure."""
    accuracy, error = report.get("accuracy", {}), report.get("reconstruction", {})
    names = [name for name in TITLES if name in accuracy or name == "codes" or (name == "pca" and error)]
    widths = {"codes": report["width"], "pca": report["pca_width"], "raw": report["size"]}
    rows = [["width", *(f"{widths[name]:,}" for name in names)]]
    if error:
        for title, found in (("squared error", error), ("its root", report["root_error"])):
            cells = {"codes": f"{found['learner']:,.2f}", "pca": f"{found['pca']:,.2f}"}
            rows.append([title, *(cells.get(name, "") for name in names)])
    if accuracy:
        columns = [_accuracy_cells(accuracy[name]) if name in accuracy else {} for name in names]
        rows += [[measure, *(column.get(measure, "") for column in columns)] for measure in columns[0]]
    return ["", *(TITLES[name] for name in names)], rows


def _accuracy_cells(judged: Mapping[str, Any]) -> dict[str, str]:
    cells = {"linear, %": f"{100 * judged['linear']['accuracy']:.2f}"}
    for metric, title in (("euclidean", "neighbours, %"), ("cosine", "neighbours by cosine, %")):
        cells[title] = f"{100 * judged[metric]['accuracy']:.2f} (k {judged[metric]['voters']})"
    for few in judged["few_labels"]:
        title = f"{few['labels']:,} labels, %"
        cells[title] = f"{100 * few['mean']:.1f} ± {100 * (few['high'] - few['mean']):.1f}"
    return cells


def statistics_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Statistics of the codes, by their titles."""
    statistics = report["statistics"]
    rows = {}
    if "likelihood" in report:
        found = report["likelihood"]
        low, high = ("–" if found[side] is None else f"{found[side]:,.2f}" for side in ("low", "high"))
        rows["log-likelihood, nats"] = f"{found['nats']:,.2f} [{low}, {high}]"
        if "backwards" in found:
            title = f"of {REVERSED} examples, backwards and forwards"
            rows[title] = f"{found['backwards']:,.2f}, {found['forwards']:,.2f}"
    for name, title in STATISTICS.items():
        value = statistics[name]
        if value is not None:
            of_all = f" of {statistics['units']:,}" if name.endswith("units") else ""
            rows[title] = (f"{value:,}" if isinstance(value, int) else f"{value:,.3g}") + of_all
    return rows


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What one must know to read the numbers."""
    counts = report["examples"]
    notes = []
    if "reconstruction" in report:
        notes.append(
            f"Squared error: sum over the {report['size']:,} numbers of an example in unit scale, mean over "
            f"{counts['test']:,} test examples; its root: mean L2 norm of the difference. PCA has as many components "
            f"as the codes (or the example) have numbers, fitted to {report['pca_examples']:,} training examples."
        )
    if "accuracy" in report:
        notes.append(
            f"Accuracies on {counts['test']:,} test examples, whose 95 % sampling error is at most "
            f"{report['sampling_error']:.2f} points, learned from {counts['train']:,} training examples: logistic "
            "regression on standardised features and a vote of k neighbours; penalty and k chosen on "
            f"{counts['validation']:,} validation examples. Few labels: logistic regression, mean of 5 balanced draws "
            "with its 95 % interval."
        )
    if "likelihood" in report:
        found = report["likelihood"]
        notes.append(
            f"Log-likelihood: mean over test examples, {found['how']} ({found['seconds']:.0f} s). Estimates backwards "
            "are too low on average, those forwards too high: the truth lies between where they have come close."
            if "backwards" in found
            else f"Log-likelihood: mean over test examples, {found['how']} ({found['seconds']:.0f} s)."
        )
    return notes


def markdown(report: Mapping[str, Any]) -> str:
    headings, rows = table_of(report)
    lines = [f"# {report['encoder']} on {report['data']}", ""]
    lines += [_line(headings), _line(["---", *["---:"] * (len(headings) - 1)]), *map(_line, rows), ""]
    lines += [*(f"{note}\n" for note in notes_of(report))]
    lines += ["## Codes", "", _line(["statistic", "value"]), _line(["---", "---:"])]
    lines += [_line([title, value]) for title, value in statistics_of(report).items()]
    if report["pictures"]:
        lines += ["", "## Pictures", ""]
        lines += [line for name, title in report["pictures"].items() for line in (f"![{title}]({name}.png)", "")]
    lines += ["", "## Cost", "", _line(["part", "seconds"]), _line(["---", "---:"])]
    lines += [_line([part, f"{seconds:.1f}"]) for part, seconds in report["seconds"].items()]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def show(report: Mapping[str, Any], directory: Path, screen: Console | None = None) -> None:
    """Print the tables."""
    screen = screen or Console(highlight=False)
    headings, rows = table_of(report)
    screen.print(f"[italic]{report['encoder']} on {report['data']}", soft_wrap=True)
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", style=None if number else "bold")
    for row in rows:
        table.add_row(*row)
    table.add_section()
    for title, value in statistics_of(report).items():
        table.add_row(title, value)
    screen.print(table)
    seconds, count = sum(report["seconds"].values()), len(report["pictures"])
    pictures = f" and {count} pictures" if count else ""
    screen.print(f"{seconds:.0f} seconds; tables{pictures} in {directory}", soft_wrap=True)
