"""Known densities over a line or a plane: normalised, and their draws follow them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from theodolite.errors import UserError
from theodolite.systems.mixtures import Mixture
from theodolite.systems.planar import ConcentricRings, MixtureDensity, concentric_rings, gaussian_line, gaussian_ring

DENSITIES = {
    "ring": lambda: gaussian_ring(),
    "unequal ring": lambda: gaussian_ring(3, 0.7, 0.2, (1.0, 2.0, 5.0)),
    "rings": lambda: concentric_rings(),
    "one narrow ring": lambda: ConcentricRings([0.1], 0.15),
    "line": lambda: gaussian_line(3, masses=(1.0, 1.0, 2.0)),
}


def grid(dim, reach, n):
    side = torch.linspace(-reach, reach, n, dtype=torch.float64)
    points = torch.stack([axis.ravel() for axis in torch.meshgrid(*[side] * dim, indexing="ij")], 1)
    return points, float(side[1] - side[0]) ** dim


@pytest.mark.parametrize("name", DENSITIES)
def test_integral_is_one_and_modes_hold_their_masses(name):
    known = DENSITIES[name]()
    points, area = grid(known.dim, known.reach, 601 if known.dim == 2 else 4001)
    share = known.log_density(points).exp() * area
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-6)
    masses = torch.bincount(known.mode(points), share, minlength=len(known.mode_mass))
    # Parts overlap where they meet, so that a point of one may more likely be another's.
    assert masses.numpy() == pytest.approx(known.mode_mass, abs=0.02)


@pytest.mark.parametrize("name", DENSITIES)
def test_draws_follow_the_density(name):
    known = DENSITIES[name]()
    n = 40_000
    points = known.draw(n, torch.Generator().manual_seed(0))
    assert points.shape == (n, known.dim) and points.dtype == torch.float32
    places, area = grid(known.dim, known.reach, 401 if known.dim == 2 else 4001)
    share = known.log_density(places).exp() * area
    observed = np.bincount(known.mode(points).numpy(), minlength=len(known.mode_mass)) / n
    expected = np.bincount(known.mode(places).numpy(), share.numpy(), minlength=len(known.mode_mass))
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(observed - expected) <= 5.0 * error + 1e-4).all()
    # The mean of ln q over draws of q is minus its entropy.
    entropy = -float((share * known.log_density(places)).sum())
    value = known.log_density(points)
    assert -float(value.mean()) == pytest.approx(entropy, abs=5.0 * float(value.std()) / math.sqrt(n) + 1e-4)


def test_radius_of_a_ring_follows_its_law():
    known = ConcentricRings([0.1], 0.15)
    radius = np.linalg.norm(known.draw(4000, torch.Generator().manual_seed(1)).numpy(), axis=1)
    places = np.linspace(0.0, 2.0, 20_001)
    law = places * np.exp(-0.5 * ((places - 0.1) / 0.15) ** 2)
    below = np.cumsum(law) / law.sum()
    assert stats.kstest(radius, lambda r: np.interp(r, places, below)).pvalue > 1e-3


def test_draws_repeat_with_the_seed():
    known = concentric_rings(2)
    first, again = (known.draw(50, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)


def test_weights_of_a_mixture_need_not_sum_to_one():
    mixture = Mixture(np.zeros((1, 2)), np.ones(1), np.full(1, 3.0))
    at_centre = MixtureDensity(mixture, "one").log_density(torch.zeros(1, 2))
    assert float(at_centre) == pytest.approx(-math.log(2.0 * math.pi))


@pytest.mark.parametrize(
    "make",
    [
        lambda: gaussian_ring(0),
        lambda: gaussian_ring(3, masses=(1.0, 1.0)),
        lambda: gaussian_ring(3, masses=(1.0, 0.0, 1.0)),
        lambda: gaussian_ring(width=-1.0),
        lambda: gaussian_line(0),
        lambda: concentric_rings(0),
        lambda: concentric_rings(2, masses=(1.0,)),
        lambda: concentric_rings(2, width=float("nan")),
        lambda: gaussian_ring().draw(0, torch.Generator()),
        lambda: concentric_rings().draw(0, torch.Generator()),
        lambda: MixtureDensity(Mixture(np.zeros((1, 3)), np.ones(1), np.ones(1)), "three"),
    ],
)
def test_wrong_input_is_told(make):
    with pytest.raises(UserError):
        make()
