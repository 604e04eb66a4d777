"""Many texts as numbers: every word is looked up once, and what came of it is kept beside the data."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..envs.errors import UserError
from . import files
from .vocabulary import Vocabulary, most_frequent

FOLDER = "numbered"  # of kept numbers, in the folder of all data sets
_VERSION = 1  # to be raised where the same files become other numbers


@dataclass(frozen=True)
class Tokens:
    """N texts end to end. The most frequent words have the smallest ids, so that a smaller vocabulary is a prefix."""

    ids: np.ndarray  # int32 [S]; 0: a word that occurs only in texts that were not counted
    start: np.ndarray  # int64 [N + 1]
    vocabulary: Vocabulary


def number(texts: Iterable[Sequence[str]], counted: int | None = None) -> Tokens:
    """Number the words of `texts`; the vocabulary is that of the first `counted` of them (None: of all)."""
    seen: dict[str, int] = {}
    parts = []
    for words in texts:
        parts.append(np.fromiter((seen.setdefault(word, len(seen)) for word in words), np.int32, len(words)))
    start = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    ids = np.concatenate(parts)
    counts = np.bincount(ids[: start[len(parts) if counted is None else counted]], minlength=len(seen)).tolist()
    vocabulary = most_frequent({word: count for word, count in zip(seen, counts, strict=True) if count})
    place = np.array([vocabulary.ids.get(word, 0) for word in seen], np.int32)
    return Tokens(place[ids], start, vocabulary)


def remember(name: str, paths: Sequence[Path], make: Callable[[], Tokens]) -> Tokens:
    """What `make` gives, from the last time where the files or folders at `paths` have not changed since.

    Where the numbers cannot be kept, they are made every time. Nothing is unpickled.
    """
    folder = files.home() / FOLDER / f"{name}-{_fingerprint(paths)}"
    with suppress(OSError, EOFError, ValueError, UserError):
        return Tokens(
            np.load(folder / "ids.npy", allow_pickle=False),
            np.load(folder / "start.npy", allow_pickle=False),
            Vocabulary.load(folder / "words.json"),
        )
    tokens = make()
    incoming = folder.with_name(f"{folder.name}.{os.getpid()}")
    with suppress(OSError):
        incoming.mkdir(parents=True)
        np.save(incoming / "ids.npy", tokens.ids)
        np.save(incoming / "start.npy", tokens.start)
        tokens.vocabulary.save(incoming / "words.json")
        if folder.exists():  # damaged
            shutil.rmtree(folder)
        incoming.rename(folder)
    shutil.rmtree(incoming, ignore_errors=True)
    return tokens


def _fingerprint(paths: Sequence[Path]) -> str:
    """Of names, sizes and times of change."""
    digest = hashlib.sha256(str(_VERSION).encode())
    for path in paths:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name) if path.is_dir() else [path]
        for entry in entries:
            found = entry.stat()
            digest.update(f"{entry.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
