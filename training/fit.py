"""One supervised run: an encoder, a head and a task become a run directory with a result and a bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..agents.parts.compute import Compute
from ..encoders.base import WithMemory, count_parameters
from ..envs.errors import UserError
from . import checkpoint, device, fit_figures
from .bundle import FOLDER, save_bundle
from .classifier import Average
from .epochs import Best, Trainer, require_finite
from .fit_plan import FitPlan, check
from .plan import CONFIG_FILE
from .serial import to_json
from .task import Task, TaskModel
from .tasks import find_task
from .trackers import Console, JsonLines, TensorBoard, Tracker
from .train import RESULT_FILE, stop_signals

BAR_SECONDS = 0.25  # between drawings of the progress bar
_POSITION = ("examples", "seconds", "core_seconds", "values")  # fields of `_Run` that a checkpoint holds


class Stopped(Exception):
    """A signal ended the run; a checkpoint was saved."""

    def __init__(self, epoch: int):
        super().__init__(f"stopped in epoch {epoch:,}; the checkpoint is saved")


@dataclass
class _Run:
    """What is alive while a run goes on."""

    plan: FitPlan
    directory: Path
    task: Task
    model: TaskModel
    compute: Compute
    trainer: Trainer
    average: Average | None
    best: Best
    examples: int = 0  # read so far; they are what is counted as steps
    seconds: float = 0.0  # of updates, without judging
    core_seconds: float = 0.0  # the processor's, over all threads: what updates cost where others use the machine, too
    values: dict[str, float] = field(default_factory=dict)  # of the last complete epoch


def fit(plan: FitPlan, directory: Path, trackers: list[Tracker] | None = None) -> dict[str, Any]:
    """Train from the beginning into a new run directory; returns what `result.json` holds.

    Args:
        trackers: beside those that write files; None: a progress bar.

    Raises:
        UserError: the directory is there already, or a setting, the bundle or the data are bad.
        Stopped: SIGINT or SIGTERM arrived.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists; choose another --out, or continue it with --resume")
    going = _build(plan, directory, is_new=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        plan.save(directory)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
    return _train(going, trackers, resume_step=None)


def resume(directory: Path, encoder: str | None = None, trackers: list[Tracker] | None = None) -> dict[str, Any]:
    """Go on exactly from the last checkpoint of a run directory. A user's own encoder is named again as `encoder`.

    Raises:
        UserError: nothing to resume, or a damaged or foreign checkpoint.
        Stopped: as `fit`.
    """
    plan = FitPlan.load(directory, encoder)
    state = checkpoint.load(directory / "checkpoint")
    going = _build(plan, directory, is_new=False)
    try:
        going.model.load_state_dict(state["model"])
        going.trainer.load_state_dict(state["trainer"])
        going.best.load_state_dict(state["best"])
        if going.average is not None:
            going.average.load_state_dict(state["average"])
        for name in _POSITION:
            setattr(going, name, state[name])
        torch.set_rng_state(state["torch_random"])
        if state["device_random"] is not None and going.compute.device.startswith("cuda"):
            torch.cuda.set_rng_state(state["device_random"], going.compute.device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint in {directory} is not of the run in its {CONFIG_FILE}: {error}") from error
    going.task.begin_epoch(going.trainer)
    return _train(going, trackers, resume_step=going.examples)


def _build(plan: FitPlan, directory: Path, is_new: bool) -> _Run:
    check(plan)
    run, task = plan.run, find_task(plan)
    compute = device.choose(
        task.spec,
        device=run.device,
        precision=run.precision,
        threads=run.threads,
        compile=run.compile,
        is_heavy=task.is_heavy,
    )
    model = task.make_model(plan, weights=is_new or run.encoder_mode == "frozen")
    compute = device.settle(compute, model)
    compute.place(model)
    trainer = task.make_trainer(plan, model, compute)
    average = Average(model, run.average) if run.average else None
    return _Run(plan, directory, task, model, compute, trainer, average, Best(run.patience))


def _train(going: _Run, screens: list[Tracker] | None, resume_step: int | None) -> dict[str, Any]:
    run, trainer = going.plan.run, going.trainer
    if screens is None:
        total = trainer.total_updates * trainer.batches.batch_size
        screens = [Console(total, unit=going.task.unit, shown=going.task.watched)]
    board = TensorBoard(going.directory, resume_step)
    trackers: list[Tracker] = [JsonLines(going.directory / "metrics.jsonl", resume_step), board, *screens]
    try:
        with stop_signals() as stop:
            saved_at = shown_at = resumed_at = time.perf_counter()
            worked = time.process_time()
            for is_last in () if going.best.is_over else trainer:
                going.examples += trainer.batches.batch_size
                if going.average is not None:
                    going.average.update(trainer.updates)
                now = time.perf_counter()
                going.seconds += now - resumed_at
                going.core_seconds += time.process_time() - worked
                if is_last:
                    _after_epoch(going, trackers)
                elif now - shown_at > BAR_SECONDS:
                    shown_at = now
                    for tracker in screens:
                        tracker.log(going.examples, going.seconds, {})
                is_over = trainer.updates == trainer.total_updates or going.best.is_over
                if stop or is_over or now - saved_at > run.save_interval_seconds:
                    save(going)
                    saved_at = now
                if stop:
                    raise Stopped(trainer.epoch + 1)
                if going.best.is_over:
                    break
                resumed_at, worked = time.perf_counter(), time.process_time()
        return _finish(going, board)
    finally:
        for tracker in trackers:
            tracker.close()


def _after_epoch(going: _Run, trackers: list[Tracker]) -> None:
    """Log the training loss and, if it is time, judge on all validation examples."""
    run, trainer, began = going.plan.run, going.trainer, time.perf_counter()
    values = {f"train/{name}": value for name, value in trainer.losses.read().items()}  # waits for the device
    going.seconds += time.perf_counter() - began
    require_finite(values, trainer.epoch)
    if trainer.epoch % run.validate_interval == 0 or trainer.updates == trainer.total_updates:
        with _averaged(going):
            found = going.task.judge(going.plan, going.model, "validation", going.compute)
            values |= {f"validation/{name}": value for name, value in found.values.items()}
            going.best.update(found.error, going.model)
    going.values = values | {"epoch": float(trainer.epoch), "examples_per_second": going.examples / going.seconds}
    for tracker in trackers:
        tracker.log(going.examples, going.seconds, going.values)
    going.task.begin_epoch(trainer)


@contextmanager
def _averaged(going: _Run) -> Iterator[None]:
    """While it lasts, the model holds its averaged weights, where there are any."""
    if going.average is not None:
        going.average.swap()
    try:
        yield
    finally:
        if going.average is not None:
            going.average.swap()


def save(going: _Run) -> None:
    """Write a checkpoint that holds all a resumed run needs."""
    on_gpu = going.compute.device.startswith("cuda")
    state = {
        "model": going.model.state_dict(),
        "trainer": going.trainer.state_dict(),
        "best": going.best.state_dict(),
        "average": None if going.average is None else going.average.state_dict(),
        "torch_random": torch.get_rng_state(),
        "device_random": torch.cuda.get_rng_state(going.compute.device) if on_gpu else None,
        **{name: getattr(going, name) for name in _POSITION},
    }
    checkpoint.save(going.directory / "checkpoint", going.examples, state)


def load_judged(directory: Path, model: torch.nn.Module) -> None:
    """Give `model` the weights that the run in `directory` was judged by: averages, its best epoch's, or the last.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    state = checkpoint.load(directory / "checkpoint")
    model.load_state_dict(state["model"])
    if state["average"] is not None:
        average = Average(model, decay=0.0)
        average.load_state_dict(state["average"])
        average.swap()
    best = Best(patience=0)
    best.load_state_dict(state["best"])
    best.restore(model)


def _finish(going: _Run, board: TensorBoard) -> dict[str, Any]:
    """Judge the final weights on the validation set and, for the first and only time, on the test set."""
    plan, run, task, model = going.plan, going.plan.run, going.task, going.model
    if going.average is not None:
        going.average.swap()
    going.best.restore(model)
    validation = task.judge(plan, model, "validation", going.compute, is_final=True)
    test = task.judge(plan, model, "test", going.compute, is_final=True)
    result = {
        "task": plan.task,
        "encoder": plan.encoder,
        "memory": plan.memory,
        "encoder_mode": run.encoder_mode,
        "bundle": plan.bundle and Path(plan.bundle).name,
        "epochs": going.trainer.epoch,
        "steps": going.examples,
        "seconds": round(going.seconds, 2),
        "core_seconds": round(going.core_seconds, 2),
        "steps_per_second": round(going.examples / max(going.seconds, 1e-9), 1),
        "score": task.score(test),
        "validation": validation.report,
        "test": test.report,
        **task.facts(plan),
        "seed": run.seed,
        "parameters": dict(zip(("training", "frozen"), count_parameters(model), strict=True)),
        "compute": device.describe(going.compute),
        "threads": torch.get_num_threads(),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    }
    card = {"task": plan.task, "mode": run.encoder_mode, "commit": result["commit"], **task.facts(plan)}
    card |= {"test": test.report, "validation": validation.report, "settings": to_json(run)}
    perception = model.encoder.perception if isinstance(model.encoder, WithMemory) else model.encoder
    save_bundle(going.directory / FOLDER, plan.encoder, plan.encoder_config, task.spec, perception, card)
    task.save_beside(going.directory / FOLDER)
    figures = task.figures(model, test, going.compute)
    for name, path in fit_figures.save(figures, going.directory).items():
        board.picture(going.examples, name, path.read_bytes())
    path = going.directory / RESULT_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.rename(path)
    return result
