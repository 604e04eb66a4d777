"""Learned vectors of tokens: what a tagger's window, a bag of words or a memory reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward
from .parts.reading import Reader

kind = "learned vectors of tokens, end to end or pooled over a window"

Pool = Literal["concat", "mean", "sum", "max"]


@dataclass(frozen=True)
class Config:
    width: int = 128  # numbers of a token's vector
    pool: Pool = "concat"  # how the n vectors of a window become one: n * width features, or width
    scale: float = 1.0  # standard deviation of the vectors' numbers at first
    dropout: float = 0.0  # share of the features blanked while training


class Embedding(FeedForward):
    """Features `[width]` of one token, of a window of n tokens `[n * width]` or, pooled, `[width]`."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.tokens = config, spec.size
        self.reader = Reader(spec, config.width, "embedding")
        self.feature_shape = (self.reader.size if config.pool == "concat" else config.width,)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.vectors, std=config.scale)

    @property
    def vectors(self) -> Tensor:
        """`[vocabulary, width]`: row i is token i's, to be filled with vectors learned elsewhere, say."""
        assert self.reader.table is not None  # the width is not 0
        return self.reader.table.weight

    def encode(self, x: Tensor) -> Tensor:
        read = self.reader(x)
        if self.config.pool != "concat":
            window = read.unflatten(1, (self.tokens, self.config.width))
            pooled = {"mean": window.mean, "sum": window.sum, "max": window.amax}
            read = pooled[self.config.pool](1)
        return self.dropout(read)


def build(config: Config, spec: ObservationSpec) -> Embedding:
    """Raises SpecError for anything but tokens, UserError for settings that make no sense."""
    if not spec.vocabulary:
        raise SpecError(f"encoder 'embedding' reads tokens, not {spec.describe()}")
    if config.width < 1:
        raise UserError(f"embedding: width must be positive, not {config.width}")
    if config.pool not in get_args(Pool):
        raise UserError(f"embedding: unknown pool {config.pool!r}; known: {', '.join(get_args(Pool))}")
    if not (config.scale > 0 and 0 <= config.dropout < 1):
        raise UserError("embedding: scale must be positive, dropout at least 0 and below 1")
    return Embedding(config, spec)
