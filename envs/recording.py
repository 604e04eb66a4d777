"""What environments showed, in files that are mapped into memory: each frame is stored once.

A recording is a table of slots, one column per environment and one row per observation, oldest first. A slot holds the
newest frame of one observation and, once an action was taken on it, that action and its reward; the slot below it then
holds the frame that the action led to. An episode's last observation is a slot without an action. Rows can be added at
any time, which is also how an interrupted recording goes on; `recording.json` counts only what is safely on the disk.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .base import Outcome
from .errors import UserError
from .options import EnvOptions
from .spec import ActionSpec, EnvSpec, ObservationSpec

FILE = "recording.json"
_NEWER_OPTIONS = ("flicker", "grey")  # left out where they are not used: recordings from before them stay valid
FIRST, ACTED, TERMINATED = 1, 2, 4  # slot flags: begins an episode; an action was taken; the action ended the episode


@dataclass(frozen=True)
class Recipe:
    """What makes one recording differ from another."""

    env: str  # an id that `make_env` takes
    options: EnvOptions = field(default_factory=EnvOptions)
    policy: str = "random"  # a `Policy`'s name
    seed: int = 0  # of the worlds, and of random actions
    num_envs: int = 8  # copies that are stepped together: columns

    def rows(self, frames: int) -> int:
        """Rows that hold `frames` observations or a few more."""
        return -(-frames // self.num_envs)

    def as_json(self) -> dict[str, Any]:
        """In plain values; without what changes the speed alone, and options newer than recordings that exist."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        options, defaults = plain["options"], asdict(EnvOptions())
        del options["threads"], options["workers"]
        for name in _NEWER_OPTIONS:
            if options[name] == defaults[name]:
                del options[name]
        return plain


@dataclass(frozen=True)
class Recording:
    """What was recorded, mapped from the files in `directory`; nothing that is written to the arrays reaches them."""

    directory: Path
    recipe: dict[str, Any]  # `Recipe` in plain values
    observation: ObservationSpec
    rows: int  # complete in all columns
    frames: np.ndarray  # [rows, num_envs, *frame_shape]
    action: np.ndarray  # int64 [rows, num_envs], or float32 [rows, num_envs, *shape]
    reward: np.ndarray  # float32 [rows, num_envs]
    flags: np.ndarray  # uint8 [rows, num_envs]


def open_recording(directory: Path) -> Recording:
    """What the files in `directory` hold so far.

    Raises:
        UserError: no recording is there, or it is damaged; says which file.
    """
    saved = _read(directory)
    try:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in saved["observation"].items()
        }
        spec = ObservationSpec(**fields)
        layout = _layout(spec, ActionSpec(saved["action_count"], tuple(saved["action_shape"])))
        shape, rows = (saved["rows"] + 1, saved["recipe"]["num_envs"]), min(*saved["cursor"], saved["rows"])
        arrays = {
            name: np.memmap(_path(directory, name), dtype, "c", shape=(*shape, *rest))[:rows]
            for name, (dtype, rest) in layout.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise _damaged(directory, error) from error
    return Recording(directory, saved["recipe"], spec, rows, **arrays)


def _read(directory: Path) -> dict[str, Any]:
    try:
        saved = json.loads((directory / FILE).read_text())
    except FileNotFoundError:
        raise UserError(f"{directory} holds no recording") from None
    except (OSError, ValueError) as error:
        raise _damaged(directory, error) from error
    if not isinstance(saved, dict):
        raise _damaged(directory, f"{FILE} holds no settings")
    return saved


def _damaged(directory: Path, why: Exception | str) -> UserError:
    return UserError(f"the recording in {directory} is damaged ({why}); delete it to record it again")


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.bin"


def _layout(observation: ObservationSpec, action: ActionSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By the name of a file: the type and the shape of what one slot holds there."""
    return {
        "frames": (observation.dtype, observation.frame_shape),
        "action": ("int64" if action.is_discrete else "float32", action.shape),
        "reward": ("float32", ()),
        "flags": ("uint8", ()),
    }


class Table:
    """The files of a recording while it is made, with a row more than was asked for: for what the last action led to.

    `cursor` `[num_envs]` is the row of each environment's current observation; the rows before it are final.
    """

    def __init__(self, directory: Path, recipe: Recipe, spec: EnvSpec, rows: int):
        """
        Args:
            directory: may hold a recording by the same recipe, which is then gone on with.
            recipe: says how many columns there are.
            spec: the environment's.
            rows: to make room for; those that are there already stay.

        Raises:
            UserError: another recording is there, or a damaged one; or there is no space.
        """
        self.directory, self.recipe, self.spec = directory, recipe, spec
        self.stack = spec.observation.stack
        self.cursor, self.rows = np.zeros(recipe.num_envs, np.int64), rows
        layout = _layout(spec.observation, spec.action)
        slot_bytes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (dtype, shape) in layout.items()}
        if (directory / FILE).exists():
            self._load(slot_bytes)
        sizes = {_path(directory, name): self._slots * count for name, count in slot_bytes.items()}
        _reserve(directory, sizes)
        self._maps = [
            np.memmap(_path(directory, name), dtype, "r+", shape=(self.rows + 1, recipe.num_envs, *shape))
            for name, (dtype, shape) in layout.items()
        ]
        self.frames, self.action, self.reward, self.flags = map(np.asarray, self._maps)
        self._cut()
        self.flush()

    def _load(self, slot_bytes: dict[str, int]) -> None:
        """Take the rows and cursors of the recording that is there."""
        saved = _read(self.directory)
        if (other := saved.get("recipe")) != self.recipe.as_json():
            raise UserError(f"{self.directory} holds another recording, of {other}; choose another directory")
        try:
            needed, rows = self.rows, int(saved["rows"])
            cursor = np.array(saved["cursor"], np.int64)
            if cursor.shape != self.cursor.shape or cursor.min() < 0 or cursor.max() > rows + 1:
                raise ValueError(f"the cursors are {cursor}")
            self.rows, self.cursor = rows, cursor
            for name, count in slot_bytes.items():
                path = _path(self.directory, name)
                if path.stat().st_size < self._slots * count:
                    raise ValueError(f"{path.name} is truncated")
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise _damaged(self.directory, error) from error
        self.rows = max(needed, rows)

    @property
    def _slots(self) -> int:
        return (self.rows + 1) * self.recipe.num_envs

    @property
    def done(self) -> int:
        """Observations that are final."""
        return int(np.minimum(self.cursor, self.rows).sum())

    def remaining(self, rows: int) -> int:
        """Observations that are missing in the first `rows` rows."""
        return int(np.maximum(rows - self.cursor, 0).sum())

    def add(self, obs: np.ndarray, begins: np.ndarray, action: np.ndarray, outcome: Outcome) -> None:
        """A step from `obs` `[B, ...]`, which begins an episode where `begins` (bool `[B]`)."""
        keep = outcome.valid & (self.cursor[outcome.env_index] < self.rows)
        if not keep.any():
            return
        env = outcome.env_index[keep]
        row = self.cursor[env]
        first = keep & begins
        if first.any():
            began = outcome.env_index[first]
            self.frames[self.cursor[began], began] = self._newest(obs[first], first=True)
        self.action[row, env] = action[keep]
        self.reward[row, env] = outcome.reward[keep]
        self.frames[row + 1, env] = self._newest(outcome.next_obs[keep])
        self.flags[row, env] = ACTED | FIRST * begins[keep] | TERMINATED * outcome.terminated[keep]
        cursor = self.cursor.copy()
        cursor[env] += 1 + (outcome.terminated | outcome.truncated)[keep]
        self.cursor = cursor  # at once: an interrupt finds the step either recorded or not

    def _newest(self, obs: np.ndarray, first: bool = False) -> np.ndarray:
        channels = obs.shape[1] // self.stack if self.stack > 1 else 0
        if first and channels and obs[:, :-channels].any():
            raise UserError(f"{self.spec.id} begins an episode with a stack of other than zeros and one frame")
        if obs.dtype.kind == "f" and not np.isfinite(obs).all():
            raise UserError(f"{self.spec.id} showed an observation that is not finite")
        return obs[:, -channels:] if channels else obs

    def _cut(self) -> None:
        """Episodes in progress do not go on. What was written behind the cursors was not yet safe, and is forgotten."""
        columns = np.arange(len(self.cursor))
        self.flags[np.arange(self.rows + 1)[:, None] >= self.cursor] = 0
        acted = (self.cursor > 0) & (self.flags[self.cursor - 1, columns] & ACTED > 0)
        self.cursor = self.cursor + acted

    def flush(self) -> None:
        """Bring everything to the disk, then count it as recorded."""
        for mapped in self._maps:
            mapped.flush()
        saved = {
            "recipe": self.recipe.as_json(),
            "observation": asdict(self.spec.observation),
            "action_count": self.spec.action.count,
            "action_shape": self.spec.action.shape,
            "rows": self.rows,
            "cursor": self.cursor.tolist(),
            "done": self.done,
        }
        temporary = self.directory / "unfinished.json"
        with temporary.open("w") as file:
            json.dump(saved, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / FILE)


def _reserve(directory: Path, sizes: dict[Path, int]) -> None:
    """Take the whole space at once: a mapped file that runs into a full disk kills the process."""
    before = {path: path.stat().st_size if path.exists() else 0 for path in sizes}
    needed, free = sum(max(0, sizes[path] - before[path]) for path in sizes), shutil.disk_usage(directory).free
    try:
        if needed > free:
            raise UserError(f"{needed / 1e9:.2f} GB are needed but {free / 1e9:.2f} GB are free")
        for path, size in sizes.items():
            _grow(path, size)
    except (OSError, UserError) as error:
        for path, size in before.items():
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot record into {directory}: {reason}; make room, or record fewer frames") from error


def _grow(path: Path, size: int) -> None:
    """Make the file at least `size` bytes long, with all of its blocks on the disk."""
    with path.open("ab") as file:
        old = file.tell()
        if size <= old:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), old, size - old)
            return
        block = bytes(1 << 20)
        for start in range(old, size, len(block)):
            file.write(block[: size - start])


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Makes `directory`, and lets one process at a time record there; the others wait.

    Raises:
        UserError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("w")
    except OSError as error:
        raise UserError(f"cannot record into {directory}: {error.strerror or error}") from error
    with file:
        with suppress(ImportError, OSError):  # Windows and some shared disks have no such locks
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
