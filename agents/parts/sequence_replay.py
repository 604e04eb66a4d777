"""Replay of sequences for recurrent agents, with the states that the memory had (Kapturowski et al. 2019, section 3).

A sequence is `burn_in` observations that only bring the memory up, then `length` that are learned from, then `ahead`
that returns look at. Each frame is stored once, as in `ring`; of the memory's states only every `interval`-th of an
episode is. The learned part begins with an episode, or `burn_in` steps after a stored state. It runs over the ends of
episodes: an episode's last observation is read, though nothing was done there, and the next one begins with a reset.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...encoders.base import Inputs, State, Trajectory, reset_state
from ...envs.base import Step
from ...envs.errors import UserError
from ...envs.spec import EnvSpec
from .ring import ACTED, FIRST, Ring, valid_rows
from .sum_tree import SumTree

START = 4  # slot flag: the learned part of a sequence may begin here


class Span(NamedTuple):
    """How sequences are cut."""

    burn_in: int  # observations before the learned part
    length: int  # of the learned part
    ahead: int  # observations after it
    interval: int  # steps between the beginnings of sequences, and between stored states

    @property
    def total(self) -> int:
        """Observations of one sequence."""
        return self.burn_in + self.length + self.ahead


class SequenceBatch(NamedTuple):
    """B sequences of T = `Span.total` observations; tensors on the replay's device."""

    inputs: Inputs  # [T, B, ...] as the encoder read them to act
    reset: Tensor  # bool [T, B]
    state: State  # [B, ...] before the first observation
    action: Tensor  # int64 [T, B]
    reward: Tensor  # float32 [T, B]
    discount: Tensor  # float32 [T, B] of the environment
    acted: Tensor  # bool [T, B] False: the last observation of an episode, so action, reward and discount are zero
    weight: Tensor  # float32 [B] importance weights; ones when sampling is uniform
    start: np.ndarray  # int64 [B] slot of the first observation, for `update_priorities`

    def read(self, start: int, stop: int | None) -> Inputs:
        """The inputs of steps `start` to `stop`."""
        return Inputs(*(None if field is None else field[start:stop] for field in self.inputs))  # type: ignore[arg-type]

    def trajectory(self, part: slice) -> Trajectory:
        """The transitions of `part`, and the observation after them, for auxiliary losses."""
        longer = slice(part.start, part.stop + 1)
        return Trajectory(
            self.inputs.obs[longer],
            self.action[part],
            self.reward[part],
            self.discount[part],
            self.reset[longer],
            self.acted[part],
        )


class SequenceReplay(Ring):
    """Uniform or (`priority_exponent` > 0) prioritised replay of sequences of discrete-action transitions."""

    tree: SumTree  # of slots with which a whole sequence begins

    def __init__(
        self,
        capacity: int,
        spec: EnvSpec,
        span: Span,
        state: State = (),
        *,
        seed: int = 0,
        priority_exponent: float = 0.0,
        device: str = "cpu",
    ):
        """`state`: leaves `[1, ...]` like those to store; () stores none, then every sequence begins with
        `initial_state`.

        Raises:
            UserError: it is too small to hold sequences, or too large for the machine.
        """
        self.span, self.priority_exponent = span, priority_exponent
        size = -(-capacity // spec.num_envs)
        if size <= span.total + max(spec.observation.stack, 2):
            raise UserError(
                f"a replay of {capacity:,} over {spec.num_envs} environments holds no sequence of {span.total} "
                "observations; raise --replay-capacity, or lower --sequence-length"
            )
        self.margin = max(spec.observation.stack - 1, 1)  # slots that the oldest observation needs before it
        self.bins = -(-size // span.interval)  # states per environment: two of them are at least `interval` apart
        state_bytes = sum(leaf.numel() * leaf.element_size() for leaf in state)
        stored = spec.num_envs * self.bins * state_bytes
        if stored:
            self.advice = (
                f"{stored / 1e9:.1f} GB of them are states of {state_bytes / 1e3:,.0f} kB; lower --replay-capacity, "
                "raise --sequence-interval, or choose --stored-state zero"
            )
        super().__init__(capacity, spec, seed, device, has_tree=True, more_bytes=stored)
        self.chunk = max(span.interval, self.chunk // span.interval * span.interval)  # no state lies in two pieces
        self._versions = np.zeros(-(-self.size // self.chunk), np.int64)
        self.states = tuple(
            torch.empty(spec.num_envs * self.bins, *leaf.shape[1:], dtype=leaf.dtype, device=device) for leaf in state
        )
        self.owner = np.full(spec.num_envs * self.bins, -1)  # the slot whose state lies in each bin
        self.offset = np.zeros(spec.num_envs, np.int64)  # steps since the episode began

    @property
    def is_ready(self) -> bool:
        """There is a whole sequence to sample."""
        return self.tree.total() > 0

    def add(self, step: Step, state: tuple[np.ndarray, ...] = ()) -> None:
        """Store the transitions of `step` (its rows where `valid`); `state` is the encoder's before `step.obs`,
        leaves `[B, ...]`."""
        if self.states:
            state = tuple(leaf[step.valid] for leaf in state)
        step = valid_rows(step)
        if not len(step.env_index):
            return
        env = step.env_index
        self.offset[env] = np.where(step.reset, 0, self.offset[env] + 1)
        slot = self._store(step)
        offset, (burn_in, _, _, interval) = self.offset[env], self.span
        starts = (offset == 0) | ((offset >= burn_in) & ((offset - burn_in) % interval == 0))
        self.flags[slot[starts]] |= START
        if self.states:
            keeps = (offset > 0) & (offset % interval == 0)  # where an episode begins the state is known
            if keeps.any():
                self._keep_states(slot[keeps], tuple(leaf[keeps] for leaf in state))
        position = slot % self.size
        first = step.reset  # the frames that these slots hold came now, those of the others came before
        self._complete(env[first], position[first])
        self._complete(env, (position + 1) % self.size)

    def _keep_states(self, slot: np.ndarray, state: tuple[np.ndarray, ...]) -> None:
        env, position = np.divmod(slot, self.size)
        bins = env * self.bins + position // self.span.interval
        lost = self.owner[bins][self.owner[bins] > slot]  # of the ring's oldest slots: there is a newer state now
        learned = lost - lost % self.size + (lost + self.span.burn_in) % self.size
        lost = lost[(self.flags[learned] & FIRST) == 0]  # an episode begins without
        self.tree.set(lost, np.zeros(len(lost)))
        self.owner[bins] = slot
        rows = torch.from_numpy(bins).to(self.device)
        for kept, leaf in zip(self.states, state, strict=True):
            kept[rows] = torch.from_numpy(leaf).to(self.device)

    def _complete(self, env: np.ndarray, position: np.ndarray) -> None:
        """The frames at `position` have come: sequences that end there may be sampled, at the greatest priority."""
        burn_in, length, ahead, _ = self.span
        learned = position - (length + ahead - 1)
        begin = learned - burn_in
        slot = self._base[env] + begin % self.size
        # what came before the first slot of all is known only where an episode begins there
        known = self.full[env] | (begin > 0) | ((begin == 0) & ((self.flags[slot] & FIRST) > 0))
        starts = (self.flags[self._base[env] + learned % self.size] & START) > 0
        slot = slot[starts & known]
        if len(slot):
            self.tree.set(slot, np.full(len(slot), self.max_priority**self.priority_exponent))

    def _advance(self, env: np.ndarray, position: np.ndarray) -> np.ndarray:
        following = super()._advance(env, position)
        self.tree.set(self._base[env] + (following + self.margin) % self.size, np.zeros(len(env)))
        return following

    def sample(self, batch_size: int, initial: State, beta: float = 0.0) -> SequenceBatch:
        """Draw sequences with replacement.

        Args:
            batch_size: B.
            initial: the encoder's state before an episode, leaves `[B, ...]`, where none is stored.
            beta: exponent of the importance weights, for prioritised sampling.

        Raises:
            ValueError: no whole sequence is stored yet.
        """
        if not self.is_ready:
            raise ValueError("the replay holds no whole sequence yet")
        start = self.tree.sample(self.random.random(batch_size))
        env, position = np.divmod(start, self.size)
        around = env * self.size + (position + np.arange(-1, self.span.total)[:, None]) % self.size
        before, slots = around[:-1], around[1:]  # [T, B]
        first, acted = (self.flags[slots] & FIRST) > 0, (self.flags[slots] & ACTED) > 0
        move = self._to_device
        inputs = Inputs(
            self.observations(slots.reshape(-1)).unflatten(0, slots.shape),
            move(np.where(first, 0, self.action[before]).astype(np.int64)),
            move(np.where(first, 0, self.reward[before])),
        )
        state = initial
        if self.states:
            rows = move(env * self.bins + position // self.span.interval)
            fresh = np.any(first[: self.span.burn_in + 1], axis=0)  # what was before is forgotten there
            state = reset_state(tuple(leaf.index_select(0, rows) for leaf in self.states), initial, move(fresh))
        return SequenceBatch(
            inputs,
            move(first),
            state,
            move(np.where(acted, self.action[slots], 0).astype(np.int64)),
            move(np.where(acted, self.reward[slots], 0)),
            move(np.where(acted, self.discount[slots], 0)),
            move(acted),
            move(self._importance(start, beta)),
            start,
        )

    def _importance(self, start: np.ndarray, beta: float) -> np.ndarray:
        """P(i)^-beta over its largest in the batch (Schaul et al. 2016, section 3.4)."""
        weight = self.tree.get(start) ** -beta
        return (weight / weight.max()).astype(np.float32)

    def update_priorities(self, start: np.ndarray, priority: np.ndarray) -> None:
        """Set the priorities (positive, such as absolute errors) of sampled sequences."""
        priority = np.maximum(priority.astype(np.float64), 1e-6)
        self.max_priority = max(self.max_priority, float(priority.max()))
        still_there = self.tree.get(start) > 0
        self.tree.set(start[still_there], priority[still_there] ** self.priority_exponent)

    def _chunk_tensors(self, number: int) -> dict[str, Tensor]:
        tensors = super()._chunk_tensors(number)
        first, interval = number * self.chunk // self.span.interval, self.span.interval
        last = -(-min((number + 1) * self.chunk, self.size) // interval)
        leaves = {f"state{i}": leaf for i, leaf in enumerate(self.states)} | {"owner": torch.from_numpy(self.owner)}
        return tensors | {n: t.unflatten(0, (self.spec.num_envs, self.bins))[:, first:last] for n, t in leaves.items()}

    def clear(self) -> None:
        super().clear()
        self.owner[:] = -1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"offset": self.offset.copy()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.offset[:] = saved["offset"]
