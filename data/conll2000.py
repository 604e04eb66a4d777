"""CoNLL-2000: Wall Street Journal sentences with the part of speech and the chunk of each word (Tjong Kim Sang and
Buchholz 2000, "Introduction to the CoNLL-2000 Shared Task: Chunking"): sections 15 to 18 for training, 20 for testing.
The chunks were made from the treebank, the parts of speech by Brill's tagger: whoever agrees with them agrees with it.

`dev.txt`, which is not the publisher's, is the validation set where it is; else the last tenth of the training file is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files
from .sequences import Batch, SequenceDataset, Sequences
from .vocabulary import Vocabulary, most_frequent

kind = "the two tasks pos and chunks"
KINDS = {
    "pos": "the part of speech of each word of a sentence: CoNLL-2000, 8,936 + 1,844 + 2,012 sentences",
    "chunks": "where phrases of a sentence begin and end: CoNLL-2000's B-, I- and O of each word",
}
_MIRROR = "https://github.com/teropa/nlp/raw/master/resources/corpora/conll2000/"  # the publisher has archives alone
_CHECKSUMS = {  # SHA-256
    "train.txt": "82033cd7a72b209923a98007793e8f9de3abc1c8b79d646c50648eb949b87cea",
    "test.txt": "73b7b1e565fa75a1e22fe52ecdf41b6624d6f59dacb591d44252bf4d692b1628",
}
SOURCES = tuple(
    files.Source(f"conll2000/{name}", f"sha256:{checksum}", (_MIRROR + name,)) for name, checksum in _CHECKSUMS.items()
)
FILES = tuple(source.name for source in SOURCES)
VALIDATION_FILE = "dev.txt"
VALIDATION_SHARE = 10
LEAST = 2  # times that a word occurs in the training sentences, or it is unknown, so that unknown words are learned
LETTERS = 16  # characters of a word: of a longer one, the first and the last eight
NOTHING, STRANGE = 0, 1  # in place of a character: there is none, or none that training has shown
CAPITALS = ("no letters", "lower case", "first capital", "all capitals", "mixed")

Sentence = list[tuple[str, str, str]]  # word, part of speech, chunk


@dataclass(frozen=True, kw_only=True)
class TaggedSequences(Sequences):
    """Sentences; `take` gives two more of each word: "characters" `[B, L, 16]` and "capital" `[B, L]`, 0 in padding."""

    characters: Tensor  # int64 [S, 16]: ids, from the left; 0 = nothing, 1 = a strange one
    capital: Tensor  # int64 [S]: a place in CAPITALS

    def take(self, index: Tensor) -> Batch:
        further = {
            name: Sequences(values, self.target, self.start).take(index)["x"]
            for name, values in (("characters", self.characters), ("capital", self.capital))
        }
        return super().take(index) | further

    def to(self, device: str) -> TaggedSequences:
        moved = super().to(device)
        assert isinstance(moved, TaggedSequences)
        return replace(moved, characters=self.characters.to(device), capital=self.capital.to(device))


@dataclass(frozen=True, kw_only=True)
class TaggedDataset(SequenceDataset):
    """Sentences, all of whose parts are `TaggedSequences`."""

    characters: tuple[str, ...]  # of the ids in "characters"; the first two stand for nothing and for strange ones


def load(task: Literal["pos", "chunks"] = "pos") -> TaggedDataset:
    """Sentences as word ids (lower-case, every digit 0); the target of each word is its tag.

    Raises:
        UserError: a file is absent or damaged; the message names it.
    """
    paths = files.locate("conll2000", FILES)
    train, test = map(parse, paths)
    extra = paths[0].with_name(VALIDATION_FILE)
    tenth = len(train) - len(train) // VALIDATION_SHARE
    train, validation = (train, parse(extra)) if extra.is_file() else (train[:tenth], train[tenth:])
    column = 1 if task == "pos" else 2
    tags = tuple(sorted({word[column] for word in chain.from_iterable(train + validation + test)}))
    words = most_frequent(Counter(normalize(word) for word, _, _ in chain.from_iterable(train)), least=LEAST)
    letters = ("", "", *sorted({letter for word, _, _ in chain.from_iterable(train) for letter in word}))

    def tagged(sentences: Sequence[Sentence]) -> TaggedSequences:
        return _number(sentences, words, {tag: place for place, tag in enumerate(tags)}, column, letters)

    return TaggedDataset(
        name=task,
        spec=ObservationSpec((), "int64", 0, len(words) - 1, vocabulary=len(words)),
        outputs=len(tags),
        train=tagged(train),
        validation=tagged(validation),
        test=tagged(test),
        classes=tags,
        words=words.words,
        characters=letters,
    )


def normalize(word: str) -> str:
    """A word as the vocabulary has it: in lower case, with 0 for every digit."""
    return re.sub(r"[0-9]", "0", word.lower())


def capital_of(word: str) -> int:
    """A place in `CAPITALS`."""
    cased = [letter for letter in word if letter.isalpha()]
    if not cased:
        return 0
    if not any(letter.isupper() for letter in cased):
        return 1
    if word[0].isupper() and not any(letter.isupper() for letter in word[1:]):
        return 2
    return 3 if all(letter.isupper() for letter in cased) else 4


def parse(path: Path) -> list[Sentence]:
    """The sentences of a file: a word, its part of speech and its chunk on each line, an empty line after a sentence.

    Raises:
        UserError: the file is unreadable or empty, or a line is no such line; says which.
    """
    sentences: list[Sentence] = [[]]
    for place, line in enumerate(files.read_text(path).split("\n"), start=1):
        fields = line.split()
        if not fields and sentences[-1]:
            sentences.append([])
        elif len(fields) == 3 and (fields[2] == "O" or fields[2][:2] in ("B-", "I-")):
            sentences[-1].append((fields[0], fields[1], fields[2]))
        elif fields:
            raise UserError(f"{path}, line {place}, is not WORD TAG CHUNK: {line[:60]!r}; fetch it again")
    return [sentence for sentence in sentences if sentence]


def _number(
    sentences: Sequence[Sentence], words: Vocabulary, tags: dict[str, int], column: int, letters: Sequence[str]
) -> TaggedSequences:
    flat = list(chain.from_iterable(sentences))
    place = {letter: number for number, letter in enumerate(letters) if letter}
    kinds = sorted({word for word, _, _ in flat})
    spelled = np.full((len(kinds), LETTERS), NOTHING, np.int64)
    for row, word in enumerate(kinds):
        shown = word if len(word) <= LETTERS else word[: LETTERS // 2] + word[-LETTERS // 2 :]
        spelled[row, : len(shown)] = [place.get(letter, STRANGE) for letter in shown]
    capitals = np.array([capital_of(word) for word in kinds], np.int64)
    rows = {word: row for row, word in enumerate(kinds)}
    kind_of = np.array([rows[word] for word, _, _ in flat], np.int64)
    return TaggedSequences(
        x=torch.from_numpy(words.encode(normalize(word) for word, _, _ in flat)),
        target=torch.tensor([tags[word[column]] for word in flat]),
        start=torch.from_numpy(np.cumsum([0, *map(len, sentences)], dtype=np.int64)),
        characters=torch.from_numpy(spelled[kind_of]),
        capital=torch.from_numpy(capitals[kind_of]),
    )


def chunk_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Precision, recall and F1, 0 to 1, of whole chunks, by the rules of the task's own `conlleval`.

    A chunk is right where its first word, its last word and its type are.

    Args:
        gold: tags by sentence: "B-TYPE", "I-TYPE" or "O".
        predicted: as many of them.

    Raises:
        UserError: there are not as many tags on both sides.
    """
    if [len(tags) for tags in gold] != [len(tags) for tags in predicted]:
        raise UserError("there must be one predicted tag for each word of each sentence")
    right = found = there = 0
    for truth, guess in zip(gold, predicted, strict=True):
        true_chunks, guessed = chunks(truth), chunks(guess)
        right, found, there = right + len(true_chunks & guessed), found + len(guessed), there + len(true_chunks)
    precision, recall = right / max(found, 1), right / max(there, 1)
    return precision, recall, 2 * right / max(found + there, 1)


def chunks(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, word behind the last, type) of each chunk of a sentence.

    A chunk begins at B-, and at an I- that follows O, the beginning of the sentence, or another type.
    """
    found = set()
    begin, current = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        part, _, name = tag.partition("-")
        if current and (part != "I" or name != current):
            found.add((begin, place, current))
            current = ""
        if part != "O" and not current:
            begin, current = place, name
    return found
