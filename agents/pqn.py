"""Parallelised Q-network (Gallici et al. 2024, arXiv:2407.04811): Q-learning from rollouts of many environments, with
neither replay nor target network. Normalised layers keep it from diverging (section 3): give the encoder `layer_norm`.

Each rollout is learned from several times, in minibatches; targets are lambda-returns (Peng's, which are not corrected
for exploring actions) with the values that acting saw (section 4, algorithm 1).

Deviations: Adam in place of rectified Adam; head and encoder are clipped apart. The action of a rollout's first step
was chosen before the update that precedes it. With memory a minibatch holds whole environments, which begin at the
state they had when they were played.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders.base import Encoder
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from .base import Agent, Metrics
from .parts import q_losses
from .parts.compute import Compute
from .parts.exploration import make_exploration
from .parts.networks import QHead
from .parts.optimisers import Optimisers
from .parts.returns import lambda_returns
from .parts.rollout_agent import RolloutAgent, RolloutSettings, ValueNetwork, check_window
from .parts.rollouts import Rollout, minibatches
from .parts.settings import check_settings

kind = "parallelised Q-network: Q-learning from rollouts without replay or target network, with any memory"


@dataclass(frozen=True)
class Config(RolloutSettings):
    learning_rate: float = 2.5e-4  # Adam
    adam_epsilon: float = 1e-5  # Adam's denominator floor
    max_gradient_norm: float | None = 10.0  # of head and encoder apart; None = no clipping
    discount: float = 0.99  # per step
    rollout_steps: int = 32  # of every environment, per update
    epochs: int = 2  # passes over a rollout
    minibatches: int = 32  # in a pass, a gradient step each; with memory at most one per environment
    trace_lambda: float = 0.65  # of the returns: 0 = one step, 1 = to the end of the rollout
    epsilon_initial: float = 1.0  # share of random actions at the start
    epsilon_final: float = 0.001  # and after `epsilon_decay_steps`; equal values = constant, both 0 = greedy
    epsilon_decay_steps: int = 100_000  # environment steps
    dueling: bool = False  # separate streams for value and advantage
    hidden: tuple[int, ...] = ()  # dense layers between the features and the values
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped


class QNetwork(ValueNetwork):
    """An encoder under a head of action values."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        size = int(np.prod(encoder.feature_shape))
        self.head = QHead(size, spec.action.count, config.hidden, is_dueling=config.dueling)

    def q(self, features: Tensor) -> Tensor:
        """Features `[T, B, ...]` to action values `[T, B, A]`, float32."""
        return self.head(features.flatten(2).float())

    def values(self, features: Tensor) -> Tensor:
        return q_losses.max_value(self.q(features))


class PQN(RolloutAgent):
    """Acts epsilon-greedily; learns from each rollout several times."""

    config: Config
    network: QNetwork
    acting: QNetwork

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        super().__init__(config, spec, QNetwork(config, spec, encoder), compute, seed)
        self.optimisers = Optimisers(
            self.network.head.parameters(),
            encoder,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
            compute=compute,
        )
        self.exploration = make_exploration(config.epsilon_initial, config.epsilon_final, config.epsilon_decay_steps)
        self.explorer = np.random.default_rng(seed)

    def choose(self, features: Tensor, *, explore: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        value, greedy = self.acting.q(features)[0].max(-1)
        action = greedy.cpu().numpy()
        if not explore:
            return action, {}
        action = self.exploration(action, self.spec.action.count, self.steps, self.explorer)
        return action, {"value": value.cpu().numpy()}

    def update(self) -> Metrics:
        rollout = self.finished()
        if rollout is None:
            return {}
        config = self.config
        if config.learning_rate_decay_steps:
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        rollout = rollout._replace(extras={"target": self._targets(rollout)})
        total: dict[str, Tensor] = {}
        steps = 0
        for _ in range(config.epochs):
            for part in minibatches(rollout, config.minibatches, self.network.encoder.window, self.random):
                steps += 1
                for name, value in self._learn(part).items():
                    total[name] = total[name] + value if name in total else value
        metrics = {name: value / steps for name, value in total.items()}
        return {**metrics, "exploration/epsilon": self.exploration.epsilon(self.steps)}

    @torch.no_grad()
    def _targets(self, rollout: Rollout) -> Tensor:
        """Lambda-returns `[T, B]`."""
        config = self.config
        reward = rollout.reward.clamp(-1, 1) if config.clip_rewards else rollout.reward
        following = rollout.following(rollout.extras["value"])
        return lambda_returns(
            reward, config.discount * rollout.discount, following, config.trace_lambda * rollout.going_on()
        )

    def _learn(self, part: Rollout) -> dict[str, Tensor]:
        """One gradient step."""
        features, auxiliary = self.encode(part)
        q = q_losses.select(self.network.q(features), part.action)
        loss = (part.weight * q_losses.squared(part.extras["target"] - q)).sum()
        losses = {"loss/q": loss} | {f"loss/{name}": each.float() for name, each in auxiliary.items()}
        norm = self.optimisers.step(torch.stack(list(losses.values())).sum())
        self.network.encoder.after_update()
        metrics = {name: each.detach() for name, each in losses.items()}
        return metrics | {"q/mean": (part.weight * q.detach()).sum(), "gradient_norm": torch.as_tensor(norm)}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"explorer": self.explorer.bit_generator.state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.explorer.bit_generator.state = saved["explorer"]


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Agent:
    """Raises SpecError for continuous actions and rollouts too short for the encoder's losses, UserError for settings
    that make no sense."""
    if not spec.action.is_discrete:
        raise SpecError(f"pqn needs discrete actions; {spec.id} has {spec.action.describe()}. Try ppo")
    check_settings(
        "pqn",
        config,
        positive=("learning_rate", "adam_epsilon", "rollout_steps", "epochs", "minibatches", "max_gradient_norm"),
        not_negative=("learning_rate_decay_steps", "epsilon_decay_steps"),
        share=("discount", "trace_lambda", "epsilon_initial", "epsilon_final"),
    )
    if any(size < 1 for size in config.hidden):
        raise UserError(f"pqn: hidden must be positive sizes, not {config.hidden}")
    check_window("pqn", config.rollout_steps, encoder)
    return PQN(config, spec, encoder, compute, seed)
