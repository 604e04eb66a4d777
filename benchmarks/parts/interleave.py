"""Programs in processes of their own by turns, so that what slows the machine slows all; where the time of one goes."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.progress import track

Advance = Callable[[int], int]  # goes on for about so many environment steps; returns how many there were
SETTLE_SECONDS = 0.3  # until the threads of the side before have stopped spinning


class Speed(NamedTuple):
    """Environment steps per second over the slices that count."""

    median: float
    low: float  # the slowest slice
    high: float  # the fastest slice
    slices: list[float]

    @classmethod
    def of(cls, slices: Sequence[float]) -> Speed:
        return cls(statistics.median(slices), min(slices), max(slices), list(slices))


def alternate(sides: Mapping[str, Advance], *, rounds: int, seconds: float, title: str) -> dict[str, Speed]:
    """Let `sides` run by turns, `seconds` each and `rounds` times, in an order that turns round every time.

    The first round is a warm-up: it finds out how many steps fill a slice, and is not counted. From then on each side
    takes the same number of steps in every slice.
    """
    warm = {name: _steps_per_second(advance, seconds) for name, advance in sides.items()}
    counts = {name: max(int(rate * seconds), 1) for name, rate in warm.items()}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for _ in track(range(rounds - 1), title, transient=True):
        for name in names:
            time.sleep(SETTLE_SECONDS)
            begin = time.perf_counter()
            steps = sides[name](counts[name])
            speeds[name].append(steps / (time.perf_counter() - begin))
        names.reverse()
    return {name: Speed.of(slices) for name, slices in speeds.items()}


class Elsewhere:
    """A side in a process of its own, with the allocator, threads and settings that it has when it runs alone.

    It is built by `make(*arguments)`, a function of a module; between two calls it waits for the next one.
    """

    def __init__(self, make: Callable[..., Callable[[Any], Any]], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, argument: Any) -> Any:
        """What the side returns for `argument`. Raises RuntimeError where it has died."""
        try:
            self._pipe.send(argument)
            return self._pipe.recv()
        except (EOFError, BrokenPipeError):
            self._process.join()
            raise RuntimeError(f"a side of the comparison ended with status {self._process.exitcode}") from None

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    side = make(*arguments)
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return
        pipe.send(side(argument))


def _steps_per_second(advance: Advance, seconds: float) -> float:
    """Of the last pieces of a run of about `seconds` that grow, so that a slow start does not count."""
    begin, steps, rate = time.perf_counter(), 64, 0.0
    while (now := time.perf_counter()) - begin < seconds:
        done = advance(steps)
        rate = done / (time.perf_counter() - now)
        steps = max(min(2 * steps, int(rate * seconds / 4)), 1)
    return rate


@contextmanager
def timed(parts: Mapping[str, tuple[Any, str]], seconds: dict[str, float]) -> Iterator[None]:
    """While it lasts, the time spent in method `parts[name] = (object, method)` is added to `seconds[name]`."""
    for name, (owner, method) in parts.items():
        seconds[name] = 0.0
        setattr(owner, method, _stopwatch(getattr(owner, method), name, seconds))
    try:
        yield
    finally:
        for owner, method in parts.values():
            delattr(owner, method)  # the instance's; the class's shows again


def _stopwatch(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - begin

    return call
