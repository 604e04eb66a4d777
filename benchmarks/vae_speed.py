"""Training speed of a dense VAE on MNIST, beside the pythae package's trainer on the same net, by turns."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.vae_speed, or saccade bench vae_speed")

import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .. import data
from ..agents.parts.compute import Compute
from ..data import Batches, Split
from ..encoders import vae
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from ..training import device
from ..training.epochs import Trainer
from ..training.optimise import Optimiser, groups_of
from .parts.interleave import Advance, alternate
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "images per second of a dense VAE in training on MNIST, batch 100, against the pythae package's trainer"

BATCH, RATE, LATENTS, UNITS = 100, 1e-3, 16, 512  # 512 rectified units each way are what pythae builds by itself
MUST, GOAL = 2.0, 4.0
SHARE = 5000  # images that the other trainer reads in one of its epochs
COMPILED = "saccade --compile"
MISSING = "this benchmark needs the pythae package: pip install --no-deps pythae==0.1.2, and tqdm and pydantic"


class Pretraining(NamedTuple):
    """A learner in training."""

    advance: Advance
    learner: Any
    compute: Compute


def pretraining(
    build: Callable[[ObservationSpec], Any],
    split: Split,
    *,
    batch: int,
    rate: float,
    threads: int,
    compile: bool = False,
) -> Pretraining:
    """What `saccade pretrain` does with the learner that `build` makes for MNIST, between two validations."""
    spec = data.load("mnist").spec
    compute = device.choose(spec, threads=threads, compile=compile)
    torch.manual_seed(0)
    learner = build(spec)
    compute = device.settle(compute, learner)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    compute.place(learner)
    stage = learner.stages()[0]
    trainer = Trainer(
        learner,
        stage.loss,
        Optimiser(groups_of(learner, stage.parameters), learning_rate=rate, compute=compute),
        Batches(split, batch, 0, compute.device),
        epochs=1_000_000,
        compute=compute,
        after_update=learner.after_update,
    )
    updates = iter(trainer)

    def advance(images: int) -> int:
        count = max(round(images / batch), 1)
        torch.set_float32_matmul_precision(precision)  # of the process: other sides and judges shall not have it
        for _ in range(count):
            next(updates)
        trainer.losses.read()
        torch.set_float32_matmul_precision("highest")
        return count * batch

    return Pretraining(advance, learner, compute)


def our_side(split: Split, threads: int, compile: bool = False) -> Pretraining:
    config = vae.Config(hidden=(UNITS,), latents=LATENTS, activation="relu")
    return pretraining(
        lambda spec: vae.build(config, spec), split, batch=BATCH, rate=RATE, threads=threads, compile=compile
    )


def their_side(split: Split, folder: str) -> Advance:
    """pythae's own trainer with its own nets: `train_step`, its epoch without saving and validation."""
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from None
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENTS, reconstruction_loss="bce"))
    config = BaseTrainerConfig(
        output_dir=folder, per_device_train_batch_size=BATCH, learning_rate=RATE, no_cuda=True, num_epochs=1
    )
    images = BaseDataset(split.x[:SHARE].float() / 255, split.label[:SHARE])
    trainer = BaseTrainer(model, images, training_config=config)
    trainer.prepare_training()
    trainer.callback_handler.callbacks.clear()  # progress bars and printing

    def advance(images: int) -> int:
        epochs = max(round(images / SHARE), 1)
        for epoch in range(epochs):
            trainer.train_step(epoch)
        return epochs * SHARE

    return advance


def measure(options: BenchOptions) -> Report:
    """Both sides by turns, with the same number of threads."""
    threads = options.threads or os.cpu_count() or 1
    split = data.load("mnist").train
    ours, compiled = our_side(split, threads), our_side(split, threads, compile=True)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"saccade": ours.advance, COMPILED: compiled.advance, "pythae": their_side(split, folder)}
        speeds = alternate(sides, rounds=options.rounds, seconds=options.slice_seconds, title="dense VAE")
    ratios = {name: speeds[name].median / speeds["pythae"].median for name in ("saccade", COMPILED)}
    rows = [
        (
            name,
            number(speed.median),
            f"{number(speed.low)} to {number(speed.high)}",
            number(speed.median / speeds["pythae"].median),
        )
        for name, speed in speeds.items()
    ]
    plural = "s" * (threads > 1)
    title = f"VAE 784-{UNITS}-{LATENTS}-{UNITS}-784, batch {BATCH}, {threads} thread{plural}, by turns"
    notes = [
        f"To reach: {MUST:g} times pythae, better {GOAL:g}. Same net, batch, rate, Adam and Bernoulli loss. Ours: "
        f"{device.describe(ours.compute)}; with `--compile` torch.compile makes the loss. pythae: its trainer's own "
        f"loop over a DataLoader, float32, progress bars and saving left out. {len(speeds['pythae'].slices)} slices "
        "each; the warm-up is not counted; the ratio is one of medians.",
    ]
    return Report(
        [Table(title, ("", "images/s (median)", "slices from to", "times pythae"), rows)],
        notes,
        {
            "speeds": {name: speed._asdict() for name, speed in speeds.items()},
            "ratio": ratios["saccade"],
            "ratios": ratios,
            "threads": threads,
        },
    )


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("vae_speed")
