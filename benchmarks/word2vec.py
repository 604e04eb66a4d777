"""Word vectors beside the gensim package: words per second by turns, then analogies after the same training."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.word2vec, or saccade bench word2vec")

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..training import device
from ..training.fit_plan import FitPlan, default_plan
from ..training.task_options import Word2VecOptions
from ..training.word2vec_task import Word2VecTask
from ..training.word_model import WordModel
from ..training.word_vectors import Answers, accuracy, answer_sections
from .parts.interleave import Advance, alternate
from .parts.plan import BenchOptions
from .parts.report import Report, Table, number

kind = "word vectors of the IMDB reviews: words per second and analogies, beside the gensim package"

WIDTH, EPOCHS, RATE = 128, 5, 0.025
OPTIONS = Word2VecOptions()  # 10,000 words, window 5, 5 noise words a pair, of 64 shared ones; sample 1e-3
SENTENCE = 1000  # words; the stream knows no reviews
SHARE = 400_000  # words that the other side trains on in one call
MUST, GOAL = 0.2, 1.0  # times gensim's words per second
ALONE = "saccade, 1 thread"
MISSING = "this benchmark needs the gensim package: pip install --target DIR gensim, and PYTHONPATH=DIR"


class Trained(NamedTuple):
    """What a side had learned after all epochs."""

    sections: dict[str, Answers]
    seconds: float

    @property
    def accuracy(self) -> float:
        return accuracy(self.sections)


def plan_of(seed: int, epochs: int, words: int = 0) -> FitPlan:
    """`saccade fit word2vec --encoder embedding` with these settings; words: of the text, 0 = all."""
    plan = default_plan("word2vec", "embedding")
    run = dataclasses.replace(plan.run, seed=seed, epochs=epochs, learning_rate=RATE)
    config = dataclasses.replace(plan.encoder_config, width=WIDTH)
    options = dataclasses.replace(OPTIONS, words=words)
    return dataclasses.replace(plan, run=run, encoder_config=config, task_options=options)


def our_side(task: Word2VecTask, plan: FitPlan, threads: int) -> tuple[Advance, Callable[[], Tensor]]:
    """What `saccade fit` does between two judgements; and the vectors as they are."""
    compute = device.choose(task.spec, device="cpu", precision="float32")
    model = task.make_model(plan, weights=True)
    trainer = task.make_trainer(plan, model, compute)
    updates, size = iter(trainer), trainer.batches.batch_size
    assert isinstance(model, WordModel)

    def advance(words: int) -> int:
        torch.set_num_threads(threads)  # of the process: sides take turns
        count = max(round(words / size), 1)
        done = sum(1 for _ in zip(range(count), updates, strict=False))
        trainer.losses.read()
        return done * size

    return advance, lambda: model.vectors


class Gensim:
    """The other side: the same settings, and the same text as a file, which several of its workers read at once."""

    def __init__(self, task: Word2VecTask, folder: Path, threads: int, seed: int):
        """Raises UserError where gensim is not installed."""
        word2vec = find_gensim()
        self.words, self.total = task.vocabulary.words, len(task.ids)
        self.folder, self._ids, options = folder, task.ids.numpy(), task.options
        self.model = word2vec(
            vector_size=WIDTH,
            window=options.window,
            negative=options.negatives,
            sample=options.sample,
            alpha=RATE,
            min_count=1,
            sg=1,
            hs=0,
            workers=threads,
            seed=seed,
        )
        self.model.build_vocab_from_freq(
            {word: count for word, count in zip(self.words, task.vocabulary.counts, strict=True) if count},
            corpus_count=-(-self.total // SENTENCE),
        )
        self.threads = threads
        self.share = self._write("share", SHARE)

    def _write(self, name: str, words: int) -> tuple[Path, int]:
        """A file of the first `words` of the text, and how many they are."""
        path, ids = self.folder / f"{name}.txt", self._ids[:words]
        table = np.array(self.words)
        with path.open("w", encoding="utf-8") as file:
            for first in range(0, len(ids), SENTENCE):
                file.write(" ".join(table[ids[first : first + SENTENCE]]) + "\n")
        return path, len(ids)

    def train(self, path: Path, words: int, epochs: int) -> None:
        """`epochs` times all that is in the file."""
        self.model.train(corpus_file=str(path), total_words=words, epochs=epochs)

    def advance(self, words: int) -> int:
        """Train on the share again and again; returns how many words these were."""
        path, length = self.share
        times = max(round(words / length), 1)
        self.train(path, length, times)
        return times * length

    def train_all(self, epochs: int) -> None:
        self.train(*self._write("all", self.total), epochs)

    def vectors(self) -> Tensor:
        """`[V, D]`, 0 for words that the text has not."""
        known = self.model.wv
        rows = [known[word] if word in known else np.zeros(WIDTH, np.float32) for word in self.words]
        return torch.from_numpy(np.stack(rows))


def find_gensim() -> Any:
    """gensim's class. Raises UserError where it is not installed."""
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from None
    return Word2Vec


def learn_ours(task: Word2VecTask, plan: FitPlan, threads: int) -> Trained:
    advance, vectors = our_side(task, plan, threads)
    begin = time.perf_counter()
    advance(plan.run.epochs * len(task.ids) + plan.run.epochs * plan.run.batch_size)
    seconds = time.perf_counter() - begin
    return Trained(answer_sections(vectors(), task.questions), seconds)


def learn_theirs(task: Word2VecTask, plan: FitPlan, threads: int) -> Trained:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side = Gensim(task, folder, threads, plan.run.seed + 1)  # 0 is none to gensim
        begin = time.perf_counter()
        side.train_all(plan.run.epochs)
        seconds = time.perf_counter() - begin
    return Trained(answer_sections(side.vectors(), task.questions), seconds)


def measure(options: BenchOptions) -> Report:
    """Both sides with the same number of threads. `--steps`: words of the text that are read; all by default."""
    find_gensim()
    threads, seeds = options.threads or os.cpu_count() or 1, options.seeds or 1
    task = Word2VecTask(plan_of(0, EPOCHS, options.steps or 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        endless = plan_of(0, 1_000_000, options.steps or 0)
        sides = {"saccade": our_side(task, endless, threads)[0], "gensim": Gensim(task, folder, threads, 1).advance}
        if threads > 1:
            sides[ALONE] = our_side(task, endless, 1)[0]
        speeds = alternate(sides, rounds=options.rounds, seconds=options.slice_seconds, title="word vectors")
    learned: dict[str, list[Trained]] = {"saccade": [], "gensim": []}
    for seed in range(seeds):
        plan = plan_of(seed, EPOCHS, options.steps or 0)
        learned["saccade"].append(learn_ours(task, plan, threads))
        learned["gensim"].append(learn_theirs(task, plan, threads))
    return _report(task, speeds, learned, threads)


def _report(task: Word2VecTask, speeds: dict[str, Any], learned: dict[str, list[Trained]], threads: int) -> Report:
    ratio = speeds["saccade"].median / speeds["gensim"].median
    asked = sum(section.asked for section in learned["saccade"][0].sections.values())
    rows = []
    for name in speeds:
        trainings = learned.get(name, [])
        rows.append(
            (
                name,
                number(speeds[name].median),
                f"{number(speeds[name].low)} to {number(speeds[name].high)}",
                number(speeds[name].median / speeds["gensim"].median),
                ", ".join(f"{100 * trained.accuracy:.2f}" for trained in trainings),
                ", ".join(number(trained.seconds) for trained in trainings),
            )
        )
    first = {name: trained[0].sections for name, trained in learned.items()}
    by_section = [
        (section, str(count), *(f"{100 * first[name][section].right / count:.1f}" for name in first))
        for section, (count, _) in first["saccade"].items()
    ]
    columns = ("", "words/s (median)", "slices from to", "times gensim", f"% of {asked:,} analogies", "training, s")
    plural = "s" * (threads > 1)
    title = (
        f"Skip-gram, {len(task.vocabulary):,} words, {WIDTH}-d, {threads} thread{plural} or worker{plural}, by turns"
    )
    options = task.options
    notes = [
        f"To reach: {MUST:g} times gensim's speed, better {GOAL:g}, and no fewer analogies. {len(task.ids):,} words of "
        f"the IMDB reviews, {EPOCHS} epochs, window {options.window}, {options.negatives} noise words a pair, sample "
        f"{options.sample:g}, rate {RATE:g} falling to 0, on both sides. Ours: float32, {options.noise} noise words "
        f"that a batch shares. gensim reads a file of lines of {SENTENCE:,} words, its form for several workers. Words "
        f"are counted before thinning. {len(speeds['gensim'].slices)} slices each; the warm-up is not counted; the "
        "ratio is one of medians. Analogies by the cosine, all words as candidates but those asked; sections: the "
        "first seed.",
    ]
    data = {
        "speeds": {name: speed._asdict() for name, speed in speeds.items()},
        "ratio": ratio,
        "accuracy": {name: [trained.accuracy for trained in runs] for name, runs in learned.items()},
        "seconds": {name: [trained.seconds for trained in runs] for name, runs in learned.items()},
        "words": len(task.ids),
        "threads": threads,
    }
    sections = Table("Analogies by section, % right", ("section", "questions", "saccade", "gensim"), by_section)
    return Report([Table(title, columns, rows), sections], notes, data)


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("word2vec")
