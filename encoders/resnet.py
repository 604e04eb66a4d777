"""The residual encoder of IMPALA (Espeholt et al. 2018, arXiv:1802.01561, figure 3, right), without its LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward
from .parts.augment import random_shift
from .parts.images import FlattenPixels, ScaledConv2d, require_image
from .parts.initialise import Initialisation, initialise

kind = "IMPALA's residual network of 15 convolutions and a dense layer, for images"

_CHANNELS = (16, 32, 32)


@dataclass(frozen=True)
class Config:
    width: int = 1  # multiplies the 16, 32, 32 channels of the sections
    hidden: int = 256  # units of the dense layer; 0 = none, the features are the last map [32, H', W']
    initialisation: Initialisation = "orthogonal"  # of the weights; biases start at 0
    shift: int = 0  # random shift of sampled batches, in pixels (Kostrikov et al. 2020: 4); 0 = off


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3 each."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class ResNet(FeedForward):
    """Three sections of convolution, max pooling (3x3, stride 2) and two residual blocks; ReLU; a dense layer; ReLU."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        sections: list[nn.Module] = []
        channels = spec.shape[0]
        for index, base in enumerate(_CHANNELS):
            inputs, channels = channels, base * config.width
            convolution = (nn.Conv2d if index else ScaledConv2d)(inputs, channels, 3, padding=1)
            sections += [convolution, nn.MaxPool2d(3, stride=2, padding=1)]
            sections += [ResidualBlock(channels), ResidualBlock(channels)]
        self.sections = nn.Sequential(*sections, nn.ReLU(inplace=True))
        height, width = spec.shape[1:]
        for _ in _CHANNELS:  # pooling rounds up
            height, width = -(-height // 2), -(-width // 2)
        self.feature_shape: tuple[int, ...] = (channels, height, width)
        self.dense: nn.Module = nn.Identity()
        if config.hidden:
            dense = nn.Linear(channels * height * width, config.hidden)
            self.dense = nn.Sequential(FlattenPixels(), dense, nn.ReLU(inplace=True))
            self.feature_shape = (config.hidden,)
        initialise(self, config.initialisation)
        # At full scale each residual branch would double the variance, 64 times over six blocks; divided by their
        # number, all branches together add about as much as the trunk holds (as in Radford et al. 2019, section 2.3).
        blocks = [block for block in self.sections if isinstance(block, ResidualBlock)]
        with torch.no_grad():
            for block in blocks:
                block.second.weight.div_(len(blocks) ** 0.5)

    def encode(self, x: Tensor) -> Tensor:
        return self.dense(self.sections(x))

    def augment(self, obs: Tensor) -> Tensor:
        return random_shift(obs, self.config.shift) if self.config.shift else obs


def build(config: Config, spec: ObservationSpec) -> ResNet:
    """Raises SpecError for anything but images of at least 8x8, UserError for sizes that make no sense."""
    require_image(spec, "resnet", smallest=8)
    if config.width < 1 or config.hidden < 0 or config.shift < 0:
        raise UserError("resnet: width must be positive, hidden and shift not negative")
    return ResNet(config, spec)
