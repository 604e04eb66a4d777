"""REINFORCE (Williams 1992): whole episodes, Monte-Carlo returns, and a baseline that may be learned.

Deviations: an update takes the mean over steps, not the sum over an episode, and does not weigh step t by discount^t;
steps of an episode that was in progress during an update were chosen by slightly older parameters and are used all the
same. An episode that was cut off is bootstrapped with the baseline's value of its true last observation; without a
baseline its return simply ends there. Gradients cross a whole episode, or `chunk_size` steps of one that is longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Inputs, State
from ..envs.base import Step
from ..envs.errors import UserError
from ..envs.spec import EnvSpec
from .base import Action, Agent, Metrics
from .parts.compute import Compute
from .parts.distributions import Categorical, Gaussian, make_head
from .parts.episodes import EpisodeStore, Sequences, encode_padded, group_by_length, pad
from .parts.networks import acting_copy
from .parts.optimisers import Optimisers
from .parts.policy_losses import entropy_loss, normalise, policy_gradient_loss, value_loss
from .parts.returns import lambda_returns
from .parts.scaled_value import ScaledValue
from .parts.schedules import Linear
from .parts.settings import check_settings

kind = "REINFORCE: Monte-Carlo policy gradient, with a learned baseline, return normalisation and entropy as options"


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-3  # Adam
    learning_rate_decay_steps: int = 0  # environment steps in which the rate falls linearly to 0; 0 = constant
    discount: float = 0.99  # per step
    episodes_per_update: int = 8  # an update waits for so many finished episodes, and takes all there are
    baseline: Literal["none", "value"] = "value"  # value: learned by a head on the same encoder
    value_weight: float = 0.1  # of the baseline's loss, in units of the returns' size, beside the policy's
    normalise_returns: bool = True  # less their baseline: mean 0 and deviation 1 over the steps of an update
    entropy_weight: float = 0.0  # of the policy's entropy in nats
    max_gradient_norm: float | None = None  # of heads and encoder apart; None = no clipping
    log_std: float = 0.0  # Gaussian: first log standard deviation, in half-widths of the action box
    state_dependent_std: bool = False  # Gaussian: the deviation also depends on the observation
    chunk_size: int = 8192  # observations whose activations are in memory at once


class PolicyNetwork(nn.Module):
    """An encoder under a policy head and, for the baseline, a value head."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, generator: torch.Generator):
        super().__init__()
        size = int(np.prod(encoder.feature_shape))
        self.encoder = encoder
        self.head = make_head(size, spec.action, generator, config.log_std, config.state_dependent_std)
        self.value = ScaledValue(size, generator) if config.baseline == "value" else None

    def policy(self, features: Tensor) -> Categorical | Gaussian:
        """Features `[T, B, ...]` to distributions `[T, B]`."""
        return self.head(features.flatten(2).float())

    def values(self, features: Tensor) -> Tensor:
        """Features `[T, B, ...]` to the baseline's values `[T, B]`."""
        assert self.value is not None
        return self.value(features.flatten(2).float())


class Reinforce(Agent):
    """Samples actions from the policy to explore, and takes its mode to act greedily."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        self.config, self.spec, self.compute, self.device = config, spec, compute, compute.device
        self.network: PolicyNetwork = PolicyNetwork(config, spec, encoder, torch.Generator().manual_seed(seed))
        compute.place(self.network)
        self.acting = cast(PolicyNetwork, acting_copy(self.network))
        heads = [self.network.head, self.network.value]
        self.optimisers = Optimisers(
            [parameter for head in heads if head is not None for parameter in head.parameters()],
            encoder,
            learning_rate=config.learning_rate,
            max_gradient_norm=config.max_gradient_norm,
            compute=compute,
        )
        self.decay = Linear(1.0, 0.0, config.learning_rate_decay_steps)
        self.random = torch.Generator(compute.device).manual_seed(seed)
        self.store = EpisodeStore(spec.num_envs)
        self.steps = 0  # transitions observed

    @torch.no_grad()
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
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        encoder, episodes = self.network.encoder, self.store.take()
        steps = sum(episode.length for episode in episodes)
        groups = [pad(group, self.device, encoder.window) for group in group_by_length(episodes, config.chunk_size)]
        targets = [self._targets(sequences) for sequences in groups]
        advantages = [advantage for _, advantage in targets]
        if config.normalise_returns:
            advantages = _normalise_together(advantages, [sequences.real for sequences in groups])
        if self.network.value is not None:
            self.network.value.rescale(torch.cat([r[s.real] for s, (r, _) in zip(groups, targets, strict=True)]))
        self.optimisers.clear()
        metrics: Metrics = {}
        for sequences, (returns, _), advantage in zip(groups, targets, advantages, strict=True):
            for name, value in self._accumulate(sequences, returns, advantage, steps).items():
                metrics[name] = metrics[name] + value if name in metrics else value
        metrics["gradient_norm"] = self.optimisers.apply()
        encoder.after_update()
        first = torch.cat([returns[0] for returns, _ in targets])
        return {**metrics, "return/mean": first.mean()}

    @torch.no_grad()
    def _targets(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """(returns, returns less their baseline), each `[T, N]`; before any gradient, to be normalised together."""
        discount = sequences.discount * self.config.discount
        value = torch.zeros(sequences.mask.shape, device=self.device)
        if self.config.baseline == "value":
            value = self._values(sequences)
        returns = lambda_returns(sequences.reward, discount, value[1:], (~sequences.last).float())
        return returns, returns - value[:-1]

    def _values(self, sequences: Sequences) -> Tensor:
        """Values `[T + 1, N]` of the observations, as they are seen to act: not augmented, in eval mode."""
        length, count = sequences.mask.shape
        values, state = [], self.acting.encoder.initial_state(count)
        for start, stop in _segments(length, self.config.chunk_size // count):
            with self.compute.autocast():
                inputs, reset = sequences.inputs(start, stop), sequences.reset(start, stop)
                features, state = encode_padded(self.acting.encoder, inputs, state, reset)
            values.append(self.acting.values(features))
        return torch.cat(values)

    def _accumulate(self, sequences: Sequences, returns: Tensor, advantage: Tensor, steps: int) -> dict[str, Tensor]:
        """Gradients of one group of episodes, piece by piece. `steps`: real transitions in the whole update."""
        encoder, count = self.network.encoder, advantage.shape[1]
        weight = sequences.real / steps
        state = encoder.initial_state(count)
        metrics: dict[str, Tensor] = {}
        for start, stop in _segments(len(weight), self.config.chunk_size // count, encoder.window):
            part = slice(start, stop)
            obs = encoder.augment(sequences.obs[start : stop + 1])
            inputs = sequences.inputs(start, stop)._replace(obs=obs[:-1])
            with self.compute.autocast():
                features, state = encode_padded(encoder, inputs, state, sequences.reset(start, stop))
                auxiliary = encoder.auxiliary_losses(sequences.trajectory(start, stop, obs), features)
            state = tuple(leaf.detach() for leaf in state)
            losses = self._losses(features, sequences.choice[part], returns[part], advantage[part], weight[part])
            for name, loss in auxiliary.items():  # a mean over the piece counts by the piece's share of real steps
                losses[f"loss/{name}"] = loss.float() * weight[part].sum()
            weights = {"loss/value": self.config.value_weight, "loss/entropy": self.config.entropy_weight}
            torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
            for name, loss in losses.items():
                metrics[name] = metrics[name] + loss.detach() if name in metrics else loss.detach()
        metrics["policy/entropy"] = -metrics.pop("loss/entropy")
        return metrics

    def _losses(
        self, features: Tensor, choice: Tensor, returns: Tensor, advantage: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        """The agent's own losses, not yet weighed; every tensor begins with `[T, N]`."""
        policy = self.network.policy(features)
        losses = {
            "loss/policy": policy_gradient_loss(policy.log_prob(choice), advantage, weight),
            "loss/entropy": entropy_loss(policy.entropy(), weight),
        }
        if self.network.value is not None:
            scale = self.network.value.scale  # the loss is in units of the returns' size
            losses["loss/value"] = value_loss(self.network.values(features) / scale, returns / scale, weight)
        return losses

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


def _normalise_together(values: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    flat = normalise(torch.cat([v.flatten() for v in values]), torch.cat([m.flatten() for m in masks]))
    return [piece.view_as(v) for piece, v in zip(flat.split([v.numel() for v in values]), values, strict=True)]


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Reinforce:
    """Raises UserError for settings that make no sense."""
    check_settings(
        "reinforce",
        config,
        positive=("learning_rate", "episodes_per_update", "max_gradient_norm", "chunk_size"),
        not_negative=("learning_rate_decay_steps", "value_weight", "entropy_weight"),
        share=("discount",),
    )
    if config.baseline not in ("none", "value"):
        raise UserError(f"reinforce: baseline must be none or value, not {config.baseline!r}")
    return Reinforce(config, spec, encoder, compute, seed)
