"""Pictures of machines that walk: Gibbs chains from data and from noise, and how weights and units are spread."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from ...encoders.base import Encoder
from ...encoders.dbn import Dbn
from ...encoders.deep_boltzmann import Dbm
from ...encoders.drbm import Drbm
from ..pictures import as_pictures, grid_figure
from .subject import Subject

STEPS = (0, 1, 2, 5, 10, 50, 200, 1000)  # of Gibbs, after which a chain is shown
CHAINS = 6  # from either start
BINS = 60
MOST_LABELS, PER_LABEL = 20, 8  # clamped, and images of each


@torch.no_grad()
def chains(subject: Subject) -> Figure:
    """Means of the visible units along chains: the upper rows begin at test images, the lower ones at noise."""
    encoder, spec = subject.encoder, subject.spec
    generator = torch.Generator(subject.device).manual_seed(subject.seed)
    count = min(CHAINS, len(subject.rows["test"]))
    positions = torch.linspace(0, len(subject.rows["test"]) - 1, count).long()
    x = subject.take("test", subject.rows["test"][positions])["x"]
    starts = (encoder.read_visible(x), encoder.noise(count, generator))  # type: ignore[operator]
    rows = []
    for start in starts:
        walked = encoder.chain(start, STEPS[1:], generator)  # type: ignore[operator]
        whole = torch.cat([start.view(1, count, *spec.shape), walked]).transpose(0, 1)
        rows += [as_pictures(row.float().cpu().numpy(), spec.stack) for row in whole]
    labels = ["data"] * count + ["noise"] * count
    title = f"{subject.name}: Gibbs chains, means of the visible units after so many steps"
    return grid_figure(np.stack(rows), title, rows=labels, columns=[str(step) for step in STEPS])


def label_units(encoder: Encoder) -> int:
    """How many label units a machine has that can be drawn from with one of them clamped; 0: none."""
    match encoder:
        case Drbm() if encoder.config.generative:
            return encoder.config.classes
        case Dbn() | Dbm():
            return encoder.config.labels
        case _:
            return 0


@torch.no_grad()
def clamped(subject: Subject) -> Figure:
    """Images drawn with each label clamped, a column for each."""
    encoder, units = subject.encoder, label_units(subject.encoder)
    generator = torch.Generator(subject.device).manual_seed(subject.seed)
    label = torch.arange(min(units, MOST_LABELS), device=subject.device).repeat(PER_LABEL)
    drawn: torch.Tensor = encoder.sample(len(label), generator, label=label)  # type: ignore[operator]
    pictures = as_pictures(drawn.float().cpu().numpy(), subject.spec.stack)
    names = [*subject.dataset.classes, *map(str, range(subject.classes, units))][: min(units, MOST_LABELS)]
    rows = pictures.reshape(PER_LABEL, -1, *pictures.shape[1:])
    return grid_figure(rows, f"{subject.name}: drawn with the label above clamped", columns=names)


def machine_weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The weights of all Boltzmann machines in an encoder by their names, biases left out; empty: there are none."""
    machines = [
        (name, module)
        for name, module in encoder.named_modules()
        if any(callable(getattr(module, ability, None)) for ability in ("machine", "deep", "free_energy"))
    ]
    return {
        ".".join(filter(None, (name, own))): parameter.detach()
        for name, module in machines
        for own, parameter in module.named_parameters()
        if parameter.dim() > 1
    }


def histograms(subject: Subject) -> Figure:
    """Of the weights of each layer, of the codes of test examples, and of each unit's mean over them."""
    codes = subject.codes["test"].x.float().cpu()
    weights = machine_weights(subject.encoder)
    named = {"weights" if len(weights) == 1 else name: w.flatten().float().cpu() for name, w in weights.items()}
    panels = named | {"codes of test examples": codes.flatten(), "mean of each unit's code": codes.mean(0)}
    columns = 2 if len(panels) == 4 else 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9, 2.6 * rows + 0.3), dpi=100, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, values) in zip(places, panels.items(), strict=False):
        axes.hist(values.numpy(), BINS, log=True)
        deviation, mean = torch.std_mean(values)
        axes.set_title(f"{title}\nmean {mean:.3g}, deviation {deviation:.3g}", fontsize=8)
        axes.tick_params(which="both", labelsize=7)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes in places[::columns]:
        axes.set_ylabel("how many", fontsize=8)
    figure.suptitle(subject.name, fontsize=9)
    return figure
