"""IMDB's reviews as bags of words: which of the most frequent words are in a review, with or without the unlabelled."""

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
from .sequences import Sequences
from .tokens import number, remember

KINDS = {
    "imdb-bags": "IMDB's reviews as bags of 10,000 words: 1 where a word is in it, and whether they liked the film",
    "imdb-bags-all": "the same with the 50,000 unlabelled reviews among those for training, for pretraining",
}
WORDS = 10_000  # the most frequent of the training reviews; 0 stands for all others


@dataclass(frozen=True)
class Bags(Split):
    """Texts, whose words `x` (int64 `[S]`) are end to end; `take` gives float32 `[B, words]`, 1 for what is there."""

    start: Tensor  # int64 [N + 1]: where each text begins
    words: int  # of the vocabulary

    def take(self, index: Tensor) -> dict[str, Tensor]:
        begin, length = self.start[index], self.start[index + 1] - self.start[index]
        row = torch.arange(len(index), device=index.device).repeat_interleave(length)
        place = (begin - length.cumsum(0) + length)[row] + torch.arange(len(row), device=index.device)
        x = torch.zeros(len(index), self.words, device=index.device)
        x[row, self.x[place]] = 1
        return {"x": x, "label": self.label[index]}

    def to(self, device: str) -> Bags:
        moved = super().to(device)
        assert isinstance(moved, Bags)
        return replace(moved, start=self.start.to(device))


def load(unlabelled: bool = False, words: int = WORDS) -> Dataset:
    """The reviews of `imdb`, in the same splits, whole.

    Args:
        unlabelled: add the reviews without labels (label -1) to those for training.
        words: of the vocabulary, that of the labelled training reviews.

    Raises:
        UserError: as `imdb.load`, or the unlabelled reviews are absent.
    """
    found = imdb.load(words=words, length=sys.maxsize)
    train, validation, test = (_bags(part, len(found.words)) for part in (found.train, found.validation, found.test))
    if unlabelled:
        train = _join(train, *_unlabelled(found.words))
    spec = ObservationSpec((len(found.words),), "float32", 0.0, 1.0)
    return Dataset("imdb-bags-all" if unlabelled else "imdb-bags", spec, train, validation, test, imdb.CLASSES)


def _bags(part: Sequences, words: int) -> Bags:
    return Bags(part.x, part.target[part.start[1:] - 1], part.start, words)


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
