"""What agents do with networks: copies that share or follow parameters, and heads."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .q_losses import dueling


def acting_copy(module: nn.Module) -> nn.Module:
    """A second handle on `module`'s parameters and buffers, in eval mode for good.

    Acting then never switches the training network's mode to and fro, and never changes its buffers. Parameters and
    buffers are the same tensors, so they must be changed in place. Weights that autocast would convert at every call
    are converted once after every change.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared).eval()
    for layer in copied.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and type(layer) in (nn.Linear, nn.Conv2d):  # no subclasses
            layer.forward = _KeptCast(layer)  # type: ignore[assignment]
    return copied


class _KeptCast:
    """The forward pass of a layer, whose weight in autocast's number format is kept until the weight changes.

    A change is seen by the version that torch counts for every tensor; who writes to a parameter's memory otherwise
    calls `torch.autograd.graph.increment_version`. Keeps nothing for gradients: use it without them.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d):
        self.layer, self._plain = layer, layer.forward
        self._seen: tuple[int, int, torch.dtype] | None = None
        self._kept = layer.weight

    def __call__(self, x: Tensor) -> Tensor:
        layer, device = self.layer, x.device.type
        if not torch.is_autocast_enabled(device) or torch.is_grad_enabled():
            return self._plain(x)
        weight, dtype = layer.weight, torch.get_autocast_dtype(device)
        now = weight.data_ptr(), weight._version, dtype
        if now != self._seen:
            self._seen, self._kept = now, weight.detach().to(dtype)
        if isinstance(layer, nn.Linear):
            return F.linear(x, self._kept, layer.bias)
        return layer._conv_forward(x, self._kept, layer.bias)


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
