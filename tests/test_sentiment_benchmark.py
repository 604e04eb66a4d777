"""Reviews: features pooled against loops, whole runs on small ones, and the benchmark's commands and report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.__main__ import main
from saccade.benchmarks import BenchOptions
from saccade.benchmarks import sentiment as benchmark
from saccade.benchmarks.parts.plan import Outcome
from saccade.data import review_bags
from saccade.data.sequences import SequenceDataset, Sequences, join
from saccade.encoders.base import FeedForward
from saccade.envs.spec import ObservationSpec
from saccade.training import fit as fitting
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_plan import check
from saccade.training.review_task import Pooled, pooled
from saccade.training.sequence_model import answer
from saccade.training.tasks import find_task
from test_data_imdb import write_imdb
from test_data_text import write
from torch import Tensor

WORDS = 12


def reviews(count: int, seed: int) -> Sequences:
    """Of 10 words that say nothing; somewhere is a 10 in bad reviews, an 11 in good ones."""
    generator = np.random.default_rng(seed)
    label = generator.integers(2, size=count)
    x = [generator.integers(10, size=generator.integers(3, 12)) for _ in label]
    for words, kind in zip(x, label, strict=True):
        words[generator.integers(len(words))] = 10 + kind
    target = [np.where(np.arange(len(words)) == len(words) - 1, kind, -1) for words, kind in zip(x, label, strict=True)]
    return join(x, target)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SequenceDataset]:
    spec = ObservationSpec((), "int64", 0, WORDS - 1, vocabulary=WORDS)
    splits = [reviews(count, seed) for seed, count in enumerate((200, 40, 60))]
    found = SequenceDataset("imdb", spec, 2, *splits, ("negative", "positive"))
    monkeypatch.setattr(data, "load", lambda name, **rest: found)
    yield found
    torch.set_flush_denormal(False)


def test_pooling_against_loops():
    features = torch.randn(5, 4, 3)
    lengths = (5, 1, 3, 2)
    mask = torch.arange(5).unsqueeze(1) < torch.tensor(lengths)
    for row, length in enumerate(lengths):
        own = features[:length, row]
        for pool, expected in (("last", own[-1]), ("mean", own.mean(0)), ("max", own.max(0).values)):
            torch.testing.assert_close(pooled(features, mask, pool)[row], expected)  # type: ignore[arg-type]


class _Share(FeedForward):
    """1 in the place of the word that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = (WORDS,)

    def encode(self, x: Tensor) -> Tensor:
        return torch.eye(WORDS)[x]


def test_answers_belong_to_their_reviews():
    """A head that knows the two words is right about all reviews, and wrong about those whose target is turned."""
    split = reviews(50, 7)
    model = Pooled(_Share(), 2, pool="mean")
    with torch.no_grad():
        model.head[0].weight.zero_()
        model.head[0].weight[:, 10:] = torch.eye(2)
        model.head[0].bias.zero_()
    assert answer(model, split).wrong.sum() == 0
    turned = split.target.clone()
    chosen = [4, 17, 31]
    last = split.start[1:][chosen] - 1
    turned[last] = 1 - turned[last]
    found = answer(model, dataclasses.replace(split, target=turned))
    assert np.flatnonzero(found.wrong).tolist() == chosen
    assert (found.asked == 1).all()


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_run_from_end_to_end(pool: str, small: SequenceDataset, tmp_path: Path):
    words = ["--encoder", "lstm", "--encoder.hidden", "12", "--encoder.embedding", "8", "--task.pool", pool]
    rest = ["--epochs", "8", "--batch-size", "10", "--learning-rate", "2e-2", "--threads", "1", "--average", "0"]
    free = ["--encoder.input-dropout", "0", "--encoder.output-dropout", "0"]
    plan = parse_fit("imdb", [*words, *rest, *free]).plan
    result = fitting.fit(plan, tmp_path / "run", [])
    assert result["test"]["accuracy"] > 0.95
    assert result["score"] == {
        "mean": pytest.approx(100 * result["test"]["accuracy"], abs=1e-3),
        "what": "test accuracy in per cent",
    }
    assert parse_fit(None, ["--resume", "--out", str(tmp_path / "run")]).plan.task_options.pool == pool
    frozen = ["--encoder", str(tmp_path / "run"), "--encoder-mode", "frozen", "--epochs", "1", "--threads", "1"]
    assert main(["fit", "imdb", *frozen, "--out", str(tmp_path / "frozen")]) == 0


def test_an_unknown_pool_gets_one_line(small: SequenceDataset, capsys: pytest.CaptureFixture, tmp_path: Path):
    words = ["--encoder", "bag", "--task.pool", "median", "--out", str(tmp_path / "run")]
    assert main(["fit", "imdb", *words]) == 2
    assert "median" in capsys.readouterr().err


def test_the_benchmark(tmp_path: Path):
    """Its commands can be parsed, and its table holds what was measured beside what is asked for."""
    outcomes = []
    for run in benchmark.runs(BenchOptions(seeds=2, out=tmp_path)):
        prepared = {"autoencoder": "pretrain-autoencoder", "vectors": "word-vectors"}.get(run.group)
        if prepared is not None:
            assert run.arguments[4].endswith(f"runs/sentiment/{prepared}-seed{run.seed}/bundle")
        else:
            plan = parse_fit(run.arguments[2], list(run.arguments[3:])).plan
            check(plan)
            if plan.task == "imdb":
                assert plan.task_options.pool == {"lstm": "mean", "bilstm": "max"}.get(run.group, "last")
        folder = tmp_path / run.name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 50, "seconds": 1, "validation/error": 0.1}\n')
        error = 0.09 + 0.02 * run.seed + 0.01 * (run.group == "lstm")
        test = {"accuracy": 1 - error, "error": error, "low": error - 0.004, "high": error + 0.004}
        sizes = {"training": 4_000_000, "frozen": 0}
        result = {"test": test, "validation": {"error": 0.08}, "epochs": 6, "seconds": 10.0, "core_seconds": 9.0}
        outcomes.append(Outcome(run, folder, None if run.group == "bag" else result | {"parameters": sizes}, ""))
    report = benchmark.report(outcomes, BenchOptions())
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    lstm = rows["LSTM 128, mean of all steps, 6 epochs"]
    assert lstm[:5] == ("89.00 [88.60, 89.40]", "90.00, 88.00", "87", "92.00", "4,000,000")
    assert rows["bag of words"][0] == "all runs failed"
    assert report.data["accuracy"]["pairs"] == pytest.approx(90)
    assert "90.00 %" in report.notes[0]
    assert set(report.figures) == {"sentiment"}


def test_an_autoencoder_is_trained_first_and_then_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commands of the benchmark, with little epochs and on small reviews."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    write_imdb(tmp_path / "data", count=60)
    write(tmp_path / "data", {"imdb-unlabelled.txt": "pos good\nneg !\n" * 50})
    options = BenchOptions(out=tmp_path)
    first = benchmark.preparations(options)[0]
    small = ["--epochs", "2", "--batch-size", "20", "--threads", "1", "--encoder.hidden", "16", "--encoder.code", "8"]
    folder = tmp_path / "runs" / "sentiment" / first.name
    assert main([*first.arguments[1:], *small, "--out", str(folder)]) == 0
    [tuned] = [run for run in benchmark.runs(options) if run.group == "autoencoder"]
    words = ["--epochs", "8", "--batch-size", "20", "--learning-rate", "1e-2", "--threads", "1"]
    assert main([*tuned.arguments[1:], *words, "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["encoder"] == "autoencoder"
    assert result["encoder_mode"] == "finetune"
    assert result["test"]["accuracy"] > 0.95


def test_word_vectors_are_learned_first_and_then_read_by_a_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commands of the benchmark, with little epochs and on small reviews."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    write_imdb(tmp_path / "data", count=60)
    questions = ": words\npos good neg never\n"
    write(tmp_path / "data", {"imdb-unlabelled.txt": "pos good\nneg never\n" * 50, "questions-words.txt": questions})
    options = BenchOptions(out=tmp_path)
    first = benchmark.preparations(options)[1]
    folder = tmp_path / "runs" / "sentiment" / first.name
    small = ["--epochs", "1", "--validate-interval", "1", "--batch-size", "20", "--threads", "1", "--task.least", "1"]
    assert main([*first.arguments[1:], *small, "--out", str(folder)]) == 0
    [read] = [run for run in benchmark.runs(options) if run.group == "vectors"]
    words = ["--epochs", "8", "--batch-size", "10", "--learning-rate", "1e-2", "--threads", "1", "--average", "0"]
    assert main([*read.arguments[1:], *words, "--memory.hidden", "8", "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["encoder"], result["memory"], result["encoder_mode"]) == ("embedding", "lstm", "finetune")
    place = read.arguments.index("--encoder") + 1
    firsts = []
    for word in (read.arguments[place], str(folder)):  # the bundle itself, or the run that holds it
        plan = parse_fit("imdb", ["--encoder", word, *read.arguments[place + 1 :]]).plan
        task = find_task(plan)
        firsts.append(list(task.make_model(plan, weights=True).encoder.parameters()))
    torch.testing.assert_close(*firsts)
    assert result["test"]["accuracy"] > 0.95


def test_bags_hold_each_word_of_a_review_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    write_imdb(tmp_path / "data")
    write(tmp_path / "data", {"imdb-unlabelled.txt": "good good pos\nnever ! neg\n"})
    labelled, every, reviews = review_bags.load(), review_bags.load("imdb-bags-all"), data.imdb.load()
    assert [len(part) for part in (labelled.train, every.train, every.validation, every.test)] == [18, 20, 2, 20]
    for part, split in ((labelled.train, reviews.train), (labelled.test, reviews.test)):
        index = torch.tensor([5, 0, 11])
        batch = part.to("cpu").take(index)
        for row, number in enumerate(index.tolist()):
            words = split.x[split.start[number] : split.start[number + 1]]
            assert batch["x"][row].nonzero().flatten().tolist() == sorted(set(words.tolist()))
            assert batch["x"].max() == 1
            assert int(batch["label"][row]) == int(split.target[split.start[number + 1] - 1])
    more = every.train.take(torch.tensor([18, 19]))
    found = [[reviews.words[place] for place in row.nonzero()[:, 0]] for row in more["x"]]
    assert [set(words) for words in found] == [{"good", "pos"}, {"<unk>", "!", "neg"}]
    assert more["label"].tolist() == [-1, -1]
    assert labelled.spec.shape == every.spec.shape == (len(reviews.words),)
    few = review_bags.load(words=4)
    assert few.spec.shape == (4,)
    assert few.train.take(torch.tensor([0]))["x"].shape == (1, 4)
    counted = review_bags.load("imdb-counts", counted=range(2, 5))
    assert counted.spec.high == np.inf
    assert counted.spec.shape == (3,)
    for row in range(len(counted.train)):
        words = reviews.train.x[reviews.train.start[row] : reviews.train.start[row + 1]]
        expected = words.bincount(minlength=len(reviews.words)).float()[2:5]
        assert torch.equal(counted.train.to("cpu").take(torch.tensor([3, row]))["x"][1], expected)
