"""Training speed of the plain conv net on MNIST, beside an ordinary PyTorch loop over the same net, by turns."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.supervised_speed, or saccade bench supervised_speed")

import dataclasses
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .. import data
from ..data import Split
from ..training import device
from ..training.fit_model import make_classifier, make_trainer
from ..training.fit_plan import default_plan
from .parts.interleave import Advance, alternate
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "images per second of the MNIST conv net in training, batch 100, against a plain fp32 DataLoader loop"

BATCH, RATE = 100, 1e-4  # as in the founding material
MUST, GOAL = 2.5, 4.0


class Images(TorchDataset):
    """One example at a time, as an ordinary data set gives it: float32 in 0..1."""

    def __init__(self, split: Split):
        self.x, self.label = split.x, split.label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index].float() / 255, self.label[index]


def plain_net() -> nn.Module:
    """The same net as users write it: conv 5x5x32, pool, conv 5x5x64, pool, dense 1024, dropout, ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, 10),
    )


def plain_side(split: Split) -> Advance:
    """PyTorch's tutorial loop: DataLoader in this process, float32, Adam."""
    net, loss_of = plain_net(), nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    loader = DataLoader(Images(split), batch_size=BATCH, shuffle=True, drop_last=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    source = batches()

    def advance(images: int) -> int:
        count = max(round(images / BATCH), 1)
        for _ in range(count):
            x, label = next(source)
            optimiser.zero_grad()
            loss = loss_of(net(x), label)
            loss.backward()
            optimiser.step()
        return count * BATCH

    return advance


def our_side(threads: int) -> tuple[Advance, str]:
    """What `saccade fit mnist --encoder convnet` does between two judgements; and how it computes."""
    plan = default_plan("mnist", "convnet")
    run = dataclasses.replace(
        plan.run, batch_size=BATCH, learning_rate=RATE, optimizer="adam", schedule="constant", epochs=1_000_000
    )
    plan, dataset = dataclasses.replace(plan, run=run), data.load("mnist")
    compute = device.choose(dataset.spec, threads=threads)
    classifier = make_classifier(plan, dataset)
    compute.place(classifier)
    trainer = make_trainer(plan, dataset, classifier, compute)
    updates = iter(trainer)

    def advance(images: int) -> int:
        count = max(round(images / BATCH), 1)
        for _ in range(count):
            next(updates)
        trainer.losses.read()
        return count * BATCH

    return advance, device.describe(compute)


def measure(options: BenchOptions) -> Report:
    """Both sides by turns, with the same number of threads."""
    threads = options.threads or os.cpu_count() or 1
    ours, compute = our_side(threads)
    speeds = alternate(
        {"saccade": ours, "plain": plain_side(data.load("mnist").train)},
        rounds=options.rounds,
        seconds=options.slice_seconds,
        title="MNIST conv net",
    )
    ratio = speeds["saccade"].median / speeds["plain"].median
    rows = [
        (
            label,
            number(speeds[side].median),
            f"{number(speeds[side].low)} to {number(speeds[side].high)}",
            number(speeds[side].median / speeds["plain"].median),
        )
        for side, label in (("saccade", "saccade fit"), ("plain", "plain loop"))
    ]
    slices = len(speeds["plain"].slices)
    title = f"Conv net on MNIST, batch {BATCH}, {threads} thread{'s' * (threads > 1)}, {slices} slices each by turns"
    notes = [
        f"To reach: {MUST} times the plain loop, better {GOAL:g}. Same net, batch, rate and Adam on both sides. Ours: "
        f"batches gathered from memory, {compute}, fused Adam. The plain loop: DataLoader without workers, float32, as "
        "the tutorials write it. The first round is a warm-up and not counted; the ratio is one of medians.",
    ]
    sides = {name: speed._asdict() for name, speed in speeds.items()}
    return Report(
        [Table(title, ("", "images/s (median)", "slices from to", "times the plain loop"), rows)],
        notes,
        {"speeds": sides, "ratio": ratio, "threads": threads, "compute": compute},
    )


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("supervised_speed")
