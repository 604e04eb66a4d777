"""Capital letters, 29 × 29, rendered from the free fonts that come with matplotlib, shifted, turned, scaled and noisy.

Three fonts are for training; validation and test see a fourth one too, and more noise. Everything follows from one
seed; the letters' outlines are drawn by Pillow's FreeType, whose versions may differ in the last bit of a pixel.
"""

from __future__ import annotations

import string
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from ..envs.errors import UserError
from ..envs.spec import ObservationSpec
from .base import Dataset, Split

kind = "capital letters from fonts, generated: 3,120 + 1,040 + 2,600 grey images, 29 × 29, 26 classes, a font held out"
LETTERS = string.ascii_uppercase
FONTS = ("DejaVuSans", "STIXGeneral", "cmr10", "DejaVuSerif")  # the last one is not in the training set
SIDE = 29  # pixels
FINE = 2  # dots a pixel, in which letters are drawn before they are turned
HEIGHT = 18.0  # pixels of an H
SPEC = ObservationSpec((1, SIDE, SIDE), "uint8", 0, 255)
SEED = 0
SHORT_TEST = 12 * len(LETTERS)  # the first so many test images, 312, hold every letter of every font three times


class Noise(NamedTuple):
    """Standard deviations of what is done to a letter."""

    degrees: float  # it is turned by
    scale: float  # of the logarithm of its size
    shift: float  # pixels, of either coordinate
    pixels: float  # Gaussian, added to values in 0..1


CLEAN = Noise(0, 0, 0, 0)
TRAINING, JUDGING = Noise(5, 0.07, 1.0, 0.15), Noise(8, 0.1, 1.5, 0.25)
COPIES = {"train": 40, "validation": 10, "test": 25}  # of each letter of each font


@lru_cache(maxsize=1)
def load() -> Dataset:
    """Images uint8 `[N, 1, 29, 29]`, 0 (paper) to 255 (ink), and labels 0 (A) to 25 (Z).

    Raises:
        UserError: matplotlib came without its fonts.
    """
    outlines = torch.stack([outline(font) for font in FONTS])
    rng = np.random.default_rng(SEED)
    train = _split(outlines[:-1], COPIES["train"], TRAINING, rng)
    validation, test = (_split(outlines, COPIES[name], JUDGING, rng) for name in ("validation", "test"))
    return Dataset("letters", SPEC, train, validation, test, tuple(LETTERS))


def outline(font: str) -> Tensor:
    """All letters of a font, in the middle of their images: float32 `[26, 1, FINE * 29, FINE * 29]` in 0..1."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    if not path.is_file():
        raise UserError(f"{path} does not exist; matplotlib comes with that font: install it again")
    first = ImageFont.truetype(str(path), 100)
    _, top, _, bottom = first.getbbox("H")
    found, size = [], SIDE * FINE
    chosen = ImageFont.truetype(str(path), round(100 * HEIGHT * FINE / (bottom - top)))
    for letter in LETTERS:
        drawn = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(drawn).text((size // 2, size // 2), letter, fill=255, font=chosen)
        ink = drawn.crop(drawn.getbbox())
        image = Image.new("L", (size, size))
        image.paste(ink, ((size - ink.width) // 2, (size - ink.height) // 2))
        found.append(torch.from_numpy(np.array(image, np.float32) / 255))
    return torch.stack(found).unsqueeze(1)


def disturb(images: Tensor, noise: Noise, rng: np.random.Generator) -> Tensor:
    """Fine images `[N, 1, FINE * 29, FINE * 29]` in 0..1, each moved and made noisy by itself: uint8
    `[N, 1, 29, 29]`."""
    count = len(images)
    angle = np.deg2rad(noise.degrees) * rng.standard_normal(count)
    scale = np.exp(noise.scale * rng.standard_normal(count))
    shift = noise.shift * rng.standard_normal((count, 2)) * 2 / SIDE  # an image reaches from -1 to 1
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale  # where a pixel comes from: the other way round
    linear = np.stack([np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)], 1)
    moved = np.concatenate([linear, -linear @ shift[:, :, None]], 2)
    where = F.affine_grid(torch.from_numpy(moved).float(), list(images.shape), align_corners=False)
    coarse = F.avg_pool2d(F.grid_sample(images, where, align_corners=False), FINE)
    grain = noise.pixels * torch.from_numpy(rng.standard_normal(coarse.shape)).float()
    return (255 * (coarse + grain).clamp(0, 1)).round().to(torch.uint8)


def _split(outlines: Tensor, copies: int, noise: Noise, rng: np.random.Generator) -> Split:
    """Every letter of every font `[fonts, 26, 1, ...]` so often; the first of all come before the second of any."""
    fonts = len(outlines)
    label = torch.arange(len(LETTERS)).repeat(fonts)
    parts = [disturb(outlines.flatten(0, 1), noise, rng) for _ in range(copies)]
    return Split(torch.cat(parts), label.repeat(copies))
