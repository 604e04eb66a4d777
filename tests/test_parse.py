"""Parsing: the treebank's rules, how parses are judged, a run from end to end, and the benchmark's report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from saccade import data
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.benchmarks import BenchOptions
from saccade.benchmarks import parse as benchmark
from saccade.benchmarks.parts.plan import Outcome
from saccade.data import treebank
from saccade.data.treebank import TreeDataset, Trees
from saccade.encoders import list_encoders, make_encoder
from saccade.envs.errors import SpecError
from saccade.training import fit as fitting
from saccade.training import parse_task
from saccade.training.fit_arguments import parse_fit
from saccade.training.parse_task import Parser, compare, parse
from saccade.training.task_options import ParseOptions
from saccade.training.tasks import find_task


@pytest.fixture(scope="module")
def bank() -> TreeDataset:
    return treebank.load()


def few(split: Trees, count: int) -> Trees:
    """The first sentences of a split."""
    end = int(split.start[count])
    assert split.group is not None
    parts = {"x": split.x[:end], "target": split.target[:end], "head": split.head[:end]}
    return dataclasses.replace(split, start=split.start[: count + 1], group=split.group[:count], **parts)


def test_no_sentence_is_both_learned_and_judged(bank: TreeDataset):
    def texts(split: Trees) -> list[tuple[int, ...]]:
        start = split.start.tolist()
        return [tuple(split.x[a:b, 0].tolist()) for a, b in pairwise(start)]

    every = [text for split in (bank.train, bank.validation, bank.test) for text in texts(split)]
    assert len(set(every)) == len(every) == 7000


def test_attachments_follow_the_rules_of_the_grammar(bank: TreeDataset):
    """With an instrument to its verb; clauses to the noun that agrees, the nearer of two."""
    relation, seen = {name: n for n, name in enumerate(treebank.RELATIONS)}, {"verb": 0, "noun": 0, "near": 0, "far": 0}
    tools = {stem: {form for noun in nouns for form in noun} for stem, nouns in treebank.INSTRUMENTS.items()}
    start = bank.test.start.tolist()
    for a, b in pairwise(start):
        words = ["", *(bank.words[w] for w in bank.test.x[a:b, 0])]
        tags = ["", *(bank.words[t] for t in bank.test.x[a:b, 1])]
        heads, kinds = [0, *bank.test.head[a:b].tolist()], [-1, *bank.test.target[a:b].tolist()]
        for place, word in enumerate(words):
            if word == "with":
                verb = max(i for i in range(place) if tags[i].startswith("VB"))
                thing = words[heads.index(place)] if place in heads else ""
                stem = words[verb] if words[verb] in tools else words[verb][:-1]
                seen["verb" if thing in tools[stem] else "noun"] += 1
                assert (heads[place] == verb) == (thing in tools[stem])
            if kinds[place] == relation["acl"]:
                nouns = [i for i in range(place) if tags[i] in ("NN", "NNS")][-2:]
                agree = [i for i in nouns if (tags[i] == "NNS") == (tags[place] == "VBP")]
                assert heads[place] == agree[-1]
                seen["near" if agree[-1] == nouns[-1] else "far"] += 1
    assert min(seen.values()) > 50


def test_comparing_counts_words(bank: TreeDataset):
    split = few(bank.test, 3)
    head, relation = split.head.numpy().copy(), split.target.numpy().copy()
    assert compare(head, relation, split)["las"] == 1
    head[0] += 1
    relation[-1] += 1
    found = compare(head, relation, split)
    words = len(head)
    assert (found["uas"], found["las"]) == (pytest.approx(1 - 1 / words), pytest.approx(1 - 2 / words))
    assert (found["mistakes"], found["exact"]) == (2, pytest.approx(1 / 3))


@pytest.fixture
def small(bank: TreeDataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[TreeDataset]:
    """The treebank with few sentences."""
    splits = {
        name: few(getattr(bank, name), count) for name, count in (("train", 60), ("validation", 20), ("test", 20))
    }
    found = dataclasses.replace(bank, **splits)
    monkeypatch.setattr(data, "load", lambda name, **rest: found)
    yield found
    torch.set_flush_denormal(False)


def test_a_run_from_end_to_end(small: TreeDataset, tmp_path):
    words = ["--encoder", "embedding", "--encoder.width", "16", "--epochs", "8", "--batch-size", "20", "--threads", "1"]
    plan = parse_fit("treebank", [*words, "--learning-rate", "1e-2", "--task.beam", "3", "--task.hidden", "32"]).plan
    result = fitting.fit(plan, tmp_path / "run", [])
    assert result["score"]["mean"] == pytest.approx(100 * result["test"]["las"], abs=1e-3)
    assert result["test"]["las"] > 0.6
    assert set(result["test"]["greedy"]) >= {"uas", "las", "exact"}
    for name in ("groups.png", "parses.png", "curves.png", "bundle/bundle.json"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    saved = parse_fit("treebank", ["--resume", "--out", str(tmp_path / "run")]).plan
    assert saved.task_options == ParseOptions(hidden=32, beam=3)


@pytest.mark.parametrize("name", ["embedding", "lstm"])
def test_few_sentences_are_learned_by_heart(small: TreeDataset, name: str):
    words = ["--encoder", name, "--epochs", "60", "--batch-size", "10", "--learning-rate", "1e-2", "--threads", "1"]
    config = {"embedding": ["--encoder.width", "16"], "lstm": ["--encoder.hidden", "24", "--encoder.embedding", "16"]}
    plan = parse_fit("treebank", [*words, *config[name], "--task.hidden", "32", "--schedule", "constant"]).plan
    task = find_task(plan)
    assert isinstance(task, parse_task.ParseTask)
    task.dataset = dataclasses.replace(small, train=few(small.train, 10))
    model = task.make_model(plan, weights=True)
    switched = []
    for _ in task.make_trainer(plan, model, Compute()):
        switched.append(model.is_local)
    assert switched == [True] * 30 + [False] * 30
    head, relation = parse(model, task.dataset.train, Compute(), 4)
    assert compare(head, relation, task.dataset.train)["las"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task.beam", "0"], "at least 1"),
        (["--task.local-share", "1.5"], "from 0 to 1"),
        (["--hidden", "8"], "leave out"),
        (["--augment.flip"], "cannot be moved"),
        (["--encoder", "mlp"], "tokens"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, small: TreeDataset, capsys, tmp_path):
    rest = [] if "--encoder" in words else ["--encoder", "embedding"]
    assert main(["fit", "treebank", *rest, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_every_encoder_that_reads_tokens_can_be_trained(bank: TreeDataset):
    batch, found = bank.train.take(torch.arange(2)), []
    for name in list_encoders():
        try:
            encoder = make_encoder(name, bank.spec)
        except SpecError:
            continue
        model = Parser(encoder, len(bank.classes), ParseOptions(hidden=8, local_share=1))
        nats = model.loss(batch)["nats"]
        assert nats.shape == (2,)
        nats.sum().backward()
        found.append(name)
    assert {"embedding", "lstm", "gru"} <= set(found)


def test_the_benchmark(tmp_path: Path):
    outcomes = []
    for run in benchmark.runs(BenchOptions(seeds=2)):
        plan = parse_fit(run.arguments[2], list(run.arguments[3:])).plan
        assert (plan.task, plan.task_options.local_share) == ("treebank", 1 if "local" in run.group else 0.5)
        found = {"uas": 0.97, "las": 0.9 + 0.02 * run.seed, "exact": 0.5, "groups": {"plain": 0.1, "several": 0.2}}
        test = found | {"beam": 8, "greedy": found | {"las": 0.5}}
        result = {"test": test, "seconds": 10.0, "core_seconds": 9.0}
        outcomes.append(Outcome(run, tmp_path, None if run.group == "both-local" else result, ""))
    report = benchmark.report(outcomes, BenchOptions())
    rows = report.tables[0].rows
    assert rows[0][1:5] == ("greedy", "97.00", "50.00", "50.00, 50.00")
    assert rows[1][1:6] == ("beam 8", "97.00", "91.00", "90.00, 92.00", "50.0")
    assert rows[-1][2] == "all runs failed"
    assert list(report.figures) == ["parse"]
