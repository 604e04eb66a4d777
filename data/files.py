"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..envs.errors import UserError

VARIABLE = "SACCADE_DATA"


@dataclass(frozen=True)
class Source:
    """A file that a publisher offers: one of a data set's own, or an archive of several."""

    name: str  # where it goes, relative to the folder of all data sets
    checksum: str  # such as "sha256:..."
    addresses: tuple[str, ...]  # each is tried until one has it
    members: tuple[str, ...] = ()  # of an archive: what is taken out of it, relative to the same folder; X/: a folder


def folders() -> list[Path]:
    """Where files are looked for, in this order: the folder that SACCADE_DATA names, then the user's cache."""
    named = os.environ.get(VARIABLE)
    return [*([Path(named).expanduser()] if named else []), cache()]


def cache() -> Path:
    """Where downloads and recordings go unless told otherwise; it need not exist yet."""
    import pooch

    return Path(pooch.os_cache("saccade"))


def home() -> Path:
    """Where new files go: the first of the folders that can be written."""
    for folder in folders():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if os.access(existing, os.W_OK):
            return folder
    return cache()


def locate(dataset: str, names: tuple[str, ...]) -> list[Path]:
    """The paths of the files called `names`, all from the first folder that holds any of them.

    Raises:
        UserError: none is there, or one is missing; says where they were looked for and what to do.
    """
    for folder in folders():
        paths = [folder / name for name in names]
        missing = [path for path in paths if not path.is_file()]
        if not missing:
            return paths
        if len(missing) < len(paths):
            raise UserError(f"{missing[0]} is missing beside the rest of {dataset}; {_advice(dataset)}")
    looked = " and ".join(str(folder / Path(names[0]).parent) for folder in folders())
    raise UserError(f"the data set {dataset!r} is not in {looked}; {_advice(dataset)}")


def _advice(dataset: str) -> str:
    return f"set {VARIABLE} to the folder that holds it, or run: saccade download {dataset}"


def read(path: Path) -> bytes:
    """Raises UserError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """Raises UserError where the file cannot be read, is empty, or is not UTF-8."""
    try:
        text = read(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start:,}); fetch it again") from error
    if not text.strip():
        raise UserError(f"{path} is empty; fetch it again")
    return text
