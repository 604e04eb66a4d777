"""Every encoder with every kind of observation it reads, and the test doubles: what the contract is tested on.

A new file in `encoders/` is found here by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from doubles import BatchNormAutoencoder, MomentumContrast, PersistentRBM, TinyDNC
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import list_encoders, make_encoder
from saccade.encoders.base import Encoder, Inputs, Learner, Trajectory, WithMemory
from saccade.envs.errors import SpecError
from saccade.envs.spec import ObservationSpec
from torch import Tensor, nn

SPECS = {
    "vector": ObservationSpec((6,)),
    "bounded": ObservationSpec((6,), low=-2.0, high=(1.0, 2.0, 3.0, 1.0, 2.0, 3.0)),
    "image": ObservationSpec((4, 36, 36), "uint8", 0.0, 255.0, stack=2),
    "oblong": ObservationSpec((3, 40, 52), "uint8", 0.0, 255.0),
    "tokens": ObservationSpec((7,), "int64", 0.0, 19.0, vocabulary=20),
}
MAP = ObservationSpec((5, 3, 4))  # features of an encoder in front, for those that read nothing else
DOUBLES: dict[str, Callable[[ObservationSpec], Encoder]] = {
    "autoencoder": BatchNormAutoencoder,
    "rbm": PersistentRBM,
    "contrast": MomentumContrast,
    "dnc": TinyDNC,
}
T, B = 5, 3


class Case(NamedTuple):
    """One encoder with one kind of observation."""

    make: Callable[[ObservationSpec], Encoder]
    spec: ObservationSpec

    def build(self, seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        return self.make(self.spec)


def remembering(perception: Callable[[ObservationSpec], Encoder]) -> Callable[[ObservationSpec], Encoder]:
    def make(spec: ObservationSpec) -> Encoder:
        perceiving = perception(spec)
        return WithMemory(perceiving, TinyDNC(ObservationSpec(perceiving.feature_shape)))

    return make


def built_in(name: str) -> Callable[[ObservationSpec], Encoder]:
    return lambda spec: make_encoder(name, spec)


def reads(make: Callable[[ObservationSpec], Encoder], spec: ObservationSpec) -> bool:
    try:
        make(spec)
    except SpecError:
        return False
    return True


MAKERS = {
    **{name: built_in(name) for name in list_encoders()},
    **{f"double-{name}": make for name, make in DOUBLES.items()},  # some built-in encoders bear the same names
    "conv+dnc": remembering(built_in("conv")),
    "double-autoencoder+dnc": remembering(BatchNormAutoencoder),
}
CASES = {
    f"{name}-{kind}": Case(make, spec)
    for name, make in MAKERS.items()
    for kind, spec in SPECS.items()
    if reads(make, spec)
}
CASES["attention-map"] = Case(built_in("attention"), MAP)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def observations(spec: ObservationSpec, *shape: int, seed: int = 0) -> Tensor:
    """Random observations `[*shape, ...]` within the bounds of `spec`."""
    generator = np.random.default_rng(seed)
    if np.issubdtype(spec.dtype, np.integer):
        return torch.from_numpy(generator.integers(0, int(np.max(spec.high)) + 1, (*shape, *spec.shape), spec.dtype))
    low, high = (np.clip(bound, -3, 3) for bound in (spec.low, spec.high))
    return torch.from_numpy(generator.uniform(low, high, (*shape, *spec.shape)).astype(spec.dtype))


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(ours: object, theirs: object, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def advanced_state(encoder: Encoder, spec: ObservationSpec) -> tuple[Tensor, ...]:
    """A state that is not the initial one, where there is a state."""
    return encoder(Inputs(observations(spec, 2, B, seed=9)), encoder.initial_state(B))[1]


def trajectory(spec: ObservationSpec, encoder: Encoder) -> Trajectory:
    """`window` transitions of 8 sequences, all real."""
    steps, rows = max(encoder.window, 2), 8
    return Trajectory(
        observations(spec, steps + 1, rows),
        torch.randint(2, (steps, rows)),
        torch.randn(steps, rows),
        torch.ones(steps, rows),
        torch.zeros(steps + 1, rows, dtype=torch.bool),
        torch.ones(steps, rows, dtype=torch.bool),
    )


def head_for(encoder: Encoder) -> nn.Linear:
    return nn.Linear(int(np.prod(encoder.feature_shape)), 3)


def total_loss(encoder: Encoder, head: nn.Linear, spec: ObservationSpec) -> Tensor:
    """A policy gradient through `head`, over two episodes per row, and all that the encoder says it learns from."""
    batch = trajectory(spec, encoder)
    steps, rows = batch.action.shape
    reset = torch.zeros(steps, rows, dtype=torch.bool)
    reset[0], reset[1, ::2] = True, True
    features, _ = encoder(Inputs(batch.obs[:-1]), encoder.initial_state(rows), reset)
    log_prob = head(features.flatten(2)).log_softmax(-1).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    loss = -(log_prob * batch.reward).mean()
    losses = list(encoder.auxiliary_losses(batch, features).values())
    learners = [part for part in encoder.modules() if isinstance(part, Learner)]
    inner = {id(part) for learner in learners for part in list(learner.modules())[1:]}  # a stack's own layers
    for part in learners:
        if id(part) not in inner:
            for stage in part.stages():
                x = batch.obs[:-1].flatten(0, 1)
                losses += stage.loss({"x": stage.input(x) if stage.input else x}).values()
    return loss + sum(auxiliary.mean() for auxiliary in losses)


def advance(encoder: Encoder, spec: ObservationSpec, updates: int = 2) -> None:
    """Train `encoder` a little, by a small test agent."""
    head = head_for(encoder.train())
    optimisers = Optimisers(head.parameters(), encoder, learning_rate=1e-2)
    for _ in range(updates):
        optimisers.step(total_loss(encoder, head, spec))
        encoder.after_update()
