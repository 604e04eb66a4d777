"""Training speed of an RBM on MNIST, beside scikit-learn's BernoulliRBM of the same size and batches, by turns."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.rbm_speed, or saccade bench rbm_speed")

import os
from typing import NamedTuple

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits
from torch import Tensor

from .. import data
from ..agents.parts.compute import Compute
from ..data import Split
from ..encoders import rbm
from ..encoders.parts.gibbs import Machine, hidden_mean, visible_mean
from ..encoders.parts.likelihood import pseudo_log_likelihood
from ..training import device
from .parts.interleave import Advance, Speed, alternate
from .parts.learners import flat
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number
from .vae_speed import pretraining

kind = "images per second of an RBM in training on MNIST, CD-1, batch 100, against scikit-learn's BernoulliRBM"

HIDDEN, BATCH, RATE = 500, 100, 0.05
MUST, GOAL = 3.0, 10.0
EPOCHS = 2  # of both, after which they are compared
JUDGED = 5000  # test images
LABELS = {
    "saccade": "saccade",
    "float64": "BernoulliRBM, float64 (as it is given most data)",
    "float32": "BernoulliRBM, float32",
}


class Side(NamedTuple):
    """One of the machines in training."""

    advance: Advance
    machine: rbm.Rbm | BernoulliRBM

    def parameters(self) -> Machine:
        """As they are now, in float32."""
        if isinstance(self.machine, rbm.Rbm):
            return self.machine.machine().to(torch.float32)
        names = ("components_", "intercept_visible_", "intercept_hidden_")
        found = [torch.from_numpy(np.asarray(getattr(self.machine, name), np.float32)) for name in names]
        return Machine(found[0], found[1], found[2])


def our_side(split: Split, threads: int) -> tuple[Side, Compute]:
    """What `saccade pretrain rbm` does between two validations; and how it computes."""
    config = rbm.Config(hidden=HIDDEN, gain=1.0)
    ours = pretraining(lambda spec: rbm.build(config, spec), split, batch=BATCH, rate=RATE, threads=threads)
    return Side(ours.advance, ours.learner), ours.compute


def their_side(split: Split, dtype: type[np.floating], threads: int) -> Side:
    """What `BernoulliRBM.fit` does with each batch, one after the other (persistent chains, one step)."""
    x = (split.x.flatten(1).numpy() / 255).astype(dtype)
    model = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH, random_state=0)
    generator = np.random.RandomState(0)
    place = 0

    def advance(images: int) -> int:
        nonlocal place
        count = max(round(images / BATCH), 1)
        with threadpool_limits(threads):
            for _ in range(count):
                batch = x[place : place + BATCH]
                if hasattr(model, "components_"):
                    model._fit(batch, generator)
                else:
                    model.partial_fit(batch)  # makes the parameters first
                place = (place + BATCH) % (len(x) - len(x) % BATCH)
        return count * BATCH

    return Side(advance, model)


class Quality(NamedTuple):
    """Of a machine, on test images."""

    error: float  # squared, of the mean-field reconstruction, mean over the images
    pseudo: float  # pseudo-log-likelihood of bits at 1/2, mean over the images, nats


@torch.no_grad()
def judge(machine: Machine, x: Tensor) -> Quality:
    """On images `[N, V]` in 0..1."""
    error = (visible_mean(machine, hidden_mean(machine, x)) - x).square().sum(1).mean()
    pseudo = pseudo_log_likelihood(machine, x.round(), torch.Generator().manual_seed(0)).mean()
    return Quality(float(error), float(pseudo))


def measure(options: BenchOptions) -> Report:
    """Speeds by turns; then both go on from new weights for equally many images, and are judged."""
    threads = options.threads or os.cpu_count() or 1
    dataset = data.load("mnist")
    split, test = dataset.train, flat(dataset.test.x[:JUDGED])

    def make() -> tuple[dict[str, Side], Compute]:
        ours, compute = our_side(split, threads)
        return {
            "saccade": ours,
            "float64": their_side(split, np.float64, threads),
            "float32": their_side(split, np.float32, threads),
        }, compute

    sides, compute = make()
    advances = {name: side.advance for name, side in sides.items()}
    speeds = alternate(advances, rounds=options.rounds, seconds=options.slice_seconds, title="RBM")
    sides, _ = make()
    for side in sides.values():
        side.advance(EPOCHS * len(split))
    found = {name: judge(side.parameters(), test) for name, side in sides.items()}
    return report_on(speeds, found, compute, threads)


def report_on(speeds: dict[str, Speed], found: dict[str, Quality], compute: Compute, threads: int) -> Report:
    """`compute`: how ours computed."""
    ratio = speeds["saccade"].median / speeds["float64"].median
    rows = [
        (
            LABELS[name],
            number(speed.median),
            f"{number(speed.low)} to {number(speed.high)}",
            f"{60_000 / speed.median:.2f}",
            number(speed.median / speeds["float64"].median),
            f"{found[name].error:.2f}",
            f"{found[name].pseudo:.1f}",
        )
        for name, speed in speeds.items()
    ]
    columns = (
        "",
        "images/s (median)",
        "slices from to",
        "s per 60,000",
        "times float64",
        f"squared error, {EPOCHS} epochs",
        "pseudo-likelihood, nats",
    )
    title = f"RBM 784-{HIDDEN}, batch {BATCH}, {threads} thread{'s' * (threads > 1)}, by turns"
    notes = [
        f"To reach: {MUST:g} times BernoulliRBM as it computes by default (float64), better {GOAL:g}. Same size, "
        f"batches and rate ({RATE:g}); grey values as probabilities. Ours: CD-1, {device.describe(compute)}; theirs: "
        "one step of persistent chains, which costs as many products. "
        f"{len(speeds['saccade'].slices)} slices each; the warm-up is not counted; the ratio is one of medians. "
        f"Quality after {EPOCHS} epochs from new weights, of {JUDGED:,} test images, judged by the same functions.",
    ]
    return Report(
        [Table(title, columns, rows)],
        notes,
        {
            "speeds": {name: speed._asdict() for name, speed in speeds.items()},
            "quality": {name: quality._asdict() for name, quality in found.items()},
            "ratio": ratio,
            "threads": threads,
        },
    )


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("rbm_speed")
