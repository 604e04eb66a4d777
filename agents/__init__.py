"""Agents by name: one file each, see `base` for the contract."""

from __future__ import annotations

from ..encoders.base import Encoder
from ..encoders.parts.registry import Entry, Registry, make_config
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from .base import Agent
from .parts.compute import Compute

registry = Registry(__name__, "agent")


def list_agents() -> list[str]:
    """Names of the built-in agents."""
    return registry.names()


def find_agent(name: str, user: bool = True) -> Entry:
    """Kind, Config and build of an agent; see `Registry.find` for names and errors."""
    return registry.find(name, user)


def make_agent(
    name: str,
    spec: EnvSpec,
    encoder: Encoder,
    config: object | None = None,
    compute: Compute | None = None,
    seed: int = 0,
) -> Agent:
    """Build an agent for the world of `spec` that sees through `encoder`.

    Args:
        name: built-in name, `path/to/mine.py`, or `package.module`.
        config: its `Config`; None takes the defaults.
        compute: device and precision; None: `Compute()`, the CPU.
        seed: of its parameters and its random choices.

    Raises:
        UserError: no such agent, or a setting makes no sense.
        SpecError: it cannot act in such a world, or not through such an encoder.
    """
    if not encoder.causal:
        raise SpecError(f"{name} cannot act through an encoder that reads what comes later (bidirectional)")
    entry = find_agent(name)
    agent = entry.build(make_config(entry, "agent", config), spec, encoder, compute or Compute(), seed)
    if not isinstance(agent, Agent):
        raise UserError(f"agent {name!r}: build must return a saccade Agent, not {type(agent).__name__}")
    if compute is not None and compute.compile and not agent.compiles:
        raise UserError(f"{name} has nothing that torch would compile: leave --compile out")
    return agent
