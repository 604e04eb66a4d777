"""Soft attention over a convolutional map, and an LSTM behind it (DARQN: Sorokin et al. 2015, arXiv:1512.01693).

At each step the memory looks at the map with the output it gave last: every place gets a share, and the LSTM reads the
mean of the places' vectors by these shares. `look` says where it would look, to be drawn.

It stands behind an encoder that gives a map: `--encoder conv --encoder.hidden 0 --memory attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State
from .parts.controllers import walk

kind = "soft attention over the map of an encoder in front, and an LSTM"


@dataclass(frozen=True)
class Config:
    hidden: int = 256  # units of the LSTM
    attention: int = 128  # units that compare a place with the LSTM's output
    where: bool = False  # the LSTM also reads the shares: a mean of places does not say which (the paper: off)


class Attention(Encoder):
    """Maps `[T, B, C, H, W]` to features `[T, B, hidden]`. State: the LSTM's output and cell, each `[B, hidden]`."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.channels, self.height, self.width = spec.shape
        places = self.height * self.width
        self.feature_shape = (config.hidden,)
        self.key = nn.Linear(self.channels, config.attention)
        self.query = nn.Linear(config.hidden, config.attention, bias=False)
        self.energy = nn.Linear(config.attention, 1, bias=False)
        self.cell = nn.LSTMCell(self.channels + places * config.where, config.hidden)
        with torch.no_grad():
            self.cell.bias_ih.chunk(4)[1].fill_(1.0)  # forget little at first, as the other LSTMs here

    def initial_state(self, batch_size: int) -> State:
        zeros = self.key.weight.new_zeros(batch_size, self.config.hidden)
        return zeros, zeros

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        places = self._places(inputs.obs)
        keys = self.key(places).to(places.dtype)  # of all steps at once; they do not hang on the state
        projected = torch.cat([places, keys], 3)
        return walk(self._step, projected, state, self.initial_state(places.shape[1]), reset, inputs.mask)

    def _places(self, maps: Tensor) -> Tensor:
        """`[..., C, H, W]` to `[..., H * W, C]`."""
        return maps.flatten(-2).transpose(-1, -2).to(self.key.weight.dtype)

    def _step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        places, keys = projected.split([self.channels, self.config.attention], 2)
        shares = self._shares(keys, state)
        context = (shares.unsqueeze(1) @ places).squeeze(1)
        if self.config.where:
            context = torch.cat([context, shares], 1)
        output, cell = self.cell(context, (state[0], state[1]))
        return output, (output, cell)

    def _shares(self, keys: Tensor, state: State) -> Tensor:
        """softmax_i w tanh(V v_i + U h): keys `[B, H * W, attention]` to `[B, H * W]`."""
        return self.energy((keys + self.query(state[0]).unsqueeze(1)).tanh()).squeeze(2).softmax(1)

    def look(self, maps: Tensor, state: State) -> Tensor:
        """The share of each place of maps `[B, C, H, W]`, given the state before reading them: `[B, H, W]`."""
        return self._shares(self.key(self._places(maps)), state).unflatten(1, (self.height, self.width))


def build(config: Config, spec: ObservationSpec) -> Attention:
    """Raises SpecError for what is no map of numbers, UserError for sizes that make no sense."""
    if len(spec.shape) != 3 or not spec.dtype.startswith("float"):
        raise SpecError(
            f"attention looks at a map of features, not at {spec.describe()}; put it behind an encoder that gives one: "
            "--encoder conv --encoder.hidden 0 --memory attention"
        )
    for name in ("hidden", "attention"):
        if getattr(config, name) < 1:
            raise UserError(f"attention: {name} must be at least 1, not {getattr(config, name)}")
    return Attention(config, spec)
