"""One pretraining run: a learner and a data set become a run directory with a bundle in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..agents.parts.compute import Compute
from ..data import Batches, Dataset, Split
from ..encoders import make_encoder
from ..encoders.base import Encoder, Stage, count_parameters
from ..envs.errors import UserError
from . import checkpoint, device
from .bundle import FOLDER, save_bundle
from .epochs import TOTAL, Best, Trainer, evaluate_losses, require_finite
from .optimise import Optimiser, groups_of
from .plan import CONFIG_FILE
from .pretrain_plan import PretrainPlan, check
from .reports import VALIDATION, Reports, pictures
from .serial import to_json
from .sources import fingerprint, load_data, provenance
from .stages import learner_stages, monitored, only_these, share_epochs, stage_inputs
from .trackers import Tracker
from .train import RESULT_FILE, stop_signals

SAVING_SHARE = 0.05  # at most so much of the time goes into the checkpoints after epochs
_POSITION = ("stage", "examples", "epochs", "seconds", "losses")  # fields of `_Run` that a checkpoint holds


class Stopped(Exception):
    """A signal ended the run; a checkpoint was saved."""

    def __init__(self, epoch: int):
        super().__init__(f"stopped in epoch {epoch:,}; the checkpoint is saved")


@dataclass
class _Run:
    """What is alive while a run goes on."""

    plan: PretrainPlan
    directory: Path
    dataset: Dataset
    encoder: Encoder
    stages: Sequence[Stage]
    compute: Compute
    stage: int = 0  # where it stands
    examples: int = 0  # read so far
    epochs: int = 0  # complete, of earlier stages
    seconds: float = 0.0  # of updates, without evaluation
    losses: dict[str, float] = field(default_factory=dict)  # of the last complete epoch
    saved: dict[str, Any] | None = None  # what a resumed run's stage goes on from

    @property
    def shares(self) -> list[int]:
        return share_epochs(self.stages, self.plan.run.epochs)


def pretrain(plan: PretrainPlan, directory: Path, trackers: list[Tracker] | None = None) -> dict[str, Any]:
    """Train from the beginning into a new run directory; returns what `result.json` holds.

    Args:
        trackers: beside those that write files; None: a progress bar.

    Raises:
        UserError: the directory is there already, the encoder is no learner, or a setting or the data are bad.
        Stopped: SIGINT or SIGTERM arrived.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists; choose another --out, or continue it with --resume")
    going = _build(plan, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        plan.save(directory)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
    return _train(going, trackers, resume_step=None)


def resume(
    directory: Path, epochs: int | None = None, learner: str | None = None, trackers: list[Tracker] | None = None
) -> dict[str, Any]:
    """Go on exactly from the last checkpoint of a run directory, to `epochs` where given instead of the plan's.

    With more epochs a run of several stages goes on in the stage where it stands.

    Raises:
        UserError: nothing to resume, or a damaged or foreign checkpoint.
        Stopped: as `pretrain`.
    """
    plan = PretrainPlan.load(directory, learner)
    if epochs is not None:
        plan = replace(plan, run=replace(plan.run, epochs=epochs))
    state = checkpoint.load(directory / "checkpoint")
    going = _build(plan, directory)
    with _explained(directory):
        if state["data"] != fingerprint(going.dataset):
            raise UserError(f"{plan.data} holds other data than when the run in {directory} began; start another run")
        going.encoder.load_state_dict(state["encoder"])
        going.saved = state["trainer"]
        for name in _POSITION:
            setattr(going, name, state[name])
        torch.set_rng_state(state["torch_random"])
        if state["device_random"] is not None and going.compute.device.startswith("cuda"):
            torch.cuda.set_rng_state(state["device_random"], going.compute.device)
    plan.save(directory)
    return _train(going, trackers, resume_step=going.examples)


def _build(plan: PretrainPlan, directory: Path) -> _Run:
    check(plan)
    dataset, run = load_data(plan), plan.run
    if len(dataset.train) < run.batch_size:
        raise UserError(f"{len(dataset.train)} examples are too few for --batch-size {run.batch_size}")
    compute = device.choose(
        dataset.spec, device=run.device, precision=run.precision, threads=run.threads, compile=run.compile
    )
    torch.manual_seed(run.seed)
    encoder = make_encoder(plan.learner, dataset.spec, plan.learner_config)
    if encoder.needs_labels and not dataset.classes:
        raise UserError(f"{plan.learner} with these settings learns from labels, and {dataset.name} has none")
    compute = device.settle(compute, encoder)
    compute.place(encoder)
    going = _Run(plan, directory, dataset, encoder, learner_stages(encoder, plan.learner), compute)
    assert going.shares  # or UserError
    return going


def _train(going: _Run, screens: list[Tracker] | None, resume_step: int | None) -> dict[str, Any]:
    run, count = going.plan.run, len(going.dataset.train)
    total = run.epochs * (count - count % run.batch_size)
    reports = Reports(going.directory, total, resume_step, screens)
    try:
        with stop_signals() as stop:
            while True:
                with only_these(going.encoder, going.stages[going.stage].parameters):
                    _train_stage(going, reports, stop)
                if going.stage + 1 == len(going.stages):
                    break
                going.stage += 1
                going.saved = None
                _save(going, None)
    finally:
        reports.close()
    return _finish(going)


def _train_stage(going: _Run, reports: Reports, stop: list[int]) -> None:
    run, stage, split = going.plan.run, going.stages[going.stage], going.dataset
    train, validation = (
        stage_inputs(going.encoder, stage, part, going.compute.device) for part in (split.train, split.validation)
    )
    validation = validation.to(going.compute.device)  # read after every epoch
    best, trainer = Best(run.patience), _trainer(going, stage, train)
    if going.saved is not None:
        with _explained(going.directory):
            trainer.load_state_dict(going.saved["state"])
            best.load_state_dict(going.saved["best"])
    saved_at = resumed_at = time.perf_counter()
    saving, epoch_began = 0.0, going.seconds
    for is_last in () if best.is_over else trainer:
        going.examples += run.batch_size
        going.seconds += time.perf_counter() - resumed_at
        if is_last:
            going.losses = _after_epoch(going, trainer, stage, (train, validation), epoch_began)
            best.update(going.losses[VALIDATION], going.encoder)
            _report(going, trainer, reports)
            epoch_began = going.seconds
        else:
            reports.tick(going.examples, going.seconds)
        is_over = best.is_over or trainer.is_over
        elapsed = (now := time.perf_counter()) - saved_at
        if is_over or stop or elapsed > run.save_interval_seconds or (is_last and elapsed * SAVING_SHARE > saving):
            _save(going, {"state": trainer.state_dict(), "best": best.state_dict()})
            saved_at = time.perf_counter()
            saving = saved_at - now
        if stop and not is_over:
            raise Stopped(going.epochs + trainer.epoch + 1)
        if is_over:
            break
        resumed_at = time.perf_counter()
    best.restore(going.encoder)
    if stage.finish is not None:
        stage.finish()
    going.epochs += trainer.epoch


def _trainer(going: _Run, stage: Stage, train: Split) -> Trainer:
    run, shares = going.plan.run, going.shares
    optimiser = Optimiser(
        groups_of(going.encoder, stage.parameters),
        learning_rate=run.learning_rate,
        rule=run.optimizer,
        momentum=run.momentum,
        weight_decay=run.weight_decay,
        max_gradient_norm=run.max_gradient_norm,
        compute=going.compute,
    )
    return Trainer(
        going.encoder,
        stage.loss,
        optimiser,
        Batches(train, run.batch_size, run.seed + going.stage, going.compute.device),
        epochs=shares[going.stage],
        schedule=run.schedule,
        warmup=run.warmup,
        compute=going.compute,
        after_update=going.encoder.after_update,
        progress=(sum(shares[: going.stage]) / run.epochs, sum(shares[: going.stage + 1]) / run.epochs),
    )


def _after_epoch(
    going: _Run, trainer: Trainer, stage: Stage, splits: tuple[Split, Split], epoch_began: float
) -> dict[str, float]:
    """The losses of an epoch, on training examples as they came and on all validation ones, what the stage watches
    besides, and the speed."""
    run, began = going.plan.run, time.perf_counter()
    losses = {f"train/{name}": value for name, value in trainer.losses.read().items()}  # waits for the device
    going.seconds += time.perf_counter() - began
    measured = evaluate_losses(going.encoder, stage.loss, splits[1], run.batch_size, going.compute, run.seed)
    losses |= {f"validation/{name}": value for name, value in measured.items()}
    losses |= monitored(going.encoder, stage, *splits, going.compute.device)
    epoch = going.epochs + trainer.epoch
    require_finite(losses, epoch)
    rate = len(trainer.batches) * run.batch_size / max(going.seconds - epoch_began, 1e-9)
    return losses | {"epoch": float(epoch), "stage": float(going.stage), "images_per_second": rate}


def _report(going: _Run, trainer: Trainer, reports: Reports) -> None:
    every = going.plan.run.picture_interval
    reports.epoch(going.examples, going.seconds, going.losses)
    if every and ((going.epochs + trainer.epoch) % every == 0 or trainer.is_over):
        reports.pictures(going.examples, going.encoder, going.dataset)


def _save(going: _Run, trainer: dict[str, Any] | None) -> None:
    """Write a checkpoint that holds all a resumed run needs."""
    on_gpu = going.compute.device.startswith("cuda")
    state = {
        "data": fingerprint(going.dataset),
        "encoder": going.encoder.state_dict(),
        "trainer": trainer,
        "torch_random": torch.get_rng_state(),
        "device_random": torch.cuda.get_rng_state(going.compute.device) if on_gpu else None,
        **{name: getattr(going, name) for name in _POSITION},
    }
    checkpoint.save(going.directory / "checkpoint", going.examples, state)


def _finish(going: _Run) -> dict[str, Any]:
    """Judge the encoder by its own loss, and write the result and the bundle."""
    plan, run, stage = going.plan, going.plan.run, going.stages[-1]
    described = device.describe(going.compute)
    exact = device.settle(replace(going.compute, bfloat16=False, compile=False), going.encoder)  # for what is reported
    losses = {}
    for name in ("validation", "test"):
        split = stage_inputs(going.encoder, stage, getattr(going.dataset, name), exact.device)
        losses[name] = evaluate_losses(going.encoder, stage.loss, split, run.batch_size, exact, run.seed)
    result = {
        "learner": plan.learner,
        "data": plan.data,
        "epochs": going.epochs,
        "steps": going.examples,
        "seconds": round(going.seconds, 2),
        "steps_per_second": round(going.examples / max(going.seconds, 1e-9), 1),
        "score": {"mean": losses["test"][TOTAL], "what": "test loss"},
        "losses": losses,
        "seed": run.seed,
        "parameters": dict(zip(("training", "frozen"), count_parameters(going.encoder), strict=True)),
        "compute": described,
        "threads": torch.get_num_threads(),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    }
    card = {
        "data": {"name": plan.data, "training examples": len(going.dataset.train), **provenance(plan)},
        "training": {"epochs": going.epochs, **to_json(run)},
        "settings": to_json(plan.learner_config),
        **{f"{name} loss": values for name, values in losses.items()},
        "made by": {"commit": result["commit"], **device.versions()},
    }
    save_bundle(going.directory / FOLDER, plan.learner, plan.learner_config, going.dataset.spec, going.encoder, card)
    if run.picture_interval:
        for name, png in pictures(going.encoder, going.dataset):
            (going.directory / f"{name}.png").write_bytes(png)
    path = going.directory / RESULT_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.rename(path)
    return result


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Say what it means when a checkpoint does not fit."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint in {directory} is not of the run in its {CONFIG_FILE}: {error}") from error
