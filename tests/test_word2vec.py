"""Word vectors: losses against loops and automatic gradients, batches, analogies, and whole runs on a small text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.__main__ import main
from saccade.data.vocabulary import Vocabulary
from saccade.encoders import make_encoder
from saccade.envs.errors import SpecError, UnknownNameError, UserError
from saccade.envs.spec import ObservationSpec
from saccade.training import word_figures
from saccade.training.bundle import load_bundle
from saccade.training.fit_plan import FitPlan, default_plan
from saccade.training.task_options import Word2VecOptions
from saccade.training.tasks import find_task
from saccade.training.word2vec_task import VOCABULARY_FILE, check_options
from saccade.training.word_batches import WordBatches
from saccade.training.word_losses import Shift, bag_gradients, bag_loss, skip_gram_gradients, skip_gram_loss
from saccade.training.word_model import WordModel
from saccade.training.word_vectors import (
    accuracy,
    analogies,
    answer_sections,
    keep_probability,
    neighbours,
    noise_distribution,
)
from torch import Tensor

N, L, W, K, D = 2, 3, 2, 4, 5
SHARE = 3 / K
RANDOM = ObservationSpec((), "int64", 0, 9, vocabulary=10)


def example(model: str, shifted: bool) -> tuple[list[Tensor], Tensor, Shift | None]:
    """Vectors in double precision, of which gradients are wanted; pairs, a word without any among them; shifts."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    wide, narrow = (N, L + 2 * W), (N, L)
    inputs, targets = (narrow, wide) if model == "skip-gram" else (wide, narrow)
    pair = (torch.rand(N, L, L + 2 * W, generator=generator) < 0.5).double()
    pair[1, 1] = 0
    return [draw(*inputs, D), draw(*targets, D), draw(K, D)], pair, Shift(draw(*targets), draw(K)) if shifted else None


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def slow_loss(model: str, vectors: list[Tensor], pair: Tensor, shift: Shift | None) -> float:
    """Eq. 4 of Mikolov et al. 2013 pair by pair, each with all of the noise words."""
    v, u, z = (values.detach().numpy() for values in vectors)
    by_target = np.zeros(u.shape[:2]) if shift is None else shift.target.detach().numpy()
    by_noise = np.zeros(K) if shift is None else shift.noise.detach().numpy()
    total = 0.0
    for n in range(N):
        for i in range(L):
            context = [j for j in range(L + 2 * W) if pair[n, i, j]]
            if model == "skip-gram":
                cases = [(v[n, i], u[n, j], by_target[n, j]) for j in context]
            else:
                cases = [(sum(v[n, j] for j in context) / len(context), u[n, i], by_target[n, i])] if context else []
            for hidden, output, more in cases:
                total += softplus(-(hidden @ output + more))
                total += SHARE * sum(softplus(hidden @ z[k] + by_noise[k]) for k in range(K))
    return total


@pytest.mark.parametrize("shifted", [False, True], ids=["negative-sampling", "nce"])
@pytest.mark.parametrize("model", ["skip-gram", "cbow"])
def test_losses_and_their_gradients(model: str, shifted: bool):
    loss_of, gradients_of = (skip_gram_loss, skip_gram_gradients) if model == "skip-gram" else (bag_loss, bag_gradients)
    vectors, pair, shift = example(model, shifted)
    loss = loss_of(*vectors, pair, SHARE, shift)
    assert loss.item() == pytest.approx(slow_loss(model, vectors, pair, shift), rel=1e-10)
    loss.backward()
    with torch.no_grad():
        found = gradients_of(*vectors, pair, SHARE, shift)
    for ours, leaf in zip(found[:3], vectors, strict=True):
        torch.testing.assert_close(ours, leaf.grad)
    if shift is not None:
        torch.testing.assert_close(found.shift.target, shift.target.grad)
        torch.testing.assert_close(found.shift.noise, shift.noise.grad)


def test_which_words_are_noise_and_which_are_kept():
    counts = torch.tensor([10_000, 625, 16])
    # 10,000^0.75 = 1000, 625^0.75 = 125, 16^0.75 = 8
    assert noise_distribution(counts).tolist() == pytest.approx([1000 / 1133, 125 / 1133, 8 / 1133])
    counts = torch.tensor([90, 9, 1, 0])  # a share of 0.09 has sqrt(0.01 / 0.09) + 0.01 / 0.09 = 4 / 9
    assert keep_probability(counts, 0.01).tolist() == pytest.approx([0.01 / 0.9 + (0.01 / 0.9) ** 0.5, 4 / 9, 1, 1])
    assert keep_probability(counts, 0).tolist() == [1, 1, 1, 1]


def test_neighbours_go_by_angle():
    vectors = torch.tensor([[1.0, 0.0], [10.0, 1.0], [0.0, 3.0], [-1.0, 0.0]])
    ids, cosines = neighbours(vectors, torch.tensor([0, 2]), 9)
    assert ids.tolist() == [[1, 2, 3], [1, 0, 3]] or ids.tolist() == [[1, 2, 3], [1, 3, 0]]
    assert cosines[0].tolist() == pytest.approx([10 / 101**0.5, 0, -1])


def test_analogies_are_none_of_the_words_asked():
    # sex on the first axis, rank on the second: man, woman, king, queen, and a word that is between
    vectors = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [0.6, 0.8], [-0.6, 0.8], [0.0, 1.0]])
    questions = torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 1, 4]])
    assert analogies(vectors, questions).tolist() == [3, 1, 3]
    found = answer_sections(vectors, {"royal": questions, "none": questions[:0]})
    assert found == {"royal": (3, 2)}
    assert accuracy(found) == pytest.approx(2 / 3)
    assert accuracy({}) == 0
    assert analogies(vectors, questions[:0]).tolist() == []
    with pytest.raises(UserError, match="four words"):
        analogies(vectors[:3], questions)


def batches_of(size: int = 1000, **change: object) -> WordBatches:
    """Of a text in which every word occurs once, so that a word is its place."""
    chosen = {"window": 3, "noise": 8, "sample": 0.0, "batch_size": 90, "seed": 1} | change
    return WordBatches(torch.arange(size), torch.ones(size, dtype=torch.int64), **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 7, 1000])
def test_every_word_is_read_once_with_words_around_it(size: int):
    batches = batches_of(size)
    centres, reaches = [], []
    epoch = list(batches.epoch())
    assert len(epoch) == len(batches) == -(-size // 90)
    for batch in epoch:
        x, pair = batch["x"], batch["pair"].bool()
        assert (x.diff(dim=1) % size == 1).all()
        centre = x[:, 3:-3]
        centres += centre[pair.any(-1)].tolist()
        offset = torch.arange(pair.shape[2]) - 3 - torch.arange(pair.shape[1])[:, None]
        assert not (pair & (offset == 0)).any()
        reach = (pair * offset.abs()).amax(-1)
        assert torch.equal(pair, (offset.abs() <= reach[..., None]) & (offset != 0))
        reaches += reach[reach > 0].tolist()
    assert sorted(centres) == list(range(size))
    if size == 1000:
        assert np.bincount(reaches)[1:] == pytest.approx([333] * 3, abs=60)


def test_frequent_words_are_thinned_and_noise_follows_its_distribution():
    counts = torch.tensor([8000, 1500, 500])
    ids = torch.repeat_interleave(torch.arange(3), counts)[torch.randperm(10_000)]
    batches = WordBatches(ids, counts, window=2, noise=20, sample=0.1, batch_size=500, seed=0)
    read, noise = np.zeros(3), np.zeros(3)
    for batch in batches.epoch():
        centre = batch["x"][:, 2:-2][batch["pair"].any(-1)]
        read += np.bincount(centre, minlength=3)
        noise += np.bincount(batch["noise"], minlength=3)
    expected = (keep_probability(counts, 0.1) * counts).numpy()
    assert read == pytest.approx(expected, rel=0.05)
    assert noise / noise.sum() == pytest.approx(noise_distribution(counts).numpy(), abs=0.02)


def test_batches_go_on_exactly_where_they_were():
    first = batches_of(9000)
    straight = [*first.epoch(), *first.epoch()]
    other = batches_of(9000)
    for number in (0, 63, 64, 70, len(other) + 3):
        other.load_state_dict({"epoch": number // len(other), "next": number % len(other)})
        batch = next(iter(other.epoch()))
        assert all(torch.equal(batch[name], straight[number][name]) for name in batch)
        assert other.state_dict() == {"epoch": number // len(other), "next": number % len(other) + 1}
    assert not torch.equal(straight[0]["x"], straight[len(other)]["x"])  # another order


def test_batches_refuse_what_makes_none():
    with pytest.raises(UserError, match="positive"):
        batches_of(window=0)
    with pytest.raises(UserError, match="two words"):
        batches_of(1)


def model_of(**options: object) -> WordModel:
    chosen = Word2VecOptions(window=2, negatives=3, noise=6, **options)  # type: ignore[arg-type]
    counts = torch.arange(20, 10, -1)
    model = WordModel(make_encoder("embedding", RANDOM), counts, chosen)
    model.restart(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.outputs)
    return model


@pytest.mark.parametrize("loss", ["negative-sampling", "nce"])
@pytest.mark.parametrize("kind", ["skip-gram", "cbow"])
def test_an_update_is_a_step_down_the_sum_of_the_loss(kind: str, loss: str):
    model = model_of(model=kind, loss=loss)
    ids = torch.randint(10, (60,))
    batch = next(iter(WordBatches(ids, torch.ones(10), window=2, noise=6, sample=0, batch_size=60, seed=0).epoch()))
    pair, rows = batch["pair"], {"skip-gram": 0, "cbow": 1}[kind]
    count = pair.sum() if rows == 0 else pair.sum(-1).clamp(max=1).sum()
    tables = {"in": model.vectors.clone(), "out": model.outputs.detach().clone()}
    if model.is_nce:
        tables["bias"] = model.bias.detach().clone()
    tables = {name: table.requires_grad_() for name, table in tables.items()}
    wide, narrow = batch["x"], batch["x"][:, 2:-2]
    inputs, targets = (narrow, wide) if rows == 0 else (wide, narrow)
    shift = None
    if model.is_nce:
        counts = torch.arange(20, 10, -1).double() ** 0.75
        shifts = tables["bias"] - (3 * counts / counts.sum()).log().float()
        shift = Shift(shifts[targets], shifts[batch["noise"]])
    vectors = tables["in"][inputs], tables["out"][targets], tables["out"][batch["noise"]]
    total = (skip_gram_loss if rows == 0 else bag_loss)(*vectors, pair, 3 / 6, shift)
    torch.testing.assert_close(model.loss(batch), total.detach() / count)
    total.backward()
    model.update(batch, 0.1)
    stepped = {"in": model.vectors, "out": model.outputs, "bias": getattr(model, "bias", None)}
    for name, table in tables.items():
        torch.testing.assert_close(stepped[name], table - 0.1 * table.grad)  # type: ignore[operator]


def test_a_memory_learns_its_table_too():
    spec = RANDOM
    memory = make_encoder("lstm", spec, dataclasses.replace(_default("lstm"), embedding=4))
    assert WordModel(memory, torch.ones(10), Word2VecOptions()).vectors.shape == (10, 4)
    with pytest.raises(SpecError, match="--encoder embedding"):
        WordModel(make_encoder("lstm", spec), torch.ones(10), Word2VecOptions())


def _default(name: str):
    return default_plan("word2vec", name).encoder_config


TOPICS = [["red", "green", "blue", "amber", "violet"], ["cat", "dog", "horse", "cow", "sheep"]]
QUESTIONS = ": colours\nRed Green Blue Amber\nRed Cat Blue Dog\n: others\nParis France Rome Italy\n"


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sentences of seven words of one topic each, and a few questions."""
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(TOPICS[topic], 7)) for topic in generator.integers(0, 2, 700)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines))
    (tmp_path / "questions-words.txt").write_text(QUESTIONS)
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path))
    return path


def words_of(text: Path, **options: object) -> list[str]:
    given = {"text": text, "window": 2, "sample": 0, "noise": 16} | options
    return [word for name, value in given.items() for word in (f"--task.{name}", str(value))]


@pytest.mark.parametrize("loss", ["negative-sampling", "nce"])
@pytest.mark.parametrize("kind", ["skip-gram", "cbow"])
def test_words_of_a_topic_become_neighbours(text: Path, kind: str, loss: str):
    plan = default_plan("word2vec", "embedding")
    options = Word2VecOptions(kind, loss, window=2, sample=0, noise=16, text=str(text))  # type: ignore[arg-type]
    run = dataclasses.replace(plan.run, epochs=8, batch_size=30)
    plan = dataclasses.replace(plan, run=run, task_options=options)
    task = find_task(plan)
    model = task.make_model(plan, weights=True)
    trainer = task.make_trainer(plan, model, _compute())
    before = model.loss(next(iter(trainer.batches.epoch())))  # type: ignore[operator]
    trainer.batches.load_state_dict({"epoch": 0, "next": 0})
    for _ in trainer:
        pass
    assert trainer.losses.read()["loss"] < before
    words, ids = task.vocabulary.words, torch.arange(10)  # type: ignore[attr-defined]
    nearest, _ = neighbours(model.vectors, ids, 4)  # type: ignore[arg-type]
    for word, near in zip(words, nearest, strict=True):
        [topic] = [topic for topic in TOPICS if word in topic]
        assert {words[place] for place in near} == set(topic) - {word}


def _compute():
    from saccade.agents.parts.compute import Compute

    return Compute()


def test_a_run_leaves_vectors_words_and_pictures(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    more = ["--encoder.width", "16", "--epochs", "2", "--out", str(out), "--task.shown", "red", "cat", "unheard"]
    assert main(["fit", "word2vec", "--encoder", "embedding", *words_of(text), *more]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["vocabulary"] == 10
    assert result["words"] == 4410  # 90 % of the text: the split of a user's own
    assert result["test"]["asked"] == 2
    assert list(result["test"]["sections"]) == ["colours"]
    assert set(result["test"]["neighbours"]) == {"red", "cat"}
    assert {path.stem for path in out.glob("*.png")} == {"map", "neighbours", "analogies", "curves"}
    bundle = load_bundle(out)
    vocabulary = Vocabulary.load(out / "bundle" / VOCABULARY_FILE)
    assert bundle.encoder.vectors.shape == (len(vocabulary), 16)
    assert FitPlan.load(out).task_options.shown == ("red", "cat", "unheard")
    assert "of 2 analogies answered in per cent" in capsys.readouterr().out

    again = tmp_path / "again"  # with the vectors of the first: they are taken, not drawn anew
    more = ["--epochs", "1", "--learning-rate", "1e-9", "--out", str(again)]
    assert main(["fit", "word2vec", "--encoder", str(out), *words_of(text), *more]) == 0
    torch.testing.assert_close(load_bundle(again).encoder.vectors, bundle.encoder.vectors)


def test_a_run_is_resumed_exactly(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from saccade.training import fit as fitting

    plan = default_plan("word2vec", "embedding")
    options = Word2VecOptions(window=2, noise=16, text=str(text), loss="nce")
    run = dataclasses.replace(plan.run, epochs=2, batch_size=100, save_interval_seconds=1e9)
    plan = dataclasses.replace(plan, run=run, task_options=options)
    fitting.fit(plan, tmp_path / "straight", trackers=[])
    real, updates = fitting._after_epoch, []

    def stop_after_the_first_epoch(going, trackers) -> None:
        real(going, trackers)
        updates.append(going.trainer.updates)
        if len(updates) == 1:
            fitting.save(going)
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_after_epoch", stop_after_the_first_epoch)
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(plan, tmp_path / "stopped", trackers=[])
    fitting.resume(tmp_path / "stopped", trackers=[])
    assert len(updates) == 2
    straight, resumed = (load_bundle(tmp_path / name).encoder.vectors for name in ("straight", "stopped"))
    assert torch.equal(straight, resumed)


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ({"optimizer": "adam"}, {}, "plain steps"),
        ({"weight_decay": 0.1}, {}, "plain steps"),
        ({"encoder_mode": "frozen"}, {}, "nothing to learn"),
        ({"patience": 2}, {}, "no validation set"),
        ({"labels": 5}, {}, "for images only"),
        ({}, {"window": 0}, "--task.window"),
        ({}, {"sample": -1.0}, "--task.sample"),
    ],
)
def test_settings_without_sense_are_refused(run: dict, options: dict, message: str):
    plan = default_plan("word2vec", "embedding")
    changed = dataclasses.replace(plan.run, **run)
    plan = dataclasses.replace(plan, run=changed, task_options=Word2VecOptions(**options))
    with pytest.raises(UserError, match=message):
        check_options(plan)


def test_an_unknown_loss_is_refused():
    plan = default_plan("word2vec", "embedding")
    with pytest.raises(UnknownNameError, match="negative-sampling"):
        check_options(dataclasses.replace(plan, task_options=Word2VecOptions(loss="softmax")))  # type: ignore[arg-type]


def test_what_is_alike_lies_together_in_the_plane():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.eye(2, 8).repeat_interleave(12, 0) + 0.1 * torch.randn(24, 8, generator=generator)
    points = word_figures.plane(vectors)
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(24)
    assert (distance.argmin(1) // 12 == np.arange(24) // 12).all()
