"""Deep recurrent Q-network (Hausknecht and Stone 2015, arXiv:1507.06527) as R2D2 trains it (Kapturowski et al. 2019):
any encoder with memory, sequences from replay with the states that were stored and a burn-in, double and dueling
values, n-step returns, prioritised sequences, rescaled values.

Deviations: sequences run over the ends of episodes, where the memory is reset and nothing is bootstrapped, instead of
being padded; the learned part may begin with an episode, so that its first steps are learned from however long the
burn-in; a new sequence has the greatest priority there is, not one that an actor has computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..encoders.base import Encoder, Inputs, State
from ..envs.base import Step
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from .base import Action, Metrics
from .parts import q_losses
from .parts.compute import Compute
from .parts.q_agent import QAgent, QModule, QSettings, check_q_agent
from .parts.returns import n_step_returns
from .parts.schedules import Linear
from .parts.sequence_replay import SequenceBatch, SequenceReplay, Span

kind = "recurrent Q-network: sequences from replay with stored states and burn-in, for encoders with memory"


@dataclass(frozen=True)
class Config(QSettings):
    update_interval: int = 64  # environment steps between bursts of gradient steps
    discount: float = 0.99  # per step
    batch_size: int = 32  # sequences per gradient step
    sequence_length: int = 40  # steps of a sequence that are learned from; gradients reach no further back
    burn_in: int = 20  # steps before them that only bring the memory up
    sequence_interval: int = 0  # steps from one sequence to the next; 0 = half their length, 1 = they begin anywhere
    stored_state: Literal["stored", "zero"] = "stored"  # what the burn-in begins with: as when acting, or as an episode
    replay_capacity: int = 100_000  # transitions
    double: bool = True  # the online network chooses the action that the target network values
    n_step: int = 1  # rewards summed before bootstrapping
    rescale: bool = False  # learn h(value), a kind of root of it, so that rewards need no clipping
    prioritised: bool = False  # sample sequences by their TD errors
    priority_exponent: float = 0.9  # (R2D2: 0.9)
    priority_max_share: float = 0.9  # eta: of the greatest |TD error| in a sequence's priority, beside the mean
    importance_exponent: float = 0.6  # beta at the start; rises to 1 over `importance_steps`
    importance_steps: int = 1_000_000  # environment steps
    huber: bool = True  # Huber loss with delta 1; otherwise half the squared error
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped

    @property
    def span(self) -> Span:
        interval = self.sequence_interval or max(1, self.sequence_length // 2)
        return Span(self.burn_in, self.sequence_length, self.n_step, interval)


class RecurrentQNetwork(QModule):
    """Observations `[T, B, ...]` to action values `[T, B, A]`."""

    def forward(self, inputs: Inputs, state: State, reset: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """Values, the features below them, and the state after the last step."""
        features, state = self.encoder(inputs, state, reset)
        return self.head(features.flatten(2)), features, state


class DRQN(QAgent):
    """Acts epsilon-greedily with a memory; learns from replayed sequences."""

    config: Config

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        super().__init__(config, spec, RecurrentQNetwork(config, spec, encoder), compute, seed)
        self.replay: SequenceReplay = SequenceReplay(
            config.replay_capacity,
            spec,
            config.span,
            self.initial_state(1) if config.stored_state == "stored" else (),
            seed=seed,
            priority_exponent=config.priority_exponent if config.prioritised else 0.0,
            device=compute.device,
        )
        self.importance = Linear(config.importance_exponent, 1.0, config.importance_steps)

    @torch.no_grad()
    def initial_state(self, batch_size: int) -> State:
        return self.acting.encoder.initial_state(batch_size)

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        with self.compute.autocast():
            q, _, after = self.acting(inputs, state, reset)
        greedy = q[0].argmax(-1).cpu().numpy()
        if explore:
            greedy = self.exploration(greedy, self.spec.action.count, self.steps, self.random)
        before = state if self.replay.states else ()  # for the replay
        return Action(greedy, after, {f"state{i}": leaf.cpu().numpy() for i, leaf in enumerate(before)})

    def observe(self, step: Step) -> None:
        self.replay.add(step, tuple(step.extras[f"state{i}"] for i in range(len(self.replay.states))))
        self.steps += int(np.count_nonzero(step.valid))

    def update(self) -> Metrics:
        updates, size = self.due(is_ready=self.replay.is_ready), self.config.batch_size
        if not updates:
            return {}
        metrics: Metrics = {}
        for _ in range(updates):
            metrics = self._learn(self.replay.sample(size, self.initial_state(size), self.importance(self.steps)))
        self.move_target()
        return metrics | {"exploration/epsilon": self.exploration.epsilon(self.steps)}

    def _learn(self, batch: SequenceBatch) -> Metrics:
        """One gradient step."""
        config, start, length = self.config, self.config.burn_in, self.config.sequence_length
        learned = slice(start, start + length)
        batch = batch._replace(inputs=batch.inputs._replace(obs=self.encoder.augment(batch.inputs.obs)))
        with self.compute.autocast():
            state, target_q = self._without_gradient(batch)
        with self.compute.autocast():  # apart, so that no weight rounded without gradient is handed on
            q, features, _ = self.network(batch.read(start, None), state, batch.reset[start:])
            auxiliary = {}
            if self.encoder.window:
                auxiliary = self.encoder.auxiliary_losses(batch.trajectory(learned), features[:length])
        action, real = batch.action[learned], batch.acted[learned]
        with torch.no_grad():
            target = self._targets(batch, target_q, q)
            chosen = q_losses.select(q[:length], action)
            error = (target - chosen) * real
            share = real * batch.weight * (real.numel() / real.sum().clamp(min=1))  # a mean over what is real
            gradient = torch.zeros_like(q)
            gradient[:length] = q_losses.value_gradient(
                q[:length].flatten(0, 1), action.flatten(), error.flatten(), share.flatten(), clip=config.huber
            ).unflatten(0, action.shape)
        metrics = self.descend(q, gradient, auxiliary)
        if config.prioritised:
            priority = q_losses.sequence_priority(error, real, config.priority_max_share)
            self.replay.update_priorities(batch.start, priority.cpu().numpy())
        loss = (q_losses.huber if config.huber else q_losses.squared)(error)
        count = real.sum().clamp(min=1)
        return {**metrics, "loss/q": loss.sum() / count, "q/mean": (chosen * real).sum() / count}

    @torch.no_grad()
    def _without_gradient(self, batch: SequenceBatch) -> tuple[State, Tensor]:
        """The memory's state after the burn-in, as acting would have it, and the target network's values after it."""
        start, state = self.config.burn_in, batch.state
        if start:
            _, state = self.acting.encoder(batch.read(0, start), state, batch.reset[:start])
        return state, self.target(batch.inputs, batch.state, batch.reset)[0][start:]

    def _targets(self, batch: SequenceBatch, target_q: Tensor, q: Tensor) -> Tensor:
        """n-step targets `[length, B]` from values `[length + n, B, A]`, with no gradient."""
        config, start = self.config, self.config.burn_in
        value = q_losses.double_value(target_q, q) if config.double else q_losses.max_value(target_q)
        if config.rescale:
            value = q_losses.unrescale(value)
        reward, acted = batch.reward[start:], batch.acted[start:]
        if config.clip_rewards:
            reward = reward.clamp(-1, 1)
        # at the last observation of an episode a return is its value, however many steps were still to come
        reward, discount = torch.where(acted, reward, value), config.discount * batch.discount[start:]
        returns = n_step_returns(reward[:-1], discount[:-1], value[1:], config.n_step)[: config.sequence_length]
        return q_losses.rescale(returns) if config.rescale else returns


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> DRQN:
    """Raises SpecError for continuous actions and encoders without memory, UserError for sizes that make no sense."""
    check_q_agent(
        "drqn",
        config,
        spec,
        positive=("batch_size", "sequence_length", "replay_capacity", "n_step"),
        not_negative=(
            "burn_in",
            "sequence_interval",
            "priority_exponent",
            "importance_exponent",
            "importance_steps",
        ),
        share=("discount", "priority_max_share"),
    )
    if not encoder.initial_state(1):
        raise SpecError("drqn needs an encoder with memory: add --memory lstm, or train dqn, which needs none")
    if config.stored_state not in ("stored", "zero"):
        raise UserError(f"drqn: stored_state must be stored or zero, not {config.stored_state!r}")
    if config.burn_in > config.sequence_length:
        raise UserError(
            f"drqn: burn_in must be at most sequence_length, or some steps are never learned from; {config.burn_in} "
            f"is more than {config.sequence_length}"
        )
    if encoder.window > config.sequence_length:
        raise UserError(
            f"drqn: this encoder's own losses read {encoder.window} steps; raise sequence_length to that at least"
        )
    return DRQN(config, spec, encoder, compute, seed)
