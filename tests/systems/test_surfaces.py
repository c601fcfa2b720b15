"""Surfaces with known landscapes: published numbers, and floods of plain grids."""

import numpy as np
import pytest
import torch

from tests.search.flooding import flood_barriers, grid_of, nearest_places
from theodolite.errors import UserError
from theodolite.search.passes import bottlenecks
from theodolite.search.transition_states import curvatures
from theodolite.space import Box
from theodolite.systems import mueller_brown, parse_system, quartic_wells, rough_basins, surface

SURFACES = [mueller_brown(), rough_basins(), quartic_wells(1), quartic_wells(3), quartic_wells(8)]


@pytest.mark.parametrize("known", SURFACES, ids=lambda known: known.field.name)
def test_known_points_are_critical_points_of_the_right_order(known):
    for found, order in ((known.known_minima(), 0), (known.known_saddles(), 1)):
        points = torch.from_numpy(found.point)
        value, gradient = known.field.value_and_gradient(points)
        assert value.numpy() == pytest.approx(found.energy, abs=1e-12, rel=1e-13)
        assert float(gradient.abs().max()) < 1e-10
        negative = (torch.linalg.eigvalsh(curvatures(known.field, points)) < 0).sum(1)
        assert negative.tolist() == [order] * len(points)
    assert (np.diff(known.known_minima().energy) >= 0).all()


def test_mueller_brown_equals_the_published_numbers():
    minima, saddles = mueller_brown().known_minima(), mueller_brown().known_saddles()
    assert minima.point == pytest.approx(
        np.array([[-0.558224, 1.441726], [0.623499, 0.028038], [-0.050011, 0.466694]]), abs=1e-6
    )
    assert minima.energy == pytest.approx([-146.699517, -108.166724, -80.767818], abs=1e-6)
    assert saddles.point == pytest.approx(np.array([[0.212487, 0.292988], [-0.822002, 0.624313]]), abs=1e-6)
    assert saddles.energy == pytest.approx([-72.248940, -40.664844], abs=1e-6)


@pytest.mark.parametrize(
    ("known", "low", "high", "n", "tolerance"),
    [
        (mueller_brown(), (-1.5, -0.3), (1.1, 2.0), 201, 0.1),
        (quartic_wells(2), (-1.6, -1.6), (1.6, 1.6), 151, 2e-3),
        (quartic_wells(3), (-1.5, -1.5, -1.5), (1.5, 1.5, 1.5), 31, 0.06),
    ],
    ids=["Mueller-Brown", "two wells", "three wells"],
)
def test_barriers_equal_a_flood_of_a_grid(known, low, high, n, tolerance):
    energy, sides = grid_of(known.field, low, high, n)
    flooded = flood_barriers(energy, nearest_places(sides, known.known_minima().point))
    barrier = known.known_barriers()
    off = ~np.eye(len(barrier), dtype=bool)
    assert np.abs(flooded - barrier)[off].max() < tolerance


def test_rough_basins_equal_a_dense_line():
    known = rough_basins()
    x = np.linspace(0.0, 12.0, 1_200_001)
    energy = known.field.value(torch.from_numpy(x)[:, None]).numpy()
    low = np.flatnonzero((energy[1:-1] < energy[:-2]) & (energy[1:-1] < energy[2:])) + 1
    minima = known.known_minima()
    assert len(minima.energy) == len(low)
    assert np.sort(energy[low]) == pytest.approx(minima.energy, abs=1e-8)
    barrier, place = known.known_barriers(), np.searchsorted(x, minima.point[:, 0])
    for i, j in ((0, 1), (0, len(low) - 1), (5, 20), (30, 2)):
        first, last = sorted((place[i], place[j]))
        assert barrier[i, j] == pytest.approx(energy[first : last + 1].max(), abs=1e-8)


def test_rough_basins_are_two_flat_basins():
    known = rough_basins()
    minima, barrier = known.known_minima(), known.known_barriers()
    right = minima.point[:, 0] > 4.0
    near = int(np.abs(minima.point[:, 0] - 5.1).argmin())
    far = int(np.abs(minima.point[:, 0] - 10.0).argmin())
    left = int(np.abs(minima.point[:, 0] - 2.0).argmin())
    assert barrier[near, far] < 0.5
    assert barrier[near, left] > 1.5
    assert right.any() and (~right).any()


def test_quartic_wells_have_all_minima_and_saddles_and_closed_barriers():
    known = quartic_wells(8)
    minima, saddles, barrier = known.known_minima(), known.known_saddles(), known.known_barriers()
    assert minima.point.shape == (256, 8)
    assert len(saddles.energy) == 8 * 128
    closed = bottlenecks(256, saddles.minimum[:, 0], saddles.minimum[:, 1], saddles.energy, minima.energy)
    assert np.array_equal(closed, barrier)
    gap = np.linalg.norm(minima.point[saddles.minimum[:, 0]] - minima.point[saddles.minimum[:, 1]], axis=1)
    assert gap == pytest.approx(np.full(1024, 2.0), abs=0.1)  # one part of the sum changes sides


def test_names_and_wrong_names():
    assert parse_system("surface:mueller-brown").space == Box((2,), -1.6, 2.1)
    assert parse_system("surface:rough").space == Box((1,), 0.0, 12.0)
    assert parse_system("surface:quartic-8").space == Box((8,), -4.0, 4.0)
    for name in ("quartic", "quartic-x", "mexican-hat"):
        with pytest.raises(UserError, match="mueller-brown"):
            surface(name)
    with pytest.raises(UserError, match="dim"):
        parse_system("surface:quartic-40")
