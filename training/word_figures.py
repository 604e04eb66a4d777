"""Pictures of word vectors: frequent words in the plane, and the neighbours of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

MAPPED = 300  # words in the plane
SKIPPED = 50  # words that are more frequent than those: articles, pronouns and the like
_PERPLEXITY = 15.0
_ITERATIONS = 500

Neighbours = Mapping[str, Sequence[tuple[str, float]]]  # word -> words and their cosines, nearest first


def plane(vectors: torch.Tensor, seed: int = 0) -> np.ndarray:
    """Vectors `[N, D]`, N at least 5, to points `[N, 2]` such that what is alike lies together.

    t-SNE (van der Maaten and Hinton 2008) of cosine distances, as scikit-learn has it.
    """
    from sklearn.manifold import TSNE

    directions = F.normalize(vectors.float().cpu(), dim=1).numpy()
    perplexity = min(_PERPLEXITY, (len(directions) - 1) / 3)
    # the squared distance of directions grows with the cosine distance, so that plain distances will do
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=_ITERATIONS, random_state=seed)
    return tsne.fit_transform(directions)


def map_figure(vectors: torch.Tensor, words: Sequence[str]) -> Figure:
    """Frequent words where t-SNE puts them. `vectors` `[V, D]`, the most frequent word first."""
    first = min(SKIPPED, max(len(words) - MAPPED, 0))
    shown = words[first : first + MAPPED]
    points = plane(vectors[first : first + len(shown)])
    figure = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=6, color="tab:blue", alpha=0.5, linewidths=0)
    for word, (x, y) in zip(shown, points, strict=True):
        axes.annotate(word, (x, y), xytext=(2, 1), textcoords="offset points", fontsize=7)
    axes.set(xticks=[], yticks=[], title=f"words {first + 1:,} to {first + len(shown):,} by frequency (t-SNE)")
    return figure


def neighbours_figure(found: Neighbours) -> Figure:
    """A table: words, and beside each its neighbours with their cosines."""
    count = max(map(len, found.values()))
    rows = [[f"{word} {cosine:.2f}" for word, cosine in near] + [""] * (count - len(near)) for near in found.values()]
    figure = Figure(figsize=(1.6 * (count + 1), 0.6 + 0.3 * len(found)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title("nearest words and the cosines of their vectors", fontsize=9)
    table = axes.table(cellText=rows, rowLabels=list(found), loc="center", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    return figure


def sections_figure(shares: Mapping[str, tuple[int, int]]) -> Figure:
    """Shares of analogies that were answered right; `shares` are asked and right by section."""
    figure = Figure(figsize=(7, 1.2 + 0.26 * len(shares)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(shares))
    axes.barh(places, [100 * right / asked for asked, right in shares.values()], color="tab:blue", height=0.7)
    axes.set_yticks(places, [f"{name} ({asked:,})" for name, (asked, _) in shares.items()], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="answered right in per cent", title="analogies, by section (questions)")
    return figure
