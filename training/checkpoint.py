"""Checkpoints that survive a kill at any instant, and that are safe to load from strangers.

`DIRECTORY/step-000000050000/` holds `state.pt` and `manifest.json`, with the size and SHA-256 of every file. It is
written under another name, forced to the disk and renamed, so a checkpoint either is there in full or not at all. Large
arrays (a replay) lie beside it in `DIRECTORY/replay/` as chunks, one file per name and version: only those that changed
since the last checkpoint are written again. Nothing is unpickled: see `encode` for what a state may hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..envs.errors import UserError

FORMAT = "saccade-checkpoint"
VERSION = 1
_STEP = re.compile(r"step-(\d{12})(?:-(\d+))?")  # the suffix tells apart checkpoints of the same step
_CHUNK = re.compile(r"([\w-]+)\.(\d+)\.safetensors")
_ARRAY, _SCALAR = "__numpy_array__", "__numpy_scalar__"  # the only key of a dictionary that stands for a NumPy value

Chunk = tuple[str, int, dict[str, Tensor]]  # name, version (grows whenever the content changes), content


class _Entry(NamedTuple):
    """One file as the manifest knows it."""

    file: str
    size: int  # bytes
    sha256: str


class _Damaged(Exception):
    """What is wrong with a checkpoint, in a few words."""


def save(directory: Path, step: int, state: dict[str, Any], chunks: Iterable[Chunk] = ()) -> Path:
    """Write a checkpoint, then remove older ones and the chunks that only they needed.

    Args:
        directory: where this run keeps its checkpoints; made if missing. One process at a time writes to it.
        step: environment steps taken so far.
        state: nested dictionaries, lists and tuples of tensors, NumPy values and plain values.
        chunks: large arrays beside the state; views are fine, they are read one at a time.

    Raises:
        UserError: it cannot be written, such as for want of space. The previous checkpoint is as it was.
        TypeError: the state holds something that could not be loaded safely.
    """
    directory = Path(directory)
    temporary = directory / f".saving-{os.getpid()}"
    encoded = encode(state)
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory)
        temporary.mkdir()
        needed = save_chunks(directory, chunks, written)
        buffer = io.BytesIO()
        torch.save(encoded, buffer)
        files = [_write(temporary / "state.pt", buffer.getbuffer())]
        manifest = {"format": FORMAT, "version": VERSION, "step": step}
        manifest |= {"files": [entry._asdict() for entry in files], "chunks": [entry._asdict() for entry in needed]}
        _write(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        _sync_directory(temporary)
        target = _free_name(directory, step)
        temporary.rename(target)
        _sync_directory(directory)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            why = error.strerror or error
            raise UserError(f"cannot write checkpoint {directory}: {why}; make room or choose another place") from error
        raise
    _remove_older(directory, target, {entry.file for entry in needed})
    return target


def save_chunks(directory: Path, chunks: Iterable[Chunk], written: list[Path]) -> list[_Entry]:
    """Write those chunks that the last checkpoint does not hold in the same version; append their paths to `written`.

    A file that no checkpoint lists may be left from a run killed in mid-save and then resumed with other content, so
    only listed ones are trusted.
    """
    last = latest(directory)
    known: dict[str, _Entry] = {}
    if last is not None:
        with suppress(_Damaged, FileNotFoundError):
            known = {entry.file: entry for entry in _read_manifest(last)[2]}
    folder = directory / "replay"
    needed = []
    for name, version, content in chunks:
        path = folder / f"{name}.{version}.safetensors"
        if not _CHUNK.fullmatch(path.name):
            raise ValueError(f"a chunk cannot be called {name!r} {version}")
        entry = known.get(path.name)
        if entry is None or not path.is_file() or path.stat().st_size != entry.size:
            folder.mkdir(exist_ok=True)
            content = {key: value.detach().cpu().contiguous() for key, value in content.items()}
            written.append(path)
            entry = _write(path, safetensors.torch.save(content))
        needed.append(entry)
    if written:
        _sync_directory(folder)
    return needed


def latest(directory: Path) -> Path | None:
    """The folder of the newest complete checkpoint, None where there is none."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        found = [(key, path) for path in Path(directory).iterdir() if (key := _key(path))]
    return max(found)[1] if found else None


def load(directory: Path) -> dict[str, Any]:
    """The state of the newest checkpoint in `directory`, tensors on the CPU.

    Raises:
        UserError: there is none, or it is damaged, foreign, or of a newer format.
    """
    return decode(_with_newest(directory, _read_state))


def load_chunks(directory: Path) -> Iterator[Chunk]:
    """The chunks of the newest checkpoint in `directory`, each checked when it is read.

    Raises:
        UserError: as `load`, and when a chunk is missing or damaged.
    """
    entries = _with_newest(directory, lambda folder: _read_manifest(folder)[2])
    for entry in entries:
        path = Path(directory) / "replay" / entry.file
        try:
            match = _CHUNK.fullmatch(entry.file)
            if match is None:
                raise _Damaged("its manifest.json lists a strange file")
            content = safetensors.torch.load(_read_checked(path, entry))
        except (FileNotFoundError, _Damaged, safetensors.SafetensorError) as error:
            raise _explain(path, error) from error
        yield match[1], int(match[2]), content


def encode(value: Any, name: str = "state") -> Any:
    """`value` with NumPy arrays and scalars as marked tensors and tensors without graph, on the CPU, so that
    `torch.load(weights_only=True)` takes it. `name` is where it lies, for the TypeError about what cannot be saved."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # A view would bring the whole storage that it looks at.
        return value.clone() if value.untyped_storage().nbytes() > value.numel() * value.element_size() else value
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.tensor(value)}
    if isinstance(value, np.generic):
        return {_SCALAR: torch.tensor(value)}
    if isinstance(value, dict):
        return {key: encode(item, f"{name}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(encode(item, f"{name}[{index}]") for index, item in enumerate(value))
    raise TypeError(f"{name} is a {type(value).__qualname__}, which cannot be saved")


def decode(value: Any) -> Any:
    """What `encode` was given."""
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].numpy()
        if value.keys() == {_SCALAR}:
            return value[_SCALAR].numpy()[()]
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(decode(item) for item in value)
    return value


def _read_state(folder: Path) -> dict[str, Any]:
    entries = {entry.file: entry for entry in _read_manifest(folder)[1]}
    if "state.pt" not in entries:
        raise _Damaged("its manifest lists no state.pt")
    data = _read_checked(folder / "state.pt", entries["state.pt"])
    try:
        if not data.startswith(b"PK"):
            raise UnpicklingError("not torch's zip format")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file can make the reader stumble over anything
        raise _Damaged("state.pt holds something other than tensors and plain values") from error
    if not isinstance(state, dict):
        raise _Damaged("state.pt holds no dictionary")
    return state


def _with_newest(directory: Path, read: Any) -> Any:
    """`read(newest folder)`; again if that folder was replaced meanwhile by a run that is still going."""
    folder = latest(directory)
    while folder is not None:
        try:
            return read(folder)
        except (FileNotFoundError, _Damaged) as error:
            newer = latest(directory)
            if newer in (folder, None):
                raise _explain(folder, error) from error
            folder = newer
    raise UserError(f"there is no checkpoint in {directory}")


def _read_manifest(folder: Path) -> tuple[int, list[_Entry], list[_Entry]]:
    """(step, files, chunks) of a checkpoint."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise _Damaged("its manifest.json is not saccade's")
        if manifest["version"] > VERSION:
            raise UserError(
                f"checkpoint {folder} is of format {manifest['version']}, written by a newer saccade; "
                f"this one reads up to {VERSION}: upgrade saccade"
            )
        files, chunks = ([_Entry(**entry) for entry in manifest[key]] for key in ("files", "chunks"))
        return int(manifest["step"]), files, chunks
    except (ValueError, KeyError, TypeError) as error:
        raise _Damaged("its manifest.json cannot be read") from error


def _read_checked(path: Path, entry: _Entry) -> bytes:
    data = path.read_bytes()
    if len(data) != entry.size:
        raise _Damaged(f"{path.name} has {len(data)} bytes instead of {entry.size}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _Damaged(f"the checksum of {path.name} is wrong")
    return data


def _explain(path: Path, error: Exception) -> UserError:
    why = f"{Path(error.filename).name} is missing" if isinstance(error, FileNotFoundError) else str(error)
    return UserError(f"checkpoint {path} is damaged or not saccade's: {why}")


def _write(path: Path, data: bytes | memoryview) -> _Entry:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return _Entry(path.name, len(data), hashlib.sha256(data).hexdigest())


def _sync_directory(path: Path) -> None:
    """Make new names in `path` last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key(path: Path) -> tuple[int, int] | None:
    """(step, suffix) by which checkpoints are ordered; None for anything else."""
    match = _STEP.fullmatch(path.name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _free_name(directory: Path, step: int) -> Path:
    """A name that sorts after every checkpoint of the same step: a folder in use is never replaced."""
    taken = [key[1] for path in directory.iterdir() if (key := _key(path)) and key[0] == step]
    return directory / (f"step-{step:012d}" + (f"-{max(taken) + 1}" if taken else ""))


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(".saving-*"):
        shutil.rmtree(path)


def _remove_older(directory: Path, newest: Path, needed: set[str]) -> None:
    """Tidy up. What cannot be removed now is tried again at the next save."""
    for path in directory.iterdir():
        if _key(path) and path != newest:
            shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob("replay/*"):
        if path.name not in needed:
            with suppress(OSError):
                path.unlink()
