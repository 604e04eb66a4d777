"""Encoders by name: one file each, see `base` for the contract."""

from __future__ import annotations

from ..envs.errors import UserError
from ..envs.spec import ActionSpec, ObservationSpec
from .base import Encoder, WithMemory, remembered
from .parts.registry import Entry, Registry, make_config

registry = Registry(__name__, "encoder")


def list_encoders() -> list[str]:
    """Names of the built-in encoders."""
    return registry.names()


def find_encoder(name: str, user: bool = True) -> Entry:
    """Kind, Config and build of an encoder; see `Registry.find` for names and errors."""
    return registry.find(name, user)


def make_encoder(name: str, spec: ObservationSpec, config: object | None = None) -> Encoder:
    """Build an encoder for observations of `spec`.

    Args:
        name: built-in name, `path/to/mine.py`, or `package.module`.
        config: its `Config`; None takes the defaults.

    Raises:
        UserError: no such encoder, or a setting makes no sense.
        SpecError: it cannot read such observations.
    """
    entry = find_encoder(name)
    encoder = entry.build(make_config(entry, "encoder", config), spec)
    if not isinstance(encoder, Encoder):
        raise UserError(f"encoder {name!r}: build must return a saccade Encoder, not {type(encoder).__name__}")
    return encoder


def with_memory(
    perception: Encoder, name: str, config: object | None = None, action: ActionSpec | None = None
) -> WithMemory:
    """`perception` with the memory called `name` behind it.

    Args:
        config: the memory's `Config`; None takes the defaults.
        action: of the world, where the memory is to read the last action and reward, too.

    Raises:
        UserError: no such memory, or one of the two is the wrong way round.
        SpecError: the memory cannot read what the encoder gives.
    """
    if perception.initial_state(1):
        raise UserError(f"{type(perception).__name__} is a memory itself: put an encoder without in front of --memory")
    memory = make_encoder(name, remembered(perception, action), config)
    if not memory.initial_state(1) and memory.causal:
        raise UserError(f"{name!r} remembers nothing, so --memory cannot be that; see `saccade list memories`")
    return WithMemory(perception, memory, action)
