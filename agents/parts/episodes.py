"""The rollout store of episodic agents: it gathers whole episodes from steps that arrive interleaved.

Rows of all environments lie in one log in their order of arrival, so a step is one block write, and memory holds
exactly what was seen. Episodes are cut out of it when they are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...encoders.base import Encoder, Inputs, State, Trajectory
from ...envs.base import Step


class Episode(NamedTuple):
    """One finished episode of L steps."""

    obs: np.ndarray  # [L + 1, ...] with its true last observation
    action: np.ndarray  # [L, ...]
    choice: np.ndarray  # [L, ...] what the policy drew, before it was mapped to the action
    reward: np.ndarray  # float32 [L]
    discount: np.ndarray  # float32 [L]; its last entry is 0 if the episode terminated, 1 if it was cut off

    @property
    def length(self) -> int:
        return len(self.reward)


class Sequences(NamedTuple):
    """N episodes side by side, padded to the same T; tensors."""

    obs: Tensor  # [T + 1, N, ...]
    action: Tensor  # [T, N, ...]
    choice: Tensor  # [T, N, ...]
    reward: Tensor  # float32 [T, N], 0 in padding
    discount: Tensor  # float32 [T, N], 0 in padding
    mask: Tensor  # bool [T + 1, N]; the last observation of an episode is real
    last: Tensor  # bool [T, N]: the last step of its episode

    @property
    def real(self) -> Tensor:
        """bool `[T, N]`: the transition is no padding."""
        return self.mask[1:]

    def inputs(self, start: int, stop: int) -> Inputs:
        """What the encoder reads for observations `start` to `stop`, as it read them to act."""
        last_action = torch.cat([torch.zeros_like(self.action[:1]), self.action])
        last_reward = torch.cat([torch.zeros_like(self.reward[:1]), self.reward])
        part = slice(start, stop)
        return Inputs(self.obs[part], last_action[part], last_reward[part], self.mask[part])

    def reset(self, start: int, stop: int) -> Tensor:
        """bool `[stop - start, N]`: the first observation of each episode."""
        reset = torch.zeros((stop - start, self.mask.shape[1]), dtype=torch.bool, device=self.mask.device)
        if start == 0:
            reset[0] = True
        return reset

    def trajectory(self, start: int, stop: int, obs: Tensor) -> Trajectory:
        """Transitions `start` to `stop` for auxiliary losses; `obs` `[stop - start + 1, N, ...]` as encoded."""
        part = slice(start, stop)
        return Trajectory(
            obs, self.action[part], self.reward[part], self.discount[part], self.reset(start, stop + 1), self.real[part]
        )


class EpisodeStore:
    """Steps go in by `append`; `take` gives out the finished episodes. Episodes in progress stay."""

    def __init__(self, num_envs: int):
        self._columns: dict[str, np.ndarray] = {}  # rows in order of arrival, allocated when the first step comes
        self._owner = np.zeros(0, dtype=np.int64)  # the episode of each row
        self._rows = 0
        self._current = np.arange(num_envs)  # the episode in progress in each environment
        self._next = num_envs
        self._final: dict[int, np.ndarray] = {}  # last observations of finished episodes

    @property
    def finished(self) -> int:
        """Finished episodes that wait to be taken."""
        return len(self._final)

    def append(self, step: Step) -> None:
        """Remember the valid rows of `step`. `extras["choice"]`, where given, is what the policy drew for `action`."""
        index, kept = step.env_index, step.valid
        fields = {
            "obs": step.obs,
            "action": step.action,
            "choice": step.extras.get("choice", step.action),
            "reward": step.reward,
            "discount": step.discount,
        }
        ended = step.ended
        next_obs = step.next_obs
        if not kept.all():
            index, ended, next_obs = index[kept], ended[kept], next_obs[kept]
            fields = {name: values[kept] for name, values in fields.items()}
        start, stop = self._rows, self._rows + len(index)
        if stop > len(self._owner):
            self._grow(stop, fields)
        for name, values in fields.items():
            self._columns[name][start:stop] = values
        self._owner[start:stop] = self._current[index]
        self._rows = stop
        for row in np.flatnonzero(ended):
            self._final[int(self._current[index[row]])] = next_obs[row].copy()
            self._current[index[row]] = self._next
            self._next += 1

    def take(self) -> list[Episode]:
        """The finished episodes, in the order in which they began; they leave the store."""
        owner = self._owner[: self._rows]
        order = np.argsort(owner, kind="stable")
        names, starts = np.unique(owner[order], return_index=True)
        episodes = []
        for name, rows in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
            if name not in self._final:
                continue
            taken = {column: values[rows] for column, values in self._columns.items()}
            obs = np.concatenate([taken["obs"], self._final[name][None]])
            episodes.append(Episode(obs, taken["action"], taken["choice"], taken["reward"], taken["discount"]))
        self._keep(~np.isin(owner, list(self._final)))
        self._final = {}
        return episodes

    def drop_open(self) -> None:
        """Forget the episodes in progress: they will not go on."""
        self._keep(np.isin(self._owner[: self._rows], list(self._final)))
        self._current = np.arange(self._next, self._next + len(self._current))
        self._next += len(self._current)

    def state_dict(self) -> dict[str, Any]:
        columns = {**self._columns, "owner": self._owner}
        return {
            "columns": {name: torch.from_numpy(values[: self._rows].copy()) for name, values in columns.items()},
            "current": torch.from_numpy(self._current.copy()),
            "next": self._next,
            "final": {str(name): torch.from_numpy(obs.copy()) for name, obs in self._final.items()},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        columns = {name: values.numpy().copy() for name, values in saved["columns"].items()}
        self._owner = columns.pop("owner")
        self._columns, self._rows = columns, len(self._owner)
        self._current, self._next = saved["current"].numpy().copy(), int(saved["next"])
        self._final = {int(name): obs.numpy().copy() for name, obs in saved["final"].items()}

    def _grow(self, rows: int, fields: dict[str, np.ndarray]) -> None:
        capacity = max(256, 2 * rows)
        self._owner = np.resize(self._owner, capacity) if len(self._owner) else np.zeros(capacity, dtype=np.int64)
        for name, values in fields.items():
            wider = np.empty((capacity, *values.shape[1:]), dtype=values.dtype)
            if name in self._columns:
                wider[: self._rows] = self._columns[name][: self._rows]
            self._columns[name] = wider

    def _keep(self, kept: np.ndarray) -> None:
        count = int(kept.sum())
        for values in (*self._columns.values(), self._owner):
            values[:count] = values[: self._rows][kept]
        self._rows = count


def group_by_length(episodes: Sequence[Episode], limit: int) -> Iterator[list[Episode]]:
    """Groups of similar length whose padded size is at most `limit` observations; longer episodes stay alone."""
    group: list[Episode] = []
    for episode in sorted(episodes, key=lambda e: -e.length):
        if group and (len(group) + 1) * (group[0].length + 1) > limit:
            yield group
            group = []
        group.append(episode)
    yield group


def pad(episodes: Sequence[Episode], device: str, least: int = 0) -> Sequences:
    """Episodes side by side `[T, N]`, T at least `least`, on the device; padding is zero."""
    first, longest = episodes[0], max(least, *(episode.length for episode in episodes))

    def blank(like: np.ndarray, length: int) -> np.ndarray:
        return np.zeros((length, len(episodes), *like.shape[1:]), dtype=like.dtype)

    columns = {name: blank(getattr(first, name), longest + (name == "obs")) for name in Episode._fields}
    mask = np.zeros((longest + 1, len(episodes)), dtype=np.bool_)
    last = np.zeros((longest, len(episodes)), dtype=np.bool_)
    for number, episode in enumerate(episodes):
        for name, values in zip(Episode._fields, episode, strict=True):
            columns[name][: len(values), number] = values
        mask[: episode.length + 1, number] = True
        last[episode.length - 1, number] = True
    tensors = {name: torch.from_numpy(values).to(device) for name, values in columns.items()}
    return Sequences(**tensors, mask=torch.from_numpy(mask).to(device), last=torch.from_numpy(last).to(device))


def encode_padded(encoder: Encoder, inputs: Inputs, state: State, reset: Tensor) -> tuple[Tensor, State]:
    """`encoder(inputs, state, reset)`, where an encoder without memory is not shown the padding.

    That saves work, and keeps padding out of statistics over the batch. Features of padding are zero then.
    """
    mask = inputs.mask
    if state or mask is None:
        return encoder(inputs, state, reset)
    action, reward = (
        None if field is None else field[mask][None] for field in (inputs.last_action, inputs.last_reward)
    )
    real = encoder(Inputs(inputs.obs[mask][None], action, reward))[0].squeeze(0)
    features = real.new_zeros((*mask.shape, *real.shape[1:]))
    features[mask] = real
    return features, ()
