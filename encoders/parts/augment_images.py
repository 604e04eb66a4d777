"""Augmentations of image batches `[N, C, H, W]`, each image drawn by itself, the whole batch at once on its device.

Every function takes uint8 in 0..255 or floats in 0..1 and returns the same type in the same range, so that whatever
reads images reads augmented ones. `generator` None is torch's own, which is what checkpoints keep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ...envs.errors import UserError

Padding = Literal["zero", "reflect"]
_GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order; 0 = off."""

    flip: bool = False  # mirror half of the images
    rotate: float = 0.0  # by up to so many degrees either way
    scale: float = 0.0  # each side by a factor of up to 1 + this, or down to 1 - this
    shear: float = 0.0  # by a slope of up to this either way
    stretch: float = 0.0  # height against width, by a factor as for scale
    shift: int = 0  # by up to so many pixels either way
    padding: Padding = "zero"  # what shifting brings in
    crop: int = 0  # to a random square of so many pixels
    brightness: float = 0.0  # add up to this share of white
    contrast: float = 0.0  # differences from the mean times up to 1 + this, or down to 1 - this
    saturation: float = 0.0  # differences from grey, likewise
    hue: float = 0.0  # turn by up to this share of the colour circle
    cutout: int = 0  # blacken a square of so many pixels a side


def check_augmentation(config: Augmentation, shape: tuple[int, ...]) -> None:
    """Raises UserError for what cannot be done to images of `shape` (C, H, W)."""
    side = min(shape[1:]) if len(shape) == 3 else 0
    if config != Augmentation() and not side:
        raise UserError(f"augmentation is for images, not for observations of shape {list(shape)}")
    for name, below in {"scale": 1, "stretch": 1, "brightness": 1, "contrast": 1.01, "saturation": 1.01}.items():
        if not 0 <= getattr(config, name) < below:
            raise UserError(f"augment.{name} must lie between 0 and 1, not {getattr(config, name)}")
    if min(config.rotate, config.shear, config.shift, config.crop, config.cutout) < 0 or not 0 <= config.hue <= 0.5:
        raise UserError("augment: nothing may be negative, and hue at most 0.5")
    if max(config.crop, config.shift + 1, config.cutout) > max(side, 1):
        raise UserError(f"augment: crop, shift and cutout must fit into an image of {side} pixels a side")
    if (config.saturation or config.hue) and shape[0] != 3:
        raise UserError(f"augment: saturation and hue are for 3 colours, not {shape[0]} channels")
    if config.padding not in get_args(Padding):
        raise UserError(f"augment: unknown padding {config.padding!r}; known: {', '.join(get_args(Padding))}")


def augment(x: Tensor, config: Augmentation, generator: Generator | None = None) -> Tensor:
    """`x` `[N, C, H, W]`, augmented as `config` says; only `crop` changes the size."""
    if config.flip:
        x = random_flip(x, generator)
    if config.rotate or config.scale or config.shear or config.stretch:
        x = random_affine(x, config, generator)
    if config.shift:
        size = (x.shape[-2], x.shape[-1])
        x = random_crop(pad_images(x, config.shift, config.padding), size, generator)
    if config.crop:
        x = random_crop(x, (config.crop, config.crop), generator)
    if config.brightness or config.contrast or config.saturation or config.hue:
        x = random_colours(x, config, generator)
    return random_cutout(x, config.cutout, generator) if config.cutout else x


def random_flip(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Each image mirrored left to right with probability 1/2."""
    return flip_where(x, _uniform(x, generator, 1) < 0.5)


def flip_where(x: Tensor, mirrored: Tensor) -> Tensor:
    """Images `[N, C, H, W]` mirrored left to right where `mirrored` (bool `[N]`)."""
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


def pad_images(x: Tensor, pad: int, padding: Padding) -> Tensor:
    """`pad` more pixels on every side: black, or the image reflected at its outermost row and column."""
    if padding == "zero":
        return F.pad(x, (pad, pad, pad, pad))
    for dim in (-2, -1):
        size = x.shape[dim]
        index = torch.arange(-pad, size + pad, device=x.device).abs()
        x = x.index_select(dim, (size - 1) - ((size - 1) - index).abs())
    return x


def random_crop(x: Tensor, size: tuple[int, int], generator: Generator | None = None) -> Tensor:
    """A part of `size` (height, width) of each image, all places being equally likely."""
    limits = (x.shape[-2] - size[0] + 1, x.shape[-1] - size[1] + 1)
    top, left = ((_uniform(x, generator, 1) * limit).long().clamp_(max=limit - 1) for limit in limits)
    return crop_images(x, top, left, size)


def crop_images(x: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """`out[n, :, y, x] = in[n, :, top[n] + y, left[n] + x]`, `[N, C, *size]`; `top` and `left` are int64 `[N]`."""
    count, channels, height, width = x.shape
    rows = torch.arange(size[0], device=x.device)
    start = (top[:, None] + rows) * width + left[:, None]  # of each row within its image, [N, size[0]]
    image = torch.arange(count * channels, device=x.device).view(count, channels, 1) * (height * width)
    # as in augment.shift_images: rows are copied whole, out of all windows of the flat memory
    windows = x.contiguous().as_strided((x.numel() - size[1] + 1, size[1]), (1, 1))
    return windows.index_select(0, (image + start[:, None]).flatten()).view(count, channels, *size)


def centre_crop(x: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` pixels of `x` `[..., H, W]`; smaller images stay as they are."""
    height, width = x.shape[-2:]
    top, left = max(height - size, 0) // 2, max(width - size, 0) // 2
    return x[..., top : top + size, left : left + size]


def random_affine(x: Tensor, config: Augmentation, generator: Generator | None = None) -> Tensor:
    """Rotated, scaled, stretched and sheared about the centre, as far as `config` says."""
    angle, scale, shear, stretch = _uniform(x, generator, 4).view(4, -1) * 2 - 1
    angle = angle * math.radians(config.rotate)
    scale, stretch = _factor(scale, config.scale), _factor(stretch, config.stretch).sqrt()
    cos, sin, one = angle.cos(), angle.sin(), torch.ones_like(angle)
    turn = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
    slant = torch.stack([one, shear * config.shear, torch.zeros_like(one), one], -1).view(-1, 2, 2)
    return affine_images(x, turn @ slant @ torch.diag_embed(torch.stack([scale * stretch, scale / stretch], -1)))


def affine_images(x: Tensor, matrix: Tensor) -> Tensor:
    """`out` at place p (right, down; from the centre, in pixels) is `x` at `matrix` p, between pixels by bilinear
    interpolation, black outside. `matrix` is float `[N, 2, 2]`."""
    height, width = x.shape[-2:]
    side = matrix.new_tensor([width, height])
    theta = F.pad(matrix * (side[None, None, :] / side[None, :, None]), (0, 1))  # places in halves of the image
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x.to(grid.dtype), grid, align_corners=False)
    return _like(moved, x)


def random_colours(x: Tensor, config: Augmentation, generator: Generator | None = None) -> Tensor:
    """Brightness, contrast, saturation and hue changed, as far as `config` says."""
    brightness, contrast, saturation, hue = _uniform(x, generator, 4).view(4, -1) * 2 - 1
    return change_colours(
        x,
        brightness * config.brightness,
        _factor(contrast, config.contrast),
        _factor(saturation, config.saturation),
        hue * config.hue,
    )


def change_colours(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Each image with its own changes (float `[N]` each), cut off at black and white in the end.

    `brightness` is added, as a share of white. `contrast` multiplies differences from each channel's mean, `saturation`
    those from grey. `hue` turns the colours by that share of a circle about grey, in the plane of I and Q of YIQ: a
    matrix, where a turn in HSV would need a case for each sixth of the circle. One channel has no colour to change.
    """
    top = 255.0 if x.dtype == torch.uint8 else 1.0
    y = x.float() + (brightness * top).view(-1, 1, 1, 1)
    if x.shape[1] == 3:
        y = torch.einsum("nij,njhw->nihw", colour_matrix(saturation, hue), y)
    mean = y.mean((2, 3), keepdim=True)
    return _like(mean + (y - mean) * contrast.view(-1, 1, 1, 1), x)


def colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """`[N, 3, 3]`: what to multiply (red, green, blue) with; see `change_colours`."""
    to_yiq = saturation.new_tensor([_GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    cos, sin = (2 * math.pi * hue).cos() * saturation, (2 * math.pi * hue).sin() * saturation
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).view(-1, 3, 3)
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def random_cutout(x: Tensor, size: int, generator: Generator | None = None) -> Tensor:
    """A black square of `size` pixels a side within each image (DeVries & Taylor 2017, arXiv:1708.04552)."""
    limits = (x.shape[-2] - size + 1, x.shape[-1] - size + 1)
    top, left = ((_uniform(x, generator, 1) * limit).long().clamp_(max=limit - 1) for limit in limits)
    return cut_out(x, top, left, size)


def cut_out(x: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """`x` with the square of `size` pixels at `top`, `left` (int64 `[N]`) of each image black."""
    rows, columns = (
        (torch.arange(length, device=x.device) - start[:, None]).ge(0)
        & (torch.arange(length, device=x.device) - start[:, None]).lt(size)
        for length, start in ((x.shape[-2], top), (x.shape[-1], left))
    )
    return x.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)


def _uniform(x: Tensor, generator: Generator | None, each: int) -> Tensor:
    """`each` numbers in 0..1 for every image of `x`: `[each * N]`."""
    drawn_on = x.device if generator is None else generator.device
    return torch.rand(each * len(x), generator=generator, device=drawn_on).to(x.device)


def _factor(drawn: Tensor, amount: float) -> Tensor:
    """Factors from numbers in -1..1."""
    return 1 + drawn * amount


def _like(changed: Tensor, x: Tensor) -> Tensor:
    """`changed` in the type and range of `x`."""
    if x.dtype == torch.uint8:
        return changed.round_().clamp_(0, 255).to(torch.uint8)
    return changed.clamp_(0, 1).to(x.dtype)
