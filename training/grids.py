"""Images side by side, as an array and as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.image import imsave
from torch import Tensor

from ..envs.spec import ObservationSpec

GAP, SHADE = 2, 0.5  # pixels between images, and their grey


def shown(images: Tensor, spec: ObservationSpec) -> np.ndarray:
    """What a person sees of observations in unit scale `[N, C, H, W]`: float32 `[N, H, W, 3]` in 0..1.

    Of a stack of frames it is the newest; of channels that are no colours the mean.
    """
    newest = images[:, -spec.frame_shape[0] :].detach().float().clamp(0, 1).cpu().numpy().transpose(0, 2, 3, 1)
    return newest if newest.shape[3] == 3 else newest.mean(3, keepdims=True).repeat(3, 3)


def grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images `[N, H, W, 3]`, one size for all, as one image `[H', W', 3]`."""
    height, width = rows[0].shape[1:3]
    columns = max(map(len, rows))
    canvas = np.full((len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), SHADE, np.float32)
    for number, row in enumerate(rows):
        top = number * (height + GAP)
        for column, image in enumerate(row):
            left = column * (width + GAP)
            canvas[top : top + height, left : left + width] = image
    return canvas


def to_png(image: np.ndarray, smallest: int = 200) -> bytes:
    """The PNG file of `image` `[H, W, 3]` in 0..1, its pixels repeated until both sides have `smallest` ones."""
    times = max(1, -(-smallest // min(image.shape[:2])))
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(image.repeat(times, 0).repeat(times, 1)), format="png")
    return file.getvalue()
