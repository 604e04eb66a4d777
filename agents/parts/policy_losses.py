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


def clipped_policy_loss(
    log_prob_t: Tensor, old_log_prob_t: Tensor, advantage_t: Tensor, clip: float, weight_t: Tensor
) -> Tensor:
    """- sum w_t min(r_t A_t, clamp(r_t, 1 - clip, 1 + clip) A_t) with r_t = pi(a_t) / pi_old(a_t) (Schulman et al.
    2017, arXiv:1707.06347, eq. 7). Gradient reaches `log_prob_t` alone."""
    ratio, advantage_t = (log_prob_t - old_log_prob_t.detach()).exp(), advantage_t.detach()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -(weight_t * torch.minimum(ratio * advantage_t, clipped * advantage_t)).sum()


def policy_change(log_prob_t: Tensor, old_log_prob_t: Tensor, clip: float, weight_t: Tensor) -> tuple[Tensor, Tensor]:
    """How far a policy has moved from the one that acted, by the actions that were drawn from the old one.

    Returns:
        (an estimate of KL(old, new) in nats that is never negative: sum w_t (r_t - 1 - log r_t); the share of steps
        whose ratio r_t lies outside 1 - clip to 1 + clip).
    """
    log_ratio = (log_prob_t - old_log_prob_t).detach()
    ratio = log_ratio.exp()
    return (weight_t * (ratio - 1 - log_ratio)).sum(), (weight_t * ((ratio - 1).abs() > clip)).sum()


def entropy_loss(entropy_t: Tensor, weight_t: Tensor) -> Tensor:
    """- sum w_t H(pi(. | s_t)): less of it is more exploration (Williams and Peng 1991)."""
    return -(weight_t * entropy_t).sum()


def value_loss(v_tm1: Tensor, return_t: Tensor, weight_t: Tensor) -> Tensor:
    """1/2 sum w_t (G_t - v(s_{t-1}))^2. No gradient to `return_t`."""
    return 0.5 * (weight_t * (return_t.detach() - v_tm1).square()).sum()


def clipped_value_loss(v_tm1: Tensor, old_v_tm1: Tensor, return_t: Tensor, clip: float, weight_t: Tensor) -> Tensor:
    """1/2 sum w_t max((G_t - v)^2, (G_t - v_clipped)^2), where v_clipped is at most `clip` away from the old value: no
    gradient where the value has moved further than that towards the return. As in OpenAI's code for PPO."""
    old_v_tm1, return_t = old_v_tm1.detach(), return_t.detach()
    near = old_v_tm1 + (v_tm1 - old_v_tm1).clamp(-clip, clip)
    return 0.5 * (weight_t * torch.maximum((return_t - v_tm1).square(), (return_t - near).square())).sum()


def explained_variance(v_tm1: Tensor, return_t: Tensor, mask_t: Tensor) -> Tensor:
    """1 - Var(G - v) / Var(G) over the steps where `mask_t` is True: 1 for perfect values, 0 for constant ones."""
    returns, values = return_t[mask_t], v_tm1[mask_t]
    return 1 - (returns - values).var(correction=0) / returns.var(correction=0).clamp(min=1e-8)


def normalise(x_t: Tensor, mask_t: Tensor, epsilon: float = 1e-8) -> Tensor:
    """`x_t` with mean 0 and standard deviation 1 over the steps where `mask_t` (bool) is True; zero elsewhere.

    A batch without spread (or of one step) says nothing about which action was better: it becomes zero.
    """
    kept = x_t[mask_t]
    deviation, mean = torch.std_mean(kept, correction=0)
    return torch.where(mask_t, (x_t - mean) / (deviation + epsilon), 0.0)
