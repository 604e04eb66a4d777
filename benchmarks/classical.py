"""The classical nets: how many patterns a Hopfield net holds, self-organising maps beside the minisom package, and
pictures of what weight decay makes of RBMs."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.classical, or saccade bench classical")

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import data
from ..encoders import hopfield, som
from ..encoders.parts.capacity import random_patterns
from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from ..training.optimise import Optimiser, groups_of
from ..training.probing.classical_figures import map_figure
from ..training.probing.subject import Labelled
from .parts.classical_pictures import decay_figure, decayed, forms, forms_figure
from .parts.interleave import Advance, Speed, alternate
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "Hopfield nets: the load at which memory breaks down; self-organising maps against minisom; RBMs under decay"

MISSING = "this benchmark needs the minisom package: pip install minisom"
SIZES = (250, 500, 1000)  # units of a Hopfield net
LOADS = (0.05, 0.08, 0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.2, 0.25)  # patterns per unit
THEORY, HELD = 0.138, 0.9  # the load where memory breaks down; the overlap of a pattern that is held
NOISE = tuple(share / 20 for share in range(10))  # flipped units, for the basins
IMAGES, GRID, EPOCHS, BATCH = 2000, 20, 5, 100  # of the maps
DECAYED = 10_000  # images that the RBMs learn from
MUST = 10.0  # times minisom's speed


class Rival(NamedTuple):
    """A way of training a map with minisom, and ours that is held against it."""

    label: str
    radius: float  # minisom's sigma at first; it ends at a third
    plane: bool  # begins on the plane of two principal components, not with examples
    last_radius: dict[str, float]  # of ours, by rule


RIVALS = {
    "narrow": Rival("its defaults: sigma 1, random start", 1.0, False, {"fit": 0.3}),
    "wide": Rival("sigma a third of the grid, PCA start", GRID / 3, True, {"fit": 1.0, "online": 0.6}),
}


def memory(size: int, patterns: Tensor) -> hopfield.Hopfield:
    """A Hebbian net of `size` units that holds `patterns` `[P, size]`."""
    encoder = hopfield.build(hopfield.Config(sweeps=50), ObservationSpec((size,), low=-1.0, high=1.0)).eval()
    encoder.fit(patterns)
    return encoder


def capacity(size: int, load: float, seed: int) -> tuple[float, float]:
    """(mean overlap, share of patterns held) where retrieval begins at the patterns themselves."""
    generator = torch.Generator().manual_seed(seed)
    patterns = random_patterns(max(round(load * size), 1), size, generator)
    overlap = (memory(size, patterns).retrieve(patterns, generator) * patterns).mean(1)
    return float(overlap.mean()), float((overlap >= HELD).float().mean())


def break_down(loads: Sequence[float], held: Sequence[float]) -> float:
    """The load at which half of the patterns are held, between the two that enclose it; nan where none do."""
    for low, high, above, below in zip(loads[:-1], loads[1:], held[:-1], held[1:], strict=True):
        if above >= 0.5 > below:
            return low + (high - low) * (above - 0.5) / (above - below)
    return float("nan")


def basins(size: int, loads: Sequence[float], seed: int) -> np.ndarray:
    """Share of patterns that are found again, `[loads, NOISE]`, with a share of their units flipped."""
    found = np.zeros((len(loads), len(NOISE)))
    for row, load in enumerate(loads):
        generator = torch.Generator().manual_seed(seed)
        patterns = random_patterns(max(round(load * size), 1), size, generator)
        net = memory(size, patterns)
        for column, share in enumerate(NOISE):
            flips = torch.rand(patterns.shape, generator=generator) < share
            after = net.retrieve(torch.where(flips, -patterns, patterns), generator)
            found[row, column] = float(((after * patterns).mean(1) >= HELD).float().mean())
    return found


def train_online(x: Tensor, spec: ObservationSpec, last_radius: float) -> tuple[som.Som, Advance]:
    """A map, and what trains it batch by batch through its loss, as `saccade pretrain` does."""
    torch.manual_seed(0)
    learner = som.build(som.Config(rows=GRID, columns=GRID, last_radius=last_radius), spec).train()
    optimiser = Optimiser(groups_of(learner, list(learner.parameters())), learning_rate=1e-3)
    total, done = EPOCHS * len(x), 0
    generator = torch.Generator().manual_seed(0)

    def advance(examples: int) -> int:
        nonlocal done
        count = max(round(examples / BATCH), 1)
        for _ in range(count):
            learner.progress.fill_(min(done / total, 1.0))
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            optimiser.step(learner.loss({"x": x[rows]})["quantisation"])
            learner.after_update()
            done += BATCH
        return count * BATCH

    return learner, advance


def train_fit(x: Tensor, spec: ObservationSpec, last_radius: float) -> tuple[som.Som, Advance]:
    """A map, and what trains it by whole epochs of the batch rule, from the start each time."""
    torch.manual_seed(0)
    learner = som.build(som.Config(rows=GRID, columns=GRID, last_radius=last_radius), spec)

    def advance(examples: int) -> int:
        epochs = max(round(examples / len(x)), EPOCHS)
        learner.fit(x, epochs)
        return epochs * len(x)

    return learner, advance


def their_side(x: Tensor, rival: Rival) -> tuple[Any, Advance]:
    """A MiniSom, and what trains it example by example."""
    try:
        from minisom import MiniSom
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from None
    rows = x.flatten(1).numpy().astype(np.float64) / 255
    model = MiniSom(GRID, GRID, rows.shape[1], sigma=rival.radius, learning_rate=0.5, random_seed=0)
    model.pca_weights_init(rows) if rival.plane else model.random_weights_init(rows)

    def advance(examples: int) -> int:
        model.train(rows, examples, random_order=True)
        return examples

    return model, advance


def judged(model: Any, x: Tensor, spec: ObservationSpec) -> dict[str, float]:
    """Both errors of a map on `x`, ours or a MiniSom, by the same functions."""
    if not isinstance(model, som.Som):
        twin = som.build(som.Config(rows=GRID, columns=GRID), spec)
        with torch.no_grad():
            twin.weight.copy_(torch.from_numpy(model.get_weights().reshape(GRID * GRID, -1)))
        model = twin
    return {name: float(error) for name, error in model.errors(x).items()}


class Race(NamedTuple):
    """The maps against one way of theirs."""

    errors: dict[str, dict[str, float]]
    speeds: dict[str, Speed]
    map: som.Som


def race(name: str, x: Tensor, spec: ObservationSpec, options: BenchOptions) -> Race:
    """Errors after EPOCHS epochs each, then speeds by turns."""
    rival = RIVALS[name]
    ours = {"fit": train_fit, "online": train_online}
    sides: dict[str, tuple[Any, Advance]] = {"minisom": their_side(x, rival)}
    sides |= {rule: ours[rule](x, spec, radius) for rule, radius in rival.last_radius.items()}
    for _, advance in sides.values():
        advance(EPOCHS * len(x))
    errors = {side: judged(model, x, spec) for side, (model, _) in sides.items()}
    advances = {side: advance for side, (_, advance) in sides.items()}
    return Race(
        errors,
        alternate(advances, rounds=options.rounds, seconds=options.slice_seconds, title=f"maps, {name}"),
        train_and_keep(x, spec, rival.last_radius["fit"]),
    )


def train_and_keep(x: Tensor, spec: ObservationSpec, last_radius: float) -> som.Som:
    learner, advance = train_fit(x, spec, last_radius)
    advance(EPOCHS * len(x))
    return learner


def measure(options: BenchOptions) -> Report:
    """Capacity, basins and maps."""
    threads = options.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    dataset = data.load("mnist")
    x = dataset.train.x[:IMAGES]
    races = {name: race(name, x, dataset.spec, options) for name in RIVALS}
    seeds = options.seeds or 1
    curves = {
        size: np.array([np.mean([capacity(size, load, seed) for seed in range(seeds)], 0) for load in LOADS])
        for size in SIZES
    }
    breaks = {size: break_down(LOADS, curve[:, 1].tolist()) for size, curve in curves.items()}
    found, by_form = basins(SIZES[1], LOADS[::2], 0), forms()
    rows = [(str(size), f"{at:.3f}", f"{at / THEORY:.2f}") for size, at in breaks.items()]
    tables = [
        Table("Hopfield net: load at which half of the patterns are lost", ("units", "patterns/unit", "of .138"), rows),
        *[_race_table(name, race_, threads) for name, race_ in races.items()],
    ]
    problems = [line for name, race_ in races.items() for line in _behind(name, race_)]
    notes = [
        f"Random patterns, Hebb's rule, one unit after the other in random order; retrieval begins at the patterns; "
        f"held: an overlap of {HELD:g} or more. Theory for infinitely many units: {THEORY:g} (Amit et al. 1985); of "
        f"few units, chance lets more or fewer survive. {seeds} draw{'s' * (seeds > 1)} of the patterns each.",
        f"Maps: {GRID} x {GRID} units, {IMAGES:,} training digits of MNIST, {EPOCHS} epochs, judged on the same digits "
        "by the same functions; minisom in float64, example by example, ours in float32: `fit` by the batch rule, "
        f"online by Kohonen's in batches of {BATCH}. To reach: errors no worse, {MUST:g} times as fast.",
        *problems,
    ]
    measured = {
        "break_down": breaks,
        "capacity": {str(size): curve.tolist() for size, curve in curves.items()},
        "loads": LOADS,
        "basins": found.tolist(),
        "forms": {storage: curve.tolist() for storage, curve in by_form.items()},
        "maps": {
            name: {"errors": one.errors, "speeds": {side: speed._asdict() for side, speed in one.speeds.items()}}
            for name, one in races.items()
        },
        "threads": threads,
    }
    title = f"a map of {len(x):,} digits, and which of them each unit wins most"
    won = Labelled(x, dataset.train.label[:IMAGES])
    figures = {
        "classical-hopfield": hopfield_figure(curves, found),
        "classical-forms": forms_figure(by_form),
        "classical-map": map_figure(races["wide"].map, dataset.spec, title, won, dataset.classes),
        "classical-decay": decay_figure(decayed(dataset.train.x[:DECAYED], dataset.spec), dataset.test.x[:IMAGES]),
    }
    return Report(tables, notes, measured, figures)


def _race_table(name: str, race_: Race, threads: int) -> Table:
    slow = race_.speeds["minisom"].median
    labels = {"minisom": f"minisom, {RIVALS[name].label}", "fit": "saccade, fit", "online": "saccade, online"}
    rows = [
        (
            labels[side],
            f"{errors['quantisation_error']:.3f}",
            f"{errors['topographic_error']:.3f}",
            number(race_.speeds[side].median),
            number(race_.speeds[side].median / slow),
        )
        for side, errors in race_.errors.items()
    ]
    columns = ("", "quantisation error", "topographic error", "digits/s (median)", "times minisom")
    return Table(f"Maps, {name}, {threads} thread{'s' * (threads > 1)}, by turns", columns, rows)


def _behind(name: str, race_: Race) -> list[str]:
    """Where ours misses what it must reach."""
    theirs = race_.errors["minisom"]
    lines = []
    for side, errors in race_.errors.items():
        lines += [f"{name}, {side}: {error} is worse" for error, value in errors.items() if value > theirs[error]]
        if side != "minisom" and race_.speeds[side].median < MUST * race_.speeds["minisom"].median:
            lines.append(f"{name}, {side}: less than {MUST:g} times as fast")
    return lines


def hopfield_figure(curves: dict[int, np.ndarray], found: np.ndarray) -> Figure:
    """Overlap by load for each size; the basins beside it."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for size, curve in curves.items():
        left.plot(LOADS, curve[:, 0], marker=".", label=f"{size} units")
    left.axvline(THEORY, color="grey", linestyle="--", linewidth=1, label="0.138")
    left.set(title="what is left of a stored pattern", xlabel="patterns per unit", ylabel="overlap", ylim=(0, 1.02))
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    shown = right.pcolormesh(np.array(NOISE), np.array(LOADS[::2]), found, vmin=0, vmax=1, shading="nearest")
    right.set(
        title=f"basins: found again, {SIZES[1]} units", xlabel="share of units flipped", ylabel="patterns per unit"
    )
    figure.colorbar(shown, ax=right)
    return figure


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("classical")
