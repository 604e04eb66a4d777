"""Long short-term memory (Hochreiter & Schmidhuber 1997), with the forget gate of Gers et al. (2000)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import State
from .parts.recurrent import Recurrent, Settings

kind = "long short-term memory, for sequences of vectors, images or tokens"

CLOSED = 1e4  # what a gate reads at padding: its sigmoid is exactly 0 or 1 in every floating-point type


@dataclass(frozen=True)
class Config(Settings):
    forget_bias: float = 1.0  # without a horizon, at first (Gers et al. 2000; Jozefowicz et al. 2015, section 2.2)


class Lstm(Recurrent):
    """Features are the last layer's output. State: output and cell, each `[B, layers, hidden]`."""

    leaves, gates = 2, 4  # gates in PyTorch's order: input, forget, candidate, output

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__(config, spec, "lstm")
        if not config.horizon:
            for layer in (*self.ahead, *self.back):
                layer.get_parameter("bias_ih_l0").detach().chunk(4)[1].fill_(config.forget_bias)

    def make_layer(self, inputs: int, hidden: int) -> nn.RNNBase:
        return nn.LSTM(inputs, hidden)

    def cell(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        w_ih, w_hh, b_ih, b_hh = weights
        return torch.lstm_cell(x, list(state), w_ih, w_hh, b_ih, b_hh)

    def sequence(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, State]:
        leaves = [leaf.unsqueeze(0).contiguous() for leaf in state]
        # `train` by whether there are gradients: a module in eval mode may still be differentiated.
        y, h, c = torch.lstm(x, leaves, list(weights), True, 1, 0.0, torch.is_grad_enabled(), False, False)
        return y, (h.squeeze(0), c.squeeze(0))

    def keep(self, biases: Sequence[Tensor], reach: Tensor) -> None:
        """The forget gate keeps, and the input gate lets in as little as is forgotten."""
        biases[1].copy_(reach)
        biases[0].copy_(-reach)

    def closed_by(self, weight: Tensor) -> Tensor:
        """Nothing comes in, nothing is forgotten."""
        shut = weight.new_tensor([-CLOSED, CLOSED, 0.0, 0.0])
        return shut.repeat_interleave(len(weight) // 4).unsqueeze(1)


def build(config: Config, spec: ObservationSpec) -> Lstm:
    """Raises SpecError for observations that hold neither numbers nor tokens, UserError for settings that make no
    sense."""
    if not abs(config.forget_bias) < CLOSED:
        raise UserError(f"lstm: forget_bias must be a small number such as 1, not {config.forget_bias}")
    return Lstm(config, spec)
