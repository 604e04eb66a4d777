"""Fetching published data sets: each file is held against its checksum before it gets its name."""

from __future__ import annotations

import logging
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ..envs.errors import UnknownNameError, UserError
from . import DOWNLOADS
from .files import VARIABLE, Source, home

TIMEOUT_SECONDS = 30.0  # without any byte
CHUNK_BYTES = 1 << 16


def download(name: str) -> list[Path]:
    """Fetch a published data set, with progress, into the folder that SACCADE_DATA names, else into the cache.

    Returns:
        the files that were fetched; none where all were there already, and good.

    Raises:
        UnknownNameError: nothing that can be downloaded is called so.
        UserError: as `fetch`.
    """
    if name not in DOWNLOADS:
        raise UnknownNameError("data set to download", name, DOWNLOADS)
    try:
        DOWNLOADS[name].load()
        return []
    except UserError:  # absent or damaged
        return fetch(name, DOWNLOADS[name].SOURCES, home())


def fetch(dataset: str, sources: Sequence[Source], folder: Path) -> list[Path]:
    """Fetch `sources` into `folder`, the folder of all data sets.

    Files that are there already are replaced, but only once everything has arrived whole: what is fetched lies in a
    folder of its own until then, and nothing of it stays after a failure.

    Returns:
        the paths of the files, and of the folders that an archive's members name.

    Raises:
        UserError: no address gave a file with the right checksum, or it cannot be written; says why, for each.
    """
    incoming = folder / f".incomplete-{dataset}"
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    pooch.get_logger().setLevel("ERROR")
    try:
        shutil.rmtree(incoming, ignore_errors=True)  # of a download that was killed
        incoming.mkdir(parents=True)
        arrived = [name for source in sources for name in _arrive(dataset, source, incoming)]
        for name in arrived:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (incoming / name).replace(folder / name)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return [folder / name for name in arrived]


def _arrive(dataset: str, source: Source, incoming: Path) -> list[str]:
    """Names, relative to `incoming`, of the files that `source` is or holds."""
    reasons = []
    for address in source.addresses:
        try:
            with _progress(source.name) as bar:
                downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, timeout=TIMEOUT_SECONDS)
                path = incoming / source.name
                pooch.retrieve(address, source.checksum, path.name, path.parent, downloader=downloader)
            return _unpack(path, source, incoming) if source.members else [source.name]
        except requests.RequestException as error:
            reasons.append(f"{address}: {_explain(error)}")
        except ValueError:  # pooch's word for a checksum that differs
            reasons.append(f"{address}: what arrived has another checksum")
    what = f"cannot download {dataset}; {'; '.join(reasons)}"
    raise UserError(f"{what}; try again later, or put its files into the folder that {VARIABLE} names")


def _explain(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer in {TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the end"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)


def _unpack(path: Path, source: Source, incoming: Path) -> list[str]:
    """Take `source.members`, and nothing else, out of the archive, which is then deleted."""
    try:
        with tarfile.open(path) as archive:
            for name in _inside(archive, source.members):
                packed = archive.extractfile(name)
                if packed is None:
                    raise KeyError(f"{name} is not a file")
                (incoming / name).parent.mkdir(parents=True, exist_ok=True)
                with packed, (incoming / name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (tarfile.TarError, KeyError) as error:
        raise UserError(f"{source.name} has changed at its publisher's: {error}") from error
    path.unlink()
    return [name.rstrip("/") for name in source.members]


def _inside(archive: tarfile.TarFile, members: tuple[str, ...]) -> list[str]:
    """The files that `members` name, in the archive's order where they name folders: going back in it is slow."""
    names = [name for name in members if not name.endswith("/")]
    for folder in set(members) - set(names):
        found = [one.name for one in archive if one.isfile() and one.name.startswith(folder) and ".." not in one.name]
        if not found:
            raise KeyError(f"{folder} is not in it")
        names += found
    return names


class _Bar:
    """What pooch asks of a progress bar, shown by rich."""

    def __init__(self, progress: Progress, name: str):
        self._progress, self._task = progress, progress.add_task(name, total=None)
        self.total = 0

    def update(self, count: int) -> None:
        self._progress.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop_task(self._task)


@contextmanager
def _progress(name: str) -> Iterator[_Bar]:
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        yield _Bar(progress, name)
