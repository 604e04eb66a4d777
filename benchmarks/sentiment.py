"""Film reviews, liked or not: memories, convolutions, bags of words and of pairs, and a pre-trained autoencoder."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.sentiment, or saccade bench sentiment")

import dataclasses
import os
import statistics
from collections.abc import Sequence

from ..training.bundle import FOLDER
from .parts.learners import words
from .parts.plan import BenchOptions, Outcome, Run
from .parts.report import Report, Table, by_group, number
from .parts.runner import places
from .parts.supervised import FitGroup, error_figure, fit_runs

kind = "IMDB, all 25,000 test reviews: LSTM, BiLSTM, 1-D convolutions, bags of words, an autoencoder of them"

SEEDS = 1
MUST, GOAL = {"lstm": 87.0, "best": 90.0}, 92.0
PAIRS = ("--encoder.pairs", "500000", "--encoder.embedding", "50")
GROUPS = {
    "lstm": FitGroup("LSTM 128, mean of all steps", ("imdb", "--encoder", "lstm"), "87", most_threads=1),
    "bilstm": FitGroup(
        "BiLSTM 2 x 64, largest of all steps",
        ("imdb", "--encoder", "lstm", "--encoder.bidirectional", "--encoder.hidden", "64", "--task.pool", "max"),
        "87",
        most_threads=1,
    ),
    "textconv": FitGroup("convolutions over 2, 3 and 4 words", ("imdb", "--encoder", "textconv"), most_threads=1),
    "bag": FitGroup("bag of words", ("imdb", "--encoder", "bag"), most_threads=1),
    "pairs": FitGroup("bag of words and of their pairs", ("imdb", "--encoder", "bag", *PAIRS), most_threads=1),
}

PRETRAINED = "pretrain-autoencoder"
CODER = words(
    "autoencoder --encoder.hidden 512 --encoder.code 128 --encoder.code-activation relu --encoder.loss bernoulli "
    "--encoder.corruption masking --encoder.strength 0.5"
)
PRETRAINING = words("--data imdb-bags-all --epochs 8 --batch-size 100 --schedule linear --picture-interval 0")
TUNING = words("--epochs 4 --batch-size 100 --learning-rate 3e-4 --schedule linear --average 0.98")
GROUPS["random"] = FitGroup(
    "dense 512-128 on bags of words", ("imdb-bags", "--encoder", *CODER, *TUNING), most_threads=1
)
GROUPS["autoencoder"] = FitGroup(
    "the same, pre-trained as a denoising autoencoder", ("imdb-bags", "--encoder", PRETRAINED, *TUNING), most_threads=1
)

VECTORS = "word-vectors"
WORD2VEC = words("word2vec --encoder embedding --epochs 2 --task.vocabulary 30000 --validate-interval 2")
READING = words(
    "--memory lstm --memory.hidden 128 --memory.bidirectional --memory.input-dropout 0.5 --memory.output-dropout 0.5 "
    "--memory.locked-dropout --task.pool max --epochs 5 --batch-size 50 --learning-rate 2e-3 --schedule linear "
    "--max-gradient-norm 1 --average 0.98"
)
GROUPS["vectors"] = FitGroup(
    "BiLSTM 2 x 128 on word2vec's vectors of the reviews, largest of all steps",
    ("imdb", "--encoder", VECTORS, *READING),
    "90",
    most_threads=1,
)


def preparations(options: BenchOptions) -> list[Run]:
    """Of each seed the autoencoder, on the labelled training reviews and the unlabelled ones, and the word vectors."""
    prepared = {PRETRAINED: ("pretrain", *CODER, *PRETRAINING), VECTORS: ("fit", *WORD2VEC)}
    return [
        Run(name, seed, ("saccade", *arguments), 0, 1)
        for name, arguments in prepared.items()
        for seed in range(options.seeds or SEEDS)
    ]


def runs(options: BenchOptions) -> list[Run]:
    folder = places("sentiment", options.out).runs
    found = []
    for run in fit_runs(GROUPS, options, SEEDS):
        bundles = {name: os.path.relpath(folder / f"{name}-seed{run.seed}" / FOLDER) for name in (PRETRAINED, VECTORS)}
        arguments = tuple(bundles.get(word, word) for word in run.arguments)
        found.append(dataclasses.replace(run, arguments=arguments))
    return found


def report(outcomes: Sequence[Outcome], options: BenchOptions) -> Report:
    """Test accuracy of every encoder beside what is asked for, and the learning curves."""
    done = by_group(outcomes)
    columns = (
        "encoder",
        "test accuracy, % [95 % interval of one run]",
        "of each seed",
        "must",
        "validation accuracy, %",
        "parameters",
        "seconds",
        "core-seconds",
    )
    title = "IMDB, all 25,000 test reviews, judged once"
    table = Table(title, columns, [_row(name, found) for name, found in done.items()])
    means = {name: 100 * _mean(found, "accuracy") for name, found in done.items() if found}
    notes = _notes()
    if means:
        first = max(means, key=lambda name: means[name])
        notes.insert(0, f"The best of them: {GROUPS[first].label}, {means[first]:.2f} % (must: 90 %, goal: 92 %).")
    figures = {"sentiment": error_figure(GROUPS, outcomes, "IMDB, validation error while training")}
    return Report([table], notes, {"accuracy": means, "must": MUST, "goal": GOAL}, figures)


def _mean(found: Sequence[Outcome], name: str, split: str = "test") -> float:
    return statistics.mean(outcome.result[split][name] for outcome in found if outcome.result is not None)


def _row(name: str, found: Sequence[Outcome]) -> tuple[str, ...]:
    group = GROUPS[name]
    results = [outcome.result for outcome in found if outcome.result is not None]
    if not results:
        return (group.label, "all runs failed", "–", group.target, *["–"] * 4)
    low, high = (100 - 100 * _mean(found, bound) for bound in ("high", "low"))
    return (
        f"{group.label}, {results[0]['epochs']} epochs",
        f"{100 * _mean(found, 'accuracy'):.2f} [{low:.2f}, {high:.2f}]",
        ", ".join(f"{100 * result['test']['accuracy']:.2f}" for result in results),
        group.target,
        f"{100 - 100 * _mean(found, 'error', 'validation'):.2f}",
        f"{results[0]['parameters']['training']:,}",
        number(statistics.median(result["seconds"] for result in results)),
        number(statistics.median(result["core_seconds"] for result in results)),
    )


def _notes() -> list[str]:
    return [
        "Maas et al. 2011: 25,000 training reviews, of which 2,500 are for validation, and 25,000 test reviews of "
        "other films. The 30,000 most frequent words of the training reviews, in lower case; the last 500 words of a "
        "review. But for the autoencoder and the word vectors, all is learned from the labelled reviews alone.",
        "Memories are judged by the mean or the largest of the features of all steps. The convolutions (Kim 2014) keep "
        "each filter's largest answer. The bags are means of word vectors; pairs of neighbouring words are hashed into "
        "500,000 rows (Joulin et al. 2017). The dense nets read which of the 10,000 most frequent words are in the "
        "whole review; the autoencoder was trained before on the training reviews and 50,000 without labels, half of "
        "the words left out each time.",
        "The word vectors are word2vec's (skip-gram, 2 epochs), of the text of all 100,000 reviews, also that of the "
        "test reviews, without any label; a BiLSTM reads them, and they are fine-tuned.",
        "The last weights are judged; nothing is chosen by the test set. Seconds are those of updates on one thread.",
    ]


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("sentiment")
