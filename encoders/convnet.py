"""The plain conv nets for small images: convolution and pooling twice, then dense layers.

The defaults are the MNIST net of the founding material: 5x5x32, pool, 5x5x64, pool, 1024 units, dropout .5. Its
CIFAR-10 net is channels (64, 64), dense (384, 192), crop 24, without or with batch normalisation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward
from .parts.augment_images import centre_crop
from .parts.images import ScaledConv2d, require_image
from .parts.initialise import Initialisation, initialise

kind = "convolutions with max pooling and dense layers, for small images; batch normalisation by option"


@dataclass(frozen=True)
class Config:
    channels: tuple[int, ...] = (32, 64)  # of each convolution; every one is followed by 2x2 max pooling
    kernel: int = 5  # pixels a side, odd; the border is filled with zeros so that the size stays
    dense: tuple[int, ...] = (1024,)  # units of the dense layers behind them; the last are the features
    batch_norm: bool = False  # before every ReLU (Ioffe & Szegedy 2015, arXiv:1502.03167)
    dropout: float = 0.5  # share of the features zeroed in training (Srivastava et al. 2014); none in evaluation
    crop: int = 0  # read the middle crop x crop pixels of larger images; 0 = all. Random crops come from augmentation
    initialisation: Initialisation = "he"  # of the weights; biases start at 0


class ConvNet(FeedForward):
    """Convolution, pooling, ReLU, as often as there are channels; then dense layers with ReLU, then dropout."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.crop = config.crop
        norm = config.batch_norm
        layers: list[nn.Module] = []
        inputs = spec.shape[0]
        for index, channels in enumerate(config.channels):
            convolution = (nn.Conv2d if index else ScaledConv2d)(
                inputs, channels, config.kernel, padding=config.kernel // 2
            )
            layers += [convolution, *_norm(nn.BatchNorm2d, channels, convolution, norm)]
            # ReLU and maximum commute: pooling first is the same function with a quarter of the ReLU's work
            layers += [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
            inputs = channels
        height, width = (config.crop or size for size in spec.shape[1:])
        for _ in config.channels:
            height, width = height // 2, width // 2
        self.convolutions = nn.Sequential(*layers)
        dense: list[nn.Module] = []
        sizes = (inputs * height * width, *config.dense)
        for wide, outputs in itertools.pairwise(sizes):
            linear = nn.Linear(wide, outputs)
            dense += [linear, *_norm(nn.BatchNorm1d, outputs, linear, norm), nn.ReLU(inplace=True)]
        self.dense = nn.Sequential(*dense)
        self.dropout = nn.Dropout(config.dropout)
        self.feature_shape = (config.dense[-1],)
        initialise(self, config.initialisation)

    def encode(self, x: Tensor) -> Tensor:
        if self.crop:
            x = centre_crop(x, self.crop)
        maps = self.convolutions(x)
        # The maps lie in memory channels last and are read as they lie: no copy. Which weight of the first dense layer
        # meets which position is a matter of naming only.
        return self.dropout(self.dense(maps.permute(0, 2, 3, 1).flatten(1)))


def _norm(kind: type[nn.Module], width: int, layer: nn.Module, wanted: bool) -> list[nn.Module]:
    """Batch normalisation for `layer`, which loses the bias that it would cancel."""
    if not wanted:
        return []
    layer.register_parameter("bias", None)
    return [kind(width)]


def build(config: Config, spec: ObservationSpec) -> ConvNet:
    """Raises SpecError for anything but images large enough to be halved, UserError for settings that make no sense."""
    if not config.channels or min(config.channels) < 1 or not config.dense or min(config.dense) < 1:
        raise UserError(f"convnet: channels and dense must be positive sizes, not {config.channels} and {config.dense}")
    if config.kernel < 1 or config.kernel % 2 == 0:
        raise UserError(f"convnet: the kernel must be odd, not {config.kernel}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"convnet: dropout must lie between 0 and 1, not {config.dropout}")
    smallest = 2 ** len(config.channels)
    require_image(spec, "convnet", smallest=smallest)
    if config.crop and not smallest <= config.crop <= min(spec.shape[1:]):
        raise UserError(
            f"convnet: crop must lie between {smallest} and {min(spec.shape[1:])}, the image's side, not {config.crop}"
        )
    return ConvNet(config, spec)
