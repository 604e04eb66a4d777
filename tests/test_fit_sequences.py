"""Supervised runs over sequences: batches, what is learned and judged, pictures, resuming, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import killed_and_resumed
from saccade import data
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.data.sequences import DrawnBatches, LengthBatches, SequenceDataset, Sequences, join, pack
from saccade.encoders import find_encoder, make_encoder
from saccade.encoders.base import FeedForward
from saccade.encoders.parts import native
from saccade.encoders.parts.augment_images import Augmentation
from saccade.envs.errors import UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import fit as fitting
from saccade.training import sequence_model
from saccade.training.epochs import Trainer
from saccade.training.fit_arguments import ALIASES, parse_fit
from saccade.training.fit_plan import FitConfig, FitPlan, default_plan
from saccade.training.optimise import Optimiser
from saccade.training.sequence_model import SequenceModel, answer, by_length
from saccade.training.tasks import find_task
from torch import Tensor

VECTOR = ObservationSpec((3,))


def largest(generator: np.random.Generator, count: int) -> Sequences:
    """Which of three numbers is the largest, asked at about half of the steps; groups by the parity of the length."""
    lengths = generator.integers(2, 9, count)
    x = [generator.normal(size=(length, 3)).astype(np.float32) for length in lengths]
    target = [np.where(generator.random(len(steps)) < 0.5, steps.argmax(1), -1) for steps in x]
    for answers, steps in zip(target, x, strict=True):
        answers[0] = steps[0].argmax()
    return join(x, target, lengths % 2)


def signs(generator: np.random.Generator, count: int) -> Sequences:
    """Whether each of three numbers is positive, asked at the last step."""
    x = [generator.normal(size=(4, 3)).astype(np.float32) for _ in range(count)]
    target = [np.concatenate([np.full((3, 3), -1.0), steps[3:] > 0]).astype(np.float32) for steps in x]
    return join(x, target, [0] * count)


def dataset(draw=largest, *, drawn: bool = False) -> SequenceDataset:
    splits = [draw(np.random.default_rng(seed), count) for seed, count in ((0, 300), (1, 50), (2, 60))]
    groups = ("even", "odd") if draw is largest else ("four",)
    return SequenceDataset("toy", VECTOR, 3, *splits, groups=groups, draw=draw if drawn else None)


def plan_of(**run: object) -> FitPlan:
    chosen = {"epochs": 6, "batch_size": 30, "threads": 1, "learning_rate": 1e-2} | run
    config = find_encoder("mlp").Config(hidden=(32,))
    return FitPlan("toy", "mlp", FitConfig(**chosen), Augmentation(), config)  # type: ignore[arg-type]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Makes `data.load` give a certain data set."""
    real = data.load

    def use(found: SequenceDataset) -> None:
        monkeypatch.setattr(data, "load", lambda name, **rest: found if name == "toy" else real(name, **rest))

    yield use
    torch.set_flush_denormal(False)


def test_taking_pads_to_the_longest():
    split = join([np.arange(3), np.arange(5)], [np.array([-1, -1, 2]), np.arange(5)], [4, 7])
    batch = split.take(torch.tensor([1, 0]))
    assert batch["x"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert batch["target"].tolist() == [[0, 1, 2, 3, 4], [-1, -1, 2, -1, -1]]
    assert batch["mask"].tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert batch["group"].tolist() == [7, 4]
    assert split.lengths.tolist() == [3, 5]


def test_every_answer_counts_alike_whatever_the_batch():
    """One sequence with three answers and one with a single one: together or apart, the gradient is the same."""
    split = join([np.ones((3, 3)), np.ones((1, 3))], [np.array([0, 1, 2]), np.array([1])])
    split = dataclasses.replace(split, x=split.x.float())
    assert split.answers() == 2
    model = SequenceModel(make_encoder("mlp", VECTOR), 3, answers=split.answers())
    both = model.loss(split.take(torch.arange(2)))["cross_entropy"].mean()
    apart = [model.loss(split.take(torch.tensor([n])))["cross_entropy"].mean() for n in range(2)]
    plain = model.cross_entropy(*model(split.take(torch.arange(2)))).mean()
    torch.testing.assert_close(both, plain)
    torch.testing.assert_close((apart[0] + apart[1]) / 2, both)


def test_a_task_may_be_called_by_what_it_is_about():
    assert parse_fit("sentiment", ["--encoder", "lstm"]).plan.task == "imdb"
    assert all(name in data.list_datasets() for name in ALIASES.values())


def test_texts_and_single_tasks_have_recipes():
    assert default_plan("penn", "gru").encoder_config.embedding == 384
    assert default_plan("mine.txt", "lstm").run == default_plan("shakespeare", "lstm").run
    assert default_plan("mine.txt", "lstm").task_options == default_plan("shakespeare", "lstm").task_options
    assert default_plan("babi-3", "dnc").encoder_config == default_plan("babi", "dnc").encoder_config


def test_batches_hold_every_sequence_once_with_little_padding():
    split = largest(np.random.default_rng(0), 101)
    numbered = dataclasses.replace(split, group=torch.arange(101))
    batches = LengthBatches(numbered, 8, seed=3)
    first, second = ([batch["group"] for batch in batches.epoch()] for _ in range(2))
    assert len(first) == len(batches) == 13
    assert sorted(torch.cat(first).tolist()) == sorted(torch.cat(second).tolist()) == list(range(101))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    spans = [int(split.lengths[rows].max() - split.lengths[rows].min()) for rows in first]
    assert max(spans) <= 1


def test_rows_hold_every_sequence_once_and_mark_its_beginning():
    lengths = [3, 9, 2, 4, 1, 3, 12, 5]
    split = join([np.full((n, 1), i, np.float32) for i, n in enumerate(lengths)], [np.arange(n) for n in lengths])
    rows = pack(split, 9, seed=0)
    assert rows.lengths.sum() == sum(lengths)
    assert rows.lengths.max() == 12  # too long for a row: one of its own
    assert (rows.lengths > 9).sum() == 1
    assert len(rows) <= 5  # 39 steps
    starts = rows.reset.nonzero().flatten()
    assert sorted(rows.x[starts, 0].tolist()) == list(range(len(lengths)))
    for start in starts.tolist():
        number = int(rows.x[start, 0])
        assert rows.target[start : start + lengths[number]].tolist() == list(range(lengths[number]))
    assert set(rows.start[:-1].tolist()) <= set(starts.tolist())
    batch = rows.take(torch.tensor([0, 1]))
    assert batch["reset"].sum() == sum(len(set(rows.x[rows.start[i] : rows.start[i + 1], 0].tolist())) for i in (0, 1))
    assert not (batch["reset"] & ~batch["mask"]).any()


@pytest.mark.parametrize("name", ["lstm", "dnc", "transformer"])
def test_rows_are_answered_like_the_sequences_in_them(name: str):
    split = largest(np.random.default_rng(0), 40)
    torch.manual_seed(0)
    model = SequenceModel(make_encoder(name, VECTOR), 3)
    found = [answer(model, one) for one in (split, pack(split, 20, seed=1))]
    assert len(found[1].nats) < len(found[0].nats)
    assert found[0].nats.sum() == pytest.approx(found[1].nats.sum(), rel=1e-5)
    assert found[0].wrong.sum() == found[1].wrong.sum()


@pytest.mark.parametrize("name", ["ntm", "dnc", "lstm"])
def test_of_a_memory_in_torch_the_step_is_compiled_and_not_the_sequence(name: str, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or function)
    model = SequenceModel(make_encoder(name, VECTOR), 3)
    Trainer(
        model,
        model.loss,
        Optimiser(model.groups(1.0), learning_rate=1e-3),
        LengthBatches(dataset().train, 30, seed=1),
        epochs=1,
        compute=Compute(compile=True),
    )
    assert asked == [model.loss if name == "lstm" else model.encoder.remember]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of itself while it compiles
@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_compiled_steps_answer_and_learn_alike(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.SWITCH, "0")
    native.load.cache_clear()
    torch.manual_seed(0)
    model = SequenceModel(make_encoder(name, VECTOR), 3)
    batch = largest(np.random.default_rng(0), 20).take(torch.arange(20))
    found = []
    for compiles in (False, True):
        assert not compiles or model.encoder.compile_step()
        loss = model.loss(batch)["cross_entropy"]
        found.append((loss, torch.autograd.grad(loss.sum(), list(model.parameters()))))
    native.load.cache_clear()
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_state_of_batches_goes_on_exactly(drawn: bool):
    def make():
        return DrawnBatches(largest, 4, 5, seed=1) if drawn else LengthBatches(dataset().train, 30, seed=1)

    whole = make()
    expected = [batch["x"] for _ in range(2) for batch in whole.epoch()]
    first = make()
    stream = first.epoch()
    for _ in range(3):
        next(stream)
    second = make()
    second.load_state_dict(first.state_dict())
    rest = [batch["x"] for _ in range(2) for batch in second.epoch()]
    assert all(torch.equal(a, b) for a, b in zip(expected[3:], rest, strict=True))


class _Said(FeedForward):
    """Features that are the observations: with an identity for a head, the answer is the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = (3,)

    def encode(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("at_once", [1, 40, 10_000])
def test_judging_counts_every_answer_once(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sequence_model, "STEPS_AT_ONCE", at_once)
    split = largest(np.random.default_rng(5), 40)
    target = split.target.clone()
    asked = (target >= 0).nonzero().flatten()
    target[asked[::4]] = (target[asked[::4]] + 1) % 3  # every fourth is made wrong
    split = dataclasses.replace(split, target=target)
    model = SequenceModel(_Said(), 3)
    with torch.no_grad():
        model.head[0].weight.copy_(torch.eye(3))
        model.head[0].bias.zero_()
    assert torch.cat(list(by_length(split))).sort().values.tolist() == list(range(40))
    found = answer(model, split)
    said = split.x.argmax(1)
    for number in range(40):
        rows = slice(int(split.start[number]), int(split.start[number + 1]))
        here = target[rows] >= 0
        assert found.asked[number] == int(here.sum())
        assert found.wrong[number] == int((said[rows][here] != target[rows][here]).sum())
        log_p = split.x[rows][here].log_softmax(1).gather(1, target[rows][here].unsqueeze(1))
        assert found.nats[number] == pytest.approx(-float(log_p.sum()), rel=1e-5)
    report = found.report(split, ("even", "odd"))
    assert report["mistakes"] == len(asked[::4])
    assert report["mean_of_groups"] == pytest.approx(np.mean(list(report["groups"].values())))
    assert report["without_mistake"] == float((found.wrong == 0).mean())


def test_bits_are_judged_one_by_one():
    split = signs(np.random.default_rng(5), 20)
    model = SequenceModel(_Said(), 3, asks_bits=True)
    with torch.no_grad():
        model.head[0].weight.copy_(torch.eye(3))
        model.head[0].weight[2, 2] = -1  # the third bit is always wrong
        model.head[0].bias.zero_()
    found = answer(model, split)
    assert found.asked.tolist() == [3] * 20
    assert found.wrong.tolist() == [1] * 20


@pytest.mark.parametrize(("draw", "drawn"), [(largest, False), (largest, True), (signs, False)])
def test_a_run_learns_and_leaves_its_files(draw, drawn: bool, load, tmp_path: Path):
    load(dataset(draw, drawn=drawn))
    result = fitting.fit(plan_of(epochs=12, epoch_batches=20), tmp_path / "run", [])
    assert result["test"]["error"] < 0.1
    assert result["score"]["mean"] == pytest.approx(100 * result["test"]["error"], abs=1e-3)
    names = ["config.json", "metrics.jsonl", "result.json", "curves.png", "groups.png", "bundle/bundle.json"]
    for name in [*names, "answers.png"] if draw is signs else names:
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"] == result["test"]


def test_resuming_is_exact(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    load(dataset(drawn=True))
    plan = plan_of(epoch_batches=7, epochs=4, save_interval_seconds=1e-9)
    whole = fitting.fit(plan, tmp_path / "whole", [])
    parts = killed_and_resumed(plan, tmp_path / "parts", monkeypatch, saves=10)
    assert parts["test"] == whole["test"]


def test_a_bundle_can_be_frozen(load, tmp_path: Path):
    load(dataset())
    fitting.fit(plan_of(epochs=1), tmp_path / "first", [])
    plan = dataclasses.replace(plan_of(encoder_mode="frozen"), bundle=str(tmp_path / "first"))
    model = find_task(plan).make_model(plan, weights=True)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert [group.name for group in model.groups(1.0)] == ["head"]
    result = fitting.fit(plan, tmp_path / "second", [])
    assert result["parameters"]["frozen"] > 0


def test_one_batch_is_learned_by_heart(load):
    load(dataset())
    plan = plan_of(epochs=200, batch_size=10)
    task = find_task(plan)
    few = task.dataset.train.take(torch.arange(10))  # type: ignore[attr-defined]
    model = task.make_model(plan, weights=True)
    trainer = task.make_trainer(plan, model, Compute())
    trainer.batches.epoch = lambda: iter([few])  # type: ignore[method-assign]
    for _, _ in zip(range(200), trainer, strict=False):
        pass
    logits, target = model.eval()(few)
    assert torch.equal(logits.argmax(1), target)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--augment.flip"], "sequences, which cannot"),
        (["--labels", "10"], "for images only"),
        (["--epoch-batches", "0"], "epoch_batches must be positive"),
        (["--encoder", "convnet"], "reads"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, load, capsys: pytest.CaptureFixture, tmp_path: Path):
    load(dataset())
    rest = [] if "--encoder" in words else ["--encoder", "mlp"]
    assert main(["fit", "toy", *rest, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_line(load, capsys: pytest.CaptureFixture, tmp_path: Path):
    load(dataset())
    words = ["fit", "toy", "--encoder", "mlp", "--epochs", "2", "--batch-size", "30", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "error, even" in out
    assert "wrong answers" in out


def test_an_empty_or_senseless_batch_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        LengthBatches(dataset().train, 0, 0)
    with pytest.raises(UserError, match="at least 1"):
        DrawnBatches(largest, 3, 0, 0)
