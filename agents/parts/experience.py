"""The experience that auxiliary tasks replay: sequences for tasks that remember, short histories for reward prediction,
both from the same frames, each stored once."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...encoders.base import State, Trajectory
from ...envs.spec import EnvSpec
from .ring import ACTED, FIRST
from .sequence_replay import SequenceReplay, Span

StoredState = Literal["stored", "zero"]


class Experience(SequenceReplay):
    """Uniform replay of sequences, and of histories of which half end with a reward."""

    def __init__(
        self, capacity: int, spec: EnvSpec, steps: int, state: State = (), *, seed: int = 0, device: str = "cpu"
    ):
        """
        Args:
            capacity: transitions of all environments together.
            steps: transitions of a sequence.
            state: leaves `[1, ...]` like those to store, one every `steps` steps, where sequences then begin; () lets
                them begin anywhere, each with the state before an episode.

        Raises:
            UserError: it is too small to hold sequences, or too large for the machine.
        """
        span = Span(burn_in=0, length=steps, ahead=1, interval=steps if state else 1)
        super().__init__(capacity, spec, span, state, seed=seed, device=device)

    def histories(self, batch_size: int, steps: int, is_skewed: bool = True) -> Trajectory:
        """`steps` transitions up to one that was drawn, with replacement, from all that are stored.

        Where the episode begins in between, `mask` is False before, and observations repeat the first. Where
        `is_skewed`, half of the drawn ones earned something (in expectation, and as far as there are such): section 3.2
        has P(r != 0) = 0.5.

        Raises:
            ValueError: nothing is stored yet.
        """
        index = self._draw_last(batch_size, steps, is_skewed)
        env, position = np.divmod(index, self.size)
        slots = env * self.size + (position + np.arange(1 - steps, 2)[:, None]) % self.size  # [T + 1, B]
        first = (self.flags[slots] & FIRST) > 0
        is_real = np.ones(slots[:-1].shape, bool)
        for time in reversed(range(steps - 1)):
            is_real[time] = is_real[time + 1] & ~first[time + 1]
            slots[time] = np.where(is_real[time], slots[time], slots[time + 1])  # something that was seen
        first[:-1] &= is_real
        past, move = slots[:-1], self._to_device
        return Trajectory(
            self.observations(slots.reshape(-1)).unflatten(0, slots.shape),
            move(np.where(is_real, self.action[past], 0).astype(np.int64)),
            move(np.where(is_real, self.reward[past], 0)),
            move(np.where(is_real, self.discount[past], 0)),
            move(first),
            move(is_real),
        )

    def _draw_last(self, batch_size: int, steps: int, is_skewed: bool) -> np.ndarray:
        """Slots `[B]` with which histories end."""
        known = np.flatnonzero(self._has_history(steps - 1))
        if not len(known):
            raise ValueError("the replay holds no history yet")
        if not is_skewed:
            return known[self.random.integers(len(known), size=batch_size)]
        earns = self.reward[known] != 0
        wanted = self.random.random(batch_size) < 0.5
        drawn = np.empty(batch_size, np.int64)
        for kind, other in ((known[earns], known[~earns]), (known[~earns], known[earns])):
            pool = kind if len(kind) else other
            drawn[wanted] = pool[self.random.integers(len(pool), size=int(wanted.sum()))]
            wanted = ~wanted
        return drawn

    def _has_history(self, before: int) -> np.ndarray:
        """bool `[slots]`: a transition leads out of it, and all of the `before` frames before it that belong to its
        episode are still there, with what stacks are made of."""
        flags = self.flags.reshape(self.spec.num_envs, self.size)
        position = np.arange(self.size)
        age = np.where(self.full[:, None], (position - self.cursor[:, None] - 1) % self.size, position)
        reach = before + self.margin
        has = age >= reach
        for back in range(reach):
            begins = (np.roll(flags, back, axis=1) & FIRST) > 0
            has |= begins & (age >= back)
        return (has & ((flags & ACTED) > 0)).reshape(-1)
