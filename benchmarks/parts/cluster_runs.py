"""A benchmark's runs spread over a Ray cluster (`--cluster`): each is a task, which trains in a folder of its node and
sends back what it has written.

Nodes need saccade installed, and what the runs read: data sets, and for runs that begin with another's bundle a file
system that all nodes share. A run whose node dies begins anew elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from ...training.cluster import Files, connect, read_files, write_files
from .plan import Outcome, Run
from .processes import LAST_LINES, line_of, log_file, prepare, read_result

RETRIES = 3  # of a run whose node died
POLL_SECONDS = 1.0


class Done(NamedTuple):
    """What comes back of a run."""

    status: int
    log: str
    files: Files  # of the run directory


def perform(run: Run, threads: int) -> Done:
    """Run it here; on whichever node this is called."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / run.name
        process = subprocess.Popen(
            run.command(folder, threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        try:
            log, _ = process.communicate()
        finally:  # also when the task is cancelled
            process.kill()
            process.wait()
        files = read_files(Path(place), [run.name]) if folder.is_dir() else {}
        return Done(process.returncode, log, files)


def execute_on_cluster(
    runs: Sequence[Run], folder: Path, *, address: str, threads: int, console: Console
) -> list[Outcome]:
    """As `processes.execute`, with as many runs at once as the cluster has room for, `threads` processors each.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or a directory holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    waiting = []
    for run in runs:
        result = prepare(run, folder / run.name)
        if result is None:
            waiting.append(run)
        else:
            outcomes[run.name] = Outcome(run, folder / run.name, result, "")
    if not waiting:
        return [outcomes[run.name] for run in runs]
    ray = connect(address)
    task = ray.remote(perform).options(num_cpus=threads, max_retries=RETRIES)
    references: dict[Any, Run] = {task.remote(run, threads): run for run in waiting}
    try:
        while references:
            ended, _ = ray.wait(list(references), timeout=POLL_SECONDS)
            for reference in ended:
                run = references.pop(reference)
                try:
                    outcome = receive(run, folder, ray.get(reference))
                except ray.exceptions.RayError as error:
                    outcome = Outcome(run, folder / run.name, None, str(error).strip())
                outcomes[run.name] = outcome
                console.print(line_of(outcome), markup=False, highlight=False)
    finally:
        for reference in references:
            ray.cancel(reference)
    return [outcomes[run.name] for run in runs]


def receive(run: Run, folder: Path, done: Done) -> Outcome:
    """Keep what a run sent back, as if it had run in `folder`."""
    write_files(folder, done.files)
    log_file(folder / run.name).write_text(done.log, encoding="utf-8")
    result = read_result(folder / run.name)
    if result is not None and done.status == 0:
        return Outcome(run, folder / run.name, result, "")
    lines = done.log.strip().splitlines()[-LAST_LINES:]
    return Outcome(run, folder / run.name, None, "\n".join([*lines, f"exit status {done.status}"]))
