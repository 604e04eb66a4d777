"""REINFORCE (Williams 1992): whole episodes, Monte-Carlo returns, and a baseline that may be learned.

Deviations: an update takes the mean over steps, not the sum over an episode, and does not weigh step t by discount^t; steps
of an episode that was in progress during an update were chosen by slightly older parameters and are used all the same.
An episode that was cut off is bootstrapped with the baseline's value of its true last observation; without a baseline its
return simply ends there. Gradients cross a whole episode, or `chunk_size` steps of one that is longer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Inputs, State
from ..envs.base import Step
from ..envs.errors import UserError
from ..envs.spec import EnvSpec
from .base import Action, Agent, Metrics
from .parts.compute import Compute
from .parts.distributions import Categorical, CategoricalHead, Gaussian, GaussianHead, small_linear
from .parts.episodes import EpisodeStore, Sequences, group_by_length, pad
from .parts.networks import acting_copy
from .parts.optimisers import Optimisers
from .parts.policy_losses import entropy_loss, normalise, policy_gradient_loss, value_loss
from .parts.returns import lambda_returns

kind = "REINFORCE: Monte-Carlo policy gradient, with a learned baseline, return normalisation and entropy as options"


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-3  # Adam
    learning_rate_decay_steps: int = 0  # environment steps in which the rate falls linearly to 0; 0 = constant
    discount: float = 0.99  # per step
    episodes_per_update: int = 8  # an update waits for so many finished episodes, and takes all there are
    baseline: Literal["none", "value", "separate"] = "value"  # value: a head on the encoder; separate: a copy of its own
    value_weight: float = 0.5  # of the baseline's loss beside the policy's
    return_lambda: float = 1.0  # 1 = Monte-Carlo returns; less leans on the baseline (lambda-returns)
    normalise_returns: bool = True  # returns less their baseline: mean 0 and deviation 1 over the update
    entropy_weight: float = 0.0  # of the policy's entropy in nats
    max_gradient_norm: float | None = None  # of heads and encoder apart; None = no clipping
    reward_scale: float = 1.0  # rewards are multiplied by this to learn from; scores never
    log_std: float = -0.5  # Gaussian: first log standard deviation, in half-widths of the action box
    state_dependent_std: bool = False  # Gaussian: the deviation also depends on the observation
    chunk_size: int = 8192  # observations whose activations are in memory at once


class PolicyNetwork(nn.Module):
    """Encoder, policy head, and what the baseline asks for."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, generator: torch.Generator):
        super().__init__()
        size = int(np.prod(encoder.feature_shape))
        self.encoder = encoder
        self.head: CategoricalHead | GaussianHead
        if spec.action.is_discrete:
            self.head = CategoricalHead(size, spec.action.count, generator)
        else:
            self.head = GaussianHead(size, spec.action, config.log_std, config.state_dependent_std, generator)
        self.value = None if config.baseline == "none" else small_linear(size, 1, 1.0, generator)
        self.critic = copy.deepcopy(encoder) if config.baseline == "separate" else None

    def policy(self, features: Tensor) -> Categorical | Gaussian:
        return self.head(features.float().flatten(2))

    def values(self, features: Tensor) -> Tensor:
        """Features `[T, B, ...]` to values `[T, B]`."""
        assert self.value is not None
        return self.value(features.float().flatten(2)).squeeze(-1)


class Reinforce(Agent):
    """Samples actions from the policy to explore, and takes its mode to act greedily."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        self.config, self.spec, self.compute = config, spec, compute
        self.network = PolicyNetwork(config, spec, encoder, torch.Generator().manual_seed(seed))
        compute.place(self.network)
        self.acting = acting_copy(self.network)
        network = self.network
        self.optimisers = self._optimiser([network.head, None if network.critic else network.value], encoder)
        self.critic_optimisers = self._optimiser([network.value], network.critic) if network.critic else None
        self.random = torch.Generator(compute.device).manual_seed(seed)
        self.store = EpisodeStore(spec.num_envs)
        self.steps = 0  # transitions observed

    def _optimiser(self, heads: list[nn.Module | None], encoder: Encoder) -> Optimisers:
        return Optimisers(
            [parameter for head in heads if head is not None for parameter in head.parameters()],
            encoder,
            learning_rate=self.config.learning_rate,
            max_gradient_norm=self.config.max_gradient_norm,
            compute=self.compute,
        )

    def initial_state(self, batch_size: int) -> State:
        return self.acting.encoder.initial_state(batch_size)

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        with self.compute.autocast():
            features, state = self.acting.encoder(inputs, state, reset)
        policy = self.acting.policy(features)
        choice = (policy.sample(self.random) if explore else policy.mode())[0]
        action = self.acting.head.to_action(choice).cpu().numpy()
        return Action(action, state, {} if self.spec.action.is_discrete else {"choice": choice.cpu().numpy()})

    def observe(self, step: Step) -> None:
        self.store.append(step)
        self.steps += int(step.valid.sum())

    def update(self) -> Metrics:
        config = self.config
        if self.store.finished < config.episodes_per_update:
            return {}
        if config.learning_rate_decay_steps:
            self._scale_learning_rate(max(0.0, 1 - self.steps / config.learning_rate_decay_steps))
        episodes = self.store.take()
        groups = [pad(group, self.compute.device) for group in group_by_length(episodes, config.chunk_size)]
        targets = [self._targets(sequences) for sequences in groups]
        steps = sum(episode.length for episode in episodes)
        advantages = [advantage for _, advantage in targets]
        if config.normalise_returns:
            advantages = _normalise_together(advantages, [sequences.real for sequences in groups])
        self._clear()
        metrics: dict[str, Tensor] = {}
        for sequences, (returns, _), advantage in zip(groups, targets, advantages, strict=True):
            for name, value in self._accumulate(sequences, returns, advantage, steps).items():
                metrics[name] = metrics.get(name, torch.zeros(())) + value
        metrics["return/mean"] = torch.stack([returns[0].sum() for returns, _ in targets]).sum() / len(episodes)
        metrics["gradient_norm"] = self._apply()
        return dict(metrics)

    @torch.no_grad()
    def _targets(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """(returns, returns less their baseline), each `[T, N]`."""
        config = self.config
        reward, discount = sequences.reward * config.reward_scale, sequences.discount * config.discount
        decay = torch.where(sequences.last, 0.0, config.return_lambda)
        if config.baseline == "none":
            returns = lambda_returns(reward, discount, torch.zeros_like(reward), decay)
            return returns, returns
        encoder = self.acting.critic or self.acting.encoder
        pieces, state = [], encoder.initial_state(sequences.mask.shape[1])
        for start, stop in _segments(len(sequences.mask), self._segment_length(sequences)):
            with self.compute.autocast():
                features, state = encoder(sequences.inputs(start, stop), state, sequences.reset(start, stop))
            pieces.append(self.acting.values(features))
        value = torch.cat(pieces)
        returns = lambda_returns(reward, discount, value[1:], decay)
        return returns, returns - value[:-1]

    def _accumulate(self, sequences: Sequences, returns: Tensor, advantage: Tensor, steps: int) -> dict[str, Tensor]:
        """Gradients of one group of episodes, piece by piece. `steps`: real transitions in the whole update."""
        network = self.network
        weight = sequences.real / steps
        state = network.encoder.initial_state(weight.shape[1])
        critic_state = network.critic.initial_state(weight.shape[1]) if network.critic else ()
        metrics: dict[str, Tensor] = {}
        for start, stop in _segments(len(weight), self._segment_length(sequences), network.encoder.window):
            obs = network.encoder.augment(sequences.obs[start : stop + 1])
            inputs = sequences.inputs(start, stop)._replace(obs=obs[:-1])
            reset = sequences.reset(start, stop)
            with self.compute.autocast():
                features, state = network.encoder(inputs, state, reset)
                value_features = features
                if network.critic:
                    value_features, critic_state = network.critic(inputs, critic_state, reset)
                trajectory = sequences.trajectory(start, stop, obs)
                auxiliary = network.encoder.auxiliary_losses(trajectory, features)
            part = slice(start, stop)
            losses = self._losses(features, value_features, sequences.choice[part], weight[part], returns[part], advantage[part])
            share = weight[part].sum()
            losses |= {f"loss/{name}": loss * share for name, loss in auxiliary.items()}
            total = sum(self._weigh(name) * loss for name, loss in losses.items())
            total.backward()
            state, critic_state = _detached(state), _detached(critic_state)
            for name, loss in losses.items():
                metrics[name] = metrics.get(name, torch.zeros(())) + loss.detach()
        metrics["policy/entropy"] = -metrics.pop("loss/entropy")
        return metrics

    def _losses(self, features, value_features, choice, weight, returns, advantage) -> dict[str, Tensor]:
        policy = self.network.policy(features)
        losses = {
            "loss/policy": policy_gradient_loss(policy.log_prob(choice), advantage, weight),
            "loss/entropy": entropy_loss(policy.entropy(), weight),
        }
        if self.network.value is not None:
            losses["loss/value"] = value_loss(self.network.values(value_features), returns, weight)
        return losses

    def _weigh(self, name: str) -> float:
        return {"loss/entropy": self.config.entropy_weight, "loss/value": self.config.value_weight}.get(name, 1.0)

    def _segment_length(self, sequences: Sequences) -> int:
        return max(1, self.config.chunk_size // sequences.mask.shape[1])

    def _scale_learning_rate(self, factor: float) -> None:
        self.optimisers.scale_learning_rate(factor)
        if self.critic_optimisers:
            self.critic_optimisers.scale_learning_rate(factor)

    def _clear(self) -> None:
        self.optimisers.clear()
        if self.critic_optimisers:
            self.critic_optimisers.clear()

    def _apply(self) -> Tensor:
        norm = self.optimisers.apply()
        self.network.encoder.after_update()
        if self.critic_optimisers and self.network.critic:
            self.critic_optimisers.apply()
            self.network.critic.after_update()
        return norm

    def interrupt(self) -> None:
        """Episodes in progress are forgotten: what they would have earned is not known."""
        self.store.drop_open()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "random": self.random.get_state(),
            "store": self.store.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimisers.load_state_dict(saved["optimisers"])
        self.random.set_state(saved["random"])
        self.store.load_state_dict(saved["store"])
        self.steps = int(saved["steps"])


def _segments(length: int, longest: int, least: int = 1) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of `length` steps; a remainder shorter than `least` joins the piece before it."""
    bounds = list(range(0, length, max(longest, least)))
    if len(bounds) > 1 and length - bounds[-1] < least:
        bounds.pop()
    yield from zip(bounds, [*bounds[1:], length], strict=True)


def _detached(state: State) -> State:
    return tuple(leaf.detach() for leaf in state)


def _normalise_together(values: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    flat = normalise(torch.cat([v.flatten() for v in values]), torch.cat([m.flatten() for m in masks]))
    return [piece.view_as(v) for piece, v in zip(flat.split([v.numel() for v in values]), values, strict=True)]


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Reinforce:
    return Reinforce(config, spec, encoder, compute, seed)
