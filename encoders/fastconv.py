"""A small conv net that is meant to be trained to a good accuracy in minutes.

Ideas of Page ("How to train your ResNet", 2019) and Jordan (2024, arXiv:2404.00498, "94% on CIFAR-10 in 3.29 seconds"),
put into one plain stack: a first layer that whitens small patches of the data and is then fixed; blocks of two 3x3
convolutions, the pooling early in the block; batch normalisation without a learned scale, whose biases learn faster;
convolutions that begin as the identity; a global maximum at the end. Ours differ: the bias of the first layer begins
such that the whitened patches have mean zero, the features stay unscaled (the head may scale them), and there is no
optimiser trick inside the net.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import FeedForward, Group
from .parts.images import require_image

Activation = Literal["gelu", "relu", "silu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}

_SMALLEST_VARIANCE = 1e-6  # of pixels in 0..1, so that images that are all alike do no harm

kind = "a small conv net that learns in minutes: whitened patches, batch normalisation; for small images"


@dataclass(frozen=True)
class Config:
    widths: tuple[int, ...] = (64, 256, 256)  # channels of each block; every block halves the image
    convolutions: int = 2  # in each block
    activation: Activation = "gelu"  # after every layer; on a processor relu takes half the time
    patch: int = 2  # pixels a side of the whitened patches
    whitening_epsilon: float = 5e-4  # added to the variances, relative to their mean, before they are divided by
    bias_rate: float = 16.0  # learning rate of the biases, as a factor (Page 2019: they want a larger one)
    norm_momentum: float = 0.4  # weight of the newest batch in the running statistics: short runs need a quick one


class Whitening(nn.Module):
    """Patches of the image, decorrelated and scaled to unit variance, each direction with both signs.

    `fit` finds the directions from data; until then they are random and orthonormal. Only the bias is trained.
    """

    weight: Tensor

    def __init__(self, channels: int, patch: int):
        super().__init__()
        size = channels * patch * patch
        directions = nn.init.orthogonal_(torch.empty(size, size)).view(size, channels, patch, patch)
        self.register_buffer("weight", torch.cat([directions, -directions]))
        self.bias = nn.Parameter(torch.zeros(2 * size))

    @torch.no_grad()
    def fit(self, images: Tensor, epsilon: float) -> None:
        """Whiten the patches of `images` (uint8 `[N, C, H, W]`, some thousands are enough).

        Args:
            epsilon: added to every eigenvalue of the covariance, times their mean.
        """
        patch = self.weight.shape[-1]
        x = F.unfold(images.float() / 255, patch).transpose(1, 2).flatten(0, 1).double()  # [patches, size]
        mean = x.mean(0)
        covariance = (x - mean).T @ (x - mean) / len(x)
        variances, directions = torch.linalg.eigh(covariance)
        floor = epsilon * variances.mean().clamp_min(_SMALLEST_VARIANCE)  # rounding can make variances negative, too
        half = directions.T / (variances.clamp_min(0) + floor).sqrt()[:, None]  # [size, size], a row each
        half = half.flip(0)  # the largest variance first
        offset = -(half @ mean)
        self.weight.copy_(torch.cat([half, -half]).view_as(self.weight))
        self.bias.copy_(torch.cat([offset, -offset]))

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        # 1/255 goes into the weights: see ScaledConv2d
        return F.conv2d(x.to(dtype), self.weight / 255, self.bias)


class BiasNorm(nn.BatchNorm2d):
    """Batch normalisation with a learned bias and no learned scale."""

    bias: nn.Parameter

    def __init__(self, channels: int, momentum: float):
        super().__init__(channels, momentum=momentum)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class FastConv(FeedForward):
    """Whitening, blocks of convolutions, and the maximum over all positions: features `[N, widths[-1]]`."""

    def __init__(self, config: Config, spec: ObservationSpec):
        super().__init__()
        self.config = config
        self.whitening = Whitening(spec.shape[0], config.patch)
        inputs = self.whitening.weight.shape[0]
        activation = _ACTIVATIONS[config.activation]
        layers: list[nn.Module] = [activation()]
        for width in config.widths:
            for index in range(config.convolutions):
                layers.append(_identity_convolution(inputs, width))
                if index == 0:
                    layers.append(nn.MaxPool2d(2))
                layers += [BiasNorm(width, config.norm_momentum), activation()]
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.feature_shape = (config.widths[-1],)

    def fit_to(self, x: Tensor) -> None:
        """Set the whitening layer from images `x` (uint8 `[N, C, H, W]`). Call it once, before training."""
        self.whitening.fit(x, self.config.whitening_epsilon)

    def encode(self, x: Tensor) -> Tensor:
        return self.blocks(self.whitening(x)).amax((2, 3))

    def parameter_groups(self) -> list[Group]:
        biases: list[nn.Parameter] = [self.whitening.bias]
        biases += [layer.bias for layer in self.blocks if isinstance(layer, BiasNorm)]
        weights = [p for layer in self.blocks if isinstance(layer, nn.Conv2d) for p in layer.parameters()]
        return [Group("weights", weights), Group("biases", biases, learning_rate_factor=self.config.bias_rate)]


def _identity_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3; the first outputs begin as copies of the inputs, the others as PyTorch draws them."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        count = min(inputs, outputs)
        convolution.weight[:count] = 0
        convolution.weight[range(count), range(count), 1, 1] = 1
    return convolution


def build(config: Config, spec: ObservationSpec) -> FastConv:
    """Raises SpecError for anything but images large enough to be halved, UserError for settings that make no sense."""
    if not config.widths or min(config.widths) < 1 or config.convolutions < 1:
        raise UserError(f"fastconv: widths and convolutions must be positive, not {config.widths}")
    if config.patch < 1 or config.whitening_epsilon <= 0 or not 0 < config.norm_momentum <= 1:
        raise UserError("fastconv: patch and whitening_epsilon must be positive, norm_momentum between 0 and 1")
    if config.bias_rate <= 0:
        raise UserError(f"fastconv: bias_rate must be positive, not {config.bias_rate}")
    if config.activation not in get_args(Activation):
        raise UserError(f"fastconv: unknown activation {config.activation!r}; known: {', '.join(get_args(Activation))}")
    require_image(spec, "fastconv", smallest=2 ** len(config.widths) + config.patch - 1)
    return FastConv(config, spec)
