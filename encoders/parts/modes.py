"""How an encoder takes part in an agent's learning: one switch, for every encoder and every agent.

| mode | weights at the start | the agent's gradient | the encoder's own losses |
| --- | --- | --- | --- |
| `scratch` | random | trains it | off |
| `frozen` | pre-trained, or random features | does not reach it | off |
| `finetune` | pre-trained | trains it | off |
| `cotrain` | pre-trained or random | trains it | trained beside, with a weight |

Agents know nothing of this. `Adapted` is an encoder like any other that answers for the one inside: which parameters
train and how fast, and which losses of its own it adds. A frozen encoder is no part of the agent at all: it becomes a
view of the world (`training.encoded`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...envs.errors import UserError
from ...envs.spec import ObservationSpec
from ..base import Encoder, Group, Inputs, State, Trajectory

Mode = Literal["scratch", "frozen", "finetune", "cotrain"]


class Adapted(Encoder):
    """`inner`, learning `rate` times as fast, its own losses counted `weight` times; 0 switches them off.

    Without its own losses, parameters that no gradient of the agent reaches (a decoder's) stay as they are and are no
    longer trained, and groups that ask for plain gradient descent, which their rule needs, get the agent's optimiser.
    """

    def __init__(self, inner: Encoder, spec: ObservationSpec, rate: float = 1.0, weight: float = 0.0):
        """`spec` says what `inner` reads.

        Raises:
            UserError: nothing of `inner` would be trained.
        """
        super().__init__()
        self.inner, self.rate, self.weight = inner, rate, weight
        self.feature_shape, self.causal = inner.feature_shape, inner.causal
        self.window = inner.window if weight else 0
        if not weight:
            for parameter in unreached(inner, spec):
                parameter.requires_grad_(False)
            if not any(parameter.requires_grad for parameter in inner.parameters()):
                raise UserError(
                    "no gradient of the agent reaches a parameter of this encoder: use it frozen, or co-train it"
                )

    def initial_state(self, batch_size: int) -> State:
        return self.inner.initial_state(batch_size)

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        return self.inner(inputs, state, reset)

    def read_sequences(self, inputs: Inputs, reset: Tensor | None = None) -> Tensor:
        return self.inner.read_sequences(inputs, reset)

    def read(self, obs: Tensor) -> Tensor:
        return self.inner.read(obs)

    def augment(self, obs: Tensor) -> Tensor:
        return self.inner.augment(obs)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        """The encoder's own losses times `weight`."""
        if not self.weight:
            return {}
        return {name: self.weight * loss for name, loss in self.inner.auxiliary_losses(batch, features).items()}

    def parameter_groups(self) -> list[Group]:
        groups = self.inner.parameter_groups()
        if not self.weight:
            groups = [g if g.optimizer is None else Group(g.name, g.parameters) for g in groups]
        return [group._replace(learning_rate_factor=self.rate * group.learning_rate_factor) for group in groups]

    def after_update(self) -> None:
        self.inner.after_update()


def adapt(encoder: Encoder, spec: ObservationSpec, mode: Mode, rate: float = 1.0, weight: float = 1.0) -> Encoder:
    """`encoder`, which holds its first weights already, as an agent is to train it.

    Args:
        spec: what it reads.
        mode: any but "frozen".
        rate: times the agent's learning rate.
        weight: of its own losses, where `mode` is "cotrain".

    Raises:
        UserError: it has no losses of its own to co-train with, or nothing of it would be trained.
    """
    if mode == "cotrain":
        if not encoder.window:
            raise UserError("this encoder has no losses of its own to co-train with; use another --encoder-mode")
        return Adapted(encoder, spec, rate, weight)
    if mode == "scratch" and rate == 1 and not encoder.window:
        return encoder  # as it is
    return Adapted(encoder, spec, rate)


def freeze(encoder: Encoder) -> Encoder:
    """`encoder` in eval mode, none of its parameters training."""
    return encoder.eval().requires_grad_(False)


def unreached(encoder: Encoder, spec: ObservationSpec) -> list[nn.Parameter]:
    """The training parameters that its features of observations of `spec` do not depend on. Changes nothing."""
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    modes = {module: module.training for module in encoder.modules()}
    device = parameters[0].device if parameters else None
    obs = torch.zeros(1, 2, *spec.shape, dtype=getattr(torch, spec.dtype), device=device)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            features, _ = encoder.eval()(Inputs(obs), encoder.initial_state(2))
            if not features.requires_grad:
                return parameters
            gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    finally:
        for module, training in modes.items():
            module.training = training
    return [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is None]


def augments(encoder: Encoder, spec: ObservationSpec) -> bool:
    """Whether it changes sampled batches at random, judged by a batch of noise. torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        obs = (torch.rand(1, 8, *spec.shape) * 256).to(getattr(torch, spec.dtype))
        return not torch.equal(encoder.augment(obs), obs)


class Share(NamedTuple):
    """Some of a network's parameters, and what becomes of them."""

    name: str
    parameters: int
    rate: float | None  # times the agent's learning rate; None: they do not train


def shares(network: nn.Module, encoder: Encoder) -> list[Share]:
    """Who trains how fast in `network`, of which `encoder` is a part: the head, each group, and what is frozen."""
    inside = {id(parameter) for parameter in encoder.parameters()}
    found = [Share("head", _count(p for p in network.parameters() if id(p) not in inside), 1.0)]
    for group in encoder.parameter_groups():
        name = group.name if group.name == "encoder" else f"encoder, {group.name}"
        found.append(Share(name, _count(group.parameters), group.learning_rate_factor))
        inside -= {id(parameter) for parameter in group.parameters if parameter.requires_grad}
    still = sum(parameter.numel() for parameter in encoder.parameters() if id(parameter) in inside)
    return [share for share in [*found, Share("encoder, the rest", still, None)] if share.parameters]


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
