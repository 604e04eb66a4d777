"""What actor-critics share: one encoder under a policy head and a value head, and how they choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.base import Encoder
from ...envs.spec import EnvSpec
from .compute import Compute
from .distributions import Categorical, Gaussian, make_head
from .optimisers import Optimisers
from .rollout_agent import RolloutAgent, RolloutSettings, ValueNetwork
from .scaled_value import ScaledValue


@dataclass(frozen=True)
class PolicySettings(RolloutSettings):
    """And of the policy."""

    log_std: float = 0.0  # Gaussian: first log standard deviation, in half-widths of the action box
    state_dependent_std: bool = False  # Gaussian: the deviation also depends on the observation


class ActorCritic(ValueNetwork):
    """An encoder under a policy head, nearly uniform at first, and a value head."""

    def __init__(self, config: PolicySettings, spec: EnvSpec, encoder: Encoder, generator: torch.Generator):
        """`generator` draws the heads' parameters."""
        super().__init__()
        size = int(np.prod(encoder.feature_shape))
        self.encoder = encoder
        self.head = make_head(size, spec.action, generator, config.log_std, config.state_dependent_std)
        self.value = ScaledValue(size, generator)  # its scale stays 1 unless it is told of returns

    def policy(self, features: Tensor) -> Categorical | Gaussian:
        """Features `[T, B, ...]` to distributions `[T, B]`."""
        return self.head(features.flatten(2).float())

    def values(self, features: Tensor) -> Tensor:
        return self.value(features.flatten(2).float())


class ActorCriticAgent(RolloutAgent):
    """Samples actions from the policy to explore, takes its mode to act greedily, and gathers rollouts.

    A subclass makes its `optimisers`, says in `update` what it learns, and in `remember` what it wants kept of each
    choice.
    """

    config: PolicySettings
    network: ActorCritic
    acting: ActorCritic

    def __init__(self, config: PolicySettings, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        network = ActorCritic(config, spec, encoder, torch.Generator().manual_seed(seed))
        super().__init__(config, spec, network, compute, seed)

    def make_optimisers(
        self, epsilon: float, rmsprop_decay: float | None = None, more_heads: Sequence[Iterable[nn.Parameter]] = ()
    ) -> Optimisers:
        """Of the heads, the encoder and `more_heads`: see `Optimisers`."""
        return Optimisers(
            [*self.network.head.parameters(), *self.network.value.parameters()],
            self.network.encoder,
            learning_rate=self.config.learning_rate,
            epsilon=epsilon,
            max_gradient_norm=self.config.max_gradient_norm,
            compute=self.compute,
            rmsprop_decay=rmsprop_decay,
            more_heads=more_heads,
        )

    def remember(self, policy: Categorical | Gaussian, choice: Tensor, features: Tensor) -> dict[str, np.ndarray]:
        """A hook: what is kept of each choice, `[B, ...]` arrays; all tensors begin with `[1, B]`."""
        return {}

    def choose(self, features: Tensor, *, explore: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        policy = self.acting.policy(features)
        if not explore:
            return self._to_action(policy.mode()), {}
        choice = policy.sample(self.random)
        extras = self.remember(policy, choice, features)
        if not self.spec.action.is_discrete:
            extras["choice"] = choice[0].cpu().numpy()
        return self._to_action(choice), extras

    def _to_action(self, choice: Tensor) -> np.ndarray:
        return self.acting.head.to_action(choice[0]).cpu().numpy()
