"""Tasks for memories, generated as they are needed: copy, repeat copy, associative recall and priority sort (Graves,
Wayne and Danihelka 2014, "Neural Turing Machines", section 4), and copies one after another through few slots (Graves
et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Extended Data Figure 1).

A step shows float32 channels: the bits of a vector, then marks that say what follows. Nothing is shown while an answer
is given. Every bit, and every number of steps, is drawn uniformly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..envs.spec import ObservationSpec
from .sequences import NOT_ASKED, SequenceDataset, Sequences

Generator = np.random.Generator
VALIDATED, TESTED = 500, 200  # sequences for validation, and for each of a test's groups
BITS = 8  # of a vector; associative recall has ITEM_BITS
REPEATED = (
    5.5,
    8.25**0.5,
)  # mean and deviation of 1 to 10 copies, by which repeat copy scales them
ITEM, ITEM_BITS = 3, 6  # vectors of an item in associative recall, and bits of each


def copy(generator: Generator, lengths: np.ndarray, least: int = 0) -> Sequences:
    """`lengths` `[N]` vectors, a delimiter, then the same vectors are to be told: 2 · length + 1 steps (section 4.1).

    Channels: 8 bits, delimiter. A vector is drawn uniformly from the numbers of 8 bits that are at least `least`.
    """
    row, step, start = _lay_out(2 * lengths + 1)
    length = lengths[row]
    x, target = _blank(len(row), BITS + 1, BITS)
    shown, told = step < length, step > length
    x[shown, :BITS] = _bits(generator, int(shown.sum()), BITS, least)
    x[step == length, BITS] = 1
    target[told] = x[np.flatnonzero(told) - length[told] - 1, :BITS]
    return _sequences(x, target, start)


def repeat_copy(generator: Generator, lengths: np.ndarray, copies: np.ndarray) -> Sequences:
    """Vectors, then how often they are to be told, as one number; a last bit ends the answer (section 4.2).

    Channels: 8 bits, the number of copies in units of the deviation from its mean; told are 8 bits and the end. There
    are length · (copies + 1) + 2 steps.
    """
    row, step, start = _lay_out(lengths * (copies + 1) + 2)
    length, count = lengths[row], copies[row]
    x, target = _blank(len(row), BITS + 1, BITS + 1)
    shown = step < length
    x[shown, :BITS] = _bits(generator, int(shown.sum()), BITS)
    asked = step == length
    x[asked, BITS] = (count[asked] - REPEATED[0]) / REPEATED[1]
    since = step - length - 1  # steps of the answer so far
    told = since >= 0
    target[told] = 0
    again = told & (since < length * count)
    target[again, :BITS] = x[start[row[again]] + since[again] % length[again], :BITS]
    target[since == length * count, BITS] = 1
    return _sequences(x, target, start)


def associative_recall(generator: Generator, items: np.ndarray) -> Sequences:
    """Items of 3 vectors of 6 bits, then one of them (not the last) as a query: the next is to be told (section 4.3).

    Channels: 6 bits, item delimiter, query delimiter. A delimiter stands before each item, and the query between two of
    its own: 4 · items + 8 steps. No two items of a sequence are alike.
    """
    lengths = 4 * items + 8
    row, step, start = _lay_out(lengths)
    x, target = _blank(len(row), ITEM_BITS + 2, ITEM_BITS)
    place, inside = np.divmod(step, 1 + ITEM)  # the query is the item behind the last
    is_item = place < items[row]
    codes = _distinct(generator, len(items), int(items.max()), 1 << ITEM * ITEM_BITS)
    chosen = generator.integers(0, items - 1)
    every = np.arange(len(items))
    codes = np.concatenate([codes, codes[every, chosen, None]], 1)
    shown = (place <= items[row]) & (inside > 0)
    code = codes[row[shown], np.where(is_item[shown], place[shown], -1)]
    x[shown, :ITEM_BITS] = _unpack(code, inside[shown] - 1)
    x[is_item & (inside == 0), ITEM_BITS] = 1
    query = 4 * items[row]
    x[(step == query) | (step == query + 1 + ITEM), ITEM_BITS + 1] = 1
    since = step - query - 2 - ITEM
    told = since >= 0
    target[told] = _unpack(codes[row[told], chosen[row[told]] + 1], since[told])
    return _sequences(x, target, start)


def priority_sort(generator: Generator, shown: np.ndarray, told: np.ndarray) -> Sequences:
    """Vectors, each with a priority from -1 to 1; then those of the highest priorities, falling (section 4.5).

    Channels: 8 bits, priority, delimiter. There are shown + 1 + told steps; the paper does not say whether it has the
    delimiter.
    """
    row, step, start = _lay_out(shown + 1 + told)
    x, target = _blank(len(row), BITS + 2, BITS)
    is_shown = step < shown[row]
    count = int(is_shown.sum())
    x[is_shown, :BITS] = _bits(generator, count, BITS)
    x[is_shown, BITS] = generator.uniform(-1, 1, count)
    x[step == shown[row], BITS + 1] = 1
    of = row[is_shown]
    falling = np.flatnonzero(is_shown)[np.lexsort((-x[is_shown, BITS], of))]  # row by row, each by priority
    first = np.cumsum(shown) - shown  # where each row begins in `falling`
    since = step - shown[row] - 1
    is_told = since >= 0
    target[is_told] = x[falling[first[row[is_told]] + since[is_told]], :BITS]
    return _sequences(x, target, start)


def copy_slots(generator: Generator, episodes: np.ndarray, length: int = 5) -> Sequences:
    """`episodes` `[N]` copies in one sequence: `length` vectors, a delimiter, the vectors are to be told, and so on.

    4 episodes bring 20 vectors to a memory of 10 slots, which must free them to go on. Channels and vectors as in
    `copy` (the paper does not state their size), but none is all zeros: a controller without memory could not tell it
    from a step of the answer. 11 steps an episode.
    """
    one = copy(generator, np.full(int(episodes.sum()), length), least=1)
    return Sequences(one.x, one.target, torch.from_numpy(_starts(episodes * (2 * length + 1))))


def _lay_out(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every step of all sequences: which sequence, and its place there; and where each sequence begins `[N + 1]`."""
    start = _starts(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(start[-1]) - start[row], start


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _blank(steps: int, channels: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((steps, channels), np.float32), np.full((steps, bits), NOT_ASKED, np.float32)


def _bits(generator: Generator, count: int, bits: int, least: int = 0) -> np.ndarray:
    """`[count, bits]`, of numbers that are at least `least`."""
    numbers = generator.integers(least, 1 << bits, count)
    return ((numbers[:, None] >> np.arange(bits)) & 1).astype(np.float32)


def _distinct(generator: Generator, rows: int, count: int, below: int) -> np.ndarray:
    """`[rows, count]` numbers, no two alike in a row."""
    drawn = generator.integers(0, below, (rows, count))
    while (again := (np.diff(np.sort(drawn, 1), axis=1) == 0).any(1)).any():
        drawn[again] = generator.integers(0, below, (int(again.sum()), count))
    return drawn


def _unpack(code: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The bits `[S, 6]` of one vector of each item."""
    return (code[:, None] >> (vector[:, None] * ITEM_BITS + np.arange(ITEM_BITS))) & 1


def _sequences(x: np.ndarray, target: np.ndarray, start: np.ndarray) -> Sequences:
    return Sequences(torch.from_numpy(x), torch.from_numpy(target), torch.from_numpy(start))


@dataclass(frozen=True)
class Task:
    """Sizes are drawn from `sizes`, the bounds of each, for training; a test has groups of fixed sizes."""

    kind: str
    make: Callable[..., Sequences]
    sizes: tuple[tuple[int, int], ...]
    tests: dict[str, tuple[int, ...]]  # the groups of the test: name -> sizes
    spec: ObservationSpec
    outputs: int


def _numbers(channels: int, low: float = 0) -> ObservationSpec:
    return ObservationSpec((channels,), "float32", low, np.inf if low else 1)


TASKS = {
    "copy": Task(
        "generated: 1 to 20 vectors of 8 bits, to be told again; tested at 20, 40, 80 and 120",
        copy,
        ((1, 20),),
        {str(length): (length,) for length in (20, 40, 80, 120)},
        _numbers(BITS + 1),
        BITS,
    ),
    "repeat-copy": Task(
        "generated: 1 to 10 vectors of 8 bits, to be told 1 to 10 times; tested at twice as many of either",
        repeat_copy,
        ((1, 10), (1, 10)),
        {f"{length} x {copies}": (length, copies) for length, copies in ((10, 10), (20, 10), (10, 20))},
        _numbers(BITS + 1, -np.inf),
        BITS + 1,
    ),
    "associative-recall": Task(
        "generated: 2 to 6 items of three vectors of 6 bits, shown one of them: tell the next; tested with up to 20",
        associative_recall,
        ((2, 6),),
        {str(items): (items,) for items in (2, 4, 6, 8, 10, 12, 15, 20)},
        _numbers(ITEM_BITS + 2),
        ITEM_BITS,
    ),
    "priority-sort": Task(
        "generated: 20 vectors of 8 bits with priorities; tell the 16 highest in order; tested with up to 40",
        priority_sort,
        ((20, 20), (16, 16)),
        {f"{told} of {shown}": (shown, told) for shown, told in ((20, 16), (30, 24), (40, 32))},
        ObservationSpec((BITS + 2,), "float32", -1, 1),
        BITS,
    ),
    "copy-slots": Task(
        "generated: four times 5 vectors of 8 bits, each to be told before the next come; tested with up to 16",
        copy_slots,
        ((4, 4),),
        {str(episodes): (episodes,) for episodes in (4, 8, 16)},
        _numbers(BITS + 1),
        BITS,
    ),
}


def load(name: str) -> SequenceDataset:
    """The task called `name`, of `TASKS`: `draw(generator, count)` gives training sequences, all of group 0 and of one
    size, so that none of a batch is padded.

    Validation and test are the same in every run. The test's groups, from 1 on, have one size each.
    """
    task = TASKS[name]

    def draw(generator: Generator, count: int) -> Sequences:
        drawn = (np.full(count, generator.integers(low, high + 1)) for low, high in task.sizes)
        return _grouped(task.make(generator, *drawn), [count])

    def mixed(generator: Generator, count: int) -> Sequences:
        drawn = (generator.integers(low, high + 1, count) for low, high in task.sizes)
        return _grouped(task.make(generator, *drawn), [count])

    validation, example, tested = (np.random.default_rng([seed, 2014]) for seed in range(3))
    trained = " x ".join(f"{low} to {high}" if low < high else f"{low}" for low, high in task.sizes)
    sizes = np.repeat(np.array(list(task.tests.values())), TESTED, axis=0)
    test = task.make(tested, *sizes.T)
    return SequenceDataset(
        name,
        task.spec,
        task.outputs,
        train=mixed(example, VALIDATED),
        validation=mixed(validation, VALIDATED),
        test=_grouped(test, [0, *[TESTED] * len(task.tests)]),
        groups=(f"as trained: {trained}", *task.tests),
        draw=draw,
    )


def _grouped(sequences: Sequences, counts: list[int]) -> Sequences:
    group = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    return Sequences(sequences.x, sequences.target, sequences.start, group)
