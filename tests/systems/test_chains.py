"""Chains against enumeration, and against independent sampling for the full size."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from theodolite.errors import UserError
from theodolite.systems import Chains, exact_log_density_of_states, rough_settings, smooth_settings
from theodolite.systems.chains_exact import largest_value, log_partition, mean_value

TINY = Chains(rows=2, sites=3, levels=4, single=(0.7, -0.3), pair=((0.4, -0.9), (0.2, 0.5)), scale=2.0, name="tiny")


def all_points(settings):
    n = settings.rows * settings.sites
    points = torch.tensor(list(itertools.product(range(settings.levels), repeat=n)))
    return points.reshape(-1, 1, settings.rows, settings.sites)


@pytest.fixture(scope="module")
def tiny_values():
    return TINY.field().value(all_points(TINY)).numpy()


def test_values_follow_the_definition(tiny_values):
    f = np.array([[math.sqrt(2) * math.cos(math.pi * k * (x + 0.5) / 4) for k in (1, 2)] for x in range(4)])
    points = all_points(TINY).numpy()[:, 0]
    for index in (0, 77, 1234, 4095):
        total = 0.0
        for row in points[index]:
            total += sum(f[x] @ TINY.single for x in row)
            total += sum(f[x] @ np.array(TINY.pair) @ f[y] for x, y in itertools.pairwise(row))
        assert tiny_values[index] == pytest.approx(TINY.unit * total, abs=1e-12)
    assert tiny_values.mean() == pytest.approx(0.0, abs=1e-12)
    assert tiny_values.std() == pytest.approx(2.0, abs=1e-12)


def test_partition_function_mean_and_extremes_equal_enumeration(tiny_values):
    for rate in (-3.0, 0.0, 0.4, 2.0):
        logs = rate * tiny_values
        assert log_partition(TINY, rate) == pytest.approx(logsumexp(logs) - math.log(4096), abs=1e-12)
        weights = np.exp(logs - logsumexp(logs))
        assert mean_value(TINY, rate) == pytest.approx(weights @ tiny_values, abs=1e-11)
    s = 0.6 + 1.7j
    assert np.exp(log_partition(TINY, s)) == pytest.approx(np.exp(s * tiny_values).mean(), abs=1e-12)
    assert largest_value(TINY) == pytest.approx(tiny_values.max(), abs=1e-12)
    assert largest_value(TINY, -1.0) == pytest.approx(tiny_values.min(), abs=1e-12)


def test_bins_equal_enumeration_of_many_rows():
    """Rows add independently: 24 rows are the 24-fold convolution of one row, here on a fine lattice."""
    one = Chains(1, 3, 6, TINY.single, TINY.pair, scale=1.0)
    many = Chains(24, 3, 6, TINY.single, TINY.pair, scale=math.sqrt(24))
    values = one.field().value(all_points(one)).numpy()
    width = 2e-4
    lattice = np.round(values / width).astype(int)
    lowest, exponents = lattice.min() * 24, lattice - lattice.min()
    share = np.bincount(exponents) / len(values)
    size = 24 * (len(share) - 1) + 1
    padded = np.fft.rfft(share, 2 ** int(np.ceil(np.log2(size))))
    total = np.fft.irfft(padded**24)[:size]
    outputs = width * (lowest + np.arange(size))
    edges = np.arange(-8.0, 12.1, 1.0)
    truth = np.histogram(outputs, edges, weights=total)[0]
    found = exact_log_density_of_states(many, edges) - 72 * math.log(6)
    # Rounding a row's value by up to width / 2 moves the edges by about width * sqrt(24 / 12).
    assert found == pytest.approx(np.log(truth), abs=5e-3)


def test_full_size_is_normalised_and_agrees_with_samples():
    settings = smooth_settings()
    edges = np.concatenate([[-70.0], np.arange(-25.0, 26.0, 10.0), [80.0]])
    log_count = exact_log_density_of_states(settings, edges)
    assert logsumexp(log_count) == pytest.approx(784 * math.log(256), abs=1e-9)
    field = settings.field()
    values = field.value(field.space.draw(4000, torch.Generator().manual_seed(0))).numpy()
    share = np.exp(log_count - 784 * math.log(256))
    counts = np.histogram(values, edges)[0]
    error = np.sqrt(4000 * share * (1 - share))
    assert (np.abs(counts - 4000 * share) < 4 * error + 1).all()


def test_the_slope_far_from_typical_inputs_is_the_rate_of_the_saddle_point():
    settings = smooth_settings(sites=12, rows=12, levels=32)
    rate = 2.5
    target = mean_value(settings, rate)
    edges = target + 0.01 * np.arange(-1, 2)
    below, above = exact_log_density_of_states(settings, edges)
    assert (above - below) / 0.01 == pytest.approx(-rate, rel=0.02)


def test_bins_beyond_the_extremes_are_proven_empty():
    top = largest_value(TINY)
    assert np.isneginf(exact_log_density_of_states(TINY, np.array([top + 0.1, top + 1.0]))).all()
    assert np.isneginf(exact_log_density_of_states(TINY, np.array([-90.0, largest_value(TINY, -1.0) - 0.1])))


@pytest.mark.parametrize("settings", [TINY, smooth_settings(3, 4, 16), rough_settings(3, 4, 16)])
def test_capabilities_agree_with_the_value(settings):
    field, generator = settings.field(), torch.Generator().manual_seed(3)
    points = field.space.draw(6, generator)
    levels = field.space.to_levels(points)
    value, gradient = field.level_gradient(levels)
    terms, term_gradient = field.term_gradient(levels)
    assert torch.allclose(value, field.value(points), atol=1e-12)
    assert torch.allclose(terms.sum(1) + field.terms.constant, value, atol=1e-12)
    assert torch.allclose(term_gradient, gradient, atol=1e-12)
    table, (rows, columns) = field.level_differences.table, field.terms.grid
    for site, new in itertools.product(range(levels.shape[1]), (0, settings.levels - 1)):
        changed = levels.clone()
        changed[:, site] = new
        truth = field.value(field.space.from_levels(changed)) - value
        # A value is linear in the embedding of each single site, so the linearised change is the change.
        linearised = (gradient[:, site] * (table[new] - table[levels[:, site]])).sum(1)
        assert torch.allclose(truth, linearised, atol=1e-11)
        change = field.single_site.change(levels[0].numpy().astype(np.uint8), site, new, field.single_site.data)
        assert change == pytest.approx(float(truth[0]), abs=1e-11)
        moved = (field.term_gradient(changed)[0] - terms).abs().amax(0).reshape(rows, columns) > 1e-12
        far = [
            (row, column)
            for row, column in moved.nonzero().tolist()
            if max(abs(row - site // columns), abs(column - site % columns)) > field.terms.radius
        ]
        assert not far


def test_the_relaxed_gradient_is_the_derivative():
    field = TINY.field()
    points = field.space.draw(2, torch.Generator().manual_seed(5)).double().requires_grad_(True)
    assert torch.autograd.gradcheck(field._function, (points,))


def test_rough_chains_keep_the_phase_they_start_in():
    """Exact heat-bath sweeps where the peak phase prevails: zeros stay at the exact mean, noise far below."""
    settings, rate = rough_settings(rows=8, scale=10.0 * math.sqrt(8 / 28)), 12.0
    single, pair = settings.site_table(), settings.bond_table()
    exact = mean_value(settings, rate)
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (8, 28))
    means = []
    for levels in (noise, np.zeros_like(noise)):
        for _ in range(60):
            for parity in (0, 1):
                site = np.arange(parity, 28, 2)
                log_weight = np.broadcast_to(single, (8, 14, 256)).copy()
                left, right = site > 0, site < 27
                log_weight[:, left] += pair[levels[:, site[left] - 1]]
                log_weight[:, right] += pair.T[levels[:, site[right] + 1]]
                levels[:, site] = (rate * log_weight + generator.gumbel(size=log_weight.shape)).argmax(-1)
        means.append(single[levels].sum() + pair[levels[:, :-1], levels[:, 1:]].sum())
    assert means[1] == pytest.approx(exact, rel=0.03)
    assert means[0] < 0.6 * exact


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match="levels"):
        Chains(2, 3, 2, (1.0, 2.0), ((0.0, 0.0), (0.0, 0.0)), 1.0)
    with pytest.raises(UserError, match="pair"):
        Chains(2, 3, 4, (1.0, 2.0), ((0.0, 0.0),), 1.0)
    with pytest.raises(UserError, match="not all zero"):
        Chains(2, 3, 4, (0.0,), ((0.0,),), 1.0)
    with pytest.raises(UserError, match="scale"):
        Chains(2, 3, 4, (1.0,), ((0.0,),), -1.0)
    with pytest.raises(UserError, match="edges"):
        exact_log_density_of_states(TINY, np.array([0.0, np.inf]))
