"""Text by characters: tinyshakespeare (Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"),
or any text file in UTF-8."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import files
from .corpus import Corpus, split

kind = "Shakespeare's plays by characters, 1.1 million of 65 kinds"
text_kind = "your own text, by characters"
FILE = "tinyshakespeare.txt"
SOURCES = (
    files.Source(
        FILE,
        "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
    ),
)


def load() -> Corpus:
    """tinyshakespeare. Raises UserError where it is absent or no text."""
    return _read("shakespeare", files.locate("shakespeare", (FILE,))[0])


def load_text(path: Path) -> Corpus:
    """The text at `path`. Raises UserError where it is absent, empty, or not UTF-8."""
    return _read(str(path), path)


def _read(name: str, path: Path) -> Corpus:
    """Ids are the places of the characters in their sorted set, which is that of the whole text."""
    codes = np.frombuffer(files.read_text(path).encode("utf-32-le"), np.uint32)
    alphabet, ids = np.unique(codes, return_inverse=True)
    return Corpus(name, tuple(map(chr, alphabet)), *split(ids))
