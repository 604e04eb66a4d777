"""Data sets to train encoders on, and to judge them by: `load` finds one by its name."""

from __future__ import annotations

from pathlib import Path

from ..envs.errors import UnknownNameError
from . import arrays, cifar10, mnist
from .base import Dataset, Split
from .batches import Batches

__all__ = ["PUBLISHED", "Batches", "Dataset", "Split", "list_datasets", "load"]

PUBLISHED = {"cifar10": cifar10, "mnist": mnist}  # modules with `kind`, `SOURCES` and `load()`


def list_datasets() -> dict[str, str]:
    """Name (or the form of a name) -> one line."""
    return {name: module.kind for name, module in PUBLISHED.items()} | {"PATH.npy": arrays.kind}


def load(name: str, *, seed: int = 0) -> Dataset:
    """The data set called `name`, from the files under $SACCADE_DATA or in the cache. Nothing is downloaded.

    Raises:
        UnknownNameError: nothing is called so; names the nearest that is.
        UserError: its files are absent, or damaged; says which and what to do.
    """
    if name in PUBLISHED:
        return PUBLISHED[name].load()
    if name.endswith(".npy"):
        return arrays.load(Path(name), seed)
    raise UnknownNameError("data set", name, list_datasets())
