"""What benchmarks of representation learners share: pretraining runs, their bundles, and errors of reconstructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ... import data
from ...data import Dataset
from ...encoders.base import Encoder
from ...training.bundle import load_bundle
from ...training.probing.pca import PCA, fit_pca
from .plan import BenchOptions, Outcome, Run

CHUNK = 1000  # examples at a time
MNIST_TRAIN = 55_000  # the last 5,000 of 60,000 training images are for validation


class Setting(NamedTuple):
    """One way of training a learner on MNIST."""

    label: str  # in tables
    learner: str
    epochs: int
    options: tuple[str, ...]  # of `saccade pretrain`


def words(text: str) -> tuple[str, ...]:
    """The options of a command line, as they are typed."""
    return tuple(text.split())


def pretraining(settings: Mapping[str, Setting], options: BenchOptions, seeds: int) -> list[Run]:
    """`seeds` runs of each setting unless the options say otherwise, seed by seed."""
    return [
        Run(
            name,
            seed,
            ("saccade", "pretrain", one.learner, "--data", "mnist", "--epochs", str(one.epochs), *one.options),
            one.epochs * MNIST_TRAIN,
        )
        for seed in range(options.seeds or seeds)
        for name, one in settings.items()
    ]


def encoder_of(outcome: Outcome) -> Encoder:
    """The trained encoder of a run, in eval mode."""
    return load_bundle(outcome.folder).encoder


def mnist() -> Dataset:
    """Raises UserError where its files are not there."""
    return data.load("mnist")


def flat(x: Tensor) -> Tensor:
    """uint8 images `[N, ...]` to float32 `[N, D]` in 0..1."""
    return x.flatten(1).float() / 255


def blocks(x: Tensor) -> Iterator[Tensor]:
    """Flat float32 blocks of uint8 images."""
    for part in x.split(CHUNK):
        yield flat(part)


def principal_components(x: Tensor, width: int) -> PCA:
    """Of uint8 images `[N, ...]`."""
    return fit_pca(lambda: blocks(x), width)


def pca_error(pca: PCA, x: Tensor) -> float:
    """Mean over the images of the squared error of the reconstruction, pixels in 0..1."""
    return float(torch.cat([(pca.reconstruct(part) - part).square().sum(1) for part in blocks(x)]).mean())


@torch.no_grad()
def reconstructions(encoder: Encoder, x: Tensor) -> Tensor:
    """Float32 `[N, D]` in unit scale."""
    return torch.cat([encoder.reconstruct(part).flatten(1).float() for part in x.split(CHUNK)])  # type: ignore[operator]


def squared_error(encoder: Encoder, x: Tensor) -> float:
    """As `pca_error`, of a learner that reconstructs."""
    return float((reconstructions(encoder, x) - flat(x)).square().sum(1).mean())


def norm_error(encoder: Encoder, x: Tensor) -> float:
    """Mean over the images of the Euclidean norm of the reconstruction's error."""
    return float((reconstructions(encoder, x) - flat(x)).square().sum(1).sqrt().mean())


@torch.no_grad()
def codes(encoder: Encoder, x: Tensor) -> Tensor:
    """Float32 `[N, D]`."""
    return torch.cat([encoder.read(part).flatten(1).float() for part in x.split(CHUNK)])


def reconstruction_figure(rows: Mapping[str, Tensor], title: str) -> Figure:
    """Rows of digits under each other; each value is `[N, 784]` in unit scale."""
    figure = Figure(figsize=(8, 0.75 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)
    for axis, (label, images) in zip(axes[:, 0], rows.items(), strict=True):
        axis.imshow(np.concatenate([*images.clamp(0, 1).view(-1, 28, 28).numpy()], 1), cmap="gray_r", vmin=0, vmax=1)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=9)
    return figure


def one_of_each(dataset: Dataset) -> Tensor:
    """The first two test images of every digit, uint8 `[20, 1, 28, 28]`."""
    where = [torch.nonzero(dataset.test.label == digit)[:2, 0] for digit in range(10)]
    return dataset.test.x[torch.cat(where)]


def by_setting(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Finished runs by setting; settings of which none finished are left out."""
    done: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.result is not None:
            done.setdefault(outcome.run.group, []).append(outcome)
    return done


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean, and the extremes where there are several."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def seconds(outcomes: Sequence[Outcome]) -> str:
    """The median training time."""
    return f"{np.median([o.result['seconds'] for o in outcomes if o.result is not None]):.0f}"


def threads_note(outcomes: Sequence[Outcome]) -> str:
    """How the runs computed."""
    found = {str(o.result["compute"]) for o in outcomes if o.result is not None}
    return "Computed with " + "; ".join(sorted(found)) + "."


def code_scatter(encoder: Encoder, dataset: Dataset, title: str) -> Figure:
    """Two-dimensional codes of the test images, coloured by digit."""
    points, label = codes(encoder, dataset.test.x), dataset.test.label
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for digit in range(10):
        axes.plot(*points[label == digit].T.numpy(), ".", markersize=1.5, color=f"C{digit}", label=str(digit))
    axes.legend(markerscale=6, fontsize=8)
    axes.set_title(title, fontsize=9)
    return figure
