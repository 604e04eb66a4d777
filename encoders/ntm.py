"""The neural Turing machine (Graves, Wayne and Danihelka 2014, arXiv:1410.5401).

A controller reads the observation and what the heads read last. Each head finds its slots by content, by moving on
from where it was, or by both (section 3.3, figure 2); write heads erase and add (3.2), read heads return weighted sums
(3.1).

Where the paper leaves the choice: within a step the heads write before they read; strengths and sharpening powers are
`1 + softplus`; at first the memory holds one small constant (Collier and Beel 2018, arXiv:1807.08518, found that to
serve best), every head rests on the first slot, and the read vectors are learned. No parameter depends on the number of
slots, so a trained net runs with more of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State
from .parts import addressing
from .parts.controllers import Controller, ControllerKind, walk
from .parts.reading import Reader
from .parts.repeated import Repeated

kind = "neural Turing machine: memory with content and location addressing"

Record = dict[str, list[Tensor]]  # what the heads did, one tensor per step
INITIAL_MEMORY = 1e-6  # of every number in every slot


@dataclass(frozen=True)
class Config:
    slots: int = 32  # N; may be changed after training
    width: int = 16  # W, numbers per slot
    read_heads: int = 1
    write_heads: int = 1
    shift: int = 1  # heads move by up to so many slots in a step
    controller: ControllerKind = "lstm"
    hidden: int = 64  # units of the controller
    clip: float = 50.0  # of what the controller tells the heads; bounds strengths and what is written; 0 = none
    embedding: int = 0  # width of a token's learned vector; 0 = one-hot


class Told(NamedTuple):
    """What the controller tells all heads at one step; read heads come first. H = read + write heads."""

    keys: Tensor  # [B, H, W]
    strengths: Tensor  # [B, H], at least 1
    gates: Tensor  # [B, H] in 0..1: by content, rather than from where the head was
    shifts: Tensor  # [B, H, 2 * shift + 1], a distribution
    powers: Tensor  # [B, H], at least 1
    erase: Tensor  # [B, write heads, W] in 0..1
    add: Tensor  # [B, write heads, W]


class NTM(Encoder):
    """Features `[T, B, hidden + read_heads * W]`: the controller's output and the read vectors.

    State: memory `[B, N, W]`, weights of the read heads and then the write heads `[B, H, N]`, read vectors
    `[B, read_heads, W]`, and with an LSTM its output and cell `[B, hidden]`. All but the first projection is computed
    in float32, under autocast too.
    """

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config, self.slots, self.heads = config, config.slots, config.read_heads + config.write_heads
        self.reader = Reader(spec, config.embedding, "ntm")
        reads, moves = config.read_heads * config.width, 2 * config.shift + 1
        self.controller = Controller(config.controller, self.reader.size, reads, config.hidden)
        written = config.write_heads * config.width
        self.sizes = [
            self.heads * config.width,
            self.heads,
            self.heads,
            moves * self.heads,
            self.heads,
            written,
            written,
        ]
        self.interface = nn.Linear(config.hidden, sum(self.sizes))
        self.first_reads = nn.Parameter(torch.randn(config.read_heads, config.width) * 0.1)
        self.feature_shape = (config.hidden + reads,)
        self._remember = self.remember

    def initial_state(self, batch_size: int) -> State:
        """Every head rests on the first slot."""
        weight = self.interface.weight
        memory = weight.new_full((batch_size, self.slots, self.config.width), INITIAL_MEMORY)
        weights = weight.new_zeros(batch_size, self.heads, self.slots)
        weights[:, :, 0] = 1
        reads = self.first_reads.expand(batch_size, -1, -1)
        return (memory, weights, reads, *self.controller.initial_state(batch_size))

    def forward(
        self, inputs: Inputs, state: State = (), reset: Tensor | None = None, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """As `Encoder.forward`. `record` is filled with what the heads did, a tensor per step and name."""
        projected = self.controller.project(self.reader(inputs.obs))
        step = partial(self.step, products=self.products(len(projected)), record=record)
        initial = self.initial_state(projected.shape[1])
        return walk(step, projected, state, initial, reset, inputs.mask)

    def products(self, steps: int) -> tuple[Repeated, Repeated]:
        """What so many steps in a row multiply by: the controller's matrix and that of the interface."""
        return Repeated(self.controller.recurrent.weight, steps), Repeated(self.interface.weight, steps)

    def step(
        self, projected: Tensor, state: State, products: tuple[Repeated, Repeated], record: Record | None = None
    ) -> tuple[Tensor, State]:
        """One step of the controller and the heads; projected is the controller's `[B, ...]`."""
        hidden, carried = self.controller.step(projected, state[2].flatten(1), state[3:], products[0])
        vector = products[1](self.interface.bias, hidden)
        new = self._remember(vector, *state[:2])
        if record is not None:
            told = self.parse(vector)
            reading, writing = new[1].split([self.config.read_heads, self.config.write_heads], 1)
            seen = {"write_weights": writing, "read_weights": reading, "gates": told.gates, "shifts": told.shifts}
            for name, value in {**seen, "powers": told.powers}.items():
                record.setdefault(name, []).append(value.detach())
        return torch.cat([hidden, new[2].flatten(1)], 1), (*new, *carried)

    def remember(self, vector: Tensor, memory: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Memory, weights and read vectors after a step in which the controller says `vector` `[B, sum(sizes)]`."""
        told, readers = self.parse(vector), self.config.read_heads
        writing = self.address(memory, told, weights, slice(readers, None))
        memory = addressing.erase_and_add(memory, writing, told.erase, told.add)
        reading = self.address(memory, told, weights, slice(0, readers))
        return memory, torch.cat([reading, writing], 1), reading @ memory

    def compile_step(self) -> bool:
        self._remember = torch.compile(self.remember)
        return True

    def address(self, memory: Tensor, told: Told, weights: Tensor, heads: slice) -> Tensor:
        """Weights `[B, some heads, N]` of this step, from those `[B, H, N]` of the last one (equations 5 to 9)."""
        content = addressing.by_content(memory, told.keys[:, heads], told.strengths[:, heads])
        gated = torch.lerp(weights[:, heads], content, told.gates[:, heads].unsqueeze(2))
        return addressing.sharpen(addressing.shift(gated, told.shifts[:, heads]), told.powers[:, heads])

    def parse(self, vector: Tensor) -> Told:
        """What the controller says, `[B, sum(sizes)]`, cut into parts, each in its range."""
        if self.config.clip:
            vector = vector.clamp(-self.config.clip, self.config.clip)
        keys, strengths, gates, shifts, powers, erase, add = vector.split(self.sizes, 1)
        width = self.config.width
        return Told(
            keys.unflatten(1, (-1, width)),
            addressing.oneplus(strengths),
            gates.sigmoid(),
            shifts.unflatten(1, (self.heads, -1)).softmax(2),
            addressing.oneplus(powers),
            erase.unflatten(1, (-1, width)).sigmoid(),
            add.unflatten(1, (-1, width)),
        )


def build(config: Config, spec: ObservationSpec) -> NTM:
    """Raises SpecError for observations that are neither numbers nor tokens, UserError for sizes that make no sense."""
    for name in ("slots", "width", "read_heads", "write_heads", "hidden"):
        if getattr(config, name) < 1:
            raise UserError(f"ntm: {name} must be at least 1, not {getattr(config, name)}")
    if config.shift < 0:
        raise UserError(f"ntm: shift must be 0 (heads cannot move) or more, not {config.shift}")
    if config.clip < 0:
        raise UserError(f"ntm: clip must be positive, or 0 for none, not {config.clip}")
    return NTM(config, spec)
