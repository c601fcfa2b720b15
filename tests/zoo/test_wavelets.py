"""Wavelet features: exact inverse, an orthonormal map, the columns that scipy's pivoted QR picks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.linalg import qr

from theodolite.errors import UserError
from theodolite.zoo.datasets import bundled_digits
from theodolite.zoo.wavelets import choose_wavelets


def random_images(n: int, channels: int = 1, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, channels, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def haar_by_hand(image: np.ndarray) -> np.ndarray:
    """One level of the orthonormal Haar transform, from its definition: sums and differences of 2x2 blocks."""
    a, b, c, d = image[::2, ::2], image[::2, 1::2], image[1::2, ::2], image[1::2, 1::2]
    quarters = [(a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    return np.sort(np.concatenate([quarter.ravel() for quarter in quarters]))


@pytest.mark.parametrize(("channels", "level", "wavelet"), [(1, 2, "haar"), (3, 3, "db1"), (1, 1, "haar")])
def test_all_features_invert_exactly_and_keep_distances(channels, level, wavelet):
    images = random_images(300, channels)
    chosen = choose_wavelets(images, channels * 64, wavelet=wavelet, level=level)
    features = chosen.features(images)
    assert chosen.space.contains(features).all()
    torch.testing.assert_close(chosen.images(features), images, rtol=0, atol=1e-13)
    between = torch.cdist(features[:20], features[20:40]) * chosen.scale
    truth = torch.cdist(images[:20].flatten(1), images[20:40].flatten(1))
    torch.testing.assert_close(between, truth, rtol=1e-12, atol=1e-12)


def test_one_level_is_the_haar_transform():
    images = random_images(100)
    chosen = choose_wavelets(images, 64, level=1)
    coefficients = chosen.features(images) * chosen.scale + chosen.low
    for image, found in zip(images[:5, 0].numpy(), coefficients[:5].numpy(), strict=True):
        np.testing.assert_allclose(np.sort(found), haar_by_hand(image), atol=1e-13)


def test_the_range_is_reached_and_never_left():
    images = torch.zeros((64, 1, 4, 4), dtype=torch.float64)
    images += random_images(64, side=4)
    chosen = choose_wavelets(images, 16, level=2)
    white, halves = torch.ones(1, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    halves[0, :, :2], halves[1, :, 2:] = 1.0, 1.0
    assert chosen.features(white).max() == pytest.approx(1.0, abs=1e-12)
    assert chosen.features(halves).min() == pytest.approx(0.0, abs=1e-12)


def test_pivots_are_those_of_scipy_on_all_coefficients_at_once(monkeypatch):
    monkeypatch.setattr("theodolite.zoo.wavelets._BLOCK_ROWS", 37)
    digits = bundled_digits((3, 8))
    images = digits.x_train[:200].double() / 255
    chosen = choose_wavelets(images, 60)
    everything = choose_wavelets(random_images(784, side=28), 784)
    # All coefficients in the order of the transform: what the choice was made from.
    order = torch.argsort(everything.kept)
    matrix = (everything.features(images) * everything.scale + everything.low)[:, order].numpy()
    _, pivots = qr(matrix, mode="r", pivoting=True)
    assert chosen.kept.tolist() == pivots[:60].tolist()


def test_dropped_coefficients_come_from_an_image_or_are_zero():
    images, others = random_images(50), random_images(3, seed=1)
    chosen = choose_wavelets(images, 20)
    features = chosen.features(images[:3])
    own = chosen.images(features, like=images[:3])
    torch.testing.assert_close(own, images[:3], rtol=0, atol=1e-13)
    mixed = chosen.images(features, like=others)
    torch.testing.assert_close(chosen.images(chosen.features(others), like=images[:3]) + mixed, others + images[:3])
    # With zeros in the places left out the image is the nearest of its features.
    bare = chosen.images(features)
    assert (bare.flatten(1).norm(dim=1) < images[:3].flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(((bare - images[:3]) * bare).flatten(1).sum(1), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("argument", "images", "settings"),
    [
        ("images", random_images(9) * 255, {}),
        ("images", random_images(9)[:, 0], {}),
        ("level", random_images(9), {"level": 4}),
        ("n_features", random_images(9), {"n_features": 10}),
        ("n_features", random_images(1).expand(30, -1, -1, -1), {"n_features": 2}),
        ("wavelet", random_images(9), {"wavelet": "db2"}),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(argument, images, settings):
    with pytest.raises(UserError) as error:
        choose_wavelets(images, **{"n_features": 5, **settings})
    assert error.value.argument == argument


def test_without_pywavelets_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(UserError, match=r"theodolite\[wavelets\]"):
        choose_wavelets(random_images(9), 5)


def test_features_of_another_shape_are_refused():
    chosen = choose_wavelets(random_images(9), 5)
    with pytest.raises(UserError, match="features"):
        chosen.images(torch.zeros(2, 6))
    with pytest.raises(UserError, match="like"):
        chosen.images(torch.zeros(2, 5), like=random_images(3))
