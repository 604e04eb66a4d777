"""Actor-learners of an asynchronous run: what each of them does, and those that are processes of this machine.

A worker is an ordinary run of the loop with an agent that applies its gradients elsewhere. It has one torch thread, its
own copies of the world, and its own seed. It tells what it saw a few times per second; its steps and updates are
counted where the parameters are.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, resource_tracker
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import multiprocessing

from ..agents.parts.actor_learner import ActorLearner
from ..agents.parts.shared_rmsprop import Seat, SharedParameters
from ..encoders import list_encoders
from ..envs.errors import UserError
from .loop import Position, run
from .plan import Plan, build, read_config
from .trackers import LENGTH, SCORE, EpisodeStatistics, Meter

REPORT_SECONDS = 0.5  # between a worker's reports
PATIENCE_SECONDS = 20.0  # for a worker that was told to stop


class Job(NamedTuple):
    """What one worker does. Plain values."""

    worker: int  # among the workers
    seed: int  # of its worlds and its choices
    directory: str  # of the run, for its settings
    total_steps: int  # of the run, for schedules
    own: dict[str, np.ndarray]  # the network's tensors that are not shared, as they begin


class Report(NamedTuple):
    """What a worker saw since its last report."""

    worker: int
    metrics: dict[str, float]  # means
    own: dict[str, np.ndarray]  # the first worker's buffers as they are now; of the others {}


class Ended(NamedTuple):
    """A worker is no more."""

    worker: int
    how: str  # "" if it was to end; else why, in a few words
    is_error: bool = False  # a mistake that another worker would make, too
    trace: str = ""  # where in the code, if it is one of ours


Message = Report | Ended


class Crew(ABC):
    """The workers of a run, wherever they are."""

    most_stillborn = 3  # that die one after the other in the same place, none of them after an update

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a worker, perhaps in the place of one that has ended."""

    @abstractmethod
    def listen(self, seconds: float) -> list[Message]:
        """What came in, waiting so long at most."""

    @abstractmethod
    def tally(self) -> np.ndarray:
        """int64 `[workers, 4]`, see `agents.parts.shared_rmsprop`."""

    @abstractmethod
    def fetch(self) -> None:
        """Bring parameters and statistics into this process's `SharedParameters`."""

    def summary(self) -> dict[str, Any]:
        """More to say in the run's result."""
        return {}

    @abstractmethod
    def stop(self) -> None:
        """Tell all workers to end after the step that they are at."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once. Safe to call twice."""


def derive_seed(seed: int, index: int, generation: int, steps: int) -> int:
    """Of a worker; `generation`: how many had its place before; `steps`: those of earlier sittings."""
    return int(np.random.SeedSequence([seed, index, generation, steps]).generate_state(1)[0])


def own_arrays(agent: ActorLearner) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in agent.own().items()}


def work(job: Job, plan: Plan, seat: Callable[[ActorLearner], Seat], tell: Callable[[Report], bool]) -> None:
    """Act and learn until `tell` returns False or the seat's parameters have seen all the steps.

    Raises:
        UserError: a world or a network failed.
    """
    options = replace(plan.env_options, threads=1)
    plan = replace(plan, run=replace(plan.run, seed=job.seed, threads=1), env_options=options)
    env, agent, _ = build(plan, directory=Path(job.directory))
    assert isinstance(agent, ActorLearner)  # `build` sees to it
    try:
        agent.set_own({name: torch.from_numpy(array) for name, array in job.own.items()})
        agent.sit(seat(agent))
        statistics, meter = EpisodeStatistics(env.spec.num_envs), Meter()
        buffers = bool(agent.own()) and job.worker == 0
        schedules = [buffer for name, buffer in agent.network.named_buffers() if name.split(".")[-1] == "progress"]

        def report() -> bool:
            return tell(Report(job.worker, meter.read(), own_arrays(agent) if buffers else {}))

        reported = time.monotonic()
        for step, metrics in run(env, agent, Position.begin(env, agent, env.reset(job.seed))):
            for episode in statistics.update(step):
                meter.add({SCORE: episode.score, LENGTH: float(episode.length)})
            if not metrics:
                continue
            meter.add(metrics)
            for progress in schedules:
                progress.fill_(min(agent.total_steps / job.total_steps, 1.0))
            if agent.is_done:
                break
            if time.monotonic() - reported > REPORT_SECONDS:
                if not report():
                    break
                reported = time.monotonic()
        report()
    finally:
        env.close()


class LocalCrew(Crew):
    """Processes of this machine, on parameters in shared memory."""

    def __init__(self, shared: SharedParameters, workers: int):
        self.shared = shared.share(workers)
        self._context = _context()
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, connection.Connection] = {}
        self._last: dict[int, Ended] = {}  # what a worker said of its end

    def start(self, job: Job) -> None:
        here, there = self._context.Pipe(duplex=False)
        # not daemonic: a worker may have processes for its worlds; `close`, and the workers themselves, end them
        process = self._context.Process(target=_serve, args=(job, self.shared, there), name=f"worker {job.worker}")
        resource_tracker.ensure_running()  # the first start would begin it, and that unblocks signals
        with _signals_blocked():  # Ctrl-C in a terminal reaches all; it is for this process, which tells the workers
            process.start()
        there.close()
        self._processes[job.worker], self._pipes[job.worker] = process, here
        self._last.pop(job.worker, None)

    def listen(self, seconds: float) -> list[Message]:
        if not self._pipes:
            return []
        found: list[Message] = []
        index_of = {pipe: index for index, pipe in self._pipes.items()}
        for ready in connection.wait(list(index_of), seconds):
            pipe = cast(connection.Connection, ready)
            index = index_of[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                found.append(self._bury(index))
                continue
            if isinstance(message, Ended):
                self._last[index] = message
            else:
                found.append(message)
        return found

    def _bury(self, index: int) -> Ended:
        process, pipe = self._processes.pop(index), self._pipes.pop(index)
        pipe.close()
        process.join(PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        return self._last.pop(index, None) or Ended(index, _cause(process.exitcode))

    def tally(self) -> np.ndarray:
        return self.shared.tally.numpy()

    def fetch(self) -> None:
        """They are here."""

    def stop(self) -> None:
        self.shared.stop.fill_(1)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.join()
        for pipe in self._pipes.values():
            pipe.close()
        self._processes, self._pipes = {}, {}

    def pids(self) -> dict[int, int]:
        """Of the workers that live."""
        return {index: process.pid for index, process in self._processes.items()}


def _serve(job: Job, shared: SharedParameters, pipe: connection.Connection) -> None:
    """A worker's process: reports, then says how it ended."""
    _end_with_parent()
    torch.set_num_threads(1)

    def tell(message: Message) -> bool:
        pipe.send(message)
        return True

    try:
        directory = Path(job.directory)
        work(job, Plan.load(directory, *users_own(directory)), lambda agent: shared.seat(job.worker), tell)
        tell(Ended(job.worker, ""))
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody listens any more
    except Exception as error:
        with suppress(OSError):
            tell(explain(job, error))


def users_own(directory: Path) -> list[str]:
    """The user's own encoder in a run's settings, which must be named again to be loaded; [] where it is built in."""
    encoder = read_config(directory)["encoder"]
    return [] if encoder in list_encoders() else [encoder]


def explain(job: Job, error: Exception) -> Ended:
    """What a worker's mistake was."""
    if isinstance(error, UserError):
        return Ended(job.worker, str(error), is_error=True)
    trace = "".join(traceback.format_exception(error))
    return Ended(job.worker, f"{type(error).__name__}: {error}", is_error=True, trace=trace)


def _end_with_parent() -> None:
    """End this process when the one that started it has, however that died."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def _context() -> Any:
    """Processes are forked by a server that has imported what they need and runs no threads: they begin in an instant,
    and share its memory. Where there is no such thing they are spawned."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """While it lasts SIGINT and SIGTERM wait; for processes that are started meanwhile, their whole life long."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
