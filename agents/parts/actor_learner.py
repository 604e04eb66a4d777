"""An actor-learner: acts and computes gradients by itself, on parameters that it shares with others of its kind."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...encoders.base import Encoder, Inputs, State
from ...envs.base import Step
from ...envs.errors import UserError
from ..base import Action, Agent, Metrics
from .optimisers import Optimisers
from .rollouts import Rollout
from .shared_rmsprop import Flat, Rules, Seat, SharedParameters


@runtime_checkable
class Gradients(Protocol):
    """What an agent must offer to learn with others: gradients apart from their application."""

    config: Any  # with rmsprop_decay, optimizer_epsilon and learning_rate_decay_steps
    device: str
    optimisers: Optimisers  # RMSProp, and SGD where the encoder asks for it
    steps: int

    @property
    def network(self) -> nn.Module: ...
    def initial_state(self, batch_size: int) -> State: ...
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action: ...
    def observe(self, step: Step) -> None: ...
    def finished(self) -> Rollout | None: ...
    def accumulate(self, rollout: Rollout) -> Metrics: ...
    def interrupt(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


class ActorLearner(Agent):
    """Computes gradients as `learner` does, on a copy of the parameters that it takes before every rollout, and applies
    them to the shared ones. Alone, as it is built, it shares with nobody; `sit` puts it among others.

    Parameters are shared, and what RMSProp remembers of gradients. Buffers (batch statistics, momentum copies) are each
    actor-learner's own.
    """

    def __init__(self, learner: Gradients):
        config = learner.config
        rules = config.rmsprop_decay, config.optimizer_epsilon, config.learning_rate_decay_steps
        self.learner, self.network, self.device = learner, learner.network, learner.device
        self.flat = Flat(learner.optimisers.groups())
        self.shared = SharedParameters(self.flat.values, Rules(self.flat.pieces, *rules))
        self.seat: Seat = self.shared.seat(0)
        self.total_steps = 0  # of all workers, at the last update
        self.is_done = False  # the run of all workers is over
        self._brought = 0  # own steps at the last update
        self._adjusts: bool | None = (
            None  # whether the encoder's own rule changes parameters; the first update shows it
        )

    def sit(self, seat: Seat) -> None:
        """Work on the parameters behind `seat` from now on."""
        self.seat = seat
        seat.take(self.flat.values)
        self.flat.changed()

    def initial_state(self, batch_size: int) -> State:
        return self.learner.initial_state(batch_size)

    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        return self.learner.act(inputs, state, reset, explore=explore)

    def observe(self, step: Step) -> None:
        self.learner.observe(step)

    def interrupt(self) -> None:
        self.learner.interrupt()

    def update(self) -> Metrics:
        rollout = self.learner.finished()
        if rollout is None:
            return {}
        metrics = self.learner.accumulate(rollout)
        norm = self.learner.optimisers.clip()
        if not math.isfinite(norm):  # it would spoil the others' parameters, too
            raise UserError(
                f"a gradient is not finite after {self.total_steps:,} steps; a lower --learning-rate or "
                "--max-gradient-norm may help"
            )
        metrics["gradient_norm"] = norm
        steps, self._brought = self.learner.steps - self._brought, self.learner.steps
        receipt = self.seat.bring(self.flat.gather(), steps, self.flat.values)
        self.flat.changed()
        self.total_steps, self.is_done = receipt.steps, receipt.is_last
        self._follow_the_encoder()
        return metrics | {"lag": float(receipt.lag)}

    def _follow_the_encoder(self) -> None:
        """Its rule after an update, such as unit-norm dictionaries, changes this copy; the others are told."""
        encoder = self.network.encoder
        assert isinstance(encoder, Encoder)
        before = self.flat.values.clone() if self._adjusts in (None, True) else None
        encoder.after_update()
        if before is None:
            return
        change = self.flat.values - before
        self._adjusts = self._adjusts or bool(change.any())
        if self._adjusts:
            self.seat.shift(change)

    def own(self) -> dict[str, Tensor]:
        """What is not shared: buffers and frozen parameters, by name."""
        shared = {id(parameter) for parameter in self.flat.parameters}
        found = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        return {name: tensor for name, tensor in found.items() if id(tensor) not in shared}

    @torch.no_grad()
    def set_own(self, values: dict[str, Tensor]) -> None:
        """Take what another's `own` gave."""
        for name, tensor in self.own().items():
            tensor.copy_(values[name])

    def pull(self, steps: int) -> None:
        """Take the shared parameters and statistics, to save them or to act by them; `steps` of all workers so far."""
        self.flat.values.copy_(self.shared.values)
        self.flat.changed()
        self.learner.steps = self._brought = self.total_steps = steps

    def state_dict(self) -> dict[str, Any]:
        optimisers = self.learner.optimisers
        for kept, shared in zip(optimisers.squares(), self.flat.views(self.shared.squares), strict=True):
            kept.copy_(shared)
        return self.learner.state_dict() | {"brought": self._brought}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.learner.load_state_dict(saved)
        self.shared.values.copy_(self.flat.values)
        for kept, shared in zip(self.learner.optimisers.squares(), self.flat.views(self.shared.squares), strict=True):
            shared.copy_(kept)
        self._brought = int(saved.get("brought", saved["steps"]))  # an agent that learned alone brought all it had
        self.total_steps = self.shared.base = self._brought
        self.shared.tally.zero_()


def among_others(agent: Agent, name: str) -> ActorLearner:
    """`agent`, called `name`, as one that can learn with others.

    Raises:
        UserError: it cannot.
    """
    if isinstance(agent, ActorLearner):
        return agent
    if not isinstance(agent, Gradients):
        raise UserError(f"{name} learns in one process: --workers is for a3c, a2c and unreal")
    for setting, needed in (("optimizer", "rmsprop"), ("scale_values", False)):
        if getattr(agent.config, setting, needed) != needed:
            option = f"--{setting.replace('_', '-')}"
            raise UserError(f"{name} with --workers shares RMSProp's statistics: {option} must be {needed}")
    return ActorLearner(agent)
