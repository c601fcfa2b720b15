"""MBAR and the final sum against exact answers: a Gaussian of known spread, thermodynamic integration."""

import math

import numpy as np
import pytest

from theodolite.sampling import reweighting

SPREAD = 2.0
RUNGS = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])


def gaussian_samples(seed: int, n_ladders: int = 3, n_steps: int = 4000) -> np.ndarray:
    """Outputs of a reference N(0, SPREAD^2): on rung lambda the output is N(lambda SPREAD^2, SPREAD^2)."""
    rng = np.random.default_rng(seed)
    return rng.normal(RUNGS * SPREAD**2, SPREAD, (n_ladders, n_steps, len(RUNGS)))


def exact_log_density(edges: np.ndarray, log_volume: float) -> np.ndarray:
    cumulative = np.array([0.5 * math.erfc(-edge / (SPREAD * math.sqrt(2))) for edge in edges])
    return log_volume + np.log(np.diff(cumulative))


def test_free_energies_of_a_gaussian_are_lambda_squared_times_half_the_variance():
    edges = np.arange(-8.0, 9.0)
    found = reweighting.reweight(gaussian_samples(0), RUNGS, edges, 0.0, 4)
    assert found.log_partition == pytest.approx(0.5 * RUNGS**2 * SPREAD**2, abs=0.06)
    assert found.log_partition[3] == 0.0


def test_density_is_absolute_and_reaches_where_free_samples_do_not():
    edges = np.arange(-8.0, 9.0)
    found = reweighting.reweight(gaussian_samples(1), RUNGS, edges, 100.0, 4)
    assert found.log_density == pytest.approx(exact_log_density(edges, 100.0), abs=0.12)


def test_a_steep_slope_inside_a_wide_bin_makes_no_bias():
    """Four units wide at a slope of up to 1.5 nats a unit: the bin's mass is far from centre density times width."""
    edges = np.arange(-8.0, 9.0, 4.0)
    found = reweighting.reweight(gaussian_samples(2), RUNGS, edges, 0.0, 4)
    assert found.log_density == pytest.approx(exact_log_density(edges, 0.0), abs=0.08)


def test_jackknife_error_covers_on_independent_samples():
    edges = np.arange(-6.0, 7.0)
    exact = exact_log_density(edges, 0.0)
    inside = []
    for seed in range(40):
        found = reweighting.reweight(gaussian_samples(seed, n_steps=200), RUNGS, edges, 0.0, 6)
        leaves = found.leaf_log_density.reshape(-1, len(exact))
        error = reweighting.jackknife_error(found.log_density, leaves)
        factor = reweighting.student_factor(len(leaves) - 1)
        inside.append(np.abs(found.log_density - exact) < 1.96 * factor * error)
    # 40 seeds of a dozen correlated levels: the standard error of the share is about 0.02
    assert 0.89 < np.mean(inside) <= 0.995


def test_leaves_differ_from_the_whole_by_about_one_block():
    found = reweighting.reweight(gaussian_samples(3, n_steps=400), RUNGS, np.arange(-6.0, 7.0), 0.0, 4)
    assert found.leaf_log_density.shape == (3, 4, 12)
    assert found.ladder_log_density.shape == (3, 12)
    assert np.abs(found.leaf_log_density.mean((0, 1)) - found.log_density).max() < 0.05


def test_levels_without_samples_are_minus_infinity():
    found = reweighting.reweight(gaussian_samples(4, n_steps=50), RUNGS, np.array([0.0, 1.0, 50.0, 60.0]), 0.0, 2)
    assert np.isneginf(found.log_density[2])


def test_thermodynamic_integration_is_exact_for_a_gaussian():
    mean, variance = RUNGS * SPREAD**2, np.full(len(RUNGS), SPREAD**2)
    integral = reweighting.thermodynamic_integration(mean, RUNGS, variance)
    assert integral == pytest.approx(0.5 * RUNGS**2 * SPREAD**2)


@pytest.mark.parametrize("degrees,quantile", [(1, 12.706), (7, 2.365), (1e6, 1.96)])
def test_student_factor_is_the_tabulated_quantile(degrees: float, quantile: float):
    assert 1.96 * reweighting.student_factor(degrees) == pytest.approx(quantile, rel=1e-3)
