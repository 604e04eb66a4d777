"""Optimisers on one MLP: batches to a training loss of 0.1; and the loss on a line through the solution."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.optimisers, or saccade bench optimisers")

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data import Batches, Split
from ..encoders.base import Group
from ..encoders.parts.initialise import initialise
from ..training import device
from ..training.epochs import in_order
from ..training.optimise import Optimiser, Rule
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "SGD, momentum, Nesterov, AdaGrad, RMSProp, Adam, L-BFGS on an MLP; the loss on a line through the solution"

SEEDS, BATCH, MOST_BATCHES, TARGET = 3, 100, 22_000, 0.1
WINDOW = 200  # batches whose mean is the training loss
LBFGS_BATCH = 5_000  # L-BFGS takes differences of gradients, which small batches drown in noise
ALPHAS = np.linspace(-2, 2, 81)
LINE_EXAMPLES = 10_000


class Setting(NamedTuple):
    label: str
    rule: Rule | None  # None: L-BFGS
    learning_rate: float
    momentum: float = 0.0


SETTINGS = {
    "sgd": Setting("SGD", "sgd", 0.01),
    "momentum": Setting("momentum .9", "sgd", 0.01, 0.9),
    "nesterov": Setting("Nesterov .9", "nesterov", 0.01, 0.9),
    "adagrad": Setting("AdaGrad", "adagrad", 0.01),
    "rmsprop": Setting("RMSProp", "rmsprop", 0.001),
    "adam": Setting("Adam", "adam", 0.001),
    "lbfgs": Setting("L-BFGS", None, 1.0),
}


class Curve(NamedTuple):
    """One training."""

    batches: np.ndarray  # batches of 100 examples read when the loss was noted, [points]
    loss: np.ndarray  # mean since the last point, [points]
    reached: float  # batches to the target; inf = never
    seconds: float


def make_net(seed: int) -> nn.Sequential:
    """784-256-256-10 with ReLU and He's weights."""
    torch.manual_seed(seed)
    dense = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    net = nn.Sequential(nn.Flatten(), *dense)
    initialise(net, "he")
    return net


def train(setting: Setting, split: Split, seed: int, most: int) -> tuple[Curve, nn.Module]:
    """Until the target is reached, or `most` batches are read."""
    net, began = make_net(seed), time.perf_counter()
    points, seen, next_point = [], list[Tensor](), WINDOW
    steps = lbfgs_steps if setting.rule is None else first_order_steps
    for read, loss in steps(net, setting, split, seed):
        seen.append(loss)
        if read >= next_point:
            points.append((read, float(torch.stack(seen).mean())))
            seen, next_point = [], read + WINDOW
            if points[-1][1] <= TARGET or read >= most:
                break
    batches, losses = np.array(points).T
    reached = float(batches[-1]) if losses[-1] <= TARGET else float("inf")
    return Curve(batches, losses, reached, time.perf_counter() - began), net


def loss_of(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(net(batch["x"]), batch["label"])


def first_order_steps(net: nn.Module, setting: Setting, split: Split, seed: int) -> Iterator[tuple[int, Tensor]]:
    """(batches of 100 read so far, training loss) after each update."""
    assert setting.rule is not None
    optimiser = Optimiser(
        [Group("net", list(net.parameters()))],
        learning_rate=setting.learning_rate,
        rule=setting.rule,
        momentum=setting.momentum,
    )
    for count, batch in enumerate(Batches(split, BATCH, seed), 1):
        loss = loss_of(net, batch)
        optimiser.step(loss)
        yield count, loss.detach()


def lbfgs_steps(net: nn.Module, setting: Setting, split: Split, seed: int) -> Iterator[tuple[int, Tensor]]:
    """The same of L-BFGS: every evaluation of a batch of 5,000 counts as reading it, 50 batches of 100."""
    optimiser = torch.optim.LBFGS(
        net.parameters(), setting.learning_rate, max_iter=5, history_size=20, line_search_fn="strong_wolfe"
    )
    read = 0
    for batch in Batches(split, min(LBFGS_BATCH, len(split)), seed):

        def closure(batch: dict[str, Tensor] = batch) -> Tensor:
            nonlocal read
            read += len(batch["label"]) // BATCH
            optimiser.zero_grad()
            loss = loss_of(net, batch)
            loss.backward()
            return loss

        loss = optimiser.step(closure)
        yield read, loss.detach()


@torch.no_grad()
def on_the_line(solution: nn.Module, start: nn.Module, split: Split) -> np.ndarray:
    """Loss at alpha * solution + (1 - alpha) * start for every alpha of `ALPHAS`."""
    net = make_net(0)
    losses = []
    for alpha in ALPHAS:
        for here, a, b in zip(net.parameters(), solution.parameters(), start.parameters(), strict=True):
            here.copy_(alpha * a + (1 - alpha) * b)
        sums = [loss_of(net, batch) * len(batch["label"]) for batch in in_order(split, 2_000, "cpu")]
        losses.append(float(torch.stack(sums).sum()) / len(split))
    return np.array(losses)


def measure(options: BenchOptions) -> Report:
    """All optimisers, seed by seed; then the line through the solution that Nesterov's found."""
    dataset = data.load("mnist")
    device.choose(dataset.spec, threads=options.threads or 1)
    split = Split(dataset.train.x.float() / 255, dataset.train.label)
    seeds, most = options.seeds or SEEDS, options.steps or MOST_BATCHES
    curves: dict[str, list[Curve]] = {name: [] for name in SETTINGS}
    lines = []
    few = split.take(torch.arange(min(LINE_EXAMPLES, len(split))))
    for seed in track(range(seeds), "seeds", transient=True):
        for name, setting in SETTINGS.items():
            curve, net = train(setting, split, seed, most)
            curves[name].append(curve)
            if name == "nesterov":
                lines.append(on_the_line(net, make_net(seed), Split(few["x"], few["label"])))
    data_ = {name: [curve._asdict() for curve in found] for name, found in curves.items()}
    figures = {"optimisers": curves_figure(curves, most), "loss-line": line_figure(np.array(lines))}
    return Report([_table(curves)], _notes(seeds), {"curves": data_, "alphas": ALPHAS, "lines": lines}, figures)


def curves_figure(curves: dict[str, list[Curve]], most: int) -> Figure:
    """Training loss against batches, every seed's."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, found) in enumerate(curves.items()):
        for number_, curve in enumerate(found):
            label = SETTINGS[name].label if number_ == 0 else None
            axes.plot(curve.batches, curve.loss, color=f"C{index}", label=label, linewidth=1.2, alpha=0.8)
    axes.axhline(TARGET, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="batches of 100 examples read", ylabel="training loss (nats)")
    axes.set(title=f"MLP 784-256-256-10 on MNIST until a training loss of {TARGET:g}", xlim=(WINDOW, most))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def line_figure(lines: np.ndarray) -> Figure:
    """The loss between random start (0) and solution (1) and beyond, `[seeds, alphas]`."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(ALPHAS, lines.T, linewidth=1.5)
    for place, text in ((0, "random start"), (1, "solution")):
        axes.axvline(place, color="black", linewidth=0.8, linestyle=":")
        axes.annotate(text, (place, lines.max()), fontsize=8, ha="center")
    axes.set(xlabel="alpha", ylabel="training loss (nats)", yscale="log")
    axes.set(title="Loss at alpha solution + (1 - alpha) start, one line per seed")
    axes.grid(alpha=0.3, which="both")
    return figure


def _table(curves: dict[str, list[Curve]]) -> Table:
    rows = []
    for name, found in curves.items():
        setting, reached = SETTINGS[name], [curve.reached for curve in found]
        rows.append(
            (
                setting.label,
                f"{setting.learning_rate:g}",
                f"{statistics.median(reached):,.0f}" if np.isfinite(statistics.median(reached)) else "not reached",
                ", ".join(f"{value:,.0f}" if np.isfinite(value) else "–" for value in reached),
                number(statistics.median(curve.seconds for curve in found)),
            )
        )
    columns = ("", "rate", f"batches to a training loss of {TARGET:g} (median)", "of each seed", "seconds")
    return Table("MLP 784-256-256-10 on MNIST, batches of 100", columns, rows)


def _notes(seeds: int) -> list[str]:
    return [
        f"The training loss is the mean over the last {WINDOW} batches, so nothing is reached before {WINDOW}. Rates "
        "are those of the founding material for SGD and momentum and the usual defaults for the others, not tuned. "
        f"L-BFGS reads batches of {LBFGS_BATCH:,}, five iterations each with a line search; every evaluation counts as "
        f"{LBFGS_BATCH // BATCH} batches of {BATCH}.",
        f"The line: Nesterov's solution of each seed and the random weights that it began with, loss on "
        f"{LINE_EXAMPLES:,} training images at 81 places.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("optimisers")
