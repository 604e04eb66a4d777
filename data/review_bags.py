"""IMDB's reviews as bags of words: which of the most frequent words are in a review, or how often; with or without the
unlabelled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..envs.spec import ObservationSpec
from . import imdb
from .base import Dataset, Split
from .tokens import number, remember

KINDS = {
    "imdb-bags": "IMDB's reviews as bags of 10,000 words: 1 where a word is in it, and whether they liked the film",
    "imdb-bags-all": "the same with the 50,000 unlabelled reviews among those for training, for pretraining",
    "imdb-counts": "the same with how often each of 2,000 rarer words is in it, for replicated softmax units",
}
WORDS = 10_000  # the most frequent of the training reviews; 0 stands for all others
COUNTED = range(101, 2_101)  # "imdb-counts": without those that are in every review (Salakhutdinov and Hinton 2009)


@dataclass(frozen=True)
class Bags(Split):
    """Texts, whose words `x` (int64 `[S]`) are end to end; `take` gives float32 `[B, words]`, 1 for what is there, or
    `[B, len(counted)]`, how often those words are there."""

    start: Tensor  # int64 [N + 1]: where each text begins
    words: int  # of the vocabulary
    counted: range | None = None

    def take(self, index: Tensor) -> dict[str, Tensor]:
        begin, length = self.start[index], self.start[index + 1] - self.start[index]
        row = torch.arange(len(index), device=index.device).repeat_interleave(length)
        place = (begin - length.cumsum(0) + length)[row] + torch.arange(len(row), device=index.device)
        x = torch.zeros(len(index), self.words, device=index.device)
        if self.counted is None:
            x[row, self.x[place]] = 1
        else:
            x.index_put_((row, self.x[place]), x.new_ones(()), accumulate=True)
            x = x[:, self.counted.start : self.counted.stop]
        return {"x": x, "label": self.label[index]}

    def to(self, device: str) -> Bags:
        moved = super().to(device)
        assert isinstance(moved, Bags)
        return replace(moved, start=self.start.to(device))


def load(name: str = "imdb-bags", words: int = WORDS, counted: range = COUNTED) -> Dataset:
    """The reviews of `imdb`, in the same splits, whole.

    Args:
        name: of `KINDS`; reviews without labels have label -1.
        words: of the vocabulary, that of the labelled training reviews.
        counted: the words of "imdb-counts", by how frequent they are.

    Raises:
        UserError: as `imdb.load`, or the unlabelled reviews are absent.
    """
    counts = name == "imdb-counts"
    found = imdb.load(words=counted.stop if counts else words, length=sys.maxsize)
    counted = range(counted.start, min(counted.stop, len(found.words)))
    train, validation, test = (
        Bags(part.x, part.target[part.start[1:] - 1], part.start, len(found.words), counted if counts else None)
        for part in (found.train, found.validation, found.test)
    )
    if name == "imdb-bags-all":
        train = _join(train, *_unlabelled(found.words))
    spec = ObservationSpec((len(counted) if counts else len(found.words),), "float32", 0.0, np.inf if counts else 1.0)
    return Dataset(name, spec, train, validation, test, imdb.CLASSES)


def _unlabelled(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids int64 `[S]` in the vocabulary `words`, and where each review begins."""
    path = imdb.unlabelled()
    own = remember("imdb-unlabelled", [path], lambda: number(map(imdb.tokenize, imdb.read_reviews(path))))
    ids = {word: place for place, word in enumerate(words)}
    place = np.array([ids.get(word, 0) for word in own.vocabulary.words], np.int64)
    return torch.from_numpy(place[own.ids]), torch.from_numpy(own.start)


def _join(bags: Bags, x: Tensor, start: Tensor) -> Bags:
    label = torch.cat([bags.label, bags.label.new_full((len(start) - 1,), -1)])
    return Bags(torch.cat([bags.x, x]), label, torch.cat([bags.start, bags.start[-1] + start[1:]]), bags.words)
