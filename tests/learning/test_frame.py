"""Frames between images and coordinates: projections against scikit-learn's, distances against those of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.frame import PixelFrame, PrincipalFrame, build_frame


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    return (torch.randn(60, 12, generator=generator) @ mixing + 3.0).reshape(60, 1, 3, 4)


def test_pixels_are_themselves(images: Tensor) -> None:
    frame = PixelFrame((1, 3, 4))
    assert torch.equal(frame.coordinates(images), images) and torch.equal(frame.images(images), images)


def test_coordinates_are_scikit_learns_up_to_sign(images: Tensor) -> None:
    frame = PrincipalFrame.of(images, 5)
    reference = PCA(5, svd_solver="full").fit(images.flatten(1).double().numpy())
    found = frame.coordinates(images).double().numpy()
    wanted = reference.transform(images.flatten(1).double().numpy())
    signs = np.sign((found * wanted).sum(0))
    assert np.allclose(found * signs, wanted, atol=1e-4)
    assert float(frame.explained) == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-5)


def test_there_and_back_is_the_projection(images: Tensor) -> None:
    frame = PrincipalFrame.of(images, 5)
    coordinates = frame.coordinates(images)
    back = frame.images(coordinates)
    assert back.shape == images.shape
    assert torch.allclose(frame.coordinates(back), coordinates, atol=1e-4)
    apart = coordinates[:, None] - coordinates
    assert torch.allclose(apart.norm(dim=2), (back[:, None] - back).flatten(2).norm(dim=2), atol=1e-4)
    whole = PrincipalFrame.of(images, 12)
    assert torch.allclose(whole.images(whole.coordinates(images)), images, atol=1e-4)
    assert float(whole.explained) == pytest.approx(1.0)
    # the nearest image of the plane: what is lost is at right angles to it
    lost = (images - back).flatten(1)
    assert float((lost @ frame.basis).abs().max()) < 1e-4


def test_a_description_makes_a_frame_of_the_same_structure(images: Tensor) -> None:
    for frame in (PixelFrame((1, 3, 4)), PrincipalFrame.of(images, 3)):
        again = build_frame(frame.spec())
        again.load_state_dict(frame.state_dict())
        assert torch.equal(again.coordinates(images), frame.coordinates(images))
        assert again.shape == frame.shape and again.image_shape == frame.image_shape


def test_wrong_frames_are_refused(images: Tensor) -> None:
    for make in (
        lambda: PrincipalFrame((3, 4), 0),
        lambda: PrincipalFrame((3, 4), 13),
        lambda: PrincipalFrame.of(images[:5], 5),
    ):
        with pytest.raises(UserError) as refused:
            make()
        assert refused.value.argument == "components"
    with pytest.raises(UserError) as refused:
        build_frame({"kind": "wavelets"})
    assert refused.value.argument == "frame"
