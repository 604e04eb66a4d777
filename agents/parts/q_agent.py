"""What Q-learners share: an encoder under a head of action values, a target network, and when updates are due."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.base import Encoder
from ...envs.errors import SpecError, UserError
from ...envs.spec import EnvSpec
from ..base import Agent, Metrics
from .compute import Compute
from .exploration import make_exploration
from .networks import QHead, acting_copy, follow, target_copy
from .optimisers import Optimisers
from .ring import Ring
from .schedules import Linear
from .settings import check_settings


@dataclass(frozen=True)
class QSettings:
    """Of networks, exploration and cadence; a Q-learner's `Config` adds what it learns, from which samples."""

    learning_rate: float = 1e-4  # Adam
    learning_rate_decay_steps: int = 0  # environment steps over which the rate falls linearly to 0; 0 = constant
    adam_epsilon: float = 1e-8  # Adam's denominator floor
    learning_starts: int = 1_000  # transitions before the first gradient step
    update_interval: int = 4  # environment steps between bursts of gradient steps
    updates_per_interval: int = 1  # gradient steps in a burst
    target_interval: int = 1_000  # environment steps between target updates
    target_rate: float = 1.0  # share of the way the target moves: 1 = hard update
    dueling: bool = False  # separate streams for value and advantage
    max_gradient_norm: float | None = 10.0  # of head and encoder apart; None = no clipping
    hidden: tuple[int, ...] = ()  # dense layers between the features and the values
    epsilon_initial: float = 1.0  # share of random actions at the start
    epsilon_final: float = 0.05  # and after `epsilon_decay_steps`; equal values = constant, both 0 = greedy
    epsilon_decay_steps: int = 10_000  # environment steps


class QModule(nn.Module):
    """An encoder under a head of action values; a subclass says in `forward` how it reads."""

    def __init__(self, config: QSettings, spec: EnvSpec, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        features = int(np.prod(encoder.feature_shape))
        self.head = QHead(features, spec.action.count, config.hidden, is_dueling=config.dueling)


class QAgent(Agent):
    """Holds the networks, and counts steps to when gradient steps and target updates are due.

    A subclass makes its `replay`, and says how it acts, what it remembers, and in `update` what a gradient step is.
    """

    config: QSettings
    network: QModule
    replay: Ring

    def __init__(
        self,
        config: QSettings,
        spec: EnvSpec,
        network: QModule,
        compute: Compute,
        seed: int,
        target_type: torch.dtype | None = None,
    ):
        """`network` is placed as `compute` says; `target_type`: of the target's parameters, where it differs."""
        self.config, self.spec, self.compute, self.device = config, spec, compute, compute.device
        self.network, self.encoder = network, network.encoder
        compute.place(network)
        self.target = target_copy(network, target_type)
        self.acting = cast(QModule, acting_copy(network))
        self.optimisers = Optimisers(
            network.head.parameters(),
            network.encoder,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
            compute=compute,
        )
        self.exploration = make_exploration(config.epsilon_initial, config.epsilon_final, config.epsilon_decay_steps)
        self.decay = Linear(1.0, 0.0, config.learning_rate_decay_steps)
        self.random = np.random.default_rng(seed)
        self.steps = 0  # transitions observed
        self.updates = 0  # gradient steps taken
        self._updated_at = self._target_at = 0

    def due(self, *, is_ready: bool = True) -> int:
        """How many gradient steps to take now, at the learning rate as it is now; 0 until the replay holds enough."""
        config = self.config
        if len(self.replay) < config.learning_starts or not is_ready:
            self._updated_at = self.steps
            return 0
        bursts = (self.steps - self._updated_at) // config.update_interval
        self._updated_at += bursts * config.update_interval
        if bursts and config.learning_rate_decay_steps:
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        return bursts * config.updates_per_interval

    def descend(self, q: Tensor, gradient: Tensor, auxiliary: dict[str, Tensor]) -> Metrics:
        """One gradient step, given the loss's `gradient` by the values `q`, and the encoder's own losses by name."""
        self.optimisers.clear()
        learned = [loss for loss in auxiliary.values() if loss.requires_grad]
        torch.autograd.backward([q, *learned], [gradient, *[None] * len(learned)])
        metrics: Metrics = {f"loss/{name}": loss.detach() for name, loss in auxiliary.items()}
        metrics["gradient_norm"] = self.optimisers.apply()
        self.encoder.after_update()
        self.updates += 1
        return metrics

    def move_target(self) -> None:
        """Let the target network follow, if an interval has passed since it did."""
        config = self.config
        if intervals := (self.steps - self._target_at) // config.target_interval:
            self._target_at += intervals * config.target_interval
            follow(self.target, self.network, config.target_rate)

    def interrupt(self) -> None:
        self.replay.cut()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "replay": self.replay.state_dict(),
            "random": self.random.bit_generator.state,
            "counters": [self.steps, self.updates, self._updated_at, self._target_at],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.target.load_state_dict(saved["target"])
        self.optimisers.load_state_dict(saved["optimisers"])
        self.replay.load_state_dict(saved["replay"])
        self.random.bit_generator.state = saved["random"]
        self.steps, self.updates, self._updated_at, self._target_at = saved["counters"]


def check_q_agent(
    agent: str,
    config: QSettings,
    spec: EnvSpec,
    *,
    positive: Iterable[str],
    not_negative: Iterable[str],
    share: Iterable[str],
) -> None:
    """Raises SpecError for continuous actions, UserError for settings that make no sense.

    The named fields are the agent's own, checked as `check_settings` does.
    """
    if not spec.action.is_discrete:
        raise SpecError(f"{agent} needs discrete actions; {spec.id} has {spec.action.describe()}. Try reinforce")
    check_settings(
        agent,
        config,
        positive=(
            "learning_rate",
            "adam_epsilon",
            "update_interval",
            "updates_per_interval",
            "target_interval",
            "max_gradient_norm",
            *positive,
        ),
        not_negative=(
            "learning_rate_decay_steps",
            "learning_starts",
            "epsilon_decay_steps",
            *not_negative,
        ),
        share=("target_rate", "epsilon_initial", "epsilon_final", *share),
    )
    if any(size < 1 for size in config.hidden):
        raise UserError(f"{agent}: hidden must be positive sizes, not {config.hidden}")
