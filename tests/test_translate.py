"""Translation with attention: the pairs, the decoder against NumPy, searches against enumeration, and a whole run."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from saccade import data
from saccade.__main__ import main
from saccade.agents.parts.compute import Compute
from saccade.benchmarks import BenchOptions
from saccade.benchmarks import translate as benchmark
from saccade.benchmarks.parts.plan import Outcome
from saccade.data import dates
from saccade.data.dates import FORMATS, LETTERS, SYMBOLS, Pairs, PairsDataset, pairs
from saccade.encoders import list_encoders, make_encoder
from saccade.envs.errors import SpecError
from saccade.training import fit as fitting
from saccade.training.attention import Decoder, Memory, beam_search, character_nats, greedy
from saccade.training.fit_arguments import parse_fit
from saccade.training.task_options import TranslateOptions
from saccade.training.tasks import find_task
from saccade.training.translate_task import TranslateTask, Translator, attention_figure, compare, translate


@pytest.fixture(scope="module")
def known() -> PairsDataset:
    return dates.load()


def texts(split: Pairs) -> set[str]:
    """What there is to be told."""
    return {"".join(SYMBOLS[place] for place in row if 0 <= place < len(SYMBOLS)) for row in split.written.tolist()}


def test_no_date_is_both_learned_and_judged(known: PairsDataset):
    days = [texts(split) for split in (known.train, known.validation, known.test)]
    assert [len(found) for found in days[1:]] == [2000, 2000]
    assert len(days[0]) > 15_000
    assert not (days[0] & days[1])
    assert not (days[0] & days[2])
    assert not (days[1] & days[2])
    for text in days[2]:
        assert dates.FIRST <= datetime.date.fromisoformat(text) <= dates.LAST


def test_a_day_in_every_format():
    day = datetime.date(1998, 3, 3)
    for name, write in FORMATS.items():
        if "25" not in name:  # that is another day
            assert write(day) == name
    assert FORMATS["3/25/1998"](datetime.date(1998, 3, 25)) == "3/25/1998"
    assert FORMATS["the 3rd of March 1998"](datetime.date(2011, 12, 11)) == "the 11th of December 2011"
    assert FORMATS["the third of March, 1998"](datetime.date(2011, 12, 31)) == "the thirty-first of December, 2011"
    assert FORMATS["le 3 mars 1998"](datetime.date(2000, 2, 1)) == "le 1er février 2000"


def test_no_text_means_two_days():
    """Over all days and formats; a quarter of the days is enough to see, and quick."""
    meant: dict[str, datetime.date] = {}
    for number in range(0, 36_525, 4):
        day = dates.FIRST + datetime.timedelta(number)
        for write in FORMATS.values():
            assert meant.setdefault(write(day), day) == day


def test_pairs_are_padded_together():
    found = pairs(["3/4/1998", "19980304"], ["1998-03-04", "12"])
    batch = found.take(torch.tensor([1, 0]))
    assert "".join(LETTERS[place] for place in batch["x"][0]) == "19980304"
    assert batch["written"].tolist() == [[1, 2, 11, *[-1] * 8], [1, 9, 9, 8, 10, 0, 3, 10, 0, 4, 11]]
    assert torch.equal(found.to("cpu").written, found.written)


def memory(decoder: Decoder, rows: int, steps: int = 5, features: int = 4) -> Memory:
    values = torch.randn(steps, rows, features, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(steps) < torch.arange(steps, steps - rows, -1).clamp(min=1).unsqueeze(1)
    return decoder.read(values, mask)


def small_decoder(attention: str = "additive") -> Decoder:
    torch.manual_seed(1)
    decoder = Decoder(4, 3, hidden=6, embedding=2, attention=attention)  # type: ignore[arg-type]
    with torch.no_grad():
        decoder.output.weight.mul_(4)
    return decoder


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_a_step_against_the_equations(attention: str):
    """One row without padding: e = v tanh(W s + U h) or s U h, weights, context, the GRU, the output."""
    decoder = small_decoder(attention)
    held, p = memory(decoder, 1), {name: value.double().numpy() for name, value in decoder.state_dict().items()}
    state, last = torch.linspace(-1, 1, 6).unsqueeze(0), torch.tensor([2])
    logits, after, weights = decoder.step(held, state, last)
    h, s = held.values[0].double().numpy(), state[0].double().numpy()
    keys = h @ p["key.weight"].T + p["key.bias"]
    energy = np.tanh(p["query.weight"] @ s + keys) @ p["energy.weight"][0] if attention == "additive" else keys @ s
    alpha = np.exp(energy) / np.exp(energy).sum()
    seen = np.concatenate([p["symbols.weight"][2], alpha @ h])
    w, u = (p[f"cell.weight_{kind}"].reshape(3, 6, -1) for kind in ("ih", "hh"))
    b, d = (p[f"cell.bias_{kind}"].reshape(3, 6) for kind in ("ih", "hh"))
    r, z = (sigmoid(w[i] @ seen + b[i] + u[i] @ s + d[i]) for i in (0, 1))
    new = np.tanh(w[2] @ seen + b[2] + r * (u[2] @ s + d[2]))
    s = (1 - z) * new + z * s
    np.testing.assert_allclose(weights[0], alpha, rtol=1e-5)
    np.testing.assert_allclose(after[0], s, rtol=1e-4, atol=1e-6)
    said = p["output.weight"] @ np.concatenate([seen, s]) + p["output.bias"]
    np.testing.assert_allclose(logits[0], said, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_is_not_looked_at():
    decoder = small_decoder()
    values = torch.randn(5, 2, 4)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    changed = values.clone()
    changed[3:] = 100
    for told in (greedy, lambda d, m, most: beam_search(d, m, 3, most)):
        before, after = (told(decoder, decoder.read(v, mask), 4) for v in (values, changed))
        assert torch.equal(before.symbols, after.symbols)
        torch.testing.assert_close(before.score, after.score)
        if before.weights is not None:
            assert not before.weights[..., 3:].any()
            torch.testing.assert_close(before.weights.sum(2), torch.ones(before.weights.shape[:2]))


def all_scores(decoder: Decoder, held: Memory, row: int, most: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every sequence that ends, or is cut at `most` symbols."""
    one = Memory(*(part[row : row + 1] for part in held))
    found = {}
    for length in range(1, most + 1):
        for body in itertools.product(range(decoder.end), repeat=length - 1):
            lasts = [decoder.end] if length < most else range(decoder.end + 1)
            for last in lasts:
                symbols = torch.tensor([[*body, last]])
                found[(*body, last)] = -float(character_nats(decoder(one, symbols)[0], symbols).sum())
    return found


@torch.no_grad()
@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_a_wide_beam_finds_the_likeliest_of_all(attention: str):
    decoder, most = small_decoder(attention), 4
    held = memory(decoder, 3)
    found = beam_search(decoder, held, 40, most)
    for row in range(3):
        scores = all_scores(decoder, held, row, most)
        assert sum(np.exp(list(scores.values()))) == pytest.approx(1, rel=1e-4)
        best = max(scores, key=lambda symbols: scores[symbols])
        assert [symbol for symbol in found.symbols[row].tolist() if symbol >= 0] == list(best)
        assert float(found.score[row]) == pytest.approx(scores[best], rel=1e-4)


@torch.no_grad()
def test_a_beam_of_one_is_greedy():
    decoder = small_decoder()
    held = memory(decoder, 4)
    first, second = greedy(decoder, held, 6), beam_search(decoder, held, 1, 6)
    length = min(first.symbols.shape[1], second.symbols.shape[1])
    assert torch.equal(first.symbols[:, :length], second.symbols[:, :length])
    torch.testing.assert_close(first.score, second.score)
    assert (beam_search(decoder, held, 3, 6).score >= first.score - 1e-5).all()
    nats = character_nats(decoder(held, first.symbols)[0], first.symbols).sum(1)
    torch.testing.assert_close(-nats, first.score)


def test_comparing_counts_whole_translations():
    right = np.array([[1, 2, 3], [4, 3, -1], [5, 6, 3]])
    told = np.array([[1, 2, 3], [4, 3, 2], [5, 1, 3]])
    found = compare(told, right)
    assert (found["mistakes"], found["exact"]) == (2, pytest.approx(1 / 3))
    assert found["wrong_symbols"] == pytest.approx(1 / 8)


def few(split: Pairs, count: int) -> Pairs:
    end = int(split.start[count])
    parts = {name: getattr(split, name)[:count] for name in ("written",)}
    return dataclasses.replace(
        split, x=split.x[:end], target=split.target[:end], start=split.start[: count + 1], **parts
    )


@pytest.fixture
def small(known: PairsDataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[PairsDataset]:
    splits = {"train": few(known.train, 60), "validation": few(known.validation, 20), "test": few(known.test, 20)}
    found = dataclasses.replace(known, **splits)
    monkeypatch.setattr(data, "load", lambda name, **rest: found)
    yield found
    torch.set_flush_denormal(False)


WORDS = ["--batch-size", "20", "--threads", "1", "--task.hidden", "32", "--task.beam", "3", "--encoder.hidden", "16"]


def test_a_run_from_end_to_end(small: PairsDataset, tmp_path: Path):
    plan = parse_fit("dates", ["--encoder", "lstm", *WORDS, "--epochs", "3"]).plan
    assert plan.encoder_config.bidirectional
    result = fitting.fit(plan, tmp_path / "run", [])
    assert result["score"]["mean"] == pytest.approx(100 * result["test"]["exact"], abs=1e-3)
    assert result["test"]["beam"]["width"] == 3
    for name in ("attention.png", "curves.png", "bundle/bundle.json"):
        assert (tmp_path / "run" / name).stat().st_size > 100


@pytest.mark.parametrize("encoder", ["lstm", "gru"])
def test_few_pairs_are_learned_by_heart(small: PairsDataset, encoder: str):
    plan = parse_fit("dates", ["--encoder", encoder, *WORDS, "--epochs", "60", "--learning-rate", "2e-2"]).plan
    task = find_task(plan)
    assert isinstance(task, TranslateTask)
    task.dataset = dataclasses.replace(small, train=few(small.train, 10))
    model = task.make_model(plan, weights=True)
    assert isinstance(model, Translator)
    for _ in task.make_trainer(plan, model, Compute()):
        pass
    for width in (1, 3):
        told = translate(model, task.dataset.train, Compute(), width)
        assert compare(told, task.dataset.train.written.numpy())["exact"] == 1
    assert model.training
    figure = attention_figure(model, dataclasses.replace(small, test=task.dataset.train), range(2), Compute())
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title() == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task.beam", "0"], "at least 1"),
        (["--hidden", "8"], "--task.hidden"),
        (["--augment.flip"], "cannot be moved"),
        (["--labels", "5"], "for images only"),
        (["--encoder", "mlp"], "tokens"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, small: PairsDataset, capsys, tmp_path: Path):
    rest = [] if "--encoder" in words else ["--encoder", "lstm"]
    assert main(["fit", "dates", *rest, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_options_are_those_of_the_task():
    plan = parse_fit("dates", ["--encoder", "gru", "--task.attention", "dot"]).plan
    assert plan.task_options == TranslateOptions(attention="dot")


def test_every_encoder_that_reads_letters_can_be_trained(small: PairsDataset):
    batch, found = small.train.take(torch.arange(2)), []
    for name in list_encoders():
        try:
            encoder = make_encoder(name, small.spec)
        except SpecError:
            continue
        nats = Translator(encoder, small.outputs, TranslateOptions(hidden=8)).loss(batch)["cross_entropy"]
        assert nats.shape == (22,)
        nats.sum().backward()
        found.append(name)
    assert {"embedding", "lstm", "gru"} <= set(found)


def test_the_benchmark(small: PairsDataset, tmp_path: Path):
    """Its commands can be parsed, and its report holds the map of a run."""
    outcomes = []
    for run in benchmark.runs(BenchOptions(seeds=2)):
        plan = parse_fit(run.arguments[2], [*run.arguments[3:], *WORDS, "--epochs", "1"]).plan
        assert plan.task == "dates"
        folder = tmp_path / run.name
        if run.name == "lstm-seed0":
            fitting.fit(plan, folder, [])
        else:
            folder.mkdir()
            (folder / "metrics.jsonl").write_text('{"step": 50, "seconds": 1, "validation/error": 0.1}\n')
        test = {"exact": 0.98 + 0.02 * run.seed, "wrong_symbols": 0.001, "beam": {"exact": 0.995}}
        result = {"test": test, "epochs": 1, "seconds": 10.0, "core_seconds": 9.0}
        outcomes.append(Outcome(run, folder, None if run.group == "dot" else result, ""))
    report = benchmark.report(outcomes, BenchOptions())
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert rows["LSTM, both directions, additive attention, 1 epochs"][:4] == (
        "99.00",
        "98.00, 100.00",
        "99.50",
        "0.100",
    )
    assert rows["LSTM, both directions, dot attention"][0] == "all runs failed"
    assert report.data["met"]
    assert set(report.figures) == {"translate", "translate-attention"}
