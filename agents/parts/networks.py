"""What agents do with networks: copies that share or follow parameters, and heads."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .q_losses import dueling


def acting_copy(module: nn.Module) -> nn.Module:
    """A second handle on `module`'s parameters and buffers, in eval mode for good.

    Acting then never switches the training network's mode to and fro, and never changes its buffers. Parameters and
    buffers are the same tensors, so they must be changed in place.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared).eval()


def target_copy(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A frozen copy in eval mode, its parameters in `dtype` where given."""
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    return copied if dtype is None else copied.to(dtype)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Move `target`'s parameters towards `online`'s by `rate`; 1 copies. Buffers are copied."""
    for mine, its in zip(target.parameters(), online.parameters(), strict=True):
        mine.copy_(its) if rate == 1 else mine.lerp_(its, rate)
    for kept, current in zip(target.buffers(), online.buffers(), strict=True):
        kept.copy_(current)


def dense(sizes: Sequence[int], output_gain: float) -> nn.Sequential:
    """Linear layers with ReLU between them; orthogonal weights, the last layer scaled by `output_gain`."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        if number:
            layers.append(nn.ReLU())
        linear = nn.Linear(inputs, outputs)
        last = number == len(sizes) - 2
        nn.init.orthogonal_(linear.weight, output_gain if last else nn.init.calculate_gain("relu"))
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    return nn.Sequential(*layers)


class QHead(nn.Module):
    """Features `[..., D]` to action values `[..., A]`, as one stream or two (dueling)."""

    def __init__(self, features: int, actions: int, hidden: tuple[int, ...], *, is_dueling: bool):
        super().__init__()
        self.advantage = dense([features, *hidden, actions], 1.0)
        self.value = dense([features, *hidden, 1], 1.0) if is_dueling else None

    def forward(self, features: Tensor) -> Tensor:
        advantage = self.advantage(features).float()
        return advantage if self.value is None else dueling(self.value(features).float(), advantage)
