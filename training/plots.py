"""A run as a picture."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..envs.errors import UserError
from .trackers import SCORE, read_lines

MOST_POINTS = 2_000  # that are drawn: more cannot be told apart, and the file would grow


def learning_curve(run_dir: Path) -> Path:
    """Draw `run_dir/metrics.jsonl` as score against environment steps into `run_dir/curve.png`; returns its path.

    Raises:
        UserError: nothing is logged there, or no episode was finished.
    """
    source = Path(run_dir) / "metrics.jsonl"
    if not source.is_file():
        raise UserError(f"{run_dir} holds no metrics.jsonl, so there is no curve to draw")
    points = [(line["step"], line[SCORE]) for line in read_lines(source) if line.get(SCORE) is not None]
    if not points:
        raise UserError(f"no episode was finished in {run_dir}, so there is no curve to draw")
    steps, scores = np.array(points, dtype=np.float64).T
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # no pyplot: nothing global, no window
    axes = figure.add_subplot()
    width = max(1, len(scores) // 20)
    some = np.linspace(0, len(scores) - 1, min(len(scores), MOST_POINTS)).round().astype(int)
    axes.plot(steps[some], scores[some], ".", color="tab:blue", alpha=0.25, markersize=4, label="as logged")
    label = f"mean of {width}"
    axes.plot(steps[some], smooth(scores, width)[some], color="tab:blue", linewidth=1.8, label=label)
    axes.set(xlabel="environment steps", ylabel="score of an episode (unclipped)", title=_title(Path(run_dir)))
    axes.set_xlim(0, steps[-1] * 1.01 if steps[-1] > 0 else 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if width > 1:
        axes.legend(frameon=False, loc="best")
    target = Path(run_dir) / "curve.png"
    canvas.print_png(str(target), metadata={"Software": None})
    return target


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each value and up to `width - 1` before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)


def _title(run_dir: Path) -> str:
    """What was run, as far as its config says."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        config = json.loads((run_dir / "config.json").read_text())
        return f"{config['agent']} on {config['env']} through {config['encoder']}"
    return run_dir.name


def _short(number: float, position: object) -> str:
    """2500000 as "2.5M"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
