"""Reward prediction: will what comes next be punished, ignored or rewarded? (Jaderberg et al. 2016, section 3.2.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...encoders.base import Trajectory
from .auxiliary_tasks import AuxiliaryTask, Window

CLASSES = 3  # negative, zero, positive


def reward_class(reward: Tensor) -> Tensor:
    """0 for negative rewards, 1 for none, 2 for positive ones: int64 of the same shape."""
    return reward.sign().long() + 1


class RewardPrediction(AuxiliaryTask):
    """The class of the reward that follows the last of a few observations, each perceived without a memory.

    Observations from before the episode are zeros. Half of the windows end with a reward, so that the classes are
    nearly even however seldom there is one.
    """

    def __init__(self, perceived: int, *, history: int = 3, hidden: int = 128):
        """`perceived`: numbers in a perceived observation; `history`: observations that are read."""
        super().__init__()
        self.window = Window(history, remembers=False, is_skewed=True)
        self.classify = nn.Sequential(nn.Linear(history * perceived, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))

    def logits(self, batch: Trajectory, features: Tensor) -> Tensor:
        """`[B, 3]`, of perceived features `[T, B, ...]`."""
        seen = features.flatten(2) * batch.mask.unsqueeze(-1)
        return self.classify(seen.transpose(0, 1).flatten(1)).float()

    def losses(self, batch: Trajectory, features: Tensor) -> dict[str, Tensor]:
        target = reward_class(batch.reward[-1])
        return {"reward_prediction": F.cross_entropy(self.logits(batch, features), target)}


def accuracy(logits: Tensor, reward: Tensor) -> Tensor:
    """Share of rewards `[B]` whose class is the likeliest of `logits` `[B, 3]`."""
    return (logits.argmax(-1) == reward_class(reward)).float().mean(dtype=torch.float32)
