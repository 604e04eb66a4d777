"""Two vectors for every word, as they are learned: the update and the loop over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..agents.parts.compute import Compute
from ..encoders.base import Encoder
from .epochs import TOTAL, Batch, Trainer
from .known_words import find_table
from .optimise import Optimiser, Schedule, rate_factor
from .task import TaskModel
from .task_options import Word2VecOptions
from .word_batches import WordBatches
from .word_losses import Gradients, Shift, bag_gradients, bag_loss, skip_gram_gradients, skip_gram_loss
from .word_vectors import noise_distribution

LOOK_INTERVAL = 16  # updates between those of which the loss is computed, which the update itself has no need of


class _Rows(NamedTuple):
    """The words of a batch, int64, and their vectors."""

    inputs: Tensor
    targets: Tensor
    noise: Tensor
    vectors: tuple[Tensor, Tensor, Tensor]
    shift: Shift | None


class WordModel(TaskModel):
    """An encoder's table of input vectors, and an output vector, with NCE a bias too, for every word."""

    shift: Tensor

    def __init__(self, encoder: Encoder, counts: Tensor, options: Word2VecOptions):
        """`counts`: `[V]`, of the words. Raises SpecError where the encoder has no table of their vectors."""
        super().__init__(encoder)
        self.options, self.table = options, find_table(encoder, len(counts))
        self.outputs = nn.Parameter(torch.zeros_like(self.table.weight))
        self.is_nce = options.loss == "nce"
        noise = noise_distribution(counts).clamp(min=1e-30)
        if self.is_nce:  # scores are log probabilities: they begin as those of single words
            share = counts.double().clamp(min=1) / counts.sum()
            self.bias = nn.Parameter(share.log().float())
        self.register_buffer("shift", -(options.negatives * noise).log().float(), persistent=False)
        self.train()

    @property
    def vectors(self) -> Tensor:
        """`[V, D]`: what is learned for others to use."""
        return self.table.weight.detach()

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Small random input vectors, as word2vec has them; the output vectors are 0 anyway."""
        width = self.table.weight.shape[1]
        drawn = torch.rand(self.table.weight.shape, generator=generator)
        self.table.weight.copy_((drawn - 0.5) / width)

    @torch.no_grad()
    def loss(self, batch: Batch) -> Tensor:
        """The loss per pair of `WordBatches`' batch, or per word with a context for CBOW; a scalar."""
        rows, pair = self._look_up(batch), batch["pair"]
        of, count = (
            (skip_gram_loss, pair.sum())
            if self.options.model == "skip-gram"
            else (bag_loss, pair.sum(-1).clamp(max=1).sum())
        )
        return of(*rows.vectors, pair, self._share, rows.shift) / count.clamp(min=1)

    @torch.no_grad()
    def update(self, batch: Batch, rate: float) -> None:
        """One step down the sum of the loss over all pairs; only the vectors of the batch's words are touched."""
        rows = self._look_up(batch)
        of: Callable[..., Gradients] = skip_gram_gradients if self.options.model == "skip-gram" else bag_gradients
        found = of(*rows.vectors, batch["pair"], self._share, rows.shift)
        width = found.noise.shape[1]
        self.table.weight.index_add_(0, rows.inputs.flatten(), found.inputs.view(-1, width), alpha=-rate)
        self.outputs.index_add_(0, rows.targets.flatten(), found.targets.view(-1, width), alpha=-rate)
        self.outputs.index_add_(0, rows.noise, found.noise, alpha=-rate)
        if found.shift is not None:
            self.bias.index_add_(0, rows.targets.flatten(), found.shift.target.flatten(), alpha=-rate)
            self.bias.index_add_(0, rows.noise, found.shift.noise, alpha=-rate)

    @property
    def _share(self) -> float:
        return self.options.negatives / self.options.noise

    def _look_up(self, batch: Batch) -> _Rows:
        wide, noise, window = batch["x"], batch["noise"], self.options.window
        narrow = wide[:, window:-window]
        inputs, targets = (narrow, wide) if self.options.model == "skip-gram" else (wide, narrow)
        vectors = (
            self.table.weight.index_select(0, inputs.flatten()).view(*inputs.shape, -1),
            self.outputs.index_select(0, targets.flatten()).view(*targets.shape, -1),
            self.outputs.index_select(0, noise),
        )
        if not self.is_nce:
            return _Rows(inputs, targets, noise, vectors, None)
        shifts = self.shift + self.bias
        return _Rows(inputs, targets, noise, vectors, Shift(shifts[targets], shifts[noise]))


class WordTrainer(Trainer):
    """The loop over a text: plain steps of a rate that falls, by gradients that are written out."""

    def __init__(
        self,
        model: WordModel,
        batches: WordBatches,
        *,
        epochs: int,
        learning_rate: float,
        schedule: Schedule,
        warmup: float,
        compute: Compute,
    ):
        optimiser = Optimiser(model.groups(1.0), learning_rate=learning_rate, rule="sgd", momentum=0.0)  # keeps nothing
        super().__init__(
            model,
            lambda batch: {TOTAL: model.loss(batch)},
            optimiser,
            batches,
            epochs=epochs,
            schedule=schedule,
            warmup=warmup,
            compute=compute,
        )
        self.model, self.learning_rate = model, learning_rate

    def _update(self, batch: Batch) -> None:
        done = self.updates / self.total_updates
        if not self.updates % LOOK_INTERVAL or not self.updates % len(self.batches):
            self.losses.add({TOTAL: self.model.loss(batch)}, len(batch["x"]))
        self.model.update(batch, self.learning_rate * rate_factor(self.schedule, done, self.warmup))
