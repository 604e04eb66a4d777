"""Value-learning targets and losses, as pure functions of tensors. Time indices: `tm1` acts, `t` follows."""

from __future__ import annotations

import torch
from torch import Tensor


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


def squared(error: Tensor) -> Tensor:
    """Half the squared TD error, elementwise."""
    return 0.5 * error.square()


def huber(error: Tensor) -> Tensor:
    """Half the squared TD error within 1, linear beyond (Mnih et al. 2015 clip the error to the same effect),
    elementwise."""
    clipped = error.clamp(-1, 1)
    return clipped * (error - 0.5 * clipped)


def value_gradient(q_tm1: Tensor, action: Tensor, error: Tensor, weight: Tensor, clip: bool) -> Tensor:
    """Gradient of mean(weight * loss(error)) with respect to q_tm1 `[N, A]`, where error = target - q(s, a) `[N]`.

    In closed form: both losses have the TD error as their gradient, `huber` (`clip`) the error clipped to -1..1.
    """
    slope = error.clamp(-1, 1) if clip else error
    slope = slope * weight * (-1 / len(slope))
    return torch.zeros_like(q_tm1).scatter_(-1, action.unsqueeze(-1), slope.unsqueeze(-1))


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """v + a - mean(a) (Wang et al. 2016, equation 9): `[..., 1]` and `[..., A]` to `[..., A]`."""
    return value + advantage - advantage.mean(-1, keepdim=True)


def rescale(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x, elementwise: large values count less, none are cut off (Pohlen et
    al. 2018, arXiv:1805.11593, section 3.2)."""
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + epsilon * x


def unrescale(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """The inverse of `rescale`, elementwise.

    With a = |x| + 1 + epsilon the root of the quadratic is written 2 a / (1 + sqrt(1 + 4 epsilon a)): the paper's form
    subtracts two numbers that are nearly equal.
    """
    a = x.abs() + 1 + epsilon
    return x.sign() * ((2 * a / (1 + (1 + 4 * epsilon * a).sqrt())).square() - 1)


def sequence_priority(error: Tensor, real: Tensor, max_share: float) -> Tensor:
    """max_share * max |error| + (1 - max_share) * mean |error| over the real steps (Kapturowski et al. 2019, section
    2.3): error and real (bool) `[T, B]` to `[B]`; 0 where no step is real."""
    size = error.abs() * real
    return max_share * size.amax(0) + (1 - max_share) * size.sum(0) / real.sum(0).clamp(min=1)
