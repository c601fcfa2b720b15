"""Replica exchange on exactly solved fields: means on every rung, swaps at the known rate, rungs where they belong."""

import math

import numpy as np
import pytest
import torch

from theodolite import systems
from theodolite.sampling import replica_exchange
from theodolite.sampling.metropolis import RandomMaskMover, TileMover, choose_mover
from theodolite.space import DiscreteSpace


def exact_means(field, rung_lambda: np.ndarray) -> np.ndarray:
    value = field.table.double().numpy()
    weight = np.exp(rung_lambda[:, None] * (value - value.mean())[None])
    return (weight * value).sum(1) / weight.sum(1)


def run(mover, rung_lambda, point, n_steps: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    tuning = mover.initial_tuning(len(rung_lambda))
    state = replica_exchange.init(mover, torch.as_tensor(rung_lambda), point, tuning)
    values = []
    for index in range(n_steps):
        state, value = replica_exchange.step(state, mover, 0.2 if index < n_steps // 5 else 0.0, generator)
        if index == n_steps // 5:
            state = replica_exchange.clear_statistics(state)
        values.append(value)
    return state, torch.stack(values[n_steps // 5 + 1 :]).numpy()


def test_mean_outputs_on_every_rung_of_a_table():
    field = systems.random_table(seed=1)
    rung_lambda = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    mover = RandomMaskMover(field)
    space = field.space
    generator = torch.Generator().manual_seed(0)
    point = space.to_levels(space.draw(16 * 5, generator)).reshape(16, 5, -1)
    state, value = run(mover, rung_lambda, point, 1500, 0)
    assert value.mean((0, 1)) == pytest.approx(exact_means(field, rung_lambda), abs=0.05 * field.table.std().item())
    assert sorted(state.rung[3].tolist()) == [0, 1, 2, 3, 4]


def test_full_conditionals_of_a_linear_field_are_always_accepted():
    field = systems.parse_system("linear:0")
    assert isinstance(field.space, DiscreteSpace)
    generator = torch.Generator().manual_seed(0)
    mover = choose_mover(field, generator)
    assert isinstance(mover, TileMover)
    rung_lambda = np.array([0.0, 0.5])
    point = field.space.to_levels(field.space.draw(8, generator)).reshape(4, 2, -1)
    state, _ = run(mover, rung_lambda, point, 20, 1)
    assert (state.accepted / state.step_count).min() > 0.999


def test_swap_rate_of_gaussian_rungs_is_the_complementary_error_function():
    """Means 1.2 standard deviations apart: swaps happen at the rate erfc(1.2 / 2) (Kofke 2002)."""
    field = systems.latent_linear(4)
    generator = torch.Generator().manual_seed(0)
    mover = choose_mover(field, generator)
    sd = float(field.value(field.space.draw(20_000, generator)).std())
    rung_lambda = np.array([0.0, 1.2 / sd])
    point = field.space.draw(64 * 2, generator).reshape(64, 2, -1)
    state, value = run(mover, rung_lambda, point, 400, 2)
    assert float(state.swap_probability.mean() / state.step_count) == pytest.approx(math.erfc(0.6), abs=0.03)
    assert value.mean((0, 1))[1] - value.mean((0, 1))[0] == pytest.approx(1.2 * sd, abs=0.1 * sd)


def test_rungs_are_placed_at_equal_distances_in_standard_deviations_with_one_at_zero():
    grid = np.linspace(-3, 5, 81)
    rungs = replica_exchange.place_rungs(grid, np.full(81, 2.0), spacing=1.0)
    assert rungs[0] == pytest.approx(-3) and rungs[-1] == pytest.approx(5)
    assert (rungs == 0).sum() == 1
    assert np.diff(rungs) == pytest.approx(0.5)


def test_every_replica_keeps_its_own_point():
    field = systems.random_table(seed=2)
    mover = RandomMaskMover(field)
    generator = torch.Generator().manual_seed(3)
    point = field.space.to_levels(field.space.draw(6, generator)).reshape(2, 3, -1)
    state, _ = run(mover, np.array([-1.0, 0.0, 1.0]), point, 30, 4)
    by_rung = replica_exchange.points_by_rung(state)
    value = field.value(field.space.from_levels(by_rung.flatten(0, 1))).reshape(2, 3)
    held = torch.empty_like(value).scatter_(1, state.rung, state.walkers.value.reshape(2, 3))
    assert torch.equal(value, held)


def test_half_trips_count_journeys_between_the_free_rung_and_the_ends():
    field = systems.random_table(seed=3)
    mover = RandomMaskMover(field)
    generator = torch.Generator().manual_seed(5)
    point = field.space.to_levels(field.space.draw(2, generator)).reshape(1, 2, -1)
    # two rungs of nearly the same weight swap at almost every step: both replicas go to and fro
    state, _ = run(mover, np.array([0.0, 1e-9]), point, 50, 6)
    assert int(state.half_trips[0]) > 30
