"""What becomes of a run's numbers: a line in a file, a point in TensorBoard, a bar on the screen."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import platform
import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console as Screen
from rich.progress import BarColumn, Progress, TextColumn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from ..envs.base import Step
from ..envs.errors import UserError

_EVENT_FILES = itertools.count()  # files of the same second and process
SCORE, LENGTH = "episode/score", "episode/length"


class Tracker(Protocol):
    """Takes a run's numbers a few times per second at most."""

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """`values` by name, such as "loss/q", as of environment step `step` and `seconds` since the run began."""
        ...

    def close(self) -> None: ...


class Episode(NamedTuple):
    """A finished episode."""

    env_index: int
    score: float  # sum of unclipped rewards
    length: int  # steps


class EpisodeStatistics:
    """Sums rewards up into scores, per environment."""

    def __init__(self, num_envs: int):
        self._scores, self._lengths = [0.0] * num_envs, [0] * num_envs

    def update(self, step: Step) -> list[Episode]:
        """The episodes that ended with this step."""
        # Plain numbers beat NumPy up to some hundred environments: this runs once per loop iteration.
        finished = []
        scores, lengths = self._scores, self._lengths
        rows = zip(
            step.env_index.tolist(),
            step.reward.tolist(),
            step.terminated.tolist(),
            step.truncated.tolist(),
            step.valid.tolist(),
            strict=True,
        )
        for env, reward, terminated, truncated, valid in rows:
            if not valid:
                continue
            scores[env] += reward
            lengths[env] += 1
            if terminated or truncated:
                finished.append(Episode(env, scores[env], lengths[env]))
                scores[env], lengths[env] = 0.0, 0
        return finished

    def interrupt(self) -> None:
        """Forget the episodes in progress: a resumed run begins new ones."""
        self._scores, self._lengths = [0.0] * len(self._scores), [0] * len(self._lengths)

    def state_dict(self) -> dict[str, Any]:
        return {"scores": list(self._scores), "lengths": list(self._lengths)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._scores, self._lengths = list(saved["scores"]), list(saved["lengths"])


class Meter:
    """Means of scalars between one logging and the next. Tensors are kept as they are and read only then."""

    def __init__(self, most: int = 256):
        """`most`: so many of the newest values per name count, which bounds the memory."""
        self._most = most
        self._values: dict[str, deque[Tensor | float]] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Tensors hold one number each, without graph, and nobody writes to them later."""
        for name, value in metrics.items():
            if name not in self._values:
                self._values[name] = deque(maxlen=self._most)
            self._values[name].append(value)

    def read(self) -> dict[str, float]:
        """The means since the last reading, of the names that were added."""
        means = {name: _mean(values) for name, values in self._values.items() if values}
        for values in self._values.values():
            values.clear()
        return means


def _mean(values: deque[Tensor | float]) -> float:
    tensors = [value for value in values if isinstance(value, Tensor)]
    numbers = [float(value) for value in values if not isinstance(value, Tensor)]
    if tensors:
        numbers += torch.stack(tensors).float().flatten().tolist()  # one transfer from the device
    return math.fsum(numbers) / len(numbers) if all(map(math.isfinite, numbers)) else math.nan


class _Appender:
    """A file that only grows. Nothing waits in a buffer, so that a full disk shows where it is written to."""

    def __init__(self, path: Path, anew: bool = False):
        self._path = path
        try:
            self._file = path.open("wb" if anew else "ab", buffering=0)
        except OSError as error:
            raise self._explain(error) from error

    def write(self, data: bytes) -> None:
        """Raises UserError where there is no space."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        self._file.close()

    def _explain(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror or error}")


class JsonLines:
    """`metrics.jsonl`: one JSON object per line, on the disk as soon as it is logged. What is not finite is null."""

    def __init__(self, path: Path, resume_step: int | None = None):
        """`resume_step`: go on from there; what was logged beyond it, before the run was stopped, is dropped."""
        if resume_step is not None and path.is_file():
            _drop_lines_beyond(path, resume_step)
        self._file = _Appender(path, anew=resume_step is None)

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        line = {"step": step, "seconds": round(seconds, 3)}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write((json.dumps(line | finite, allow_nan=False) + "\n").encode())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a metrics file; a line that a killed run left unfinished is passed over."""
    lines = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _drop_lines_beyond(path: Path, step: int) -> None:
    kept = [json.dumps(line) + "\n" for line in read_lines(path) if line["step"] <= step]
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


class TensorBoard:
    """An event file, for `tensorboard --logdir`. Written here and now: the usual writer's thread dies of a full disk
    with a traceback that nobody can catch."""

    def __init__(self, directory: Path, resume_step: int | None = None):
        """`resume_step`: as of `JsonLines`; TensorBoard hides the points beyond it."""
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}.{next(_EVENT_FILES)}"
        self._file = _Appender(directory / name)
        self._write(Event(file_version="brain.Event:2"))
        if resume_step is not None:
            self._write(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Show a picture, the content of a PNG file."""
        width, height = struct.unpack(">II", png[16:24])  # as its header says
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.write(record.getvalue())


class Console:
    """A progress bar with steps per second, time left and the last score; without a terminal a line now and then."""

    def __init__(
        self,
        total_steps: int,
        screen: Screen | None = None,
        interval_seconds: float = 30.0,
        unit: str = "steps",
        shown: tuple[str, str] = (SCORE, "score {:,.1f}"),
    ):
        """
        Args:
            interval_seconds: between lines, where there is no terminal.
            unit: of what is counted.
            shown: the value beside it: its name among those that are logged, and how it is written.
        """
        self._unit, self._shown = unit, shown
        self._total, self._interval = total_steps, interval_seconds
        self._screen = screen or Screen(stderr=True)
        self._last: tuple[int, float] | None = None  # where the rate is measured from
        self._rate = 0.0
        self._score = ""
        self._line, self._printed = "", 0.0
        self._progress: Progress | None = None
        if self._screen.is_terminal:
            columns = (BarColumn(None), TextColumn("{task.fields[line]}"))
            # no thread of its own: it is drawn when something is logged
            self._progress = Progress(*columns, console=self._screen, auto_refresh=False, transient=False)
            self._task = self._progress.add_task("", total=total_steps, line="")
            self._progress.start()

    def log(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self._measure(step, seconds)
        name, form = self._shown
        if name in values:
            self._score = "  " + form.format(values[name])
        left = (self._total - step) / self._rate if self._rate else math.inf
        self._line = (
            f"{step:,} of {self._total:,} {self._unit}  {self._rate:,.0f} {self._unit}/s  "
            f"{format_seconds(left)} left{self._score}"
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=step, line=self._line, refresh=True)
        elif self._rate and seconds - self._printed >= self._interval:
            self._print(seconds)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        elif self._line:
            self._print(self._printed)

    def _measure(self, step: int, seconds: float) -> None:
        """A running mean of the rate, about ten loggings long."""
        if self._last is not None and seconds > self._last[1]:
            now = (step - self._last[0]) / (seconds - self._last[1])
            self._rate = now if self._rate == 0 else 0.9 * self._rate + 0.1 * now
        elif self._last is None:
            self._printed = seconds
        self._last = step, seconds

    def _print(self, seconds: float) -> None:
        self._screen.print(self._line, highlight=False, soft_wrap=True)
        self._line, self._printed = "", seconds


def format_seconds(seconds: float) -> str:
    """3725 as "1:02:05"; "-:--" for what is unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
