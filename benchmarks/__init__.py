"""Benchmarks by name: one file each, run with `saccade bench NAME`.

A benchmark file defines `kind` (one line) and either `measure(options) -> Report`, or `runs(options) -> list[Run]`,
each a process of its own, and `report(outcomes, options) -> Report`; `preparations(options) -> list[Run]`, where there
is one, names runs that must be through before the first of the others begins. `saccade bench NAME --only GROUP` keeps
the runs of some groups, and what they read; a `measure` that heeds `options.only` lists its names as `choices`. Those
that can run in another world set `takes_env`.
"""

from __future__ import annotations

from .parts.plan import BenchOptions
from .parts.runner import list_benchmarks, run_benchmark

__all__ = ["BenchOptions", "list_benchmarks", "run_benchmark"]
