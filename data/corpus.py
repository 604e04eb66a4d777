"""Running text as long streams of ids: for language models, which go on from piece to piece, and for word vectors."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files, imdb
from .tokens import Tokens, number, remember

kind = "the words of all 100,000 IMDB reviews as one stream: lower-case letters only, for word vectors"
LEAST = 5  # times that a word occurs, or it is left out (word2vec's default)
_NO_LETTER = re.compile(r"[^a-z]+")


@dataclass(frozen=True)
class Stream:
    """Running text, in order."""

    ids: Tensor  # int64 [S]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corpus:
    """Text to learn from, to choose settings by, and to report on. Where all is for learning, the others are empty."""

    name: str
    words: tuple[str, ...]  # or characters; an id is a place in it
    train: Stream
    validation: Stream
    test: Stream

    @property
    def spec(self) -> ObservationSpec:
        """Of one step: one token."""
        return ObservationSpec((), "int64", 0, len(self.words) - 1, vocabulary=len(self.words))

    @property
    def counts(self) -> Tensor:
        """int64 `[V]`: how often each word occurs in the training text."""
        return self.train.ids.bincount(minlength=len(self.words))


def split(ids: np.ndarray) -> tuple[Stream, Stream, Stream]:
    """The first 90 % for training, then 5 % for validation and 5 % for testing."""
    ends = [round(len(ids) * share) for share in (0.9, 0.95)]
    train, validation, test = (Stream(torch.from_numpy(part.astype(np.int64))) for part in np.split(ids, ends))
    return train, validation, test


def letters(text: str) -> list[str]:
    """Lower-case words of the letters a to z: accents are taken off, all else parts words."""
    plain = unicodedata.normalize("NFKD", text.replace("<br />", " ").lower())
    if not plain.isascii():
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return _NO_LETTER.sub(" ", plain).split()


def load_imdb(least: int = LEAST, size: int = 0) -> Corpus:
    """The words of all IMDB reviews, liked, disliked and unlabelled, train and test, for training alone.

    Args:
        least: words that occur less often are left out of the stream, so that their neighbours meet.
        size: words at most, the most frequent ones; 0: all.

    Raises:
        UserError: reviews are absent; says which.
    """
    paths = [*imdb.folders(), imdb.unlabelled()]
    texts = (letters(text) for path in paths for text in imdb.read_reviews(path))
    ids, words = _frequent(remember("imdb-words", paths, lambda: number(texts)), least, size)
    nothing = Stream(torch.zeros(0, dtype=torch.int64))
    return Corpus("imdb-words", words, Stream(torch.from_numpy(ids)), nothing, nothing)


def load_text(path: Path, least: int = LEAST, size: int = 0) -> Corpus:
    """The words of a user's own text file, as in `load_imdb`, but split. Raises UserError where there are none."""
    ids, words = _frequent(number([letters(files.read_text(path))]), least, size)
    if not len(ids):
        raise UserError(f"no word occurs {least} times in {path}; ask for fewer, or give it more text")
    return Corpus(str(path), words, *split(ids))


def _frequent(tokens: Tokens, least: int, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Ids, int64, and words without the unknown and the rare."""
    vocabulary = tokens.vocabulary
    enough = 1 + sum(count >= least for count in vocabulary.counts[1:])
    end = min(enough, size + 1) if size else enough
    ids = tokens.ids[(tokens.ids > 0) & (tokens.ids < end)].astype(np.int64) - 1
    return ids, vocabulary.words[1:end]
