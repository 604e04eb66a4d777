"""Patches, contrast normalisation, standardisation and whitening against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saccade.data import Split
from saccade.data.whitening import (
    CHUNK,
    fit_standardisation,
    fit_whitening,
    normalise_contrast,
    patches,
    unit_scale,
)
from saccade.envs.errors import UserError


def test_whitening_is_the_inverse_root_of_the_covariance():
    """Against SciPy's matrix square root, with as many correlated dimensions as a small patch has."""
    import scipy.linalg

    random = np.random.default_rng(0)
    x = (random.standard_normal((CHUNK + 500, 12)) @ random.standard_normal((12, 12)) + 3).astype(np.float32)
    covariance = np.cov(x.T.astype(np.float64), bias=True)
    expected = np.linalg.inv(scipy.linalg.sqrtm(covariance + 0.1 * np.eye(12)))
    whitening = fit_whitening(torch.from_numpy(x), epsilon=0.1)
    np.testing.assert_allclose(whitening.matrix, expected, atol=1e-5)
    np.testing.assert_allclose(whitening(torch.from_numpy(x)), (x - x.mean(0)) @ expected, atol=1e-4)


def test_two_correlated_pixels_by_hand():
    """Covariance [[5, 4], [4, 5]]: variance 9 along (1, 1) / √2 and 1 along (1, -1) / √2, so the inverse root has
    (1/3 + 1) / 2 on the diagonal and (1/3 - 1) / 2 beside it."""
    x = torch.tensor([[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]])  # mean of squares: 5; of products: 4
    matrix = fit_whitening(x, epsilon=1e-9).matrix
    torch.testing.assert_close(matrix, torch.tensor([[2 / 3, -1 / 3], [-1 / 3, 2 / 3]]))


def test_whitened_images_are_white_and_come_back():
    x = torch.randint(256, (400, 2, 3, 3), dtype=torch.uint8)
    x[:, 1] = (x[:, 0].float() * 0.5 + x[:, 1].float() * 0.5).to(torch.uint8)  # correlated channels
    whitening = fit_whitening(x, epsilon=1e-6)
    white = whitening(x)
    assert white.shape == x.shape
    torch.testing.assert_close(torch.cov(white.flatten(1).T, correction=0), torch.eye(18), atol=1e-3, rtol=0)
    torch.testing.assert_close(whitening.undo(white), x / 255, atol=1e-5, rtol=0)


def test_what_does_not_vary_is_not_amplified():
    x = torch.randn(200, 4)
    x[:, 2] = 7.0
    white = fit_whitening(x, epsilon=1e-3)(x)
    assert white.isfinite().all()
    assert white[:, 2].abs().max() < 1e-3
    with pytest.raises(UserError, match="epsilon must be positive, not 0"):
        fit_whitening(x, epsilon=0)


def test_standardised_channels_have_mean_0_and_variance_1():
    x = torch.randint(256, (50, 3, 4, 5), dtype=torch.uint8)
    x[:, 1] //= 8
    x[:, 2] = 51  # constant: 0 afterwards
    standardisation = fit_standardisation(x)
    y = standardisation(x)
    pixels = x.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(standardisation.mean.flatten(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(standardisation.deviation.flatten()[:2], pixels.std((0, 2, 3))[:2], rtol=1e-6)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.tensor([1.0, 1, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardisation.undo(y), x / 255)


def test_vectors_are_standardised_by_element():
    x = torch.tensor([[1.0, 10], [3.0, 10]])
    torch.testing.assert_close(fit_standardisation(x)(x), torch.tensor([[-1.0, 0], [1.0, 0]]))


def test_contrast_is_normalised_per_example():
    """(0, 2): mean 1, variance 1; divided by √(1 + 3) = 2. A flat example becomes 0."""
    x = torch.tensor([[0.0, 2.0], [5.0, 5.0]])
    torch.testing.assert_close(normalise_contrast(x, epsilon=3), torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))
    grey = torch.randint(256, (7, 1, 6, 6), dtype=torch.uint8)
    of_bytes = grey.double().flatten(1)  # the paper's formula, on 0..255
    expected = (of_bytes - of_bytes.mean(1, keepdim=True)) / (of_bytes.var(1, correction=0, keepdim=True) + 10).sqrt()
    torch.testing.assert_close(normalise_contrast(grey).flatten(1), expected.float())


def numbered_images() -> Split:
    """Each pixel says where it is: 1000 * image + 100 * channel + 10 * row + column."""
    image, channel, row, column = torch.meshgrid(*map(torch.arange, (9, 2, 6, 5)), indexing="ij")
    return Split((1000 * image + 100 * channel + 10 * row + column).float(), torch.full((9,), -1))


def test_patches_are_squares_of_one_image():
    cut = patches(numbered_images(), 3, CHUNK + 100, seed=0)
    assert cut.shape == (CHUNK + 100, 2, 3, 3)
    corner = cut[:, 0, 0, 0]
    inside = torch.tensor([[0.0, 1, 2], [10, 11, 12], [20, 21, 22]])
    torch.testing.assert_close(cut, corner[:, None, None, None] + torch.stack([inside, inside + 100]))
    places = corner.long().bincount(minlength=9000).reshape(9, 10, 10, 10)
    assert (places[:, 0, :4, :3] > 0).all()  # every place that there is, of every image, and no other
    assert int(places[:, 0, :4, :3].sum()) == len(cut)


def test_patches_follow_from_the_seed():
    split = numbered_images()
    assert torch.equal(patches(split, 3, 50, seed=1), patches(split, 3, 50, seed=1))
    assert not torch.equal(patches(split, 3, 50, seed=1), patches(split, 3, 50, seed=2))


def test_patches_keep_bytes():
    split = Split(torch.full((4, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    cut = patches(split, 8, 3, seed=0)
    assert cut.dtype == torch.uint8
    assert (unit_scale(cut) == 1).all()


@pytest.mark.parametrize(
    ("size", "count", "message"), [(6, 1, "6 × 6 cannot be cut"), (0, 1, "positive"), (1, 0, "positive")]
)
def test_patches_that_cannot_be_are_refused(size: int, count: int, message: str):
    with pytest.raises(UserError, match=message):
        patches(numbered_images(), size, count, seed=0)


def test_vectors_have_no_patches():
    with pytest.raises(UserError, match=r"shape \[4\]"):
        patches(Split(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)), 2, 1, seed=0)
