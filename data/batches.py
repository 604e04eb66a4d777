"""Shuffled minibatches, gathered from data that lie on the device already: there is no per-sample loader."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from .base import Split


class Batches:
    """Every example once per epoch, in an order that follows from `seed` and the number of the epoch alone.

    Iterating goes on for ever; `epoch` yields what is left of the current epoch. A state is two numbers, and batches
    after `load_state_dict` are exactly those that would have followed.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, device: str = "cpu", drop_last: bool = True):
        """
        Args:
            split: moved to `device`, whole.
            batch_size: examples per batch.
            seed: of the orders.
            device: where the batches are made, such as "cuda".
            drop_last: leave out the last batch of an epoch where it would be smaller than the others.

        Raises:
            UserError: the size is not positive, or there are too few examples for one batch.
        """
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if len(split) < (batch_size if drop_last else 1):
            raise UserError(f"{len(split)} examples are too few for a batch of {batch_size}; lower the batch size")
        self.split, self.batch_size, self.seed = split.to(device), batch_size, seed
        self.device, self.drop_last = device, drop_last
        self._epoch, self._next = 0, 0  # the current epoch, and the number of its next batch

    def __len__(self) -> int:
        """Batches per epoch."""
        count = len(self.split)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def epoch(self) -> Iterator[dict[str, Tensor]]:
        """What is left of the current epoch: the whole of it, unless a saved state or an iterator stands within it."""
        order = self._order(self._epoch)
        while self._next < len(self):
            start = self._next * self.batch_size
            self._next += 1
            yield self.split.take(order[start : start + self.batch_size])
        self._epoch, self._next = self._epoch + 1, 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """One epoch after the other, for ever."""
        while True:
            yield from self.epoch()

    def _order(self, epoch: int) -> Tensor:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.split))
        return torch.from_numpy(order).to(self.device)

    def state_dict(self) -> dict[str, int]:
        """Where it stands; the batch that was yielded last counts as done."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        """Go on from `state_dict()` of a `Batches` over the same data, with the same settings."""
        self._epoch, self._next = saved["epoch"], saved["next"]
