"""Training speed of the differentiable neural computer, beside the `dnc` package's, by turns."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.dnc_speed, or saccade bench dnc_speed")

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders import dnc
from ..encoders.base import Inputs
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from ..training import device
from .parts.interleave import Advance, Elsewhere, Speed, alternate
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "tokens per second of a DNC in training, 256 slots of 64 numbers, against the dnc package"

RATE = 1e-4
MUST, GOAL = 2.5, 5.0
MISSING = "this benchmark needs the dnc package: pip install --no-deps dnc==1.1.0"


class Sizes(NamedTuple):
    """Of the net and of a batch; the defaults are those that a DNC learns bAbI with."""

    words: int = 159
    hidden: int = 256
    slots: int = 256
    width: int = 64
    heads: int = 4
    batch: int = 16
    length: int = 100


def our_side(sizes: Sizes, threads: int) -> Advance:
    """One update after another of our DNC with a linear head."""
    spec = ObservationSpec((), "int64", 0, sizes.words - 1, vocabulary=sizes.words)
    compute = device.choose(spec, threads=threads)
    torch.manual_seed(0)
    config = dnc.Config(sizes.slots, sizes.width, sizes.heads, hidden=sizes.hidden)
    net = dnc.build(config, spec)
    head = nn.Linear(net.feature_shape[0], sizes.words)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], RATE, fused=compute.fused)

    def logits(words: Tensor) -> Tensor:
        return head(net(Inputs(words), net.initial_state(sizes.batch))[0])

    return _updates(sizes, logits, optimiser)


def their_side(sizes: Sizes, threads: int) -> Advance:
    """The same of the package's DNC, with its settings: its output layer reads controller and memory too."""
    from dnc import DNC

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = DNC(
        sizes.words,
        sizes.hidden,
        num_hidden_layers=1,
        nr_cells=sizes.slots,
        cell_size=sizes.width,
        read_heads=sizes.heads,
        batch_first=False,
    )
    optimiser = torch.optim.Adam(net.parameters(), RATE)

    def logits(words: Tensor) -> Tensor:
        return net(F.one_hot(words, sizes.words).float(), (None, None, None), reset_experience=True)[0]

    return _updates(sizes, logits, optimiser)


def _updates(sizes: Sizes, logits: Callable[[Tensor], Tensor], optimiser: torch.optim.Optimizer) -> Advance:
    generator = torch.Generator().manual_seed(0)
    tokens = sizes.length * sizes.batch

    def advance(count: int) -> int:
        updates = max(round(count / tokens), 1)
        loss = torch.zeros(())
        for _ in range(updates):
            words, targets = torch.randint(sizes.words, (2, sizes.length, sizes.batch), generator=generator)
            optimiser.zero_grad()
            loss = F.cross_entropy(logits(words).flatten(0, 1), targets.flatten())
            loss.backward()
            optimiser.step()
        if not math.isfinite(loss.item()):
            raise RuntimeError("the loss is not a number any more")
        return updates * tokens

    return advance


def compare(sizes: Sizes, threads: int, *, rounds: int, seconds: float) -> dict[str, Speed]:
    """Tokens per second of both sides, each in a process of its own, by turns.

    Raises:
        UserError: the other package is not installed.
    """
    if importlib.util.find_spec("dnc") is None:
        raise UserError(MISSING)
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, make in (("saccade", our_side), ("dnc", their_side)):
            sides[name] = Elsewhere(make, sizes, threads)
            stack.callback(sides[name].close)
        return alternate(sides, rounds=rounds, seconds=seconds, title="DNC")


def report_on(speeds: dict[str, Speed], sizes: Sizes, threads: int) -> Report:
    ratio = speeds["saccade"].median / speeds["dnc"].median
    rows = [
        (
            label,
            number(speeds[name].median),
            f"{number(speeds[name].low)} to {number(speeds[name].high)}",
            number(speeds[name].median / speeds["dnc"].median),
        )
        for name, label in (("saccade", "saccade"), ("dnc", "dnc 1.1.0"))
    ]
    title = (
        f"DNC, {sizes.words} words, LSTM of {sizes.hidden}, {sizes.slots} x {sizes.width} memory, {sizes.heads} read "
        f"heads, batch {sizes.batch}, length {sizes.length}, {threads} thread{'s' * (threads > 1)}, by turns"
    )
    notes = [
        f"To reach: {MUST} times the dnc package, better {GOAL:g}. Updates of the whole net by Adam, float32, on both "
        "sides; same sizes. The package's equations differ in that keys and written vectors pass through tanh and "
        "strengths begin at 0 instead of 1, which costs it next to nothing. Each side has a process of its own; "
        f"{len(speeds['dnc'].slices)} slices each; the warm-up is not counted; the ratio is one of medians. Losses "
        "stayed finite.",
    ]
    return Report(
        [Table(title, ("", "tokens/s (median)", "slices from to", "times dnc"), rows)],
        notes,
        {"speeds": {name: speed._asdict() for name, speed in speeds.items()}, "ratio": ratio, "threads": threads},
    )


def measure(options: BenchOptions) -> Report:
    """Both sides by turns, with the same number of threads."""
    threads, sizes = options.threads or os.cpu_count() or 1, Sizes()
    speeds = compare(sizes, threads, rounds=options.rounds, seconds=options.slice_seconds)
    return report_on(speeds, sizes, threads)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("dnc_speed")
