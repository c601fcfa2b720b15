"""Values of all points against the field evaluated at every one of them."""

import numpy as np
import pytest
import torch
from numba import njit

from theodolite.errors import FieldError, UserError
from theodolite.field import Field, SingleSite
from theodolite.search import enumerated_values
from theodolite.search.enumerated_values import all_values, levels_of_index
from theodolite.space import Box, Grid, Spins
from theodolite.systems import ising, spin_glass
from theodolite.systems.spin_glass import pair_spin_field


def every_point(space):
    levels = levels_of_index(np.arange(space.levels**space.n_coordinates), space.n_coordinates, space.levels)
    return space.from_levels(torch.from_numpy(levels.astype(np.int64))).reshape(-1, *space.shape)


def random_glass(n, seed, external):
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.normal(size=(n, n)), 1)
    return pair_spin_field(upper + upper.T, generator.normal(size=n) if external else None, constant=0.7)


@pytest.fixture(params=[1, 3])
def n_threads(request, monkeypatch):
    monkeypatch.setattr(enumerated_values.numba, "get_num_threads", lambda: request.param)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 15])
def test_pair_spins_from_flip_costs_and_from_single_changes(n, external, n_threads):
    field = random_glass(n, n, external)
    direct = field.value(every_point(field.space)).numpy()
    scale = max(1.0, np.abs(direct).max())
    assert np.abs(all_values(field) - direct).max() <= 1e-13 * scale
    walked = Field(field.space, field.value, single_site=field.single_site)
    before = walked.evaluations
    assert np.abs(all_values(walked) - direct).max() <= 1e-12 * scale
    assert walked.evaluations - before <= max(2**n // 1024, 1) + 64  # anchors and checks, not every state
    if n > 1 and not external:
        assert np.array_equal(all_values(field, half=True), all_values(field)[2 ** (n - 1) :])
        assert np.array_equal(all_values(field), all_values(field)[::-1])


@njit
def _quadratic_change(levels, site, new_level, data):
    (weight,) = data
    rest = 0.0
    for k in range(len(levels)):
        if k != site:
            rest += weight[site, k] * levels[k]
    old = levels[site]
    return 2.0 * (new_level - old) * rest + weight[site, site] * (new_level * new_level - old * old)


@pytest.mark.parametrize(("n", "n_levels"), [(1, 7), (2, 40), (7, 3), (6, 4)])
def test_grids_from_single_changes_and_by_evaluation(n, n_levels, n_threads):
    generator = np.random.default_rng(n)
    weight = generator.normal(size=(n, n))
    weight = weight + weight.T
    matrix = torch.from_numpy(weight)

    def value(x):
        flat = x.reshape(len(x), n).double()
        return ((flat @ matrix) * flat).sum(1)

    space = Grid((n,), n_levels)
    direct = value(every_point(space)).numpy()
    walked = all_values(Field(space, value, single_site=SingleSite(_quadratic_change, (weight,))))
    assert np.abs(walked - direct).max() <= 1e-12 * np.abs(direct).max()
    # Batches of another size may sum in another order.
    assert np.abs(all_values(Field(space, value)) - direct).max() <= 1e-14 * np.abs(direct).max()
    assert np.array_equal(all_values(Field(space, value, table=torch.from_numpy(direct))), direct)


def test_equal_energies_are_equal_numbers():
    field = ising(4)
    tenth = Field(field.space, lambda x: 0.1 * field.value(x), level_spacing=0.4)
    assert len(np.unique(all_values(tenth))) == len(np.unique(all_values(field))) == 15
    assert np.array_equal(all_values(field), field.value(every_point(field.space)).numpy())


def test_wrong_input():
    with pytest.raises(UserError, match=r"0\.25 GiB.*8 GiB"):
        all_values(spin_glass(30), 1 << 28)
    with pytest.raises(UserError, match="discrete"):
        all_values(Field(Box((2,), 0.0, 1.0), lambda x: x.sum(1)))
    with pytest.raises(UserError, match="half"):
        all_values(ising(3, 0.5), half=True)
    with pytest.raises(UserError, match="half"):
        all_values(Field(Spins(5), lambda x: x.double().sum(1)), half=True)
    with pytest.raises(UserError, match="half"):
        all_values(Field(Grid((3,), 3), lambda x: x.double().sum(1)), half=True)
    field = spin_glass(6)
    with pytest.raises(FieldError, match="agree"):
        all_values(Field(field.space, lambda x: 1.001 * field.value(x), single_site=field.single_site))
