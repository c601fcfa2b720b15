"""Basin hopping, discrete and real, against all minima."""

import numpy as np
import pytest
import torch

from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field
from theodolite.sampling.basin_hopping import Hopping, SpinHopping
from theodolite.search.descent import descend, is_minimum
from theodolite.space import Box, Grid
from theodolite.systems.spin_glass import pair_spin_field, spin_glass


def all_minima(field):
    states = torch.cartesian_prod(*[torch.arange(field.space.levels)] * field.space.n_coordinates)
    points = field.space.from_levels(states)
    points = points[is_minimum(field, points)]
    return points[field.value(points).argsort(stable=True)]


def rows(points):
    return {tuple(row) for row in points.tolist()}


@pytest.mark.parametrize("external", [0.0, 0.1])
def test_spin_hopping_finds_all_minima(external):
    field = pair_spin_field(spin_glass(14, 2).flip_costs.couplings, np.full(14, external), constant=-1.0)
    minima = all_minima(field)
    sampler = SpinHopping(field, n_lowest=len(minima))
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    state, info = sampler.step(state, generator)
    found = sampler.found(state)
    assert rows(found.point) == rows(minima)
    assert torch.equal(found.energy, field.value(found.point)) and (found.energy.diff() >= 0).all()
    assert 0.0 < info["acceptance"] < 1.0 and info["kicks"] == state.n_kicks
    assert sampler.stop(state, info) is not None
    walkers = torch.from_numpy(state.spins).long()
    assert is_minimum(field, walkers).all()


def test_frozen_walkers_never_climb_and_hot_ones_take_every_minimum():
    field = spin_glass(40, 1)
    frozen, hot = (SpinHopping(field, n_walkers=8, temperature=temperature) for temperature in (1e-9, 1e9))
    generator = torch.Generator().manual_seed(0)
    start = frozen.init(generator)
    end, info = frozen.step(start, generator)
    assert (end.energy <= start.energy).all() and (end.energy < start.energy).any()
    assert info["acceptance"] < 1.0
    assert hot.step(start, generator)[1]["acceptance"] == 1.0


def quarter_wells(x):
    """Wells at all corners of (+-1)^2, their depths 0, .1, .2, .3."""
    tilt = 0.05 * (x[:, 0] + 1) + 0.1 * (x[:, 1] + 1)
    return ((x**2 - 1) ** 2).sum(1) + tilt


def newton_like(points):
    """Plain gradient descent, long enough for the tests."""
    x = points.clone().double()
    for _ in range(400):
        gradient = 4 * x * (x**2 - 1) + torch.tensor([0.05, 0.1], dtype=torch.float64)
        x = x - 0.05 * gradient
    return x.float(), quarter_wells(x)


def test_hopping_on_a_real_surface_finds_every_well():
    field = Field(Box((2,), -2.0, 2.0), quarter_wells)
    sampler = Hopping(field, newton_like, kick=0.8, temperature=0.3, n_walkers=8, resolution=0.05)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    for _ in range(20):
        state, info = sampler.step(state, generator)
    found = sampler.found(state)
    assert rows(found.point.sign()) == {(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)}
    assert len(found.energy) == 4 and (found.energy.diff() > 0).all()
    assert found.energy.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.02)
    assert info["kicks"] == 160 and bool(field.space.contains(state.point).all())


def test_hopping_on_a_grid_uses_the_descent_it_is_given():
    table = torch.from_numpy(np.random.default_rng(4).normal(size=4**4))
    strides = torch.tensor([1, 4, 16, 64])
    field = Field(Grid((4,), 4), lambda x: table[(x * strides).sum(1)], table=table)

    def down(points):
        found = descend(field, points)
        return found.point, found.energy

    minima = all_minima(field)
    sampler = Hopping(field, down, kick=2, temperature=1.0, n_lowest=5, n_walkers=16)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    for _ in range(30):
        state, _ = sampler.step(state, generator)
    found = sampler.found(state)
    assert found.point.tolist() == minima[:5].tolist()
    assert torch.equal(found.energy, field.value(found.point))
    assert (found.found_at <= state.n_kicks).all()


def test_wrong_settings_are_refused():
    field = spin_glass(8, 0)
    with pytest.raises(UserError, match="kick"):
        SpinHopping(field, kick=0)
    with pytest.raises(UserError, match="kick"):
        SpinHopping(field, kick=1.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="temperature"):
        SpinHopping(field, temperature=0.0)
    with pytest.raises(UserError, match="n_walkers"):
        Hopping(field, newton_like, kick=1.0, temperature=1.0, n_walkers=0)
    with pytest.raises(UserError, match="resolution"):
        Hopping(field, newton_like, kick=1.0, temperature=1.0, resolution=-1.0)
    with pytest.raises(MissingCapability, match="flip_costs"):
        SpinHopping(Field(Grid((2,), 3), lambda x: x.double().sum(1)))
