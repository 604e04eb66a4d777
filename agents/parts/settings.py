"""Checks of an agent's settings, so that bad ones are refused in the same words everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...envs.errors import UserError


def check_settings(
    agent: str,
    config: Any,
    *,
    positive: Iterable[str] = (),
    not_negative: Iterable[str] = (),
    share: Iterable[str] = (),
) -> None:
    """Raises UserError unless the named fields of `config` are finite and above 0, at least 0, or in [0, 1].

    A field that is None is left out: it is switched off.
    """
    rules = (
        (positive, "be above 0", lambda value: value > 0),
        (not_negative, "not be negative", lambda value: value >= 0),
        (share, "lie between 0 and 1", lambda value: 0 <= value <= 1),
    )
    for names, demand, is_good in rules:
        for name in names:
            value = getattr(config, name)
            if value is not None and not (math.isfinite(value) and is_good(value)):
                raise UserError(f"{agent}: {name} must {demand}, not {value}")
