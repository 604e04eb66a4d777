"""The optimisers of an agent: its head and its encoder, each with the rate, rule and clipping it asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from ...encoders.base import Encoder
from ...envs.errors import SpecError
from .compute import Compute


class _Clip(NamedTuple):
    """Parameters whose gradients are clipped together."""

    parameters: list[nn.Parameter]
    max_norm: float | None


class LeanAdam(torch.optim.Adam):
    """torch's fused Adam, without the bookkeeping that takes longer than the step itself for small networks.

    The first step, and any in which some parameter has no gradient, are torch's own.
    """

    _ready: list[tuple[dict[str, Any], list[list[Tensor]]]] | None = None  # per group: parameters and their state

    def lean_step(self) -> None:
        if self._ready is None or any(p.grad is None for group, _ in self._ready for p in group["params"]):
            self.step()
            self._prepare()
            return
        with torch.no_grad():
            for group, (averages, squares, steps) in self._ready:
                parameters, (beta1, beta2) = group["params"], group["betas"]
                torch._foreach_add_(steps, 1)
                torch._fused_adam_(
                    parameters,
                    [p.grad for p in parameters],
                    averages,
                    squares,
                    [],
                    steps,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=0.0,
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )

    def _prepare(self) -> None:
        """Gather the state of all parameters into lists, once every parameter has some."""
        if all(p in self.state for group in self.param_groups for p in group["params"]):
            names = ("exp_avg", "exp_avg_sq", "step")
            self._ready = [
                (g, [[self.state[p][name] for p in g["params"]] for name in names]) for g in self.param_groups
            ]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._ready = None  # the state is other tensors now


class RMSProp(torch.optim.Optimizer):
    """g <- decay g + (1 - decay) gradient^2; p <- p - rate gradient / sqrt(g + epsilon) (Tieleman and Hinton 2012).

    `epsilon` stands inside the root, as Mnih et al. 2016 (section 4) write it and their constants mean it; torch's own
    stands outside. The statistics g begin at 0 and exist from the start, so that processes can share them.
    """

    def __init__(self, params: Any, lr: float, decay: float = 0.99, epsilon: float = 1e-5):
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["square"] = torch.zeros_like(parameter)
        # room for sqrt(g + epsilon)
        self._roots = {p: torch.empty_like(p) for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients: Any = [p.grad for p in parameters]
            squares = [self.state[p]["square"] for p in parameters]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = [self._roots[p] for p in parameters]
            for square, root in zip(squares, roots, strict=True):
                torch.add(square, group["epsilon"], out=root)
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])


class Optimisers:
    """Adam (or RMSProp) for the head and the encoder, plain SGD for the groups of the encoder that ask for it.

    Head and encoder gradients are clipped apart, each to `max_gradient_norm`, so that neither starves the other; groups
    with a limit of their own are clipped alone. Frozen parameters (`requires_grad` False) are left out. `learning_rate`
    is multiplied by a group's `learning_rate_factor`. The caller calls `encoder.after_update()` after each step.
    """

    def __init__(
        self,
        head: Iterable[nn.Parameter],
        encoder: Encoder,
        *,
        learning_rate: float,
        epsilon: float = 1e-8,
        max_gradient_norm: float | None = None,
        compute: Compute | None = None,
        rmsprop_decay: float | None = None,
        more_heads: Sequence[Iterable[nn.Parameter]] = (),
    ):
        """`compute` chooses fused kernels (default: `Compute()`); `rmsprop_decay` is given for RMSProp instead of Adam;
        `more_heads` are trained as the head is, each clipped alone.

        Raises:
            SpecError: a group of the encoder asks for an optimiser other than "adam" or "sgd".
        """
        compute = compute or Compute()
        heads = [_trainable(each) for each in (head, *more_heads)]
        head_parameters = list(itertools.chain(*heads))
        # parameters of equal rate share one group: one kernel call for all of them
        by_rule: dict[str, dict[float, list[nn.Parameter]]] = {"adam": {}, "sgd": {}, "rmsprop": {}}
        default = "adam" if rmsprop_decay is None else "rmsprop"
        if head_parameters:
            by_rule[default][learning_rate] = head_parameters
        rest: list[nn.Parameter] = []  # of the encoder, clipped together
        self._clips = [_Clip(parameters, max_gradient_norm) for parameters in (*heads, rest)]
        for group in encoder.parameter_groups():
            parameters = _trainable(group.parameters)
            rule = group.optimizer or default
            if rule not in ("adam", "sgd", default):
                raise SpecError(f"encoder group {group.name!r} asks for optimizer {rule!r}; there are adam and sgd")
            if not parameters:
                continue
            by_rule[rule].setdefault(learning_rate * group.learning_rate_factor, []).extend(parameters)
            if group.max_gradient_norm is None:
                rest.extend(parameters)
            else:
                self._clips.append(_Clip(parameters, group.max_gradient_norm))
        self._clips = [clip for clip in self._clips if clip.parameters]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        kernels = {"fused": True} if compute.fused else {"foreach": True}
        groups = {name: [{"params": ps, "lr": lr} for lr, ps in rates.items()] for name, rates in by_rule.items()}
        if groups["adam"]:
            adam = LeanAdam if compute.fused else torch.optim.Adam
            self._parts["adam"] = adam(groups["adam"], lr=learning_rate, eps=epsilon, **kernels)  # type: ignore[arg-type]
        if groups["sgd"]:
            self._parts["sgd"] = torch.optim.SGD(groups["sgd"], lr=learning_rate, **kernels)  # type: ignore[arg-type]
        if groups["rmsprop"]:
            assert rmsprop_decay is not None
            self._parts["rmsprop"] = RMSProp(groups["rmsprop"], learning_rate, rmsprop_decay, epsilon)
        self._rates = {name: [group["lr"] for group in part.param_groups] for name, part in self._parts.items()}

    def step(self, loss: Tensor) -> Tensor | float:
        """One step down `loss` (a scalar). Returns the norm of all gradients before clipping."""
        self.clear()
        loss.backward()
        return self.apply()

    def clear(self) -> None:
        """Forget gradients; between `clear` and `apply` the caller may call `backward` many times to accumulate."""
        for clip in self._clips:
            for parameter in clip.parameters:
                parameter.grad = None

    def apply(self) -> Tensor | float:
        """Clip and apply the gradients that `backward` has left. Returns their norm before clipping."""
        norm = self.clip()
        for optimizer in self._parts.values():  # those without gradients do nothing
            optimizer.lean_step() if isinstance(optimizer, LeanAdam) else optimizer.step()
        for clip in self._clips:  # fused kernels do not say so themselves
            torch.autograd.graph.increment_version(clip.parameters)
        return norm

    def clip(self) -> Tensor | float:
        """Clip the gradients that `backward` has left and apply none: somebody else does. Returns their norm before."""
        reached = [[p.grad for p in clip.parameters if p.grad is not None] for clip in self._clips]
        gradients = [gradient for part in reached for gradient in part]
        if not gradients:
            return 0.0
        # one norm per parameter in one call: small networks are bound by the number of calls
        norms = torch.stack(torch._foreach_norm(gradients))
        if norms.is_cuda:
            self._clip_unseen([torch.linalg.vector_norm(part) for part in norms.split([*map(len, reached)])])
            return torch.linalg.vector_norm(norms)
        values = iter(norms.tolist())  # reading them costs nothing here, and gradients are mostly short enough already
        for part, clip in zip(reached, self._clips, strict=True):
            norm = math.hypot(*itertools.islice(values, len(part)))
            if clip.max_norm is not None and norm > clip.max_norm:
                torch._foreach_mul_(part, clip.max_norm / norm)
        return math.hypot(*norms.tolist())

    def _clip_unseen(self, norms: list[Tensor]) -> None:
        """Clip without waiting for the device to tell the norms."""
        for clip, norm in zip(self._clips, norms, strict=True):
            if clip.max_norm is not None:
                clip_grads_with_norm_(clip.parameters, clip.max_norm, norm, foreach=True)

    def groups(self) -> list[tuple[str, float, list[nn.Parameter]]]:
        """(rule, learning rate as set at first, parameters) of all that trains: "adam" or "rmsprop", and "sgd"."""
        return [
            (name, rate, list(group["params"]))
            for name, part in self._parts.items()
            for group, rate in zip(part.param_groups, self._rates[name], strict=True)
        ]

    def squares(self) -> list[Tensor]:
        """RMSProp's mean squares of gradients, in the order of `groups`."""
        part = self._parts.get("rmsprop")
        return [] if part is None else [part.state[p]["square"] for group in part.param_groups for p in group["params"]]

    def scale_learning_rate(self, factor: float) -> None:
        """Set every rate to `factor` times what it was at the start, for schedules."""
        for name, part in self._parts.items():
            for group, rate in zip(part.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])


def _trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
