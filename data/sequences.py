"""Sequences of different lengths: held in memory end to end, padded when a batch of them is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec

Batch = dict[str, Tensor]
NOT_ASKED = -1  # the target of a step at which nothing is to be answered, and of padding
SORTED_TOGETHER = 50  # batches whose sequences are sorted by length among themselves


@dataclass(frozen=True)
class Sequences:
    """N sequences, one after the other. What is to be learned of every step is its target, -1 where nothing is."""

    x: Tensor  # [S, ...] the steps of all sequences, as they are observed: int64 tokens, float32 or uint8 numbers
    target: Tensor  # int64 [S]: the class of each step; or float32 [S, K]: bits 0 and 1
    start: Tensor  # int64 [N + 1]: where each sequence begins; the last is S
    group: Tensor | None = None  # int64 [N]: which of the data set's groups a sequence belongs to
    reset: Tensor | None = None  # bool [S]: where something begins that has nothing to do with what stands before it

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> Tensor:
        """int64 `[N]`."""
        return self.start.diff()

    def answers(self) -> float:
        """How many steps of a sequence have a target, on average."""
        target = self.target if self.target.dim() == 1 else self.target[:, 0]
        return int((target != NOT_ASKED).sum()) / len(self)

    def take(self, index: Tensor) -> Batch:
        """The sequences at `index` (int64 `[B]`), padded to the longest of them, L.

        Returns:
            "x" `[B, L, ...]` (0 in the padding), "target" `[B, L]` or `[B, L, K]` (-1 in the padding), "mask" bool
            `[B, L]` (False in the padding); where there are groups, "group" `[B]`; where there are beginnings within
            sequences, "reset", bool `[B, L]`.
        """
        start, length = self.start[index], self.lengths[index]
        step = torch.arange(int(length.max()), device=start.device)
        mask = step < length.unsqueeze(1)
        place = torch.where(mask, start.unsqueeze(1) + step, 0)
        padded = {"x": (self.x, 0), "target": (self.target, NOT_ASKED)}
        if self.reset is not None:
            padded["reset"] = (self.reset, False)
        batch = {name: _blank(values[place], mask, blank) for name, (values, blank) in padded.items()}
        return batch | {"mask": mask} | ({} if self.group is None else {"group": self.group[index]})

    def to(self, device: str) -> Sequences:
        """The same sequences in the memory of `device`."""
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def _blank(values: Tensor, mask: Tensor, blank: int) -> Tensor:
    return values.masked_fill(~mask.view(*mask.shape, *[1] * (values.dim() - 2)), blank)


def join(
    x: Sequence[np.ndarray], target: Sequence[np.ndarray], group: Sequence[int] | np.ndarray | None = None
) -> Sequences:
    """Sequences from one array each, steps first."""
    start = np.concatenate([[0], np.cumsum([len(steps) for steps in x], dtype=np.int64)])
    groups = None if group is None else torch.from_numpy(np.asarray(group, np.int64))
    return Sequences(
        torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(target)), torch.from_numpy(start), groups
    )


def pack(split: Sequences, steps: int, seed: int) -> Sequences:
    """The same sequences end to end, in rows of at most `steps` steps, or of one sequence that is longer by itself.

    Batches of rows hold sequences of all lengths, and so of all groups, with hardly any padding. Each sequence goes
    into the row that it fills best, in a random order that follows from `seed`. Rows have no group; `reset` marks where
    a sequence begins.
    """
    lengths = split.lengths.tolist()
    rows: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(steps)]  # rows by the steps that are still free in them
    for number in np.random.default_rng(seed).permutation(len(split)).tolist():
        length = lengths[number]
        free = next((free for free in range(length, steps) if room[free]), None)
        if free is None:
            row, free = len(rows), max(steps, length)
            rows.append([])
        else:
            row = room[free].pop()
        rows[row].append(number)
        if free > length:
            room[free - length].append(row)
    order = torch.tensor([number for row in rows for number in row])
    first, length = split.start[order], split.lengths[order]
    begins = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
    place = torch.repeat_interleave(first - begins[:-1], length) + torch.arange(int(begins[-1]))
    reset = torch.zeros(len(place), dtype=torch.bool)
    reset[begins[:-1]] = True
    rows_end = torch.tensor([len(row) for row in rows]).cumsum(0)
    start = torch.cat([begins[:1], begins[rows_end]])
    return Sequences(split.x[place], split.target[place], start, reset=reset)


@dataclass(frozen=True)
class SequenceDataset:
    """Sequences to learn from, to choose settings by, and to report on.

    A generated task draws its training sequences as it goes: `draw(generator, count)` then gives the next `count`, and
    `train` holds some of them for pictures.
    """

    name: str
    spec: ObservationSpec  # of one step: shape () with a vocabulary for tokens
    outputs: int  # classes of a step's target, or bits K
    train: Sequences
    validation: Sequences
    test: Sequences
    classes: tuple[str, ...] = ()  # names of the classes, where people would like to read them
    groups: tuple[str, ...] = ()  # names of the groups
    words: tuple[str, ...] = ()  # of the vocabulary; () = not tokens
    draw: Callable[[np.random.Generator, int], Sequences] | None = None

    @property
    def asks_bits(self) -> bool:
        """Whether a step's target is K bits instead of a class."""
        return self.train.target.dim() == 2


class LengthBatches:
    """Batches of sequences of about equal length; every sequence once per epoch, in an order that follows from `seed`
    and the number of the epoch alone. The interface is that of `Batches`.

    Sequences are shuffled, sorted by length within lots of `SORTED_TOGETHER` batches, cut, and the batches shuffled.
    """

    def __init__(self, split: Sequences, batch_size: int, seed: int, device: str = "cpu"):
        """Raises UserError where the size is not positive, or there is nothing to learn from."""
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if not len(split):
            raise UserError("there are no sequences to learn from")
        self.split, self.batch_size, self.seed, self.device = split.to(device), batch_size, seed, device
        self._lengths = split.lengths.cpu().numpy()
        self._epoch, self._next = 0, 0  # the current epoch, and the number of its next batch

    def __len__(self) -> int:
        """Batches per epoch; the smallest may hold fewer sequences than the others."""
        return -(-len(self.split) // self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        """What is left of the current epoch."""
        order = self._order(self._epoch)
        while self._next < len(order):
            self._next += 1
            yield self.split.take(torch.from_numpy(order[self._next - 1]).to(self.device))
        self._epoch, self._next = self._epoch + 1, 0

    def _order(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        order, size = generator.permutation(len(self._lengths)), self.batch_size
        lots = [order[i : i + SORTED_TOGETHER * size] for i in range(0, len(order), SORTED_TOGETHER * size)]
        lots = [lot[np.argsort(self._lengths[lot], kind="stable")] for lot in lots]
        batches = [lot[i : i + size] for lot in lots for i in range(0, len(lot), size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; the batch that was yielded last counts as done."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same batches."""
        self._epoch, self._next = saved["epoch"], saved["next"]


class DrawnBatches:
    """Batches that are generated as they are needed; each follows from `seed`, the epoch and its number alone."""

    def __init__(
        self,
        draw: Callable[[np.random.Generator, int], Sequences],
        batch_size: int,
        batches: int,
        seed: int,
        device: str = "cpu",
    ):
        """`batches`: what counts as one epoch. Raises UserError where a size is not positive."""
        if batch_size < 1 or batches < 1:
            raise UserError(f"the batch size and the batches of an epoch must be at least 1: {batch_size}, {batches}")
        self.draw, self.batch_size, self.seed, self.device = draw, batch_size, seed, device
        self._count = batches
        self._epoch, self._next = 0, 0

    def __len__(self) -> int:
        return self._count

    def epoch(self) -> Iterator[Batch]:
        """What is left of the current epoch."""
        every = torch.arange(self.batch_size)
        while self._next < self._count:
            generator = np.random.default_rng([self.seed, self._epoch, self._next])
            self._next += 1
            batch = self.draw(generator, self.batch_size).take(every)
            yield {name: value.to(self.device) for name, value in batch.items()}
        self._epoch, self._next = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; the batch that was yielded last counts as done."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same batches."""
        self._epoch, self._next = saved["epoch"], saved["next"]
