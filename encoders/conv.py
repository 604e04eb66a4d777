"""Convolutional encoder of Nature DQN (Mnih et al. 2015, Methods, "Model architecture")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward
from .parts.augment import random_shift
from .parts.images import FlattenPixels, ScaledConv2d, require_image
from .parts.initialise import Initialisation, initialise

kind = "Nature DQN's three convolutions and a dense layer, for images"


@dataclass(frozen=True)
class Config:
    width: int = 1  # multiplies the 32, 64, 64 channels
    hidden: int = 512  # units of the dense layer; 0 = none, the features are the last map [64, H', W']
    initialisation: Initialisation = "orthogonal"  # of the weights; biases start at 0
    layer_norm: bool = False  # before every ReLU, over a map and its places together (Ba et al. 2016, arXiv:1607.06450)
    shift: int = 0  # random shift of sampled batches, in pixels (Kostrikov et al. 2020: 4); 0 = off


class Conv(FeedForward):
    """8x8 stride 4, 4x4 stride 2, 3x3 stride 1, each with ReLU, then a dense layer with ReLU; layer
    normalisation before these is optional."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        w = config.width
        layers: list[nn.Module] = []
        for convolution in (
            ScaledConv2d(spec.shape[0], 32 * w, 8, 4),
            nn.Conv2d(32 * w, 64 * w, 4, 2),
            nn.Conv2d(64 * w, 64 * w, 3, 1),
        ):
            layers.append(convolution)
            layers += [nn.GroupNorm(1, convolution.out_channels)] * config.layer_norm
            layers.append(nn.ReLU(inplace=True))
        self.convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            map_shape = self.convolutions(torch.zeros(1, *spec.shape, dtype=torch.uint8)).shape[1:]
        self.feature_shape: tuple[int, ...] = tuple(map_shape)
        self.dense: nn.Module = nn.Identity()
        if config.hidden:
            dense = nn.Linear(map_shape.numel(), config.hidden)
            norm = [nn.LayerNorm(config.hidden)] * config.layer_norm
            self.dense = nn.Sequential(FlattenPixels(), dense, *norm, nn.ReLU(inplace=True))
            self.feature_shape = (config.hidden,)
        initialise(self, config.initialisation)

    def encode(self, x: Tensor) -> Tensor:
        return self.dense(self.convolutions(x))

    def augment(self, obs: Tensor) -> Tensor:
        return random_shift(obs, self.config.shift) if self.config.shift else obs


def build(config: Config, spec: ObservationSpec) -> Conv:
    """Raises SpecError for anything but images of at least 36x36, UserError for sizes that make no sense."""
    require_image(spec, "conv", smallest=36)
    if config.width < 1 or config.hidden < 0 or config.shift < 0:
        raise UserError("conv: width must be positive, hidden and shift not negative")
    return Conv(config, spec)
