"""`space`: what lies inside, how many points there are, and the text a space is written as."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from theodolite.errors import UserError
from theodolite.space import Box, Grid, Latent, Space, Spins, parse_space


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrong(value: Any) -> Any:
    """A value of a type that the annotations forbid."""
    return value


def test_log_volume_is_the_logarithm_of_the_number_of_points() -> None:
    assert Grid((1, 28, 28), 256).log_volume == pytest.approx(784 * math.log(256), rel=1e-15)
    assert Spins(10).log_volume == pytest.approx(math.log(1024), rel=1e-15)
    assert Box((2, 3), -1.0, 3.0).log_volume == pytest.approx(6 * math.log(4), rel=1e-15)
    assert Latent(7).log_volume == 0.0


@pytest.mark.parametrize(
    ("space", "good", "bad"),
    [
        (Grid((2,), 4), [[0, 3], [2, 2]], [[0, 4], [-1, 0]]),
        (Grid((2,), 4), [[0.0, 3.0]], [[0.5, 1.0], [math.nan, 0.0], [math.inf, 0.0]]),
        (Spins(2), [[-1, 1], [1, 1]], [[0, 1], [1, 2]]),
        (Box((2,), 0.0, 1.0), [[0.0, 1.0]], [[0.5, 1.001], [math.nan, 0.5], [-1e-6, 0.0]]),
        (Latent(2), [[-40.0, 3.0]], [[math.nan, 0.0], [math.inf, 0.0]]),
    ],
)
def test_contains(space: Space, good: list, bad: list) -> None:
    assert space.contains(torch.tensor(good)).tolist() == [True] * len(good)
    assert space.contains(torch.tensor(bad)).tolist() == [False] * len(bad)


@pytest.mark.parametrize("x", [torch.zeros(2, 3), torch.zeros(2), torch.tensor(0.0)])
def test_a_point_of_another_shape_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match="a batch of points of shape"):
        Grid((2, 2), 4).contains(x)


def test_an_array_of_numpy_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="torch tensor"):
        Grid((2,), 4).contains(np.zeros((1, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_levels_of_points_of_any_integer_type(dtype: torch.dtype) -> None:
    grid = Grid((2, 2), 5)
    level = grid.to_levels(torch.tensor([[[0, 4], [1, 2]]], dtype=dtype))
    assert level.dtype == torch.int64
    assert level.tolist() == [[0, 4, 1, 2]]
    assert torch.equal(grid.from_levels(level), torch.tensor([[[0, 4], [1, 2]]]))
    if dtype != torch.uint8:
        assert Spins(2).to_levels(torch.tensor([[-1, 1]], dtype=dtype)).tolist() == [[0, 1]]
    assert Spins(2).from_levels(torch.tensor([[0, 1]])).tolist() == [[-1, 1]]


def test_the_reference_density_is_flat_except_on_a_latent_space() -> None:
    assert Grid((2,), 4).log_reference(torch.tensor([[1, 2]])).tolist() == [0.0]
    assert Box((2,), 0.0, 1.0).log_reference(torch.tensor([[0.1, 0.2]])).tolist() == [0.0]
    x = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
    assert Latent(2).log_reference(x).tolist() == [-2.5, -4.5]
    assert Latent(2).log_reference(x).dtype == torch.float64


def test_a_draw_never_steps_over_the_edge_of_a_box() -> None:
    for low, high in ((0.1, 0.3), (-0.7, 0.1), (1e6, 1e6 + 1)):
        box = Box((1000,), low, high)
        assert bool(box.contains(box.draw(300, seeded(1))).all())


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
finite = st.floats(-1e9, 1e9, allow_nan=False)
spaces = st.one_of(
    st.builds(Grid, sizes, st.integers(2, 300)),
    st.builds(Spins, st.integers(1, 500)),
    st.tuples(sizes, finite, finite).filter(lambda t: t[1] != t[2]).map(lambda t: Box(t[0], min(t[1:]), max(t[1:]))),
    st.builds(Latent, st.integers(1, 500)),
)


@given(space=spaces)
@settings(max_examples=200, deadline=None)
def test_a_space_is_read_back_from_its_text(space: Space) -> None:
    assert parse_space(space.spec()) == space
    assert space.spec() in repr(space)


def test_the_text_of_a_space() -> None:
    assert Grid((1, 28, 28), 256).spec() == "grid:1x28x28:256"
    assert Spins(100).spec() == "spins:100"
    assert Box((3, 32, 32), 0, 1).spec() == "box:3x32x32:0:1"
    assert Box((2,), -0.123456789, 1.5).spec() == "box:2:-0.123456789:1.5"
    assert Latent(8).spec() == "latent:8"
    assert Grid((1, 28, 28), 256).describe() == "28 x 28 pixels of 256 levels: e^4347 inputs"


@pytest.mark.parametrize(
    "spec",
    ["", "grid", "grid:28:", "grid:28x:256", "grid:0x3:2", "grid:-1:2", "grid:3:1", "grid:3:2:1", "spins:0", "spins:x",
     "box:2:1:0", "box:2:0:inf", "box:2:0:nan", "latent:0", "latent:2.5", "sphere:3", "Grid:3:2"],
)  # fmt: skip
def test_other_text_is_refused(spec: str) -> None:
    with pytest.raises(UserError):
        parse_space(spec)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Grid((), 2), lambda: Grid((0,), 2), lambda: Grid(wrong((2.5,)), 2), lambda: Grid(wrong(("a",)), 2),
        lambda: Grid(wrong(28), 2), lambda: Grid((2,), 1), lambda: Grid((2,), wrong(2.5)), lambda: Grid((2,), True),
        lambda: Spins(0), lambda: Spins(wrong(2.5)), lambda: Latent(0), lambda: Latent(wrong(1.5)),
        lambda: Box((2,), 1.0, 1.0), lambda: Box((2,), 0.0, math.inf), lambda: Box((), 0.0, 1.0),
    ],
)  # fmt: skip
def test_impossible_spaces_are_refused(build: object) -> None:
    with pytest.raises(UserError):
        build()  # type: ignore[operator]


def test_sizes_may_be_numpy_integers() -> None:
    assert Grid((np.int64(2), np.int32(3)), np.int64(4)) == Grid((2, 3), 4)  # type: ignore[arg-type]
    assert Grid([2, 3], 4).shape == (2, 3)  # type: ignore[arg-type]


def test_membership_of_bytes() -> None:
    x = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert Grid((2,), 256).contains(x).tolist() == [True]
    assert Grid((2,), 300).contains(x).tolist() == [True]
    assert Grid((2,), 255).contains(x).tolist() == [False]
    assert Spins(2).contains(torch.tensor([[1, 255]], dtype=torch.uint8)).tolist() == [False]
