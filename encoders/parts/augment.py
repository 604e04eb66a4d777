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
