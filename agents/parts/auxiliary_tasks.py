"""Auxiliary tasks (Jaderberg et al. 2016, arXiv:1611.05397): what an agent learns beside its own losses, from replay.

A task is a head and losses; it knows no agent. It says what it wants replayed (`Window`) and reads a `Trajectory` and
the features of its observations, so that whoever has these, from a replay or a rollout, can take it: actor-critics and
Q agents alike. In a trajectory from a replay the observation behind a transition is always what it led to. In one from
a rollout it may be the first of the next episode: such transitions are left out, and nothing is carried across.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.base import Encoder, Trajectory, WithMemory
from .policy_losses import value_loss
from .returns import lambda_returns
from .sequence_replay import SequenceBatch


class Window(NamedTuple):
    """What a task wants replayed. Tasks with equal windows share one batch and one pass of the encoder."""

    steps: int  # transitions in a row
    remembers: bool = True  # features as the agent's heads read them; False: of each observation alone, by `perceive`
    is_skewed: bool = False  # half of the windows end with a transition that earns something


class AuxiliaryTask(nn.Module, ABC):
    """A head, and what it learns. Subclasses are final."""

    window: Window

    @abstractmethod
    def losses(self, batch: Trajectory, features: Tensor) -> dict[str, Tensor]:
        """Scalars by name.

        Args:
            batch: T = `window.steps` transitions of B sequences; observations as the world shows them.
            features: `[T + 1, B, ...]` of all observations where `window.remembers`, else `[T, B, ...]`: what the last
                transition led to is not read.
        """


class AuxiliaryTasks(nn.Module):
    """Tasks by name, with their weights."""

    def __init__(self, tasks: Mapping[str, AuxiliaryTask], weights: Mapping[str, float]):
        super().__init__()
        self.tasks = nn.ModuleDict(tasks)
        self.weights = {name: weights[name] for name in tasks}

    def windows(self) -> list[Window]:
        """What is to be replayed for an update, each kind once."""
        return list(dict.fromkeys(cast(AuxiliaryTask, task).window for task in self.tasks.values()))

    def losses(self, window: Window, batch: Trajectory, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(weighted sum, losses by name) of the tasks that asked for `window`."""
        features = features.float()  # heads and losses keep their precision, whatever the encoder computes in
        total = features.new_zeros(())
        found: dict[str, Tensor] = {}
        for name, module in self.tasks.items():
            task = cast(AuxiliaryTask, module)
            if task.window == window:
                losses = task.losses(batch, features)
                total = total + self.weights[name] * torch.stack(list(losses.values())).sum()
                found |= losses
        return total, found


class ValueReplay(AuxiliaryTask):
    """Values regressed once more, on replayed sequences and returns to their ends (section 3.3). It has no head."""

    def __init__(
        self,
        values: Callable[[Tensor], Tensor],
        steps: int,
        discount: float,
        *,
        unit: Callable[[], Tensor] | None = None,
        clip_rewards: bool = False,
    ):
        """`values` maps features `[T, B, ...]` to values `[T, B]`; its parameters stay the agent's. Errors are measured
        in units of `unit()`, where given."""
        super().__init__()
        self.values, self.unit, self.window = values, unit, Window(steps)
        self.discount, self.clip_rewards = discount, clip_rewards

    def losses(self, batch: Trajectory, features: Tensor) -> dict[str, Tensor]:
        value = self.values(features)
        reward = batch.reward.clamp(-1, 1) if self.clip_rewards else batch.reward
        known = known_transitions(batch)
        returns = bootstrapped(reward, self.discount * batch.discount, value[1:].detach(), known)
        loss = value_loss(value[:-1], returns, mean_over(known))
        return {"value_replay": loss if self.unit is None else loss / self.unit().square()}


def known_transitions(batch: Trajectory) -> Tensor:
    """bool `[T, B]`: the transition is real, and the observation behind it is what it led to."""
    return batch.mask & ~batch.reset[1:]


def mean_over(known: Tensor) -> Tensor:
    """float32 weights `[T, B]` that take a mean over the transitions `known`."""
    weight = known.float()
    return weight / weight.sum().clamp(min=1)


def bootstrapped(r_t: Tensor, discount_t: Tensor, v_t: Tensor, known: Tensor) -> Tensor:
    """Returns to the end of the sequence, or of what is known of an episode, and the value of what was seen there.

    Args:
        r_t, v_t: `[T, B, ...]`; `v_t` is the value of what each transition led to.
        discount_t, known: `[T, B]`.

    Returns:
        `[T, B, ...]`, meaningless where not `known`.
    """
    more = r_t.dim() - known.dim()
    goes_on = torch.cat([known[1:], torch.zeros_like(known[:1])]).float()
    discount_t, goes_on = (x.reshape(*x.shape, *[1] * more) for x in (discount_t, goes_on))
    return lambda_returns(r_t, discount_t, v_t, goes_on)


def remember(encoder: Encoder, batch: SequenceBatch, obs: Tensor) -> Tensor:
    """Features `[T, B, ...]` of replayed sequences, from the state before them; `obs` are perhaps augmented."""
    return encoder(batch.inputs._replace(obs=obs), batch.state, batch.reset)[0]


def perceive(encoder: Encoder, obs: Tensor) -> Tensor:
    """Features `[T, B, ...]` of each observation alone: what a memory adds is not seen."""
    if isinstance(encoder, WithMemory):
        return encoder.perceive(obs)
    return encoder.read(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])


def perceived_shape(encoder: Encoder) -> tuple[int, ...]:
    """Shape of one of `perceive`'s features."""
    return encoder.perception.feature_shape if isinstance(encoder, WithMemory) else encoder.feature_shape


def perceived_size(encoder: Encoder) -> int:
    return int(np.prod(perceived_shape(encoder)))
