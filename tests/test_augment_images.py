"""Augmentations against naive loops over images and pixels."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from saccade.encoders.parts.augment_images import (
    Augmentation,
    affine_images,
    augment,
    centre_crop,
    change_colours,
    check_augmentation,
    colour_matrix,
    crop_images,
    cut_out,
    flip_where,
    pad_images,
    random_crop,
    random_cutout,
    random_flip,
)
from saccade.envs.errors import UserError
from torch import Tensor


def images(count: int = 4, channels: int = 3, height: int = 7, width: int = 6, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(0, 256, (count, channels, height, width), np.uint8))


ONE = torch.ones(4)
ZERO = torch.zeros(4)


def test_crop_is_the_naive_loop():
    x, top, left = images(), [0, 3, 2, 1], [2, 0, 1, 2]
    ours = crop_images(x, torch.tensor(top), torch.tensor(left), (4, 4))
    naive = [x[n, :, top[n] : top[n] + 4, left[n] : left[n] + 4] for n in range(4)]
    assert torch.equal(ours, torch.stack(naive))
    assert torch.equal(
        crop_images(x.float(), torch.tensor(top), torch.tensor(left), (4, 4)), torch.stack(naive).float()
    )


def test_crop_reads_images_that_lie_channels_last():
    x = images().contiguous(memory_format=torch.channels_last)
    top = torch.tensor([0, 1, 2, 3])
    assert torch.equal(crop_images(x, top, top * 0, (4, 6)), crop_images(images(), top, top * 0, (4, 6)))


def test_random_crop_finds_every_place_about_equally_often():
    x = torch.arange(30, dtype=torch.uint8).view(1, 1, 5, 6).expand(6000, 1, 5, 6)
    corners = random_crop(x, (3, 4), torch.Generator().manual_seed(0))[:, 0, 0, 0]
    counts = corners.long().bincount(minlength=30).view(5, 6)
    assert not counts[3:].any()
    assert not counts[:, 3:].any()
    assert (counts[:3, :3] - 6000 / 9).abs().max() < 5 * math.sqrt(6000 / 9)


def test_centre_crop():
    x = images(height=8, width=9)
    assert torch.equal(centre_crop(x, 4), x[:, :, 2:6, 2:6])
    assert torch.equal(centre_crop(x, 8), x[:, :, :, 0:8])
    assert torch.equal(centre_crop(x, 20), x)


def test_flip_mirrors_the_chosen():
    x = images()
    ours = flip_where(x, torch.tensor([True, False, False, True]))
    assert torch.equal(ours[[1, 2]], x[[1, 2]])
    for n in (0, 3):
        for column in range(6):
            assert torch.equal(ours[n, :, :, column], x[n, :, :, 5 - column])


def test_random_flip_mirrors_half():
    x = torch.arange(2, dtype=torch.uint8).view(1, 1, 1, 2).expand(4000, 1, 1, 2)
    mirrored = random_flip(x, torch.Generator().manual_seed(0))[:, 0, 0, 0].sum()
    assert abs(mirrored - 2000) < 5 * math.sqrt(1000)


def test_padding_is_numpys():
    x = images()
    for padding, mode in (("zero", "constant"), ("reflect", "reflect")):
        ours = pad_images(x, 2, padding)
        np.testing.assert_array_equal(ours.numpy(), np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode))


def naive_affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """One channel `[H, W]`, pixel by pixel."""
    height, width = image.shape
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            place = np.array([column - (width - 1) / 2, row - (height - 1) / 2])
            right, down = matrix @ place + [(width - 1) / 2, (height - 1) / 2]
            left, top = math.floor(right), math.floor(down)
            for x, y in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
                if 0 <= x < width and 0 <= y < height:
                    out[row, column] += (1 - abs(right - x)) * (1 - abs(down - y)) * image[y, x]
    return out


def test_affine_is_the_naive_loop():
    x = images(3)
    matrix = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.eye(2)
    ours = affine_images(x.double() / 255, matrix.double())
    for n in range(3):
        for channel in range(3):
            expected = naive_affine(x[n, channel].numpy() / 255, matrix[n].double().numpy())
            np.testing.assert_allclose(ours[n, channel].numpy(), expected, atol=1e-6)


def test_affine_of_bytes_is_rounded_and_the_identity_changes_nothing():
    x = images()
    assert torch.equal(affine_images(x, torch.eye(2).expand(4, 2, 2)), x)
    matrix = torch.tensor([[0.8, -0.6], [0.6, 0.8]]).expand(4, 2, 2)
    exact = affine_images(x.float() / 255, matrix) * 255
    assert (affine_images(x, matrix) - exact).abs().max() <= 0.5 + 1e-3


def test_a_quarter_turn():
    x = images(1, 1, 5, 5)
    turned = affine_images(x, torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))
    assert torch.equal(turned[0, 0], torch.rot90(x[0, 0], 1, (0, 1)))


def test_brightness_adds_and_is_cut_off():
    x = torch.tensor([0, 100, 250], dtype=torch.uint8).view(1, 1, 1, 3).expand(4, 1, 1, 3)
    ours = change_colours(x, torch.tensor([0.0, 0.2, -0.2, 1.0]), ONE, ONE, ZERO)
    expected = [[0, 100, 250], [51, 151, 255], [0, 49, 199], [255, 255, 255]]
    assert ours[:, 0, 0].tolist() == expected


def test_contrast_scales_about_the_mean_of_each_channel():
    x = images().float() / 255
    factor = torch.tensor([0.0, 0.5, 1.0, 1.5])
    ours = change_colours(x, ZERO, factor, ONE, ZERO)
    for n in range(4):
        for channel in range(3):
            mean = x[n, channel].mean()
            expected = (mean + (x[n, channel] - mean) * factor[n]).clamp(0, 1)
            torch.testing.assert_close(ours[n, channel], expected)


def test_saturation_scales_about_grey():
    x = images().float() / 255
    factor = torch.tensor([0.0, 0.5, 1.0, 1.5])
    ours = change_colours(x, ZERO, ONE, factor, ZERO)
    grey = (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]).unsqueeze(1)
    expected = (grey + (x - grey) * factor.view(4, 1, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)  # YIQ's coefficients have four digits


def test_hue_is_the_turn_of_the_standard_librarys_yiq():
    x, turn = (0.2, 0.5, 0.7), 0.1
    y, i, q = colorsys.rgb_to_yiq(*x)
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    expected = colorsys.yiq_to_rgb(y, cos * i - sin * q, sin * i + cos * q)
    ours = colour_matrix(torch.ones(1), torch.tensor([turn]))[0] @ torch.tensor(x)
    torch.testing.assert_close(ours, torch.tensor(expected), atol=5e-3, rtol=0)


def test_grey_has_no_hue():
    grey = images(channels=1).expand(4, 3, 7, 6)
    assert torch.equal(change_colours(grey, ZERO, ONE, ONE * 1.7, torch.tensor([0.0, 0.1, -0.3, 0.5])), grey)


def test_cutout_is_the_naive_loop():
    x, top, left = images() // 2 + 1, [0, 4, 2, 1], [3, 0, 1, 2]
    ours = cut_out(x, torch.tensor(top), torch.tensor(left), 3)
    expected = x.clone()
    for n in range(4):
        expected[n, :, top[n] : top[n] + 3, left[n] : left[n] + 3] = 0
    assert torch.equal(ours, expected)
    assert (random_cutout(x, 3) == 0).sum() == 4 * 3 * 9


EVERYTHING = Augmentation(
    flip=True,
    rotate=10,
    scale=0.1,
    shear=0.1,
    stretch=0.1,
    shift=1,
    crop=5,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.1,
    cutout=2,
)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_all_together_keep_type_and_range_and_follow_the_generator(dtype: torch.dtype):
    x = images().to(dtype) if dtype == torch.uint8 else images().float() / 255
    before = x.clone()
    ours = [augment(x, EVERYTHING, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert ours[0].shape == (4, 3, 5, 5)
    assert ours[0].dtype == dtype
    assert 0 <= ours[0].min() <= ours[0].max() <= (255 if dtype == torch.uint8 else 1)
    assert torch.equal(ours[0], ours[1])
    assert not torch.equal(ours[0], ours[2])
    assert torch.equal(x, before)  # read, not written


def test_nothing_chosen_changes_nothing():
    x = images()
    assert augment(x, Augmentation()) is x


def test_images_of_a_batch_are_drawn_apart():
    x = images(1).expand(8, 3, 7, 6)
    for config in (Augmentation(rotate=30), Augmentation(shift=2), Augmentation(brightness=0.5), Augmentation(hue=0.5)):
        assert len({tuple(image.flatten().tolist()) for image in augment(x, config)}) > 4


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Augmentation(flip=True), (6,)),
        (Augmentation(hue=0.1), (1, 28, 28)),
        (Augmentation(crop=29), (1, 28, 28)),
        (Augmentation(rotate=-1), (1, 28, 28)),
        (Augmentation(scale=1.0), (1, 28, 28)),
        (Augmentation(padding="none"), (1, 28, 28)),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(config: Augmentation, shape: tuple[int, ...]):
    with pytest.raises(UserError):
        check_augmentation(config, shape)
