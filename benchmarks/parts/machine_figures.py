"""Pictures of Boltzmann machines beside each other: what their lowest units see, and what they make up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...data import Dataset
from ...encoders.base import Encoder
from ...encoders.convrbm import ConvRbm
from ...encoders.dbn import Dbn
from ...encoders.deep_boltzmann import Dbm
from ...encoders.drbm import Drbm
from ...encoders.rbm import Rbm
from ...training.pictures import grid_figure, signed
from ...training.probing import filters

SHOWN = 16  # filters of a learner


def filters_figure(encoders: Mapping[str, Encoder], dataset: Dataset, title: str) -> Figure | None:
    """A row of dense filters for each learner by its label, evenly chosen; None: none of them has such."""
    rows = {}
    for label, encoder in encoders.items():
        found = filters.first_layer(encoder, dataset.spec)
        if found is not None and not found.is_kernel:
            chosen = torch.linspace(0, len(found.weight) - 1, SHOWN).round().long()
            rows[label] = signed(found.weight[chosen].mean(1).float().cpu().numpy())
    return (
        grid_figure(np.stack(list(rows.values())), title, rows=list(rows), is_signed=True, fill=0.0) if rows else None
    )


def kernels_figure(encoder: ConvRbm, dataset: Dataset, title: str) -> Figure:
    """The kernels of the lowest layer."""
    found = filters.Filters(encoder.layers[0].weight.detach(), True)
    return filters.figure(found, dataset.spec, title)


def samples_figure(encoders: Mapping[str, Encoder], dataset: Dataset, title: str) -> Figure | None:
    """Two rows for each learner that is a density: images of every class, where one can ask for them, or just images;
    None: there is no such learner."""
    rows, labels = list[np.ndarray](), list[str]()
    for label, encoder in encoders.items():
        images = samples(encoder, len(dataset.classes))
        if images is not None:
            rows += [*images.view(2, -1, *dataset.spec.shape[1:]).float().cpu().numpy()]
            labels += [label, ""]
    return grid_figure(np.stack(rows), title, rows=labels, columns=dataset.classes) if rows else None


def samples(encoder: Encoder, classes: int) -> Tensor | None:
    """Means of two images of each class, `[2 * classes, ...]`, clamped in machines with label units; others give any
    images. None: it is no density that can be drawn from."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(classes).repeat(2)
    match encoder:
        case Drbm() if encoder.config.generative:
            return encoder.sample(2 * classes, generator, label=label)
        case Dbn() if encoder.config.unroll == 0:
            return encoder.sample(2 * classes, generator, label=label if encoder.config.labels else None)
        case Rbm() | Dbm() | ConvRbm():
            return encoder.sample(2 * classes, generator)
        case _:
            return None
