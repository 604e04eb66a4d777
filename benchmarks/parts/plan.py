"""What a benchmark asks for: its options, and the runs it is made of."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...envs.errors import UnknownNameError, UserError


@dataclass(frozen=True)
class BenchOptions:
    """Options of `saccade bench`. Those that a benchmark has no use for change nothing."""

    only: tuple[str, ...] = ()  # run these settings alone; an unknown name, such as x, lists all
    seeds: int | None = None  # runs of each setting, with training seeds 0, 1, ...; None: the benchmark's own number
    jobs: int = 1  # runs at once; they divide the threads among them
    threads: int | None = None  # processor threads for all jobs together; None: as many as there are processors
    cluster: str | None = None  # spread the runs over a Ray cluster: auto, or its address; --threads are those of a run
    against: Literal["none", "sb3"] = "none"  # a peer that runs the same task beside ours
    steps: int | None = None  # environment steps of each run; None: the benchmark's own number
    out: Path | None = None  # runs and results go here; None: runs/bench/NAME and benchmarks/results of the checkout
    env: str | None = None  # another world: representations, memory, flicker, scaling, unreal_ablation; None: their own
    which: Literal["cartpole", "breakout", "both"] = "both"  # throughput: which tasks to time
    rounds: int = 8  # throughput: slices of each side; the first is a warm-up and not counted
    slice_seconds: float = 7.0  # throughput: length of a slice
    compare: Path | None = None  # throughput: an earlier throughput.json; a build over 10 % slower is flagged

    def __post_init__(self) -> None:
        for name in ("seeds", "jobs", "threads", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.rounds < 2:
            raise UserError(f"--rounds is {self.rounds}; it must be at least 2, since the first one is a warm-up")
        if not self.slice_seconds > 0:
            raise UserError(f"--slice-seconds is {self.slice_seconds}; it must be positive")


@dataclass(frozen=True)
class Run:
    """One training run: a process of its own that leaves a run directory with `result.json`."""

    group: str  # runs of one group differ in their seed only; letters, digits, dots and dashes
    seed: int
    arguments: tuple[str, ...]  # behind `python -m`, without seed, threads and directory
    steps: int = 0  # environment steps, for the progress bar; 0: not known
    most_threads: int | None = None  # where more would only slow it, such as networks of a few units; None: no limit

    @property
    def name(self) -> str:
        return f"{self.group}-seed{self.seed}"

    def command(self, folder: Path, threads: int, *, resume: bool = False) -> list[str]:
        """The process to start, as an argument list."""
        threads = min(threads, self.most_threads or threads)
        rest = ["--seed", str(self.seed), "--threads", str(threads), "--out", str(folder)]
        return [sys.executable, "-m", *self.arguments, *rest, *(["--resume"] if resume else [])]


class Outcome(NamedTuple):
    """What became of a run."""

    run: Run
    folder: Path
    result: dict[str, Any] | None  # result.json; None: the run failed
    error: str  # the last lines of a failed run


def chosen(only: Sequence[str], known: Collection[str]) -> list[str]:
    """Those of `known` that `--only` names, in the order of `known`; all where it names none.

    Raises:
        UnknownNameError: there is no such setting; names the nearest that is.
    """
    for name in only:
        if name not in known:
            raise UnknownNameError("setting", name, known)
    return [name for name in known if not only or name in only]


def chosen_runs(only: Sequence[str], runs: Sequence[Run]) -> list[Run]:
    """The runs of the groups that `--only` names. Raises as `chosen`."""
    names = set(chosen(only, list(dict.fromkeys(run.group for run in runs))))
    return [run for run in runs if run.group in names]


def needed(preparations: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """Those preparations whose directory one of `runs` reads."""
    read = {part for run in runs for word in run.arguments for part in Path(word).parts}
    return [run for run in preparations if run.name in read]
