"""Settings that one kind of task has and the others have not: on the command line `--task.NAME`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoOptions:
    pass


@dataclass(frozen=True)
class LanguageOptions:
    """Of language models."""

    steps: int = 35  # tokens that gradients reach back; the state goes on beyond them
    tied: bool = True  # the vectors of tokens are also those that tell the next one (Press and Wolf 2017)
    dropout: float = 0.0  # of the features, before the next token is told


_OPTIONS: dict[str, type] = {"penn": LanguageOptions, "shakespeare": LanguageOptions}


def options_of(task: str) -> type:
    """The class of a task's own settings; a text file is a language task."""
    return LanguageOptions if task.endswith(".txt") else _OPTIONS.get(task, NoOptions)
