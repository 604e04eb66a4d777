"""The data set of letters against its fonts, and the founding experiment with tiny nets and made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade import data
from saccade.data import letters
from saccade.data.letters import CLEAN, COPIES, FINE, FONTS, JUDGING, SIDE, TRAINING, Noise, disturb, outline
from saccade.envs.errors import UserError


def test_splits_hold_what_they_say():
    found = data.load("letters")
    assert found.spec.shape == (1, 29, 29)
    assert found.spec.size == 841
    assert found.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    sizes = {"train": 26 * 3 * COPIES["train"], "validation": 26 * 4 * COPIES["validation"], "test": 2600}
    for name, size in sizes.items():
        split = getattr(found, name)
        assert split.x.shape == (size, 1, 29, 29)
        assert split.x.dtype == torch.uint8
        assert split.label.bincount().tolist() == [size // 26] * 26
    short = found.test.label[: letters.SHORT_TEST]
    assert len(short) == 312
    assert short.bincount().tolist() == [12] * 26
    assert "letters" in data.list_datasets()


def test_letters_are_the_same_every_time():
    first = letters.load.__wrapped__()
    assert torch.equal(first.test.x, letters.load().test.x)
    assert torch.equal(first.train.x, letters.load().train.x)
    assert len({image.numpy().tobytes() for image in torch.cat([first.train.x, first.test.x])}) == 3120 + 2600


@pytest.mark.parametrize("font", FONTS)
def test_outlines_lie_in_the_middle_and_are_as_high_as_each_other(font: str):
    images = outline(font).squeeze(1)
    assert images.shape == (26, SIDE * FINE, SIDE * FINE)
    for letter, image in zip(letters.LETTERS, images, strict=True):
        rows, columns = (torch.nonzero(image.sum(axis) > 0).flatten() for axis in (1, 0))
        assert abs(float(rows[0] + rows[-1]) - (SIDE * FINE - 1)) <= 3
        assert abs(float(columns[0] + columns[-1]) - (SIDE * FINE - 1)) <= 3
        if letter == "H":
            assert abs(len(rows) - letters.HEIGHT * FINE) <= 2
    assert len({image.numpy().tobytes() for image in images}) == 26


def test_fonts_differ_and_the_last_is_held_out():
    """The mean image of each letter in each place of a split is nearest to that of the font that belongs there."""
    fonts = torch.stack([outline(font) for font in FONTS])
    assert all(not torch.equal(fonts[a], fonts[b]) for a in range(4) for b in range(a))
    found, rng = data.load("letters"), np.random.default_rng(1)
    for name, noise in (("train", TRAINING), ("test", JUDGING)):
        x = getattr(found, name).x.float().view(COPIES[name], -1, 26, 841).mean(0)
        known = torch.stack([disturb(fonts.flatten(0, 1), noise, rng).float() for _ in range(40)]).mean(0)
        nearest = (x.unsqueeze(1) - known.view(4, 26, 841)).square().sum(3).argmin(1)  # [places, 26]
        assert nearest.mode(1).values.tolist() == list(range(3 if name == "train" else 4))


def square() -> torch.Tensor:
    """A full square of 9 pixels a side in the middle of an image."""
    image = torch.zeros(1, 1, SIDE * FINE, SIDE * FINE)
    image[..., 10 * FINE : 19 * FINE, 10 * FINE : 19 * FINE] = 1
    return image


def test_noise_does_what_it_says():
    rng = np.random.default_rng(0)
    plain = disturb(square(), CLEAN, rng)
    assert torch.equal(plain[0, 0, 10:19, 10:19], torch.full((9, 9), 255, dtype=torch.uint8))
    assert int(plain.long().sum()) == 81 * 255

    many = square().expand(400, -1, -1, -1)
    moved = disturb(many, Noise(0, 0, 2, 0), rng).float().squeeze(1)
    mass = moved.sum((1, 2))
    torch.testing.assert_close(mass, torch.full((400,), 81 * 255.0), rtol=0.01, atol=0)
    places = torch.arange(SIDE, dtype=torch.float32)
    for axis in (1, 2):
        centre = (moved.sum(3 - axis) * places).sum(1) / mass
        assert abs(float(centre.mean()) - 14) < 0.35
        assert float(centre.std()) == pytest.approx(2, rel=0.15)

    larger = disturb(many, Noise(0, 0.1, 0, 0), rng).float().flatten(1).sum(1) / 255
    assert float((larger / 81).log().std()) == pytest.approx(0.2, rel=0.15)  # area goes with the square of the scale

    turned = disturb(many, Noise(20, 0, 0, 0), rng).float().squeeze(1)
    torch.testing.assert_close(turned.flatten(1).sum(1), mass, rtol=0.02, atol=0)
    assert float(turned[:, 10, 10].mean()) < 200  # a corner that has turned away

    grain = disturb(torch.full_like(many, 0.5), Noise(0, 0, 0, 0.1), rng).float() / 255
    assert float(grain.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(grain.std()) == pytest.approx(0.1, rel=0.03)


def test_a_missing_font_is_said():
    with pytest.raises(UserError, match=r"NoSuchFont\.ttf does not exist"):
        outline("NoSuchFont")
