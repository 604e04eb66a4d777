"""Generated tasks, read by loops that know only what a sequence should look like; and digits step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from saccade.data import SequenceDataset, algorithmic, load
from saccade.data.sequences import DrawnBatches, Sequences
from saccade.envs.errors import UserError
from test_data import write_mnist

Rows = list[list[int]]


def numbers(generator_seed: int, name: str, count: int = 200) -> Sequences:
    data = load(name)
    assert isinstance(data, SequenceDataset)
    assert data.draw is not None
    generator = np.random.default_rng(generator_seed)
    draws = [data.draw(generator, 2) for _ in range(count // 2)]
    assert all(draw.lengths[0] == draw.lengths[1] for draw in draws)  # no padding
    starts = np.cumsum([0, *(int(length) for draw in draws for length in draw.lengths)])
    x, target = (torch.cat([getattr(draw, name) for draw in draws]) for name in ("x", "target"))
    return Sequences(x, target, torch.from_numpy(starts), torch.cat([draw.group for draw in draws]))


def each(sequences: Sequences) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets of every sequence, by `take` of one at a time."""
    batches = [sequences.take(torch.tensor([index])) for index in range(len(sequences))]
    return [(batch["x"][0].numpy(), batch["target"][0].numpy()) for batch in batches]


def answer(x: np.ndarray, target: np.ndarray) -> Rows:
    """What is to be told: always at the end, in one piece, with nothing shown meanwhile."""
    asked = (target >= 0).all(1)
    assert np.array_equal(asked, (target >= 0).any(1))
    assert set(np.unique(target)) <= {-1, 0, 1}
    first = int(asked.argmax())
    assert asked[first:].all()
    assert (x[first:] == 0).all()
    return target[first:].astype(int).tolist()


def rows(array: np.ndarray) -> Rows:
    assert set(np.unique(array)) <= {0, 1}
    return array.astype(int).tolist()


def test_copy_tells_what_it_showed():
    lengths = []
    for x, target in each(numbers(1, "copy")):
        [delimiter] = np.flatnonzero(x[:, 8])
        assert x[delimiter].tolist() == [0] * 8 + [1]
        assert answer(x, target) == rows(x[:delimiter, :8])
        lengths.append(int(delimiter))
    assert set(lengths) == set(range(1, 21))


def test_repeat_copy_tells_it_as_often_as_it_says_and_then_ends():
    sizes = []
    for x, target in each(numbers(2, "repeat-copy")):
        [asked] = np.flatnonzero(x[:, 8])
        copies = x[asked, 8] * np.std(range(1, 11)) + np.mean(range(1, 11))  # the paper's: mean 0, variance 1
        assert copies == pytest.approx(round(copies), abs=1e-5)
        vectors = [[*row, 0] for row in rows(x[:asked, :8])]
        assert answer(x, target) == vectors * round(copies) + [[0] * 8 + [1]]
        sizes.append((int(asked), round(copies)))
    assert {length for length, _ in sizes} == {copies for _, copies in sizes} == set(range(1, 11))


def test_associative_recall_tells_what_follows_what_it_is_asked():
    counts, places = [], []
    for x, target in each(numbers(3, "associative-recall")):
        begins, queries = np.flatnonzero(x[:, 6]), np.flatnonzero(x[:, 7])
        assert (x[[*begins, *queries], :6] == 0).all()
        assert begins.tolist() == list(range(0, 4 * len(begins), 4))
        assert queries.tolist() == [4 * len(begins), 4 * len(begins) + 4]
        items = [rows(x[begin + 1 : begin + 4, :6]) for begin in begins]
        assert len({str(item) for item in items}) == len(items)
        place = items.index(rows(x[queries[0] + 1 : queries[1], :6]))
        assert answer(x, target) == items[place + 1]
        counts.append(len(items))
        places.append(place)
    assert set(counts) == {2, 3, 4, 5, 6}
    assert set(places) == {0, 1, 2, 3, 4}


def test_no_two_items_are_alike():
    drawn = algorithmic._distinct(np.random.default_rng(0), 500, 4, below=6)
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    assert set(drawn.flatten().tolist()) == set(range(6))


def test_priority_sort_tells_the_highest_in_order():
    for x, target in each(numbers(4, "priority-sort", 50)):
        assert np.flatnonzero(x[:, 9]).tolist() == [20]
        shown = sorted(zip(x[:20, 8].tolist(), rows(x[:20, :8]), strict=True), reverse=True)
        assert all(-1 <= priority <= 1 for priority, _ in shown)
        assert answer(x, target) == [vector for _, vector in shown[:16]]


def test_copy_slots_are_four_copies_one_after_another():
    for x, target in each(numbers(5, "copy-slots", 20)):
        assert len(x) == 44
        for begin in range(0, 44, 11):
            part = slice(begin, begin + 11)
            assert np.flatnonzero(x[part, 8]).tolist() == [5]
            assert answer(x[part], target[part]) == rows(x[begin : begin + 5, :8])
            assert (x[begin : begin + 5, :8].sum(1) > 0).all()  # none looks like a step of the answer


@pytest.mark.parametrize("name", algorithmic.TASKS)
def test_bits_are_fair_and_follow_from_the_generator(name: str):
    one, two, other = numbers(6, name), numbers(6, name), numbers(7, name)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.target, two.target)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x)
    told = one.target[(one.target >= 0).all(1)]
    bits = told[:, : 6 if name == "associative-recall" else 8]
    assert float(bits.mean()) == pytest.approx(0.5, abs=4 * 0.5 / min(bits.numel(), 2000) ** 0.5)


@pytest.mark.parametrize("name", algorithmic.TASKS)
def test_validation_and_test_are_always_the_same_and_grouped_by_size(name: str):
    data, again = load(name), load(name)
    assert isinstance(data, SequenceDataset)
    assert isinstance(again, SequenceDataset)
    for part, other in ((data.validation, again.validation), (data.test, again.test)):
        assert torch.equal(part.x, other.x)
        assert torch.equal(part.start, other.start)
    assert data.asks_bits
    assert data.outputs == data.test.target.shape[1]
    assert data.spec.shape == (data.test.x.shape[1],)
    assert data.test.x.dtype == data.test.target.dtype == torch.float32
    assert data.test.x.min() >= data.spec.low
    assert data.test.x.max() <= data.spec.high
    assert data.test.group is not None
    assert data.validation.group is not None
    assert data.validation.group.unique().tolist() == [0]
    assert data.test.group.unique().tolist() == list(range(1, len(data.groups)))
    for group in range(1, len(data.groups)):
        assert len(data.test.lengths[data.test.group == group].unique()) == 1  # sizes do not differ in a group


def test_the_sizes_of_the_tests():
    def told(name: str) -> dict[str, int]:
        data = load(name)
        assert isinstance(data, SequenceDataset)
        assert data.test.group is not None
        asked = [int((target >= 0).all(1).sum()) for _, target in each(data.test)]
        return {data.groups[int(group)]: count for group, count in zip(data.test.group, asked, strict=True)}

    assert told("copy") == {"20": 20, "40": 40, "80": 80, "120": 120}
    assert told("repeat-copy") == {"10 x 10": 101, "20 x 10": 201, "10 x 20": 201}
    assert set(told("associative-recall").values()) == {3}
    assert told("priority-sort") == {"16 of 20": 16, "24 of 30": 24, "32 of 40": 32}
    assert told("copy-slots") == {"4": 20, "8": 40, "16": 80}


def test_drawn_batches_read_a_task():
    data = load("copy")
    assert isinstance(data, SequenceDataset)
    assert data.draw is not None
    [first, second] = list(DrawnBatches(data.draw, 16, 2, seed=0).epoch())
    assert first["x"].shape[0] == second["x"].shape[0] == 16
    assert first["x"].shape[2] == 9
    assert (first["target"][~first["mask"]] == -1).all()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SACCADE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "data"


@pytest.mark.parametrize(("name", "steps", "width"), [("sequential-mnist", 28, 28), ("pixel-mnist", 784, 1)])
def test_digits_step_by_step(folder: Path, name: str, steps: int, width: int):
    images, labels, *_ = write_mnist(folder, count=24).values()
    data = load(name)
    assert isinstance(data, SequenceDataset)
    assert (data.spec.shape, data.spec.dtype, data.outputs) == ((width,), "uint8", 10)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [22, 2, 12]
    batch = data.train.take(torch.tensor([7, 3]))
    np.testing.assert_array_equal(batch["x"].numpy(), images[[7, 3]].reshape(2, steps, width))
    assert batch["target"].dtype == torch.int64
    assert batch["target"][:, -1].tolist() == labels[[7, 3]].tolist()
    assert (batch["target"][:, :-1] == -1).all()
    assert batch["mask"].all()
    assert data.train.to("cpu").take(torch.tensor([0]))["target"].dtype == torch.int64


def test_absent_digits_are_named(folder: Path):
    with pytest.raises(UserError, match="'mnist' is not in"):
        load("pixel-mnist")
