"""What image encoders share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...envs.errors import SpecError
from ...envs.spec import ObservationSpec


class ScaledConv2d(nn.Conv2d):
    """A first convolution that reads images as they are stored, `uint8 [N, C, H, W]` in 0..255.

    The scale (1/255) is folded into the weights: the same function as scaling the image first, without a float copy of
    it. Integers up to 256 are exact in bfloat16, so nothing is lost there either. With stride 4 the image is first
    folded into blocks of 4x4 pixels, so that the convolution sees 16 C channels at stride 1: the same sum in an order
    that matrix units like, and pixels are moved four bytes at a time.
    """

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(channels, out_channels, kernel_size, stride, padding)
        self.scale = 1 / 255
        self.folds = stride == 4 and kernel_size % 4 == 0 and padding == 0

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        weight = self.weight * self.scale
        if self.folds and x.dtype == torch.uint8 and x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0:
            return F.conv2d(fold_pixels(x).to(dtype), fold_kernel(weight), self.bias)
        return F.conv2d(x.to(dtype), weight, self.bias, self.stride, self.padding)


def fold_pixels(x: Tensor) -> Tensor:
    """Blocks of 4x4 pixels become channels: `uint8 [N, C, H, W]` to `[N, 16 C, H/4, W/4]`, in NHWC memory order."""
    images, channels, height, width = x.shape
    quads = x.contiguous().view(torch.int32).view(images, channels, height // 4, 4, width // 4)
    # whole rows first, then small transposed matrices: one copy that does both takes twice as long
    rows = quads.transpose(1, 2).reshape(images, height // 4, 4 * channels, width // 4)
    blocks = rows.transpose(2, 3).contiguous()
    return blocks.view(torch.uint8).permute(0, 3, 1, 2)


def fold_kernel(weight: Tensor) -> Tensor:
    """The kernel that does to folded pixels what `weight` `[O, C, K, K]` does at stride 4: `[O, 16 C, K/4, K/4]`."""
    outputs, channels, height, width = weight.shape
    blocks = weight.reshape(outputs, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(outputs, height // 4, width // 4, 16 * channels).permute(0, 3, 1, 2)


class FlattenPixels(nn.Module):
    """A map `[N, C, H, W]` to vectors `[N, H * W * C]`, pixel after pixel: free where memory is in NHWC order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def require_image(spec: ObservationSpec, encoder: str, smallest: int) -> None:
    """Raise SpecError unless observations are `uint8 [C, H, W]` of at least `smallest` pixels a side."""
    if not spec.is_image:
        raise SpecError(f"encoder {encoder!r} reads uint8 images [C, H, W], not {spec.describe()}; try mlp")
    if min(spec.shape[1:]) < smallest:
        raise SpecError(f"encoder {encoder!r} needs images of at least {smallest}x{smallest}, not {spec.describe()}")
