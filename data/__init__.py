"""Data sets to train encoders on, and to judge them by: `load` finds one by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, overload

from ..envs.errors import UnknownNameError, UserError
from ..envs.options import EnvOptions
from ..envs.recorder import Policy, Recipe
from . import (
    algorithmic,
    analogies,
    arrays,
    babi,
    characters,
    cifar10,
    conll2000,
    corpus,
    dates,
    imdb,
    letters,
    mnist,
    penn,
    review_bags,
    sequential,
    treebank,
)
from .base import Dataset, Split, redivide
from .batches import Batches
from .corpus import Corpus, Stream
from .sequences import SequenceDataset, Sequences

__all__ = [
    "CORPORA",
    "DOWNLOADS",
    "PUBLISHED",
    "SEQUENCES",
    "Batches",
    "Corpus",
    "Dataset",
    "Policy",
    "SequenceDataset",
    "Sequences",
    "Split",
    "Stream",
    "list_datasets",
    "load",
    "load_corpus",
    "load_examples",
    "redivide",
]

PUBLISHED = {"cifar10": cifar10, "mnist": mnist}  # modules with `kind`, `SPEC`, `SOURCES` and `load()`
_TEXTS = {"analogies": analogies, "babi": babi, "conll2000": conll2000, "imdb": imdb, "penn": penn}
DOWNLOADS = PUBLISHED | _TEXTS | {"shakespeare": characters}  # modules with `kind`, `SOURCES` and `load()`
FRAMES = "what an environment shows, recorded on first use: env:ALE/Breakout-v5, env:pixels/CartPole-v1, any other id"
SEQUENCES: dict[str, tuple[str, Callable[[], SequenceDataset]]] = {  # name -> one line, and how it is loaded
    "babi": (babi.kind, babi.load),
    "imdb": (imdb.kind, imdb.load),
    "dates": (dates.kind, dates.load),
    "treebank": (treebank.kind, treebank.load),
    "pos": (conll2000.KINDS["pos"], partial(conll2000.load, "pos")),
    "chunks": (conll2000.KINDS["chunks"], partial(conll2000.load, "chunks")),
    **{name: (task.kind, partial(algorithmic.load, name)) for name, task in algorithmic.TASKS.items()},
    **{name: (kind, partial(sequential.load, name)) for name, kind in sequential.KINDS.items()},
}
_BAGS: dict[str, tuple[str, Callable[[], Dataset]]] = {  # as SEQUENCES
    name: (kind, partial(review_bags.load, name)) for name, kind in review_bags.KINDS.items()
}
_GENERATED: dict[str, tuple[str, Callable[[], Dataset]]] = {"letters": (letters.kind, letters.load)}  # as SEQUENCES
CORPORA: dict[str, tuple[str, Callable[[], Corpus]]] = {  # as SEQUENCES
    "penn": (penn.kind, penn.load),
    "shakespeare": (characters.kind, characters.load),
    "imdb-words": (corpus.kind, corpus.load_imdb),
}
WORD_VECTORS = "the words of imdb-words, whose vectors are judged by analogies"
_BABI_TASK = re.compile(r"babi-(\d+)")
_DEFAULTS = EnvOptions()


def list_datasets() -> dict[str, str]:
    """Name (or the form of a name) -> one line."""
    published = {name: module.kind for name, module in PUBLISHED.items()}
    further = {name: kind for name, (kind, _) in (SEQUENCES | _BAGS | _GENERATED | CORPORA).items()}
    further |= {"word2vec": WORD_VECTORS}
    return published | further | {"env:ID": FRAMES, "PATH.npy": arrays.kind, "PATH.txt": characters.text_kind}


@overload
def load(name: Literal["cifar10", "mnist"]) -> Dataset: ...
@overload
def load(
    name: str,
    *,
    seed: int = 0,
    frames: int = 50_000,
    step: int = 1,
    policy: Policy | None = None,
    options: EnvOptions = _DEFAULTS,
) -> Dataset | SequenceDataset: ...
def load(
    name: str,
    *,
    seed: int = 0,
    frames: int = 50_000,
    step: int = 1,
    policy: Policy | None = None,
    options: EnvOptions = _DEFAULTS,
) -> Dataset | SequenceDataset:
    """The data set called `name`, from files under $SACCADE_DATA or in the cache. Nothing is downloaded.

    Args:
        name: one of `list_datasets()`, `babi-` and a task's number, a `.npy` file, or `env:` and an environment's
            id; of running text, `load_corpus`.
        seed: of the split of a `.npy` file, or of a recording; the published sets are split once and for all.
        frames: of a recording: observations, which are recorded now (with progress) where they are not there yet.
        step: of a recording: "next_x" is so many steps later, and "action" what was done first; 0 leaves both out.
        policy: of a recording: who acts; None: random actions.
        options: of a recording: the environment's.

    Raises:
        UnknownNameError: nothing is called so; names the nearest that is.
        UserError: its files are absent, or damaged, or it is running text; says which and what to do.
    """
    if name in PUBLISHED:
        return PUBLISHED[name].load()
    if name in SEQUENCES:
        return SEQUENCES[name][1]()
    if found := (_BAGS | _GENERATED).get(name):
        return found[1]()
    if _is_text(name):
        raise UserError(f"{name} is running text, which language models and word vectors learn from")
    if task := _BABI_TASK.fullmatch(name):
        return babi.load(int(task[1]))
    if name.endswith(".npy"):
        return arrays.load(Path(name), seed)
    if name.startswith("env:"):
        from . import frames as recorded

        recipe = Recipe(name.removeprefix("env:"), options, policy.name if policy else "random", seed)
        return recorded.load(recipe, frames, step, policy)
    raise UnknownNameError("data set", name, list_datasets())


def load_examples(
    name: str,
    *,
    seed: int = 0,
    frames: int = 50_000,
    step: int = 1,
    policy: Policy | None = None,
    options: EnvOptions = _DEFAULTS,
) -> Dataset:
    """As `load`, for those who want single examples. Raises UserError, too, where there are only sequences."""
    if name in SEQUENCES or _BABI_TASK.fullmatch(name):
        raise UserError(f"{name} holds sequences, not single examples; `saccade fit` learns from them")
    loaded = load(name, seed=seed, frames=frames, step=step, policy=policy, options=options)
    assert isinstance(loaded, Dataset)
    return loaded


def load_corpus(name: str) -> Corpus:
    """The running text called `name`, of `CORPORA`, or by characters that of a `.txt` file.

    Raises:
        UnknownNameError: nothing is called so; names the nearest that is.
        UserError: its files are absent, or damaged; says which and what to do.
    """
    if name in CORPORA:
        return CORPORA[name][1]()
    if name.endswith(".txt"):
        return characters.load_text(Path(name))
    raise UnknownNameError("text", name, CORPORA)


def _is_text(name: str) -> bool:
    return name in CORPORA or name == "word2vec" or name.endswith(".txt")
