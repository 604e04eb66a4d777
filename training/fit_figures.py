"""Pictures of a supervised run: learning curves, the confusion matrix, the filters of the first layer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor, nn

from ..envs.spec import ObservationSpec
from .trackers import read_lines

MOST_FILTERS = 64  # that are drawn


def save(figures: dict[str, Figure], directory: Path) -> dict[str, Path]:
    """Write the figures, and the learning curves of the run in `directory`, there; returns the paths by name."""
    records = read_lines(directory / "metrics.jsonl")
    paths = {}
    for name, figure in (figures | ({"curves": curves_figure(records)} if records else {})).items():
        paths[name] = directory / f"{name}.png"
        FigureCanvasAgg(figure).print_png(str(paths[name]), metadata={"Software": None})
    return paths


def confusion_figure(confusion: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts `[classes, classes]` as a coloured table: rows are the true classes; the colour shows shares of a row."""
    count = len(classes)
    figure = Figure(figsize=(1.6 + 0.52 * count, 1.2 + 0.5 * count), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    # mistakes are rare: a square root makes them visible
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                colour = "white" if shares[row, column] > 0.3 else "black"
                text = f"{confusion[row, column]:,}" if confusion[row, column] else ""
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(count), classes, rotation=0 if max(map(len, classes)) < 3 else 45)
        axes.set_yticks(range(count), classes)
    right = int(np.trace(confusion))
    axes.set(xlabel="said", ylabel="is", title=f"test set: {confusion.sum() - right:,} mistakes of {confusion.sum():,}")
    return figure


def curves_figure(records: list[dict]) -> Figure:
    """Training loss and validation error, or perplexity where there is one, against epochs."""
    tells = any("validation/perplexity" in record for record in records)
    judged, unit = ("perplexity", "{:.4g}") if tells else ("error", "{:.2%}")
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    for axes, name, colour, label in (
        (left, "train/loss", "tab:gray", "training loss (left)"),
        (right, f"validation/{judged}", "tab:blue", f"validation {judged} (right)"),
    ):
        points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
        if points:
            x, y = np.array(points).T
            axes.plot(x, y, color=colour, label=label, marker="." if len(x) < 40 else "", linewidth=1.5)
    left.set(xlabel="epochs", ylabel="loss, as training sees it (nats)")
    right.set_ylabel(judged)
    if any((np.asarray(line.get_ydata()) > 0).any() for line in right.get_lines()):
        right.set_yscale("log")
        right.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: unit.format(value)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit.format(value)))
    right.tick_params(which="both", labelsize=7)
    lines = [*left.get_lines(), *right.get_lines()]
    left.legend(lines, [str(line.get_label()) for line in lines], frameon=False)
    left.grid(alpha=0.3)
    return figure


def first_filters(model: nn.Module, spec: ObservationSpec) -> np.ndarray | None:
    """Weights of the first layer that reads pixels, `[filters, C, h, w]`; None where no layer can be shown so."""
    if not spec.is_image:
        return None
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() not in (2, 4):
            continue
        weight = weight.detach().float().cpu()
        if weight.dim() == 4 and weight.shape[1] == spec.shape[0]:
            return weight.numpy()
        if weight.dim() == 2 and weight.shape[1] == spec.size:
            return weight.view(-1, *spec.shape).numpy()
    return None


def filter_figure(filters: np.ndarray) -> Figure:
    """Filters `[N, C, h, w]` side by side: in colour where they have three channels, else their first channel."""
    filters = filters[:MOST_FILTERS]
    columns = math.ceil(math.sqrt(len(filters)))
    rows = math.ceil(len(filters) / columns)
    figure = Figure(figsize=(columns * 0.7, rows * 0.7 + 0.3), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, one in zip(grid.flat, filters, strict=False):
        reach = np.abs(one).max() + 1e-12
        if one.shape[0] == 3:
            axes.imshow(0.5 + 0.5 * one.transpose(1, 2, 0) / reach)
        else:
            axes.imshow(one[0], cmap="RdBu_r", vmin=-reach, vmax=reach)
    figure.suptitle(f"first layer: {len(filters)} filters", fontsize=9)
    return figure
