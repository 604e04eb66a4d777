"""Language models: pieces of text in order, a state that is carried, tied vectors, judging, samples, resuming."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import killed_and_resumed
from saccade import data
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.data.corpus import Corpus, Stream
from saccade.encoders import find_encoder
from saccade.encoders.parts.augment_images import Augmentation
from saccade.envs.errors import UserError
from saccade.training import fit as fitting
from saccade.training.fit_plan import FitConfig, FitPlan
from saccade.training.language_task import LanguageTask, StreamBatches
from saccade.training.task_options import LanguageOptions, options_of
from saccade.training.tasks import find_task

WORDS = tuple("abcdef")


def text(length: int, seed: int) -> Stream:
    """Each letter follows the one before it three times out of four; otherwise any does."""
    generator = np.random.default_rng(seed)
    jumps = np.where(generator.random(length) < 0.75, 1, generator.integers(0, 6, length))
    return Stream(torch.from_numpy(np.cumsum(jumps) % 6))


CORPUS = Corpus("toy", WORDS, text(3000, 0), text(600, 1), text(700, 2))
# the chance of the next letter is 3/4 + 1/24, that of each other one 1/24
ENTROPY = -(19 / 24) * math.log(19 / 24) - 5 / 24 * math.log(1 / 24)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(data.CORPORA, "toy", ("toy", lambda: CORPUS))
    monkeypatch.setattr("saccade.training.task_options._OPTIONS", {"toy": LanguageOptions})
    yield
    torch.set_flush_denormal(False)


def plan_of(options: LanguageOptions | None = None, settings: dict | None = None, **run: object) -> FitPlan:
    chosen = {"epochs": 4, "batch_size": 10, "threads": 1, "learning_rate": 2e-2, "max_gradient_norm": 1.0} | run
    config = find_encoder("lstm").Config(**({"hidden": 12, "embedding": 8} | (settings or {})))
    own = options or LanguageOptions(steps=15)
    return FitPlan("toy", "lstm", FitConfig(**chosen), Augmentation(), config, task_options=own)  # type: ignore[arg-type]


def test_rows_are_read_in_order_and_every_token_is_told_once():
    batches = StreamBatches(Stream(torch.arange(24)), rows=3, steps=3)
    assert len(batches) == 3  # rows of 7: 3 + 3 + 1
    assert batches.batch_size == 9
    parts = list(batches.epoch())
    assert torch.cat([part["x"] for part in parts], 1).tolist() == [list(range(7 * r, 7 * r + 7)) for r in range(3)]
    assert all(torch.equal(part["target"], part["x"] + 1) for part in parts)
    assert [part["x"].shape[1] for part in parts] == [3, 3, 1]


def test_a_state_of_the_batches_goes_on_and_begins_anew_with_the_epoch():
    batches = StreamBatches(CORPUS.train, 4, 100)
    going = batches.epoch()
    next(going)
    batches.state = (torch.ones(4, 2),)
    other = StreamBatches(CORPUS.train, 4, 100)
    other.load_state_dict(batches.state_dict())
    assert torch.equal(other.state[0], torch.ones(4, 2))
    assert torch.equal(next(going)["x"], next(other.epoch())["x"])
    for _ in going:
        pass
    next(batches.epoch())
    assert batches.state == ()


def test_the_state_that_is_carried_is_the_state_of_the_whole():
    """Reading in pieces tells the same as reading at once."""
    task = LanguageTask(plan_of(), CORPUS)
    model = task.make_model(plan_of(), weights=True).eval()
    x = CORPUS.test.ids[:60].view(2, 30)
    whole, _ = model(x, ())
    first, state = model(x[:, :13], ())
    second, _ = model(x[:, 13:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_trained_once(tied: bool):
    plan = plan_of(LanguageOptions(tied=tied, steps=15))
    task = find_task(plan)
    model = task.make_model(plan, weights=True)
    grouped = [parameter for group in model.groups(1.0) for parameter in group.parameters]
    assert len({id(parameter) for parameter in grouped}) == len(grouped) == len(list(model.parameters()))
    assert (model.head.weight is model.encoder.reader.table.weight) == tied  # type: ignore[union-attr]
    before = [parameter.detach().clone() for parameter in grouped]
    for _, _ in zip(range(3), task.make_trainer(plan, model, Compute()), strict=False):
        pass
    assert not any(torch.equal(a, b) for a, b in zip(before, grouped, strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_a_run_comes_near_to_the_entropy(tied: bool, tmp_path: Path):
    plan = plan_of(LanguageOptions(tied=tied, steps=15), epochs=8)
    result = fitting.fit(plan, tmp_path / "run", [])
    found = result["test"]["nats_per_token"]
    assert ENTROPY - 0.1 < found < ENTROPY + 0.2
    assert result["test"]["perplexity"] == pytest.approx(math.exp(found))
    assert result["test"]["tokens"] == 20 * (699 // 20)
    assert result["score"] == {"mean": pytest.approx(math.exp(found), abs=1e-3), "what": "test perplexity"}
    sample = result["test"]["sample"]
    follows = np.mean([(WORDS.index(b) - WORDS.index(a)) % 6 == 1 for a, b in itertools.pairwise(sample)])
    assert follows == pytest.approx(19 / 24, abs=0.12)  # it writes as it has read
    assert (tmp_path / "run" / "curves.png").stat().st_size > 100


def test_resuming_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of(settings={"output_dropout": 0.2, "input_dropout": 0.1}, epochs=2, save_interval_seconds=1e-9)
    whole = fitting.fit(plan, tmp_path / "whole", [])
    parts = killed_and_resumed(plan, tmp_path / "parts", monkeypatch, saves=27)  # within the second epoch
    assert parts["test"] == whole["test"]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="too short"):
        StreamBatches(Stream(torch.arange(5)), 5, 3)
    for settings, message in (({"embedding": 0}, "no learned vectors"), ({"bidirectional": True}, "comes later")):
        plan = plan_of(settings=settings)
        with pytest.raises(UserError, match=message):
            LanguageTask(plan, CORPUS).make_model(plan, weights=True)
    with pytest.raises(UserError, match="leave out"):
        LanguageTask(plan_of(hidden=(3,)), CORPUS)
    nothing = Stream(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError, match="word vectors only"):
        LanguageTask(plan_of(), dataclasses.replace(CORPUS, validation=nothing))


def test_options_belong_to_tasks():
    assert options_of("mine.txt") is LanguageOptions
    assert options_of("mnist") is not LanguageOptions


def test_the_command_line(capsys: pytest.CaptureFixture, tmp_path: Path):
    words = ["fit", "toy", "--encoder", "lstm", "--encoder.embedding", "4", "--encoder.hidden", "8", "--epochs", "1"]
    assert main([*words, "--batch-size", "10", "--threads", "1", "--out", str(tmp_path / "run")]) == 0
    assert "test perplexity" in capsys.readouterr().out
    assert main(["fit", "toy", "--encoder", "lstm", "--task.stepps", "3"]) == 2
