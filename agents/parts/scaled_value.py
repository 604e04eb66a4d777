"""A value head that learns in units of the returns' size, so that no reward needs scaling by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributions import small_linear


class ScaledValue(nn.Module):
    """Features `[..., D]` to values `[...]`: a linear layer times `scale`, the running root mean square of returns.

    When the scale changes, the layer changes with it such that no value does (Pop-Art; van Hasselt et al. 2016, without
    its shift). Without it, returns of a hundred drown a policy that shares the encoder, and returns of a hundredth are
    not learned.
    """

    def __init__(self, features: int, generator: torch.Generator, memory: int = 20):
        """`memory`: updates over which the mean square is taken, once there are so many."""
        super().__init__()
        self.layer = small_linear(features, 1, 0.01, generator)
        self.memory = memory
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self.mean_square: Tensor
        self.register_buffer("mean_square", torch.zeros(()))
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features).squeeze(-1) * self.scale

    @torch.no_grad()
    def rescale(self, returns: Tensor) -> None:
        """Take note of the returns `[N]` of an update, before it."""
        self.updates += 1
        self.mean_square.lerp_(returns.square().mean(), 1 / self.updates.clamp(max=self.memory))
        # before the first reward there is no size to go by, and an error in units of nothing would drown the policy
        scale = torch.where(self.mean_square > 0, self.mean_square.sqrt().clamp(min=1e-3), self.scale)
        for parameter in self.layer.parameters():
            parameter.mul_(self.scale / scale)
        self.scale.copy_(scale)
