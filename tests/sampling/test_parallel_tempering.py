"""Searches for the lowest minima against enumeration of all states."""

import numpy as np
import pytest
import torch

from theodolite import run as running
from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field
from theodolite.sampling.lowest_minima import agree
from theodolite.sampling.parallel_tempering import ParallelTempering
from theodolite.sampling.scaled_spins import scaled_costs, scaled_energies
from theodolite.search.descent import is_minimum, quench_levels
from theodolite.space import Grid
from theodolite.systems.spin_glass import pair_spin_field, spin_glass


def all_minima(field):
    """Every local minimum, rising in energy."""
    space = field.space
    index = np.arange(space.levels**space.n_coordinates)
    levels = (index[:, None] // space.levels ** np.arange(space.n_coordinates)) % space.levels
    points = space.from_levels(torch.from_numpy(levels))
    points = points[is_minimum(field, points)]
    energy = field.value(points)
    order = energy.argsort(stable=True)
    return points[order], energy[order]


def advance(sampler, seed, n_steps):
    generator = torch.Generator().manual_seed(seed)
    state = sampler.init(generator)
    for _ in range(n_steps):
        state, info = sampler.step(state, generator)
    return state, info


def grid_table(n=5, levels=3):
    table = torch.from_numpy(np.random.default_rng(2).normal(size=levels**n))
    strides = torch.tensor([levels**p for p in range(n)])
    return Field(Grid((n,), levels), lambda x: table[(x.long() * strides).sum(1)], table=table)


in_a_field = pair_spin_field(
    spin_glass(13, 1).flip_costs.couplings, np.random.default_rng(0).normal(0, 0.1, 13), constant=3.0
)


@pytest.mark.parametrize("field", [spin_glass(14, 6), in_a_field], ids=lambda field: field.name)
def test_all_minima_of_small_glasses_are_found(field):
    points, energy = all_minima(field)
    sampler = ParallelTempering(field, n_lowest=len(energy), high=3.0)
    state, _ = advance(sampler, 1, 1)
    found = sampler.found(state)
    assert torch.equal(found.energy, field.value(found.point))
    assert found.energy.tolist() == pytest.approx(energy.tolist(), abs=1e-12)
    assert {tuple(row) for row in found.point.tolist()} == {tuple(row) for row in points.tolist()}
    fewer = sampler.found(state, n_lowest=4)
    assert len(fewer.energy) == 4 and torch.equal(fewer.point, found.point[:4])
    assert sampler.stop(state, {}) is not None


def test_the_energies_kept_are_those_of_the_replicas():
    field = spin_glass(30, 0)
    state, info = advance(ParallelTempering(field, n_lowest=20), 3, 2)
    assert (state.energy == scaled_energies(scaled_costs(field.flip_costs), state.point)).all()
    assert state.energy[0] < state.energy[-1]
    assert (state.swaps > 0.05 * state.n_sweeps).all() and (state.swaps <= state.n_sweeps).all()
    assert info["sweeps"] == state.n_sweeps and info["minima"] >= 20


def test_replicas_follow_the_boltzmann_distribution():
    """Energies of replicas after many sweeps against exact averages over all states."""
    field = spin_glass(8, 3)
    states = torch.cartesian_prod(*[torch.tensor([-1, 1])] * 8)
    energies = field.value(states)
    sampler = ParallelTempering(field, n_lowest=2, n_temperatures=4, low=0.5, high=2.0)
    object.__setattr__(sampler, "_sweeps_a_step", lambda: 3)
    generator = torch.Generator().manual_seed(0)
    state, seen = sampler.init(generator), []
    quantum = scaled_costs(field.flip_costs).quantum
    for _ in range(4000):
        state, _ = sampler.step(state, generator)
        seen.append(state.energy * quantum)
    mean = np.mean(seen[100:], axis=0)
    for measured, temperature in zip(mean, sampler.temperatures, strict=True):
        weight = torch.softmax(-energies / temperature, 0)
        truth = float((weight * energies).sum())
        deviation = float((weight * (energies - truth) ** 2).sum()) ** 0.5
        # Samples three sweeps apart hold at least a fifth of the information of independent ones.
        assert abs(measured - truth) < 4.0 * deviation / np.sqrt(len(seen) / 5)


def test_other_fields_are_searched_with_a_compiled_quench():
    field = grid_table()
    points, energy = all_minima(field)
    sampler = ParallelTempering(
        field, n_lowest=len(energy), n_temperatures=4, low=0.3, high=2.0, quench_every=2, quench=quench_levels
    )
    state, _ = advance(sampler, 0, 3)
    found = sampler.found(state)
    assert torch.equal(found.energy, energy) and torch.equal(found.point, points)
    assert state.energy == pytest.approx(field.value(torch.from_numpy(state.point)).numpy(), abs=1e-9)
    assert state.n_quenches == 4 * (state.n_sweeps // 2)


def test_two_seeds_agree_on_forty_spins_and_memory_stays_bounded():
    field = spin_glass(40, 0)
    sampler = ParallelTempering(field, n_lowest=60)
    first, second = (advance(sampler, seed, 1)[0] for seed in (1, 2))
    assert len(first.minima.energy) == 120 and first.minima.count[0] <= 120
    one, other = sampler.found(first), sampler.found(second)
    assert len(one.energy) == 60 and agree(one, other, 60)
    assert is_minimum(field, one.point).all()
    assert {tuple(row) for row in one.point.tolist()} == {tuple(row) for row in (-one.point).tolist()}


def test_a_run_resumed_from_a_packed_state_goes_on_bit_for_bit():
    sampler = ParallelTempering(spin_glass(20, 1), n_lowest=10)
    state, _ = advance(sampler, 5, 1)
    generator = torch.Generator().manual_seed(0)
    packed = running.unpack(running.pack(state))
    ahead, again = sampler.step(state, generator)[0], sampler.step(packed, generator)[0]
    assert (ahead.point == again.point).all() and (ahead.words == again.words).all()
    assert torch.equal(sampler.found(ahead).found_at, sampler.found(again).found_at)
    assert state.n_sweeps < ahead.n_sweeps and (state.minima.point == packed.minima.point).all()


def test_nothing_is_settled_while_minima_are_new():
    sampler = ParallelTempering(spin_glass(20, 1), n_lowest=10)
    state = sampler.init(torch.Generator().manual_seed(0))
    assert sampler.stop(state, {}) is None
    state, _ = sampler.step(state, torch.Generator())
    state.minima.found_at[: state.minima.count[0]] = state.n_sweeps
    assert sampler.stop(state, {}) is None


@pytest.mark.parametrize(
    "settings",
    [{"low": 0.0}, {"low": 2.0}, {"high": np.inf}, {"n_lowest": 0}, {"quench_every": 0}, {"margin": -1.0}],
    ids=str,
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        ParallelTempering(spin_glass(8, 0), **settings)


def test_fields_without_the_capabilities_are_refused():
    with pytest.raises(MissingCapability, match="quench"):
        ParallelTempering(grid_table())
    with pytest.raises(MissingCapability, match="single_site"):
        ParallelTempering(Field(Grid((3,), 3), lambda x: x.double().sum(1)))
