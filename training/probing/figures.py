"""The pictures of a probe: which there are for an encoder, and what each shows."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from ...encoders.hopfield import Hopfield
from ...encoders.som import Som
from ..pictures import Array, as_pictures, grid_figure, in_rows, png, scatter_figure
from . import chain_figures, classical_figures, filters
from .subject import Subject

TITLES = {
    "reconstructions": "Reconstructions",
    "filters": "First-layer filters",
    "decoder_filters": "Decoder filters",
    "codes": "Codes in two dimensions",
    "tsne": "t-SNE of the codes",
    "umap": "UMAP of the codes",
    "manifold": "The manifold of the codes",
    "interpolation": "Interpolation between codes",
    "arithmetic": "Latent arithmetic",
    "samples": "Samples",
    "clamped": "Images drawn for each label",
    "chains": "Gibbs chains",
    "histograms": "Weights and activities",
    "map": "The map and its U-matrix",
    "retrieval": "Stored patterns, damaged and found",
    "memory": "Basins and capacity",
}
SHOWN = 10  # examples in a row
MOST_POINTS = 4000  # in a scatter of codes
MANIFOLD = 15  # points a side
PAIRS = 8  # of codes, between which there is a way
SAMPLES = (8, 12)  # rows and columns
WIDE = 50  # t-SNE reads at most so many principal components (van der Maaten & Hinton 2008, section 4.2: 30)


def wanted(subject: Subject, embedding: int) -> list[str]:
    """Names of the pictures that make sense for the subject."""
    images, width = subject.spec.is_image, math.prod(subject.encoder.feature_shape)
    decodes = images and subject.has("decode")
    there = {
        "reconstructions": images and subject.has("reconstruct"),
        "filters": images and filters.first_layer(subject.encoder, subject.spec) is not None,
        "decoder_filters": images and filters.last_layer(subject.encoder, subject.spec) is not None,
        "codes": width >= 2,
        "tsne": embedding > 0 and width >= 3,
        "umap": embedding > 0 and width >= 3 and importlib.util.find_spec("umap") is not None,
        "manifold": decodes and width == 2,
        "interpolation": decodes,
        "arithmetic": decodes and subject.classes >= 2,
        "samples": images and subject.has("sample"),
        "clamped": images and chain_figures.label_units(subject.encoder) > 0,
        "chains": images and subject.has("chain"),
        "histograms": bool(chain_figures.machine_weights(subject.encoder)),
        "map": isinstance(subject.encoder, Som),
        "retrieval": images and isinstance(subject.encoder, Hopfield) and bool(len(subject.encoder.held())),
        "memory": isinstance(subject.encoder, Hopfield),
    }
    return [name for name in TITLES if there[name]]


def draw(name: str, subject: Subject, embedding: int) -> bytes | None:
    """The picture as a PNG file; None where the data do not give one."""
    figure = _embedding(subject, name, embedding) if name in ("tsne", "umap") else _DRAWERS[name](subject)
    return None if figure is None else png(figure)


def _pictures(subject: Subject, unit: Tensor) -> Array:
    """Observations in unit scale `[N, ...]` as pictures `[N, H, W]` or `[N, H, W, 3]`."""
    return as_pictures(unit.view(-1, *subject.spec.shape).float().cpu().numpy(), subject.spec.stack)


def _examples(subject: Subject, count: int) -> Tensor:
    """Positions of `count` test examples: one of each class in turn, or spread over the set."""
    label = subject.codes["test"].label.cpu()
    if subject.classes < 2:
        return torch.linspace(0, len(label) - 1, min(count, len(label))).long()
    by_class = [(label == number).nonzero().squeeze(1) for number in range(subject.classes)]
    found = [rows[turn] for turn in range(count) for rows in by_class if turn < len(rows)]
    return torch.stack(found[:count]) if found else torch.arange(min(count, len(label)))


def _observed(subject: Subject, positions: Tensor) -> Tensor:
    """Test observations as stored at these positions among those read."""
    return subject.take("test", subject.rows["test"][positions])["x"]


@torch.no_grad()
def _reconstructions(subject: Subject) -> Figure:
    x = _observed(subject, _examples(subject, 2 * SHOWN))
    unit, report = subject.unit(x), subject.report["reconstruction"]
    encoder, half = subject.encoder, len(x) // 2 if len(x) > SHOWN else len(x)
    kinds: dict[str, Array] = {"original": _pictures(subject, unit)}
    if subject.has("corrupted"):
        damaged = encoder.corrupted(x)  # type: ignore[operator]
        if not torch.equal(damaged.flatten(1), unit):
            kinds["corrupted"] = _pictures(subject, damaged)
            kinds["from corrupted"] = _pictures(subject, _restored(subject, damaged))
    kinds[f"{subject.name} {report['learner']:.1f}"] = _pictures(subject, encoder.reconstruct(x))  # type: ignore[operator]
    assert subject.pca is not None
    if subject.pca.width < subject.spec.size:
        kinds[f"PCA {report['pca']:.1f}"] = _pictures(subject, subject.pca.reconstruct(unit))
    rows = [pictures[part] for part in (slice(half), slice(half, 2 * half)) for pictures in kinds.values()]
    rows = [row for row in rows if len(row)]
    title = f"{subject.name}, {subject.width} numbers a code, and PCA: test images and mean squared error of all"
    return grid_figure(np.stack(rows), title, rows=list(kinds) * (len(rows) // len(kinds)))


def _restored(subject: Subject, damaged: Tensor) -> Tensor:
    """What the learner makes of observations in unit scale, which it reads as they would have been stored."""
    stored = damaged.view(-1, *subject.spec.shape) / subject.scale.factor + subject.scale.offset
    if subject.spec.dtype == "uint8":
        stored = stored.round().clamp(0, 255).byte()
    return subject.encoder.reconstruct(stored)  # type: ignore[operator]


def _codes(subject: Subject) -> Figure:
    """Two codes as they are; more by their two principal components."""
    part = subject.codes["test"]
    codes, label = part.x[:MOST_POINTS].cpu(), part.label[:MOST_POINTS].cpu().numpy()
    labels, title = ("code 1", "code 2"), f"{subject.name}: codes of {len(codes):,} test examples"
    if subject.width > 2:
        centred = codes - codes.mean(0)
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        codes = centred @ directions[:2].T
        share = values.square() / values.square().sum().clamp(min=1e-30)
        labels = tuple(f"principal component {n + 1} ({100 * share[n]:.0f} % of the variance)" for n in range(2))  # type: ignore[assignment]
        title += f", {subject.width:,} numbers each, by PCA"
    return scatter_figure(codes.numpy(), label, subject.dataset.classes, title, labels)


def _embedding(subject: Subject, kind: str, count: int) -> Figure | None:
    part = subject.codes["test"]
    generator = torch.Generator().manual_seed(subject.seed)
    rows = torch.randperm(len(part.x), generator=generator)[:count].sort().values
    codes, label = part.x.cpu()[rows], part.label.cpu()[rows].numpy()
    if len(codes) < 10 or float(codes.std(0).max()) == 0:
        return None
    if codes.shape[1] > WIDE:
        codes = codes - codes.mean(0)
        codes = codes @ torch.linalg.svd(codes, full_matrices=False).Vh[:WIDE].T
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries to their own users; nothing here can be done about them
        if kind == "tsne":
            near = min(30.0, (len(codes) - 1) / 3)
            points = TSNE(2, perplexity=near, init="pca", random_state=subject.seed).fit_transform(codes.numpy())
        else:
            import umap

            points = umap.UMAP(random_state=subject.seed, n_jobs=1).fit_transform(codes.numpy())
    title = f"{subject.name}: {'t-SNE' if kind == 'tsne' else 'UMAP'} of {len(codes):,} test codes"
    return scatter_figure(np.asarray(points, np.float32), label, subject.dataset.classes, title)


def _manifold(subject: Subject) -> Figure:
    """What a square grid of codes decodes to: at equal steps of probability where the learner samples and its codes are
    spread like a standard normal prior, else over the middle 95 % of the test codes."""
    found = subject.codes["test"].x.cpu()
    deviation, mean = torch.std_mean(found, 0)
    if subject.has("sample") and bool(((deviation - 1).abs() < 0.5).all() and (mean.abs() < 0.5).all()):
        steps = torch.from_numpy(stats.norm.ppf((np.arange(MANIFOLD) + 0.5) / MANIFOLD)).float()
        sides, how = [steps, steps], "quantiles of the normal prior"
    else:
        low, high = found.quantile(torch.tensor([0.025, 0.975]), dim=0)
        sides = [torch.linspace(float(a), float(b), MANIFOLD) for a, b in zip(low, high, strict=True)]
        how = "the middle 95 % of the test codes"
    codes = torch.stack([*torch.meshgrid(sides[0], sides[1].flip(0), indexing="xy")], 2).view(-1, 2)
    decoded = _pictures(subject, subject.decode(codes.to(subject.device)))
    return grid_figure(
        in_rows(decoded, MANIFOLD),
        f"{subject.name}: decoded from {MANIFOLD} × {MANIFOLD} codes, {how}",
        rows=_numbers(sides[1].flip(0)),
        columns=_numbers(sides[0]),
        labels=("code 1", "code 2"),
    )


def _numbers(values: Tensor) -> list[str]:
    """As many decimals as tell neighbours apart."""
    step = float(values.diff().abs().min().clamp(min=1e-6))
    return [f"{value:.{max(0, math.ceil(-math.log10(step)))}f}" for value in values.tolist()]


def _interpolation(subject: Subject) -> Figure:
    """From one example's code to another's in equal steps; the originals stand at both ends."""
    positions = _examples(subject, 2 * PAIRS + 1)
    pairs = len(positions) // 2
    further = pairs + (subject.classes >= 2 and pairs % subject.classes == 0)  # of another class
    first, last = positions[:pairs], positions.roll(-further)[:pairs]
    codes = subject.codes["test"].x
    ways = torch.linspace(0, 1, 9, device=codes.device).view(1, -1, 1)
    between = torch.lerp(codes[first].unsqueeze(1), codes[last].unsqueeze(1), ways)
    decoded = _pictures(subject, subject.decode(between.flatten(0, 1)))
    ends = [_pictures(subject, subject.unit(_observed(subject, some)))[:, None] for some in (first, last)]
    rows = np.concatenate([ends[0], decoded.reshape(pairs, 9, *decoded.shape[1:]), ends[1]], 1)
    columns = ["original", *(f"{way:.3g}" for way in ways.flatten().tolist()), "original"]
    return grid_figure(rows, f"{subject.name}: decoded on the way between two codes", columns=columns)


def _arithmetic(subject: Subject) -> Figure | None:
    """An example's code, less the mean code of its class, plus that of another class."""
    part = subject.codes["train"]
    names = subject.dataset.classes[:SHOWN]
    if any(not bool((part.label == number).any()) for number in range(len(names))):
        return None
    means = torch.stack([part.x[part.label == number].mean(0) for number in range(len(names))])
    positions = _examples(subject, SHOWN)
    test = subject.codes["test"]
    positions = positions[(test.label[positions] >= 0).cpu() & (test.label[positions] < len(names)).cpu()]
    if not len(positions):
        return None
    codes, label = test.x[positions], test.label[positions]
    moved = codes.unsqueeze(1) - means[label].unsqueeze(1) + means  # [rows, classes, D]
    decoded = _pictures(subject, subject.decode(moved.flatten(0, 1)))
    originals = _pictures(subject, subject.unit(_observed(subject, positions)))[:, None]
    rows = np.concatenate([originals, decoded.reshape(len(codes), len(names), *decoded.shape[1:])], 1)
    title = f"{subject.name}: decoded from code - mean code of its class + mean code of another class"
    return grid_figure(rows, title, columns=["original", *(f"to {name}" for name in names)])


@torch.no_grad()
def _samples(subject: Subject) -> Figure:
    generator = torch.Generator(subject.device).manual_seed(subject.seed)
    rows, columns = SAMPLES
    drawn: Tensor = subject.encoder.sample(rows * columns, generator)  # type: ignore[operator]
    return grid_figure(in_rows(_pictures(subject, drawn), columns), f"{subject.name}: samples drawn from its prior")


def _filters(subject: Subject) -> Figure | None:
    found = filters.first_layer(subject.encoder, subject.spec)
    return found and filters.figure(found, subject.spec, f"{subject.name}: first-layer filters")


def _decoder_filters(subject: Subject) -> Figure | None:
    found = filters.last_layer(subject.encoder, subject.spec)
    return found and filters.figure(found, subject.spec, f"{subject.name}: decoder filters")


_DRAWERS: dict[str, Callable[[Subject], Figure | None]] = {
    "reconstructions": _reconstructions,
    "filters": _filters,
    "decoder_filters": _decoder_filters,
    "codes": _codes,
    "manifold": _manifold,
    "interpolation": _interpolation,
    "arithmetic": _arithmetic,
    "samples": _samples,
    "clamped": chain_figures.clamped,
    "chains": chain_figures.chains,
    "histograms": chain_figures.histograms,
    "map": classical_figures.som_map,
    "retrieval": classical_figures.retrieval,
    "memory": classical_figures.memory,
}
