"""Losses of policies and their baselines: pure functions of tensors `[T, B]`, each a scalar.

`weight_t` `[T, B]` says how much each step counts: 0 for padding, and for a mean 1 / the number of real steps, so that
a batch may be cut into pieces whose losses add up.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient_loss(log_prob_t: Tensor, advantage_t: Tensor, weight_t: Tensor) -> Tensor:
    """- sum w_t A_t log pi(a_t | s_t): its gradient is REINFORCE's (Williams 1992). No gradient to `advantage_t`."""
    return -(weight_t * advantage_t.detach() * log_prob_t).sum()


def entropy_loss(entropy_t: Tensor, weight_t: Tensor) -> Tensor:
    """- sum w_t H(pi(. | s_t)): less of it is more exploration (Williams and Peng 1991)."""
    return -(weight_t * entropy_t).sum()


def value_loss(v_tm1: Tensor, return_t: Tensor, weight_t: Tensor) -> Tensor:
    """1/2 sum w_t (G_t - v(s_{t-1}))^2. No gradient to `return_t`."""
    return 0.5 * (weight_t * (return_t.detach() - v_tm1).square()).sum()


def normalise(x_t: Tensor, mask_t: Tensor, epsilon: float = 1e-8) -> Tensor:
    """`x_t` with mean 0 and standard deviation 1 over the steps where `mask_t` (bool) is True; zero elsewhere.

    A batch without spread (or of one step) says nothing about which action was better: it becomes zero.
    """
    kept = x_t[mask_t]
    deviation, mean = torch.std_mean(kept, correction=0)
    return torch.where(mask_t, (x_t - mean) / (deviation + epsilon), 0.0)
