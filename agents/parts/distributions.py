"""Policy heads: features to a distribution over actions, categorical for `Discrete`, Gaussian for `Box`.

A distribution offers `sample` (to explore), `mode` (to act greedily), `log_prob` and `entropy`. What a Gaussian samples
is a *choice* without bounds; the head's `to_action` maps it to the box. The choice is what is learned from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...envs.spec import ActionSpec

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_LOG_STD_CENTRE, _LOG_STD_REACH = -1.5, 3.5  # log standard deviations stay within -5 and 2, smoothly


class Categorical(NamedTuple):
    """One of C actions."""

    logits: Tensor  # [..., C] float32

    def sample(self, generator: torch.Generator) -> Tensor:
        """int64 `[...]`, by the Gumbel-max trick."""
        noise = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - noise.log()).argmax(-1)

    def mode(self) -> Tensor:
        """int64 `[...]`: the likeliest action."""
        return self.logits.argmax(-1)

    def log_prob(self, choice: Tensor) -> Tensor:
        """float32 `[...]` for int64 `choice` `[...]`."""
        return self.logits.log_softmax(-1).gather(-1, choice.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Nats, `[...]`."""
        log_probabilities = self.logits.log_softmax(-1)
        return -(log_probabilities.exp() * log_probabilities).sum(-1)


class Gaussian(NamedTuple):
    """Independent normal numbers: D of them make one choice."""

    mean: Tensor  # [..., D]
    log_std: Tensor  # [..., D]

    def sample(self, generator: torch.Generator) -> Tensor:
        """float32 `[..., D]`."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """float32 `[..., D]`: the mean."""
        return self.mean

    def log_prob(self, choice: Tensor) -> Tensor:
        """Log density `[...]` of `choice` `[..., D]`."""
        z = (choice - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + _HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        """Nats, `[...]`, of the choice before it meets the bounds."""
        return (self.log_std + 0.5 + _HALF_LOG_TWO_PI).sum(-1)


class CategoricalHead(nn.Module):
    """Features `[..., D]` to a `Categorical` over `count` actions; nearly uniform at first."""

    def __init__(self, features: int, count: int, generator: torch.Generator):
        super().__init__()
        self.logits = small_linear(features, count, 0.01, generator)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.logits(features))

    def to_action(self, choice: Tensor) -> Tensor:
        """The choice is the action."""
        return choice


class GaussianHead(nn.Module):
    """Features `[..., D]` to a `Gaussian` over choices, where -1 and 1 are the box's bounds in each bounded dimension.

    The action is the choice scaled to the box and *clipped* there. Clipping counts as part of the world: the policy is
    the unclipped Gaussian, of which `log_prob` and its gradient are exact; the choice, not the action, is learned from.
    """

    def __init__(
        self, features: int, action: ActionSpec, log_std: float, state_dependent_std: bool, generator: torch.Generator
    ):
        """`log_std` is the first log standard deviation, in half-widths of the box."""
        super().__init__()
        low = torch.tensor(action.low, dtype=torch.float32).reshape(-1)
        high = torch.tensor(action.high, dtype=torch.float32).reshape(-1)
        bounded = low.isfinite() & high.isfinite()
        self.shape = action.shape
        self.low: Tensor
        self.register_buffer("low", low, persistent=False)
        self.high: Tensor
        self.register_buffer("high", high, persistent=False)
        self.centre: Tensor
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0), persistent=False)
        self.half_width: Tensor
        self.register_buffer("half_width", torch.where(bounded, (high - low) / 2, 1.0), persistent=False)
        self.mean = small_linear(features, len(low), 0.01, generator)
        self.state_dependent_std = state_dependent_std
        self.spread = small_linear(features, len(low), 0.01, generator) if state_dependent_std else None
        self.log_std = nn.Parameter(torch.full((len(low),), float(log_std)))

    def forward(self, features: Tensor) -> Gaussian:
        mean = self.mean(features)
        log_std = self.log_std.expand_as(mean) if self.spread is None else self.log_std + self.spread(features)
        bounded = torch.tanh((log_std - _LOG_STD_CENTRE) / _LOG_STD_REACH)
        return Gaussian(mean, _LOG_STD_CENTRE + _LOG_STD_REACH * bounded)

    def to_action(self, choice: Tensor) -> Tensor:
        """Choices `[..., D]` to actions `[..., *shape]` within the bounds."""
        action = torch.clamp(self.centre + self.half_width * choice, self.low, self.high)
        return action.reshape(*choice.shape[:-1], *self.shape)


def make_head(
    features: int, action: ActionSpec, generator: torch.Generator, log_std: float, state_dependent_std: bool
) -> CategoricalHead | GaussianHead:
    """The head for an action space; the last two arguments are for a box alone."""
    if action.is_discrete:
        return CategoricalHead(features, action.count, generator)
    return GaussianHead(features, action, log_std, state_dependent_std, generator)


def small_linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights times `gain` and no bias at first, drawn from `generator`."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
