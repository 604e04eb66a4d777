"""Encoders by name: one file each, see `base` for the contract."""

from __future__ import annotations

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Encoder
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
