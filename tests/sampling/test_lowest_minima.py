"""The bounded table of minima, and pair spins in whole numbers, against plain Python."""

import copy

import numpy as np
import pytest
import torch

from theodolite.sampling import scaled_spins
from theodolite.sampling.lowest_minima import FoundMinima, agree, empty_table, listed, offer
from theodolite.search.descent import descend
from theodolite.systems.ising import ising
from theodolite.systems.spin_glass import pair_spin_field, spin_glass

FIELDS = [
    spin_glass(9, 4),
    pair_spin_field(spin_glass(9, 5).flip_costs.couplings, np.random.default_rng(1).normal(0, 0.5, 9), constant=2.0),
    ising(4, external=0.25),
]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_scaled_costs_and_energies(field):
    costs = field.flip_costs
    scaled = scaled_spins.scaled_costs(costs)
    spins = field.space.draw(20, torch.Generator().manual_seed(0)).numpy().astype(np.int32)
    energies = field.value(torch.from_numpy(spins).long()).numpy()
    largest = 2 * (np.abs(costs.couplings).sum(1) + np.abs(costs.external)).max()
    assert scaled.quantum <= largest * 2.0**-27
    close = 2 * len(spins[0]) ** 2 * scaled.quantum
    assert scaled.quantum * scaled_spins.scaled_energies(scaled, spins) + costs.constant == pytest.approx(
        energies, abs=close
    )
    for state, energy in zip(spins, scaled_spins.scaled_energies(scaled, spins), strict=True):
        here = np.zeros(len(state), np.int32)
        scaled_spins.fill_costs(scaled.pair, scaled.along, state, here)
        for site in range(len(state)):
            moved, updated = state.copy(), here.copy()
            scaled_spins.flip(scaled.pair, moved, updated, site)
            fresh = np.zeros_like(here)
            scaled_spins.fill_costs(scaled.pair, scaled.along, moved, fresh)
            assert (updated == fresh).all()
            assert scaled_spins.scaled_energies(scaled, moved[None])[0] == energy + here[site]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_scaled_quench_is_the_steepest_descent(field):
    scaled = scaled_spins.scaled_costs(field.flip_costs)
    points = field.space.draw(60, torch.Generator().manual_seed(1))
    truth = descend(field, points)
    for row, start in enumerate(points.numpy()):
        state = start.astype(np.int32)
        here = np.zeros_like(state)
        scaled_spins.fill_costs(scaled.pair, scaled.along, state, here)
        before = scaled_spins.scaled_energies(scaled, state[None])[0]
        change, n_flips = scaled_spins.quench(scaled.pair, state, here, scaled.place_mask)
        assert state.tolist() == truth.point[row].tolist()
        assert n_flips == int(truth.flips[row])
        assert before + change == scaled_spins.scaled_energies(scaled, state[None])[0]
        assert (here >= 0).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_table_keeps_the_lowest_and_when_they_came(mirrored):
    generator = np.random.default_rng(3)
    table = empty_table(12, 40, np.int8, mirrored)
    energy_of, first_of = {}, {}
    for time in range(3000):
        state = generator.choice([-1, 1], 12).astype(np.int32)
        name = tuple(state * state[0]) if mirrored else tuple(state)
        value = energy_of.setdefault(name, float(generator.normal()))
        first_of.setdefault(name, time)
        offer(state, value, time, *table.arrays())
    count = int(table.count[0])
    n_kept = 20 if mirrored else 40
    assert n_kept <= count <= len(table.energy) == 2 * n_kept
    lowest = sorted(energy_of, key=energy_of.__getitem__)[:n_kept]
    rows = {tuple(point): k for k, point in enumerate(table.point[:count].tolist())}
    assert len(rows) == count
    for name in lowest:
        assert table.energy[rows[name]] == energy_of[name]
        assert table.found_at[rows[name]] >= first_of[name]
    other = copy.deepcopy(table)
    offer(np.ones(12, np.int32), -100.0, 0, *other.arrays())
    assert other.energy.min() == -100.0 and table.energy.min() > -100.0


def test_listed_minima_are_exact_sorted_and_come_with_their_mirror_images():
    field = spin_glass(10, 0)
    found = descend(field, field.space.draw(200, torch.Generator().manual_seed(0)))
    table = empty_table(10, 100, np.int8, mirrored=True)
    for k, state in enumerate(found.point.numpy().astype(np.int32)):
        offer(state, float(found.energy[k]), k, *table.arrays())
    truth = {tuple(row) for row in torch.cat([found.point, -found.point]).tolist()}
    everything = listed(field, table, 100)
    assert {tuple(row) for row in everything.point.tolist()} == truth
    assert len(everything.point) == len(truth)
    assert (everything.energy.diff() >= 0).all()
    assert torch.equal(everything.energy, field.value(everything.point))
    assert torch.equal(everything.point[0], -everything.point[1])
    assert len(listed(field, table, 4).energy) == 4


def test_agree_compares_the_lowest_only():
    point = torch.tensor([[1, 1], [1, -1], [-1, 1]])
    found = FoundMinima(point, torch.tensor([-3.0, -2.0, -2.0]).double(), torch.zeros(3).long())
    swapped = FoundMinima(point[[0, 2, 1]], found.energy, found.found_at)
    other = FoundMinima(point[[1, 0, 2]], found.energy, found.found_at)
    fewer = FoundMinima(point[:2], found.energy[:2], found.found_at[:2])
    higher = FoundMinima(point, found.energy + 0.1, found.found_at)
    assert agree(found, swapped, 3) and agree(found, swapped, 2)
    assert not agree(found, other, 3)
    assert not agree(found, fewer, 3) and agree(found, fewer, 2)
    assert not agree(found, higher, 3)
