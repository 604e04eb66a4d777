"""What drives an external memory: an LSTM cell, or one dense layer, that also reads what the memory gave last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ...envs.errors import UserError
from ..base import State, keep_state, reset_state
from .repeated import Repeated

ControllerKind = Literal["lstm", "feedforward"]


class Controller(nn.Module):
    """Inputs `[T, B, D]` are projected at once (`project`); `step` adds what was read last and the cell's own state.

    "lstm": Hochreiter and Schmidhuber 1997 with forget gates (Gers et al. 2000), whose biases begin at 1.
    "feedforward": one tanh layer, whose only memory is the external one.
    Outputs of both lie within -1..1.
    """

    def __init__(self, kind: ControllerKind, inputs: int, reads: int, units: int):
        """Raises UserError for a kind or sizes that there are not."""
        super().__init__()
        if kind not in get_args(ControllerKind):
            raise UserError(f"unknown controller {kind!r}; known: {', '.join(get_args(ControllerKind))}")
        if units < 1:
            raise UserError(f"hidden must be at least 1 unit, not {units}")
        self.recurs, self.units = kind == "lstm", units
        outputs = 4 * units if self.recurs else units
        self.inputs = nn.Linear(inputs, outputs)
        self.recurrent = nn.Linear(reads + units * self.recurs, outputs, bias=False)
        bound = (inputs + reads + units * self.recurs) ** -0.5
        with torch.no_grad():
            for weight in (self.inputs.weight, self.recurrent.weight):
                weight.uniform_(-bound, bound)
            self.inputs.bias.zero_()
            if self.recurs:
                self.inputs.bias[:units] = 1.0

    def initial_state(self, batch_size: int) -> State:
        """() or (output, cell), both `[B, units]`."""
        zeros = self.inputs.weight.new_zeros(batch_size, self.units)
        return (zeros, zeros) if self.recurs else ()

    def project(self, x: Tensor) -> Tensor:
        """`[T, B, D]` to what `step` reads, in the weights' own type even under autocast."""
        dtype = self.inputs.weight.dtype
        return self.inputs(x.to(dtype)).to(dtype)

    def step(self, projected: Tensor, reads: Tensor, state: State, product: Repeated) -> tuple[Tensor, State]:
        """One step: projected `[B, outputs]`, reads `[B, reads]`; `product` is with the weight of `recurrent`.

        Returns the output `[B, units]` and the state.
        """
        if not self.recurs:
            return product(projected, reads).tanh(), ()
        output, cell = state
        sums = product(projected, torch.cat([reads, output], 1))
        forget, allow, out = sums[:, : 3 * self.units].sigmoid().chunk(3, 1)
        cell = torch.addcmul(forget * cell, allow, sums[:, 3 * self.units :].tanh())
        output = out * cell.tanh()
        return output, (output, cell)


def walk(
    step: Callable[[Tensor, State], tuple[Tensor, State]],
    projected: Tensor,
    state: State,
    initial: State,
    reset: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, State]:
    """T steps one after another, as `Encoder.forward` has it: in the weights' own type even under autocast.

    Args:
        step: of `[B, ...]` and a state, to features `[B, D]` and the next state.
        projected: `[T, B, ...]`, what the steps read.
        state: before the first step.
        initial: what it is reset to.
        reset, mask: bool `[T, B]`, see `Encoder.forward` and `Inputs`.

    Returns:
        features `[T, B, D]`, and the state after the last step.
    """
    resets, pads = _touched(reset), _touched(None if mask is None else ~mask)
    features = []
    with torch.autocast(projected.device.type, enabled=False):
        for t, x in enumerate(projected):
            if reset is not None and resets[t]:
                state = reset_state(state, initial, reset[t])
            output, new = step(x, state)
            state = keep_state(state, new, mask[t]) if mask is not None and pads[t] else new
            features.append(output)
    return torch.stack(features), state


def _touched(marks: Tensor | None) -> list[bool]:
    """For each step of `[T, B]` whether any row is marked; [] for None. Read from the device once."""
    return [] if marks is None else marks.any(1).tolist()
