"""The replay of Atari frames: the memory it takes, and how long a batch takes to sample."""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    raise SystemExit("type instead: python -m saccade.benchmarks.replay, or saccade bench replay")

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from ..agents.parts.replay import Replay
from ..envs.base import Step
from ..envs.errors import UserError
from ..envs.spec import ActionSpec, EnvSpec, ObservationSpec
from .parts.plan import BenchOptions
from .parts.report import Report, Table

kind = "memory of a replay of a million Atari transitions, and the time to sample a batch of 32 stacks"

ENVS, CAPACITY, BATCH, DRAWS = 8, 1_000_000, 32, 3_000
EPISODE = 400  # mean length in steps
SPEC = EnvSpec("random frames", ENVS, ObservationSpec((4, 84, 84), "uint8", 0, 255, stack=4), ActionSpec(count=4))


def measure(options: BenchOptions) -> Report:
    """Fill a uniform and a prioritised replay, one after the other."""
    capacity = options.steps or CAPACITY
    rows: list[tuple[str, ...]] = []
    data: dict[str, Any] = {"transitions": capacity, "batch": BATCH, "draws": DRAWS}
    for name, exponent in (("uniform", 0.0), ("prioritised", 0.5)):
        before = resident_bytes()
        replay = Replay(capacity, SPEC, seed=0, priority_exponent=exponent)
        begin = time.perf_counter()
        for step in track(steps(capacity // ENVS), f"filling, {name}", capacity // ENVS, transient=True):
            replay.add(step)
        filling = 1e6 * (time.perf_counter() - begin) / capacity
        gigabytes = (resident_bytes() - before) / 1e9
        measured: dict[str, Any] = {"gigabytes": gigabytes, "microseconds_per_transition_added": filling}
        for n_step in (1, 3):
            times = draw_times(partial(replay.sample, BATCH, n_step, 0.99, 0.4))
            measured[f"{n_step}_step"] = {key: float(value) for key, value in times.items()}
            rows.append(
                (f"{name}, {n_step}-step", f"{gigabytes:.2f}", f"{times['median_ms']:.3f}", f"{times['p95_ms']:.3f}")
            )
        data[name] = measured
        del replay
    title = f"Replay of {capacity:,} Atari transitions from {ENVS} environments; batches of {BATCH} stacks of 4 frames"
    table = Table(title, ("", "memory in GB (1e9 bytes)", "median ms per batch", "95th percentile ms"), rows)
    notes = [
        "Memory: resident memory of the process, full less empty. A batch holds observations and next observations as "
        f"uint8 stacks, actions, returns, discounts and weights, ready for the network; {DRAWS:,} draws.",
        "The frames are random, and episodes end now and then.",
    ]
    return Report([table], notes, data)


def draw_times(draw: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds per call: median and 95th percentile."""
    milliseconds = np.empty(DRAWS)
    for i in range(DRAWS):
        begin = time.perf_counter()
        draw()
        milliseconds[i] = 1e3 * (time.perf_counter() - begin)
    return {"median_ms": np.median(milliseconds), "p95_ms": np.quantile(milliseconds, 0.95)}


def steps(count: int) -> Iterator[Step]:
    """`count` steps of `ENVS` environments, cheaply made; an episode ends with probability 1 / EPISODE."""
    random = np.random.default_rng(0)
    pool = random.integers(0, 256, (64, *(ENVS, 4, 84, 84)), np.uint8)
    index, reset = np.arange(ENVS), np.ones(ENVS, bool)
    no, ones = np.zeros(ENVS, bool), np.ones(ENVS, np.float32)
    obs = pool[0]
    for _ in range(count):
        if reset.any():  # an episode begins with three empty frames
            obs = obs.copy()
            obs[reset, :3] = 0
        next_obs = pool[random.integers(64)]
        action, reward = random.integers(4, size=ENVS), random.random(ENVS, np.float32)
        ended = random.random(ENVS) < 1 / EPISODE
        discount = np.where(ended, 0, ones).astype(np.float32)
        yield Step(index, obs, action, {}, reward, ended, no, discount, next_obs, reset, ~no)
        obs, reset = next_obs, ended


def resident_bytes() -> int:
    """Memory that this process uses now.

    What was freed is handed back to the system first: memory used again would otherwise look like none at all.

    Raises:
        UserError: the system does not tell.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        raise UserError("this benchmark reads the memory in use from /proc/self/statm, which only Linux has") from None
    import resource

    return pages * resource.getpagesize()


if __name__ == "__main__":
    from .parts.runner import command_line

    command_line("replay")
