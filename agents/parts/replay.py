"""Experience replay of single transitions: rebuilds stacks, n-step returns and sequences when it samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...encoders.base import Trajectory
from ...envs.base import Step
from ...envs.spec import EnvSpec
from .ring import ACTED, FIRST, Ring, valid_rows


class Batch(NamedTuple):
    """N sampled transitions over up to n steps; tensors on the replay's device."""

    obs: Tensor  # [N, ...] o_tm1
    action: Tensor  # int64 [N] a_tm1
    reward: Tensor  # float32 [N] discounted sum of the rewards up to `next_obs`
    discount: Tensor  # float32 [N] what `next_obs`'s value is multiplied with; 0 after the end
    next_obs: Tensor  # [N, ...] o_t
    weight: Tensor  # float32 [N] importance weights; ones when sampling is uniform
    slot: np.ndarray  # int64 [N] where it lies, for `update_priorities`


class Replay(Ring):
    """Uniform or (`priority_exponent` > 0) prioritised replay (Schaul et al. 2016) of discrete-action transitions."""

    def __init__(
        self,
        capacity: int,
        spec: EnvSpec,
        seed: int = 0,
        priority_exponent: float = 0.0,
        device: str = "cpu",
    ):
        super().__init__(capacity, spec, seed, device, has_tree=priority_exponent > 0)
        self.priority_exponent = priority_exponent

    def add(self, step: Step) -> None:
        """Store the transitions of `step` (its rows where `valid`)."""
        step = valid_rows(step)
        if len(step.env_index):
            slot = self._store(step)
            if self.tree is not None:
                self.tree.set(slot, np.full(len(slot), self.max_priority**self.priority_exponent))

    def sample(self, batch_size: int, n_step: int = 1, gamma: float = 1.0, beta: float = 0.0) -> Batch:
        """Draw transitions with replacement.

        Args:
            batch_size: N.
            n_step: rewards summed; fewer where the episode, or what is known of it, ends before.
            gamma: discount per step, times the environment's own.
            beta: exponent of the importance weights, for prioritised sampling.

        Raises:
            ValueError: nothing is stored yet.
        """
        index = self._draw(batch_size, self._is_sampleable)
        reward, discount, last = self._look_ahead(index, n_step, gamma)
        weight = self._importance(index, beta)
        move = self._to_device
        return Batch(
            self.observations(index),
            move(self.action[index].astype(np.int64)),
            move(reward),
            move(discount),
            self.observations(last),
            move(weight),
            index,
        )

    def sample_sequences(self, batch_size: int, length: int) -> Trajectory:
        """`length` consecutive transitions of one environment each; sequences may run over the ends of episodes."""
        start = self._draw(batch_size, lambda index: self._is_sampleable(index) & (self._ahead(index) >= length))
        env, position = np.divmod(start, self.size)
        slots = env * self.size + (position + np.arange(length + 1)[:, None]) % self.size  # [T + 1, B]
        steps, move = slots[:-1], self._to_device
        return Trajectory(
            self.observations(slots.reshape(-1)).unflatten(0, slots.shape),
            move(self.action[steps].astype(np.int64)),
            move(self.reward[steps]),
            move(self.discount[steps]),
            move((self.flags[slots] & FIRST) > 0),
            move((self.flags[steps] & ACTED) > 0),
        )

    def _is_sampleable(self, index: np.ndarray) -> np.ndarray:
        """A transition leads out of the slot, and no frame of its stack may have been overwritten."""
        env, position = np.divmod(index, self.size)
        age = (position - self.cursor[env] - 1) % self.size  # 0 = the oldest slot
        return ((self.flags[index] & ACTED) > 0) & (~self.full[env] | (age >= self.stack - 1))

    def _look_ahead(self, index: np.ndarray, n_step: int, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sum rewards from `index` on: (sum, discount of what follows, slot of what follows)."""
        reward = self.reward[index].copy()
        discount = gamma * self.discount[index]
        wrap = (index // self.size + 1) * self.size
        last = index + 1
        last -= self.size * (last == wrap)
        for _ in range(n_step - 1):
            more = ((self.flags[last] & ACTED) > 0) & (discount > 0)
            reward += more * discount * self.reward[last]
            discount *= np.where(more, gamma * self.discount[last], 1)
            last = last + more
            last -= self.size * (last == wrap)
        return reward, discount.astype(np.float32), last

    def _importance(self, index: np.ndarray, beta: float) -> np.ndarray:
        """(N P(i))^-beta over its largest in the batch (Schaul et al. 2016, section 3.4)."""
        if self.tree is None:
            return np.ones(len(index), np.float32)
        weight = (self.tree.get(index) / self.tree.total() * len(self)) ** -beta
        return (weight / weight.max()).astype(np.float32)

    def update_priorities(self, index: np.ndarray, priority: np.ndarray) -> None:
        """Set the priorities (positive, such as absolute errors) of sampled slots."""
        if self.tree is None:
            return
        priority = np.maximum(priority.astype(np.float64), 1e-6)
        self.max_priority = max(self.max_priority, float(priority.max()))
        still_there = (self.flags[index] & ACTED) > 0
        self.tree.set(index[still_there], priority[still_there] ** self.priority_exponent)
