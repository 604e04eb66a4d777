"""Value-learning targets and losses, as pure functions of tensors. Time indices: `tm1` acts, `t` follows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def select(q: Tensor, action: Tensor) -> Tensor:
    """q(s, a) `[...]` from values `[..., A]` and actions int64 `[...]`."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def max_value(q_t: Tensor) -> Tensor:
    """max_a q(s_t, a): the bootstrap of Q-learning. `[..., A] -> [...]`."""
    return q_t.amax(-1)


def double_value(q_t: Tensor, selector_t: Tensor) -> Tensor:
    """q(s_t, argmax_a selector(s_t, a)) (van Hasselt et al. 2016, equation 4). `[..., A] -> [...]`."""
    return select(q_t, selector_t.argmax(-1))


def td_target(r_t: Tensor, discount_t: Tensor, value_t: Tensor) -> Tensor:
    """r_t + discount_t * value_t, all `[...]`; no gradient goes through it."""
    return torch.addcmul(r_t, discount_t, value_t).detach()


def squared(q_tm1: Tensor, target: Tensor) -> Tensor:
    """Half the squared TD error, elementwise."""
    return 0.5 * F.mse_loss(q_tm1, target, reduction="none")


def huber(q_tm1: Tensor, target: Tensor) -> Tensor:
    """Half the squared TD error within 1, linear beyond (Mnih et al. 2015 clip the error to the same effect),
    elementwise."""
    return F.huber_loss(q_tm1, target, reduction="none")


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """v + a - mean(a) (Wang et al. 2016, equation 9): `[..., 1]` and `[..., A]` to `[..., A]`."""
    return value + advantage - advantage.mean(-1, keepdim=True)
