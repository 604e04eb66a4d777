"""Deep Q-network (Mnih et al. 2015) with the improvements that are switches: double (van Hasselt et al. 2016), dueling
(Wang et al. 2016), n-step returns and prioritised replay (Schaul et al. 2016; combined as in Hessel et al. 2018).

Deviations: gradient steps that are due together are sampled together, and their targets computed in one pass, since the
target network does not change between them; prioritised sampling so sees priorities that are a few updates old.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..encoders.base import Encoder, Inputs, State
from ..envs.base import Step
from ..envs.errors import SpecError
from ..envs.spec import EnvSpec
from .base import Action, Metrics
from .parts import q_losses
from .parts.compute import Compute
from .parts.q_agent import QAgent, QModule, QSettings, check_q_agent
from .parts.replay import Batch, Replay
from .parts.schedules import Linear

kind = "deep Q-network with target network and replay; double, dueling, n-step, prioritised as switches"

TARGET_ROWS = 8192  # at most so many numbers of target values at once for vectors; images count 64 each


@dataclass(frozen=True)
class Config(QSettings):
    discount: float = 0.99  # per step
    batch_size: int = 32  # transitions per gradient step
    replay_capacity: int = 100_000  # transitions
    double: bool = True  # the online network chooses the action that the target network values
    n_step: int = 1  # rewards summed before bootstrapping
    prioritised: bool = False  # sample in proportion to |TD error|
    priority_exponent: float = 0.5  # alpha (Hessel et al. 2018: 0.5)
    importance_exponent: float = 0.4  # beta at the start; rises to 1 over `importance_steps`
    importance_steps: int = 1_000_000  # environment steps
    huber: bool = True  # Huber loss with delta 1; otherwise half the squared error
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped


class QNetwork(QModule):
    """Observations `[N, ...]` to action values `[N, A]`."""

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.encoder.read(obs).flatten(1))


class DQN(QAgent):
    """Acts epsilon-greedily; learns from replay."""

    config: Config
    compiles = True

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        # a hard-updated target may as well keep the rounded weights that autocast would compute with
        rounded = torch.bfloat16 if compute.bfloat16 and config.target_rate == 1 else None
        super().__init__(config, spec, QNetwork(config, spec, encoder), compute, seed, rounded)
        exponent = config.priority_exponent if config.prioritised else 0.0
        self.replay: Replay = Replay(config.replay_capacity, spec, seed, exponent, compute.device)
        self.importance = Linear(config.importance_exponent, 1.0, config.importance_steps)
        self._values = torch.compile(self.network) if compute.compile else self.network

    def initial_state(self, batch_size: int) -> State:
        return ()

    @torch.inference_mode()
    def act(self, inputs: Inputs, state: State, reset: Tensor | None, *, explore: bool) -> Action:
        with self.compute.autocast():
            greedy = self.acting(inputs.obs[0]).argmax(-1).cpu().numpy()
        if explore:
            greedy = self.exploration(greedy, self.spec.action.count, self.steps, self.random)
        return Action(greedy, state, {})

    def observe(self, step: Step) -> None:
        if self.config.clip_rewards:
            step = step._replace(reward=step.reward.clip(-1, 1))
        self.replay.add(step)
        self.steps += int(np.count_nonzero(step.valid))

    def update(self) -> Metrics:
        updates = self.due()
        if not updates:
            return {}
        metrics = self._learn(updates)
        self.move_target()
        return metrics | {"exploration/epsilon": self.exploration.epsilon(self.steps)}

    def _learn(self, updates: int) -> Metrics:
        """`updates` gradient steps, sampled and given the target network's values in groups."""
        size = self.config.batch_size
        group = max(1, TARGET_ROWS // (64 if self.spec.observation.is_image else 1) // size)
        beta = self.importance(self.steps)
        for start in range(0, updates, group):
            count = min(group, updates - start)
            batch = self.replay.sample(count * size, self.config.n_step, self.config.discount, beta)
            batch = batch._replace(obs=self._augment(batch.obs), next_obs=self._augment(batch.next_obs))
            with torch.no_grad(), self.compute.autocast():
                target_q = self.target(batch.next_obs)
            target = q_losses.td_target(batch.reward, batch.discount, q_losses.max_value(target_q))
            for begin in range(0, count * size, size):
                rows = slice(begin, begin + size)
                if self.config.double:
                    target[rows] = self._double_target(batch, target_q, rows)
                error, metrics = self._gradient_step(batch, target, rows)
        # of the last step only: tiny kernels for every step would cost more than some steps do
        loss = (q_losses.huber if self.config.huber else q_losses.squared)(error)
        return {**metrics, "loss/q": loss.mean(), "q/mean": (target[rows] - error).mean()}

    def _augment(self, obs: Tensor) -> Tensor:
        return self.encoder.augment(obs.unsqueeze(0)).squeeze(0)

    def _double_target(self, batch: Batch, target_q: Tensor, rows: slice) -> Tensor:
        """Targets of `rows` with the actions that the online network, as it is now, would choose."""
        with torch.no_grad(), self.compute.autocast():
            selector = self.network(batch.next_obs[rows])
        value_t = q_losses.double_value(target_q[rows], selector)
        return q_losses.td_target(batch.reward[rows], batch.discount[rows], value_t)

    def _gradient_step(self, batch: Batch, target: Tensor, rows: slice) -> tuple[Tensor, Metrics]:
        """Learn from `rows`. Returns their TD errors `[N]` before the step, and metrics."""
        with self.compute.autocast():
            q = self._values(batch.obs[rows])
        action, weight = batch.action[rows], batch.weight[rows]
        with torch.no_grad():
            error = target[rows] - q_losses.select(q, action)
            gradient = q_losses.value_gradient(q, action, error, weight, clip=self.config.huber)
        metrics = self.descend(q, gradient, self._auxiliary_losses() if self.encoder.window else {})
        if self.config.prioritised:
            self.replay.update_priorities(batch.slot[rows], error.abs().cpu().numpy())
        return error, metrics

    def _auxiliary_losses(self) -> dict[str, Tensor]:
        batch = self.replay.sample_sequences(self.config.batch_size, self.encoder.window)
        batch = batch._replace(obs=self.encoder.augment(batch.obs))
        with self.compute.autocast():
            return self.encoder.auxiliary_losses(batch, None)


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> DQN:
    """Raises SpecError for continuous actions and encoders with memory, UserError for sizes that make no sense."""
    check_q_agent(
        "dqn",
        config,
        spec,
        positive=("batch_size", "replay_capacity", "n_step"),
        not_negative=("priority_exponent", "importance_exponent", "importance_steps"),
        share=("discount",),
    )
    if encoder.initial_state(1):
        raise SpecError("dqn replays single transitions, so its encoder must be without memory")
    return DQN(config, spec, encoder, compute, seed)
