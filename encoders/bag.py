"""The mean of all vectors so far: a bag of words and, where asked for, of word pairs (Joulin et al. 2017, fastText).

arXiv:1607.01759, section 2: a linear layer on these features is fastText's classifier. Pairs of neighbours are hashed
into a table of their own (section 2.2); deviation: by a multiplication instead of FNV-1a over the letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State, reset_state
from .parts.pieces import cuts, last_real
from .parts.reading import Reader

kind = "mean of what was read so far: a bag of words, for texts and sequences of vectors"

HASH = 1_000_003  # a prime: first * HASH + second differs for all pairs of words below it


@dataclass(frozen=True)
class Config:
    embedding: int = 128  # width of a token's learned vector; 0 = one-hot, so the features are the words' shares
    pairs: int = 0  # rows of the table for pairs of neighbouring tokens; 0 = single tokens only
    scale: float = 0.1  # standard deviation of the vectors' numbers at first
    input_dropout: float = 0.0  # share of the tokens left out while training
    output_dropout: float = 0.0  # of the features


class Bag(Encoder):
    """Features: the mean vector of the episode's real steps so far. State: their sum `[B, D]`, how many they were
    `[B]`, and the last token, int64 `[B]`, -1 for none."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.reader = Reader(spec, config.embedding, "bag")
        self.feature_shape = (self.reader.size,)
        self.pairs = nn.Embedding(config.pairs, self.reader.size) if config.pairs else None
        for table in (self.reader.table, self.pairs):
            if table is not None:
                nn.init.normal_(table.weight, std=config.scale)
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # on the encoder's device

    def initial_state(self, batch_size: int) -> State:
        like = self.get_buffer("zero")
        token = torch.full((batch_size,), -1, device=like.device)
        return like.new_zeros(batch_size, self.reader.size), like.new_zeros(batch_size), token

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        vectors, token, mask = self.reader(inputs.obs), inputs.obs, inputs.mask
        initial = self.initial_state(vectors.shape[1])
        features = []
        for first, end in pairwise(cuts(reset, mask, len(vectors))):
            state = reset_state(state, initial, None if reset is None else reset[first])
            piece = None if mask is None else mask[first:end]
            y, state = self._piece(vectors[first:end], token[first:end], state, piece)
            features.append(y)
        mean = features[0] if len(features) == 1 else torch.cat(features)
        return F.dropout(mean, self.config.output_dropout, self.training), state

    def _piece(self, x: Tensor, token: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Steps without a reset after the first, padded at their end only: vectors `[T, B, D]`."""
        total, count, last = state
        ones = x.new_ones(x.shape[:2])
        if self.pairs is not None:
            tokens = torch.cat([last.long().unsqueeze(0), token.long()])
            paired = (tokens[:-1] >= 0).to(x.dtype)
            x = x + self.pairs((tokens[:-1] * HASH + tokens[1:]) % self.config.pairs) * paired.unsqueeze(2)
            ones = ones + paired
            real = None if mask is None else torch.cat([torch.ones_like(mask[:1]), mask])
            last = last_real(tokens, real, 1).squeeze(0)
        if self.training and self.config.input_dropout:
            kept = (torch.rand_like(ones) >= self.config.input_dropout).to(x.dtype)
            x, ones = x * kept.unsqueeze(2), ones * kept
        if mask is not None:
            x, ones = x * mask.unsqueeze(2), ones * mask
        sums, counts = total + x.cumsum(0), count + ones.cumsum(0)
        return sums / counts.clamp(min=1).unsqueeze(2), (sums[-1], counts[-1], last)


def build(config: Config, spec: ObservationSpec) -> Bag:
    """Raises SpecError for observations that hold neither numbers nor tokens, and for pairs of anything but single
    tokens; UserError for settings that make no sense."""
    if config.pairs < 0 or not config.scale > 0:
        raise UserError("bag: pairs must not be negative, and scale must be positive")
    if config.pairs and (not spec.vocabulary or spec.shape != ()):
        raise SpecError(f"encoder 'bag' pairs single tokens only, not {spec.describe()}; set pairs to 0")
    if not (0 <= config.input_dropout < 1 and 0 <= config.output_dropout < 1):
        raise UserError("bag: input_dropout and output_dropout must be at least 0 and below 1")
    return Bag(config, spec)
