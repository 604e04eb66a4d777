"""Word analogies, "Athens is to Greece as Baghdad to ...": 19,544 questions in 14 sections (Mikolov et al. 2013,
"Efficient Estimation of Word Representations in Vector Space", section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from . import files

kind = "19,544 questions, such as Athens is to Greece as Baghdad to Iraq, to judge word vectors by"
FILE = "questions-words.txt"
SOURCES = (
    files.Source(
        FILE,
        "sha256:8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
        (
            "https://raw.githubusercontent.com/tmikolov/word2vec/master/questions-words.txt",
            "https://download.tensorflow.org/data/questions-words.txt",
        ),
    ),
)
Question = tuple[str, str, str, str]


def load(lower: bool = True) -> dict[str, list[Question]]:
    """Questions by section, in the file's order: the first word is to the second as the third to the fourth.

    Args:
        lower: in lower case.

    Raises:
        UserError: the file is absent, or a line is neither ": SECTION" nor four words.
    """
    [path] = files.locate("analogies", (FILE,))
    text = files.read_text(path)
    sections: dict[str, list[Question]] = {}
    questions: list[Question] | None = None
    for place, line in enumerate(text.splitlines(), start=1):
        if line.startswith(":"):
            questions = sections.setdefault(line[1:].strip(), [])
            continue
        words = (line.lower() if lower else line).split()
        if len(words) != 4 or questions is None:
            raise UserError(f"{path}, line {place}, is no question of four words: {line[:60]!r}; fetch it again")
        questions.append((words[0], words[1], words[2], words[3]))
    return sections


def number(sections: Mapping[str, list[Question]], ids: Mapping[str, int]) -> dict[str, Tensor]:
    """The questions of which all words have ids: int64 `[Q, 4]` by section; sections without any have Q = 0."""
    known = {
        name: [[ids[word] for word in question] for question in questions if all(word in ids for word in question)]
        for name, questions in sections.items()
    }
    return {name: torch.from_numpy(np.array(rows, np.int64).reshape(-1, 4)) for name, rows in known.items()}
