"""What actor-critics share: one encoder under a policy head and a value head, and how they act and gather rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.base import Encoder, Inputs, State
from ...envs.base import Step
from ...envs.errors import SpecError
from ...envs.spec import EnvSpec
from ..base import Action, Agent
from .compute import Compute
from .distributions import Categorical, Gaussian, make_head
from .episodes import encode_padded
from .networks import acting_copy
from .optimisers import Optimisers
from .rollouts import Rollout, RolloutStore
from .scaled_value import ScaledValue
from .schedules import Linear


@dataclass(frozen=True)
class RolloutSettings:
    """Of heads, optimiser and rollouts; an agent's `Config` adds what it learns, and the defaults that are missing."""

    learning_rate: float
    rollout_steps: int  # of every environment, per update
    learning_rate_decay_steps: int = 0  # environment steps in which the rate falls linearly to 0; 0 = constant
    max_gradient_norm: float | None = 0.5  # of heads and encoder apart; None = no clipping
    log_std: float = 0.0  # Gaussian: first log standard deviation, in half-widths of the action box
    state_dependent_std: bool = False  # Gaussian: the deviation also depends on the observation


class ActorCritic(nn.Module):
    """An encoder under a policy head, nearly uniform at first, and a value head."""

    def __init__(self, config: RolloutSettings, spec: EnvSpec, encoder: Encoder, generator: torch.Generator):
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
        """Features `[T, B, ...]` to values `[T, B]`, float32."""
        return self.value(features.flatten(2).float())


class _Acted(NamedTuple):
    """What `act` leaves for `observe` and `update`, which follow it at once; nothing of it outlives a step."""

    before: State
    after: State
    features: Tensor  # [1, B, ...]


class RolloutAgent(Agent):
    """Samples actions from the policy to explore, takes its mode to act greedily, and gathers rollouts.

    A subclass makes its `optimisers`, says in `update` what it learns of a rollout that `finished` gives it, and in
    `remember` what it wants kept of each choice. While the emulators run on the first action of a rollout, the update
    of the one before takes place; that action was chosen by the parameters before it.
    """

    config: RolloutSettings
    network: ActorCritic
    optimisers: Optimisers

    def __init__(self, config: RolloutSettings, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        self.config, self.spec, self.compute, self.device = config, spec, compute, compute.device
        self.network = ActorCritic(config, spec, encoder, torch.Generator().manual_seed(seed))
        compute.place(self.network)
        self.acting = cast(ActorCritic, acting_copy(self.network))
        self.decay = Linear(1.0, 0.0, config.learning_rate_decay_steps)
        self.random = torch.Generator(compute.device).manual_seed(seed)
        self.store = RolloutStore(config.rollout_steps, spec, compute.device)
        self.steps = 0  # transitions observed
        self._acted: _Acted | None = None
        self._after: State | None = None  # the encoder's, after the last observation that was acted on

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

    @torch.no_grad()
    def initial_state(self, batch_size: int) -> State:
        return self.acting.encoder.initial_state(batch_size)

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        with self.compute.autocast():
            features, after = self.acting.encoder(inputs, state, reset)
        policy = self.acting.policy(features)
        if not explore:
            return Action(self._to_action(policy.mode()), after, {})
        choice = policy.sample(self.random)
        self._acted = _Acted(state, after, features)
        extras = self.remember(policy, choice, features)
        if not self.spec.action.is_discrete:
            extras["choice"] = choice[0].cpu().numpy()
        return Action(self._to_action(choice), after, extras)

    def _to_action(self, choice: Tensor) -> np.ndarray:
        return self.acting.head.to_action(choice[0]).cpu().numpy()

    def observe(self, step: Step) -> None:
        acted, self._acted = self._acted, None
        if acted is not None:
            self._after = acted.after
        if self.store.count == 0:
            self.store.begin(self.initial_state(self.spec.num_envs) if acted is None else acted.before)
        cut = step.truncated & step.valid
        self.store.append(step, self._cut_values(step, cut) if cut.any() else None)
        self.steps += int(np.count_nonzero(step.valid))

    @torch.no_grad()
    def _cut_values(self, step: Step, cut: np.ndarray) -> np.ndarray:
        """float32 `[B]`: the values of the last observations of episodes that were cut off."""
        rows = np.flatnonzero(cut)
        obs, action, reward = (torch.from_numpy(x[rows]) for x in (step.next_obs, step.action, step.reward))
        index = torch.from_numpy(rows).to(self.device)
        state = tuple(leaf[index] for leaf in self._state_after())
        found = np.zeros(len(cut), np.float32)
        found[rows] = self._value_of(obs, action, reward, state).cpu().numpy()
        return found

    def _value_of(self, obs: Tensor, action: Tensor, reward: Tensor, state: State) -> Tensor:
        """Values `[N]` of observations `[N, ...]` in the middle of their episodes, as acting would see them."""
        fields = [x.to(self.device).unsqueeze(0) for x in (obs, action, reward)]
        inputs = Inputs(*fields) if state else Inputs(fields[0])
        with self.compute.autocast():
            features, _ = self.acting.encoder(inputs, state, None)
        return self.acting.values(features)[0]

    def _state_after(self) -> State:
        if self._after is not None:
            return self._after
        if self.acting.encoder.initial_state(1):
            raise RuntimeError("an agent with memory must act before it observes")
        return ()

    @torch.no_grad()
    def finished(self) -> Rollout | None:
        """The rollout, once it is full; it leaves the store."""
        if not self.store.is_full:
            return None
        rollout = self.store.take()
        if self._acted is not None:  # these observations have just been acted on, or are the first of new episodes
            value = self.acting.values(self._acted.features)[0]
        else:
            last = rollout.obs[-1], rollout.last_action[-1], rollout.last_reward[-1]
            value = self._value_of(*last, self._state_after())
        return rollout._replace(next_value=value)

    def encode(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """(features `[T, B, ...]` with gradient, the encoder's own losses by name) of augmented observations."""
        encoder, length = self.network.encoder, len(rollout.ended)
        obs = encoder.augment(rollout.obs if encoder.window else rollout.obs[:length])
        with self.compute.autocast():
            inputs = rollout.inputs(obs[:length])
            features, _ = encode_padded(encoder, inputs, rollout.state, rollout.reset[:length])
            losses = encoder.auxiliary_losses(rollout.trajectory(obs), features) if encoder.window else {}
        return features, losses

    def interrupt(self) -> None:
        """The rollout in progress is forgotten: what its steps led to is not known."""
        self.store.drop()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "random": self.random.get_state(),
            "store": self.store.state_dict(),
            "steps": self.steps,
            "optimisers": self.optimisers.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.random.set_state(saved["random"])
        self.store.load_state_dict(saved["store"])
        self.steps = int(saved["steps"])
        self.optimisers.load_state_dict(saved["optimisers"])
        self._acted = self._after = None


def check_window(agent: str, steps: int, encoder: Encoder) -> None:
    """Raises SpecError where the encoder's own losses ask for longer sequences than a rollout has."""
    if encoder.window > steps:
        raise SpecError(
            f"{agent}: the encoder's own losses ask for {encoder.window} steps in a row; "
            f"give --rollout-steps {encoder.window} or more"
        )
