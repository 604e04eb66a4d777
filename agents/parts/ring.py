"""The storage behind every replay: each frame once, and checkpoints in chunks.

Every environment owns a ring of slots. A slot holds the frame of one observation and, once the agent has acted on it,
the transition out of it; the slot after the newest transition already holds the frame that the transition led to. An
episode's last observation is therefore a slot with a frame and no transition, and nothing is ever rebuilt across it.
A million Atari transitions take 7.06 GB of frames and 17 MB of the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.base import Step
from ...envs.errors import UserError
from ...envs.spec import EnvSpec
from .sum_tree import SumTree

FIRST, ACTED = 1, 2  # slot flags: first observation of an episode; a transition leads out of it
CHUNK_BYTES = 1 << 26  # size of the pieces a checkpoint writes


class Ring:
    """Discrete-action transitions of every environment, in slots. Subclasses say what is sampled.

    `tree`, where there is one, holds the priority of each slot that may be sampled.
    """

    advice = "lower --replay-capacity"  # to whom it does not fit

    def __init__(
        self,
        capacity: int,
        spec: EnvSpec,
        seed: int,
        device: str,
        *,
        has_tree: bool,
        more_bytes: int = 0,
    ):
        """`more_bytes`: what a subclass stores beside.

        Raises:
            UserError: it is too small to hold anything, or too large for the machine.
        """
        self.spec, self.capacity, self.device = spec, capacity, device
        self.stack = spec.observation.stack
        self.size = -(-capacity // spec.num_envs)  # slots per environment
        if self.size <= self.stack + 1:
            raise UserError(f"a replay of {capacity} over {spec.num_envs} environments is too small; give it more")
        slots = spec.num_envs * self.size
        frame_shape = spec.observation.frame_shape
        dtype = getattr(torch, spec.observation.dtype)
        self._bytes = slots * int(np.prod(frame_shape)) * dtype.itemsize + more_bytes
        self._require(total_memory(device))
        self.frames = torch.empty(slots, *frame_shape, dtype=dtype, device=device)
        self._frames = self.frames.numpy() if self.frames.device.type == "cpu" else None  # the same memory
        self.action = np.zeros(slots, np.int32)
        self.reward = np.zeros(slots, np.float32)
        self.discount = np.zeros(slots, np.float32)
        self.flags = np.zeros(slots, np.uint8)
        self.cursor = np.zeros(spec.num_envs, np.int64)  # where the next transition of each environment goes
        self.full = np.zeros(spec.num_envs, bool)  # the ring has gone round
        self.random = np.random.default_rng(seed)
        self.tree = SumTree(slots) if has_tree else None
        self.max_priority = 1.0
        self.count = 0  # transitions ever added
        self._base = np.arange(spec.num_envs, dtype=np.int64) * self.size
        frame_bytes = max(1, self.frames[0].numel() * self.frames.element_size())
        self.chunk = max(1, min(self.size, CHUNK_BYTES // (frame_bytes * spec.num_envs)))  # positions per chunk
        self._versions = np.zeros(-(-self.size // self.chunk), np.int64)
        self._changes = 0  # ever, so that no version of a piece is used twice

    def _require(self, room: int) -> None:
        """Refuse what cannot fit, with its size, before the machine starts to swap."""
        if self._bytes > room:
            raise UserError(
                f"a replay of {self.capacity:,} needs {self._bytes / 1e9:.1f} GB but there are {room / 1e9:.1f} GB; "
                f"{self.advice}"
            )

    def __len__(self) -> int:
        """Transitions that are stored."""
        return min(self.count, self.capacity)

    def _store(self, step: Step) -> np.ndarray:
        """Store the transitions of `step`, all of them valid. Returns their slots."""
        if not self.count:
            self._require(available_memory(self.device))  # only now is memory really taken
        base, position = self._base[step.env_index], self.cursor[step.env_index]
        slot = base + position
        if step.reset.any():
            first = slot[step.reset]
            self._write(first, self._newest_frame(step.obs[step.reset], first=True))
            self.flags[first] = FIRST
        self.action[slot] = step.action
        self.reward[slot] = step.reward
        self.discount[slot] = step.discount
        self.flags[slot] |= ACTED
        following = self._advance(step.env_index, position)
        self._write(base + following, self._newest_frame(step.next_obs))
        self.count += len(slot)
        self._touch(position)
        ended = step.terminated | step.truncated
        if ended.any():
            self._advance(step.env_index[ended], following[ended])
        return slot

    def _advance(self, env: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Move cursors on to slots that hold no transition yet; returns their positions."""
        following = position + 1
        wrapped = following == self.size
        if wrapped.any():
            following[wrapped] = 0
            self.full[env[wrapped]] = True
        self.cursor[env] = following
        slot = self._base[env] + following
        self.flags[slot] = 0
        if self.tree is not None:
            self.tree.set(slot, np.zeros(len(slot)))
        self._touch(following)
        return following

    def _touch(self, position: np.ndarray) -> None:
        """Mark the pieces of a checkpoint that changed."""
        self._changes += 1
        self._versions[position // self.chunk] = self._changes

    def _newest_frame(self, obs: np.ndarray, first: bool = False) -> np.ndarray:
        if self.stack == 1:
            return obs
        channels = obs.shape[1] // self.stack
        if first and obs[:, :-channels].any():
            raise ValueError(f"{self.spec.id}: a stack must hold zeros and one frame when an episode begins")
        return obs[:, -channels:]

    def _write(self, slot: np.ndarray, frames: np.ndarray) -> None:
        if self._frames is not None:
            self._frames[slot] = frames
        else:
            self.frames[torch.from_numpy(slot).to(self.device)] = torch.from_numpy(np.ascontiguousarray(frames)).to(
                self.device
            )

    def cut(self) -> None:
        """Episodes in progress will not go on: keep what they led to, and begin the next transition on a new slot."""
        before = self._base + (self.cursor - 1) % self.size
        open_episodes = np.flatnonzero(self.flags[before] & ACTED)
        self._advance(open_episodes, self.cursor[open_episodes])

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._frames is not None else tensor.to(self.device, non_blocking=True)

    def _draw(self, batch_size: int, accept: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Slots that `accept` takes, by rejection: nearly every slot is good."""
        if not self.count:
            raise ValueError("the replay is empty")
        chosen = np.empty(0, np.int64)
        for _ in range(1000):
            missing = batch_size - len(chosen)
            if self.tree is not None:
                candidates = self.tree.sample(self.random.random(missing))
            else:
                env = self.random.integers(self.spec.num_envs, size=missing)
                filled = np.where(self.full[env], self.size, self.cursor[env])
                candidates = self._base[env] + (self.random.random(missing) * filled).astype(np.int64)
            kept = candidates[accept(candidates)]
            chosen = np.concatenate([chosen, kept]) if len(chosen) else kept
            if len(chosen) == batch_size:
                return chosen
        raise ValueError("too few transitions are stored to sample what is asked for")

    def _ahead(self, index: np.ndarray) -> np.ndarray:
        env, position = np.divmod(index, self.size)
        return (self.cursor[env] - position) % self.size

    def observations(self, index: np.ndarray) -> Tensor:
        """The observations of slots `index` `[N]`, stacks rebuilt: `[N, *spec.observation.shape]`."""
        if self.stack == 1:
            return self.frames.index_select(0, self._to_device(index))
        base = index // self.size * self.size
        position = index - base
        slots = np.empty((len(index), self.stack), np.int64)
        slots[:, -1] = index
        alive = np.ones(slots.shape, bool)
        for back in range(1, self.stack):
            newer = slots[:, -back]
            alive[:, -back - 1] = alive[:, -back] & ((self.flags[newer] & FIRST) == 0)
            slots[:, -back - 1] = base + (position - back) % self.size
        frames = self.frames.index_select(0, self._to_device(slots.reshape(-1)))
        if not alive.all():
            frames[self._to_device(~alive.reshape(-1))] = 0
        return frames.view(len(index), *self.spec.observation.shape)

    def chunks(self) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        """(name, version, tensors) of each piece that holds data; the version grows when a piece changes."""
        for number, version in enumerate(self._versions):
            if version:
                yield f"{number:06d}", int(version), self._chunk_tensors(number)

    def _chunk_tensors(self, number: int) -> dict[str, Tensor]:
        start, stop = number * self.chunk, min((number + 1) * self.chunk, self.size)
        arrays = {"action": self.action, "reward": self.reward, "discount": self.discount, "flags": self.flags}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()} | {"frames": self.frames}
        return {name: t.unflatten(0, (self.spec.num_envs, self.size))[:, start:stop] for name, t in tensors.items()}

    def load_chunk(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Put a piece back that `chunks` gave."""
        for key, destination in self._chunk_tensors(int(name)).items():
            destination.copy_(tensors[key])

    def clear(self) -> None:
        """Forget all transitions, as when a checkpoint was saved without them."""
        self.cursor[:], self.full[:], self.flags[:], self.count = 0, False, 0, 0
        if self.tree is not None:
            self.tree.set(np.arange(len(self.flags)), np.zeros(len(self.flags)))

    def state_dict(self) -> dict[str, Any]:
        """All but the chunks."""
        return {
            "cursor": self.cursor.copy(),
            "full": self.full.copy(),
            "count": self.count,
            "changes": self._changes,
            "versions": self._versions.copy(),
            "random": self.random.bit_generator.state,
            "max_priority": self.max_priority,
            "priorities": None if self.tree is None else self.tree.leaves().copy(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.cursor[:], self.full[:] = saved["cursor"], saved["full"]
        self.count, self.max_priority, self._changes = saved["count"], saved["max_priority"], saved["changes"]
        self._versions[:] = saved["versions"]
        self.random.bit_generator.state = saved["random"]
        if self.tree is not None:
            self.tree.set(np.arange(len(self.flags)), saved["priorities"])


def valid_rows(step: Step) -> Step:
    """`step` without the rows that are not `valid`."""
    return step if step.valid.all() else Step(*(select_rows(field, step.valid) for field in step))


def select_rows(field: Any, rows: np.ndarray) -> Any:
    """`field[rows]`, through dictionaries."""
    return {key: value[rows] for key, value in field.items()} if isinstance(field, dict) else field[rows]


def total_memory(device: str) -> int:
    """Bytes of memory there are."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory(device: str) -> int:
    """Bytes of memory that can still be used."""
    if torch.device(device).type == "cuda":
        return total_memory(device)  # taken already: torch reserves at once what it is asked for there
    try:
        with open("/proc/meminfo") as info:
            return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return total_memory(device)
