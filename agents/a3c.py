"""Asynchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3): actor-learners, each with a
few environments, that apply their gradients to shared parameters without waiting for each other.

This file says what one of them learns: it is A2C's rollout and losses, see `a2c`. How many there are, and where, is
the run's business (`--workers`, `--cluster`); alone it is A2C.

Deviations: each has a batch of environments instead of one; an update takes the mean over steps, not the sum; heads and
encoder are clipped apart; the first action of a rollout was chosen by the parameters before the last reading.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..encoders.base import Encoder
from ..envs.spec import EnvSpec
from . import a2c
from .base import Agent
from .parts.actor_learner import ActorLearner
from .parts.compute import Compute
from .parts.rollout_agent import check_window
from .parts.settings import check_settings

kind = "advantage actor-critic, asynchronous: actor-learners on shared parameters (--workers N), with any memory"


@dataclass(frozen=True)
class Config:
    learning_rate: float = 7e-4
    learning_rate_decay_steps: int = 0  # steps of all workers in which the rate falls linearly to 0; 0 = constant
    optimizer_epsilon: float = 1e-5  # of RMSProp, inside the root
    rmsprop_decay: float = 0.99  # of the shared mean square of gradients (section 5.1)
    discount: float = 0.99  # per step
    rollout_steps: int = 5  # of every environment, per update (t_max)
    gae_lambda: float = 1.0  # 1 = n-step advantages to the end of the rollout; less: more bias, less variance
    normalise_advantages: bool = False  # mean 0 and deviation 1 over an update
    value_weight: float = 1.0  # of half the squared error, beside the policy's loss
    entropy_weight: float = 0.01  # of the policy's entropy in nats (beta)
    max_gradient_norm: float | None = 0.5  # of heads and encoder apart; None = no clipping
    clip_rewards: bool = False  # learn from rewards clipped to [-1, 1] (Atari); scores are never clipped
    log_std: float = 0.0  # Gaussian: first log standard deviation, in half-widths of the action box
    state_dependent_std: bool = False  # Gaussian: the deviation also depends on the observation


def build(config: Config, spec: EnvSpec, encoder: Encoder, compute: Compute, seed: int) -> Agent:
    """Raises UserError for settings that make no sense, SpecError for rollouts too short for the encoder's losses."""
    check_settings(
        "a3c",
        config,
        positive=("learning_rate", "optimizer_epsilon", "rollout_steps", "max_gradient_norm"),
        not_negative=("learning_rate_decay_steps", "value_weight", "entropy_weight"),
        share=("discount", "gae_lambda", "rmsprop_decay"),
    )
    check_window("a3c", config.rollout_steps, encoder)
    learner = a2c.A2C(a2c.Config(**asdict(config)), spec, encoder, compute, seed)
    return ActorLearner(learner)
