"""Arrays as pictures: grids of images, filters and scatters, small enough to be kept with a result."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating]

MOST_BYTES = 300_000  # of a PNG file
DOTS = 800  # across a picture, at most
MOST_SCALE = 8  # dots a pixel
# Ten colours that people with any common colour vision tell apart (Petroff 2021, "Accessible color sequences for data
# visualization", arXiv:2107.02270).
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS, EACH = "o^sDv*PX", 5  # so many classes with each marker: shapes tell like colours apart
GAP_GREY = 0.55


def as_pictures(x: Array, stack: int = 1) -> Array:
    """Images `[N, C, H, W]` as people see them: `[N, H, W]` in grey or `[N, H, W, 3]` in colour, clipped to 0..1.

    Args:
        stack: frames along the channels, of which the last is shown. Channels that are neither one nor three are
            averaged.
    """
    frame = x[:, x.shape[1] - x.shape[1] // stack :].clip(0, 1)
    if frame.shape[1] == 3:
        return frame.transpose(0, 2, 3, 1)
    return frame.mean(1)


def signed(filters: Array) -> Array:
    """Filters `[N, H, W]`, each scaled to -1..1 by its own largest magnitude."""
    most = np.abs(filters).max(axis=(1, 2), keepdims=True)
    return filters / np.maximum(most, 1e-12)


def mosaic(pictures: Array, gap: int = 1, fill: float = GAP_GREY) -> Array:
    """`[R, C, H, W]` or `[R, C, H, W, 3]` side by side in one picture, `gap` pixels of `fill` between them."""
    rows, columns, height, width = pictures.shape[:4]
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *pictures.shape[4:])
    whole = np.full(shape, fill, dtype=np.float32)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            whole[top : top + height, left : left + width] = pictures[row, column]
    return whole


def in_rows(pictures: Array, columns: int, fill: float = GAP_GREY) -> Array:
    """`[N, H, W, ...]` as `[R, columns, H, W, ...]`, the last row filled up."""
    missing = -len(pictures) % columns
    padding = np.full((missing, *pictures.shape[1:]), fill, dtype=np.float32)
    return np.concatenate([pictures, padding]).reshape(-1, columns, *pictures.shape[1:])


def grid_figure(
    pictures: Array,
    title: str,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    labels: tuple[str, str] = ("", ""),
    is_signed: bool = False,
    fill: float = GAP_GREY,
) -> Figure:
    """Pictures `[R, C, H, W]` or `[R, C, H, W, 3]` in a grid.

    Args:
        rows, columns: what each is, written beside and above it; empty: nothing.
        labels: of all columns (below) and of all rows (left).
        is_signed: values -1..1 from blue over white to red; else 0..1 from black to white.
        fill: what lies between the pictures, on the same scale.
    """
    gap = max(1, pictures.shape[3] // 14)
    whole = mosaic(pictures, gap, fill)
    left = 10 + 22 * bool(labels[1]) + 7 * max(map(len, rows), default=0)  # dots, as all that follows
    below, above = 8 + 20 * bool(labels[0]), 30 + 18 * bool(columns)
    size = _shown_size(whole, DOTS - left - 10)
    width, height = max(left + size[0] + 10, min(DOTS, 30 + 7 * len(title))), above + size[1] + below
    left += (width - left - size[0] - 10) // 2
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((left / width, below / height, size[0] / width, size[1] / height))
    is_crisp = size[0] % whole.shape[1] == 0
    low, interpolation = -1 if is_signed else 0, "nearest" if is_crisp else "antialiased"
    axes.imshow(whole, "RdBu_r" if is_signed else "gray", vmin=low, vmax=1, interpolation=interpolation, aspect="auto")
    figure.suptitle(title, fontsize=11, y=1 - 6 / height, va="top")
    _ticks(axes, pictures.shape, gap, rows, columns)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    return figure


def _shown_size(whole: Array, most: int) -> tuple[int, int]:
    """Dots across and down: a whole number for each pixel where two or more fit, for sharp edges and small files."""
    scale = most / whole.shape[1]
    if scale >= 2:
        scale = min(int(scale), MOST_SCALE)
    return round(whole.shape[1] * scale), max(1, round(whole.shape[0] * scale))


def _ticks(axes: Axes, shape: tuple[int, ...], gap: int, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.tick_params(length=0, labelsize=9, top=False, labeltop=bool(columns), labelbottom=False, pad=3)
    for side in axes.spines.values():
        side.set_visible(False)
    for texts, size, put in ((rows, shape[2], axes.set_yticks), (columns, shape[3], axes.set_xticks)):
        centres = [(size + gap) * number + (size - 1) / 2 for number in range(len(texts))]
        put(centres, list(texts))


def scatter_figure(
    points: Array, label: NDArray[np.integer], classes: Sequence[str], title: str, labels: tuple[str, str] = ("", "")
) -> Figure:
    """Points `[N, 2]`, coloured by `label` `[N]` (-1 = none) where there are `classes`, which the legend names,
    else by their order, in which recorded frames follow each other."""
    figure = Figure(figsize=(DOTS / 100, 6.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(20_000 / max(len(points), 1), 6, 30))
    order = np.random.default_rng(0).permutation(len(points))  # so that no class lies on top of all others
    points, label = points[order], label[order]
    if not classes:
        shown = axes.scatter(points[:, 0], points[:, 1], s=size, c=order, cmap="viridis", alpha=0.6, linewidths=0)
        figure.colorbar(shown, ax=axes, label="position in the set", shrink=0.6, alpha=1.0)
    else:
        _coloured(axes, points, label, classes, size)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xlim(*_limits(points[:, 0]))
    axes.set_ylim(*_limits(points[:, 1]))
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _coloured(axes: Axes, points: Array, label: NDArray[np.integer], classes: Sequence[str], size: float) -> None:
    for turn in range(-(-len(classes) // EACH)):
        some = (label >= 0) & (label // EACH == turn)
        x, y = points[some].T
        shown = [COLOURS[number % len(COLOURS)] for number in label[some]]
        axes.scatter(x, y, s=size, c=shown, marker=MARKERS[turn % len(MARKERS)], alpha=0.7, linewidths=0)
    for number, name in enumerate(classes):
        mine = points[label == number]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // EACH % len(MARKERS)]
        axes.scatter([], [], s=40, color=colour, marker=marker, linewidths=0, label=name)
        if len(mine) and len(classes) <= 20:
            middle = mine[np.square(mine - np.median(mine, axis=0)).sum(1).argmin()]  # not between two heaps
            text = axes.annotate(name, middle, ha="center", va="center", fontsize=11, weight="bold")
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, handletextpad=0.2)


def _limits(values: Array) -> tuple[float, float]:
    """The middle 99.8 %, with a margin: one point far away shall not press the others together."""
    low, high = np.quantile(values, [0.001, 0.999]) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of at most MOST_BYTES: in 256 colours, then smaller, where it would be larger."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    content = buffer.getvalue()
    if len(content) <= MOST_BYTES:
        return content
    picture = Image.open(buffer).convert("RGB")
    scale = 1.0
    while True:
        size = (round(picture.width * scale), round(picture.height * scale))
        buffer = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).quantize(256).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MOST_BYTES or min(size) < 100:
            return buffer.getvalue()
        scale *= 0.85
