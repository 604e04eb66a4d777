"""MNIST with labels: logistic regression, an MLP, the plain conv net, and a quick one at two time budgets."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.mnist, or saccade bench mnist")

from collections.abc import Sequence

from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report
from .parts.supervised import FitGroup, accuracy_table, error_figure, fit_runs

kind = "MNIST with labels: logistic regression, MLP, conv nets; test accuracy and seconds"

SEEDS = 1
GROUPS = {
    "logistic": FitGroup("logistic regression", ("mnist", "--encoder", "flat"), "92.5", most_threads=1),
    "mlp": FitGroup("MLP 784-256-256-10", ("mnist", "--encoder", "mlp"), "98.4", most_threads=1),
    "convnet": FitGroup("conv 32, conv 64, dense 1024, dropout", ("mnist", "--encoder", "convnet"), "99.4"),
    "fast": FitGroup("quick net", ("mnist", "--encoder", "fastconv"), "99.4 in 180 s on two cores"),
    "longer": FitGroup(
        "quick net, longer", ("mnist", "--encoder", "fastconv", "--epochs", "24"), "99.6 in 900 s on two cores"
    ),
}


def runs(options: BenchOptions) -> list[Run]:
    return fit_runs(GROUPS, options, SEEDS)


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    title = "MNIST, all 10,000 test images, judged once; the last weights, nothing chosen by the test set"
    notes = [
        "Trained on the first 55,000 training images, with the last 5,000 for validation. Seconds are those of "
        "updates, augmentation included; judging and starting are not counted. The interval is Wilson's, over test "
        "images. The time budgets are for two cores: on one thread they are twice as many seconds.",
        "The recipe of logistic regression was chosen by validation error among seven, which differ in rate (0.1, 0.2, "
        "0.5), weight decay, label smoothing, Adam, batch size and schedule. Before that, a run of 40 epochs at 0.5 in "
        "bfloat16 was judged on the test set, too: 92.25 %.",
    ]
    figures = {"mnist": error_figure(GROUPS, outcomes, "MNIST, validation error while training")}
    return Report([accuracy_table(title, GROUPS, outcomes)], notes, {}, figures)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("mnist")
