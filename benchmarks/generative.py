"""Learners that generate, on MNIST: likelihood of a VAE, Parzen windows and FID of all, and their samples."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.generative, or saccade bench generative")

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import norm
from torch import Tensor

from ..data import Dataset
from ..encoders.base import Encoder
from ..encoders.parts.matched import Matched
from ..encoders.vae import Vae
from ..training import device
from .parts.generation import SAMPLES, Judge, Quality, judge_samples, make_judge, unit
from .parts.learners import (
    Setting,
    by_setting,
    code_scatter,
    encoder_of,
    mnist,
    pretraining,
    seconds,
    spread,
    squared_error,
    threads_note,
    words,
)
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table

kind = "MNIST: VAE, adversarial and Wasserstein autoencoders; IWAE-5000 likelihood, Parzen windows, FID, samples"

SEEDS = 1
BOUND, GOAL = 88.0, 86.8  # nats
IMPORTANCE_SAMPLES, PART, CHECKED = 5000, 250, 200  # draws per image; images at once; images computed in float32 too
FALLING = "--schedule linear --warmup 0.02 --picture-interval 0"
SETTINGS = {
    "vae-50": Setting(
        "VAE, 50 latents, bits drawn anew",
        "vae",
        120,
        words(f"--encoder.latents 50 --encoder.binarise dynamic --batch-size 500 --learning-rate 4e-3 {FALLING}"),
    ),
    "vae-8": Setting(
        "VAE, 8 latents, grey values as probabilities",
        "vae",
        30,
        words(f"--encoder.latents 8 --batch-size 250 --learning-rate 2e-3 {FALLING}"),
    ),
    "aae": Setting(
        "adversarial autoencoder, 8 latents",
        "adversarial",
        30,
        words(f"--batch-size 250 --learning-rate 1e-3 {FALLING}"),
    ),
    "wae": Setting(
        "Wasserstein autoencoder (MMD), 8 latents",
        "wasserstein",
        30,
        words(f"--batch-size 250 --learning-rate 2e-3 {FALLING}"),
    ),
    "vae-2": Setting(
        "VAE, 2 latents, grey values as probabilities",
        "vae",
        20,
        words(f"--encoder.latents 2 --batch-size 250 --learning-rate 2e-3 {FALLING}"),
    ),
    "aae-labels": Setting(
        "adversarial autoencoder, mixture of ten, labels",
        "adversarial",
        20,
        words(
            "--encoder.prior mixture --encoder.latents 2 --encoder.labels 10 --batch-size 250 --learning-rate 1e-3 "
            f"{FALLING}"
        ),
    ),
}


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each."""
    return pretraining(SETTINGS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """The tables, pages of samples, the manifold of two latents, and codes under a mixture prior."""
    dataset, done = mnist(), by_setting(outcomes)
    judge = make_judge(dataset, outcomes[0].folder.parent)
    reference = judge_samples(unit(dataset.train.x[:SAMPLES]), dataset, judge)
    rows = [("training images", *_cells([reference]), "–", "–")]
    data: dict[str, Any] = {"training_images": reference._asdict(), "feature_net_accuracy": judge.accuracy}
    pages: dict[str, Tensor] = {"test images": unit(dataset.test.x[:80])}
    figures: dict[str, Figure] = {}
    for name, finished in done.items():
        encoders = [encoder_of(outcome) for outcome in finished]
        found = [_judged(encoder, dataset, judge) for encoder in encoders]
        errors = [squared_error(encoder, dataset.test.x) for encoder in encoders]
        rows.append((SETTINGS[name].label, *_cells(found), spread(errors), seconds(finished)))
        data[name] = {"quality": [quality._asdict() for quality in found], "test_squared_error": errors}
        pages[SETTINGS[name].label] = _samples(encoders[0], 80)
        if name == "vae-2":
            figures["generative-manifold"] = manifold_figure(encoders[0])
        if name == "aae-labels":
            figures["generative-codes"] = code_scatter(encoders[0], dataset, "codes of test images, mixture prior")
    columns = ("", "Parzen, nats", "FID, own net", "deviation", "squared error", "seconds")
    tables = [Table(f"MNIST, {SAMPLES:,} samples against the 10,000 test images", columns, rows)]
    if "vae-50" in done:
        likelihoods = [_likelihood(outcome, dataset) for outcome in done["vae-50"]]
        data["likelihood"] = likelihoods
        tables.insert(0, _likelihood_table(likelihoods))
    figures["generative"] = samples_figure(pages)
    return Report(tables, [*_notes(judge), threads_note(outcomes)], data, figures)


def _samples(encoder: Encoder, count: int) -> Tensor:
    assert isinstance(encoder, Vae | Matched)
    with torch.no_grad():
        parts = [encoder.sample(min(count, 1000), torch.Generator().manual_seed(n)) for n in range(-(-count // 1000))]
    return torch.cat(parts)[:count]


def _judged(encoder: Encoder, dataset: Dataset, judge: Judge) -> Quality:
    return judge_samples(_samples(encoder, SAMPLES), dataset, judge)


def _cells(found: Sequence[Quality]) -> tuple[str, str, str]:
    error = f" ± {found[0].parzen_error:.1f}" if len(found) == 1 else ""
    return (
        spread([quality.parzen for quality in found], 0) + error,
        spread([quality.frechet for quality in found], 1),
        spread([quality.deviation for quality in found]),
    )


def _likelihood(outcome: Outcome, dataset: Dataset) -> dict[str, Any]:
    """Of one draw of bits for each test image; parts that are done are kept beside the run."""
    encoder, folder = encoder_of(outcome), outcome.folder / "likelihood"
    assert isinstance(encoder, Vae)
    compute = device.choose(dataset.spec)
    folder.mkdir(exist_ok=True)
    begin, values = time.perf_counter(), []
    for number, part in enumerate(track(dataset.test.x.split(PART), "likelihood", transient=True)):
        file = folder / f"{number}.npy"
        if not file.is_file():
            with compute.autocast():
                found = encoder.log_likelihood(part, IMPORTANCE_SAMPLES, torch.Generator().manual_seed(number))
            np.save(file, found.numpy())
        values.append(np.load(file))
    elapsed = time.perf_counter() - begin
    few = dataset.test.x[:PART]
    exact = encoder.log_likelihood(few[:CHECKED], 500, torch.Generator().manual_seed(0))
    with compute.autocast():
        quick = encoder.log_likelihood(few[:CHECKED], 500, torch.Generator().manual_seed(0))
    every = np.concatenate(values)
    return {
        "nats": float(-every.mean()),
        "standard_error": float(every.std() / len(every) ** 0.5),
        "seconds": elapsed,
        "bfloat16_minus_float32": float((quick - exact).mean()),
    }


def _likelihood_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        ("-log p, nats", spread([one["nats"] for one in found]), f"<= {BOUND:g}", f"{GOAL:g}"),
        ("its standard error over the images", spread([one["standard_error"] for one in found]), "", ""),
        (
            "bfloat16's difference, same draws",
            spread([-one["bfloat16_minus_float32"] for one in found], 4),
            "",
            "",
        ),
    ]
    title = f"{SETTINGS['vae-50'].label}: all 10,000 test images, {IMPORTANCE_SAMPLES:,} importance samples each"
    return Table(title, ("", "measured", "must", "goal"), rows)


def manifold_figure(encoder: Encoder, side: int = 15) -> Figure:
    """What codes at equal steps of the prior's distribution function decode to."""
    assert isinstance(encoder, Vae)
    steps = torch.tensor(norm.ppf(np.linspace(0.02, 0.98, side)), dtype=torch.float32)
    codes = torch.cartesian_prod(-steps, steps).flip(1)
    with torch.no_grad():
        images = encoder.decode(codes).view(side, side, 28, 28)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(images.permute(0, 2, 1, 3).reshape(side * 28, side * 28).numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title("two latents: what every place of the code means", fontsize=9)
    return figure


def samples_figure(pages: dict[str, Tensor]) -> Figure:
    """Eight by ten samples of each, with a title."""
    columns = 3
    rows = -(-len(pages) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, (title, images) in zip(figure.axes, pages.items(), strict=False):
        grid = images.view(8, 10, 28, 28).permute(0, 2, 1, 3).reshape(8 * 28, 10 * 28).numpy()
        axes.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(title, fontsize=7)
    return figure


def _notes(judge: Judge) -> list[str]:
    return [
        "Likelihood: bits are drawn from the grey values anew each time an image is seen, in training, and once for "
        "each test image; trained on 55,000 images by the plain bound. The estimate is a bound: the truth is no worse.",
        f"Parzen: Gaussian windows around {SAMPLES:,} samples (the means of the pixels), grey values in 0..1, their "
        "deviation chosen out of ten on 1,000 validation images (Goodfellow et al. 2014). A number to compare with "
        "what is published, not to judge by: the training images themselves do not always win.",
        "FID: not the usual Inception features, but the 64 numbers before the classes of a small conv net trained on "
        f"MNIST from a fixed seed (test accuracy {judge.accuracy:.2%}): comparable within this table only.",
        "The weight of the adversarial autoencoder's adversary was chosen in trials that this FID judged on the "
        "test images: its rows flatter it by what that choice was worth.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("generative")
