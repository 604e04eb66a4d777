"""UNREAL (Jaderberg et al. 2016, arXiv:1611.05397): advantage actor-critic whose encoder also learns, from replay, to
control pixels and features, to predict rewards, and values once more.

Deviations: those of `a2c`, whose losses these are added to (section 3.4, eq. 2); as there, means over steps, not sums.
Replayed sequences begin with the state that the memory had, and run over the ends of episodes; the tasks that read them
share them. Pixel control weighs the least that the paper tried, as goals pay 10 there. Heads are clipped apart.

The last action and reward are the memory's to read: `--memory lstm --memory-reads-last`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..encoders.base import Encoder, Trajectory
from ..envs.base import Step
from ..envs.errors import SpecError, UserError
from ..envs.spec import EnvSpec
from . import a2c
from .base import Agent, Metrics
from .parts.auxiliary_tasks import (
    AuxiliaryTask,
    AuxiliaryTasks,
    ValueReplay,
    Window,
    perceive,
    perceived_shape,
    perceived_size,
    remember,
)
from .parts.compute import Compute
from .parts.experience import Experience, StoredState
from .parts.pixel_control import FeatureControl, PixelControl
from .parts.reward_prediction import RewardPrediction
from .parts.rollout_agent import check_window
from .parts.rollouts import Rollout
from .parts.settings import check_settings

kind = "advantage actor-critic with auxiliary tasks: pixel control, reward prediction, value replay, feature control"


@dataclass(frozen=True)
class Config(a2c.Config):
    rollout_steps: int = 20  # of every environment, per update (section 4.1)
    pixel_control: float | None = None  # weight, 0 = off; None = 0.01 where the world shows images, else off
    reward_prediction: float = 1.0  # weight, 0 = off, as of the others
    value_replay: float = 1.0  # weight
    feature_control: float = 0.0  # weight
    control_discount: float = 0.9  # per step, of both control tasks
    pixel_cell: int = 4  # pixels a side of the cells that are controlled
    reward_history: int = 3  # observations from which the next reward is predicted
    sequence_length: int = 20  # transitions of a replayed sequence
    sequences: int = 0  # replayed per update, and as many reward histories; 0 = as many as there are environments
    replay_capacity: int = 16_000  # transitions of all environments; the paper's 2,000 are one environment's
    stored_state: StoredState = "stored"  # what replayed sequences begin with: as when acting, or as an episode

    def pixel_weight(self, spec: EnvSpec) -> float:
        if self.pixel_control is None:
            return 0.01 if spec.observation.is_image else 0.0
        return self.pixel_control


class Unreal(a2c.A2C):
    """The losses of `a2c` on each rollout, and those of the tasks on as much replayed experience."""

    config: Config
    replay: Experience

    def __init__(self, config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int):
        super().__init__(config, spec, encoder, compute, seed)
        self.sequences = config.sequences or spec.num_envs
        state = self.initial_state(1) if config.stored_state == "stored" else ()
        self.replay = Experience(
            config.replay_capacity, spec, config.sequence_length, state, seed=seed, device=compute.device
        )

    def add_heads(self) -> Sequence[Iterable[nn.Parameter]]:
        """Those of the tasks."""
        self.tasks = make_tasks(self.config, self.spec, self)
        self.network.add_module("tasks", self.compute.place(self.tasks))
        return [task.parameters() for task in self.tasks.tasks.values()]

    def observe(self, step: Step) -> None:
        state: tuple[np.ndarray, ...] = ()
        if self.replay.states and self._acted is not None:
            state = tuple(leaf.detach().cpu().numpy() for leaf in self._acted.before)
        super().observe(step)
        self.replay.add(step, state)

    def accumulate(self, rollout: Rollout) -> Metrics:
        metrics = super().accumulate(rollout)
        if self.replay.is_ready:
            for window in self.tasks.windows():
                batch, features = self._replayed(window)
                total, losses = self.tasks.losses(window, batch, features)
                total.backward()
                metrics |= {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        return metrics

    def _replayed(self, window: Window) -> tuple[Trajectory, Tensor]:
        """Experience as `window` asks for it, and the encoder's features of it."""
        encoder = self.network.encoder
        if window.remembers:
            sequences = self.replay.sample(self.sequences, self.initial_state(self.sequences))
            with self.compute.autocast():
                features = remember(encoder, sequences, encoder.augment(sequences.inputs.obs))
            return sequences.trajectory(slice(0, window.steps)), features
        histories = self.replay.histories(self.sequences, window.steps, window.is_skewed)
        with self.compute.autocast():
            features = perceive(encoder, encoder.augment(histories.obs[:-1]))
        return histories, features

    def interrupt(self) -> None:
        super().interrupt()
        self.replay.cut()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"replay": self.replay.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.replay.load_state_dict(saved["replay"])


def make_tasks(config: Config, spec: EnvSpec, agent: a2c.A2C) -> AuxiliaryTasks:
    """The tasks whose weight is not 0.

    Raises:
        SpecError: one of them cannot be done in such a world.
        UserError: cells do not fit into the images.
    """
    encoder, network = agent.network.encoder, agent.network
    features, steps = int(np.prod(encoder.feature_shape)), config.sequence_length
    makers = {
        "pixel_control": lambda: PixelControl(
            features, spec, steps, cell=config.pixel_cell, discount=config.control_discount
        ),
        "reward_prediction": lambda: RewardPrediction(perceived_size(encoder), history=config.reward_history),
        "value_replay": lambda: ValueReplay(
            network.values, steps, config.discount, unit=lambda: network.value.scale, clip_rewards=config.clip_rewards
        ),
        "feature_control": lambda: FeatureControl(
            features,
            spec,
            steps,
            lambda obs: perceive(encoder, obs),
            perceived_shape(encoder),
            discount=config.control_discount,
        ),
    }
    weights = {name: getattr(config, name) for name in makers} | {"pixel_control": config.pixel_weight(spec)}
    tasks: dict[str, AuxiliaryTask] = {name: make() for name, make in makers.items() if weights[name]}
    return AuxiliaryTasks(tasks, weights)


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Agent:
    """Raises UserError for settings that make no sense, SpecError for worlds that the tasks cannot do."""
    check_settings(
        "unreal",
        config,
        positive=(
            "learning_rate",
            "optimizer_epsilon",
            "rollout_steps",
            "max_gradient_norm",
            "pixel_cell",
            "reward_history",
            "sequence_length",
            "replay_capacity",
        ),
        not_negative=(
            "learning_rate_decay_steps",
            "value_weight",
            "entropy_weight",
            "pixel_control",
            "reward_prediction",
            "value_replay",
            "feature_control",
            "sequences",
        ),
        share=("discount", "gae_lambda", "rmsprop_decay", "control_discount"),
    )
    if config.optimizer not in ("rmsprop", "adam"):
        raise UserError(f"unreal: optimizer must be rmsprop or adam, not {config.optimizer!r}")
    if config.stored_state not in ("stored", "zero"):
        raise UserError(f"unreal: stored_state must be stored or zero, not {config.stored_state!r}")
    if not spec.action.is_discrete:
        raise SpecError(f"unreal replays discrete actions; {spec.id} has {spec.action.describe()}. Try a2c")
    check_window("unreal", config.rollout_steps, encoder)
    return Unreal(config, spec, encoder, compute, seed)
