"""bAbI: stories with questions, twenty tasks of 10,000 + 1,000 questions each (Weston et al. 2015, "Towards AI-Complete
Question Answering", en-10k), prepared as for the DNC (Graves et al. 2016, Methods, "bAbI task descriptions").

A sequence is a whole story with all its questions: lower-case words, "." and "?". Behind each "?" stands one "-" for
each word of the answer: there, and only there, the word is to be told. Line numbers and supporting facts are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from . import files
from .sequences import NOT_ASKED, SequenceDataset, Sequences
from .vocabulary import Vocabulary, most_frequent

kind = "stories with questions: twenty tasks, each of 10,000 + 1,000 questions; babi-3: the third task alone"
FOLDER = "tasks_1-20_v1-2/en-10k"
TASKS = (
    "single-supporting-fact",
    "two-supporting-facts",
    "three-supporting-facts",
    "two-arg-relations",
    "three-arg-relations",
    "yes-no-questions",
    "counting",
    "lists-sets",
    "simple-negation",
    "indefinite-knowledge",
    "basic-coreference",
    "conjunction",
    "compound-coreference",
    "time-reasoning",
    "basic-deduction",
    "basic-induction",
    "positional-reasoning",
    "size-reasoning",
    "path-finding",
    "agents-motivations",
)
FILES = tuple(
    f"{FOLDER}/qa{number}_{task}_{part}.txt" for number, task in enumerate(TASKS, start=1) for part in ("train", "test")
)
SOURCES = (
    files.Source(
        "tasks_1-20_v1-2.tar.gz",
        "sha256:0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898",
        ("http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",),
        FILES,
    ),
)
ASKED = "-"  # what is shown where a word of an answer is to be told
VALIDATION_SHARE = 10  # the last tenth of each training file's stories is for validation

Story = tuple[list[str], list[str]]  # words as shown, and what is to be told at each: "" = nothing


def load(task: int = 0) -> SequenceDataset:
    """All tasks together, or the one with the number `task`, 1 to 20: one vocabulary of all their words.

    Raises:
        UserError: there is no such task; or a file is absent or damaged, and the message names it.
    """
    if not 0 <= task <= len(TASKS):
        raise UserError(f"bAbI's tasks are babi-1 to babi-{len(TASKS)}, not babi-{task}")
    numbers = [task] if task else list(range(1, len(TASKS) + 1))
    paths = files.locate("babi", tuple(name for number in numbers for name in FILES[2 * number - 2 : 2 * number]))
    stories = [parse(path) for path in paths]
    vocabulary = most_frequent(_count(stories), unknown=False)
    train, validation = [], []
    for part in stories[0::2]:
        kept = len(part) - len(part) // VALIDATION_SHARE
        train.append(part[:kept])
        validation.append(part[kept:])
    size = len(vocabulary)
    return SequenceDataset(
        f"babi-{task}" if task else "babi",
        ObservationSpec((), "int64", 0, size - 1, vocabulary=size),
        size,
        train=_number(train, vocabulary),
        validation=_number(validation, vocabulary),
        test=_number(stories[1::2], vocabulary),
        classes=vocabulary.words,
        groups=tuple(f"{number} {TASKS[number - 1]}" for number in numbers),
        words=vocabulary.words,
    )


def parse(path: Path) -> list[Story]:
    """The stories of one file: lines "number sentence" or "number question <tab> answer <tab> supporting facts", where
    the number 1 begins a story, and commas part the words of an answer.

    Raises:
        UserError: the file is unreadable, empty, or has a line that is neither; says which.
    """
    lines = files.read_text(path).lower().splitlines()
    stories: list[Story] = []
    parted: dict[str, list[str]] = {}  # the words of each sentence that was met: most come again and again
    for place, line in enumerate(lines, start=1):
        number, _, rest = line.partition(" ")
        sentence, *further = rest.split("\t")
        words = parted.get(sentence)
        if words is None:
            words = parted[sentence] = sentence.replace(".", " .").replace("?", " ?").split()
        answer = further[0].split(",") if further else []
        if number == "1":
            stories.append(([], []))
        complete = bool(words) and (words[-1] == "." if not further else words[-1] == "?" and all(answer))
        if not (number.isdigit() and stories and complete):
            raise UserError(f"{path}, line {place}, is no line of a bAbI story: {line[:60]!r}; fetch it again")
        shown, told = stories[-1]
        shown += words + [ASKED] * len(answer)
        told += [""] * len(words) + answer
    return stories


def _count(every: Sequence[list[Story]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for shown, told in chain.from_iterable(every):
        counts.update(shown)
        counts.update(told)
    del counts[""]
    return counts


def _number(tasks: Sequence[list[Story]], vocabulary: Vocabulary) -> Sequences:
    ids = {**vocabulary.ids, "": NOT_ASKED}
    stories = list(chain.from_iterable(tasks))
    x, target = (
        np.fromiter(map(ids.__getitem__, chain.from_iterable(story[side] for story in stories)), np.int64)
        for side in (0, 1)
    )
    start = np.cumsum([0, *(len(shown) for shown, _ in stories)])
    group = np.repeat(np.arange(len(tasks)), [len(part) for part in tasks])
    return Sequences(*map(torch.from_numpy, (x, target, start, group)))
