"""Estimates of many settings under each other, in panels that share the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .report import Estimate, interquartile_mean


class Line(NamedTuple):
    """One setting."""

    label: str
    color: str
    values: Mapping[str, Sequence[float]]  # panel -> a number per seed; NaN where there is none
    is_reference: bool = False  # a dotted line marks its estimate in every panel


def estimate(values: Sequence[float]) -> Estimate:
    """Interquartile mean and interval of the values that are numbers; NaN where none is."""
    finite = [value for value in values if np.isfinite(value)]
    return interquartile_mean(finite) if finite else Estimate(*[float("nan")] * 3)


def interval_figure(title: str, panels: Mapping[str, str], lines: Sequence[Line]) -> Figure:
    """`panels` maps the keys of `Line.values` to labels. Faint dots are seeds."""
    figure = Figure(figsize=(9.5, 0.32 * len(lines) + 1.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    height = np.arange(len(lines))[::-1]
    for axis, (panel, label) in zip(axes, panels.items(), strict=True):
        for y, line in zip(height, lines, strict=True):
            seeds, middle = line.values[panel], estimate(line.values[panel])
            axis.plot(seeds, [y] * len(seeds), ".", color=line.color, alpha=0.35)
            axis.plot([middle.low, middle.high], [y, y], color=line.color, linewidth=2)
            axis.plot([middle.value], [y], "o", color=line.color, markersize=5)
            if line.is_reference:
                axis.axvline(float(middle.value), color=line.color, linewidth=0.8, linestyle=":")
        axis.set(xlabel=label)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(height, [line.label for line in lines])
    figure.suptitle(title, fontsize=10)
    return figure
