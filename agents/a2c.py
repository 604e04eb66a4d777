"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3), synchronous: every update takes one short
rollout of all environments.

Deviations: an update takes the mean over steps, not the sum; heads and encoder are clipped apart. The action of a
rollout's first step was chosen before the update that precedes it, and is learned from all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..encoders.base import Encoder
from ..envs.errors import UserError
from ..envs.spec import EnvSpec
from .base import Agent, Metrics
from .parts.actor_critic import ActorCriticAgent, PolicySettings
from .parts.compute import Compute
from .parts.policy_losses import entropy_loss, normalise, policy_gradient_loss, value_loss
from .parts.returns import gae
from .parts.rollout_agent import check_window
from .parts.rollouts import Rollout
from .parts.settings import check_settings

kind = "advantage actor-critic, synchronous: n-step or generalised advantages, with any memory"


@dataclass(frozen=True)
class Config(PolicySettings):
    learning_rate: float = 7e-4
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    optimizer_epsilon: float = 1e-5  # RMSProp: inside the root; Adam: outside
    rmsprop_decay: float = 0.99  # of the mean square of gradients (Mnih et al. 2016, section 5.1)
    discount: float = 0.99  # per step
    rollout_steps: int = 5  # of every environment, per update (t_max)
    gae_lambda: float = 1.0  # 1 = n-step advantages to the end of the rollout; less: more bias, less variance
    normalise_advantages: bool = False  # mean 0 and deviation 1 over an update
    value_weight: float = 1.0  # of half the squared error, beside the policy's loss
    scale_values: bool = False  # values and advantages in units of the returns' size (Pop-Art without shift)
    entropy_weight: float = 0.01  # of the policy's entropy in nats
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped


class A2C(ActorCriticAgent):
    """Learns from each rollout once. Whoever applies gradients elsewhere calls `finished` and `accumulate` instead of
    `update`."""

    config: Config

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        super().__init__(config, spec, encoder, compute, seed)
        decay = config.rmsprop_decay if config.optimizer == "rmsprop" else None
        self.optimisers = self.make_optimisers(config.optimizer_epsilon, decay, self.add_heads())

    def add_heads(self) -> Sequence[Iterable[nn.Parameter]]:
        """A hook: adds to `network` what else it trains; the parameters of each part, which are clipped apart."""
        return ()

    def update(self) -> Metrics:
        rollout = self.finished()
        if rollout is None:
            return {}
        if self.config.learning_rate_decay_steps:
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        metrics = self.accumulate(rollout)
        metrics["gradient_norm"] = self.optimisers.apply()
        self.network.encoder.after_update()
        return metrics

    def accumulate(self, rollout: Rollout) -> Metrics:
        """Leave the gradients of `rollout`'s losses in the network's parameters, instead of those there; apply none."""
        config, network = self.config, self.network
        features, auxiliary = self.encode(rollout)
        value = network.values(features)
        advantage, returns = self._targets(rollout, value.detach())
        weight = rollout.weight
        if config.scale_values:
            network.value.rescale(returns[rollout.valid])
            value = network.values(features)  # the same numbers, from the rescaled layer
        policy, scale = network.policy(features), network.value.scale
        losses = {
            "loss/policy": policy_gradient_loss(policy.log_prob(rollout.choice), advantage / scale, weight),
            "loss/value": value_loss(value / scale, returns / scale, weight),
            "loss/entropy": entropy_loss(policy.entropy(), weight),
        }
        weights = {"loss/value": config.value_weight, "loss/entropy": config.entropy_weight}
        losses |= {f"loss/{name}": loss.float() for name, loss in auxiliary.items()}
        self.optimisers.clear()
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        metrics: Metrics = {name: loss.detach() for name, loss in losses.items()}
        metrics["policy/entropy"] = -metrics.pop("loss/entropy")
        return metrics | {"value/mean": (weight * value.detach()).sum()}

    @torch.no_grad()
    def _targets(self, rollout: Rollout, value: Tensor) -> tuple[Tensor, Tensor]:
        """(advantages, returns) `[T, B]`, from values `[T, B]` of the observations that were acted on."""
        config = self.config
        reward = rollout.reward.clamp(-1, 1) if config.clip_rewards else rollout.reward
        discount, trace = config.discount * rollout.discount, config.gae_lambda * rollout.going_on()
        advantage = gae(reward, discount, value, rollout.following(value), trace)
        returns = advantage + value
        return (normalise(advantage, rollout.valid) if config.normalise_advantages else advantage), returns


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Agent:
    """Raises UserError for settings that make no sense, SpecError for rollouts too short for the encoder's losses."""
    check_settings(
        "a2c",
        config,
        positive=("learning_rate", "optimizer_epsilon", "rollout_steps", "max_gradient_norm"),
        not_negative=("learning_rate_decay_steps", "value_weight", "entropy_weight"),
        share=("discount", "gae_lambda", "rmsprop_decay"),
    )
    if config.optimizer not in ("rmsprop", "adam"):
        raise UserError(f"a2c: optimizer must be rmsprop or adam, not {config.optimizer!r}")
    check_window("a2c", config.rollout_steps, encoder)
    return A2C(config, spec, encoder, compute, seed)
