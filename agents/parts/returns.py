"""Returns as pure functions of tensors `[T, ...]`, named as in rlax: `r_t` and `discount_t` belong to the transition
from observation t-1 to t, `v_t` is the value of the observation it leads to.

An end of an episode is nothing special: `discount_t` is 0 where nothing more is to be earned, and it is not 0 where an
episode was merely cut off, whose last observation still has a value.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, lambda_t: Tensor | float) -> Tensor:
    """G_t = r_t + discount_t ((1 - lambda_t) v_t + lambda_t G_{t+1}), with 0 for the last lambda_t (Sutton and Barto
    2018, eq. 12.18).

    Monte-Carlo returns have `lambda_t` = 1, and 0 at the last step of each padded episode: there they bootstrap.

    Args:
        r_t, discount_t, v_t: `[T, ...]`.
        lambda_t: a number, or `[T, ...]`.

    Returns:
        `[T, ...]`; gradients reach `v_t`.
    """
    decay = torch.as_tensor(lambda_t, dtype=r_t.dtype, device=r_t.device).expand_as(r_t).clone()
    decay[-1] = 0
    return _reversed_scan(r_t + discount_t * (1 - decay) * v_t, discount_t * decay)


def n_step_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, n: int) -> Tensor:
    """G_t = r_t + discount_t (r_{t+1} + ... + discount_{t+n-1} v_{t+n-1}); fewer steps near the end of the sequence.

    Args:
        r_t, discount_t, v_t: `[T, ...]`.
        n: at least 1.

    Returns:
        `[T, ...]`; gradients reach `v_t`.
    """
    if n < 1:
        raise ValueError(f"n-step returns need n of at least 1, not {n}")
    length, n = r_t.shape[0], min(n, r_t.shape[0])
    returns = torch.cat([v_t[n - 1 :], v_t[-1:].expand(n - 1, *v_t.shape[1:])])
    rewards = torch.cat([r_t, torch.zeros_like(r_t[: n - 1])])
    discounts = torch.cat([discount_t, torch.ones_like(discount_t[: n - 1])])
    for ahead in reversed(range(n)):
        returns = rewards[ahead : ahead + length] + discounts[ahead : ahead + length] * returns
    return returns


def gae(r_t: Tensor, discount_t: Tensor, v_tm1: Tensor, v_t: Tensor, lambda_t: Tensor | float) -> Tensor:
    """Generalised advantages A_t = delta_t + discount_t lambda_t A_{t+1}, with delta_t = r_t + discount_t v_t - v_tm1
    (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    `v_t` is apart from `v_tm1`, because what an episode's last step led to is not what was acted on next; `lambda_t` is
    0 there. With 1 elsewhere these are n-step advantages to the end of the sequence.

    Args:
        r_t, discount_t, v_tm1, v_t: `[T, ...]`.
        lambda_t: a number, or `[T, ...]`.

    Returns:
        `[T, ...]`.
    """
    return _reversed_scan(r_t + discount_t * v_t - v_tm1, discount_t * lambda_t)


def vtrace(
    r_t: Tensor, discount_t: Tensor, v_tm1: Tensor, v_t: Tensor, ratio_t: Tensor, lambda_t: Tensor | float
) -> tuple[Tensor, Tensor]:
    """V-trace: what another policy's steps say of this one's values and actions (Espeholt et al. 2018,
    arXiv:1802.01561, eq. 1 and section 4.2), its truncation levels both 1.

    Args:
        r_t, discount_t, v_tm1, v_t: `[T, ...]`; `v_t` is apart from `v_tm1` as in `gae`.
        ratio_t: `[T, ...]` the probability of the action under this policy over that under the one that chose it.
        lambda_t: a number, or `[T, ...]`; 0 where an episode ends.

    Returns:
        (targets of `v_tm1`, advantages of the actions, already times their truncated ratio), `[T, ...]` each. Where
        every ratio is 1 both are those of `gae`.
    """
    ratio = ratio_t.clamp(max=1)
    error = ratio * (r_t + discount_t * v_t - v_tm1)
    correction = _reversed_scan(error, discount_t * ratio * lambda_t)
    later = torch.cat([correction[1:], torch.zeros_like(correction[:1])]) * lambda_t
    return v_tm1 + correction, ratio * (r_t + discount_t * (v_t + later) - v_tm1)


def _reversed_scan(a: Tensor, b: Tensor) -> Tensor:
    """x_t = a_t + b_t x_{t+1} with x_T = 0, in log2(T) vectorised rounds: each doubles the steps that x_t sums."""
    reach = 1
    while reach < a.shape[0]:
        a = torch.cat([a[:-reach] + b[:-reach] * a[reach:], a[-reach:]])
        b = torch.cat([b[:-reach] * b[reach:], torch.zeros_like(b[-reach:])])
        reach *= 2
    return a
