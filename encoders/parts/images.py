"""What image encoders share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...envs.errors import SpecError
from ...envs.spec import ObservationSpec


class ScaledConv2d(nn.Conv2d):
    """A first convolution that reads images as they are stored, `uint8 [N, C, H, W]` in 0..255.

    The scale (1/255 by default) is folded into the weights: the same function as scaling the image first, without a
    float copy of it. Integers up to 256 are exact in bfloat16, so nothing is lost there either.
    """

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(channels, out_channels, kernel_size, stride, padding)
        self.scale = 1 / 255

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        return F.conv2d(x.to(dtype), self.weight * self.scale, self.bias, self.stride, self.padding)


def require_image(spec: ObservationSpec, encoder: str, smallest: int) -> None:
    """Raise SpecError unless observations are `uint8 [C, H, W]` of at least `smallest` pixels a side."""
    if not spec.is_image:
        raise SpecError(f"encoder {encoder!r} reads uint8 images [C, H, W], not {spec.describe()}; try mlp")
    if min(spec.shape[1:]) < smallest:
        raise SpecError(f"encoder {encoder!r} needs images of at least {smallest}x{smallest}, not {spec.describe()}")
