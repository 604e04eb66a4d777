"""The differentiable neural computer (Graves et al. 2016, Nature 538, 471-476, Methods).

A controller reads the observation and what the memory gave last, and drives one write head and R read heads on N slots
of W numbers. The write head finds free slots by itself; the read heads look up by content, or follow the order in which
slots were written. Switches add the improvements of Csordás and Schmidhuber 2019 (arXiv:1904.10278: `masked`,
`deallocate`, `sharpen`) and of Franke et al. 2018 (arXiv:1807.02658: `layer_norm`, `bypass_dropout`).

Said of the paper's own choices: the features are the controller's output and the read vectors, so that a linear head on
them is the paper's `W_y h + W_r r`; one controller layer; the interface vector is clipped, which bounds the strengths.
No parameter depends on the number of slots, so a trained net runs with more of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Encoder, Inputs, State
from .parts import addressing
from .parts.controllers import Controller, ControllerKind, walk
from .parts.links import link_step
from .parts.memory_step import memory_step, native_step
from .parts.reading import Reader
from .parts.repeated import Repeated

kind = "differentiable neural computer: memory with allocation and temporal links"

Record = dict[str, list[Tensor]]  # what the heads did, one tensor per step
INITIAL_MEMORY = 1e-6  # of every number in every slot


@dataclass(frozen=True)
class Config:
    slots: int = 32  # N; may be changed after training
    width: int = 16  # W, numbers per slot
    read_heads: int = 1  # R
    controller: ControllerKind = "lstm"
    hidden: int = 64  # units of the controller
    clip: float = 50.0  # of the interface vector; bounds strengths and what is written
    embedding: int = 0  # width of a token's learned vector; 0 = one-hot
    masked: bool = False  # 2019: keys come with masks, so that a part of a slot is looked up
    deallocate: bool = False  # 2019: what is freed is also wiped out
    sharpen: bool = False  # 2019: sharpness control of the links' distributions
    layer_norm: bool = False  # 2018: of the interface vector
    bypass_dropout: float = 0.0  # 2018: of the controller's output in the features, so that the memory is used


class Interface(NamedTuple):
    """What the controller tells the heads at one step."""

    read_keys: Tensor  # [B, R, W]
    read_strengths: Tensor  # [B, R], at least 1
    write_key: Tensor  # [B, 1, W]
    write_strength: Tensor  # [B, 1], at least 1
    erase: Tensor  # [B, 1, W] in 0..1
    add: Tensor  # [B, 1, W]
    free: Tensor  # [B, R] in 0..1
    allocate: Tensor  # [B, 1] in 0..1
    write: Tensor  # [B, 1] in 0..1
    modes: Tensor  # [B, R, 3]: backward, content, forward; a distribution
    read_masks: Tensor | None  # [B, R, W] in 0..1
    write_mask: Tensor | None  # [B, 1, W] in 0..1
    powers: Tensor | None  # [B, R, 2] of the backward and forward distributions, at least 1


class DNC(Encoder):
    """Features `[T, B, hidden + R * W]`: the controller's output and the read vectors.

    State: memory `[B, N, W]`, usage, precedence and write weights `[B, N]`, links `[B, N, N]`, read weights
    `[B, R, N]`, read vectors `[B, R, W]`, and with an LSTM its output and cell `[B, hidden]`. All but the
    first projection is computed in float32, under autocast too.
    """

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.slots, self.width, self.heads = config.slots, config.width, config.read_heads
        self.reader = Reader(spec, config.embedding, "dnc")
        reads = self.heads * self.width
        self.controller = Controller(config.controller, self.reader.size, reads, config.hidden)
        self.sizes = interface_sizes(config)
        self.switches = config.masked + 2 * config.deallocate + 4 * config.sharpen
        self.interface = nn.Linear(config.hidden, sum(self.sizes))
        self.norm = nn.LayerNorm(sum(self.sizes)) if config.layer_norm else None
        self.feature_shape = (config.hidden + reads,)
        self._remember = self.remember

    def initial_state(self, batch_size: int) -> State:
        n, w, r = self.slots, self.width, self.heads
        weight = self.interface.weight
        vectors = [weight.new_zeros(batch_size, *shape) for shape in ((n,), (n,), (n,), (n, n), (r, n), (r, w))]
        memory = weight.new_full((batch_size, n, w), INITIAL_MEMORY)
        return (memory, *vectors, *self.controller.initial_state(batch_size))

    def forward(
        self, inputs: Inputs, state: State = (), reset: Tensor | None = None, record: Record | None = None
    ) -> tuple[Tensor, State]:
        """As `Encoder.forward`. `record` is filled with what the heads did, a tensor per step and name."""
        projected = self.controller.project(self.reader(inputs.obs))
        step = partial(self.step, products=self.products(len(projected)), record=record)
        initial = self.initial_state(projected.shape[1])
        features, state = walk(step, projected, state, initial, reset, inputs.mask)
        if self.config.bypass_dropout:
            hidden, reads = features.split([self.config.hidden, self.heads * self.width], 2)
            features = torch.cat([F.dropout(hidden, self.config.bypass_dropout, self.training), reads], 2)
        return features, state

    def products(self, steps: int) -> tuple[Repeated, Repeated]:
        """What so many steps in a row multiply by: the controller's matrix and that of the interface."""
        return Repeated(self.controller.recurrent.weight, steps), Repeated(self.interface.weight, steps)

    def step(
        self, projected: Tensor, state: State, products: tuple[Repeated, Repeated], record: Record | None = None
    ) -> tuple[Tensor, State]:
        """One step of the controller and the memory; projected is the controller's `[B, ...]`."""
        hidden, carried = self.controller.step(projected, state[6].flatten(1), state[7:], products[0])
        vector = products[1](self.interface.bias, hidden)
        if self.norm is not None:
            vector = self.norm(vector)
        if self.config.clip:
            vector = vector.clamp(-self.config.clip, self.config.clip)
        library = native_step(vector, *state[:6])
        if library is None:
            new = self._remember(vector, *state[:6])
        else:
            new = memory_step(library, vector, state[:6], self.switches)
        if record is not None:
            told = self.parse(vector)
            seen = {"write_weights": new[3], "read_weights": new[5], "usage": new[1], "modes": told.modes}
            gates = {"allocation_gate": told.allocate, "write_gate": told.write, "free_gates": told.free}
            for name, value in {**seen, **gates}.items():
                record.setdefault(name, []).append(value.detach())
        return torch.cat([hidden, new[6].flatten(1)], 1), (*new, *carried)

    def remember(
        self,
        vector: Tensor,
        memory: Tensor,
        usage: Tensor,
        precedence: Tensor,
        last_write: Tensor,
        links: Tensor,
        last_read: Tensor,
    ) -> State:
        """The memory's state after a step in which the controller says `vector` `[B, sum(sizes)]`, read vectors last,
        in torch; `memory_step` is the same in C++."""
        told = self.parse(vector)
        kept = addressing.retention(told.free, last_read)
        usage = addressing.update_usage(usage, last_write, kept)
        content = addressing.by_content(memory, told.write_key, told.write_strength, told.write_mask).squeeze(1)
        write = told.write * torch.lerp(content, addressing.allocation(usage), told.allocate)
        if self.config.deallocate:
            memory = memory * kept.unsqueeze(2)
        memory = addressing.erase_and_add(memory, write.unsqueeze(1), told.erase, told.add)

        links, forward, backward = link_step(links, write, precedence, last_read)
        precedence = addressing.update_precedence(precedence, write)
        if told.powers is not None:
            backward = addressing.sharpen(backward, told.powers[:, :, 0])
            forward = addressing.sharpen(forward, told.powers[:, :, 1])
        content = addressing.by_content(memory, told.read_keys, told.read_strengths, told.read_masks)
        shares = told.modes.unsqueeze(3)
        read = shares[:, :, 0] * backward + shares[:, :, 1] * content + shares[:, :, 2] * forward
        return memory, usage, precedence, write, links, read, read @ memory

    def compile_step(self) -> bool:
        """Of what is done in torch: where there is a step in C++, that is faster."""
        self._remember = torch.compile(self.remember)
        return True

    def parse(self, vector: Tensor) -> Interface:
        """The interface vector `[B, sum(sizes)]` cut into parts, each in its range."""
        keys, key, strengths, add, gates, modes, powers = vector.split(self.sizes, 1)
        r, w = self.heads, self.width
        strengths, gates = addressing.oneplus(strengths), gates.sigmoid()
        erase, free, allocate, write, masks = gates.split([w, r, 1, 1, gates.shape[1] - w - r - 2], 1)
        return Interface(
            keys.unflatten(1, (r, w)),
            strengths[:, :r],
            key.unsqueeze(1),
            strengths[:, r:],
            erase.unsqueeze(1),
            add.unsqueeze(1),
            free,
            allocate,
            write,
            modes.unflatten(1, (r, 3)).softmax(2),
            masks[:, : r * w].unflatten(1, (r, w)) if self.config.masked else None,
            masks[:, r * w :].unsqueeze(1) if self.config.masked else None,
            addressing.oneplus(powers).unflatten(1, (r, 2)) if self.config.sharpen else None,
        )


def interface_sizes(config: Config) -> list[int]:
    """Read keys, write key, strengths, added vector, gates, read modes, powers: R * W + 3W + 5R + 3 numbers, with masks
    R * W + W more, with sharpening 2R more."""
    r, w = config.read_heads, config.width
    masks = (r * w + w) * config.masked
    return [r * w, w, r + 1, w, w + r + 2 + masks, 3 * r, 2 * r * config.sharpen]


def build(config: Config, spec: ObservationSpec) -> DNC:
    """Raises SpecError for observations that are neither numbers nor tokens, UserError for sizes that make no sense."""
    for name in ("slots", "width", "read_heads", "hidden"):
        if getattr(config, name) < 1:
            raise UserError(f"dnc: {name} must be at least 1, not {getattr(config, name)}")
    if not 0 <= config.bypass_dropout < 1:
        raise UserError(f"dnc: bypass_dropout must be from 0 to below 1, not {config.bypass_dropout}")
    if config.clip < 0:
        raise UserError(f"dnc: clip must be positive, or 0 for none, not {config.clip}")
    return DNC(config, spec)
