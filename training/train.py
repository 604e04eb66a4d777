"""One training run: from a plan to a run directory, through checkpoints, to a result."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..agents.base import Agent, Replay
from ..agents.parts.compute import Compute
from ..envs.base import VectorEnv
from ..envs.errors import UserError
from . import checkpoint, device, encoder_use
from .evaluate import FRESH_SEEDS, Score, evaluate
from .loop import Position, run
from .plan import CONFIG_FILE, Plan, build, make_world
from .plots import learning_curve
from .trackers import LENGTH, SCORE, Console, EpisodeStatistics, JsonLines, Meter, TensorBoard, Tracker

POINTS = 500  # logged over a run
RESULT_FILE = "result.json"


class Stopped(Exception):
    """A signal ended the run; a checkpoint was saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step:,}; the checkpoint is saved")
        self.step = step


@dataclass
class Going:
    """What is alive while a run goes on."""

    plan: Plan
    directory: Path
    env: VectorEnv
    agent: Agent
    compute: Compute
    position: Position
    statistics: EpisodeStatistics
    seconds: float = 0.0  # training time of earlier sittings
    summary: dict[str, Any] = field(default_factory=dict)  # more to say in the result

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoint"


def train(
    plan: Plan, directory: Path, trackers: list[Tracker] | None = None, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Train from the beginning into a new run directory; returns what `result.json` holds.

    `say` is told which parameters train.

    Raises:
        UserError: the directory is there already, or a setting is bad.
        Stopped: SIGINT or SIGTERM arrived.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists; choose another --out, or continue it with --resume")
    env, agent, compute = build(plan)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        plan.save(directory)
        encoder_use.keep(plan, env, directory)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
    say(encoder_use.explain(plan, env, agent))
    position = Position.begin(env, agent, env.reset(plan.run.seed))
    going = Going(plan, directory, env, agent, compute, position, EpisodeStatistics(env.spec.num_envs))
    return _finish(going, _train(going, trackers, resume_step=None))


def resume(
    directory: Path, steps: int | None = None, encoder: str | None = None, trackers: list[Tracker] | None = None
) -> dict[str, Any]:
    """Go on from the last checkpoint of a run directory, to `steps` where given instead of the plan's.

    A world that can be cloned goes on exactly where it stood; others begin new episodes.

    Raises:
        UserError: nothing to resume, or a damaged or foreign checkpoint.
        Stopped: as `train`.
    """
    plan = Plan.load(directory, encoder)
    if steps is not None:
        plan = replace(plan, run=replace(plan.run, steps=steps))
    state = checkpoint.load(directory / "checkpoint")
    env, agent, compute = build(plan, directory=directory)
    statistics = EpisodeStatistics(env.spec.num_envs)
    try:
        agent.load_state_dict(state["agent"])
        if agent.replay is not None:
            _restore_replay(agent.replay, directory / "checkpoint", saved=plan.run.save_replay)
        statistics.load_state_dict(state["statistics"])
        position = _restore_position(state, env, agent, statistics, plan.run.seed)
        torch.set_rng_state(state["torch_random"])
        seconds = state["seconds"]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint in {directory} is not of the run in its {CONFIG_FILE}: {error}") from error
    plan.save(directory)
    going = Going(plan, directory, env, agent, compute, position, statistics, seconds)
    return _finish(going, _train(going, trackers, resume_step=position.steps))


def _restore_replay(replay: Replay, checkpoints: Path, saved: bool) -> None:
    if not saved:
        replay.clear()
        return
    for name, _, content in checkpoint.load_chunks(checkpoints):
        replay.load_chunk(name, content)


def _restore_position(
    state: dict[str, Any], env: VectorEnv, agent: Agent, statistics: EpisodeStatistics, seed: int
) -> Position:
    if state["env"] is not None:
        position = Position.begin(env, agent, env.load_state_dict(state["env"]))
        position.load_state_dict(state["position"])
        return position
    agent.interrupt()
    statistics.interrupt()
    steps = state["position"]["steps"]
    position = Position.begin(env, agent, env.reset(seed + steps))
    position.steps = steps
    return position


def _train(going: Going, trackers: list[Tracker] | None, resume_step: int | None) -> float:
    """Run to the end, logging and saving; returns the seconds of training in all."""
    from . import asynchronous  # which saves and stops as this file does

    plan, directory = going.plan, going.directory
    if trackers is None:
        trackers = [Console(plan.run.steps)]
    trackers = [JsonLines(directory / "metrics.jsonl", resume_step), TensorBoard(directory, resume_step), *trackers]
    began = time.perf_counter() - going.seconds
    try:
        with stop_signals() as stop:
            loop = asynchronous.loop if plan.run.workers else _loop
            loop(going, trackers, stop, began)
    finally:
        for tracker in trackers:
            tracker.close()
        going.env.close()
    return time.perf_counter() - began


def _loop(going: Going, trackers: list[Tracker], stop: list[int], began: float) -> None:
    run_config, position, meter = going.plan.run, going.position, Meter()
    interval = max(1, run_config.steps // POINTS)
    next_log, saved_at, logged = position.steps + interval, time.perf_counter(), (position.steps, time.perf_counter())
    if position.steps >= run_config.steps:
        return
    schedules = [buffer for name, buffer in going.agent.network.named_buffers() if name.split(".")[-1] == "progress"]
    for step, metrics in run(going.env, going.agent, position):
        for progress in schedules:  # encoders whose losses change over the training read it
            progress.fill_(min(position.steps / run_config.steps, 1.0))
        if metrics:
            meter.add(metrics)
        for episode in going.statistics.update(step):
            meter.add({SCORE: episode.score, LENGTH: float(episode.length)})
        done = position.steps >= run_config.steps
        if position.steps >= next_log or done:
            now = time.perf_counter()
            rate = (position.steps - logged[0]) / max(now - logged[1], 1e-9)
            values = meter.read() | {"steps_per_second": rate}
            logged, next_log = (position.steps, now), position.steps + interval
            for tracker in trackers:
                tracker.log(position.steps, now - began, values)
        if done or stop or time.perf_counter() - saved_at > run_config.save_interval_seconds:
            save(going, time.perf_counter() - began)
            saved_at = time.perf_counter()
        if done:
            return
        if stop:
            raise Stopped(position.steps)


def save(going: Going, seconds: float) -> None:
    """Write a checkpoint that holds all a resumed run needs."""
    state = {
        "agent": going.agent.state_dict(),
        "env": going.env.state_dict(),
        "position": going.position.state_dict(),
        "statistics": going.statistics.state_dict(),
        "torch_random": torch.get_rng_state(),
        "seconds": seconds,
    }
    replay = going.agent.replay if going.plan.run.save_replay else None
    checkpoint.save(going.checkpoints, going.position.steps, state, replay.chunks() if replay is not None else ())


def _finish(going: Going, seconds: float) -> dict[str, Any]:
    """Evaluate on fresh seeds, and write the result and the learning curve."""
    plan, run_config = going.plan, going.plan.run
    score: Score | None = None
    if run_config.evaluate_episodes:
        score = evaluate(
            going.agent,
            lambda count: make_world(plan, count, going.env),
            run_config.evaluate_episodes,
            FRESH_SEEDS + run_config.seed,
            run_config.evaluate_epsilon,
        )
    result = {
        "agent": plan.agent,
        "env": plan.env,
        "encoder": plan.encoder,
        "memory": plan.memory,
        "encoder_use": asdict(plan.encoder_use) | {"bundle": plan.bundle and Path(plan.bundle).name},
        "steps": going.position.steps,
        "seconds": round(seconds, 2),
        "steps_per_second": round(going.position.steps / seconds, 1),
        "score": None if score is None else asdict(score),
        "evaluate_epsilon": run_config.evaluate_epsilon,
        "seed": run_config.seed,
        "parameters": encoder_use.count(encoder_use.trains(going.env, going.agent)),
        "compute": device.describe(going.compute),
        "threads": torch.get_num_threads(),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    } | going.summary
    trained = {key: result[key] for key in ("agent", "env", "steps", "seed", "commit")}
    trained |= {"mode": plan.encoder_use.encoder_mode, "score": None if score is None else score.mean}
    encoder_use.publish(plan, going.env, going.agent, going.directory, {"trained in an agent": trained})
    path = going.directory / RESULT_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.rename(path)
    with suppress(UserError):  # a run too short to finish an episode has no curve
        learning_curve(going.directory)
    return result


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM arrives, so that a run stops between two steps; a second one kills."""
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever started it decides when to stop
        yield arrived
        return
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
