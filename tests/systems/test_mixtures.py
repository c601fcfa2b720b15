"""Gaussian mixtures: the energy against scipy's densities, the landscape against floods and closed forms."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tests.search.flooding import flood_barriers, grid_of, nearest_places
from theodolite.errors import UserError
from theodolite.space import Box
from theodolite.systems import gaussian_mixture, mixture_surface, parse_system


def test_energy_is_minus_the_logarithm_of_the_density():
    random = np.random.default_rng(0)
    centres, widths, weights = (
        random.normal(size=(4, 3)),
        np.array([0.3, 0.5, 1.0, 0.7]),
        np.array([0.1, 0.2, 0.3, 0.4]),
    )
    known = mixture_surface(centres, widths, weights)
    points = random.uniform(-2, 2, (50, 3))
    density = sum(
        weight * multivariate_normal(centre, width**2 * np.eye(3)).pdf(points)
        for centre, width, weight in zip(centres, widths, weights, strict=True)
    )
    assert known.field.value(torch.from_numpy(points)).numpy() == pytest.approx(-np.log(density), abs=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_barriers_in_the_plane_equal_a_flood(seed):
    known = gaussian_mixture(2, seed)
    minima, barrier = known.known_minima(), known.known_barriers()
    assert len(minima.energy) == 9
    energy, sides = grid_of(known.field, (-3.0, -3.0), (3.0, 3.0), 141)
    flooded = flood_barriers(energy, nearest_places(sides, minima.point))
    assert np.abs(flooded - barrier)[~np.eye(9, dtype=bool)].max() < 0.03


def test_two_equal_gaussians_meet_in_the_middle_in_any_dimension():
    centre = np.zeros((2, 5))
    centre[:, 0] = (-1.0, 1.0)
    known = mixture_surface(centre, np.array([0.4, 0.4]), np.array([0.5, 0.5]))
    saddles = known.known_saddles()
    assert saddles.point == pytest.approx(np.zeros((1, 5)), abs=1e-9)
    constant = 2.5 * np.log(2.0 * np.pi * 0.16)
    assert known.known_barriers()[0, 1] == pytest.approx(0.5 / 0.16 + constant, abs=1e-12)


@pytest.mark.parametrize(("dim", "n"), [(1, 3), (2, 9), (8, 9), (30, 9)])
def test_seeded_mixtures_have_a_minimum_for_every_centre(dim, n):
    known = gaussian_mixture(dim, seed=3)
    minima = known.known_minima()
    assert len(minima.energy) == n
    value, gradient = known.field.value_and_gradient(torch.from_numpy(minima.point))
    assert value.numpy() == pytest.approx(minima.energy, abs=1e-11)
    assert float(gradient.abs().max()) < 1e-10
    assert (gaussian_mixture(dim, seed=3).known_minima().point == minima.point).all()
    assert gaussian_mixture(dim, seed=4).known_minima().energy != pytest.approx(minima.energy)


def test_what_is_not_known_is_refused():
    with pytest.raises(UserError, match="not known"):
        gaussian_mixture(3).known_barriers()
    for arguments in ({"dim": 0}, {"dim": 2, "n_components": 0}, {"dim": 1, "n_components": 50}):
        with pytest.raises(UserError):
            gaussian_mixture(**arguments)
    with pytest.raises(UserError, match="widths"):
        mixture_surface(np.zeros((2, 2)), np.array([1.0, -1.0]), np.ones(2))
    with pytest.raises(UserError, match="centres"):
        mixture_surface(np.zeros((2, 2)), np.ones(3), np.ones(2))


def test_name():
    assert parse_system("mixture:2:1").space == Box((2,), -4.0, 4.0)
    assert parse_system("mixture:5").space.shape == (5,)
