"""Supervised runs that are killed right after a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saccade.training import fit as fitting
from saccade.training.fit_plan import FitPlan


class Killed(Exception):
    """What stops such a run."""


def killed_and_resumed(plan: FitPlan, directory: Path, monkeypatch: pytest.MonkeyPatch, saves: int) -> dict[str, Any]:
    """The result of the run of `plan`, killed after so many checkpoints and then gone on with to its end."""
    real, count = fitting.save, 0

    def save(going: Any) -> None:
        nonlocal count
        real(going)
        count += 1
        if count == saves:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "save", save)
        with pytest.raises(Killed):
            fitting.fit(plan, directory, [])
    return fitting.resume(directory, trackers=[])
