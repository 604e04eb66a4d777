"""CIFAR-10 with labels: the plain conv nets of the founding material on all test images, and a quick one."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.cifar10, or saccade bench cifar10")

from collections.abc import Sequence

from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report
from .parts.supervised import FitGroup, accuracy_table, error_figure, fit_runs

kind = "CIFAR-10 with labels: the plain conv nets, with and without batch normalisation, and a quick one"

SEEDS = 1
GROUPS = {
    "plain": FitGroup("crop 24, conv 64, conv 64, dense 384, 192", ("cifar10", "--encoder", "convnet"), "measured"),
    "norm": FitGroup(
        "the same with batch normalisation", ("cifar10", "--encoder", "convnet", "--encoder.batch-norm"), "measured"
    ),
    "fast": FitGroup(
        "quick net", ("cifar10", "--encoder", "fastconv", "--held-out", "1000"), "91 in 1,200 s on two cores"
    ),
}


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    title = "CIFAR-10, all 10,000 test images, judged once with dropout and augmentation off"
    notes = [
        "The pixels of the files that were read here were decoded from JPEG (quality 75, colour at half resolution): "
        "these figures compare with other systems on the same files, never with published ones.",
        "The plain nets are trained on the first 45,000 training images, with the last 5,000 for validation, by which "
        "the quick net's settings were chosen, too; the quick net itself is trained on the first 49,000. The founding "
        "material reports 92.3 % and 96.7 % for the first two nets, measured on training batches. Here test images are "
        "cropped in the middle; for the quick net the logits of each image, of copies moved by a pixel, and of the "
        "mirror images of all of them are averaged.",
    ]
    figures = {"cifar10": error_figure(GROUPS, outcomes, "CIFAR-10, validation error while training")}
    return Report([accuracy_table(title, GROUPS, outcomes)], notes, {}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("cifar10")
