"""What agents share that learn from rollouts: how they act, gather what came of it, and value what was cut off."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from .episodes import encode_padded
from .networks import acting_copy
from .optimisers import Optimisers
from .rollouts import Rollout, RolloutStore
from .schedules import Linear


@dataclass(frozen=True)
class RolloutSettings:
    """Of optimiser and rollouts; an agent's `Config` adds what it learns, and the defaults that are missing."""

    learning_rate: float
    rollout_steps: int  # of every environment, per update
    learning_rate_decay_steps: int = 0  # environment steps in which the rate falls linearly to 0; 0 = constant
    max_gradient_norm: float | None = 0.5  # of heads and encoder apart; None = no clipping


class ValueNetwork(nn.Module, ABC):
    """An encoder, and values of what it makes of observations."""

    encoder: Encoder

    @abstractmethod
    def values(self, features: Tensor) -> Tensor:
        """Features `[T, B, ...]` to values `[T, B]`, float32."""


class _Acted(NamedTuple):
    """What `act` leaves for `observe` and `update`, which follow it at once; nothing of it outlives a step."""

    before: State
    after: State
    features: Tensor  # [1, B, ...]


class RolloutAgent(Agent):
    """Gathers rollouts of what it does.

    A subclass makes its `network` and `optimisers`; it says in `choose` what it does, and in `update` what it learns of
    a rollout that `finished` gives it. While the emulators run on the first action of a rollout, the update of the one
    before takes place; that action was chosen by the parameters before it.
    """

    config: RolloutSettings
    network: ValueNetwork
    optimisers: Optimisers

    def __init__(self, config: RolloutSettings, spec: EnvSpec, network: ValueNetwork, compute: Compute, seed: int):
        """`network` is placed as `compute` says."""
        self.config, self.spec, self.compute, self.device = config, spec, compute, compute.device
        self.network = network
        compute.place(network)
        self.acting = cast(ValueNetwork, acting_copy(network))
        self.decay = Linear(1.0, 0.0, config.learning_rate_decay_steps)
        self.random = torch.Generator(compute.device).manual_seed(seed)
        self.store = RolloutStore(config.rollout_steps, spec, compute.device)
        self.steps = 0  # transitions observed
        self._acted: _Acted | None = None
        self._after: State | None = None  # the encoder's, after the last observation that was acted on

    @abstractmethod
    def choose(self, features: Tensor, *, explore: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Actions for features `[1, B, ...]`, greedy unless `explore`; and what is to be kept of them, `[B, ...]`."""

    @torch.no_grad()
    def initial_state(self, batch_size: int) -> State:
        return self.acting.encoder.initial_state(batch_size)

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        with self.compute.autocast():
            features, after = self.acting.encoder(inputs, state, reset)
        if explore:
            self._acted = _Acted(state, after, features)
        action, extras = self.choose(features, explore=explore)
        return Action(action, after, extras)

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
