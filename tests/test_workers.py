"""Runs of several processes: the one that keeps workers going, and what is left when one of them is killed."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from saccade.agents import make_agent
from saccade.encoders import make_encoder
from saccade.envs import make_env
from saccade.envs.errors import UserError
from saccade.training.asynchronous import Foreman
from saccade.training.evaluate import evaluate_run
from saccade.training.plan import Plan, default_plan
from saccade.training.trackers import SCORE, read_lines
from saccade.training.train import Stopped, resume, train
from saccade.training.workers import Crew, Ended, Job, Report, derive_seed

WORLD = "diagnostic/observation-action"
PATIENCE = 120.0  # seconds, for what takes one
LONG = 400_000  # steps of a run that is stopped; the first 800 are logged


# The main process, with workers that only say that they are there.


class Scripted(Crew):
    """Workers whose messages are given."""

    def __init__(self, workers: int, script: list[list[Any]]):
        self.counts, self.script = np.zeros((workers, 4), np.int64), script
        self.jobs: list[Job] = []
        self.stopped = False

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def listen(self, seconds: float) -> list[Any]:
        found = self.script.pop(0) if self.script else []
        return [message() if callable(message) else message for message in found]

    def tally(self) -> np.ndarray:
        return self.counts

    def fetch(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None: ...


def foreman(tmp_path: Path, script: list[list[Any]], workers: int = 2) -> tuple[Foreman, Scripted, list[str]]:
    env = make_env(WORLD, 2)
    agent = make_agent("a3c", env.spec, make_encoder("mlp", env.spec.observation))
    run = SimpleNamespace(workers=workers, seed=3, steps=1000)
    plan, position = SimpleNamespace(run=run), SimpleNamespace(steps=40)
    going: Any = SimpleNamespace(agent=agent, plan=plan, position=position, directory=tmp_path)
    crew, notes = Scripted(workers, script), list[str]()
    found = Foreman(going, crew, notes.append)
    for index in range(workers):
        found.start(index)
    return found, crew, notes


def test_a_worker_that_dies_is_replaced_with_another_seed(tmp_path: Path):
    boss, crew, notes = foreman(tmp_path, [[Ended(1, "killed by SIGKILL")]])
    crew.counts[1] = [60, 5, 0, 0]
    boss.attend(0)
    assert [job.worker for job in crew.jobs] == [0, 1, 1]
    assert len({job.seed for job in crew.jobs}) == 3
    assert notes == ["worker 1 died at step 100 (killed by SIGKILL); another begins"]
    assert boss.alive == {0, 1}
    assert boss.read()["workers/replaced"] == 1


def test_workers_that_die_as_soon_as_they_begin_end_the_run(tmp_path: Path):
    boss, crew, _ = foreman(tmp_path, [[Ended(0, "killed by SIGKILL")]] * Crew.most_stillborn)
    for _ in range(Crew.most_stillborn - 1):
        boss.attend(0)
    with pytest.raises(UserError, match=r"worker 0 died 3 times before its first update \(killed by SIGKILL\)"):
        boss.attend(0)
    assert len(crew.jobs) == 2 + Crew.most_stillborn - 1


def test_a_workers_mistake_is_one_line_and_a_file(tmp_path: Path):
    boss, _, _ = foreman(tmp_path, [[Ended(0, "ValueError: no", is_error=True, trace="Traceback: here")]])
    with pytest.raises(UserError, match=r"worker 0 failed: ValueError: no \(see .*worker-0.txt\)"):
        boss.attend(0)
    assert (tmp_path / "worker-0.txt").read_text() == "Traceback: here"


def test_reports_and_lags_become_numbers(tmp_path: Path):
    script = [[Report(0, {"loss/value": 1.0, "lag": 9.0}, {}), Report(1, {"loss/value": 3.0}, {})]]
    boss, crew, _ = foreman(tmp_path, script)
    crew.counts[:] = [[10, 2, 4, 3], [20, 3, 1, 1]]
    boss.attend(0)
    assert boss.read() == {
        "loss/value": 2.0,
        "lag/mean": 1.0,
        "lag/most": 3.0,
        "workers/alive": 2.0,
        "workers/replaced": 0.0,
    }
    crew.counts[0] = [15, 4, 8, 3]
    assert boss.read()["lag/mean"] == 2.0
    assert boss.steps() == 40 + 15 + 20


def test_at_the_end_all_are_told_and_none_is_replaced(tmp_path: Path):
    boss, crew, notes = foreman(tmp_path, [[Ended(0, "")], [Ended(1, "killed by SIGTERM")]])
    crew.counts[1] = [60, 5, 0, 0]
    boss.finish()
    assert crew.stopped
    assert not boss.alive
    assert len(crew.jobs) == 2
    assert "another" not in notes[0]


def test_seeds_of_workers_differ():
    seeds = {derive_seed(s, i, g, n) for s in range(3) for i in range(3) for g in range(3) for n in (0, 10)}
    assert len(seeds) == 54


# Real processes.


def small_plan(agent: str = "a3c", steps: int = 6000, **run: Any) -> Plan:
    plan = default_plan(agent, WORLD)
    settings = {"workers": 2, "num_envs": 4, "steps": steps, "evaluate_episodes": 50} | run
    return dataclasses.replace(
        plan,
        run=dataclasses.replace(plan.run, **settings),
        agent_config=dataclasses.replace(plan.agent_config, learning_rate=3e-3, discount=0.5),
    )


class At:
    """A tracker that does something once, when workers have begun to learn."""

    def __init__(self, action: Callable[[], None]):
        self.action, self.done = action, False

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        if not self.done and "lag/mean" in values:
            self.done = True
            self.action()

    def close(self) -> None: ...


def workers_alive() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid and child.name.startswith("worker")]


def test_two_workers_learn_and_nothing_is_left_of_them(tmp_path: Path):
    out = tmp_path / "run"
    result = train(small_plan(), out, [])
    assert result["score"]["mean"] == 1.0
    assert result["steps"] >= 6000
    assert result["workers"] == 2
    assert result["updates"] * 20 <= result["steps"] + 40
    assert result["lag"]["most"] >= 0
    assert not workers_alive()
    lines = read_lines(out / "metrics.jsonl")
    assert any(SCORE in line and "lag/mean" in line for line in lines)
    assert json.loads((out / "result.json").read_text())["lag"] == result["lag"]
    assert evaluate_run(out, 20).mean == 1.0


def test_a_worker_killed_in_mid_run_is_replaced(tmp_path: Path):
    killed: list[int] = []

    def kill() -> None:
        killed.append(workers_alive()[0])
        os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "run"
    result = train(small_plan(), out, [At(kill)])
    assert result["workers_replaced"] == 1
    assert result["steps"] >= 6000
    assert "killed by SIGKILL" in (out / "workers.log").read_text()
    assert not workers_alive()


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(Stopped) as stopped:
        train(small_plan(steps=LONG), out, [At(lambda: signal.raise_signal(signal.SIGINT))])
    assert not workers_alive()
    assert 0 < stopped.value.step < LONG
    result = resume(out, stopped.value.step + 3000, trackers=[])
    assert result["steps"] >= stopped.value.step + 3000
    assert result["updates"] * 20 <= 3000 + 200  # of this sitting


FAILING = """
from saccade.encoders.flat import Config, build as build_flat
kind = "breaks"
def build(config, spec):
    encoder = build_flat(config, spec)
    def encode(x):
        raise RuntimeError("boom")
    encoder.encode = encode
    return encoder
"""


def test_a_mistake_in_a_worker_ends_the_run_in_one_line(tmp_path: Path):
    path, out = tmp_path / "mine.py", tmp_path / "run"
    path.write_text(FAILING)
    plan = default_plan("a3c", WORLD, str(path))
    plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, workers=2, num_envs=2, steps=1000))
    with pytest.raises(UserError, match=r"worker . failed: RuntimeError: boom"):
        train(plan, out, [])
    assert not workers_alive()
    assert "raise RuntimeError" in next(out.glob("worker-?.txt")).read_text()


MAIN = """
import multiprocessing, sys
from test_workers import LONG, At, small_plan, workers_alive
from saccade.training.train import Stopped, train
from pathlib import Path
if __name__ == "__main__":
    try:
        train(small_plan(steps=LONG), Path(sys.argv[1]), [At(lambda: print(*workers_alive(), flush=True))])
    except Stopped:
        print("saved")
"""


def start_main(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with two workers, in a group of its own; it prints their numbers once they learn."""
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        start_new_session=True,
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_for_the_main_one(tmp_path: Path, sent: signal.Signals):
    """As a terminal sends Ctrl-C, and `timeout` SIGTERM: the workers are told by the main process."""
    main = start_main(tmp_path)
    assert main.stdout is not None
    with main:
        assert len(main.stdout.readline().split()) == 2
        os.killpg(main.pid, sent)
        rest, _ = main.communicate(timeout=PATIENCE)
    assert rest.splitlines() == ["saved"]
    log = tmp_path / "run" / "workers.log"
    assert not log.exists() or "died" not in log.read_text()


def test_when_the_main_process_is_killed_workers_end_by_themselves(tmp_path: Path):
    main = start_main(tmp_path)
    assert main.stdout is not None
    with main:
        pids = [int(word) for word in main.stdout.readline().split()]
        main.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + PATIENCE
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
