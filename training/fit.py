"""One supervised run: an encoder, a head and labelled data become a run directory with a result and a bundle."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data
from ..agents.parts.compute import Compute
from ..data import Batches, Dataset, Split
from ..encoders import make_encoder
from ..encoders.base import Encoder, count_parameters
from ..encoders.parts.augment_images import Augmentation, augment, check_augmentation, flip_where
from ..envs.errors import SpecError, UserError
from . import checkpoint, device, fit_figures
from .bundle import FOLDER, load_bundle, save_bundle
from .classifier import Average, Classifier, few_labels, judge
from .epochs import Best, Trainer, in_order, require_finite
from .fit_plan import FitPlan, check
from .optimise import Optimiser
from .plan import CONFIG_FILE
from .serial import to_json
from .trackers import Console, JsonLines, TensorBoard, Tracker
from .train import RESULT_FILE, stop_signals

VALIDATION = "validation/error"
TRAINING = "train/loss"
BAR_SECONDS = 0.25  # between drawings of the progress bar
LOOKED_AT = 5_000  # training images that an encoder is fitted to before training
_POSITION = ("examples", "seconds", "values")  # fields of `_Run` that a checkpoint holds


class Stopped(Exception):
    """A signal ended the run; a checkpoint was saved."""

    def __init__(self, epoch: int):
        super().__init__(f"stopped in epoch {epoch:,}; the checkpoint is saved")


@runtime_checkable
class FitsToData(Protocol):
    """An encoder with something that is set from data before training, such as a whitening."""

    def fit_to(self, x: Tensor) -> None:
        """`x` `[N, ...]`: some thousand observations, as they are stored."""
        ...


@dataclass(frozen=True)
class Alternating(Split):
    """Images of which a random half is mirrored in even epochs, and the other half in odd ones."""

    mirrored: Tensor  # bool [N], in even epochs
    epoch: Tensor  # int64 [], written to by whoever counts

    def take(self, index: Tensor) -> dict[str, Tensor]:
        batch = super().take(index)
        now = self.mirrored.index_select(0, index) ^ (self.epoch % 2 == 1)
        return batch | {"x": flip_where(batch["x"], now)}

    def to(self, device: str) -> Alternating:
        moved = {name: getattr(self, name).to(device) for name in ("x", "label", "mirrored", "epoch")}
        return dataclasses.replace(self, **moved)


@dataclass
class _Run:
    """What is alive while a run goes on."""

    plan: FitPlan
    directory: Path
    dataset: Dataset
    classifier: Classifier
    compute: Compute
    trainer: Trainer
    average: Average | None
    best: Best
    examples: int = 0  # read so far
    seconds: float = 0.0  # of updates, without judging
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
        going.classifier.load_state_dict(state["classifier"])
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
    _note_epoch(going)
    return _train(going, trackers, resume_step=going.examples)


def make_classifier(plan: FitPlan, dataset: Dataset, *, weights: bool = True) -> Classifier:
    """The model before training, drawn from the plan's seed.

    Args:
        weights: take the bundle's, where there is one, and fit to the data what is to be; False: a checkpoint will.

    Raises:
        UserError: the encoder or the bundle does not fit the data.
    """
    run = plan.run
    torch.manual_seed(run.seed)
    encoder = make_encoder(plan.encoder, dataset.spec, plan.encoder_config)
    if weights and plan.bundle is not None and run.encoder_mode != "scratch":
        _take_weights(encoder, plan, dataset)
    elif weights and isinstance(encoder, FitsToData):
        encoder.fit_to(dataset.train.take(torch.arange(min(LOOKED_AT, len(dataset.train))))["x"])
    frozen = run.encoder_mode == "frozen"
    return Classifier(encoder, len(dataset.classes), run.hidden, run.head_scale, frozen)


def make_trainer(plan: FitPlan, dataset: Dataset, classifier: Classifier, compute: Compute) -> Trainer:
    """The loop over the training examples that the plan names."""
    run, train = plan.run, dataset.train
    if run.labels:
        train = few_labels(train, run.labels, len(dataset.classes), run.seed)
    is_encoded = classifier.frozen and plan.augment == Augmentation() and not run.alternate_flip
    if is_encoded:  # nothing about the features will change: they are computed once
        train = _encoded(classifier, train, compute)
    elif run.alternate_flip:
        generator = torch.Generator().manual_seed(run.seed)
        mirrored = torch.rand(len(train), generator=generator) < 0.5
        train = Alternating(train.x, train.label, mirrored, torch.zeros((), dtype=torch.int64))

    def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"]
        logits = classifier.classify(x) if is_encoded else classifier(augment(x, plan.augment))
        error = F.cross_entropy(logits.float(), batch["label"], reduction="none", label_smoothing=run.label_smoothing)
        return {"cross_entropy": error}

    return Trainer(
        classifier,
        loss,
        Optimiser(
            classifier.groups(run.encoder_rate),
            learning_rate=run.learning_rate,
            rule=run.optimizer,
            momentum=run.momentum,
            weight_decay=run.weight_decay,
            max_gradient_norm=run.max_gradient_norm,
            compute=compute,
        ),
        Batches(train, min(run.batch_size, len(train)), run.seed, compute.device),
        epochs=run.epochs,
        schedule=run.schedule,
        warmup=run.warmup,
        compute=compute,
        after_update=classifier.after_update,
    )


def _build(plan: FitPlan, directory: Path, is_new: bool) -> _Run:
    check(plan)
    run, dataset = plan.run, data.load(plan.task, seed=plan.run.seed)
    if not dataset.classes:
        raise UserError(f"{plan.task} has no labels, so there is nothing to fit; `saccade pretrain` learns without")
    check_augmentation(plan.augment, dataset.spec.shape)
    if (run.alternate_flip or run.views != "one") and not dataset.spec.is_image:
        raise UserError("only images can be mirrored or moved: leave out --alternate-flip and --views")
    compute = device.choose(
        dataset.spec, device=run.device, precision=run.precision, threads=run.threads, compile=run.compile
    )
    classifier = make_classifier(plan, dataset, weights=is_new or run.encoder_mode == "frozen")
    compute.place(classifier)
    trainer = make_trainer(plan, dataset, classifier, compute)
    average = Average(classifier, run.average) if run.average else None
    return _Run(plan, directory, dataset, classifier, compute, trainer, average, Best(run.patience))


def _take_weights(encoder: Encoder, plan: FitPlan, dataset: Dataset) -> None:
    assert plan.bundle is not None
    trained, spec = load_bundle(plan.bundle), dataset.spec
    if (trained.spec.shape, trained.spec.dtype, trained.spec.vocabulary) != (spec.shape, spec.dtype, spec.vocabulary):
        raise SpecError(
            f"the encoder in {plan.bundle} was trained on {trained.spec.describe()}, but {plan.task} holds "
            f"{spec.describe()}; take a bundle that was trained on such data"
        )
    try:
        encoder.load_state_dict(trained.encoder.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"the weights in {plan.bundle} do not fit the options --encoder.*, leave them out: {error}"
        ) from None


@torch.no_grad()
def _encoded(classifier: Classifier, split: Split, compute: Compute) -> Split:
    with compute.autocast():
        parts = [classifier.encode(batch["x"]).float() for batch in in_order(split, 1000, compute.device)]
    return Split(torch.cat(parts), split.label.to(compute.device))


def _train(going: _Run, screens: list[Tracker] | None, resume_step: int | None) -> dict[str, Any]:
    run, trainer = going.plan.run, going.trainer
    if screens is None:
        total = trainer.total_updates * trainer.batches.batch_size
        screens = [Console(total, unit="examples", shown=(VALIDATION, "validation error {:.2%}"))]
    board = TensorBoard(going.directory, resume_step)
    trackers: list[Tracker] = [JsonLines(going.directory / "metrics.jsonl", resume_step), board, *screens]
    try:
        with stop_signals() as stop:
            saved_at = shown_at = resumed_at = time.perf_counter()
            for is_last in () if going.best.is_over else trainer:
                going.examples += trainer.batches.batch_size
                if going.average is not None:
                    going.average.update(trainer.updates)
                now = time.perf_counter()
                going.seconds += now - resumed_at
                if is_last:
                    _after_epoch(going, trackers)
                elif now - shown_at > BAR_SECONDS:
                    shown_at = now
                    for tracker in screens:
                        tracker.log(going.examples, going.seconds, {})
                if stop or now - saved_at > run.save_interval_seconds or trainer.updates == trainer.total_updates:
                    save(going)
                    saved_at = now
                if stop:
                    raise Stopped(trainer.epoch + 1)
                if going.best.is_over:
                    break
                resumed_at = time.perf_counter()
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
            found = judge(going.classifier, going.dataset.validation, len(going.dataset.classes), going.compute)
            values |= {VALIDATION: found.mistakes / found.examples, "validation/cross_entropy": found.cross_entropy}
            going.best.update(values[VALIDATION], going.classifier)
    going.values = values | {"epoch": float(trainer.epoch), "examples_per_second": going.examples / going.seconds}
    for tracker in trackers:
        tracker.log(going.examples, going.seconds, going.values)
    _note_epoch(going)


def _note_epoch(going: _Run) -> None:
    split = going.trainer.batches.split
    if isinstance(split, Alternating):
        split.epoch.fill_(going.trainer.epoch)


@contextmanager
def _averaged(going: _Run) -> Iterator[None]:
    """While it lasts, the classifier holds its averaged weights, where there are any."""
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
        "classifier": going.classifier.state_dict(),
        "trainer": going.trainer.state_dict(),
        "best": going.best.state_dict(),
        "average": None if going.average is None else going.average.state_dict(),
        "torch_random": torch.get_rng_state(),
        "device_random": torch.cuda.get_rng_state(going.compute.device) if on_gpu else None,
        **{name: getattr(going, name) for name in _POSITION},
    }
    checkpoint.save(going.directory / "checkpoint", going.examples, state)


def _finish(going: _Run, board: TensorBoard) -> dict[str, Any]:
    """Judge the final weights on the validation set and, for the first and only time, on the test set."""
    plan, run, dataset, count = going.plan, going.plan.run, going.dataset, len(going.dataset.classes)
    if going.average is not None:
        going.average.swap()
    going.best.restore(going.classifier)
    judged = {
        name: judge(going.classifier, split, count, going.compute, run.views)
        for name, split in (("validation", dataset.validation), ("test", dataset.test))
    }
    result = {
        "task": plan.task,
        "encoder": plan.encoder,
        "encoder_mode": run.encoder_mode,
        "bundle": plan.bundle,
        "labels": run.labels or len(dataset.train),
        "epochs": going.trainer.epoch,
        "examples": going.examples,
        "seconds": round(going.seconds, 2),
        "examples_per_second": round(going.examples / max(going.seconds, 1e-9), 1),
        **{name: judgement.to_json() for name, judgement in judged.items()},
        "views": run.views,
        "seed": run.seed,
        "parameters": dict(zip(("training", "frozen"), count_parameters(going.classifier), strict=True)),
        "compute": device.describe(going.compute),
        "threads": torch.get_num_threads(),
        "versions": device.versions(),
        "commit": device.commit(),
        "machine": device.machine(),
    }
    card = {"task": plan.task, "mode": run.encoder_mode, "labels": result["labels"], "commit": result["commit"]}
    card |= {"test": result["test"], "validation": result["validation"], "settings": to_json(run)}
    save_bundle(
        going.directory / FOLDER, plan.encoder, plan.encoder_config, dataset.spec, going.classifier.encoder, card
    )
    confusion, classes = judged["test"].confusion, dataset.classes
    for name, path in fit_figures.draw(going.directory, going.classifier, dataset.spec, confusion, classes).items():
        board.picture(going.examples, name, path.read_bytes())
    path = going.directory / RESULT_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.rename(path)
    return result
