"""Words and their numbers: the most frequent word has the smallest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..envs.errors import UserError

UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Vocabulary:
    """The word with the id i is `words[i]`. There is no id for padding: sequences say themselves where they end."""

    words: tuple[str, ...]
    counts: tuple[int, ...]  # how often each word occurs in the text that the vocabulary was made of
    ids: Mapping[str, int] = field(init=False, repr=False, compare=False)  # word -> id

    def __post_init__(self) -> None:
        ids = {word: place for place, word in enumerate(self.words)}
        if len(ids) != len(self.words) or len(self.counts) != len(self.words):
            raise UserError("a vocabulary has each word once, and one count for each")
        object.__setattr__(self, "ids", ids)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def unknown(self) -> int | None:
        """The id of every word that is not in the vocabulary; None where there is no such id."""
        return self.ids.get(UNKNOWN)

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """int64, one id per word.

        Raises:
            UserError: a word is not in the vocabulary, and that has no id for unknown ones.
        """
        if self.unknown is not None:
            get, unknown = self.ids.get, self.unknown
            return np.fromiter((get(word, unknown) for word in words), np.int64)
        try:
            return np.fromiter((self.ids[word] for word in words), np.int64)
        except KeyError as error:
            raise UserError(f"the word {error.args[0]!r} is not among the {len(self):,} of the vocabulary") from None

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of `ids`."""
        return [self.words[int(place)] for place in ids]

    def save(self, path: Path) -> None:
        """As JSON: [[word, count], ...]."""
        pairs = list(zip(self.words, self.counts, strict=True))
        path.write_text(json.dumps(pairs, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Raises UserError where `path` is no file of `save`."""
        try:
            pairs = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(str(word) for word, _ in pairs), tuple(int(count) for _, count in pairs))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is no saved vocabulary ({error}); remove it and make it again") from error


def most_frequent(counts: Mapping[str, int], size: int = 0, least: int = 1, unknown: bool = True) -> Vocabulary:
    """The words of a text, by falling count and then by the alphabet.

    Args:
        counts: how often each word occurs.
        size: ids at most, the unknown word's among them; 0: as many as there are.
        least: how often a word must occur to have an id.
        unknown: whether words outside have an id, which is then 0, with all their counts.
    """
    ranked = sorted((word for word in counts if word != UNKNOWN), key=lambda word: (-counts[word], word))
    ranked = [word for word in ranked if counts[word] >= least]
    if size:
        ranked = ranked[: size - unknown]
    kept = [counts[word] for word in ranked]
    if not unknown:
        return Vocabulary(tuple(ranked), tuple(kept))
    return Vocabulary((UNKNOWN, *ranked), (sum(counts.values()) - sum(kept), *kept))
