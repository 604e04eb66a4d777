"""Rollouts: T consecutive steps of B environments, from which an on-policy agent learns and then forgets them.

A memory's state is kept at the first step only; what it read beside the observations is kept for every step, so that
`encoder(rollout.inputs(obs), rollout.state, rollout.reset)` repeats what happened while acting. Where an episode was
cut off, the value of its true last observation is asked for when that happens: later its memory's state is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...encoders.base import Inputs, State, Trajectory
from ...envs.base import Step
from ...envs.spec import EnvSpec


class Rollout(NamedTuple):
    """T steps of B environments, tensors. Those of a store are its own memory until its next `append`."""

    obs: Tensor  # [T + 1, B, ...]; the last row is what the last step led to, an episode's true last observation too
    action: Tensor  # [T, B, ...]
    choice: Tensor  # [T, B, ...] what the policy drew, before it was mapped to the action
    reward: Tensor  # float32 [T, B], not clipped
    discount: Tensor  # float32 [T, B]: 0 where nothing more is to be earned, else 1
    ended: Tensor  # bool [T, B]: the last step of its episode
    cut: Tensor  # bool [T, B]: the episode was cut off there, and `cut_value` is the value of its last observation
    cut_value: Tensor  # float32 [T, B]
    reset: Tensor  # bool [T + 1, B]: the observation is the first of its episode
    mask: Tensor | None  # bool [T + 1, B]: False = an ignored action, which counts for nothing; None: all count
    last_action: Tensor  # [T + 1, B, ...] done before the observation; 0 at the start of an episode
    last_reward: Tensor  # float32 [T + 1, B], likewise
    state: State  # the encoder's before the first observation, leaves [B, ...]
    next_value: Tensor  # float32 [B]: of the last row of `obs`, where its episode goes on
    extras: dict[str, Tensor]  # [T, B, ...] each: what the agent wanted remembered of its choices

    @property
    def valid(self) -> Tensor:
        """bool `[T, B]`: the step counts."""
        return torch.ones_like(self.ended) if self.mask is None else self.mask[:-1]

    @property
    def weight(self) -> Tensor:
        """float32 `[T, B]`: 1 / the number of steps that count, and 0 for the others."""
        valid = self.valid.float()
        return valid / valid.sum().clamp(min=1)

    def inputs(self, obs: Tensor) -> Inputs:
        """What the encoder reads for the first `len(obs)` observations, given as `obs` (perhaps augmented)."""
        length = len(obs)
        mask = None if self.mask is None else self.mask[:length]
        if not self.state:
            return Inputs(obs, mask=mask)
        return Inputs(obs, self.last_action[:length], self.last_reward[:length], mask)

    def following(self, value: Tensor) -> Tensor:
        """`value` `[T, B]` of the observations to values `[T, B]` of what each step led to."""
        return torch.where(self.cut, self.cut_value, torch.cat([value[1:], self.next_value.unsqueeze(0)]))

    def going_on(self) -> Tensor:
        """float32 `[T, B]`: 0 at the last step of an episode, else 1. Traces are cut there."""
        return (~self.ended).float()

    def trajectory(self, obs: Tensor) -> Trajectory:
        """For auxiliary losses; `obs` `[T + 1, B, ...]` as they are encoded."""
        return Trajectory(obs, self.action, self.reward, self.discount, self.reset, self.valid)

    def columns(self, index: Tensor) -> Rollout:
        """The environments `index`, whole."""

        def pick(x: Tensor) -> Tensor:
            return x.index_select(1, index)

        fields = self._asdict().items()
        picked: dict[str, Any] = {n: pick(x) for n, x in fields if isinstance(x, Tensor) and n != "next_value"}
        return self._replace(
            **picked,
            state=tuple(leaf[index] for leaf in self.state),
            next_value=self.next_value[index],
            extras={name: pick(x) for name, x in self.extras.items()},
        )

    def transitions(self, index: Tensor, *, with_next: bool) -> Rollout:
        """The N steps `index` (int64 into `[T * B]`) as rollouts of one step, `[1, N]`: for encoders without memory.

        Without `with_next`, which auxiliary losses need, `obs` is `[1, N, ...]`: what was acted on alone.
        """
        width = self.ended.shape[1]

        def pick(x: Tensor) -> Tensor:
            return x.flatten(0, 1).index_select(0, index).unsqueeze(0)

        def pick_both(x: Tensor) -> Tensor:
            return torch.stack([x.flatten(0, 1).index_select(0, i) for i in (index, index + width)])

        last = ("obs", "reset", "last_action", "last_reward")
        fields = self._asdict().items()
        picked: dict[str, Any] = {
            name: (pick_both if with_next and name in last else pick)(x)
            for name, x in fields
            if isinstance(x, Tensor) and name not in ("next_value", "mask")
        }
        extras = {name: pick(x) for name, x in self.extras.items()}
        return self._replace(**picked, mask=None, extras=extras, next_value=index.new_zeros(len(index)).float())


def minibatches(rollout: Rollout, count: int, window: int, generator: torch.Generator) -> Iterator[Rollout]:
    """`rollout` in `count` shuffled parts of nearly equal size.

    Steps that count are shuffled one by one; where the encoder remembers, or its own losses ask for more than one
    transition (`window`), environments are shuffled whole, and there are no more parts than environments.
    """
    steps, envs = rollout.ended.shape
    device = rollout.ended.device
    if rollout.state or window > 1:
        order = torch.randperm(envs, generator=generator, device=device)
        for index in order.tensor_split(min(count, envs)):
            yield rollout.columns(index)
        return
    if rollout.mask is None:
        order = torch.randperm(steps * envs, generator=generator, device=device)
    else:
        counted = rollout.valid.flatten().nonzero().squeeze(1)
        order = counted[torch.randperm(len(counted), generator=generator, device=device)]
    for index in order.tensor_split(min(count, len(order))):
        yield rollout.transitions(index, with_next=window > 0)


class RolloutStore:
    """Steps of all environments go in by `append`; when there are `length`, `take` gives the rollout out.

    Observations lie on `device`; the rest is small, and goes there when the rollout is taken.
    """

    def __init__(self, length: int, spec: EnvSpec, device: str = "cpu"):
        self.length, self.envs, self.device = length, spec.num_envs, device
        observation, action = spec.observation, spec.action
        shape = (length + 1, self.envs, *observation.shape)
        self._obs = torch.zeros(shape, dtype=getattr(torch, observation.dtype), device=device)
        kind = np.int64 if action.is_discrete else np.float32
        self._last = {  # row t + 1 is written with step t; the last row is the first of the next rollout
            "last_action": np.zeros((length + 1, self.envs, *action.shape), kind),
            "last_reward": np.zeros((length + 1, self.envs), np.float32),
        }
        self._columns: dict[str, np.ndarray] = {}  # [T, B, ...], allocated when the first step comes
        self._extras: dict[str, np.ndarray] = {}  # likewise
        self.state: State = ()
        self.count = 0  # steps in the rollout so far

    @property
    def is_full(self) -> bool:
        return self.count == self.length

    def begin(self, state: State) -> None:
        """The encoder's state before the observation of the first step."""
        self.state = tuple(leaf.detach().clone() for leaf in state)

    def append(self, step: Step, cut_value: np.ndarray | None = None) -> None:
        """Remember `step`, of all environments in their order.

        Args:
            cut_value: float32 `[B]`, the value of `next_obs` where `truncated`; needed where there is one.
        """
        if self.is_full or len(step.env_index) != self.envs:
            raise ValueError(
                f"a rollout takes {self.length} steps of {self.envs} environments; take it when it is full"
            )
        row = self.count
        ended = step.ended
        columns = {
            "action": step.action,
            "choice": step.extras.get("choice", step.action),
            "reward": step.reward,
            "discount": step.discount,
            "ended": ended,
            "cut": step.truncated,
            "cut_value": np.zeros(self.envs, np.float32) if cut_value is None else cut_value,
            "reset": step.reset,
            "valid": step.valid,
        }
        extras = {name: values for name, values in step.extras.items() if name != "choice"}
        for kept, given in ((self._columns, columns), (self._extras, extras)):
            if not kept:
                kept.update({n: np.zeros((self.length, *values.shape), values.dtype) for n, values in given.items()})
            for name, values in given.items():
                kept[name][row] = values
        for name, values in (("last_action", step.action), ("last_reward", step.reward)):
            last = self._last[name]
            if row == 0:
                last[0] = last[-1]
            last[row + 1] = values
            last[row + 1][ended | ~step.valid] = 0
        self._obs[row].copy_(torch.from_numpy(step.obs))
        self.count += 1
        if self.is_full:
            self._obs[-1].copy_(torch.from_numpy(step.next_obs))

    def take(self) -> Rollout:
        """The full rollout, `next_value` still 0; the store is empty then."""
        reset = np.concatenate([self._columns["reset"], np.zeros((1, self.envs), bool)])
        valid = self._columns["valid"]
        mask = None if valid.all() else np.concatenate([valid, np.ones((1, self.envs), bool)])
        names = ("action", "choice", "reward", "discount", "ended", "cut", "cut_value")
        fields = {name: self._tensor(self._columns[name]) for name in names}
        fields |= {name: self._tensor(values) for name, values in self._last.items()}
        self.count = 0
        return Rollout(
            obs=self._obs,
            reset=self._tensor(reset),
            mask=None if mask is None else self._tensor(mask),
            state=self.state,
            next_value=torch.zeros(self.envs, device=self.device),
            extras={name: self._tensor(values) for name, values in self._extras.items()},
            **fields,
        )

    def drop(self) -> None:
        """Forget the rollout in progress: its episodes will not go on."""
        self.count = 0
        for values in self._last.values():
            values[-1] = 0

    def state_dict(self) -> dict[str, Any]:
        stop = self.count
        return {
            "count": stop,
            "obs": self._obs[: stop + 1].cpu().clone(),
            "columns": {name: torch.from_numpy(values[:stop].copy()) for name, values in self._columns.items()},
            "extras": {name: torch.from_numpy(values[:stop].copy()) for name, values in self._extras.items()},
            "last": {name: torch.from_numpy(values.copy()) for name, values in self._last.items()},
            "state": [leaf.cpu() for leaf in self.state],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.count = int(saved["count"])
        self._obs[: self.count + 1].copy_(saved["obs"])
        self._columns, self._extras = ({}, {})
        for kept, name in ((self._columns, "columns"), (self._extras, "extras")):
            for key, rows in saved[name].items():
                kept[key] = np.zeros((self.length, *rows.shape[1:]), rows.numpy().dtype)
                kept[key][: self.count] = rows.numpy()
        self._last = {name: values.numpy().copy() for name, values in saved["last"].items()}
        self.state = tuple(leaf.to(self.device) for leaf in saved["state"])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)
