"""Tagging: how words are read, tags told, judged by the official rules; whole runs on sentences made here."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import killed_and_resumed
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.benchmarks import BenchOptions
from saccade.benchmarks import tagging as benchmark
from saccade.benchmarks.parts.plan import Outcome
from saccade.data import conll2000
from saccade.data.conll2000 import TaggedDataset, TaggedSequences, chunk_scores
from saccade.training import fit as fitting
from saccade.training.fit_arguments import parse_fit
from saccade.training.fit_plan import check
from saccade.training.sequence_model import answer
from saccade.training.tagging_figures import SHOWN_TAGS, confusion_of_tags
from saccade.training.tagging_model import Tagger, WordReader, tag, windows
from saccade.training.tagging_task import TaggingTask, compare
from saccade.training.task_options import TaggingOptions
from saccade.training.tasks import find_task
from torch import Tensor

SMALL = ("--task.words", "12", "--task.characters", "8", "--task.dropout", "0", "--threads", "1")
NET = {
    "mlp": ("--encoder", "mlp", "--encoder.hidden", "24", "--task.window", "1"),
    "lstm": ("--encoder", "lstm", "--encoder.hidden", "16", "--encoder.bidirectional"),
}


def sentences(count: int, seed: int) -> str:
    """ "that" is a determiner before a noun and a conjunction before a name; who is no word is told by its ending."""
    generator = np.random.default_rng(seed)
    text = []
    for _ in range(count):
        stem = "".join(generator.choice(list("bdgklmn"), 3))
        noun = generator.choice(["dog NN", "cat NN", f"{stem}ing NN"])
        start = [f"that DT B-NP\n{noun} I-NP", "that IN B-SBAR\nRome NNP B-NP", f"{noun} B-NP", "Rome NNP B-NP"]
        more = ["\nsees VBZ B-VP", f"\n{stem}ed VBD B-VP", "\nsees VBZ B-VP\nRome NNP B-NP"]
        text.append(f"{generator.choice(start)}{generator.choice(more)}\n. . O\n")
    return "\n".join(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sentences where SACCADE_DATA says."""
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "conll2000").mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": 120, "dev": 30, "test": 40}.items()):
        (tmp_path / "data" / "conll2000" / f"{name}.txt").write_text(sentences(count, seed))
    yield tmp_path
    torch.set_flush_denormal(False)


def tagger(*words: str, task: str = "pos", net: str = "lstm") -> tuple[TaggingTask, Tagger]:
    plan = parse_fit(task, [*NET[net], *SMALL, *words]).plan
    found = find_task(plan)
    assert isinstance(found, TaggingTask)
    return found, found.make_model(plan, weights=True)


def taken(split: object, *index: int) -> dict[str, Tensor]:
    assert isinstance(split, TaggedSequences)
    return split.take(torch.tensor(index))


@torch.no_grad()
def test_a_word_is_its_vector_its_letters_and_its_capitals(folder: Path):
    data = conll2000.load("pos")
    torch.manual_seed(0)
    reader = WordReader(TaggingOptions(words=5, characters=4, dropout=0), len(data.words), len(data.characters), 0)
    batch = taken(data.train, 0, 1, 2)
    read = reader(batch)
    assert read.shape == (int(batch["mask"].sum(1).max()), 3, reader.size)
    assert reader.size == 5 + 4 + len(conll2000.CAPITALS)
    assert reader.words is not None
    assert reader.letters is not None
    assert reader.filters is not None
    table, weight, bias = (p.double().numpy() for p in (reader.letters.weight, *reader.filters.parameters()))
    for place, row in itertools.product(range(len(read)), range(3)):
        if not batch["mask"][row, place]:
            assert not read[place, row].any()
            continue
        letters = table[batch["characters"][row, place].numpy()]
        assert not letters[batch["characters"][row, place] == 0].any()
        wide = np.pad(letters, ((1, 1), (0, 0)))
        answers = [np.einsum("oik,ki->o", weight, wide[i : i + 3]) + bias for i in range(16)]
        capital = np.eye(len(conll2000.CAPITALS))[batch["capital"][row, place]]
        word = reader.words.weight[batch["x"][row, place]].numpy()
        expected = np.concatenate([capital, word, np.max(answers, 0)])
        np.testing.assert_allclose(read[place, row].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_windows_hold_neighbours_and_zeros_beyond_the_sentence():
    x = torch.arange(1.0, 5).view(4, 1, 1)
    assert windows(x, 0) is x
    assert windows(x, 2)[:, 0].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [2, 3, 4, 0, 0]]


def test_words_are_forgotten_in_training_only(folder: Path):
    task, model = tagger("--task.word-dropout", "0.5", "--task.characters", "0")
    batch = taken(task.dataset.train, *range(40))
    assert model.reader.words is not None
    unknown = model.reader.words.weight[0]
    known = batch["mask"].transpose(0, 1) & (batch["x"] != 0).transpose(0, 1)
    for mode, expected in ((True, 0.5), (False, 0.0)):
        model.train(mode)
        words = model.reader(batch)[..., len(conll2000.CAPITALS) :][known]
        share = (words == unknown).all(1).float().mean()
        assert float(share) == pytest.approx(expected, abs=0.12)
        if not mode:
            assert not (words == unknown).all(1).any()


@torch.no_grad()
@pytest.mark.parametrize("words", [(), ("--task.crf",)])
@pytest.mark.parametrize("net", ["mlp", "lstm"])
def test_sentences_of_a_batch_do_not_see_one_another(words: tuple[str, ...], net: str, folder: Path):
    task, model = tagger(*words, net=net)
    model.eval()
    split = task.dataset.test
    said, nats = tag(model, split, Compute())  # type: ignore[arg-type]
    assert (said >= 0).all()
    start = split.start.tolist()
    for row in (0, 3, 17):
        batch = taken(split, row)
        scores = model.scores(batch)
        assert model.decode(scores, batch)[:, 0].tolist() == said[start[row] : start[row + 1]].tolist()
        assert float(model.nats(scores, batch)) == pytest.approx(float(nats[row]), rel=1e-4)


def test_the_loss_is_nats_of_a_word_either_way(folder: Path):
    for words in ((), ("--task.crf",)):
        task, model = tagger(*words)
        batch = taken(task.dataset.train, *range(20))
        model.eval()
        nats = model.nats(model.scores(batch), batch).sum() / batch["mask"].sum()
        assert float(model.loss(batch)["cross_entropy"].mean().detach()) == pytest.approx(
            float(nats.detach()), rel=1e-5
        )


def test_judging_agrees_with_the_judge_of_all_sequences(folder: Path):
    task, model = tagger(task="chunks")
    split = task.dataset.test
    said, nats = tag(model, split, Compute())  # type: ignore[arg-type]
    assert model.training
    plain = answer(model, split)
    report = compare(said, split, task.dataset.classes, chunks=True)
    assert report["mistakes"] == int(plain.wrong.sum())
    assert report["without_mistake"] == float((plain.wrong == 0).mean())
    np.testing.assert_allclose(nats.numpy(), plain.nats, rtol=1e-4)
    unknown = split.x == 0
    assert report["unknown_words"] == int(unknown.sum()) > 0
    assert report["unknown_accuracy"] == pytest.approx(float((said == split.target)[unknown].float().mean()))


def test_chunks_are_judged_by_the_official_rules(folder: Path):
    data = conll2000.load("chunks")
    split, names = data.test, data.classes
    said = split.target.clone()
    assert compare(said, split, names, chunks=True)["f1"] == 1
    said[::3] = names.index("B-VP")
    bounds = list(itertools.pairwise(split.start.tolist()))
    gold, told = ([[names[t] for t in tags[a:b]] for a, b in bounds] for tags in (split.target, said))
    report = compare(said, split, names, chunks=True)
    assert (report["precision"], report["recall"], report["f1"]) == chunk_scores(gold, told)
    assert report["error"] == 1 - report["f1"]
    assert compare(said, split, names, chunks=False)["error"] == pytest.approx(1 - report["accuracy"])


@pytest.mark.parametrize(
    ("task", "net", "words"),
    [("pos", "mlp", ()), ("pos", "lstm", ("--task.crf",)), ("chunks", "lstm", ("--task.crf", "--task.tags", "4"))],
)
def test_a_run_learns_and_leaves_its_files(task: str, net: str, words: tuple[str, ...], folder: Path):
    rest = ["--epochs", "10", "--batch-size", "10", "--learning-rate", "2e-2", "--schedule", "linear"]
    plan = parse_fit(task, [*NET[net], *SMALL, *words, *rest]).plan
    result = fitting.fit(plan, folder / "run", [])
    test = result["test"]
    assert test["accuracy"] > 0.97  # new words, too, and "that", which only its neighbour tells
    assert test["unknown_accuracy"] > 0.9
    assert result["score"]["mean"] == pytest.approx(100 * test["f1" if task == "chunks" else "accuracy"], abs=1e-3)
    assert test["error"] == pytest.approx(1 - test["f1"] if task == "chunks" else 1 - test["accuracy"])
    for name in ("confusion.png", "sentences.png", "curves.png", "bundle/bundle.json"):
        assert (folder / "run" / name).stat().st_size > 100
    held = json.loads((folder / "run" / "bundle" / "words.json").read_text())
    assert held["words"][0] == "<unk>"
    assert ("DT" in held["parts"]) == bool("--task.tags" in words)
    assert parse_fit(None, ["--resume", "--out", str(folder / "run")]).plan.task_options == plan.task_options


def test_resuming_is_exact(folder: Path, monkeypatch: pytest.MonkeyPatch):
    words = [*NET["lstm"], *SMALL, "--task.crf", "--task.dropout", "0.3", "--epochs", "3", "--batch-size", "20"]
    plan = parse_fit("chunks", [*words, "--task.tags", "4", "--average", "0.9"]).plan
    plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, save_interval_seconds=1e-9))
    whole = fitting.fit(plan, folder / "whole", [])
    parts = killed_and_resumed(plan, folder / "parts", monkeypatch, saves=8)
    assert parts["test"] == whole["test"]


def test_what_is_given_goes_with_its_word(folder: Path):
    task, _ = tagger("--task.tags", "3", task="chunks")
    known = conll2000.load("pos")
    batch, expected = taken(task.dataset.train, 5, 2), taken(known.train, 5, 2)
    assert torch.equal(batch["tag"], expected["target"].clamp(min=0))
    assert torch.equal(taken(task.dataset.train.to("cpu"), 5, 2)["tag"], batch["tag"])
    assert task.parts == known.classes


def test_the_confusion_counts_every_word():
    classes = tuple(f"T{number}" for number in range(SHOWN_TAGS + 5))
    right = np.repeat(np.arange(len(classes)), np.arange(len(classes), 0, -1))
    said = np.roll(right, 1)
    title = confusion_of_tags(said, right, classes).axes[0].get_title()
    assert f"{len(classes)} mistakes of {len(right)} words" in title


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task.words", "0", "--task.characters", "0"), "nothing to read"),
        (("--task.window", "-1"), "must not be negative"),
        (("--task.dropout", "1"), "at least 0 and below 1"),
        (("--task.tags", "4"), "give away"),
        (("--augment.flip",), "cannot be moved"),
        (("--encoder", "embedding"), "reads tokens"),
    ],
)
def test_bad_input_gets_one_line(words: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture):
    rest = () if "--encoder" in words else ("--encoder", "mlp")
    assert main(["fit", "pos", *rest, *words, "--out", str(folder / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_frozen_encoder_is_refused(folder: Path, capsys: pytest.CaptureFixture):
    words = [*NET["mlp"], *SMALL, "--epochs", "1", "--out"]
    assert main(["fit", "pos", *words, str(folder / "first")]) == 0
    rest = ["--task.window", "1", *SMALL, "--epochs", "1", "--encoder-mode"]
    assert main(["fit", "pos", "--encoder", str(folder / "first"), *rest, "frozen"]) == 2
    assert "cannot be frozen" in capsys.readouterr().err
    again = ["--encoder", str(folder / "first"), *rest, "finetune", "--out", str(folder / "second")]
    assert main(["fit", "chunks", *again]) == 0


def test_sentences_that_differ_are_refused(folder: Path):
    data = conll2000.load("chunks")
    assert isinstance(data, TaggedDataset)
    plan = parse_fit("chunks", [*NET["mlp"], *SMALL, "--task.tags", "4"]).plan
    other = dataclasses.replace(data, train=data.test)
    with pytest.raises(Exception, match="do not hold the same sentences"):
        TaggingTask(plan, other)


def test_the_benchmark(tmp_path: Path):
    """Its commands can be parsed, and its table holds what was measured beside what is asked for."""
    outcomes = []
    for run in benchmark.runs(BenchOptions(seeds=2)):
        plan = parse_fit(run.arguments[2], list(run.arguments[3:])).plan
        check(plan)
        assert plan.task_options.crf == (run.group.endswith(("crf", "given")))
        assert (plan.task_options.window > 0) == run.group.endswith("window")
        folder = tmp_path / run.name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 50, "seconds": 1, "validation/error": 0.1}\n')
        test = {"accuracy": 0.97 + 0.01 * run.seed, "unknown_accuracy": 0.9}
        if run.group.startswith("chunks"):
            test |= {"f1": 0.93 + 0.02 * run.seed, "precision": 0.94, "recall": 0.92}
        result = {"test": test, "epochs": 20, "seconds": 10.0, "core_seconds": 9.0}
        outcomes.append(Outcome(run, folder, None if run.group == "chunks-given" else result, ""))
    report = benchmark.report(outcomes, BenchOptions())
    rows = {row[:2]: row[2:] for row in report.tables[0].rows}
    assert rows["parts of speech, accuracy", "BiLSTM, 20 epochs"][:5] == ("97.50", "97.00, 98.00", "96.5", "97.0", "–")
    crf = rows["chunks, F1", "BiLSTM-CRF, 20 epochs"]
    assert crf[:5] == ("94.00", "93.00, 95.00", "92.5", "94.0", "94.00 / 92.00")
    assert rows["chunks, F1", "BiLSTM-CRF, parts of speech given"][0] == "all runs failed"
    assert report.data["best"] == {"pos": pytest.approx(97.5), "chunks": pytest.approx(94)}
    assert set(report.figures) == {"tagging-pos", "tagging-chunks"}
