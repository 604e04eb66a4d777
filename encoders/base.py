"""The encoder's contract: observations `[T, B, ...]` and a state go in, features `[T, B, ...]` and a state come out.

An encoder without memory folds time into the batch (`FeedForward`); one with memory carries a `State` whose leaves are
`[B, ...]`. What an encoder learns by itself it says as losses (`Learner`, `Encoder.auxiliary_losses`), so that one
training program serves every learning rule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..envs.spec import ActionSpec, ObservationSpec

State = tuple[Tensor, ...]  # every leaf [B, ...]; () for an encoder without memory


class Inputs(NamedTuple):
    """What an encoder reads; every tensor is `[T, B, ...]`."""

    obs: Tensor
    last_action: Tensor | None = None  # what was done before `obs` was seen, int64 or float32; given to memories
    last_reward: Tensor | None = None  # float32; likewise
    mask: Tensor | None = None  # bool; False = padding: the state passes through unchanged


class Trajectory(NamedTuple):
    """A batch of consecutive transitions, for auxiliary losses."""

    obs: Tensor  # [T + 1, B, ...]
    action: Tensor  # [T, B] int64, or [T, B, *shape] float32
    reward: Tensor  # [T, B] float32, not clipped
    discount: Tensor  # [T, B] float32
    reset: Tensor  # [T + 1, B] bool: this observation is the first of its episode
    mask: Tensor  # [T, B] bool: the transition is real


class Group(NamedTuple):
    """Parameters that want an optimiser setting of their own."""

    name: str
    parameters: list[nn.Parameter]
    learning_rate_factor: float = 1.0  # times the agent's or trainer's rate
    max_gradient_norm: float | None = None  # None: clipped with the rest of the encoder
    optimizer: str | None = None  # "sgd" where the learning rule needs the plain gradient; None: the trainer's choice


class Stage(NamedTuple):
    """One phase of training alone, such as one layer of a greedy stack."""

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    epochs: float = 1.0  # share of the run's epochs, relative to the other stages
    input: Callable[[Tensor], Tensor] | None = None  # computed once before the stage; None: the data as it is
    finish: Callable[[], None] | None = None
    monitor: Callable[[Tensor, Tensor], dict[str, Tensor]] | None = None  # of inputs "x" in training and validation


class Encoder(nn.Module, ABC):
    """Observations to features. Subclasses are final: override only what is abstract, or documented as a hook."""

    feature_shape: tuple[int, ...]  # flat `(D,)`, or a map `(C, H, W)` for attention and deconvolution heads
    causal: bool = True  # False: reads the future too, so it serves supervised tasks only
    window: int = 0  # consecutive transitions that `auxiliary_losses` asks for; 0: it has none
    needs_labels: bool = False  # pretraining on data that have none would learn something else than was asked for

    def initial_state(self, batch_size: int) -> State:
        """The state before the first observation of an episode. It may be learned."""
        return ()

    @abstractmethod
    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Encode T consecutive observations of B sequences.

        Args:
            inputs: tensors `[T, B, ...]`; acting is T = 1.
            state: leaves `[B, ...]`, before the first observation.
            reset: bool `[T, B]`; where True the state is set to `initial_state` before that observation is read.
                None promises that there is none.

        Returns:
            features `[T, B, *feature_shape]` in float32, or the autocast type, and the state after the last step.
        """

    def read(self, obs: Tensor) -> Tensor:
        """Features `[N, *feature_shape]` of single observations `[N, ...]`, each the first of its episode."""
        reset = torch.ones(1, len(obs), dtype=torch.bool, device=obs.device)
        return self(Inputs(obs.unsqueeze(0)), self.initial_state(len(obs)), reset)[0].squeeze(0)

    def read_sequences(self, inputs: Inputs, reset: Tensor | None = None) -> Tensor:
        """Features `[T, B, *feature_shape]` from the initial state on, where the state afterwards is not asked for: a
        hook for those to whom it is dear."""
        return self(inputs, self.initial_state(inputs.obs.shape[1]), reset)[0]

    def augment(self, obs: Tensor) -> Tensor:
        """Random augmentation of a sampled batch `[T, B, ...]`, one draw per sequence. Never called to act."""
        return obs

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        """Losses (scalars) the encoder adds beside the agent's own, by name.

        `features` are those of `batch.obs[:-1]` where the agent has computed them already, else None.
        """
        return {}

    def compile_step(self) -> bool:
        """A hook of `--compile` for those that walk through sequences, which as a whole take too long to compile: has
        torch compile what is done at each step. Returns whether there is such a thing."""
        return False

    def parameter_groups(self) -> list[Group]:
        """Who trains how. The default: all parameters in one group, at the trainer's rate."""
        return [Group("encoder", list(self.parameters()))]

    def after_update(self) -> None:
        """Called after each optimiser step: momentum copies, unit-norm dictionaries."""


@runtime_checkable
class Learner(Protocol):
    """What an encoder also offers when it can be trained on its own."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name, `[N]` or a scalar for batch-level terms. `batch["x"]` is `[N, ...]`; `batch["label"]`, where
        there is one, int64 `[N]` with -1 for none."""
        ...

    def stages(self) -> Sequence[Stage]: ...


class FeedForward(Encoder):
    """An encoder without memory: subclasses write `encode`."""

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        steps, batch = inputs.obs.shape[:2]
        features = self.encode(inputs.obs.flatten(0, 1))
        return features.unflatten(0, (steps, batch)), state

    def read(self, obs: Tensor) -> Tensor:
        return self.encode(obs)

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Observations `[N, ...]` to features `[N, *feature_shape]`."""


class WithMemory(Encoder):
    """`memory` behind `perception`: the memory reads the perception's features as its observations.

    Where `action` says what an agent does, it reads behind them, flattened, what was done last (one-hot where actions
    are discrete) and what that earned, sign(r) log(1 + |r|); zeros before the first step of an episode.
    """

    def __init__(self, perception: Encoder, memory: Encoder, action: ActionSpec | None = None):
        """`memory` reads observations of `remembered(perception, action)`."""
        super().__init__()
        self.perception, self.memory, self.action = perception, memory, action
        self.feature_shape = memory.feature_shape
        self.causal = perception.causal and memory.causal
        self.window = perception.window

    def perceive(self, obs: Tensor) -> Tensor:
        """Features `[T, B, ...]` before the memory, for heads that must not see it."""
        return self.perception(Inputs(obs))[0]

    def initial_state(self, batch_size: int) -> State:
        return self.memory.initial_state(batch_size)

    def forward(self, inputs: Inputs, state: State = (), reset: Tensor | None = None) -> tuple[Tensor, State]:
        return self.memory(self._perceived(inputs, reset), state, reset)

    def read_sequences(self, inputs: Inputs, reset: Tensor | None = None) -> Tensor:
        return self.memory.read_sequences(self._perceived(inputs, reset), reset)

    def _perceived(self, inputs: Inputs, reset: Tensor | None) -> Inputs:
        """What the memory reads."""
        features = self.perceive(inputs.obs)
        if self.action is not None:
            last = self._last(inputs, self.action, features)
            last = last if reset is None else last * ~reset.unsqueeze(-1)
            features = torch.cat([features.flatten(2), last], dim=-1)
        return inputs._replace(obs=features)

    def _last(self, inputs: Inputs, action: ActionSpec, like: Tensor) -> Tensor:
        """`[T, B, actions + 1]`"""
        done, earned = inputs.last_action, inputs.last_reward
        if done is None or earned is None:
            return like.new_zeros((*like.shape[:2], _width(action) + 1))
        earned = earned.sign() * earned.abs().log1p()
        if action.is_discrete:
            done = nn.functional.one_hot(done, action.count)
        return torch.cat([done.flatten(2).to(like.dtype), earned.unsqueeze(-1).to(like.dtype)], dim=-1)

    def augment(self, obs: Tensor) -> Tensor:
        return self.perception.augment(obs)

    def auxiliary_losses(self, batch: Trajectory, features: Tensor | None) -> dict[str, Tensor]:
        return self.perception.auxiliary_losses(batch, None)

    def parameter_groups(self) -> list[Group]:
        return [
            group._replace(name=f"{part}.{group.name}")
            for part, module in (("perception", self.perception), ("memory", self.memory))
            for group in module.parameter_groups()
        ]

    def after_update(self) -> None:
        self.perception.after_update()
        self.memory.after_update()


def _width(action: ActionSpec) -> int:
    return action.count if action.is_discrete else math.prod(action.shape)


def remembered(perception: Encoder, action: ActionSpec | None = None) -> ObservationSpec:
    """What the memory in `WithMemory(perception, memory, action)` reads."""
    if action is None:
        return ObservationSpec(perception.feature_shape)
    return ObservationSpec((math.prod(perception.feature_shape) + _width(action) + 1,))


def reset_state(state: State, initial: State, reset: Tensor | None) -> State:
    """`state`, with `initial` in the rows where `reset` (bool `[B]`) is True; gradients do not cross."""
    if reset is None:
        return state
    return tuple(
        torch.where(reset.view(-1, *[1] * (leaf.dim() - 1)), start, leaf)
        for leaf, start in zip(state, initial, strict=True)
    )


def keep_state(old: State, new: State, mask: Tensor | None) -> State:
    """`new`, with `old` in the rows where `mask` (bool `[B]`) is False: padding leaves the state as it was."""
    if mask is None:
        return new
    return tuple(torch.where(mask.view(-1, *[1] * (b.dim() - 1)), b, a) for a, b in zip(old, new, strict=True))


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(training, frozen) numbers of parameters."""
    counts = [0, 0]
    for parameter in module.parameters():
        counts[0 if parameter.requires_grad else 1] += parameter.numel()
    return counts[0], counts[1]
