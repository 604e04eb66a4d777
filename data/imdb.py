"""IMDB: 50,000 film reviews, half of them liked the film; 50,000 more without labels (Maas et al. 2011, "Learning Word
Vectors for Sentiment Analysis"), in the publisher's layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files
from .sequences import NOT_ASKED, SequenceDataset, Sequences
from .tokens import Tokens, number, remember

kind = "film reviews as words: 22,500 + 2,500 + 25,000, liked or not at the last word"
CLASSES = ("negative", "positive")
FOLDERS = tuple(f"aclImdb/{part}/{label}" for part in ("train", "test") for label in ("neg", "pos"))
UNLABELLED, UNLABELLED_FILE = "aclImdb/train/unsup", "imdb-unlabelled.txt"  # a folder of reviews, or one a line
SOURCES = (
    files.Source(
        "aclImdb_v1.tar.gz",
        "sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
        tuple(f"{folder}/" for folder in (*FOLDERS, UNLABELLED)),
    ),
)
WORDS, LENGTH = 30_000, 500
VALIDATION_SHARE = 10  # a tenth of the training reviews, drawn once and for all, is for validation
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]")


def load(words: int = WORDS, length: int = LENGTH, keep: Literal["first", "last"] = "last") -> SequenceDataset:
    """Reviews as sequences of words, the class at the last of them.

    Args:
        words: of the vocabulary: the most frequent of all training reviews; the others are one unknown word, id 0.
        length: words of a review that are kept.
        keep: which they are; the last, because that is where opinions are summed up.

    Raises:
        UserError: a folder is absent, or reviews are missing from it; the message names it.
    """
    paths = folders()
    tokens = remember("imdb", paths, lambda: _number(paths))
    vocabulary = tokens.vocabulary.words[:words]
    label = np.repeat([0, 1, 0, 1], [len(list_reviews(path)) for path in paths])
    trained = len(label) // 2
    order = np.random.default_rng(2011).permutation(trained)
    held_out = trained // VALIDATION_SHARE
    parts = np.sort(order[held_out:]), np.sort(order[:held_out]), np.arange(trained, len(label))
    train, validation, test = (_cut(tokens, label, part, len(vocabulary), length, keep) for part in parts)
    spec = ObservationSpec((), "int64", 0, len(vocabulary) - 1, vocabulary=len(vocabulary))
    return SequenceDataset("imdb", spec, len(CLASSES), train, validation, test, CLASSES, words=vocabulary)


def tokenize(text: str) -> list[str]:
    """Lower-case words of letters and digits, with apostrophes inside ("don't"), and the marks "!" and "?"."""
    return _TOKEN.findall(text.replace("<br />", " ").lower())


def folders() -> list[Path]:
    """The four folders of labelled reviews, in the order of `FOLDERS`. Raises UserError where one is absent."""
    for folder in files.folders():
        paths = [folder / name for name in FOLDERS]
        missing = [path for path in paths if not path.is_dir()]
        if not missing:
            return paths
        if len(missing) < len(paths):
            raise UserError(f"{missing[0]} is missing beside the rest of imdb; {_ADVICE}")
    looked = " and ".join(str(folder) for folder in files.folders())
    raise UserError(f"there is no aclImdb in {looked}; {_ADVICE}")


_ADVICE = f"set {files.VARIABLE} to the folder that holds aclImdb, or run: saccade download imdb"


def list_reviews(folder: Path) -> list[Path]:
    """The reviews of one folder, "NUMBER_STARS.txt", by their numbers, which go from 0 without a gap.

    Raises:
        UserError: one is missing.
    """
    found = {path.stem.partition("_")[0]: path for path in folder.glob("*_*.txt")}
    reviews = [found.get(str(place)) for place in range(len(found))]
    present = [path for path in reviews if path is not None]
    if not found or len(present) < len(found):
        first = reviews.index(None) if found else 0
        raise UserError(f"{folder} lacks review {first}, or is no folder of reviews; {_ADVICE}")
    return present


def unlabelled() -> Path:
    """Where the reviews without labels are. Raises UserError where they are absent."""
    for folder in files.folders():
        for path in (folder / UNLABELLED, folder / UNLABELLED_FILE):
            if path.exists():
                return path
    raise UserError(f"there is neither {UNLABELLED} nor {UNLABELLED_FILE} in {files.folders()[0]}; {_ADVICE}")


def read_reviews(path: Path) -> Iterator[str]:
    """The texts of a folder of reviews, or of a file with one review a line."""
    if path.is_dir():
        return map(files.read_text, list_reviews(path))
    return iter(files.read_text(path).rstrip("\n").split("\n"))  # `splitlines` would part at more than line ends


def _number(paths: list[Path]) -> Tokens:
    sizes = [len(list_reviews(path)) for path in paths]
    if sizes[0] != sizes[1] or sizes[2] != sizes[3] or sizes[0] != sizes[2]:
        raise UserError(f"{paths[0].parent.parent} holds {sizes} reviews, not as many of each; {_ADVICE}")
    return number((tokenize(text) for path in paths for text in read_reviews(path)), counted=sizes[0] + sizes[1])


def _cut(
    tokens: Tokens, label: np.ndarray, which: np.ndarray, size: int, length: int, keep: Literal["first", "last"]
) -> Sequences:
    """The reviews `which`, their first or last `length` words, in a vocabulary of `size`."""
    begin, whole = tokens.start[which], np.diff(tokens.start)[which]
    kept = np.minimum(whole, length)
    if keep == "last":
        begin = begin + whole - kept
    start = np.concatenate([[0], np.cumsum(kept)])
    x = tokens.ids[np.repeat(begin - start[:-1], kept) + np.arange(start[-1])].astype(np.int64)
    x[x >= size] = 0
    target = np.full(len(x), NOT_ASKED, np.int64)
    target[start[1:] - 1] = label[which]
    return Sequences(*map(torch.from_numpy, (x, target, start)))
