"""Pictures of classical nets: the map of a self-organising map, and what a Hopfield net holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, RegularPolygon
from matplotlib.patheffects import withStroke
from torch import Tensor

from ...encoders import hopfield
from ...encoders.hopfield import Hopfield
from ...encoders.parts.capacity import damaged, fixed, found_again, random_patterns
from ...encoders.som import Som
from ...envs.spec import ObservationSpec
from ..pictures import COLOURS, GAP_GREY, as_pictures, grid_figure
from .subject import Labelled, Subject

MOST_LETTERS = 3  # of a class, written on a unit
FLIPPED = tuple(share / 20 for share in range(11))  # units turned to their opposite, for the basins
LOADS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.14, 0.2, 0.3, 0.5)  # stored patterns per unit
ASKED = 50  # stored patterns that are looked for, at most
NOISE, HELD = 0.1, 0.95  # the share that is flipped before retrieval; the overlap of a pattern that is found
ROWS = (0.1, 0.25, 0.4)  # flipped units, of the pictures
SHOWN = 10  # patterns in a row


def map_figure(
    encoder: Som, spec: ObservationSpec, title: str, won: Labelled | None = None, classes: Sequence[str] = ()
) -> Figure:
    """The units' weights as images, where they are such, and beside them the U-matrix.

    Args:
        won: observations as stored, and which of `classes` they are; on each unit the most frequent of what it wins is
            written.
    """
    panels = 1 + spec.is_image
    tall = (encoder.place[:, 1].max() + 1.2) / (encoder.place[:, 0].max() + 1.2)
    height = 0.7 + 4.3 * min(max(float(tall), 0.3), 1.5)
    figure = Figure(figsize=(4.6 * panels + 0.6, height), dpi=100, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    if spec.is_image:
        _prototypes(axes[0], encoder, spec)
    shades = _relief(axes[-1], encoder)
    if won is not None and classes:
        _letters(axes[-1], encoder, won, classes)
    figure.colorbar(shades, ax=axes[-1], shrink=0.8)
    axes[-1].set_title("U-matrix: mean distance from the units around", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _prototypes(axes: Axes, encoder: Som, spec: ObservationSpec) -> None:
    rows, columns = encoder.config.rows, encoder.config.columns
    images = as_pictures(encoder.weight.detach().float().cpu().unflatten(1, spec.shape).numpy(), spec.stack)
    height, width = images.shape[1] + 1, images.shape[2] + 1
    shift = width // 2 if encoder.config.layout == "hexagonal" else 0
    whole = np.full((rows * height - 1, columns * width - 1 + shift, *images.shape[3:]), GAP_GREY, np.float32)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * height, column * width + shift * (row % 2)
        whole[top : top + height - 1, left : left + width - 1] = image
    axes.imshow(whole, "gray", vmin=0, vmax=1, interpolation="antialiased")
    axes.set_title(f"weights of {rows} × {columns} units", fontsize=9)
    axes.set_axis_off()


def _relief(axes: Axes, encoder: Som) -> PatchCollection:
    """The U-matrix, each unit a square or a hexagon in its place; returns what a colour bar needs."""
    relief, place = encoder.relief().flatten().cpu(), encoder.place.cpu()
    hexagonal = encoder.config.layout == "hexagonal"
    shapes = [
        RegularPolygon((x, y), 6, radius=3**-0.5) if hexagonal else Rectangle((x - 0.5, y - 0.5), 1, 1)
        for x, y in place.tolist()
    ]
    cells = PatchCollection(shapes, cmap="bone_r", linewidths=0)
    cells.set_array(relief.numpy())
    axes.add_collection(cells)
    (low_x, low_y), (high_x, high_y) = place.amin(0).tolist(), place.amax(0).tolist()
    axes.set(xlim=(low_x - 0.6, high_x + 0.6), ylim=(high_y + 0.6, low_y - 0.6), aspect="equal")
    axes.set_axis_off()
    return cells


def _letters(axes: Axes, encoder: Som, won: Labelled, classes: Sequence[str]) -> None:
    won = won.known()
    counts = torch.zeros(len(encoder.weight), len(classes))
    counts.index_put_((encoder.winners(won.x).cpu(), won.label.cpu()), torch.ones(len(won.x)), accumulate=True)
    size = float(np.clip(160 / max(encoder.config.rows, encoder.config.columns), 4, 12))
    for unit in counts.sum(1).nonzero().flatten().tolist():
        text = classes[int(counts[unit].argmax())][:MOST_LETTERS]
        x, y = encoder.place[unit].tolist()
        shown = axes.text(x, y, text, ha="center", va="center", fontsize=size, color="#bd1f01")
        shown.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def som_map(subject: Subject) -> Figure | None:
    """The map, and which class of test examples each unit wins."""
    encoder = subject.encoder
    if not isinstance(encoder, Som):
        return None
    test = subject.take("test", subject.rows["test"])
    won = Labelled(test["x"], test["label"])
    return map_figure(encoder, subject.spec, f"{subject.name}: its map", won, subject.dataset.classes)


@torch.no_grad()
def retrieval(subject: Subject) -> Figure | None:
    """Stored patterns, damaged copies of them, and what is found from these; None: it holds nothing, or no images."""
    encoder, spec = subject.encoder, subject.spec
    if not isinstance(encoder, Hopfield) or not len(encoder.held()):
        return None
    held, generator = encoder.held(), torch.Generator().manual_seed(subject.seed)
    patterns = held[torch.linspace(0, len(held) - 1, min(SHOWN, len(held))).long()]
    rows, names = [patterns], ["stored"]
    for share in ROWS:
        copies = damaged(patterns, share, generator)
        rows += [copies, encoder.retrieve(copies)]
        names += [f"{share:.0%} flipped", "found"]
    pictures = [as_pictures(encoder.observation(row).cpu().numpy(), spec.stack) for row in rows]
    title = f"{subject.name}: {len(patterns)} of {int(encoder.count)} stored patterns, damaged and found again"
    return grid_figure(np.stack(pictures), title, rows=names)


@torch.no_grad()
def memory(subject: Subject) -> Figure | None:
    """How large the basins around what is stored are; and how many examples, or patterns of chance, could be stored."""
    encoder = subject.encoder
    if not isinstance(encoder, Hopfield):
        return None
    figure = Figure(figsize=(9.4, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    held, generator = encoder.held()[:ASKED], torch.Generator().manual_seed(subject.seed)
    if len(held):
        found = [found_again(encoder.retrieve, held, share, HELD, generator) for share in FLIPPED]
        left.plot(FLIPPED, found, marker="o", color=COLOURS[0])
    left.set(title=f"basins: {int(encoder.count):,} patterns stored", xlabel="share of units flipped")
    size = subject.spec.size
    rows = subject.take(
        "train", torch.randperm(len(subject.dataset.train), generator=generator)[: int(LOADS[-1] * size)]
    )
    kinds = {
        "examples": encoder.read_state(rows["x"]),
        "of chance": random_patterns(int(LOADS[-1] * size), size, generator),
    }
    for (name, patterns), colour in zip(kinds.items(), COLOURS, strict=False):
        loads, shares = capacity_of(encoder, patterns.to(rows["x"].device), generator)
        right.plot(
            loads, shares[:, 0], marker="o", markersize=9, fillstyle="none", color=colour, label=f"{name}: fixed points"
        )
        right.plot(
            loads,
            shares[:, 1],
            marker="s",
            markersize=4,
            linestyle="--",
            color=colour,
            label=f"{name}: found, {NOISE:.0%} flipped",
        )
    right.set(title=f"capacity: {encoder.config.storage} storage", xlabel="patterns per unit", xscale="log")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    for axes in (left, right):
        axes.set(ylabel="share of patterns", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
    right.set_xticks(LOADS[::2], [f"{load:g}" for load in LOADS[::2]], minor=False)
    right.minorticks_off()
    title = f"{subject.name}; fixed point: no unit moves; found: an overlap of {HELD:g} or more"
    figure.suptitle(title, fontsize=11)
    return figure


def capacity_of(encoder: Hopfield, patterns: Tensor, generator: torch.Generator) -> tuple[list[float], np.ndarray]:
    """Loads, in patterns per unit, and for each the share of fixed points and of those found from damaged copies,
    `[loads, 2]`, in a net like `encoder` that stores the first of `patterns` `[P, D]` instead."""
    size, loads, shares = patterns.shape[1], list[float](), list[tuple[float, float]]()
    for load in LOADS:
        count = min(max(round(load * size), 1), len(patterns))
        if loads and count / size <= loads[-1]:
            continue
        net = hopfield.build(replace(encoder.config, patterns=count), ObservationSpec((size,))).to(patterns.device)
        net.store(patterns[:count])
        asked = patterns[torch.linspace(0, count - 1, min(count, ASKED)).long()]
        loads.append(count / size)
        shares.append((fixed(net.step, asked), found_again(net.retrieve, asked, NOISE, HELD, generator)))
    return loads, np.array(shares)
