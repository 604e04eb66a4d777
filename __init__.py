"""saccade: reinforcement learning with swappable representation learners."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "make_env": "envs",
    "make_encoder": "encoders",
    "make_agent": "agents",
    "run": "training.loop",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used, so that tools may import this file under any directory name."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"saccade.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
