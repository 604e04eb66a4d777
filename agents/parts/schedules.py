"""Numbers that change with the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """From `initial` to `final` over `steps` environment steps, after `begin`; then `final`."""

    initial: float
    final: float
    steps: int
    begin: int = 0

    def __call__(self, step: int) -> float:
        if self.steps <= 0:
            return self.final
        fraction = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return self.initial + fraction * (self.final - self.initial)
