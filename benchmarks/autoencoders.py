"""Deep and denoising autoencoders on MNIST, and their reconstructions side by side."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.autoencoders, or saccade bench autoencoders")

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data import Dataset
from ..encoders.autoencoder import Autoencoder
from .parts.learners import (
    CHUNK,
    Setting,
    by_setting,
    code_scatter,
    encoder_of,
    flat,
    mnist,
    norm_error,
    one_of_each,
    pca_error,
    pretraining,
    principal_components,
    reconstruction_figure,
    reconstructions,
    seconds,
    spread,
    squared_error,
    threads_note,
    words,
)
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table

kind = "MNIST: deep autoencoders of 2 and 30 numbers, shallow, convolutional, tied and denoising ones, beside PCA"

SEEDS = 1
BOUND_2, GOAL_2, BOUND_30, GOAL_30 = 4.78, 4.5, 4.0, 3.0
DEEP = {
    "deep-2": Setting(
        "784-1000-500-250-2 and back, mean norm of the error",
        "autoencoder",
        100,
        words(
            "--encoder.code 2 --encoder.loss l2_norm --encoder.activation relu --encoder.batch-norm "
            "--batch-size 250 --learning-rate 2e-3 --schedule cosine --warmup 0.05"
        ),
    ),
    "deep-30": Setting(
        "784-1000-500-250-30 and back, squared error",
        "autoencoder",
        100,
        words(
            "--encoder.code 30 --encoder.activation elu "
            "--batch-size 250 --learning-rate 1e-3 --schedule cosine --warmup 0.05"
        ),
    ),
}
QUICK = ("--schedule", "cosine", "--learning-rate", "2e-3")


def _shallow(label: str, options: str) -> Setting:
    return Setting(label, "autoencoder", 5, words(f"{options} --schedule cosine --learning-rate 2e-3"))


def _denoising(label: str, corruption: str, strength: float) -> Setting:
    noise = f"--encoder.corruption {corruption} --encoder.strength {strength}"
    return _shallow(f"denoising: {label}", f"--encoder.hidden 500 --encoder.code 128 {noise}")


SHALLOW = {
    "shallow-32": _shallow("784-32-784", "--encoder.hidden --encoder.code 32"),
    "deep-32": _shallow("784-128-64-32 and back", "--encoder.hidden 128 64 --encoder.code 32"),
    "conv-8x4x4": _shallow(
        "convolutions 16, 8, 8 of stride 2, code 8x4x4",
        # squared error can leave a sigmoid black for good: most pixels are
        "--encoder.architecture conv --encoder.channels 16 8 8 --encoder.code 0 --encoder.loss bernoulli",
    ),
    "tied-300-150": Setting(
        "784-300-150 and back, tied, level by level",
        "autoencoder",
        15,  # five for each level and for the whole
        words(
            "--encoder.hidden 300 --encoder.code 150 --encoder.activation elu --encoder.code-activation elu "
            "--encoder.tied --encoder.greedy --encoder.weight-decay 1e-4 --encoder.output linear "
            "--batch-size 150 --learning-rate 2e-3 --schedule cosine"
        ),
    ),
    "masking": _denoising("half of the pixels zeroed", "masking", 0.5),
    "gaussian": _denoising("Gaussian noise of deviation 1", "gaussian", 1.0),
    "dropout": _denoising("dropout of 0.3", "dropout", 0.3),
    "salt": _denoising("30 % salt and pepper", "salt_and_pepper", 0.3),
}
SETTINGS = DEEP | SHALLOW


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each."""
    return pretraining(SETTINGS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Errors of clean and of damaged images beside PCA of equal width, and a page of reconstructions."""
    dataset, done = mnist(), by_setting(outcomes)
    digits = one_of_each(dataset)
    measured: dict[str, dict[str, Any]] = {}
    rows: list[tuple[str, ...]] = []
    pictures = {"original": flat(digits)}
    figures: dict[str, Figure] = {}
    for name, finished in done.items():
        encoders = [encoder_of(outcome) for outcome in finished]
        assert all(isinstance(encoder, Autoencoder) for encoder in encoders)
        found = measure_one([e for e in encoders if isinstance(e, Autoencoder)], dataset)
        measured[name] = found
        rows.append(
            (
                SETTINGS[name].label,
                str(found["width"]),
                spread(found["test_squared_error"]),
                f"{found['pca_squared_error']:.2f}",
                spread(found["validation_norm"]),
                spread(found["test_squared_error_damaged"]) if "test_squared_error_damaged" in found else "–",
                seconds(finished),
            )
        )
        first = encoders[0]
        assert isinstance(first, Autoencoder)
        pictures |= _pictures(name, first, digits)
        if found["width"] == 2:
            title = f"codes of the test images, {SETTINGS[name].label}"
            figures["autoencoders-codes"] = code_scatter(first, dataset, title)
    figures["autoencoders"] = reconstruction_figure(pictures, "test images, and what the learners make of them")
    verdicts = _verdicts(measured)
    columns = ("", "code", "squared error", "PCA's", "validation norm", "squared error, damaged input", "seconds")
    table = Table("MNIST, sums over 784 pixels in 0..1, means over the images", columns, rows)
    notes = [
        "Squared error: of the 10,000 test images. Norm: the mean Euclidean norm of the error over the 5,000 "
        "validation images, which the first learner minimises. PCA: same width, same 55,000 training images.",
        "Damaged input: the learner sees what its corruption leaves of a test image and is judged by the clean one.",
        *verdicts,
        threads_note(outcomes),
    ]
    return Report([table], notes, {"measured": measured}, figures)


@torch.no_grad()
def measure_one(encoders: Sequence[Autoencoder], dataset: Dataset) -> dict[str, Any]:
    """The errors of equal learners with different seeds, and PCA's at their width."""
    width = int(torch.tensor(encoders[0].feature_shape).prod())
    found: dict[str, Any] = {
        "width": width,
        "test_squared_error": [squared_error(encoder, dataset.test.x) for encoder in encoders],
        "validation_norm": [norm_error(encoder, dataset.validation.x) for encoder in encoders],
        "pca_squared_error": pca_error(principal_components(dataset.train.x, width), dataset.test.x),
    }
    if encoders[0].config.corruption != "none":
        found["test_squared_error_damaged"] = [_damaged_error(encoder, dataset.test.x) for encoder in encoders]
    return found


def _damaged_error(encoder: Autoencoder, x: Tensor) -> float:
    torch.manual_seed(0)
    restored = torch.cat([encoder.restore(encoder.corrupted(part)).flatten(1) for part in x.split(CHUNK)])
    return float((restored - flat(x)).square().sum(1).mean())


@torch.no_grad()
def _pictures(name: str, encoder: Autoencoder, digits: Tensor) -> dict[str, Tensor]:
    if encoder.config.corruption == "none":
        return {name: reconstructions(encoder, digits)}
    torch.manual_seed(0)
    damaged = encoder.corrupted(digits)
    return {f"{name}, damaged": damaged.flatten(1), f"{name}, restored": encoder.restore(damaged).flatten(1)}


def _verdicts(measured: dict[str, dict[str, Any]]) -> list[str]:
    sentences = []
    for name, what, bound, goal in (
        ("deep-2", "validation_norm", BOUND_2, GOAL_2),
        ("deep-30", "test_squared_error", BOUND_30, GOAL_30),
    ):
        if name in measured:
            value = max(measured[name][what])
            state = "meets the goal" if value <= goal else "meets the bound" if value <= bound else "misses the bound"
            sentences.append(f"{name}: {value:.2f} {state} (bound {bound}, goal {goal}).")
    return sentences


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("autoencoders")
