"""Batches of pieces of a long text for word vectors: the words, who counts as whose context, and words as noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from .word_vectors import keep_probability, noise_distribution

Batch = dict[str, Tensor]
PIECE = 32  # kept words of a piece, about: with longer ones fewer of the scores of all with all are of use
_LOT = 64  # batches that are prepared at once


class _Layout(NamedTuple):
    """Where the pieces of an epoch's batches lie in the text that is left after thinning."""

    text: Tensor  # int64: what is left, continued at both ends as if it were a ring
    start: np.ndarray  # int64 [batches, pieces], in `text`, of a piece's margin before it
    length: np.ndarray  # int64 [batches, pieces]
    longest: int


class WordBatches:
    """Every occurrence of a word once per epoch, but for those that are thinned out, in pieces of consecutive words.

    A batch holds N pieces from anywhere in the text, of at most L words, L being about `PIECE`:
    "x" int64 `[N, L + 2 window]`, the words with `window` more on each side; "pair" float32 `[N, L, L + 2 window]`, 1
    where the second counts as context of the first: up to a distance that is drawn from 1..window for each first word;
    "noise" int64 `[K]`, drawn for all of them. A batch follows from the seed, the epoch and its number alone.
    """

    def __init__(
        self,
        ids: Tensor,
        counts: Tensor,
        *,
        window: int,
        noise: int,
        sample: float,
        batch_size: int,
        seed: int,
        device: str = "cpu",
    ):
        """
        Args:
            ids: int64 `[S]`, the text.
            counts: `[V]`, of the words, by which they are thinned and drawn as noise.
            noise: K.
            sample: see `keep_probability`.
            batch_size: words of the text that a batch stands for, before thinning.

        Raises:
            UserError: a size is not positive, or there is no text.
        """
        if min(window, noise, batch_size) < 1:
            raise UserError(f"window, noise and the batch size must be positive: {window}, {noise}, {batch_size}")
        if len(ids) < 2:
            raise UserError("a text of less than two words teaches nothing about them")
        keep = keep_probability(counts, sample)
        kept = float((keep * counts).sum() / counts.sum()) * batch_size
        self._ids, self._keep = ids.numpy(), keep.numpy()
        self._cumulative = noise_distribution(counts).cumsum(0).numpy()
        self._window, self._noise, self._seed = window, noise, seed
        self._pieces = max(round(kept / PIECE), 1)
        self.batch_size, self.device = batch_size, device
        self._epoch, self._next = 0, 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self._ids) // self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        """What is left of the current epoch."""
        layout = self._lay_out()
        while self._next < len(self):
            first = self._next - self._next % _LOT
            lot = self._draw(layout, first)
            for place in range(self._next - first, len(lot["x"])):
                self._next += 1
                yield {name: values[place] for name, values in lot.items()}
        self._epoch, self._next = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; the batch that was yielded last counts as done."""
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same batches."""
        self._epoch, self._next = saved["epoch"], saved["next"]

    def _lay_out(self) -> _Layout:
        generator = np.random.default_rng([self._seed, self._epoch])
        text = self._ids[generator.random(len(self._ids), np.float32) < self._keep[self._ids]]
        if not len(text):  # a handful of words, all of them frequent
            text = self._ids
        bounds = np.linspace(0, len(text), len(self) * self._pieces + 1).astype(np.int64)
        length, order = np.diff(bounds), generator.permutation(len(bounds) - 1).reshape(len(self), self._pieces)
        longest = int(length.max())
        ring = np.pad(text, (self._window, self._window + longest), mode="wrap")
        return _Layout(torch.from_numpy(ring), bounds[order], length[order], longest)

    def _draw(self, layout: _Layout, first: int) -> Batch:
        """`_LOT` batches from number `first` on, those of the last lot perhaps fewer; one more axis in front."""
        generator = np.random.default_rng([self._seed, self._epoch, first])
        start, length = layout.start[first : first + _LOT], layout.length[first : first + _LOT]
        margin, steps = 2 * self._window, np.arange(layout.longest)
        x = layout.text[torch.from_numpy(start).unsqueeze(-1) + torch.arange(layout.longest + margin)]
        reach = generator.integers(1, self._window + 1, (*start.shape, layout.longest), np.int8)
        reach *= steps < length[..., None]  # what lies behind the end of a shorter piece has no context
        distance = np.abs(np.arange(layout.longest + margin) - self._window - steps[:, None])
        distance[distance == 0] = margin  # no word is its own context
        pair = torch.from_numpy(distance <= reach[..., None]).to(self.device)
        # one draw from each K-th part: each word is as probable as in K single draws, but drawn twice less often
        part = (np.arange(self._noise) + generator.random((len(start), self._noise))) / self._noise
        noise = np.searchsorted(self._cumulative, part).clip(max=len(self._cumulative) - 1)
        return {"x": x.to(self.device), "pair": pair.float(), "noise": torch.from_numpy(noise).to(self.device)}
