"""The comparison of word vectors: what the other side is given, on a small text, and the report."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.benchmarks import BenchOptions, word2vec
from saccade.benchmarks.parts.interleave import Speed
from saccade.data import analogies, corpus
from saccade.data.corpus import Corpus, Stream
from saccade.envs.errors import UserError
from saccade.training.word2vec_task import Word2VecTask

WORDS = tuple("the king queen man woman of".split())  # noqa: SIM905
IDS = np.random.default_rng(0).integers(0, 6, 3000)


class Gensim:
    """Stands for gensim's class: takes note of what it is told, and knows the answer to every question."""

    made: list[Gensim] = []  # noqa: RUF012

    def __init__(self, **settings: object):
        self.settings, self.trained = settings, []
        self.wv = {word: np.eye(128, dtype=np.float32)[place] for place, word in enumerate(WORDS)}
        self.wv["woman"] = self.wv["man"] + self.wv["queen"] - self.wv["king"]
        Gensim.made.append(self)

    def build_vocab_from_freq(self, counts: dict[str, int], corpus_count: int) -> None:
        self.counts, self.lines = counts, corpus_count

    def train(self, *, corpus_file: str, total_words: int, epochs: int) -> None:
        assert len(Path(corpus_file).read_text().split()) == total_words
        self.text = Path(corpus_file).read_text()
        self.trained.append((total_words, epochs))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Stream(torch.zeros(0, dtype=torch.int64))
    text = Corpus("small", WORDS, Stream(torch.from_numpy(IDS)), nothing, nothing)
    monkeypatch.setattr(corpus, "load_imdb", lambda least, size: text)
    questions = {"family": [("king", "queen", "man", "woman")], "cities": [("paris", "france", "rome", "italy")]}
    monkeypatch.setattr(analogies, "load", lambda: questions)
    monkeypatch.setattr(word2vec, "find_gensim", lambda: Gensim)
    Gensim.made.clear()


@pytest.mark.usefixtures("small")
def test_the_other_side_is_given_the_same_text_and_settings(tmp_path: Path):
    plan = word2vec.plan_of(0, 2)
    task = Word2VecTask(plan)
    side = word2vec.Gensim(task, tmp_path, 2, seed=7)
    assert side.advance(10) == 3000
    side.train_all(2)
    [made] = Gensim.made
    assert made.trained == [(3000, 1), (3000, 2)]
    assert made.text.split() == [WORDS[place] for place in IDS]
    assert [len(line.split()) for line in made.text.splitlines()] == [1000] * 3
    assert made.counts == {word: int((place == IDS).sum()) for place, word in enumerate(WORDS)}
    options, settings = task.options, made.settings
    assert settings["window"] == options.window == 5
    assert settings["negative"] == options.negatives == 5
    assert settings["sample"] == options.sample
    assert settings["vector_size"] == plan.encoder_config.width == 128
    assert settings["alpha"] == plan.run.learning_rate
    assert (settings["workers"], settings["sg"], settings["seed"]) == (2, 1, 7)


@pytest.mark.usefixtures("small")
def test_the_report(monkeypatch: pytest.MonkeyPatch):
    def alternate(sides: dict, **rest: object) -> dict[str, Speed]:
        counts = {name: advance(700) for name, advance in sides.items()}
        assert counts == {"saccade": 700, "gensim": 3000, word2vec.ALONE: 700}
        speeds = {"saccade": [900.0, 1000.0], "gensim": [500.0], word2vec.ALONE: [750.0]}
        return {name: Speed.of(slices) for name, slices in speeds.items()}

    monkeypatch.setattr(word2vec, "alternate", alternate)
    threads = torch.get_num_threads()
    try:
        report = word2vec.measure(BenchOptions(seeds=2, threads=2))
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert report.data["ratio"] == 1.9
    assert report.data["accuracy"]["gensim"] == [1.0, 1.0]
    assert len(report.data["accuracy"]["saccade"]) == 2
    ours, theirs, alone = report.tables[0].rows
    assert alone == (word2vec.ALONE, "750.0", "750.0 to 750.0", "1.5", "", "")
    assert (ours[0], theirs[0], theirs[3]) == ("saccade", "gensim", "1")
    assert theirs[4] == "100.00, 100.00"
    [family] = report.tables[1].rows
    assert (family[0], family[1], family[3]) == ("family", "1", "100.0")
    for learned in Gensim.made[1:]:
        assert learned.trained == [(3000, word2vec.EPOCHS)]


def test_without_gensim_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gensim", None)
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(UserError, match="pip install"):
        word2vec.measure(BenchOptions())
