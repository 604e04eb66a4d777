"""Optimisers and rates of a trainer: one rule for all parameters, but for the groups of an encoder that want their own.

Agents have `agents.parts.optimisers`, which clips head and encoder apart; here the rule itself is the user's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..agents.parts.compute import Compute
from ..agents.parts.optimisers import LeanAdam
from ..encoders.base import Encoder, Group
from ..envs.errors import SpecError

Rule = Literal["adam", "adamw", "sgd", "nesterov", "rmsprop", "adagrad"]
Schedule = Literal["constant", "linear", "cosine", "onecycle"]
_ONECYCLE_WARMUP = 0.3  # share of the updates (Smith & Topin 2018, arXiv:1708.07120, rise over the first part)


_Given = list[dict[str, Any]]  # groups of parameters as torch's optimisers take them


class _Clip(NamedTuple):
    """Parameters whose gradients are clipped together."""

    parameters: list[nn.Parameter]
    max_norm: float


class Optimiser:
    """Steps down a loss.

    Weight decay counts for parameters with two or more axes: biases and the scales of normalisations are left alone. It
    is the gradient of an L2 penalty, but for "adamw", where it is apart from the gradient (Loshchilov & Hutter 2019).
    A group that asks for "sgd" gets the plain gradient: no momentum, no decay.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        learning_rate: float,
        rule: Rule = "adam",
        momentum: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        max_gradient_norm: float | None = None,
        compute: Compute | None = None,
    ):
        """
        Args:
            groups: see `groups_of`; parameters with `requires_grad` False are left out.
            momentum: of "sgd" and "nesterov".
            beta2: of "adam" and "adamw", the decay of mean squared gradients (Kingma & Ba 2015). A memory's gradients
                are now and then a thousand times as long as usual; at 0.999 no step is of any use for long after that.
            max_gradient_norm: of all gradients together, but for groups with a limit of their own.

        Raises:
            SpecError: a group asks for an optimiser other than "sgd" or "adam".
        """
        fused = (compute or Compute()).fused
        own = {"betas": (0.9, beta2)} if rule in ("adam", "adamw") else {}
        makers: dict[str, Callable[[_Given], torch.optim.Optimizer]] = {
            "chosen": lambda given: _make(rule, [group | own for group in given], momentum, fused),
            "adam": lambda given: _make("adam", given, momentum, fused),
            "plain": lambda given: _make("sgd", given, 0.0, fused),
        }
        given = _by_rule(groups, learning_rate, weight_decay)
        self._parts = {name: make(given[name]) for name, make in makers.items() if name in given}
        self._clips = _clips(groups, max_gradient_norm)
        self._groups = [group for part in self._parts.values() for group in part.param_groups]
        self._rates = [group["lr"] for group in self._groups]

    def step(self, loss: Tensor) -> None:
        """One step down `loss`, a scalar. Nothing waits for the device."""
        for group in self._groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()
        for clip in self._clips:
            gradients = [parameter.grad for parameter in clip.parameters if parameter.grad is not None]
            norm = get_total_norm(gradients)
            if norm.is_cuda or norm > clip.max_norm:
                clip_grads_with_norm_(clip.parameters, clip.max_norm, norm)
        for part in self._parts.values():
            part.lean_step() if isinstance(part, LeanAdam) else part.step()

    def scale_rates(self, factor: float) -> None:
        """Set every rate to `factor` times what it was at the start."""
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        self._groups = [group for part in self._parts.values() for group in part.param_groups]  # others now


def groups_of(encoder: Encoder, parameters: Iterable[nn.Parameter]) -> list[Group]:
    """The groups of `encoder`, as far as they are among `parameters`; those in none of them make one more."""
    wanted = {id(parameter): parameter for parameter in parameters}
    groups = []
    for group in encoder.parameter_groups():
        members = [wanted.pop(id(parameter)) for parameter in group.parameters if id(parameter) in wanted]
        if members:
            groups.append(group._replace(parameters=members))
    return [*groups, Group("rest", list(wanted.values()))] if wanted else groups


def rate_factor(schedule: Schedule, fraction: float, warmup: float = 0.0) -> float:
    """What to multiply the rate with when `fraction` of the updates are done.

    Over the first `warmup` of them it rises linearly; then it stays ("constant"), or falls to 0 linearly or as half a
    cosine. "onecycle" is "cosine" with a warmup of 0.3 unless another is given.
    """
    if schedule == "onecycle" and not warmup:
        warmup = _ONECYCLE_WARMUP
    if fraction < warmup:
        return max(fraction / warmup, 0.01)
    left = (1 - fraction) / (1 - warmup) if warmup < 1 else 1.0
    if schedule == "constant":
        return 1.0
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def _by_rule(groups: Sequence[Group], learning_rate: float, weight_decay: float) -> dict[str, _Given]:
    """The parameters that learn, by whose rule ("chosen": the user's), in groups of one rate and decay.

    Raises:
        SpecError: a group asks for an optimiser other than "sgd" or "adam".
    """
    names = {None: "chosen", "sgd": "plain", "adam": "adam"}
    found: dict[str, dict[tuple[float, float], list[nn.Parameter]]] = {}
    for group in groups:
        if group.optimizer not in names:
            raise SpecError(f"group {group.name!r} asks for optimizer {group.optimizer!r}; there are adam and sgd")
        rate = learning_rate * group.learning_rate_factor
        for parameter in _learning(group):
            decay = weight_decay if parameter.dim() > 1 and group.optimizer is None else 0.0
            found.setdefault(names[group.optimizer], {}).setdefault((rate, decay), []).append(parameter)
    return {
        name: [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in alike.items()]
        for name, alike in found.items()
    }


def _clips(groups: Sequence[Group], max_gradient_norm: float | None) -> list[_Clip]:
    """Groups with limits of their own, and all others together."""
    clips = [
        _Clip(_learning(group), group.max_gradient_norm) for group in groups if group.max_gradient_norm is not None
    ]
    if max_gradient_norm is not None:
        rest = [parameter for group in groups if group.max_gradient_norm is None for parameter in _learning(group)]
        clips.append(_Clip(rest, max_gradient_norm))
    return [clip for clip in clips if clip.parameters]


def _learning(group: Group) -> list[nn.Parameter]:
    return [parameter for parameter in group.parameters if parameter.requires_grad]


def _make(rule: Rule, groups: _Given, momentum: float, fused: bool) -> torch.optim.Optimizer:
    kernels = {"fused": True} if fused else {"foreach": True}
    rate = groups[0]["lr"]  # every group has its own; torch wants one besides
    if rule == "adam" and fused and not any(group["weight_decay"] for group in groups):
        return LeanAdam(groups, lr=rate, fused=True)
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(groups, lr=rate, **kernels),  # type: ignore[arg-type]
        "adamw": lambda: torch.optim.AdamW(groups, lr=rate, **kernels),  # type: ignore[arg-type]
        "sgd": lambda: torch.optim.SGD(groups, lr=rate, momentum=momentum, **kernels),  # type: ignore[arg-type]
        "nesterov": lambda: torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True, **kernels),  # type: ignore[arg-type]
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=rate, foreach=True),
        "adagrad": lambda: torch.optim.Adagrad(groups, lr=rate, foreach=True),
    }
    return makers[rule]()
