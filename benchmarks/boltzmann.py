"""The Boltzmann family on MNIST: test log-likelihoods by annealed importance sampling from both sides, and errors."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.boltzmann, or saccade bench boltzmann")

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data import Dataset
from ..encoders.base import Encoder
from ..encoders.parts.likelihoods import binarise
from ..encoders.rbm import Rbm
from ..training.probing.chain_figures import chains as chains_figure
from ..training.probing.likelihood import CHAINS, REVERSED, STEPS, Likelihood, judge
from ..training.probing.subject import Subject
from .features import logistic_error
from .parts.learners import (
    Setting,
    by_setting,
    encoder_of,
    mnist,
    pretraining,
    seconds,
    squared_error,
    threads_note,
    words,
)
from .parts.machine_figures import filters_figure
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table

kind = "MNIST: test log-likelihood of RBMs (annealing from below, RAISE from above), and errors of their features"

SEEDS = 1
BITS = "--encoder.hidden 500 --encoder.binarise dynamic --encoder.gain 1 --batch-size 100 --picture-interval 0"
SETTINGS = {
    "rbm-cd1": Setting(
        "RBM 500, CD-1", "rbm", 50, words(f"{BITS} --encoder.method cd --learning-rate 0.01 --schedule linear")
    ),
    "rbm-cd25": Setting(
        "RBM 500, CD-25",
        "rbm",
        100,
        words(f"{BITS} --encoder.method cd --encoder.steps 25 --learning-rate 0.05 --schedule linear"),
    ),
    "rbm-pcd": Setting(
        "RBM 500, PCD-1",
        "rbm",
        200,
        words(f"{BITS} --encoder.method pcd --encoder.chains 100 --learning-rate 0.05 --schedule linear"),
    ),
    "rbm-pcd25": Setting(
        "RBM 500, PCD-25",
        "rbm",
        100,
        words(
            f"{BITS} --encoder.method pcd --encoder.steps 25 --encoder.chains 100 --learning-rate 0.05 "
            "--schedule linear"
        ),
    ),
}
PUBLISHED = {"rbm-cd1": "-125.5", "rbm-cd25": "-86.3"}
WANTED = {"rbm-cd1": "-150 to -110", "rbm-pcd": "> -95", "rbm-pcd25": "> -95, better -86.3"}


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each."""
    return pretraining(SETTINGS, options, SEEDS)


def bits(x: Tensor, seed: int) -> Tensor:
    """One draw of bits for each byte, flat, in float64."""
    return binarise(x, torch.Generator().manual_seed(seed)).flatten(1).double()


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """The table of likelihoods, and that of the features."""
    dataset, done = mnist(), by_setting(outcomes)
    rows, features, data = [], [], dict[str, Any]()
    for name, finished in done.items():
        for outcome in finished:
            encoder = encoder_of(outcome)
            assert isinstance(encoder, Rbm)
            found = _likelihood(encoder, dataset)
            error = logistic_error(outcome, dataset)
            squared = squared_error(encoder, dataset.test.x)
            label = SETTINGS[name].label + (f", seed {outcome.run.seed}" if len(finished) > 1 else "")
            rows.append((label, *_cells(found), WANTED.get(name, "–"), PUBLISHED.get(name, "–")))
            features.append((label, f"{error:.2f}", f"{squared:.2f}", seconds([outcome])))
            data[outcome.run.name] = {
                **found._asdict(),
                "log_partition": found.log_partition._asdict(),
                "logistic_error_percent": error,
                "squared_error": squared,
            }
    columns = (
        "",
        "test, nats [± 3 σ of log Z]",
        "training",
        f"{REVERSED} test images: forwards",
        "backwards",
        "log Z",
        "seconds",
        "wanted",
        "published",
    )
    title = f"Test log-likelihood, 10,000 images, one draw of bits each; {CHAINS} chains of {STEPS:,} steps, float64"
    tables = [
        Table(title, columns, rows),
        Table(
            "Hidden probabilities as features",
            ("", "logistic regression, test error, %", "squared error of reconstruction", "seconds of training"),
            features,
        ),
    ]
    firsts = {name: encoder_of(finished[0]) for name, finished in done.items()}
    return Report(tables, [*_notes(), threads_note(outcomes)], data, _pictures(firsts, dataset))


def _pictures(encoders: dict[str, Encoder], dataset: Dataset) -> dict[str, Figure]:
    """Filters, and chains from test images and from noise."""
    found = {f"boltzmann-{name}": chains_figure(Subject(name, one, dataset)) for name, one in encoders.items()}
    rows = filters_figure(encoders, dataset, "filters of RBMs with 500 units; blue < 0 < red")
    return found if rows is None else found | {"boltzmann-filters": rows}


def _likelihood(encoder: Rbm, dataset: Dataset) -> Likelihood:
    train, test = bits(dataset.train.x[: len(dataset.test)], 1), bits(dataset.test.x, 0)
    return judge(encoder.machine().to(torch.float64), train, test)


def _cells(found: Likelihood) -> tuple[str, ...]:
    z = found.log_partition
    return (
        f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]",
        f"{found.train:.2f}",
        f"{found.forward:.2f}",
        f"{found.reverse:.2f}",
        f"{z.value:.2f} [{z.low:.2f}, {z.high:.2f}], worth {z.effective:.0f} chains",
        f"{z.seconds:.0f}",
    )


def _notes() -> list[str]:
    return [
        "Bits are drawn from the grey values anew each time an image is seen, in training, and once for each test "
        "image. Annealed importance sampling estimates Z without bias, so its log is too low and the likelihood too "
        "high on average; RAISE, backwards from the images themselves, is too low on average: the truth lies between, "
        "where both have come close. Annealing begins at independent pixels with the rates of 10,000 training images. "
        "Published: Salakhutdinov & Murray 2008, table 2 (CD-1, CD-25). "
        "CD-1's rate was chosen on validation images among 0.01 (-126.7 nats) and 0.05 with decay (-153.7), after 0.05 "
        "had come to -167.9 on the test images: with one step, larger weights fit worse.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("boltzmann")
