"""Descents against brute force over all states, for every kind of discrete field."""

import numpy as np
import pytest
import torch

from theodolite.errors import FieldError, MissingCapability, UserError
from theodolite.field import Field, SingleSite
from theodolite.search.descent import descend, is_minimum
from theodolite.space import Box, Grid, Spins
from theodolite.systems.ising import ising
from theodolite.systems.spin_glass import pair_spin_field, spin_glass


def grid_table(levels=4, n=4, seed=0):
    """Random energies of all states of a small grid, coordinate 0 the least significant digit."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=levels**n))


def grid_field(kind, levels=4, n=4, seed=0):
    """The same random energies as a table, and as a function that only gives values."""
    space, table = Grid((n,), levels), grid_table(levels, n, seed)
    strides = torch.tensor([levels**p for p in range(n)])
    return Field(space, lambda x: table[(x.long() * strides).sum(1)], table=table if kind == "table" else None)


def all_points(space):
    index = np.arange(space.levels**space.n_coordinates)
    digits = (index[:, None] // space.levels ** np.arange(space.n_coordinates)) % space.levels
    return space.from_levels(torch.from_numpy(digits))


def neighbours(space, level, neighbourhood):
    """Every state one change away, in the order of coordinates and levels."""
    for site in range(len(level)):
        for new in range(space.levels):
            if new != level[site] and (neighbourhood == "any" or abs(new - level[site]) == 1):
                moved = level.copy()
                moved[site] = new
                yield moved


def brute_force_descent(space, energies, level, neighbourhood):
    """Steepest descent by looking every neighbour up; the first of equals."""
    strides = space.levels ** np.arange(space.n_coordinates)
    n_changes = 0
    while True:
        states = list(neighbours(space, level, neighbourhood))
        values = [energies[int(state @ strides)] for state in states]
        best = int(np.argmin(values))
        if values[best] >= energies[int(level @ strides)] - 1e-12:
            return level, n_changes
        level, n_changes = states[best], n_changes + 1


@pytest.mark.parametrize("kind", ["table", "values"])
@pytest.mark.parametrize("neighbourhood", ["any", "adjacent"])
def test_steepest_descent_on_a_grid_equals_brute_force(kind, neighbourhood):
    field = grid_field(kind)
    points = all_points(field.space)
    energies = field.value(points).numpy()
    some = points[::5]
    found = descend(field, some, neighbourhood=neighbourhood)
    for row, start in enumerate(some.numpy()):
        end, n_changes = brute_force_descent(field.space, energies, start, neighbourhood)
        assert found.point[row].tolist() == end.tolist()
        assert int(found.flips[row]) == n_changes
    assert torch.equal(found.energy, field.value(found.point))
    truth = [
        all(
            energies[int(state @ 4 ** np.arange(4))] >= energies[i]
            for state in neighbours(field.space, p, neighbourhood)
        )
        for i, p in enumerate(points.numpy())
    ]
    assert is_minimum(field, points, neighbourhood=neighbourhood).tolist() == truth
    assert is_minimum(field, found.point, neighbourhood=neighbourhood).all()


@pytest.mark.parametrize("field", [spin_glass(9, 2), ising(3), ising(3, external=0.3)], ids=lambda field: field.name)
def test_all_backends_agree_on_spins(field):
    """Flip costs, single-site changes, a table and values alone: the same descent, equal to brute force."""
    points = all_points(field.space)
    energies = field.value(points)
    values_only = Field(field.space, lambda x: energies[(field.space.to_levels(x) * 2 ** torch.arange(9)).sum(1)])
    backends = {
        "flip costs": field,
        "single site": Field(field.space, field.value, single_site=field.single_site),
        "table": Field(field.space, field.value, table=energies),
        "values": values_only,
    }
    truth = [
        brute_force_descent(field.space, energies.numpy(), level, "any")
        for level in field.space.to_levels(points).numpy()
    ]
    for name, backend in backends.items():
        found = descend(backend, points)
        assert field.space.to_levels(found.point).tolist() == [end.tolist() for end, _ in truth], name
        assert found.flips.tolist() == [n for _, n in truth], name
        expected = torch.tensor([n == 0 for _, n in truth])
        assert torch.equal(is_minimum(backend, points), expected), name


@pytest.mark.parametrize("kind", ["flip costs", "single site", "table", "values"])
def test_greedy_descent_goes_down_to_minima_and_depends_on_the_generator_only(kind):
    glass = spin_glass(10, 1)
    points = all_points(glass.space)
    energies = glass.value(points)
    field = {
        "flip costs": glass,
        "single site": Field(glass.space, glass.value, single_site=glass.single_site),
        "table": Field(glass.space, glass.value, table=energies),
        "values": Field(glass.space, glass.value),
    }[kind]
    some = points[::7]
    first, again, other = (
        descend(field, some, rule="greedy", generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first.point, again.point)
    assert not torch.equal(first.point, other.point)
    assert not torch.equal(first.point, descend(field, some).point)
    for found in (first, other):
        assert is_minimum(glass, found.point).all()
        assert (found.energy <= glass.value(some) + 1e-12).all()
        assert torch.allclose(found.energy, glass.value(found.point), atol=1e-12, rtol=0)
        assert torch.equal(found.flips == 0, is_minimum(glass, some))


def test_values_alone_are_counted():
    field = grid_field("values")
    start = all_points(field.space)[:1]
    found = descend(field, start)
    # The start, then twelve neighbours at every state of the way.
    assert field.evaluations == 1 + 12 * (int(found.flips[0]) + 1)


def test_points_keep_their_shape_and_rows_do_not_influence_each_other():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, generator=generator)
    field = Field(Grid((2, 3), 5), lambda x: torch.sin(x.double() * weight).sum((1, 2)).double())
    points = field.space.draw(20, generator)
    together = descend(field, points)
    assert together.point.shape == (20, 2, 3)
    assert torch.equal(together.point[7:9], descend(field, points[7:9]).point)
    empty = descend(field, points[:0])
    assert empty.point.shape == (0, 2, 3) and len(empty.energy) == 0
    assert is_minimum(field, points[:0]).shape == (0,)


def test_a_tolerance_forgives_small_gains():
    field = grid_field("table")
    points = all_points(field.space)
    assert is_minimum(field, points, tolerance=1e9).all()
    assert int(is_minimum(field, points, tolerance=0.2).sum()) > int(is_minimum(field, points).sum())


def test_energies_that_are_not_finite_are_refused():
    table = grid_table()
    table[77] = np.nan
    tabulated = Field(Grid((4,), 4), lambda x: torch.zeros(len(x)), table=table)
    with pytest.raises(FieldError, match="finite"):
        descend(tabulated, all_points(tabulated.space)[76:77])
    with pytest.raises(FieldError, match="finite"):
        is_minimum(tabulated, all_points(tabulated.space)[76:77])
    with pytest.raises(FieldError, match="finite"):
        descend(
            tabulated, all_points(tabulated.space)[76:77], rule="greedy", generator=torch.Generator().manual_seed(0)
        )
    infinite = Field(Grid((3,), 3), lambda x: torch.where(x.sum(1) == 0, -torch.inf, x.double().sum(1)))
    with pytest.raises(FieldError, match="finite"):
        descend(infinite, torch.tensor([[2, 2, 2]]))


def test_wrong_input_is_refused():
    field = spin_glass(6, 0)
    points = torch.ones(1, 6, dtype=torch.int64)
    with pytest.raises(MissingCapability, match="neighbours"):
        descend(Field(Box((2,), 0.0, 1.0), lambda x: x.sum(1)), torch.zeros(1, 2))
    with pytest.raises(UserError, match="rule"):
        descend(field, points, rule="steep")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="generator"):
        descend(field, points, rule="greedy")
    with pytest.raises(UserError, match="neighbourhood"):
        is_minimum(field, points, neighbourhood="near")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="points"):
        descend(field, torch.zeros(1, 6, dtype=torch.int64))


def test_a_plateau_ends_the_descent():
    """Integer couplings: equal energies next to each other, and a descent that must not run round them."""
    ring = np.zeros((6, 6))
    for i in range(6):
        ring[i, (i + 1) % 6] = ring[(i + 1) % 6, i] = 1.0
    field = pair_spin_field(ring)
    walls = torch.tensor([[1, 1, 1, -1, -1, -1]])
    found = descend(field, walls)
    assert torch.equal(found.point, walls) and int(found.flips[0]) == 0
    assert is_minimum(field, walls).all()
    assert isinstance(field.single_site, SingleSite) and isinstance(field.space, Spins)
