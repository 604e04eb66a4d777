"""Semantic hashing of IMDB's reviews: precision and recall of 128-bit codes beside those of TF-IDF."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.hashing, or saccade bench hashing")

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor

from ..data import review_bags
from ..data.base import Dataset
from ..data.review_bags import Bags
from ..encoders import hashing
from ..encoders.parts import hamming
from ..training.optimise import Optimiser, groups_of
from .parts.plan import BenchOptions
from .parts.report import Report, Table

kind = "IMDB's reviews: precision and recall of 128-bit codes, with and without labels, against TF-IDF's"

WORDS, BITS = 2000, 128  # the paper's numbers
EPOCHS, BATCH, RATE = 4, 250, 1e-3
STORED, QUERIES = 10_000, 500  # test reviews that are searched, and the first of them that are searched for
RECALLS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MUST = 0.1  # up to this recall precision shall be above TF-IDF's
LEARNERS = {
    "codes": ("128 bits, no labels", hashing.Config(bits=BITS, output="words")),
    "neighbours": (
        "128 bits, neighbourhood components",
        hashing.Config(bits=BITS, output="words", dropout=0.5, neighbours=300.0),
    ),
}
Ranking = Callable[[slice], NDArray[np.floating]]  # queries to their similarity to all that is stored, [Q, N]


def precision_at(ranking: Ranking, label: NDArray[np.integer], queries: int) -> NDArray[np.floating]:
    """Mean precision over the first `queries` of the stored at each of RECALLS; relevant is what has the same label,
    itself left out."""
    found = []
    for begin in range(0, queries, 100):
        part = slice(begin, min(begin + 100, queries))
        for number, alike in zip(range(part.start, part.stop), ranking(part), strict=True):
            order = np.argsort(-alike, kind="stable")
            relevant = label[order[order != number]] == label[number]
            hits = np.cumsum(relevant)
            enough = np.searchsorted(hits, np.ceil(np.array(RECALLS) * hits[-1]))  # the first place of so many hits
            found.append(hits[enough] / (enough + 1))
    return np.mean(found, axis=0)


def tf_idf(dataset: Dataset, rows: Tensor) -> Ranking:
    """Cosine of TF-IDF vectors; document frequencies are those of the training reviews, words count as often as they
    are there, which codes are not told."""

    def counts(bags: Bags) -> csr_matrix:
        shape = (len(bags.start) - 1, bags.words)
        return csr_matrix((np.ones(len(bags.x), np.float32), bags.x.numpy(), bags.start.numpy()), shape=shape)

    train, test = dataset.train, dataset.test
    assert isinstance(train, Bags)
    assert isinstance(test, Bags)
    stored = TfidfTransformer().fit(counts(train)).transform(counts(test)[rows.numpy()])
    return lambda part: (stored[part] @ stored.T).toarray()


def train(config: hashing.Config, dataset: Dataset, seed: int, epochs: int) -> hashing.Hashing:
    """As `saccade pretrain hashing` does it, in float32."""
    torch.manual_seed(seed)
    learner = hashing.build(config, dataset.spec).train()
    optimiser = Optimiser(groups_of(learner, list(learner.parameters())), learning_rate=RATE)
    for epoch in track(range(epochs), "codes", transient=True):
        learner.progress.fill_(epoch / epochs)
        for rows in torch.randperm(len(dataset.train.label)).split(BATCH):
            losses = learner.loss(dataset.train.take(rows))
            optimiser.step(torch.stack([loss.mean() for loss in losses.values()]).sum())
    return learner.eval()


def codes_of(learner: hashing.Hashing, dataset: Dataset, rows: Tensor) -> hamming.Packed:
    return np.concatenate([learner.codes(dataset.test.take(part)["x"]) for part in rows.split(1000)])


def nearness(codes: hamming.Packed) -> Ranking:
    """Minus the Hamming distance."""
    return lambda part: -hamming.distances(codes[part], codes).astype(np.float32)


def measure(options: BenchOptions) -> Report:
    """One seed of each learner unless the options say otherwise."""
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    dataset, wide = review_bags.load(words=WORDS), review_bags.load()
    # shuffled: reviews come class by class, and of codes equally near the first is taken first
    rows = torch.randperm(len(dataset.test.label), generator=torch.Generator().manual_seed(0))[:STORED]
    label = dataset.test.label[rows].numpy()
    queries = min(QUERIES, len(rows))
    curves: dict[str, list[NDArray[np.floating]]] = {}
    for name, one in ((f"TF-IDF, {WORDS:,} words", dataset), (f"TF-IDF, {wide.spec.size:,} words", wide)):
        curves[name] = [precision_at(tf_idf(one, rows), label, queries)]
    seconds = 0.0
    for title, config in LEARNERS.values():
        for seed in range(options.seeds or 1):
            codes = codes_of(train(config, dataset, seed, options.steps or EPOCHS), dataset, rows)
            begin = time.perf_counter()
            curves.setdefault(title, []).append(precision_at(nearness(codes), label, queries))
            seconds = time.perf_counter() - begin
    return _report(curves, seconds, queries, options)


def _report(
    curves: dict[str, list[NDArray[np.floating]]], seconds: float, queries: int, options: BenchOptions
) -> Report:
    means = {name: np.mean(found, axis=0) for name, found in curves.items()}
    rivals = [precision for name, precision in means.items() if name.startswith("TF-IDF")]
    early = [number for number, recall in enumerate(RECALLS) if recall <= MUST]
    ahead = {
        name: bool(all(precision[n] > rival[n] for rival in rivals for n in early))
        for name, precision in means.items()
        if not name.startswith("TF-IDF")
    }
    rows = [(name, *(f"{value:.3f}" for value in precision)) for name, precision in means.items()]
    notes = [
        f"{STORED:,} test reviews, the first {queries:,} of which are searched for among the others; relevant: of the "
        "same opinion, which chance meets in half. Mean precision over the queries at each recall. Codes: a bag of "
        f"{WORDS:,} words as 0 and 1, {options.steps or EPOCHS} epochs over the 22,500 training reviews, cut at 1/2, "
        "compared by Hamming distance; TF-IDF: scikit-learn's, cosine, from counts. Neighbourhood components have seen "
        "the labels of the training reviews; the others have not.",
        f"To reach: above TF-IDF's precision at every recall up to {MUST:g}.",
        *(f"{name}: {'above' if good else 'not above'} both TF-IDFs there." for name, good in ahead.items()),
        f"{queries:,} searches, ranking all {STORED:,} included, took {seconds:.1f} s.",
    ]
    data = {"recalls": RECALLS, "precision": {name: np.stack(found) for name, found in curves.items()}, "ahead": ahead}
    columns = ("precision at recall", *(f"{recall:g}" for recall in RECALLS))
    return Report([Table("Reviews found by their codes", columns, rows)], notes, data, {"hashing": curve_figure(means)})


def curve_figure(means: dict[str, NDArray[np.floating]]) -> Figure:
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, precision in means.items():
        axes.plot(RECALLS, precision, marker=".", label=name)
    axes.set(xscale="log", xlabel="recall", ylabel="precision", title="IMDB: reviews of the same opinion")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("hashing")
