"""Deep Q-network (Mnih et al. 2015) with the improvements that are switches: double (van Hasselt et al. 2016), dueling
(Wang et al. 2016), n-step returns and prioritised replay (Schaul et al. 2016; combined as in Hessel et al. 2018).

Deviations: gradient steps that are due together are sampled together, and their targets computed in one pass, since the
target network does not change between them; prioritised sampling so sees priorities that are a few updates old.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Inputs, State
from ..envs.base import Step
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from .base import Action, Agent, Metrics
from .parts import q_losses
from .parts.compute import Compute
from .parts.exploration import make_exploration
from .parts.networks import QHead, acting_copy, follow, target_copy
from .parts.optimisers import Optimisers
from .parts.replay import Batch, Replay
from .parts.schedules import Linear
from .parts.settings import check_settings

kind = "deep Q-network with target network and replay; double, dueling, n-step, prioritised as switches"

TARGET_ROWS = 8192  # at most so many numbers of target values at once for vectors; images count 64 each


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-4  # Adam
    learning_rate_decay_steps: int = 0  # environment steps over which the rate falls linearly to 0; 0 = constant
    adam_epsilon: float = 1e-8  # Adam's denominator floor
    discount: float = 0.99  # per step
    batch_size: int = 32  # transitions per gradient step
    replay_capacity: int = 100_000  # transitions
    learning_starts: int = 1_000  # transitions before the first gradient step
    update_interval: int = 4  # environment steps between bursts of gradient steps
    updates_per_interval: int = 1  # gradient steps in a burst
    target_interval: int = 1_000  # environment steps between target updates
    target_rate: float = 1.0  # share of the way the target moves: 1 = hard update
    double: bool = True  # the online network chooses the action that the target network values
    dueling: bool = False  # separate streams for value and advantage
    n_step: int = 1  # rewards summed before bootstrapping
    prioritised: bool = False  # sample in proportion to |TD error|
    priority_exponent: float = 0.5  # alpha (Hessel et al. 2018: 0.5)
    importance_exponent: float = 0.4  # beta at the start; rises to 1 over `importance_steps`
    importance_steps: int = 1_000_000  # environment steps
    huber: bool = True  # Huber loss with delta 1; otherwise half the squared error
    max_gradient_norm: float | None = 10.0  # of head and encoder apart; None = no clipping
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped
    hidden: tuple[int, ...] = ()  # dense layers between the features and the values
    epsilon_initial: float = 1.0  # share of random actions at the start
    epsilon_final: float = 0.05  # and after `epsilon_decay_steps`; equal values = constant, both 0 = greedy
    epsilon_decay_steps: int = 10_000  # environment steps


class QNetwork(nn.Module):
    """Encoder and head: observations `[N, ...]` to action values `[N, A]`."""

    def __init__(self, encoder: Encoder, head: QHead):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.encoder.read(obs).flatten(1))


class DQN(Agent):
    """Acts epsilon-greedily; learns from replay."""

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        self.config, self.spec, self.compute, self.device = config, spec, compute, compute.device
        head = QHead(int(np.prod(encoder.feature_shape)), spec.action.count, config.hidden, is_dueling=config.dueling)
        self.network = QNetwork(encoder, head)
        compute.place(self.network)
        self.encoder = encoder
        # a hard-updated target may as well keep the rounded weights that autocast would compute with
        rounded = torch.bfloat16 if compute.bfloat16 and config.target_rate == 1 else None
        self.target = target_copy(self.network, rounded)
        self.acting = acting_copy(self.network)
        self.optimisers = Optimisers(
            head.parameters(),
            encoder,
            learning_rate=config.learning_rate,
            epsilon=config.adam_epsilon,
            max_gradient_norm=config.max_gradient_norm,
            compute=compute,
        )
        exponent = config.priority_exponent if config.prioritised else 0.0
        self.replay: Replay = Replay(config.replay_capacity, spec, seed, exponent, compute.device)
        self.exploration = make_exploration(config.epsilon_initial, config.epsilon_final, config.epsilon_decay_steps)
        self.decay = Linear(1.0, 0.0, config.learning_rate_decay_steps)
        self.importance = Linear(config.importance_exponent, 1.0, config.importance_steps)
        self.random = np.random.default_rng(seed)
        self.steps = 0  # transitions observed
        self.updates = 0  # gradient steps taken
        self._updated_at = self._target_at = 0
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
        config = self.config
        if len(self.replay) < config.learning_starts:
            self._updated_at = self.steps
            return {}
        bursts = (self.steps - self._updated_at) // config.update_interval
        if not bursts:
            return {}
        self._updated_at += bursts * config.update_interval
        if config.learning_rate_decay_steps:
            self.optimisers.scale_learning_rate(self.decay(self.steps))
        metrics = self._learn(bursts * config.updates_per_interval)
        if intervals := (self.steps - self._target_at) // config.target_interval:
            self._target_at += intervals * config.target_interval
            follow(self.target, self.network, config.target_rate)
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
        metrics: Metrics = {}
        self.optimisers.clear()
        if self.encoder.window:
            auxiliary = self._auxiliary_losses()
            metrics = {f"loss/{name}": loss.detach() for name, loss in auxiliary.items()}
            learned = [loss for loss in auxiliary.values() if loss.requires_grad]
            torch.autograd.backward([q, *learned], [gradient, *[None] * len(learned)])
        else:
            q.backward(gradient)
        metrics["gradient_norm"] = self.optimisers.apply()
        self.encoder.after_update()
        self.updates += 1
        if self.config.prioritised:
            self.replay.update_priorities(batch.slot[rows], error.abs().cpu().numpy())
        return error, metrics

    def _auxiliary_losses(self) -> dict[str, Tensor]:
        batch = self.replay.sample_sequences(self.config.batch_size, self.encoder.window)
        batch = batch._replace(obs=self.encoder.augment(batch.obs))
        with self.compute.autocast():
            return self.encoder.auxiliary_losses(batch, None)

    def interrupt(self) -> None:
        self.replay.cut()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "replay": self.replay.state_dict(),
            "random": self.random.bit_generator.state,
            "counters": [self.steps, self.updates, self._updated_at, self._target_at],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.target.load_state_dict(saved["target"])
        self.optimisers.load_state_dict(saved["optimisers"])
        self.replay.load_state_dict(saved["replay"])
        self.random.bit_generator.state = saved["random"]
        self.steps, self.updates, self._updated_at, self._target_at = saved["counters"]


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> DQN:
    """Raises SpecError for continuous actions and encoders with memory, UserError for sizes that make no sense."""
    if not spec.action.is_discrete:
        raise SpecError(f"dqn needs discrete actions; {spec.id} has {spec.action.describe()}. Try reinforce")
    if encoder.initial_state(1):
        raise SpecError("dqn replays single transitions, so its encoder must be without memory")
    check_settings(
        "dqn",
        config,
        positive=(
            "learning_rate",
            "adam_epsilon",
            "batch_size",
            "replay_capacity",
            "update_interval",
            "updates_per_interval",
            "target_interval",
            "n_step",
            "max_gradient_norm",
        ),
        not_negative=(
            "learning_rate_decay_steps",
            "learning_starts",
            "priority_exponent",
            "importance_exponent",
            "importance_steps",
            "epsilon_decay_steps",
        ),
        share=("discount", "target_rate", "epsilon_initial", "epsilon_final"),
    )
    if any(size < 1 for size in config.hidden):
        raise UserError(f"dqn: hidden must be positive sizes, not {config.hidden}")
    return DQN(config, spec, encoder, compute, seed)
