"""Deep belief nets and their kin on MNIST: test errors, reconstructions, the deep machine's bound, and pictures."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.deep_belief, or saccade bench deep_belief")

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure

from ..data import Dataset
from ..encoders.base import Encoder
from ..encoders.convrbm import ConvRbm
from ..encoders.deep_boltzmann import Dbm
from ..encoders.drbm import Drbm
from ..training.classifier import interval
from ..training.probing.likelihood import CHAINS, STEPS, deep_bound
from .boltzmann import bits
from .features import logistic_error
from .parts.learners import (
    CHUNK,
    Setting,
    by_setting,
    encoder_of,
    flat,
    mnist,
    one_of_each,
    pretraining,
    reconstruction_figure,
    seconds,
    spread,
    squared_error,
    threads_note,
    words,
)
from .parts.machine_figures import filters_figure, kernels_figure, samples_figure
from .parts.plan import BenchOptions, Outcome, Run
from .parts.processes import read_result
from .parts.report import Report, Table
from .parts.runner import places

kind = "MNIST: errors of deep belief nets, deep, discriminative and convolutional Boltzmann machines; pictures of them"

SEEDS = 1
PLAIN = "--batch-size 100 --picture-interval 0"
GREEDY = f"--encoder.gain 100 --encoder.momentum 0.5 --encoder.l2 2e-4 {PLAIN}"  # a rate of 0.1
TUNING = "--encoder-mode finetune --encoder.rule trainer --schedule cosine --label-smoothing 0.1 --epochs 20"
Judge = Literal["fit", "classify", "logistic", "squared"]


class Row(NamedTuple):
    """One learner: how it is trained, how it is judged, what is wanted and what others found."""

    setting: Setting
    judge: Judge  # by `saccade fit`, its own classes, regression on its codes, or its reconstructions alone
    wanted: float | None  # per cent of test errors, or squared error per image
    published: str
    tuning: tuple[str, ...] = ()  # of `saccade fit`


ROWS = {
    "dbn-2000": Row(
        Setting(
            "DBN 500-500-2000, fine-tuned",
            "dbn",
            150,
            words(f"--encoder.hidden 500 500 2000 {GREEDY} --schedule linear"),
        ),
        "fit",
        1.35,
        "1.25; 1.2",
        words(f"{TUNING} --learning-rate 3e-4"),
    ),
    "dbn-labels": Row(
        Setting(
            "DBN 500-500-2000 whose top sees labels, greedy alone",
            "dbn",
            60,
            words(f"--encoder.hidden 500 500 2000 --encoder.labels 10 --encoder.gain 100 {PLAIN} --schedule linear"),
        ),
        "classify",
        None,
        "2.49; 1.25 after up-down",
    ),
    "dbn-30": Row(
        Setting(
            "DBN 1000-500-250-30, unrolled",
            "dbn",
            260,
            words(
                "--encoder.hidden 1000 500 250 30 --encoder.code gaussian --encoder.unroll 9 --encoder.linear-gain 1 "
                f"{GREEDY} --schedule cosine"
            ),
        ),
        "squared",
        3.8,
        "3.0",
    ),
    "drbm": Row(
        Setting(
            "discriminative RBM 500",
            "drbm",
            40,
            words(
                "--encoder.hidden 500 --encoder.generative 0 --encoder.unlabelled 0 --learning-rate 1e-3 "
                f"--schedule linear --patience 10 {PLAIN}"
            ),
        ),
        "classify",
        2.0,
        "1.81",
    ),
    "drbm-hybrid": Row(
        Setting(
            "hybrid RBM 1500",
            "drbm",
            60,
            words(f"--encoder.hidden 1500 --encoder.generative 0.01 --learning-rate 1e-3 --schedule linear {PLAIN}"),
        ),
        "classify",
        1.6,
        "1.28",
    ),
    "dbm": Row(
        Setting(
            "DBM 500-1000, fine-tuned",
            "deep_boltzmann",
            150,
            words(
                "--encoder.hidden 500 1000 --encoder.joint 3 --encoder.binarise dynamic --encoder.gain 50 "
                f"--schedule linear {PLAIN}"
            ),
        ),
        "fit",
        1.3,
        "0.95",
        words(f"{TUNING} --learning-rate 1e-3 --encoder.iterations 1"),
    ),
    "convrbm": Row(
        Setting(
            "convolutional RBM, two layers, logistic regression",
            "convrbm",
            20,
            words(f"--encoder.maps 40 40 --encoder.kernels 11 5 --encoder.features all {PLAIN}"),
        ),
        "logistic",
        1.5,
        "0.82",
    ),
}


def preparations(options: BenchOptions) -> list[Run]:
    """What `saccade fit` begins with."""
    return pretraining({f"pretrain-{n}": row.setting for n, row in ROWS.items() if row.tuning}, options, SEEDS)


def runs(options: BenchOptions) -> list[Run]:
    """One seed of each: the learner itself, or what is made of it with labels."""
    folder = os.path.relpath(places("deep_belief", options.out).runs)
    alone = pretraining({name: row.setting for name, row in ROWS.items() if not row.tuning}, options, SEEDS)
    tuned = [
        Run(name, seed, ("saccade", "fit", "mnist", "--encoder", f"{folder}/pretrain-{name}-seed{seed}", *row.tuning))
        for seed in range(options.seeds or SEEDS)
        for name, row in ROWS.items()
        if row.tuning
    ]
    return [*alone, *tuned]


def learned(outcome: Outcome) -> Outcome:
    """The run that learned without labels: this one, or the one it began with."""
    if not ROWS[outcome.run.group].tuning:
        return outcome
    folder = outcome.folder.with_name(f"pretrain-{outcome.folder.name}")
    return outcome._replace(folder=folder, result=read_result(folder))


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Errors beside what is wanted and what was published, reconstructions, a bound, and pages of pictures."""
    dataset, done = mnist(), by_setting(outcomes)
    rows, data = [], dict[str, Any]()
    for name, row in ROWS.items():
        if name not in done:
            continue
        found = [measured(outcome, row.judge, dataset) for outcome in done[name]]
        data[name] = {"found": found, "wanted": row.wanted, "met": row.wanted is None or max(found) <= row.wanted}
        alone = [learned(outcome) for outcome in done[name]]
        encoders = [encoder_of(outcome) for outcome in alone]
        restored = [squared_error(encoder, dataset.test.x) for encoder in encoders if reconstructs(encoder)]
        data[name]["squared_error"] = restored
        rows.append(
            (
                row.setting.label,
                "–" if row.judge == "squared" else with_interval(found, len(dataset.test)),
                spread(restored) if restored else "–",
                "–" if row.wanted is None else f"<= {row.wanted:g}" + (" squared" if row.judge == "squared" else " %"),
                row.published,
                seconds(alone),
                seconds(done[name]) if row.tuning else "–",
            )
        )
    columns = ("", "test error, %", "squared error", "wanted", "published", "seconds alone", "seconds with labels")
    tables = [Table("MNIST, 10,000 test images", columns, rows)]
    if "dbm" in done:
        table, data["dbm"]["bound"] = _bound_table(learned(done["dbm"][0]), dataset)
        tables.append(table)
    firsts = {name: encoder_of(learned(found[0])) for name, found in done.items()}
    return Report(tables, [*_notes(), threads_note(outcomes)], data, pictures(firsts, dataset))


def measured(outcome: Outcome, judge: Judge, dataset: Dataset) -> float:
    """Test errors in per cent, or the squared error per test image."""
    if judge == "fit":
        assert outcome.result is not None
        return 100 - float(outcome.result["score"]["mean"])
    if judge == "logistic":
        return logistic_error(outcome, dataset)
    encoder = encoder_of(outcome)
    return squared_error(encoder, dataset.test.x) if judge == "squared" else own_error(encoder, dataset)


@torch.no_grad()
def own_error(encoder: Encoder, dataset: Dataset) -> float:
    """Test errors in per cent of the class that a machine with label units holds most likely."""
    test = dataset.test
    found = torch.cat([encoder.classify(x).argmax(1) for x in test.x.split(CHUNK)])  # type: ignore[operator]
    return 100 * float((found != test.label).double().mean())


def reconstructs(encoder: Encoder) -> bool:
    """p(y | x) alone knows nothing of what x is like."""
    return not isinstance(encoder, Drbm) or encoder.config.generative > 0


def with_interval(errors: Sequence[float], count: int) -> str:
    """Mean over the seeds, per cent, and the 95 % interval of one run over `count` images."""
    bounds = [interval(round(error / 100 * count), count) for error in errors]
    low, high = (100 * sum(bound[side] for bound in bounds) / len(bounds) for side in (0, 1))
    return f"{spread(errors)} [{low:.2f}, {high:.2f}]"


def _bound_table(outcome: Outcome, dataset: Dataset) -> tuple[Table, dict[str, Any]]:
    encoder = encoder_of(outcome).double()
    assert isinstance(encoder, Dbm)
    found = deep_bound(encoder.deep(), bits(dataset.train.x[: len(dataset.test)], 1), bits(dataset.test.x, 0))
    z = found.log_partition
    row = (
        f"{found.bound:.2f} [{found.low:.2f}, {found.high:.2f}]",
        f"{z.value:.2f} [{z.low:.2f}, {z.high:.2f}], worth {z.effective:.0f} chains",
        f"{z.seconds:.0f}",
        "-84.6",
    )
    title = f"DBM 500-1000: bound of log p, one draw of bits of each test image; {CHAINS} chains of {STEPS:,} steps"
    columns = ("test, nats [± 3 σ of log Z]", "log Z", "seconds", "published")
    return Table(title, columns, [row]), found._asdict() | {"log_partition": z._asdict()}


def pictures(encoders: dict[str, Encoder], dataset: Dataset) -> dict[str, Figure]:
    """Filters, reconstructions and samples of those that have such."""
    digits = one_of_each(dataset)
    restored = {"original": flat(digits)}
    with torch.no_grad():
        for name, encoder in encoders.items():
            if reconstructs(encoder):
                restored[name] = encoder.reconstruct(digits).flatten(1).float()  # type: ignore[operator]
    title = "test images, and what the learners restore"
    found = {
        "deep_belief-filters": filters_figure(encoders, dataset, "filters of the lowest units; blue < 0 < red"),
        "deep_belief-samples": samples_figure(encoders, dataset, "drawn; with label units, of the class above"),
        "deep_belief-reconstructions": reconstruction_figure(restored, title) if len(restored) > 1 else None,
    }
    for name, encoder in encoders.items():
        if isinstance(encoder, ConvRbm):
            found[f"deep_belief-{name}"] = kernels_figure(encoder, dataset, "convolutional RBM, lowest layer")
    return {stem: figure for stem, figure in found.items() if figure is not None}


def _notes() -> list[str]:
    return [
        "Epochs of pre-training are shared out among the layers. Fine-tuned: `saccade fit` goes on from all layers, by "
        "Adam, with a new linear layer and smoothed labels; of the deep machine through one round of mean field behind "
        "the pass up. Label units: the class with the largest exact p(y | x), or p(y | means below).",
        "Squared error: of the learner without labels, per image, pixels in 0..1. Errors: mean over the seeds, and the "
        "95 % interval of one run over the images. Published: Hinton, Osindero & Teh 2006 (with the label in the top), "
        "Hinton & Salakhutdinov 2006 (the autoencoder; 1.2 % fine-tuned), Larochelle & Bengio 2008, Salakhutdinov & "
        "Hinton 2009, Lee et al. 2009. They learned from 60,000 images; here it is 55,000, but for the regression.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("deep_belief")
