"""Geometry of polygons, and the pinned maximum of the energy on them."""

import math

import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.real_paths import (
    linear_path,
    path_barrier,
    path_length,
    pin_barrier,
    resample,
    sample_path,
    stack_paths,
    subdivide,
)
from theodolite.space import Box, Latent
from theodolite.systems import gaussian_mixture


def zigzag(n_pairs=3, n_points=9, shape=(2,), seed=0):
    return torch.rand(n_pairs, n_points, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_paths_keep_their_ends_and_their_shape():
    start, end = zigzag(4, 1, (1, 3))[:, 0], zigzag(4, 1, (1, 3), seed=1)[:, 0]
    path = linear_path(start, end, 5)
    assert path.shape == (4, 5, 1, 3)
    assert torch.equal(path[:, 0], start) and torch.equal(path[:, -1], end)
    assert torch.allclose(path[:, 2], (start + end) / 2)
    with pytest.raises(UserError, match="n_points"):
        linear_path(start, end, 1)
    with pytest.raises(UserError, match="end"):
        linear_path(start, end[:, :, :2], 5)


def test_paths_along_a_wall_stay_inside():
    wall = 0.1 + 0.2
    field = Field(Box((3,), -wall, wall), lambda x: x.sum(1))
    ends = torch.tensor([[wall, -wall, 0.1], [wall, -wall, -0.1]], dtype=torch.float64)
    path = linear_path(ends[:1], ends[1:], 37)
    assert bool(field.space.contains(path[0]).all())
    assert float(path_barrier(field, resample(path, 23), 49)[0]) <= 0.1 + 1e-12
    assert pin_barrier(field, path, 7).energy[0] == pytest.approx(0.1)


def test_resampling_lays_points_at_equal_length_on_the_polygon():
    path = zigzag()
    fine = resample(path, 400)
    assert torch.equal(fine[:, 0], path[:, 0])
    assert torch.allclose(fine[:, -1], path[:, -1], atol=1e-12)
    # Chords cut the corners and nothing else.
    assert (path_length(fine) <= path_length(path) + 1e-12).all()
    assert torch.allclose(path_length(fine), path_length(path), rtol=0.02)
    ell = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)
    expected = [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.0, 0.5], [1.0, 1.0]]
    assert torch.allclose(resample(ell, 5)[0], torch.tensor(expected, dtype=torch.float64))


def test_subdividing_keeps_the_polygon():
    path = zigzag(1, 6, (2, 2))[0]
    fine = subdivide(path, 0.07)
    assert float(fine.diff(dim=0).flatten(1).norm(dim=1).max()) <= 0.07 + 1e-12
    assert torch.allclose(path_length(fine[None]), path_length(path[None]))
    assert all(bool((fine == corner).flatten(1).all(1).any()) for corner in path)
    assert torch.equal(subdivide(path, 100.0), path)


def test_stacking_repeats_the_last_point():
    first, second = zigzag()[0, :3], zigzag()[1]
    stacked = stack_paths([first, second])
    assert stacked.shape == (2, 9, 2)
    assert torch.equal(stacked[0, 2:], first[2].expand(7, 2)) and torch.equal(stacked[1], second)
    assert torch.allclose(resample(stacked, 6)[0], resample(first[None], 6)[0])


def test_samples_are_the_energies_on_the_polygon():
    field = Field(Box((2,), 0.0, 1.0), lambda x: x[:, 0] + 10.0 * x[:, 1])
    path = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]]], dtype=torch.float64)
    assert sample_path(field, path, 2).tolist() == [[0.0, 0.5, 1.0, 3.5, 6.0]]
    assert path_barrier(field, path).tolist() == [6.0]
    with pytest.raises(UserError, match="samples"):
        sample_path(field, path, 0)


def test_the_maximum_is_pinned_between_points():
    peak = 0.2371
    field = Field(Latent(1), lambda x: 3.0 - 50.0 * (x[:, 0] - peak) ** 2)
    path = torch.tensor([[[0.0], [0.4], [1.0]], [[1.0], [0.3], [0.3]]], dtype=torch.float64)
    top = pin_barrier(field, path)
    assert top.energy[0] == pytest.approx(3.0, abs=1e-8)
    assert float(top.point[0, 0]) == pytest.approx(peak, abs=1e-4)
    assert int(top.segment[0]) == 0
    # The second path ends before the peak: its own highest point is its end.
    assert top.energy[1] == pytest.approx(3.0 - 50.0 * (0.3 - peak) ** 2, abs=1e-12)


def test_a_kink_and_a_second_peak_are_not_missed():
    field = Field(Latent(1), lambda x: torch.cos(7.0 * x[:, 0]) + 0.02 * torch.cos(2.0 * x[:, 0]))
    spots = torch.tensor([[[-0.5], [0.13], [-0.21], [1.9], [2.9]]], dtype=torch.float64)
    grid = torch.linspace(-0.5, 2.9, 2_000_001, dtype=torch.float64)
    truth = float(field.value(grid[:, None]).max())
    assert float(pin_barrier(field, spots).energy[0]) == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("samples", [4, 8])
def test_pinned_levels_bound_every_point_of_the_path(samples):
    known = gaussian_mixture(2, 0)
    paths = 4.0 * zigzag(20, 7, seed=3) - 2.0
    top = pin_barrier(known.field, paths, samples)
    dense = path_barrier(known.field, paths, 3000)
    assert (dense - top.energy).max() < 1e-6
    assert torch.allclose(known.field.value(top.point), top.energy, atol=1e-12)
    a, b = (paths[torch.arange(20), top.segment + k] for k in (0, 1))
    detour = (top.point - a).norm(dim=1) + (b - top.point).norm(dim=1) - (a - b).norm(dim=1)
    assert float(detour.abs().max()) < 1e-9


def test_no_paths_and_paths_of_one_place():
    field = Field(Latent(2), lambda x: x.square().sum(1))
    assert len(pin_barrier(field, torch.zeros(0, 3, 2)).energy) == 0
    still = torch.ones(1, 3, 2, dtype=torch.float64)
    assert pin_barrier(field, still).energy.tolist() == [2.0]
    assert math.isclose(float(path_length(still)[0]), 0.0)
    assert torch.equal(resample(still, 4)[0], torch.ones(4, 2, dtype=torch.float64))
