"""Generalised Wang-Landau over basins against enumeration of all states."""

import numpy as np
import pytest
import torch

from theodolite import run as running
from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field
from theodolite.sampling.basin_wang_landau import BasinWangLandau
from theodolite.search.descent import descend, is_minimum
from theodolite.space import Grid
from theodolite.systems.spin_glass import pair_spin_field, spin_glass


def all_states(n):
    return torch.cartesian_prod(*[torch.tensor([-1, 1])] * n)


def walked(sampler, n_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return sampler.walk(sampler.init(generator), n_steps)


def rows(points):
    return {tuple(row) for row in points.tolist()}


@pytest.mark.parametrize("mirror", [True, False])
def test_all_minima_are_found_with_their_mirror_images(mirror):
    field = spin_glass(14, 6)
    states = all_states(14)
    minima = states[is_minimum(field, states)]
    sampler = BasinWangLandau(field, n_lowest=len(minima), high=0.5, mirror=mirror)
    state, info = walked(sampler, 300_000)
    found = sampler.found(state)
    assert rows(found.point) == rows(minima)
    assert rows(found.point) == rows(-found.point)
    assert torch.equal(found.energy, field.value(found.point))
    assert info["minima"] == len(minima) and sampler.stop(state, info) is not None


def test_a_short_list_holds_the_lowest():
    field = pair_spin_field(spin_glass(14, 6).flip_costs.couplings, np.full(14, 0.02), constant=5.0)
    states = all_states(14)
    minima = states[is_minimum(field, states)]
    lowest = field.value(minima).sort().values[:5]
    sampler = BasinWangLandau(field, n_lowest=5, low=-0.4, high=0.8)
    state, _ = walked(sampler, 300_000)
    assert sampler.found(state).energy.tolist() == pytest.approx(lowest.tolist(), abs=1e-12)


def test_the_visits_become_the_number_of_states_in_each_bin():
    """With a falling increment, gamma N is ln of the number of states of the bin, up to a constant."""
    field = spin_glass(12, 1)
    states = all_states(12)
    energy = field.value(states).numpy()
    basin = descend(field, states).point.numpy()
    sampler = BasinWangLandau(field, n_lowest=200, low=-0.8, high=0.2, n_bins=8, reduce=True, mirror=False)
    state, _ = walked(sampler, 6_000_000)
    table = state.minima
    heights = np.maximum(0, np.floor((energy / 12 + 0.8) / (1.0 / 8))).astype(int)
    difference = []
    for row in range(int(table.count[0])):
        inside = (basin == table.point[row]).all(1)
        for height in range(8):
            n_states = int((inside & (heights == height)).sum())
            if n_states:
                difference.append(state.penalty[row, height] - np.log(n_states))
    assert len(difference) > 40
    assert np.std(difference) < 0.25


def test_passes_lead_over_from_one_listed_basin_to_another():
    field = spin_glass(16, 2)
    sampler = BasinWangLandau(field, n_lowest=20, high=0.0)
    state, _ = walked(sampler, 400_000)
    listed = rows(sampler.found(state).point)
    passes = sampler.passes(state)
    assert len(passes.level) > 20
    before = torch.from_numpy(passes.state).long()
    after = before.clone()
    after[torch.arange(len(after)), torch.from_numpy(passes.coordinate)] *= -1
    assert rows(descend(field, before).point) <= listed and rows(descend(field, after).point) <= listed
    assert torch.equal(descend(field, before).point, torch.from_numpy(passes.first).long())
    assert torch.equal(descend(field, after).point, torch.from_numpy(passes.second).long())
    assert (passes.first != passes.second).any(1).all()
    top = torch.maximum(field.value(before), field.value(after)).numpy()
    assert passes.level == pytest.approx(top, abs=1e-12)
    # One pass a pair, up to the mirror image of both.
    names = [
        frozenset({(tuple(a), tuple(b)), (tuple(-a), tuple(-b)), (tuple(b), tuple(a)), (tuple(-b), tuple(-a))})
        for a, b in zip(passes.first, passes.second, strict=True)
    ]
    assert len(set(names)) == len(names)


def test_the_record_of_passes_grows():
    field = spin_glass(30, 0)
    sampler = BasinWangLandau(field, n_lowest=400, mirror=False)
    state, _ = walked(sampler, 400_000)
    assert int(state.n_passes[0]) > 4096 and len(state.level) > 4096
    assert state.n_steps == 400_000
    assert np.isfinite(sampler.passes(state).level).all()


def test_a_run_resumed_from_a_packed_state_goes_on_bit_for_bit():
    sampler = BasinWangLandau(spin_glass(20, 1), n_lowest=10)
    generator = torch.Generator().manual_seed(0)
    state, _ = sampler.step(sampler.init(generator), generator)
    packed = running.unpack(running.pack(state))
    ahead, again = sampler.walk(state, 1000)[0], sampler.walk(packed, 1000)[0]
    assert (ahead.spins == again.spins).all() and (ahead.penalty == again.penalty).all()
    whole = sampler.walk(sampler.init(torch.Generator().manual_seed(0)), state.n_steps + 1000)[0]
    assert (whole.spins == ahead.spins).all()
    assert state.n_steps == 200_000 and ahead.n_steps == 201_000


@pytest.mark.parametrize(
    "settings", [{"n_lowest": 0}, {"n_bins": 0}, {"gamma": 0.0}, {"low": 0.0}, {"high": np.inf}], ids=str
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        BasinWangLandau(spin_glass(8, 0), **settings)


def test_other_fields_and_an_energy_range_below_all_minima_are_refused():
    with pytest.raises(MissingCapability, match="flip_costs"):
        BasinWangLandau(Field(Grid((2,), 3), lambda x: x.double().sum(1)))
    sampler = BasinWangLandau(spin_glass(12, 0), low=-9.0, high=-8.0)
    with pytest.raises(UserError, match="high"):
        sampler.init(torch.Generator().manual_seed(0))
