"""Densities on a plane against closed forms: constants and divergences of Gaussians, masses of known mixtures."""

import math

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy, by_autograd
from theodolite.learning.plane import PlaneSettings, box_of, compare, plane_density
from theodolite.learning.plane_modes import modes_of
from theodolite.systems.planar import concentric_rings, gaussian_line, gaussian_ring


class Given(Energy):
    """An energy that is a function."""

    def __init__(self, dim, function):
        super().__init__()
        self.shape = (dim,)
        self.function = function

    def forward(self, x):
        return self.function(x)

    def value_and_gradient(self, x):
        return by_autograd(self, x)

    def spec(self):
        return {}


def gaussian_log_density(mean, deviation):
    mean, deviation = (torch.tensor(numbers, dtype=torch.float64) for numbers in (mean, deviation))

    def log_density(x):
        return -0.5 * ((x - mean) / deviation).square().sum(1) - (deviation * math.sqrt(2 * math.pi)).log().sum()

    return log_density


def gaussian_divergence(mean, deviation, other_mean, other_deviation):
    m, s, n, t = (np.array(numbers) for numbers in (mean, deviation, other_mean, other_deviation))
    return float((np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum())


@pytest.mark.parametrize(
    ("deviation", "half"),
    [((0.7, 1.2), 3.0), ((0.7, 1.2), 0.5), ((0.01, 0.5), 1.0), ((0.002, 0.002), 5.0), ((30.0, 0.3), 1.0)],
)
def test_constant_of_a_gaussian_from_boxes_too_small_and_too_large(deviation, half):
    energy = GaussianEnergy((2,), 0.3, torch.tensor(deviation))
    found = plane_density(energy, np.zeros(2), np.full(2, half))
    exact = math.log(2 * math.pi * deviation[0] * deviation[1])
    assert found.outcome == "resolved"
    assert abs(found.log_normalisation - exact) <= found.log_normalisation_error + 1e-5
    assert found.log_normalisation_error <= 2e-3
    assert found.mass_outside <= 1e-4


def test_density_shown_is_the_gaussian():
    energy = GaussianEnergy((2,), torch.tensor([0.2, -0.4]), torch.tensor([0.5, 0.8]))
    found = plane_density(energy, np.zeros(2), np.full(2, 4.0))
    points = torch.from_numpy(np.stack(np.meshgrid(found.axis_0, found.axis_1, indexing="ij"), -1).reshape(-1, 2))
    exact = gaussian_log_density([0.2, -0.4], [0.5, 0.8])(points).reshape(found.log_density.shape)
    assert found.log_density == pytest.approx(exact.numpy(), abs=2e-3)


def test_coordinates_may_have_any_shape():
    shaped = GaussianEnergy((1, 2), 0.0, torch.tensor([[0.5, 0.8]]))
    truth = gaussian_log_density([0.0, 0.0], [0.5, 0.8])
    found = compare(shaped, lambda x: truth(x[:, 0]), np.zeros(2), np.full(2, 3.0))
    assert abs(found.divergence) < 1e-6
    assert found.density.log_normalisation == pytest.approx(math.log(2 * math.pi * 0.4), abs=1e-3)


def test_an_energy_on_a_line():
    found = plane_density(GaussianEnergy((1,), 1.0, 0.05), np.zeros(1), np.full(1, 0.5))
    assert found.log_normalisation == pytest.approx(math.log(0.05 * math.sqrt(2 * math.pi)), abs=1e-5)
    assert found.log_density.shape == (len(found.axis_0), 1) and found.axis_1.tolist() == [0.0]


@pytest.mark.parametrize(
    ("mean", "deviation", "other_mean", "other_deviation"),
    [
        ((0.3, -0.2), (0.4, 1.2), (0.0, 0.1), (0.7, 0.9)),
        ((0.0, 0.0), (0.05, 0.05), (1.0, 0.5), (0.5, 0.5)),
        ((0.2,), (0.1,), (0.0,), (0.3,)),
    ],
)
def test_divergences_between_gaussians_both_ways(mean, deviation, other_mean, other_deviation):
    energy = GaussianEnergy((len(mean),), torch.tensor(mean), torch.tensor(deviation))
    truth = gaussian_log_density(other_mean, other_deviation)
    found = compare(energy, truth, np.zeros(len(mean)), np.full(len(mean), 2.0))
    forward = gaussian_divergence(other_mean, other_deviation, mean, deviation)
    reverse = gaussian_divergence(mean, deviation, other_mean, other_deviation)
    assert found.divergence == pytest.approx(forward, rel=2e-3, abs=1e-4)
    assert found.reverse_divergence == pytest.approx(reverse, rel=2e-3, abs=1e-4)
    assert found.mode_mass == pytest.approx([1.0]) and found.true_mode_mass == pytest.approx([1.0])


@pytest.mark.parametrize("known", [gaussian_ring(), gaussian_line(), concentric_rings(3)], ids=lambda known: known.name)
def test_an_energy_that_is_the_truth_is_at_no_distance(known):
    energy = Given(known.dim, lambda x: 7.0 - known.log_density(x))
    box = box_of(known.draw(1000, torch.Generator().manual_seed(0)))
    found = compare(energy, known.log_density, *box)
    assert found.density.log_normalisation == pytest.approx(-7.0, abs=1e-4)
    assert max(abs(found.divergence), abs(found.reverse_divergence)) < 1e-9
    assert found.true_mode_mass == pytest.approx(known.mode_mass, abs=1e-3)
    assert found.mode_mass == pytest.approx(found.true_mode_mass, abs=1e-9)


def test_a_lost_mode_shows_in_its_mass_and_in_the_divergence():
    truth = gaussian_ring(4)
    kept = gaussian_ring(4, masses=(1.0, 1.0, 1.0, 1e-3))
    found = compare(Given(2, lambda x: -kept.log_density(x)), truth.log_density, np.zeros(2), np.full(2, 2.0))
    assert sorted(found.mode_mass) == pytest.approx(sorted(kept.mode_mass), abs=1e-3)
    exact = float((truth.mode_mass * np.log(truth.mode_mass / kept.mode_mass)).sum())
    assert found.divergence == pytest.approx(exact, abs=0.01)


def test_a_narrow_peak_far_from_the_truth_is_found():
    def energy(x):
        wide = gaussian_log_density([0.0, 0.0], [0.5, 0.5])(x)
        peak = gaussian_log_density([1.3, -0.9], [0.02, 0.02])(x)
        return -torch.logaddexp(wide + math.log(0.25), peak + math.log(0.75))

    found = compare(Given(2, energy), gaussian_log_density([0.0, 0.0], [0.5, 0.5]), np.zeros(2), np.full(2, 2.0))
    assert found.density.log_normalisation == pytest.approx(0.0, abs=3e-3)
    assert found.divergence == pytest.approx(math.log(4.0), abs=0.02)


def test_an_energy_without_a_density_says_so():
    network = MLPEnergy((2,), (8,))
    found = plane_density(network, np.zeros(2), np.ones(2))
    assert found.outcome == "not normalisable" and found.mass_outside > 0.5
    tilted = SumEnergy([network, GaussianEnergy((2,))])
    assert plane_density(tilted, np.zeros(2), np.ones(2)).outcome == "resolved"


def test_too_few_cells_are_told():
    energy = GaussianEnergy((2,), 0.3, torch.tensor([0.0005, 0.5]))
    found = plane_density(energy, np.zeros(2), np.ones(2), PlaneSettings(resolution=16, n_cells=600))
    assert found.outcome == "coarse" and found.log_normalisation_error > 1e-3


def test_the_energy_is_left_as_it_was():
    energy = MLPEnergy((2,), (8,))
    before = {name: tensor.clone() for name, tensor in energy.state_dict().items()}
    plane_density(energy, np.zeros(2), np.ones(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in energy.state_dict().items())


def test_modes_join_where_the_pass_is_shallow():
    height = np.array([[0.0, 3.0, 2.0, 2.8, 0.0, 1.0, -1.0]])
    assert modes_of(height, 0.5).tolist() == [[0, 0, 0, 1, 1, 2, 2]]
    assert modes_of(height, 0.9).tolist() == [[0, 0, 0, 0, 0, 1, 1]]
    assert modes_of(height, 2.0).tolist() == [[0] * 7]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: plane_density(GaussianEnergy((3,)), np.zeros(3), np.ones(3)),
        lambda: plane_density(GaussianEnergy((2,)), np.zeros(2), np.array([1.0, 0.0])),
        lambda: compare(GaussianEnergy((2,)), lambda x: -x.square().sum(1), np.zeros(2), np.ones(2)),
        lambda: compare(GaussianEnergy((2,)), lambda x: x.detach().sum(1), np.zeros(2), np.ones(2)),
        lambda: compare(GaussianEnergy((2,)), lambda x: -x, np.zeros(2), np.ones(2)),
        lambda: PlaneSettings(tolerance=0.0),
        lambda: PlaneSettings(n_cells=10),
    ],
)
def test_wrong_input_is_told(wrong):
    with pytest.raises(UserError):
        wrong()
