"""Pictures: what they are made of, that they stay small, and that nothing about them depends on the day."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from saccade.training import pictures


def test_the_last_frame_of_a_stack_is_shown():
    x = np.random.default_rng(0).random((5, 4, 6, 7), dtype=np.float32)
    np.testing.assert_array_equal(pictures.as_pictures(x, stack=4), x[:, 3])
    assert pictures.as_pictures(x, stack=2).shape == (5, 6, 7)
    np.testing.assert_allclose(pictures.as_pictures(x, stack=2), x[:, 2:].mean(1))  # two channels are no colours


def test_three_channels_are_colours_of_the_last_frame():
    x = np.random.default_rng(0).random((2, 6, 4, 5), dtype=np.float32) * 3 - 1
    shown = pictures.as_pictures(x, stack=2)
    assert shown.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(shown[..., 1], x[:, 4].clip(0, 1))


def test_a_mosaic_lays_pictures_in_rows_with_gaps():
    tiles = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    assert pictures.mosaic(tiles, gap=1, fill=9).tolist() == [[0, 9, 1, 9, 2], [9] * 5, [3, 9, 4, 9, 5]]
    assert pictures.mosaic(np.zeros((2, 2, 3, 4, 3)), gap=2).shape == (8, 10, 3)


def test_the_last_row_is_filled_up():
    rows = pictures.in_rows(np.ones((5, 2, 2)), columns=3, fill=0)
    assert rows.shape == (2, 3, 2, 2)
    assert rows[:, :, 0, 0].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_filters_are_scaled_each_by_itself():
    filters = np.array([[[2.0, -4.0]], [[0.0, 0.0]], [[0.1, 0.05]]])
    assert pictures.signed(filters).tolist() == [[[0.5, -1.0]], [[0.0, 0.0]], [[1.0, 0.5]]]


def size_of(content: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(content)).size


def test_a_grid_fits_the_page_and_is_the_same_each_time():
    tiles = np.random.default_rng(0).random((3, 10, 14, 14))
    texts = [str(n) for n in range(10)]
    files = [
        pictures.png(pictures.grid_figure(tiles, "a title", rows=["a", "b", "c"], columns=texts)) for _ in range(2)
    ]
    assert 600 <= size_of(files[0])[0] <= pictures.DOTS
    assert len(files[0]) <= pictures.MOST_BYTES
    assert files[0] == files[1]


def test_pixels_of_a_grid_keep_their_values():
    """Each is shown as a square of equal dots."""
    tiles = np.random.default_rng(0).integers(0, 256, (2, 4, 9, 9)) / 255
    shown = np.asarray(Image.open(io.BytesIO(pictures.png(pictures.grid_figure(tiles, "")))).convert("L"))
    whole = (pictures.mosaic(tiles, gap=1) * 255).round()
    scale = pictures.MOST_SCALE
    left, top = 10, 30
    square = shown[top : top + scale * whole.shape[0], left : left + scale * whole.shape[1]]
    expected = whole.repeat(scale, 0).repeat(scale, 1)
    assert np.abs(square.astype(float) - expected).max() <= 1


def test_a_wide_grid_is_made_to_fit():
    tiles = np.random.default_rng(0).random((2, 10, 84, 84))
    assert size_of(pictures.png(pictures.grid_figure(tiles, "frames", rows=["original", "restored"])))[0] == 800


def test_noise_in_colour_is_made_to_fit():
    content = pictures.png(pictures.grid_figure(np.random.default_rng(0).random((4, 4, 150, 150, 3)), "noise"))
    assert len(content) <= pictures.MOST_BYTES
    assert size_of(content)[0] >= 400


@pytest.mark.parametrize("classes", [0, 1, 10, 23])
def test_a_scatter_names_every_class_in_its_legend(classes: int):
    generator = np.random.default_rng(0)
    points, label = generator.normal(size=(300, 2)), generator.integers(-1, max(classes, 1), 300)
    names = [f"class {number}" for number in range(classes)]
    figure = pictures.scatter_figure(points, label, names, "codes")
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names if classes else legend is None
    drawn = sum(len(part.get_offsets()) for part in figure.axes[0].collections)  # type: ignore[arg-type]
    assert drawn == (np.sum(label >= 0) if classes else 300)
    assert len(pictures.png(figure)) <= pictures.MOST_BYTES


def test_a_far_point_does_not_press_the_others_together():
    points = np.random.default_rng(0).normal(size=(3000, 2))
    points[0] = 1e6
    left, right = pictures.scatter_figure(points, np.full(3000, -1), (), "codes").axes[0].get_xlim()
    assert -10 < left < -2
    assert 2 < right < 10


# Simulation of dichromacy at full severity (Viénot, Brettel and Mollon 1999, in linear RGB).
DEFICIENCIES = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_differ_for_people_who_see_fewer(deficiency: str):
    colours = np.array([to_rgb(colour) for colour in pictures.COLOURS])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 9 * np.eye(10)
    assert distance.min() > 0.08
