"""What pixel control is paid with: changes of cells of pixels, against naive loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.agents.parts.pixel_control import grid_shape, pixel_changes
from saccade.envs.errors import UserError


def naive_changes(frames: np.ndarray, cell: int, rows: int, columns: int) -> np.ndarray:
    steps, batch, channels, height, width = frames.shape
    top, left = (height - rows * cell) // 2, (width - columns * cell) // 2
    found = np.zeros((steps - 1, batch, rows, columns))
    for t, b, r, c in np.ndindex(found.shape):
        pixels = [
            abs(float(frames[t + 1, b, k, top + r * cell + i, left + c * cell + j]) - float(frames[t, b, k, y, x]))
            for k in range(channels)
            for i in range(cell)
            for j in range(cell)
            for y, x in ((top + r * cell + i, left + c * cell + j),)
        ]
        found[t, b, r, c] = sum(pixels) / len(pixels) / 255
    return found


@pytest.mark.parametrize(
    ("channels", "height", "width", "cell", "rows", "columns"),
    [(3, 20, 12, 4, 4, 2), (1, 7, 9, 2, 2, 4), (2, 5, 6, 4, 1, 1), (1, 3, 3, 1, 2, 2), (4, 13, 4, 4, 2, 1)],
)
def test_pixel_changes_of_every_size(channels: int, height: int, width: int, cell: int, rows: int, columns: int):
    frames = torch.randint(0, 256, (3, 2, channels, height, width), dtype=torch.uint8)
    found = pixel_changes(frames, cell)
    assert found.shape == (2, 2, rows, columns)
    np.testing.assert_allclose(found.numpy(), naive_changes(frames.numpy(), cell, rows, columns), atol=1e-6)


def test_one_pixel_is_one_forty_eighth_of_a_cell():
    frames = torch.zeros(3, 1, 3, 8, 8, dtype=torch.uint8)
    frames[1, 0, 1, 2, 5] = 255
    change = pixel_changes(frames, 4)
    expected = torch.zeros(2, 1, 2, 2)
    expected[:, 0, 0, 1] = 1 / 48  # it appears, and it goes: both are changes
    torch.testing.assert_close(change, expected)


def test_the_papers_grid():
    assert grid_shape(84, 84, 4) == (20, 20)  # of the central 80x80 pixels
    frames = torch.zeros(2, 1, 1, 84, 84, dtype=torch.uint8)
    frames[1, ..., :2, :] = frames[1, ..., -2:, :] = frames[1, ..., :2] = frames[1, ..., -2:] = 255
    assert not pixel_changes(frames, 4).any()
    frames[1, ..., 2, 2] = 255
    assert pixel_changes(frames, 4)[0, 0, 0, 0] == 1 / 16


def test_cells_larger_than_the_image():
    with pytest.raises(UserError, match="lower pixel_cell"):
        grid_shape(84, 3, 4)
