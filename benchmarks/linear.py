"""Linear learners against principal components on MNIST."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.linear, or saccade bench linear")

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..encoders.base import Encoder
from ..encoders.hebbian import Hebbian
from ..encoders.linear import Linear
from .parts.learners import (
    Setting,
    by_setting,
    encoder_of,
    mnist,
    pca_error,
    pretraining,
    principal_components,
    seconds,
    spread,
    squared_error,
    threads_note,
)
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table

kind = "MNIST: linear autoencoder, Oja's and Sanger's rules within 1 % of PCA, their subspace within 1 degree"

SEEDS = 3
MOST_EXCESS, LARGEST_ANGLE = 1.01, 1.0
GRADIENT = ("--schedule", "cosine", "--learning-rate", "3e-3", "--picture-interval", "0")
RULE = ("--schedule", "cosine", "--learning-rate", "5e-3", "--picture-interval", "0")  # 1 in units of the variance


def _settings(width: int) -> dict[str, Setting]:
    code = ("--encoder.code", str(width))
    return {
        f"gradient-{width}": Setting("linear autoencoder, Adam", "linear", 10, (*code, *GRADIENT)),
        f"pca-{width}": Setting("closed form", "linear", 1, (*code, "--encoder.solver", "pca")),
        f"oja-{width}": Setting("Oja's subspace rule", "hebbian", 20, (*code, "--encoder.rule", "oja", *RULE)),
        f"sanger-{width}": Setting("Sanger's rule", "hebbian", 20, (*code, "--encoder.rule", "sanger", *RULE)),
    }


SETTINGS = {10: _settings(10), 30: _settings(30)}  # by width of the code


def runs(options: BenchOptions) -> list[Run]:
    """Three seeds of each learner at 10 and at 30 components."""
    return pretraining(SETTINGS[10] | SETTINGS[30], options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Errors on the test images beside those of PCA of the same width and training images, and angles."""
    dataset, done = mnist(), by_setting(outcomes)
    asked = {outcome.run.group for outcome in outcomes}
    tables, problems = [], list[str]()
    measured: dict[str, dict[str, Any]] = {}
    for width, settings in SETTINGS.items():
        pca = principal_components(dataset.train.x, width)
        best = pca_error(pca, dataset.test.x)
        rows: list[tuple[str, ...]] = [("PCA", f"{best:.2f}", "1", "0", "–")]
        for name, setting in settings.items():
            if name not in asked:
                continue
            if name not in done:
                rows.append((setting.label, "all runs failed", *["–"] * 3))
                continue
            encoders = [encoder_of(outcome) for outcome in done[name]]
            ratios = [squared_error(encoder, dataset.test.x) / best for encoder in encoders]
            angles = [largest_angle(basis(encoder), pca.components) for encoder in encoders]
            measured[name] = {"ratio_to_pca": ratios, "largest_angle_degrees": angles}
            if max(ratios) > MOST_EXCESS or (width == 10 and max(angles) > LARGEST_ANGLE):
                problems.append(f"{name} misses its bound")
            error = f"{best * sum(ratios) / len(ratios):.2f}"
            rows.append((setting.label, error, spread(ratios, 4), spread(angles), seconds(done[name])))
        columns = ("", "squared error per test image", "times PCA's", "largest angle, degrees", "seconds")
        tables.append(Table(f"{width} components", columns, rows))
        measured[f"pca-error-{width}"] = {"squared_error": best}
    notes = [
        "Pixels in 0..1, squared error summed over 784 pixels, mean over the 10,000 test images; PCA of the same "
        "55,000 training images. Mean of the seeds, and their extremes.",
        "Angle: the largest principal angle between the space that the decoder's weights span and that of the leading "
        "components. At 30 components the last variances nearly tie (.365, .347, .341), so there it says little.",
        *problems,
        threads_note(outcomes),
    ]
    return Report(tables, notes, {"measured": measured, "met": not problems})


def basis(encoder: Encoder) -> Tensor:
    """The rows that span what `encoder` can restore, `[K, D]`."""
    if isinstance(encoder, Linear):
        return encoder.down.weight.detach().T
    assert isinstance(encoder, Hebbian)
    return encoder.weight.detach()


def largest_angle(rows: Tensor, others: Tensor) -> float:
    """The largest principal angle in degrees between the spans of `rows` and `others`, both `[K, D]`."""
    first, second = (torch.linalg.qr(matrix.T.double())[0] for matrix in (rows, others))
    return math.degrees(math.acos(min(1.0, float(torch.linalg.svdvals(first.T @ second).min()))))


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("linear")
