"""`embedding`: what a level becomes, and where each number of it lies in the module's input."""

from __future__ import annotations

import pytest
import torch

from theodolite.embedding import OneHot, Scale
from theodolite.errors import MissingCapability
from theodolite.space import Box, DiscreteSpace, Grid, Spins


def embed(embedding: OneHot | Scale, space: DiscreteSpace, x: torch.Tensor) -> torch.Tensor:
    return embedding.assemble(embedding.table(space)[space.to_levels(x)], space)


@pytest.mark.parametrize("space", [Grid((3,), 4), Grid((2, 3), 4), Grid((3, 2, 2), 4), Spins(3)])
def test_scale_is_the_affine_map_of_the_values(space: DiscreteSpace) -> None:
    x = space.draw(5, torch.Generator().manual_seed(0))
    scale = Scale(0.25, -1.0)
    expected = x.float() * 0.25 - 1.0
    assert scale.table(space).shape == (space.levels, 1)
    assert torch.equal(embed(scale, space, x), expected)
    assert torch.equal(scale.continuous(x.float()), expected)


def test_scale_of_real_points() -> None:
    x = torch.tensor([[0.0, 0.5]])
    assert torch.equal(Scale(2.0, 1.0).continuous(x), torch.tensor([[1.0, 2.0]]))
    assert torch.equal(Scale().assemble(x[..., None], Box((2,), 0.0, 1.0)), x)


def test_one_hot_of_a_row_of_numbers() -> None:
    space = Grid((3,), 4)
    x = torch.tensor([[0, 3, 2]])
    assert torch.equal(embed(OneHot(), space, x), torch.eye(4)[x])


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (3, 2, 3)])
def test_one_hot_planes_are_ordered_channel_then_level(shape: tuple[int, ...]) -> None:
    space = Grid(shape, 4)
    x = space.draw(6, torch.Generator().manual_seed(0))
    planes = embed(OneHot(), space, x)
    channels = space.n_coordinates // 6
    assert planes.shape == (6, channels * 4, 2, 3)
    images = x.reshape(6, channels, 2, 3)
    for channel in range(channels):
        for level in range(4):
            assert torch.equal(planes[:, channel * 4 + level], (images[:, channel] == level).float())


def test_one_hot_of_real_points_is_refused() -> None:
    with pytest.raises(MissingCapability, match="OneHot"):
        OneHot().continuous(torch.zeros(1, 2))
