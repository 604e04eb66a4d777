"""Pictures of machines that walk: Gibbs chains from data and from noise, and how weights and units are spread."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from ..pictures import as_pictures, grid_figure
from .subject import Subject

STEPS = (0, 1, 2, 5, 10, 50, 200, 1000)  # of Gibbs, after which a chain is shown
CHAINS = 6  # from either start
BINS = 60


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


def histograms(subject: Subject) -> Figure:
    """Of the weights, of the codes of test examples, and of each unit's mean over them."""
    codes = subject.codes["test"].x.float().cpu()
    weight: torch.Tensor = subject.encoder.weight.detach()  # type: ignore[assignment, union-attr, operator]
    panels = {
        "weights": weight.flatten().float().cpu(),
        "hidden units, test examples": codes.flatten(),
        "mean of each hidden unit": codes.mean(0),
    }
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.hist(values.numpy(), BINS, log=True)
        deviation, mean = torch.std_mean(values)
        axes.set_title(f"{title}\nmean {mean:.3g}, deviation {deviation:.3g}", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle(subject.name, fontsize=9)
    return figure
