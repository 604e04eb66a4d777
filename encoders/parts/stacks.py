"""Dense levels, each of which codes the one below and decodes it again: stacks that can be trained level by level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...envs.errors import UserError
from ..base import Stage
from .coders import ACTIVATIONS, GAINS, Activation, BatchNorm
from .initialise import Initialisation, initialise

UnitActivation = Literal["linear", "relu", "elu", "selu", "silu", "tanh", "sigmoid"]
Error = Literal["squared", "l2_norm", "bernoulli"]


class Level(nn.Module):
    """`inputs` numbers to `units` and back."""

    def __init__(
        self,
        inputs: int,
        units: int,
        up: UnitActivation,
        *,
        tied: bool = False,
        batch_norm: bool = False,
        initialisation: Initialisation = "he",
    ):
        """`tied`: the way back uses the transposed weights. `batch_norm`: before the activation on the way up."""
        super().__init__()
        self.up = nn.Linear(inputs, units)
        self.norm = BatchNorm(units) if batch_norm else nn.Identity()
        self.activation = activation_named(up)
        self.down = None if tied else nn.Linear(units, inputs)
        self.down_bias = nn.Parameter(torch.zeros(inputs)) if tied else None
        initialise(self, initialisation, GAINS.get(up, 1.0))

    def encode(self, x: Tensor) -> Tensor:
        """`[N, inputs]` to `[N, units]`."""
        return self.activation(self.norm(self.up(x)))

    def decode(self, code: Tensor) -> Tensor:
        """`[N, units]` to `[N, inputs]`, before any activation."""
        if self.down is None:
            return F.linear(code, self.up.weight.T, self.down_bias)
        return self.down(code)

    def weights(self) -> list[Tensor]:
        return [self.up.weight, *([] if self.down is None else [self.down.weight])]


class Stack(nn.Module):
    """Levels on top of each other; a level decodes into the activation of the one below it."""

    def __init__(self, levels: Sequence[Level], batch_norm: bool = False):
        """`batch_norm`: also on the way down, before the activation of every level but the lowest."""
        super().__init__()
        self.parts = nn.ModuleList(levels)
        sizes = [level.up.out_features for level in levels[:-1]]
        self.down_norms = nn.ModuleList(BatchNorm(size) if batch_norm else nn.Identity() for size in sizes)

    @property
    def levels(self) -> list[Level]:
        """From the lowest to the highest."""
        return [cast(Level, part) for part in self.parts]

    def encode(self, x: Tensor, levels: int | None = None) -> Tensor:
        """`[N, inputs]` to the code of the highest level, or of the lowest `levels` only."""
        for level in self.levels[:levels]:
            x = level.encode(x)
        return x

    def decode(self, code: Tensor) -> Tensor:
        """The code of the highest level to `[N, inputs]`, before the last activation."""
        levels = self.levels
        for number in range(len(levels) - 1, 0, -1):
            down = self.down_norms[number - 1](levels[number].decode(code))
            code = levels[number - 1].activation(down)
        return levels[0].decode(code)


def activation_named(name: UnitActivation) -> nn.Module:
    return nn.Identity() if name == "linear" else ACTIVATIONS[name]()


def activations_between(hidden: Activation, code: UnitActivation, count: int) -> list[UnitActivation]:
    """The activation of each of `count` levels, the code's last."""
    return [*[hidden] * (count - 1), code]


def reconstruction_error(logits: Tensor, target: Tensor, error: Error, sigmoid: bool) -> Tensor:
    """`[N]` from `[N, ...]`, in float32 whatever the autocast type.

    "squared": sum over the elements. "l2_norm": its root. "bernoulli": cross-entropy in nats, `target` in 0..1.

    Args:
        logits: what the decoder says before its last activation.
        sigmoid: that activation is a sigmoid; else there is none.
    """
    logits, target = logits.flatten(1).float(), target.flatten(1).float()
    if error == "bernoulli":
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    squared = ((logits.sigmoid() if sigmoid else logits) - target).square().sum(1)
    return (squared + 1e-12).sqrt() if error == "l2_norm" else squared  # the root has no slope at 0


def greedy_stages(
    stack: Stack,
    read: Callable[[Tensor], Tensor],
    level_loss: Callable[[int, dict[str, Tensor]], dict[str, Tensor]],
) -> list[Stage]:
    """One stage per level, which reads the codes of those below it (Bengio et al. 2007, "Greedy layer-wise training").

    Args:
        read: observations `[N, ...]` to the stack's input `[N, D]`.
        level_loss: (number of the level, batch) to losses; "x" is the level's input, of the lowest the observations.
    """
    return [
        Stage(
            f"level {number + 1}",
            [*level.parameters()],
            partial(level_loss, number),
            input=partial(_codes_below, stack, read, number) if number else None,
        )
        for number, level in enumerate(stack.levels)
    ]


def _codes_below(stack: Stack, read: Callable[[Tensor], Tensor], number: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        return stack.encode(read(x), number)


def check_error(error: str, encoder: str) -> None:
    """Raise UserError for an unknown name."""
    if error not in get_args(Error):
        raise UserError(f"{encoder}: unknown loss {error!r}; known: {', '.join(get_args(Error))}")


def weight_decay(weights: Sequence[Tensor], rate: float) -> dict[str, Tensor]:
    """Half the sum of squared `weights` times `rate`, a scalar by its name; nothing where the rate is 0."""
    if not rate:
        return {}
    return {"weight_decay": rate / 2 * torch.stack([weight.square().sum() for weight in weights]).sum()}
