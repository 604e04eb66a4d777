"""The asynchronous run, seen from its main process: workers act and learn; this one counts, logs, saves, and replaces
workers that die.

What is saved: the shared parameters and RMSProp statistics, the first worker's buffers, the step. Resuming begins new
episodes, and which worker's gradient came first was chance: unlike other agents', no such run can be repeated exactly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..agents.parts.actor_learner import ActorLearner
from ..agents.parts.shared_rmsprop import LAG_MOST, LAG_SUM, STEPS, UPDATES
from ..envs.errors import UserError
from . import device
from .trackers import Meter, Tracker
from .workers import PATIENCE_SECONDS, Crew, Ended, Job, LocalCrew, Report, derive_seed, own_arrays

if TYPE_CHECKING:
    from .train import Going

POLL_SECONDS = 0.1
LOG_FILE = "workers.log"


class Foreman:
    """Keeps the workers of one sitting going."""

    def __init__(self, going: Going, crew: Crew, note: Callable[[str], None]):
        assert isinstance(going.agent, ActorLearner)
        self.going, self.agent, self.crew, self.note = going, going.agent, crew, note
        self.meter, self.count = Meter(), going.plan.run.workers
        self.base = going.position.steps
        self.replaced = 0
        self.alive: set[int] = set()
        self._generation = [0] * self.count
        self._updates_at_start = [0] * self.count
        self._stillborn = [0] * self.count
        self._logged = np.zeros((self.count, 4), np.int64)  # the tally at the last logging

    def start(self, index: int) -> None:
        plan = self.going.plan
        seed = derive_seed(plan.run.seed, index, self._generation[index], self.base)
        own = own_arrays(self.agent)
        self.crew.start(Job(index, seed, str(self.going.directory), plan.run.steps, own))
        self._generation[index] += 1
        self._updates_at_start[index] = int(self.crew.tally()[index, UPDATES])
        self.alive.add(index)

    def attend(self, seconds: float, replace: bool = True) -> None:
        """Hear what workers say; replace those that died.

        Raises:
            UserError: a worker met a mistake, or they die as soon as they begin.
        """
        for message in self.crew.listen(seconds):
            if isinstance(message, Report):
                self.meter.add(message.metrics)
                if message.own:
                    self.agent.set_own({name: torch.from_numpy(array) for name, array in message.own.items()})
                continue
            self.alive.discard(message.worker)
            if message.is_error:
                raise UserError(f"worker {message.worker} failed: {message.how}" + self._write_trace(message))
            if message.how:
                self._mourn(message, replace)

    def _mourn(self, ended: Ended, replace: bool) -> None:
        index = ended.worker
        has_worked = self.crew.tally()[index, UPDATES] > self._updates_at_start[index]
        self._stillborn[index] = 0 if has_worked else self._stillborn[index] + 1
        if self._stillborn[index] >= self.crew.most_stillborn:
            raise UserError(
                f"worker {index} died {self.crew.most_stillborn} times before its first update ({ended.how}); "
                "fewer --workers or --num-envs need less memory"
            )
        self.note(f"worker {index} died at step {self.steps():,} ({ended.how})" + "; another begins" * replace)
        if replace:
            self.replaced += 1
            self.start(index)

    def _write_trace(self, ended: Ended) -> str:
        if not ended.trace:
            return ""
        path = self.going.directory / f"worker-{ended.worker}.txt"
        path.write_text(ended.trace, encoding="utf-8")
        return f" (see {path})"

    def steps(self) -> int:
        """Of all workers and sittings."""
        return self.base + int(self.crew.tally()[:, STEPS].sum())

    def read(self) -> dict[str, float]:
        """The means since the last reading, and how old parameters were when their gradients arrived."""
        tally = self.crew.tally().copy()
        updates, lag = (tally - self._logged)[:, [UPDATES, LAG_SUM]].sum(0)
        self._logged = tally
        values = self.meter.read()
        values.pop("lag", None)
        if updates:
            values |= {"lag/mean": lag / updates, "lag/most": float(tally[:, LAG_MOST].max())}
        return values | {"workers/alive": float(len(self.alive)), "workers/replaced": float(self.replaced)}

    def save(self, seconds: float) -> None:
        from .train import save

        self.crew.fetch()
        self.going.position.steps = self.steps()
        self.agent.pull(self.going.position.steps)
        save(self.going, seconds)

    def finish(self) -> None:
        """Let all workers end, and hear their last reports."""
        self.crew.stop()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.alive and time.monotonic() < deadline:
            self.attend(POLL_SECONDS, replace=False)

    def summary(self) -> dict[str, object]:
        """For the run's result."""
        tally = self.crew.tally()
        updates = int(tally[:, UPDATES].sum())
        return {
            "workers": self.count,
            "workers_replaced": self.replaced,
            "updates": updates,
            "lag": {"mean": int(tally[:, LAG_SUM].sum()) / max(updates, 1), "most": int(tally[:, LAG_MOST].max())},
        } | self.crew.summary()


def loop(going: Going, trackers: list[Tracker], stop: list[int], began: float) -> None:
    """Train to the plan's number of steps, as `train` does in one process.

    Raises:
        Stopped: a signal arrived.
        UserError: a worker failed.
    """
    from .train import POINTS, Stopped

    run_config, position = going.plan.run, going.position
    if position.steps >= run_config.steps:
        return
    crew = make_crew(going)
    foreman = Foreman(going, crew, _notes(going.directory))
    cores = device.machine()["cores"]
    if run_config.cluster is None and run_config.workers > cores:
        foreman.note(f"{run_config.workers} workers share {cores} processors, by turns")
    interval, clock = max(1, run_config.steps // POINTS), time.perf_counter
    next_log, saved_at, logged = position.steps + interval, clock(), (position.steps, clock())
    try:
        for index in range(run_config.workers):
            foreman.start(index)
        while True:
            foreman.attend(POLL_SECONDS)
            position.steps = foreman.steps()
            done = position.steps >= run_config.steps
            if done or stop:
                foreman.finish()
                position.steps = foreman.steps()
            if position.steps >= next_log or done:
                rate = (position.steps - logged[0]) / max(clock() - logged[1], 1e-9)
                logged, next_log = (position.steps, clock()), position.steps + interval
                values = foreman.read() | {"steps_per_second": rate}
                for tracker in trackers:
                    tracker.log(position.steps, clock() - began, values)
            if done or stop or clock() - saved_at > run_config.save_interval_seconds:
                foreman.save(clock() - began)
                saved_at = clock()
            if done:
                going.summary |= foreman.summary()
                return
            if stop:
                raise Stopped(position.steps)
    finally:
        crew.close()


def make_crew(going: Going) -> Crew:
    """Workers for a plan: its agent's parameters become theirs."""
    agent, run_config = going.agent, going.plan.run
    assert isinstance(agent, ActorLearner)
    agent.shared.base, agent.shared.total = going.position.steps, run_config.steps
    if run_config.cluster is None:
        return LocalCrew(agent.shared, run_config.workers)
    from .cluster import ClusterCrew

    return ClusterCrew(agent.shared, run_config, going.directory)


def _notes(directory: Path) -> Callable[[str], None]:
    """Where it is said what happened to workers: to the user, and in a file of the run."""

    def note(text: str) -> None:
        print(f"saccade: {text}", file=sys.stderr, flush=True)
        with (directory / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    return note
