"""Pictures of a tagger: which tags are taken for which, and some sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..data.sequences import SequenceDataset
from .fit_figures import confusion_figure

SHOWN_TAGS = 15  # the most frequent; the others are one
SENTENCES, WIDE = 6, 110  # that are drawn, and characters of a line
LONGEST = 40  # words of a sentence that is drawn


def confusion_of_tags(said: np.ndarray, right: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Tags int64 `[S]` as they were told and as they are; rows and columns are the most frequent ones."""
    order = np.argsort(-np.bincount(right, minlength=len(classes)), kind="stable")
    shown = order[:SHOWN_TAGS]
    place = np.full(len(classes), len(shown))
    place[shown] = np.arange(len(shown))
    names = [classes[number] for number in shown] + ["others"] * (len(shown) < len(classes))
    table = np.bincount(place[right] * len(names) + place[said], minlength=len(names) ** 2)
    figure = confusion_figure(table.reshape(len(names), -1), tuple(names))
    figure.axes[0].set_title(f"test set: {int((said != right).sum()):,} mistakes of {len(right):,} words")
    return figure


def sentences_figure(said: np.ndarray, dataset: SequenceDataset) -> Figure:
    """Some test sentences with mistakes: each word over its tag; where that is wrong, red, over the right one."""
    split = dataset.test
    start, right = split.start.cpu().numpy(), split.target.cpu().numpy()
    words = [dataset.words[place] for place in split.x.cpu().numpy()]
    mistakes = np.add.reduceat(said != right, start[:-1])
    chosen = np.flatnonzero((mistakes > 0) & (np.diff(start) <= LONGEST))[:SENTENCES]
    chosen = chosen if len(chosen) else np.arange(min(SENTENCES, len(split)))
    lines = [line for number in chosen for line in _lines(words, said, right, dataset.classes, *start[number:][:2])]
    figure = Figure(figsize=(11, 0.5 + 0.62 * len(lines)), dpi=100)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.95))
    axes.set(xlim=(0, WIDE), ylim=(-len(lines), 0))
    axes.set_title("test sentences: a word, what was told (red: wrong), and below it what is right", fontsize=9)
    axes.axis("off")
    for row, line in enumerate(lines):
        for column, word, told, wanted in line:
            style: dict[str, Any] = {"family": "monospace", "fontsize": 7.5, "va": "top", "clip_on": True}
            axes.text(column, -row - 0.06, word, **style)
            axes.text(column, -row - 0.34, told, color="tab:gray" if told == wanted else "tab:red", **style)
            if told != wanted:
                axes.text(column, -row - 0.62, wanted, color="tab:green", **style)
    return figure


def _lines(
    words: list[str], said: np.ndarray, right: np.ndarray, classes: tuple[str, ...], begin: int, end: int
) -> list[list[tuple[int, str, str, str]]]:
    """A sentence in lines of (column, word, tag that was told, right tag)."""
    lines: list[list[tuple[int, str, str, str]]] = [[]]
    column = 0
    for place in range(begin, end):
        # a dollar sign would begin a formula
        word, told, wanted = (
            text.replace("$", r"\$") for text in (words[place], classes[said[place]], classes[right[place]])
        )
        room = max(len(words[place]), len(classes[said[place]]), len(classes[right[place]])) + 1
        if column + room > WIDE:
            lines.append([])
            column = 0
        lines[-1].append((column, word, told, wanted))
        column += room
    return lines
