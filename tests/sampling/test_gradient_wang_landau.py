"""GWL against the exact transition matrix and the exact counts of a space small enough to list."""

import itertools

import numpy as np
import pytest
import torch

from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field, LevelDifferences
from theodolite.sampling.gradient_wang_landau import (
    GradientWangLandau,
    entropy_slope,
    interpolated_entropy,
    log_proposal,
)
from theodolite.space import Grid

TABLE = torch.tensor([[0.0, 1.0], [1.0, -0.5], [2.0, 0.25]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.9, -0.3], [-0.7, 0.8], [0.4, 0.6], [1.1, -0.9]], dtype=torch.float64)


def embedded_value(embedded):
    linear = (embedded * WEIGHTS).sum((1, 2))
    return linear + 0.3 * torch.tanh(linear) * embedded[:, 0, 0] + 0.5 * embedded[:, 1, 0] * embedded[:, 2, 1]


def field():
    return Field(
        Grid((2, 2), 3),
        lambda x: embedded_value(TABLE[x.flatten(1)]),
        level_differences=LevelDifferences(TABLE, embedded_value),
    )


POINTS = torch.tensor(list(itertools.product(range(3), repeat=4)))


def test_proposal_excludes_staying_and_sums_to_one():
    _, gradient = field().level_gradient(POINTS[5:6])
    probability = log_proposal(POINTS[5], gradient[0], TABLE, -2.0).exp()
    assert float(probability.sum()) == pytest.approx(1.0)
    assert (probability[torch.arange(4), POINTS[5]] == 0).all()


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_frozen_entropy_gives_its_inverse_as_stationary_distribution(exponent):
    sampler = GradientWangLandau(
        field(), lowest=-6.0, highest=8.0, exponent=exponent, steps_per_call=5000, check_every=10**9
    )
    generator = torch.Generator().manual_seed(2)
    state = sampler.init(generator)
    state.entropy[:] = 3.0 - 0.15 * (sampler.centres - 1.0) ** 2
    state.increment = 0.0
    state, _ = sampler.step(state, generator)
    values = field().value(POINTS.reshape(-1, 2, 2)).numpy()
    weight = np.exp([-interpolated_entropy(sampler.centres, state.entropy, y) for y in values])
    bins = np.floor(values - sampler.lowest + 0.5).astype(int)
    expected = np.bincount(bins, weight / weight.sum(), minlength=len(sampler.centres))
    found = state.visits / state.visits.sum()
    # 5000 correlated steps: about 600 independent ones, hence a standard error of at most 0.02 in each bin
    assert np.abs(found - expected).max() < 0.07
    assert state.accepted > 500


def test_learnt_entropy_makes_the_exact_occupancy_flat():
    table = torch.arange(3, dtype=torch.float64)[:, None]
    linear = Field(
        Grid((4, 4), 3),
        lambda x: 0.2 * x.flatten(1).double().sum(1),
        level_differences=LevelDifferences(table, lambda embedded: 0.2 * embedded.sum((1, 2))),
    )
    counts = np.ones(1)
    for _ in range(16):
        counts = np.convolve(counts, np.ones(3))
    outputs = 0.2 * np.arange(33)
    # A small first ln f: at 1 the walker freezes on so coarse a field.
    sampler = GradientWangLandau(
        linear,
        lowest=0.0,
        highest=7.0,
        exponent=0.5,
        first_increment=0.05,
        check_every=200,
        steps_per_call=6000,
    )
    generator = torch.Generator().manual_seed(0)
    state, _ = sampler.step(sampler.init(generator), generator)
    weight = np.log(counts) - [interpolated_entropy(sampler.centres, state.entropy, y) for y in outputs]
    occupancy = np.bincount(np.floor(outputs + 0.5).astype(int), np.exp(weight - weight.max()))
    assert state.iteration >= 4
    assert np.std(np.log(occupancy)) < 0.3
    estimate = sampler.estimate(state)
    assert np.isclose(np.exp(estimate.log_density_of_states).sum(), 3.0**16)
    assert np.isinf(estimate.log_density_error).all()
    assert estimate.absolute


def test_iterations_begin_at_the_given_starts():
    start = torch.tensor([[[2, 0], [1, 2]]])
    sampler = GradientWangLandau(field(), starts=start, lowest=-6.0, highest=8.0, check_every=1, steps_per_call=1)
    generator = torch.Generator().manual_seed(0)
    state, _ = sampler.step(sampler.init(generator), generator)
    assert state.iteration == 1
    assert state.increment == 0.5
    assert (state.level.reshape(1, 2, 2) == start).all()


def test_moves_outside_the_range_are_refused_and_noted():
    start = torch.tensor([[[0, 0], [0, 0]]])
    value = float(field().value(start))
    sampler = GradientWangLandau(field(), starts=start, lowest=value - 0.5, highest=value + 1.5, steps_per_call=200)
    generator = torch.Generator().manual_seed(0)
    state, _ = sampler.step(sampler.init(generator), generator)
    assert state.refused > 0
    assert not sampler.estimate(state).absolute


def test_a_step_leaves_its_state_alone():
    sampler = GradientWangLandau(field(), lowest=-6.0, highest=8.0, steps_per_call=20)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    kept = state.level.clone(), state.value, state.entropy.copy()
    sampler.step(state, generator)
    assert (state.level == kept[0]).all()
    assert state.value == kept[1]
    assert (state.entropy == kept[2]).all()


def test_slope_is_the_difference_of_the_bins_around():
    centres, entropy = np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 4.0])
    assert entropy_slope(centres, entropy, 0.4) == 3.0
    assert entropy_slope(centres, entropy, 1.6) == 1.0
    assert interpolated_entropy(centres, entropy, 1.5) == 3.5


def test_wrong_settings_are_refused():
    with pytest.raises(MissingCapability):
        GradientWangLandau(Field(Grid((2, 2), 3), lambda x: x.double().flatten(1).sum(1)))
    with pytest.raises(UserError, match="range of at least 2 bins"):
        GradientWangLandau(field(), lowest=1.0, highest=0.0)
    with pytest.raises(UserError, match="widen the range"):
        GradientWangLandau(field(), lowest=50.0, highest=100.0).init(torch.Generator().manual_seed(0))
