"""What the LSTM and the GRU share: whole sequences through the fused kernels, resets and padding where they fall.

A fused kernel (oneDNN, cuDNN) knows neither resets nor padding. A sequence is therefore cut before every step at which
some row is reset or goes on after a gap, and each piece is one call; a piece of one step, and so acting, is a plain
cell. Padding at the end of a piece does not cut it, see `Recurrent._padded`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...envs.errors import UserError
from ...envs.spec import ObservationSpec
from ..base import Encoder, Inputs, State, keep_state, reset_state
from .pieces import cuts
from .reading import Reader


@dataclass(frozen=True)
class Settings:
    """What both can be told."""

    hidden: int = 256  # units of each layer and direction
    layers: int = 1
    embedding: int = 0  # width of a token's learned vector; 0 = one-hot
    dropout: float = 0.0  # share of units blanked between layers
    input_dropout: float = 0.0  # of what the first layer reads
    output_dropout: float = 0.0  # of the features
    locked_dropout: bool = False  # one draw for all steps of a call (Gal & Ghahramani 2016, arXiv:1512.05287)
    bidirectional: bool = False  # a second net reads from the end: 2 * hidden features, for `fit` only
    learned_state: bool = False  # learn the state before the first step, instead of zeros
    horizon: int = 0  # gates keep for 2 to so many steps at first (Tallec & Ollivier 2018, "chrono"); 0 = off


class Plan(NamedTuple):
    """Where a sequence `[T, B]` is reset, padded and cut."""

    reset: Tensor | None  # bool [T, B]
    mask: Tensor | None  # bool [T, B]; None = no padding
    cuts: list[int]  # first step of every piece, and T


class Recurrent(Encoder):
    """Layers of one kind of cell. State: as many leaves `[B, layers, hidden]` as the cell has, the output first.

    Read in both directions (then `causal` is False) it has no state, and every sequence begins at the initial one.
    """

    leaves: int  # tensors in a layer's state
    gates: int  # blocks of `hidden` rows in its weights

    def __init__(self, config: Settings, spec: ObservationSpec, name: str):
        """Raises SpecError where the observations cannot be read, UserError for settings that make no sense."""
        super().__init__()
        _check(config, name)
        self.config = config
        self.reader = Reader(spec, config.embedding, name)
        directions = 1 + config.bidirectional
        self.causal = not config.bidirectional
        self.feature_shape = (directions * config.hidden,)
        sizes = [self.reader.size] + [directions * config.hidden] * (config.layers - 1)
        self.ahead = nn.ModuleList(self.make_layer(size, config.hidden) for size in sizes)
        self.back = nn.ModuleList(self.make_layer(size, config.hidden) for size in sizes * config.bidirectional)
        for layer in (*self.ahead, *self.back):
            self.initialise(layer)
            if config.horizon:
                reach = torch.empty(config.hidden).uniform_(1, config.horizon - 1).log()
                self.keep(layer.get_parameter("bias_ih_l0").detach().chunk(self.gates), reach)
        start = torch.zeros(self.leaves, config.layers, config.hidden)
        self.start: nn.Parameter | None = nn.Parameter(start) if config.learned_state else None

    @abstractmethod
    def make_layer(self, inputs: int, hidden: int) -> nn.RNNBase:
        """One layer that reads `[T, B, inputs]`."""

    @abstractmethod
    def cell(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        """One step: `x` `[B, D]`, leaves `[B, H]`."""

    @abstractmethod
    def sequence(self, x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, State]:
        """T steps in one call of the fused kernel: `x` `[T, B, D]`, leaves `[B, H]`, outputs `[T, B, H]`."""

    @abstractmethod
    def keep(self, biases: Sequence[Tensor], reach: Tensor) -> None:
        """Set the biases of gates, `[hidden]` each, such that unit i keeps for `1 + exp(reach[i])` steps, as a gate of
        sigmoid(reach[i]) does (Tallec & Ollivier 2018, arXiv:1804.11188)."""

    def closed_by(self, weight: Tensor) -> Tensor | None:
        """A column for the input weights such that an input of 1 there leaves unchanged what of the state is not
        output. None: all of it is."""
        return None

    def initialise(self, layer: nn.Module) -> None:
        """Input weights after Glorot & Bengio (2010), recurrent ones orthogonal, both gate by gate; biases 0."""
        for name, parameter in layer.named_parameters():
            for gate in parameter.detach().chunk(self.gates):
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.zeros_(gate)

    def initial_state(self, batch_size: int) -> State:
        return () if self.config.bidirectional else self._begin(batch_size)

    def _begin(self, batch_size: int) -> State:
        if self.start is not None:
            return tuple(leaf.expand(batch_size, -1, -1) for leaf in self.start)
        shape = (batch_size, self.config.layers, self.config.hidden)
        like = next(self.ahead.parameters())
        return tuple(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(self.leaves))

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        x = self._drop(self.reader(inputs.obs), self.config.input_dropout)
        mask = inputs.mask
        if mask is not None and mask.device.type == "cpu" and bool(mask.all()):
            mask = None
        initial = self._begin(x.shape[1])
        before = initial if self.config.bidirectional else state
        plan = Plan(reset, mask, cuts(reset, mask, len(x)))
        turned = _Turned(plan, x) if self.config.bidirectional else None
        after = []
        for i, layer in enumerate(self.ahead):
            x = self._drop(x, self.config.dropout) if i else x
            first, start = (tuple(leaf[:, i] for leaf in leaves) for leaves in (before, initial))
            y, last = self._layer(layer, x, first, start, plan)
            if turned is not None:
                y_back, _ = self._layer(self.back[i], turned.turn(x), first, start, turned.plan)
                y = torch.cat([y, turned.turn_back(y_back)], 2)
            x = y
            after.append(last)
        x = self._drop(x, self.config.output_dropout)
        return x, () if self.config.bidirectional else tuple(torch.stack(leaf, 1) for leaf in zip(*after, strict=True))

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        if not (rate and self.training):
            return x
        if not self.config.locked_dropout:
            return F.dropout(x, rate)
        return x * F.dropout(torch.ones_like(x[:1]), rate)

    def _layer(self, layer: nn.Module, x: Tensor, state: State, initial: State, plan: Plan) -> tuple[Tensor, State]:
        """One layer over `x` `[T, B, D]`, from and to leaves `[B, H]`."""
        assert isinstance(layer, nn.RNNBase)
        outputs = []
        for first, end in pairwise(plan.cuts):
            state = reset_state(state, initial, None if plan.reset is None else plan.reset[first])
            mask = None if plan.mask is None else plan.mask[first:end]
            y, new = self._piece(layer, x[first:end], state, mask)
            state = tuple(leaf.to(old.dtype) for leaf, old in zip(new, state, strict=True))  # not autocast's
            outputs.append(y)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def _piece(self, layer: nn.RNNBase, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Consecutive steps without a reset after the first, padded at their end only."""
        weights = layer.all_weights[0]
        if len(x) == 1:
            new = self.cell(x[0], state, weights)
            return new[0].unsqueeze(0), keep_state(state, new, None if mask is None else mask[0])
        if mask is None:
            return self.sequence(x, state, weights)
        if x.device.type != "cpu":
            return self._packed(layer, x, state, mask)
        return self._padded(x, state, weights, mask)

    def _padded(self, x: Tensor, state: State, weights: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, State]:
        """The kernel reads the padding too. What it outputs is taken at the last real step of each row; what it does
        not output (an LSTM's cell) is carried to the end by a further input, 1 at padding, that closes the gates.
        Packed sequences would miss oneDNN: they take 3 times as long, 10 times in bfloat16."""
        column = self.closed_by(weights[0])
        if column is not None:
            x = torch.cat([x, (~mask).unsqueeze(2).to(x.dtype)], 2)
            weights = [torch.cat([weights[0], column], 1), *weights[1:]]
        y, new = self.sequence(x, state, weights)
        steps = mask.sum(0)
        last = y.gather(0, (steps - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, y.shape[2])).squeeze(0)
        return y, keep_state(state, (last, *new[1:]), steps > 0)

    def _packed(self, layer: nn.RNNBase, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        """The same by packed sequences, which cuDNN knows."""
        steps = mask.sum(0)
        packed = pack_padded_sequence(x, steps.clamp(min=1).cpu(), enforce_sorted=False)
        leaves = [leaf.unsqueeze(0).contiguous() for leaf in state]
        y, new = layer(packed, tuple(leaves) if self.leaves > 1 else leaves[0])
        new = tuple(leaf.squeeze(0) for leaf in (new if self.leaves > 1 else (new,)))
        return pad_packed_sequence(y, total_length=len(x))[0], keep_state(state, new, steps > 0)


class _Turned:
    """Each row backwards in time, its padding moved to the end."""

    def __init__(self, plan: Plan, x: Tensor):
        self._order: Tensor | None = None
        mask, reset, length = plan.mask, plan.reset, len(x)
        if mask is not None:
            step = torch.arange(length, device=x.device).unsqueeze(1)
            self._order = torch.where(mask, length - 1 - step, length + step).argsort(0)
            self._inverse = self._order.argsort(0)
            mask = self.turn(mask.unsqueeze(2)).squeeze(2)
        if reset is not None:
            episode = self.turn(reset.cumsum(0).unsqueeze(2)).squeeze(2)
            reset = torch.cat([torch.zeros_like(reset[:1]), episode[1:] != episode[:-1]])
        self.plan = Plan(reset, mask, cuts(reset, mask, length))

    def turn(self, x: Tensor) -> Tensor:
        return x.flip(0) if self._order is None else _take(x, self._order)

    def turn_back(self, x: Tensor) -> Tensor:
        return x.flip(0) if self._order is None else _take(x, self._inverse)


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(0, order.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _check(config: Settings, name: str) -> None:
    if config.hidden < 1 or config.layers < 1:
        raise UserError(f"{name}: hidden and layers must be positive, not {config.hidden} and {config.layers}")
    if config.horizon and config.horizon < 2:
        raise UserError(f"{name}: horizon must be 0 (off) or at least 2 steps, not {config.horizon}")
    for field in ("dropout", "input_dropout", "output_dropout"):
        if not 0 <= getattr(config, field) < 1:
            raise UserError(f"{name}: {field} must be at least 0 and below 1, not {getattr(config, field)}")
    if config.dropout and config.layers == 1:
        raise UserError(f"{name}: dropout is between layers, and there is one; use input_dropout or output_dropout")
