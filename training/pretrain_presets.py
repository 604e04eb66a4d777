"""Recipes for pretraining, by name. What the command line gives goes before them.

Only data: a preset names a learner, a data set, and fields of the learner's `Config` and of `PretrainConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PretrainPreset:
    learner: str
    data: str
    source: str  # where the numbers come from
    learner_config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, PretrainPreset] = {}
