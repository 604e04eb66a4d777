"""What an environment or a data set shows and accepts, in words an encoder or an agent can check against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ObservationSpec:
    """One observation, without batch or time axes.

    Images are `uint8 [C, H, W]`. `stack` says how many frames lie along the first axis, oldest first, so that a replay
    can store each frame once; at the start of an episode the missing frames are zero.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"  # a NumPy name
    low: tuple[float, ...] | float = -np.inf  # bounds: one number, or one per element of a flat observation
    high: tuple[float, ...] | float = np.inf
    stack: int = 1
    vocabulary: int = 0  # number of token identities; 0 = not tokens

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3 and self.dtype == "uint8"

    @property
    def size(self) -> int:
        """Numbers in one observation."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of what one step adds: `shape` with the stack taken out."""
        return self.shape if self.stack == 1 else (self.shape[0] // self.stack, *self.shape[1:])

    def describe(self) -> str:
        stacked = f", a stack of {self.stack} frames" if self.stack > 1 else ""
        return f"{self.dtype} {list(self.shape)}{stacked}"


@dataclass(frozen=True)
class ActionSpec:
    """Either `count` discrete actions, or (`count` = 0) a box of `shape` between `low` and `high`."""

    count: int = 0
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def is_discrete(self) -> bool:
        return self.count > 0

    def describe(self) -> str:
        return (
            f"{self.count} discrete actions"
            if self.is_discrete
            else f"continuous actions, a Box of shape {list(self.shape)}"
        )


@dataclass(frozen=True)
class EnvSpec:
    """Everything that may be known of a vector environment before it is stepped."""

    id: str
    num_envs: int
    observation: ObservationSpec
    action: ActionSpec
    score_range: tuple[float, float] | None = None  # (of a random agent, of the best one), where known
    frames_per_step: int = 1  # emulator frames that one step takes
