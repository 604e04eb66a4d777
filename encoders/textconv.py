"""Convolutions over time and their largest answers so far: a text classifier's features (Kim 2014, arXiv:1408.5882).

Deviations: windows end at the present step, so the largest answer over a whole text stands at its last word and the
encoder is causal; before the first word there are zeros, where Kim takes whole windows only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State, reset_state
from .parts.pieces import cuts, last_real
from .parts.reading import Reader

kind = "one-dimensional convolutions over time, for texts and sequences of vectors"


@dataclass(frozen=True)
class Config:
    widths: tuple[int, ...] = (3, 4, 5)  # steps that a filter reads (Kim 2014, section 3.1)
    filters: int = 100  # of each width; features: as many times the number of widths
    embedding: int = 128  # width of a token's learned vector (Kim: 300); 0 = one-hot
    scale: float = 0.1  # standard deviation of the vectors' numbers at first (Kim: .14); larger ones are learned slowly
    input_dropout: float = 0.0  # of what the filters read
    output_dropout: float = 0.0  # of the features (Kim: 0.5)


class TextConv(Encoder):
    """Features: each filter's largest answer since the episode began. State: the last `max(widths) - 1` vectors read
    `[B, max(widths) - 1, D]`, and those answers `[B, filters * len(widths)]`."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.reader = Reader(spec, config.embedding, "textconv")
        if self.reader.table is not None:
            nn.init.normal_(self.reader.table.weight, std=config.scale)
        self.filters = nn.ModuleList(nn.Conv1d(self.reader.size, config.filters, width) for width in config.widths)
        self.feature_shape = (config.filters * len(config.widths),)
        self.past = max(config.widths) - 1

    def initial_state(self, batch_size: int) -> State:
        like = self.filters[0].get_parameter("weight")
        return like.new_zeros(batch_size, self.past, self.reader.size), like.new_zeros(batch_size, *self.feature_shape)

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        x = self.reader(inputs.obs)
        x = F.dropout(x, self.config.input_dropout, self.training)
        initial = self.initial_state(x.shape[1])
        features = []
        for first, end in pairwise(cuts(reset, inputs.mask, len(x))):
            state = reset_state(state, initial, None if reset is None else reset[first])
            y, state = self._piece(x[first:end], state, None if inputs.mask is None else inputs.mask[first:end])
            features.append(y)
        largest = features[0] if len(features) == 1 else torch.cat(features)
        return F.dropout(largest, self.config.output_dropout, self.training), state

    def _piece(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Steps without a reset after the first, padded at their end only."""
        past, largest = state
        x = torch.cat([past.transpose(0, 1).to(x.dtype), x])  # [past + T, B, D]
        read = x.permute(1, 2, 0)
        widths = zip(self.config.widths, self.filters, strict=True)
        answers = [filters(read[:, :, self.past + 1 - width :]).relu() for width, filters in widths]
        y = torch.cat(answers, 1).permute(2, 0, 1)  # [T, B, F]; never below 0, so a 0 changes no maximum
        y = y if mask is None else y.masked_fill(~mask.unsqueeze(2), 0)
        y = torch.cat([torch.maximum(y[:1], largest.to(y.dtype)), y[1:]])
        y = y.cummax(0).values if len(y) > 1 else y
        seen = None if mask is None else torch.cat([mask.new_ones(self.past, mask.shape[1]), mask])
        past = last_real(x, seen, self.past).transpose(0, 1)
        return y, (past.to(state[0].dtype), y[-1].to(largest.dtype))


def build(config: Config, spec: ObservationSpec) -> TextConv:
    """Raises SpecError for observations that hold neither numbers nor tokens, UserError for settings that make no
    sense."""
    if not config.widths or min(config.widths) < 1 or config.filters < 1:
        raise UserError("textconv: widths must be one or more positive numbers of steps, filters positive")
    if not config.scale > 0:
        raise UserError(f"textconv: scale must be positive, not {config.scale}")
    if not (0 <= config.input_dropout < 1 and 0 <= config.output_dropout < 1):
        raise UserError("textconv: input_dropout and output_dropout must be at least 0 and below 1")
    return TextConv(config, spec)
