"""Pictures of a supervised run over sequences."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from ..agents.parts.compute import Compute
from ..data.sequences import Sequences
from .sequence_model import SequenceModel

SHOWN = 3  # sequences


def groups_figure(errors: dict[str, float], mean: float) -> Figure:
    """Shares of mistakes by group, in the data set's order."""
    figure = Figure(figsize=(7, 1.2 + 0.24 * len(errors)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(errors))
    axes.barh(places, [100 * error for error in errors.values()], color="tab:blue", height=0.7)
    axes.axvline(100 * mean, color="tab:gray", linestyle="--", linewidth=1, label=f"mean {mean:.2%}")
    axes.set_yticks(places, list(errors), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="wrong answers in per cent", title="test set, by group")
    axes.legend(frameon=False, fontsize=8)
    return figure


@torch.no_grad()
def bits_figure(model: SequenceModel, split: Sequences, groups: tuple[str, ...], compute: Compute) -> Figure:
    """A sequence of each of some groups: what was shown, what was to be answered, what was answered."""
    kinds = range(1) if split.group is None else [n for n in range(len(groups)) if bool((split.group == n).any())]
    firsts = [0 if split.group is None else int((split.group == n).nonzero()[0]) for n in kinds]
    figure = Figure(figsize=(9, 2.6 * min(len(firsts), SHOWN)), dpi=100, layout="constrained")
    was_training = model.training
    model.eval()
    rows = figure.subplots(min(len(firsts), SHOWN), 1, squeeze=False)[:, 0]
    for axes, first, kind in zip(rows, firsts, kinds, strict=False):
        batch = split.take(torch.tensor([first], device=split.start.device))
        batch = {name: value.to(compute.device) for name, value in batch.items()}
        with compute.autocast():
            logits, target = model(batch)
        shown, blank = batch["x"][0].float().cpu(), np.full((len(batch["x"][0]), 1), np.nan)
        asked = (batch["target"][0] >= 0).any(-1).cpu()
        wanted, said = torch.full((2, len(asked), target.shape[1]), torch.nan)
        wanted[asked], said[asked] = target.float().cpu(), logits.float().sigmoid().cpu()
        page = np.concatenate([shown.numpy(), blank, wanted.numpy(), blank, said.numpy()], 1).T
        axes.imshow(page, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        middle = [shown.shape[1] / 2, shown.shape[1] + 1 + target.shape[1] / 2]
        axes.set_yticks([*middle, middle[1] + 1 + target.shape[1]], ["shown", "asked", "answered"])
        axes.set_title(groups[kind] if groups else "first test sequence", fontsize=9)
    rows[-1].set_xlabel("step")
    model.train(was_training)
    return figure
