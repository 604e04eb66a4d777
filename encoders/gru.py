"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), with the reset gate after the recurrent weights.

Deviation, of the kernels: the candidate is `tanh(W x + r * (U h + b))`, not `tanh(W x + U (r * h))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..envs.spec import ObservationSpec
from .base import State
from .parts.recurrent import Recurrent, Settings

kind = "gated recurrent unit, for sequences of vectors, images or tokens"


@dataclass(frozen=True)
class Config(Settings):
    pass


class Gru(Recurrent):
    """Features are the last layer's output, and so is the state, `[B, layers, hidden]`."""

    leaves, gates = 1, 3  # gates in PyTorch's order: reset, update, candidate

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__(config, spec, "gru")

    def make_layer(self, inputs: int, hidden: int) -> nn.RNNBase:
        return nn.GRU(inputs, hidden)

    def keep(self, biases: Sequence[Tensor], reach: Tensor) -> None:
        """The update gate, which at 1 keeps the state."""
        biases[1].copy_(reach)

    def cell(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        w_ih, w_hh, b_ih, b_hh = weights
        return (torch.gru_cell(x, state[0], w_ih, w_hh, b_ih, b_hh),)

    def sequence(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, State]:
        start = state[0].unsqueeze(0).contiguous()
        y, h = torch.gru(x, start, list(weights), True, 1, 0.0, torch.is_grad_enabled(), False, False)
        return y, (h.squeeze(0),)


def build(config: Config, spec: ObservationSpec) -> Gru:
    """Raises SpecError for observations that hold neither numbers nor tokens, UserError for settings that make no
    sense."""
    return Gru(config, spec)
