"""What the classical benchmark draws besides its tables: capacity by the form of memory, RBMs under weight decay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...encoders import hopfield, rbm
from ...encoders.parts.capacity import fixed, found_again, random_patterns
from ...envs.spec import ObservationSpec
from ...training.optimise import Optimiser, groups_of
from ...training.pictures import COLOURS, Array, in_rows, mosaic, signed

FORM_LOADS = (0.02, 0.05, 0.08, 0.1, 0.12, 0.14, 0.17, 0.2, 0.3, 0.5, 0.8, 0.95, 2.0, 5.0)  # patterns per unit
FORM_UNITS, FLIPPED, HELD = 200, 0.1, 0.9
HIGHEST = {"hebbian": 0.5, "pseudo-inverse": 0.95, "dense": FORM_LOADS[-1]}  # beyond, nothing new is to be seen
DECAYS: dict[str, dict[str, float]] = {"none": {}, "L1, 0.001": {"l1": 1e-3}, "L2, 0.02": {"l2": 0.02}}
HIDDEN, EPOCHS, BATCH, FILTERS = 100, 15, 100, 36


def forms(seeds: int = 3) -> dict[str, Array]:
    """By the form of storage: loads, the share of fixed points, and the share found again with units flipped, mean over
    the seeds, `[3, loads]`; patterns of chance."""
    spec, found = ObservationSpec((FORM_UNITS,), low=-1.0, high=1.0), {}
    for storage in ("hebbian", "pseudo-inverse", "dense"):
        rows = list[Sequence[float]]()
        for load in (load for load in FORM_LOADS if load <= HIGHEST[storage]):
            count = round(load * FORM_UNITS)
            shares = []
            for seed in range(seeds):
                generator = torch.Generator().manual_seed(seed)
                patterns = random_patterns(count, FORM_UNITS, generator)
                net = hopfield.build(hopfield.Config(storage=storage, patterns=count), spec).eval()  # type: ignore[arg-type]
                net.fit(patterns)
                again = found_again(net.retrieve, patterns, FLIPPED, HELD, generator)
                shares.append((fixed(net.step, patterns), again))
            rows.append((load, *np.mean(shares, 0)))
        found[storage] = np.array(rows).T
    return found


def forms_figure(curves: dict[str, Array]) -> Figure:
    """Solid: fixed points; dashed: found again."""
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for (storage, (loads, still, again)), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(loads, still, color=colour, marker="o", fillstyle="none", label=f"{storage}: fixed points")
        label = f"{storage}: found, {FLIPPED:.0%} flipped"
        axes.plot(loads, again, color=colour, marker="s", markersize=4, linestyle="--", label=label)
    axes.axvline(0.138, color="grey", linestyle=":", linewidth=1, label="0.138")
    axes.set_xscale("log")
    axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.set(xlabel="random patterns per unit", ylabel="share of patterns", ylim=(-0.03, 1.03))
    axes.set_title(f"Hopfield nets of {FORM_UNITS} units; found: an overlap of {HELD:g} or more", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def decayed(x: Tensor, spec: ObservationSpec, epochs: int = EPOCHS) -> dict[str, rbm.Rbm]:
    """Machines under each weight decay, from the same start and by CD-1 at a rate of 0.1 on the same batches of x."""
    found = {}
    for name, settings in DECAYS.items():
        torch.manual_seed(0)
        learner = rbm.build(rbm.Config(hidden=HIDDEN, gain=1.0, **settings), spec).train()  # type: ignore[arg-type]
        optimiser = Optimiser(groups_of(learner, list(learner.parameters())), learning_rate=0.1)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimiser.step(learner.loss({"x": x[rows]})["reconstruction"])
        found[name] = learner.eval()
    return found


@torch.no_grad()
def decay_figure(machines: dict[str, rbm.Rbm], x: Tensor) -> Figure:
    """A row for each machine: filters, and histograms of its weights and of its hidden means given x."""
    figure = Figure(figsize=(9.5, 3.0 * len(machines) + 0.4), dpi=100, layout="constrained")
    places = figure.subplots(len(machines), 3, squeeze=False)
    widest = max(float(one.weight.abs().max()) for one in machines.values())
    for axes, (name, machine) in zip(places, machines.items(), strict=True):
        weight, codes = machine.weight, machine.encode(x)
        shown = signed(weight[:FILTERS].unflatten(1, machine.shape)[:, 0].numpy())
        axes[0].imshow(mosaic(in_rows(shown, 6, 0.0), 1, 0.0), "RdBu_r", vmin=-1, vmax=1)
        axes[0].set(title=f"decay: {name}", xticks=[], yticks=[])
        axes[1].hist(weight.flatten().numpy(), 80, range=(-widest, widest), log=True, color=COLOURS[0])
        near = float((weight.abs() < 0.01).float().mean())
        axes[1].set_title(f"weights: deviation {float(weight.std()):.2f}, {near:.0%} within ±0.01", fontsize=9)
        axes[2].hist(codes.flatten().numpy(), 50, range=(0, 1), log=True, color=COLOURS[1])
        error = (machine.reconstruct(x).flatten(1) - machine.read_visible(x)).square().sum(1).mean()
        axes[2].set_title(f"hidden means: {float(codes.mean()):.2f}; squared error {float(error):.1f}", fontsize=9)
    figure.suptitle("RBMs of the same start and data; blue < 0 < red, each filter by itself", fontsize=11)
    return figure
