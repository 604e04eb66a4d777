"""The weights that touch the image: where they are in an encoder, and how they are shown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ...encoders.base import Encoder
from ...envs.spec import ObservationSpec
from ..pictures import Array, grid_figure, in_rows, signed

MOST = 96  # filters shown
COLUMNS = 12
LEAST_KERNEL = 3  # pixels; a kernel of one pixel is no picture


class Filters(NamedTuple):
    """One filter per unit or channel."""

    weight: Tensor  # [K, C, H, W]
    is_kernel: bool  # of a convolution; else it covers the whole image


def first_layer(encoder: Encoder, spec: ObservationSpec) -> Filters | None:
    """The filters that read the image: kernels `[K, C, h, w]`, or dense ones `[K, *spec.shape]`; None: not found."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == spec.shape[0] and _is_large(module):
            return Filters(module.weight.detach(), True)
        if isinstance(module, nn.ConvTranspose2d):
            break  # the decoder begins
    found = _dense_reading(encoder, spec)
    return None if found is None else Filters(found.detach().unflatten(1, spec.shape), False)


def last_layer(encoder: Encoder, spec: ObservationSpec) -> Filters | None:
    """The filters that write the image, likewise; None: not found, or they are the first layer's own (tied)."""
    if not callable(getattr(encoder, "decode", None)):
        return None
    for module in reversed(list(encoder.modules())):
        if isinstance(module, nn.ConvTranspose2d) and module.out_channels == spec.shape[0] and _is_large(module):
            return Filters(module.weight.detach(), True)
        if isinstance(module, nn.Conv2d) and module.out_channels == spec.shape[0] and _is_large(module):
            return Filters(module.weight.detach().transpose(0, 1), True)
    reading = _dense_reading(encoder, spec)
    for _, parameter in reversed(list(encoder.named_parameters())):
        if parameter.dim() == 2 and parameter.shape[0] == spec.size and parameter is not reading:
            return Filters(parameter.detach().T.unflatten(1, spec.shape), False)
    return None


def _dense_reading(encoder: Encoder, spec: ObservationSpec) -> Tensor | None:
    matrices = (parameter for parameter in encoder.parameters() if parameter.dim() == 2)
    return next((matrix for matrix in matrices if matrix.shape[1] == spec.size), None)


def _is_large(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return min(module.kernel_size) >= LEAST_KERNEL


def figure(filters: Filters, spec: ObservationSpec, title: str) -> Figure:
    """Filters in a grid, each scaled by itself; evenly chosen where there are many.

    Three colours are shown as such; other channels (the frames of a stack) side by side.
    """
    total = len(filters.weight)
    chosen = torch.linspace(0, total - 1, min(total, MOST)).round().long()
    weight = filters.weight[chosen.to(filters.weight.device)].float().cpu().numpy()
    title += f", {'kernels' if filters.is_kernel else 'dense'}, "
    title += f"{len(chosen)} of {total:,}" if total > len(chosen) else f"all {total:,}"
    columns = min(COLUMNS, max(4, len(weight)))
    if weight.shape[1] == 3:
        most = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        coloured = (0.5 + 0.5 * weight / np.maximum(most, 1e-12)).transpose(0, 2, 3, 1)
        return grid_figure(in_rows(coloured, columns, 1.0), f"{title}; grey = 0", fill=1.0)
    if weight.shape[1] > 1 and not filters.is_kernel:
        weight = weight[:, -(weight.shape[1] // spec.stack) :].mean(1, keepdims=True)  # of the last frame
        title += ", last frame"
    frames = weight.shape[1]
    blank = np.zeros((len(weight), weight.shape[2], int(frames > 1)), weight.dtype)  # between two frames
    strips: Array = signed(np.concatenate([part for f in range(frames) for part in (weight[:, f], blank)], axis=2))
    if frames > 1:
        columns = max(1, columns // frames)
        title += f", {frames} frames each, oldest left" if frames == spec.stack else f", {frames} channels each"
    return grid_figure(in_rows(strips, columns, 0.0), f"{title}; blue < 0 < red", is_signed=True, fill=0.0)
