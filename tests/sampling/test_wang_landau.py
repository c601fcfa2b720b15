"""Wang-Landau and multicanonical sampling against exact densities of states."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import site_kernels
from theodolite.sampling.enumerate import tabulate
from theodolite.sampling.multicanonical import Multicanonical, discrete_space
from theodolite.sampling.wang_landau import WangLandau
from theodolite.space import Box, Grid
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts


def run(sampler, seed, evaluations):
    generator = torch.Generator().manual_seed(seed)
    state = sampler.init(generator)
    while state.evaluations < evaluations:
        state, _ = sampler.step(state, generator)
    return state, sampler.estimate(state)


def ising_deviation(side, estimate):
    """Estimate less truth in the levels that exist, and the errors."""
    exact = {energy: np.log(float(count)) for energy, count in ising_counts(side).items() if count}
    centres = (estimate.level_edges[1:] + estimate.level_edges[:-1]) / 2
    found = {round(c): i for i, c in enumerate(centres) if estimate.visited[i]}
    assert set(found) == set(exact)
    rows = [found[energy] for energy in exact]
    truth = np.array(list(exact.values()))
    return estimate.log_density_of_states[rows] - truth, estimate.log_density_error[rows]


@pytest.fixture(scope="module")
def toy():
    """A random convolutional network on 4x4 binary images, tabulated, and its exact counts in bins of 1."""
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(6, 1, 3, 3, generator=generator)
    second = torch.randn(8, 6, 3, 3, generator=generator)
    out = torch.randn(8, generator=generator) * 1.5

    def function(x):
        hidden = F.relu(F.conv2d(x.float()[:, None] - 0.5, first, padding=1))
        return F.relu(F.conv2d(hidden, second, padding=1)).mean((2, 3)) @ out

    space = Grid((4, 4), 2)
    table = tabulate(Field(space, function))
    numbers = np.floor(table.numpy()).astype(int)
    counts = {b: int((numbers == b).sum()) for b in np.unique(numbers)}
    return Field(space, function, table=table), counts


def test_ising_8_is_absolute_and_within_its_errors():
    _, estimate = run(WangLandau(ising(8), learning_evaluations=500_000), 1, 8_000_000)
    deviation, error = ising_deviation(8, estimate)
    assert np.abs(deviation).max() < 0.25
    assert np.sqrt(np.mean((deviation / error) ** 2)) < 2.0
    assert estimate.absolute


def test_intervals_cover_95_percent(toy):
    field, counts = toy
    covered, largest = [], []
    for seed in range(40):
        _, estimate = run(WangLandau(field, learning_evaluations=6000, bin_width=1.0), seed, 40_000)
        deviations = []
        for i, edge in enumerate(estimate.level_edges[:-1]):
            count = counts.get(round(edge), 0)
            if count > 100:
                deviations.append(estimate.log_density_of_states[i] - np.log(count))
                covered.append(abs(deviations[-1]) <= 1.96 * estimate.log_density_error[i])
        assert len(deviations) == sum(count > 100 for count in counts.values())
        largest.append(np.abs(deviations).max())
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.median(largest) < 0.3


def test_batches_and_compiled_kernel_make_the_same_moves():
    compiled = ising(4)
    batched = Field(compiled.space, compiled.value, level_spacing=compiled.level_spacing)
    _, learnt = run(WangLandau(compiled, learning_evaluations=None), 0, 50_000)
    samplers = [
        Multicanonical(field, learnt.level_edges, learnt.log_density_of_states, settling=800)
        for field in (compiled, batched)
    ]
    (one, first), (two, second) = (run(sampler, 3, 12_000) for sampler in samplers)
    assert (one.levels == two.levels).all()
    assert (one.words == two.words).all()
    assert (one.moves == two.moves).all()
    assert batched.evaluations == one.evaluations == two.evaluations
    assert np.array_equal(first.log_density_of_states, second.log_density_of_states, equal_nan=True)


def test_fields_without_single_site_are_learnt_in_batches():
    field = Field(ising(4).space, ising(4).value, level_spacing=4.0)
    _, estimate = run(WangLandau(field, learning_evaluations=6_000), 0, 24_000)
    deviation, error = ising_deviation(4, estimate)
    assert np.abs(deviation).max() < 0.5
    assert np.abs(deviation / error).max() < 5


def test_flatness_schedule_alone_learns_the_density():
    sampler = WangLandau(ising(4), learning_evaluations=None, schedule="flatness", n_walkers=1)
    state, estimate = run(sampler, 0, 1_000_000)
    deviation, error = ising_deviation(4, estimate)
    assert np.abs(deviation).max() < 0.25
    assert np.isinf(error).all()
    assert state.n_halvings > 5


def test_wrong_weights_still_give_the_right_density():
    _, learnt = run(WangLandau(ising(4), learning_evaluations=None), 0, 100_000)
    tilted = learnt.log_density_of_states + 0.8 * np.sin(np.arange(len(learnt.log_density_of_states)))
    _, estimate = run(Multicanonical(ising(4), learnt.level_edges, tilted), 1, 1_000_000)
    deviation, error = ising_deviation(4, estimate)
    assert np.abs(deviation).max() < 0.1
    assert np.abs(deviation / error).max() < 5


def test_a_step_leaves_its_state_alone_and_repeats():
    sampler = WangLandau(ising(4), learning_evaluations=4000)
    state, _ = run(sampler, 0, 8000)
    kept = copy.deepcopy(state)
    one, _ = sampler.step(state, torch.Generator())
    two, _ = sampler.step(kept, torch.Generator())
    for name, leaf in vars(kept).items():
        assert np.array_equal(leaf, getattr(state, name))
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_levels_are_found_from_a_start_in_the_ground_state():
    field = ising(8)
    sampler = WangLandau(field, learning_evaluations=200_000)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator, start=torch.ones(16, 64, dtype=torch.int64))
    while state.evaluations < 1_000_000:
        state, _ = sampler.step(state, generator)
    deviation, _ = ising_deviation(8, sampler.estimate(state))
    assert np.abs(deviation).max() < 0.3


def test_values_carried_by_changes_are_the_fields_own():
    field = ising(8)
    state, _ = run(WangLandau(field, learning_evaluations=50_000), 0, 60_000)
    x = discrete_space(field).from_levels(torch.from_numpy(state.levels.astype(np.int64)))
    assert np.array_equal(field.value(x).numpy(), state.values)


def test_stationary_distribution_has_full_accuracy_over_a_thousand_nats():
    log_ratio = np.full(300, -4.0)
    moves = np.zeros((301, 3))
    moves[:-1, 2] = 1e6 * np.exp(log_ratio)
    moves[1:, 0] = 1e6
    moves[:, 1] = 1e7 - moves[:, 0] - moves[:, 2]
    expected = np.concatenate([[0.0], np.cumsum(log_ratio)])
    assert np.allclose(site_kernels.log_stationary(moves), expected, atol=1e-8)


def test_unlinked_bins_are_not_guessed():
    moves = np.zeros((4, 3))
    moves[0], moves[1], moves[2] = [0, 5, 5], [5, 5, 5], [0, 5, 0]
    found = site_kernels.log_stationary(moves)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()


def test_wrong_settings_are_refused():
    box = Field(Box((2,), 0.0, 1.0), lambda x: x[:, 0].double())
    with pytest.raises(UserError, match="discrete"):
        WangLandau(box, 10, bin_width=1.0)
    with pytest.raises(UserError, match="bin_width"):
        WangLandau(Field(Grid((2,), 2), lambda x: x[:, 0].double()), 10)
    with pytest.raises(UserError, match="schedule"):
        WangLandau(ising(4), 10, schedule="none")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="n_walkers"):
        WangLandau(ising(4), 10, n_walkers=0).init(torch.Generator())
