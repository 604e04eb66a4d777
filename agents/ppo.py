"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): several passes over a rollout in minibatches,
with a surrogate loss that stops paying where the policy has moved too far from the one that acted.

Of the details that published code has and the paper lacks: orthogonal first weights, advantages normalised in each
minibatch, Adam's constant 1e-5, a falling rate; clipped values and a stop by KL divergence are switches.

Deviations: heads and encoder are clipped apart. The action of a rollout's first step was chosen before the update that
precedes it; the ratio is to the policy that chose it, so the loss is right there too. With memory a minibatch holds
whole environments, which begin at the state they had when they were played.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..encoders.base import Encoder
from ..envs.spec import EnvSpec
from .base import Agent, Metrics
from .parts.actor_critic import ActorCriticAgent, PolicySettings
from .parts.compute import Compute
from .parts.distributions import Categorical, Gaussian
from .parts.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy_loss,
    explained_variance,
    normalise,
    policy_change,
    value_loss,
)
from .parts.returns import gae
from .parts.rollout_agent import check_window
from .parts.rollouts import Rollout, minibatches
from .parts.settings import check_settings

kind = "proximal policy optimisation: clipped surrogate, generalised advantages, minibatches, with any memory"


@dataclass(frozen=True)
class Config(PolicySettings):
    learning_rate: float = 2.5e-4  # Adam
    adam_epsilon: float = 1e-5  # Adam's denominator floor
    discount: float = 0.99  # per step
    rollout_steps: int = 128  # of every environment, per update
    epochs: int = 4  # passes over a rollout
    minibatches: int = 4  # in a pass, a gradient step each; with memory at most one per environment
    clip: float = 0.2  # how far the ratio of new to old probability may move from 1 and still pay
    value_clip: float | None = None  # how far a value may move in an update and still be learned; None = any distance
    target_kl: float | None = None  # an update ends before a step at which the policy has moved so far; None = never
    gae_lambda: float = 0.95  # 1 = advantages to the end of the rollout; less: more bias, less variance
    normalise_advantages: bool = True  # mean 0 and deviation 1 in each minibatch
    value_weight: float = 1.0  # of half the squared error, beside the policy's loss
    scale_values: bool = False  # values and advantages in units of the returns' size (Pop-Art without shift)
    entropy_weight: float = 0.01  # of the policy's entropy in nats
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped


class PPO(ActorCriticAgent):
    """Learns from each rollout several times."""

    config: Config

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        super().__init__(config, spec, encoder, compute, seed)
        self.optimisers = self.make_optimisers(config.adam_epsilon)

    def remember(self, policy: Categorical | Gaussian, choice: Tensor, features: Tensor) -> dict[str, np.ndarray]:
        kept = torch.stack([policy.log_prob(choice)[0], self.acting.values(features)[0]]).cpu().numpy()
        return {"log_prob": kept[0], "value": kept[1]}

    def update(self) -> Metrics:
        rollout = self.finished()
        if rollout is None:
            return {}
        config = self.config
        if config.learning_rate_decay_steps:
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        rollout = self._targets(rollout)
        returns, valid = rollout.extras["return"], rollout.valid
        if config.scale_values:
            self.network.value.rescale(returns[valid])
        total: dict[str, Tensor] = {}
        steps = 0
        for part in self._parts(rollout):
            metrics, has_moved_too_far = self._learn(part)
            if has_moved_too_far:
                break
            steps += 1
            for name, value in metrics.items():
                total[name] = total[name] + value if name in total else value
        metrics = {name: value / steps for name, value in total.items()}
        explained = explained_variance(rollout.extras["value"], returns, valid)
        return {**metrics, "value/explained_variance": explained, "policy/gradient_steps": float(steps)}

    def _parts(self, rollout: Rollout) -> Iterator[Rollout]:
        for _ in range(self.config.epochs):
            yield from minibatches(rollout, self.config.minibatches, self.network.encoder.window, self.random)

    @torch.no_grad()
    def _targets(self, rollout: Rollout) -> Rollout:
        """`rollout` with `advantage` and `return` `[T, B]` among its extras, from the values that acting saw."""
        config, value = self.config, rollout.extras["value"]
        reward = rollout.reward.clamp(-1, 1) if config.clip_rewards else rollout.reward
        discount, trace = config.discount * rollout.discount, config.gae_lambda * rollout.going_on()
        advantage = gae(reward, discount, value, rollout.following(value), trace)
        return rollout._replace(extras=rollout.extras | {"advantage": advantage, "return": advantage + value})

    def _learn(self, part: Rollout) -> tuple[dict[str, Tensor], bool]:
        """One gradient step. Returns metrics, and whether it was left out because the policy has moved too far."""
        config = self.config
        features, auxiliary = self.encode(part)
        losses, change = self._losses(part, features)
        if config.target_kl is not None and float(change["policy/kl"]) > config.target_kl:
            return {}, True
        weights = {"loss/value": config.value_weight, "loss/entropy": config.entropy_weight}
        losses |= {f"loss/{name}": loss.float() for name, loss in auxiliary.items()}
        self.optimisers.clear()
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        norm = self.optimisers.apply()
        self.network.encoder.after_update()
        metrics = {name: loss.detach() for name, loss in losses.items()}
        metrics["policy/entropy"] = -metrics.pop("loss/entropy")
        return metrics | change | {"gradient_norm": torch.as_tensor(norm)}, False

    def _losses(self, part: Rollout, features: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the agent's own losses, not yet weighed; how far the policy has moved)."""
        config, network, extras, weight = self.config, self.network, part.extras, part.weight
        policy, scale = network.policy(features), network.value.scale
        log_prob, advantage = policy.log_prob(part.choice), extras["advantage"]
        advantage = normalise(advantage, part.valid) if config.normalise_advantages else advantage / scale
        value, old_value, returns = (x / scale for x in (network.values(features), extras["value"], extras["return"]))
        losses = {
            "loss/policy": clipped_policy_loss(log_prob, extras["log_prob"], advantage, config.clip, weight),
            "loss/value": value_loss(value, returns, weight)
            if config.value_clip is None
            else clipped_value_loss(value, old_value, returns, config.value_clip, weight),
            "loss/entropy": entropy_loss(policy.entropy(), weight),
        }
        kl, clipped = policy_change(log_prob, extras["log_prob"], config.clip, weight)
        return losses, {"policy/kl": kl, "policy/clipped": clipped}


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Agent:
    """Raises UserError for settings that make no sense, SpecError for rollouts too short for the encoder's losses."""
    check_settings(
        "ppo",
        config,
        positive=(
            "learning_rate",
            "adam_epsilon",
            "rollout_steps",
            "epochs",
            "minibatches",
            "clip",
            "value_clip",
            "target_kl",
            "max_gradient_norm",
        ),
        not_negative=("learning_rate_decay_steps", "value_weight", "entropy_weight"),
        share=("discount", "gae_lambda"),
    )
    check_window("ppo", config.rollout_steps, encoder)
    return PPO(config, spec, encoder, compute, seed)
