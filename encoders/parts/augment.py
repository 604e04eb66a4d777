"""Augmentation as pure functions of a sampled batch."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(obs: Tensor, pad: int, generator: torch.Generator | None = None) -> Tensor:
    """Shift images by up to `pad` pixels each way, the border repeated (DrQ; Kostrikov et al. 2020, section 3.1).

    One shift is drawn per sequence: all times and channels of a row of the batch move together, so that motion between
    stacked frames and between consecutive observations stays what it was.

    Args:
        obs: `[T, B, C, H, W]`, any dtype.
        pad: pixels.
        generator: on any device; None: torch's own.
    """
    batch = obs.shape[1]
    drawn_on = obs.device if generator is None else generator.device
    shift = torch.randint(-pad, pad + 1, (2, batch), generator=generator, device=drawn_on).to(obs.device)
    return shift_images(obs, shift[0], shift[1], pad)


def shift_images(obs: Tensor, down: Tensor, right: Tensor, pad: int) -> Tensor:
    """`out[:, b, :, y, x] = obs[:, b, :, y + down[b], x + right[b]]`, coordinates clamped to the image.

    `obs` is `[T, B, C, H, W]`; `down` and `right` are int64 `[B]` within -pad..pad.
    """
    steps, batch, channels, height, width = obs.shape
    left, last = obs[..., :1].expand(*obs.shape[:-1], pad), obs[..., -1:].expand(*obs.shape[:-1], pad)
    wide = torch.cat([left, obs, last], -1)  # [T, B, C, H, W + 2 pad]
    # Each row of the result is `width` consecutive numbers of `wide`: all of them are copied by one index_select out of
    # the overlapping windows of its flat memory. Indexing pixel by pixel takes 16 times as long on a processor.
    row = (torch.arange(height, device=obs.device) + down[:, None]).clamp(0, height - 1)  # [B, H]
    start = row * wide.shape[-1] + (right + pad)[:, None]
    image = torch.arange(steps * batch * channels, device=obs.device).view(steps, batch, channels, 1)
    starts = image * (height * wide.shape[-1]) + start.view(batch, 1, height)
    windows = wide.as_strided((wide.numel() - width + 1, width), (1, 1))
    return windows.index_select(0, starts.flatten()).view(obs.shape)


def random_resized_crop(
    images: Tensor, smallest: float, flip: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """A random part of each image, stretched to the size of the whole (Szegedy et al. 2015, section 6; SimCLR).

    Each side of the part is a share of the image's that is uniform in `smallest`..1, the two apart, and its place is
    uniform among those inside the image. Pixels are interpolated linearly.

    Args:
        images: `[N, C, H, W]`, uint8 or floating.
        smallest: share of a side, in (0, 1].
        flip: also mirror half of the images left to right.
        generator: on any device; None: torch's own.

    Returns:
        images of the same shape and type.
    """
    count, _, height, width = images.shape
    drawn_on = images.device if generator is None else generator.device
    draw = torch.rand(5, count, generator=generator, device=drawn_on).to(images.device)
    share = smallest + (1 - smallest) * draw[:2]
    start = (1 - share) * draw[2:4]
    rows = stretch(start[0] * height, share[0] * height, height)
    columns = stretch(start[1] * width, share[1] * width, width)
    if flip:
        columns = torch.where((draw[4] < 0.5).view(-1, 1, 1), columns.flip(1), columns)
    # an axis at a time: two products of small matrices take an eighth of the time of sampling pixel by pixel
    stretched = rows.unsqueeze(1) @ images.to(rows.dtype) @ columns.mT.unsqueeze(1)
    return stretched.round().to(images.dtype) if images.dtype == torch.uint8 else stretched.to(images.dtype)


def stretch(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Weights `[N, size, size]` that make `size` pixels of those between `start` and `start + length`.

    Row i of matrix n interpolates linearly at the middle of the i-th of `size` equal parts; beyond the middles of the
    first and the last pixel, these are repeated. `start` and `length` are float32 `[N]`, in pixels.
    """
    parts = (torch.arange(size, device=start.device) + 0.5) / size
    place = (start[:, None] + parts * length[:, None] - 0.5).clamp(0, size - 1)
    pixel = torch.arange(size, device=start.device)
    return (1 - (place.unsqueeze(2) - pixel).abs()).clamp(min=0)


def add_noise(x: Tensor, strength: float) -> Tensor:
    """Gaussian noise on `[N, ...]`: of every element, `strength` times its standard deviation in the batch."""
    deviation = x.std(0, correction=0, keepdim=True) if len(x) else x
    return x + strength * deviation * torch.randn_like(x)


def swap_elements(x: Tensor, share: float) -> Tensor:
    """Each element of `[N, ...]`, with probability `share`, becomes that of another row drawn at random.

    So it is a draw from its own marginal distribution (SCARF; Bahri et al. 2022, arXiv:2106.15147, section 3).
    """
    other = x[torch.randint(len(x), (len(x),), device=x.device)] if len(x) else x
    return torch.where(torch.rand(x.shape, device=x.device) < share, other, x)
