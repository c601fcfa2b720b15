"""The Ising field and its exact counts against enumeration and known numbers."""

import itertools
import math

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.systems import ising, ising_counts, ising_log_density_of_states


def bond_energy(spins, side):
    """One bond at a time, as the definition says."""
    grid = np.asarray(spins).reshape(side, side)
    total = 0
    for row, column in itertools.product(range(side), repeat=2):
        total -= grid[row, column] * (grid[row, (column + 1) % side] + grid[(row + 1) % side, column])
    return total


def all_spins(n):
    index = np.arange(2**n)
    return torch.from_numpy(2 * ((index[:, None] >> np.arange(n)) & 1) - 1)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_energy_and_counts_equal_enumeration(side):
    field, spins = ising(side), all_spins(side * side)
    energy = field.value(spins)
    some = torch.randint(0, len(spins), (40,), generator=torch.Generator().manual_seed(0))
    assert [bond_energy(spins[i], side) for i in some] == energy[some].tolist()
    levels, counts = np.unique(energy.numpy(), return_counts=True)
    assert ising_counts(side) == dict(zip(levels.astype(int).tolist(), counts.tolist(), strict=True))
    assert (np.mod(levels, field.level_spacing) == 0).all()


@pytest.mark.parametrize("side", [5, 8, 16])
def test_counts_of_larger_lattices(side):
    counts, sites = ising_counts(side), side * side
    assert sum(counts.values()) == 2**sites
    assert counts[-2 * sites] == 2
    assert counts[-2 * sites + 8] == 2 * sites
    assert counts[-2 * sites + 12] == 4 * sites
    # The second moment of the energy over all states is the number of bonds.
    assert sum(energy**2 * count for energy, count in counts.items()) == 2 * sites * 2**sites
    if side % 2 == 0:
        assert all(counts[-energy] == count for energy, count in counts.items())
        assert -2 * sites + 4 not in counts


def test_log_density_of_states_is_the_logarithm_of_the_counts():
    levels, log_g = ising_log_density_of_states(12)
    counts = ising_counts(12)
    assert levels.tolist() == list(counts)
    assert log_g == pytest.approx([math.log(count) for count in counts.values()], abs=1e-12)


@pytest.mark.parametrize("side", [2, 3, 6])
def test_capabilities_agree_with_the_energy(side):
    field, generator = ising(side), torch.Generator().manual_seed(side)
    spins = field.space.draw(8, generator)
    levels = field.space.to_levels(spins)
    value, gradient = field.level_gradient(levels)
    assert torch.equal(value, field.value(spins))
    table = field.level_differences.table
    for site in range(side * side):
        flipped = spins.clone()
        flipped[:, site] *= -1
        truth = field.value(flipped) - value
        linearised = (gradient[:, site] * (table[1 - levels[:, site]] - table[levels[:, site]])).sum(1)
        assert torch.equal(truth, linearised)
        for row in range(len(spins)):
            new = 1 - int(levels[row, site])
            change = field.single_site.change(levels[row].numpy().astype(np.uint8), site, new, field.single_site.data)
            assert change == truth[row]


@pytest.mark.parametrize("side", [0, 1, 2.5, True, "4"])
def test_wrong_side_is_refused(side):
    with pytest.raises(UserError, match="side"):
        ising(side)
    with pytest.raises(UserError, match="side"):
        ising_counts(side)
