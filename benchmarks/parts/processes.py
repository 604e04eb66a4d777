"""Runs processes, several at once; what an earlier call has finished is kept, what it has begun is continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ...envs.errors import UserError
from ...training import checkpoint
from .plan import Outcome, Run

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # for an interrupted run to save itself
LAST_LINES = 5  # of a failed run's output, shown to the user


class _Child:
    """A run in progress."""

    def __init__(self, run: Run, folder: Path, threads: int):
        self.run, self.folder = run, folder
        self._log: TextIO = open(log_file(folder), "a", encoding="utf-8")  # noqa: SIM115 the process writes to it until `finish`
        command = run.command(folder, threads, resume=checkpoint.latest(folder / "checkpoint") is not None)
        # A session of its own: Ctrl-C in a terminal reaches every process of the session, and the runner alone decides
        # when its runs are told.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            start_new_session=True,
        )

    def steps(self) -> int:
        """Environment steps so far, as the run's metrics say."""
        try:
            with open(self.folder / "metrics.jsonl", "rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 4096, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                continue  # the line that is being written, or the first one, cut
        return 0

    def finish(self) -> Outcome:
        """The outcome, once the process has ended."""
        self._log.close()
        result = read_result(self.folder)
        if result is not None and self.process.returncode == 0:
            return Outcome(self.run, self.folder, result, "")
        lines = log_file(self.folder).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ended = f"exit status {self.process.returncode}"
        return Outcome(self.run, self.folder, None, "\n".join([*lines[-LAST_LINES:], ended]))


def execute(
    runs: Sequence[Run], folder: Path, *, jobs: int, threads: int, console: Console | None = None
) -> list[Outcome]:
    """Run all of `runs`, `jobs` at once, each with its share of `threads`; returns their outcomes in order.

    A run whose directory in `folder` holds `result.json` is not run again, one with a checkpoint is continued. A run
    that fails does not stop the others. On Ctrl-C the runs in progress are told to save and end.

    Raises:
        UserError: two runs share a name, or a directory holds a run with other settings.
        KeyboardInterrupt: after the runs in progress have ended.
    """
    if len({run.name for run in runs}) != len(runs):
        raise UserError("two runs of this benchmark share a name: give their groups different names")
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    waiting: list[Run] = []
    for run in runs:
        result = prepare(run, folder / run.name)
        if result is None:
            waiting.append(run)
        else:
            outcomes[run.name] = Outcome(run, folder / run.name, result, "")
    console = console or Console(stderr=True)
    if outcomes and waiting:
        console.print(f"{len(outcomes)} of {len(runs)} runs were done before")
    share = max(threads // jobs, 1)
    running: dict[str, tuple[_Child, TaskID]] = {}
    with _terminate_like_interrupt(), _progress(console) as progress:
        total = progress.add_task("runs", total=len(runs), completed=len(outcomes))
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    child = _Child(run, folder / run.name, share)
                    running[run.name] = child, progress.add_task(run.name, total=run.steps or None)
                time.sleep(POLL_SECONDS)
                for name, (child, task) in list(running.items()):
                    progress.update(task, completed=child.steps())
                    if child.process.poll() is not None:
                        outcomes[name] = child.finish()
                        del running[name]
                        progress.remove_task(task)
                        progress.update(total, advance=1)
                        console.print(line_of(outcomes[name]), markup=False, highlight=False)
        finally:
            _end([child for child, _ in running.values()])
    return [outcomes[run.name] for run in runs]


def log_file(folder: Path) -> Path:
    """Where the output of the run in `folder` goes: beside the run directory, which the run makes itself."""
    return folder.with_name(folder.name + ".log")


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json` of a run directory; None where the run has not finished."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finished(run: Run, folder: Path) -> Outcome | None:
    """What an earlier call made of `run` in `folder`; None where it is not through, or had other settings."""
    result = read_result(folder) if _arguments(folder) == list(run.arguments) else None
    return None if result is None else Outcome(run, folder, result, "")


def and_finished(done: Sequence[Outcome], known: Sequence[Run], folder: Path) -> list[Outcome]:
    """What became of `known`, in their order: those just `done`, and of the others what earlier calls finished."""
    just = {outcome.run.name: outcome for outcome in done}
    found = [just.get(run.name) or finished(run, folder / run.name) for run in known]
    return [outcome for outcome in found if outcome is not None]


def _arguments(folder: Path) -> list[str] | None:
    """Those that the run in `folder` was begun with."""
    note = _note(folder)
    return json.loads(note.read_text(encoding="utf-8")) if note.exists() else None


def _note(folder: Path) -> Path:
    return folder.with_name(folder.name + ".arguments.json")


def prepare(run: Run, folder: Path) -> dict[str, Any] | None:
    """Check that `folder` belongs to `run`; returns its result if it is done."""
    if folder.exists():
        if _arguments(folder) != list(run.arguments):
            raise UserError(f"{folder} holds a run with other settings: delete it, or choose another --out")
        if (result := read_result(folder)) is not None:
            return result
        if checkpoint.latest(folder / "checkpoint") is None:
            shutil.rmtree(folder)  # stopped before its first save: there is nothing to continue from
    _note(folder).write_text(json.dumps(list(run.arguments)), encoding="utf-8")
    return None


def line_of(outcome: Outcome) -> str:
    """One finished run, for people."""
    if outcome.result is None:
        return f"{outcome.run.name} FAILED (the others go on; see {log_file(outcome.folder)}):\n{outcome.error}"
    result = outcome.result
    score = f"score {result['score']['mean']:.1f} " if "score" in result else ""  # pretraining has losses only
    steps = result["steps"] if "steps" in result else result["examples"]
    return f"{outcome.run.name}: {score}after {steps:,} steps, {result['seconds']:.0f} s"


def _end(children: Sequence[_Child]) -> None:
    """Ask runs to save and end; kill those that do not."""
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for child in children:
        try:
            child.process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        child.finish()


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """While it lasts, SIGTERM ends this process as Ctrl-C does, so that no run is left behind."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
