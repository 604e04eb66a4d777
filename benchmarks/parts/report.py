"""What benchmarks report: tables, figures and JSON, with interquartile means and bootstrap intervals."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table as RichTable
from scipy.stats import trim_mean

from ...training.trackers import SCORE, read_lines
from .plan import Outcome

REPETITIONS = 2000  # bootstrap samples (Agarwal et al. 2021 use 2,000 for intervals of aggregates)
BINS = 50  # points of a learning curve
DOTS_PER_INCH = 110


class Estimate(NamedTuple):
    """An interquartile mean with its 95 % interval; arrays for curves."""

    value: Any
    low: Any
    high: Any

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


@dataclass(frozen=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        rows = [self.columns, ("---",) * len(self.columns), *self.rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join([f"**{self.title}**", "", *lines])

    def show(self, console: Console) -> None:
        table = RichTable(title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)


@dataclass(frozen=True)
class Report:
    """What a benchmark has to say; `write` turns it into files."""

    tables: list[Table]
    notes: list[str]  # protocol and caveats, one sentence or paragraph each
    data: dict[str, Any]  # for the JSON file
    figures: dict[str, Figure] = field(default_factory=dict)  # file name without ending -> figure
    problems: list[str] = field(default_factory=list)  # what makes the command fail, such as a slower build


def interquartile_mean(scores: Sequence[float] | np.ndarray) -> Estimate:
    """Interquartile mean of one number per seed, with its 95 % stratified bootstrap interval (Agarwal et al. 2021).

    Args:
        scores: `[seeds]`, or `[seeds, points]` for a curve, of which every point is estimated alone.
    """
    # imported here: it pulls in half of SciPy's neighbours, and most commands need none of it
    from rliable import library

    array = np.asarray(scores, np.float64)
    shaped = array.reshape(len(array), 1, -1)  # runs x tasks x points
    with _seeded_global_generator():
        points, intervals = library.get_interval_estimates({"": shaped}, _middle_half, reps=REPETITIONS)
    shape = array.shape[1:]
    low, high = intervals[""]
    return Estimate(*(value.reshape(shape) if shape else float(value[0]) for value in (points[""], low, high)))


def _middle_half(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over runs and tasks for every point, as rliable's `aggregate_iqm`: `[R, T, P]` to `[P]`."""
    return trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0)


@contextmanager
def _seeded_global_generator() -> Iterator[None]:
    """rliable draws from NumPy's global generator whatever `random_state` it is given: fix it, then put it back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def training_curve(folder: Path, steps: int, name: str = SCORE) -> np.ndarray:
    """The mean of metric `name` in each of `BINS` equal parts of a run of `steps` steps: `[BINS]`.

    Parts in which it was not recorded are interpolated; before the first record the first value holds.
    """
    sums, counts = np.zeros(BINS), np.zeros(BINS)
    for record in read_lines(folder / "metrics.jsonl"):
        if record.get(name) is not None:
            part = min(int(record["step"] * BINS / steps), BINS - 1)
            sums[part] += record[name]
            counts[part] += 1
    if not counts.any():
        return np.full(BINS, np.nan)
    known = np.flatnonzero(counts)
    return np.interp(np.arange(BINS), known, sums[known] / counts[known])


def curve_figure(curves: dict[str, np.ndarray], steps: int, title: str) -> Figure:
    """Interquartile mean and interval over the seeds of each label; `curves` maps labels to `[seeds, BINS]`."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    x = (np.arange(BINS) + 0.5) * steps / BINS
    for label, values in curves.items():
        estimate = interquartile_mean(values)
        (line,) = axes.plot(x, estimate.value, label=label, linewidth=1.5)
        axes.fill_between(x, estimate.low, estimate.high, color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set(title=title, xlabel="environment steps", ylabel="score of training episodes", xlim=(0, steps))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=8)
    return figure


def by_group(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The runs that succeeded, by group; a group of which none did is there with an empty list."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        group = groups.setdefault(outcome.run.group, [])
        if outcome.result is not None:
            group.append(outcome)
    return groups


def means(outcomes: Sequence[Outcome]) -> list[float]:
    """Each run's mean evaluation score."""
    return [outcome.result["score"]["mean"] for outcome in outcomes if outcome.result is not None]


def speeds(outcomes: Sequence[Outcome]) -> list[float]:
    """Each run's environment steps per second."""
    return [outcome.result["steps_per_second"] for outcome in outcomes if outcome.result is not None]


def runs_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Every run's result and every group's aggregate, for the JSON file."""
    groups = {}
    for group, done in by_group(outcomes).items():
        if done and all("score" in outcome.result for outcome in done if outcome.result is not None):
            estimate = interquartile_mean(means(done))
            score = {"interquartile_mean": estimate.value, "low": estimate.low, "high": estimate.high}
            groups[group] = {"seeds": [outcome.run.seed for outcome in done], "score": score, "means": means(done)}
    runs = [
        {
            "group": outcome.run.group,
            "seed": outcome.run.seed,
            "command": ["python", "-m", *outcome.run.arguments],
            "result": outcome.result,
            "error": outcome.error or None,
        }
        for outcome in outcomes
    ]
    return {"groups": groups, "runs": runs}


def origins(outcomes: Sequence[Outcome], commit: str | None) -> list[str]:
    """A note where runs are of other commits than `commit`, or of several machines: a report holds all that earlier
    calls finished."""
    found: dict[str, dict[str, list[int]]] = {}  # place -> group -> seeds
    commits = set()
    for outcome in outcomes:
        if outcome.result is not None and "commit" in outcome.result:
            result = outcome.result
            processor, threads = result["machine"]["processor"], result["threads"]
            place = f"`{result['commit']}` on {processor}, {threads} thread{'s' * (threads > 1)}"
            found.setdefault(place, {}).setdefault(outcome.run.group, []).append(outcome.run.seed)
            commits.add(result["commit"])
    if len(found) < 2 and commits <= {commit}:
        return []
    told = []
    for place, groups in found.items():
        shared = {group for other, its in found.items() if other != place for group in its}
        names = (f"{g} (seeds {', '.join(map(str, seeds))})" if g in shared else g for g, seeds in groups.items())
        told.append(f"{', '.join(names)} at {place}")
    return ["Where the runs are from: " + "; ".join(told) + "."]


def _save(figure: Figure, path: Path) -> None:
    """As PNG with 256 colours: curves and pages of digits need no more, and take half of the space."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS_PER_INCH, format="png")
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def write(name: str, folder: Path, report: Report, provenance: dict[str, Any]) -> list[Path]:
    """Write `NAME.json`, `NAME.md` and the figures into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {folder / f"{stem}.png": figure for stem, figure in report.figures.items()}
    for path, figure in figures.items():
        _save(figure, path)
    # not finite: what could not be measured; JSON knows no such number
    data = json.loads(json.dumps(provenance | report.data, default=_plain), parse_constant=lambda _: None)
    (folder / f"{name}.json").write_text(_lines(data), encoding="utf-8")
    where = ", ".join(f"{key} {value}" for key, value in provenance["versions"].items())
    parts = [
        f"# {name}",
        f"`{provenance['command']}`",
        *(table.markdown() for table in report.tables),
        *(f"![{path.stem}]({path.name})" for path in figures),
        *report.notes,
        f"Measured {provenance['date']} at commit `{provenance['commit']}` on {provenance['machine']}; {where}.",
    ]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [folder / f"{name}.md", folder / f"{name}.json", *figures]


def _lines(data: dict[str, Any]) -> str:
    """JSON with a line per key, and per run: hundreds of scores do not take hundreds of lines."""
    text = []
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in value)
            text.append(f" {json.dumps(key)}: [\n  {rows}\n ]")
        else:
            text.append(f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(text) + "\n}\n"


def number(value: float) -> str:
    """A number with about three or four digits that matter."""
    size = abs(value)
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, paths and tuples for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} in a report's data")
