"""ADELM: exactly the modes of a mixture, the exactness of its batches, and its book-keeping."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from theodolite import systems
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.adelm import Adelm, _next_in_order
from theodolite.run import Budget, Meter, drive, read_checkpoint
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.search.descent import descend
from theodolite.space import Box, Spins

CENTRES = torch.tensor(
    [[0.0, 0.0, 0.0], [2.0, 2.0, 0.0], [-2.0, 1.0, 1.0], [0.0, -2.0, -2.0], [2.0, -1.5, 2.0]], dtype=torch.float64
)
DEPTHS = torch.tensor([0.0, 0.5, 1.0, 0.2, 0.7], dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture():
    """Five Gaussian wells of width .45, 2.4 or more apart; ripples of height .1 split each into several minima."""

    def value(x):
        square = (x[:, None, :] - CENTRES).square().sum(2)
        wells = -torch.logsumexp(DEPTHS - square / (2 * 0.45**2), 1)
        return wells + 0.05 * torch.cos(12.0 * x).sum(1)

    return Field(Box((3,), -3.0, 3.0), value)


def downhill(field):
    """Plain gradient descent, enough for smooth wells."""

    def descend_points(points):
        points = points.clone().double()
        for _ in range(300):
            _, gradient = field.value_and_gradient(points)
            points = (points - 0.01 * gradient.clamp(-20, 20)).clamp(-3.0, 3.0)
        return points, field.value(points)

    return descend_points


def steepest(field):
    def descend_points(points):
        found = descend(field, points)
        return found.point, found.energy

    return descend_points


def glass_mapping(**settings):
    field = systems.spin_glass(30, seed=4)
    given = {"burn_in": 60, "test": 120, "batch": 16} | settings
    diffusion = AttractionDiffusion(field, improvement_limit=30)
    return Adelm(diffusion, 0.15, 0.9, field.space.draw, steepest(field), **given)


def run(mapping, seed=0):
    generator = seeded(seed)
    state = mapping.init(generator)
    while not mapping.finished(state):
        state, _ = mapping.step(state, generator)
    return state


def same(one, two):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, torch.Tensor):
            if not torch.equal(a, b):
                return False
        elif a != b and not (isinstance(a, float) and math.isnan(a) and math.isnan(b)):
            return False
    return True


@pytest.mark.parametrize("variant", ["faithful", "fast", "mutual"])
def test_exactly_the_modes_of_separated_gaussians(variant):
    field = mixture()
    diffusion = AttractionDiffusion(field, resolution=0.3, step=0.05, improvement_limit=60)
    mapping = Adelm(
        diffusion,
        temperature=0.1,
        alpha=30.0,
        propose=lambda n, generator: 5.0 * torch.rand((n, 3), generator=generator, dtype=torch.float64) - 2.5,
        descend=downhill(field),
        burn_in=20,
        test=40,
        variant=variant,
        batch=20,
    )
    found = mapping.result(run(mapping))
    distinct = torch.unique((found.member_point / 0.05).round(), dim=0)
    assert len(distinct) > 9, "the ripples split the wells into many minima"
    assert len(found.energy) == 5
    nearest = torch.cdist(found.representative, CENTRES)
    assert sorted(nearest.argmin(1).tolist()) == [0, 1, 2, 3, 4]
    assert float(nearest.amin(1).max()) < 0.3
    assert torch.cdist(found.member_point, CENTRES).argmin(1).tolist() == nearest.argmin(1)[found.label].tolist()
    assert found.member_count.tolist() == torch.bincount(found.label, minlength=5).tolist()
    assert (found.energy.diff() >= 0).all()
    for basin in range(5):
        lowest = found.member_energy[found.label == basin].min()
        assert float(found.energy[basin]) == pytest.approx(float(lowest), abs=1e-6)


@pytest.mark.parametrize(("variant", "n_basins"), [("faithful", 1), ("mutual", 2)])
def test_a_deep_basin_swallows_a_shallow_one_unless_both_ways_are_asked_for(variant, n_basins):
    # Uphill slopes: 2.2 from the shallow well on the right, 10.2 from the deep one; the pull lies between.
    field = Field(
        Box((2,), -2.0, 2.0),
        lambda x: 4 * (x[:, 0] ** 2 - 1) ** 2 + 4 * x[:, 0] + 8 * x[:, 1] ** 2,
        name="tilted double well",
    )
    temperature = 0.05
    mapping = Adelm(
        AttractionDiffusion(field, resolution=0.25, step=0.05, improvement_limit=80),
        temperature=temperature,
        alpha=5.0 / temperature,
        propose=lambda n, generator: 3.0 * torch.rand((n, 2), generator=generator, dtype=torch.float64) - 1.5,
        descend=downhill(field),
        burn_in=8,
        test=16,
        variant=variant,
        batch=8,
    )
    found = mapping.result(run(mapping))
    assert len(found.energy) == n_basins
    wells = found.member_point[:, 0] > 0
    assert wells.any() and not wells.all()
    if n_basins == 2:
        assert all(len(wells[found.label == basin].unique()) == 1 for basin in range(2))


@pytest.mark.parametrize("variant", ["faithful", "fast", "mutual"])
def test_batches_change_nothing(variant):
    """Every decision rests on the representatives of its moment: batches of 1, 7 and 60 agree bit for bit."""
    points = torch.from_numpy(np.random.default_rng(0).choice([-1, 1], (180, 30)))
    taken = []

    def in_turn(n, generator):
        taken.append(n)
        return points[sum(taken) - n : sum(taken)]

    states = []
    for batch in (1, 7, 60):
        taken.clear()
        mapping = dataclasses.replace(glass_mapping(variant=variant, batch=batch), propose=in_turn)
        states.append(run(mapping))
    assert int(states[0].discovered.max()) > 4
    assert int((states[0].reached > 1).sum()) > 5 or variant == "fast"
    for state in states[1:]:
        for name in ("representative", "energy", "label", "level", "reached", "discovered", "consolidations"):
            assert torch.equal(getattr(state, name), getattr(states[0], name)), name


def test_one_proposal_at_a_time_is_algorithm_3():
    """The mapping against a plain loop over proposals and basins that makes the same keyed trials."""
    from theodolite.sampling.attraction_spins import mixed_keys

    mapping = glass_mapping(burn_in=0, test=60, consolidate_last=False)
    state = run(mapping)
    energy_of = mapping.diffusion.field.value
    representative, label = [], []
    for n, minimum in enumerate(state.member_point):
        reached = {}
        for j, other in enumerate(representative):
            for direction, (start, target) in enumerate(((minimum, other), (other, minimum))):
                key = mixed_keys(state.key, np.array([n]), np.array([j]), np.array([direction]))
                trial = mapping.diffusion.run_trials(start[None], target[None], 0.15, 0.9, seeded(), keys=key)
                if trial.success[0]:
                    reached[j] = min(reached.get(j, math.inf), float(trial.highest[0]))
        if not reached:
            representative.append(minimum)
            label.append(len(representative) - 1)
        else:
            label.append(min(reached, key=lambda j: reached[j]))
            if energy_of(minimum[None]) < energy_of(representative[label[-1]][None]) - 1e-8:
                representative[label[-1]] = minimum
        assert int(state.reached[n]) == len(reached)
        assert int(state.discovered[n]) == len(representative)
    assert label == state.label.tolist()
    assert torch.equal(torch.stack(representative), state.representative)


def test_consolidation_joins_linked_basins_and_keeps_the_lowest():
    mapping = glass_mapping(burn_in=100, test=0, consolidate_last=False)
    generator = seeded()
    state = mapping.init(generator)
    while state.n_proposals < 100:
        state, _ = mapping.step(state, generator)
    before = state
    assert len(before.consolidations) == 0 and not mapping.finished(before)
    while not mapping.finished(state):
        state, info = mapping.step(state, generator)
        assert info["phase"] == "consolidation"
    assert state.consolidations.tolist() == [[100, before.n_basins, state.n_basins]]
    assert state.n_basins < before.n_basins
    for basin in range(state.n_basins):
        joined = before.label[state.label == basin].unique()
        assert float(state.energy[basin]) == float(before.energy[joined].min())
    assert torch.equal(state.energy, mapping.diffusion.field.value(state.representative))
    found = mapping.result(state)
    assert (found.basins_before_consolidation, found.basins_after_consolidation) == (before.n_basins, state.n_basins)
    assert found.leakage == pytest.approx(float((state.reached > 1).double().mean()))


def test_consolidation_every_so_often():
    state = run(glass_mapping(burn_in=40, test=70, consolidate_every=25))
    assert state.consolidations[:, 0].tolist() == [25, 40, 50, 75, 100, 110]
    assert (state.consolidations[:, 2] <= state.consolidations[:, 1]).all()


def test_limits_of_alpha():
    """A weak pull makes nearly every minimum its own basin, a strong one joins all."""
    counts = []
    for alpha in (1e-6, 0.9, 50.0):
        mapping = dataclasses.replace(glass_mapping(burn_in=0, test=60, consolidate_last=False), alpha=alpha)
        state = run(mapping)
        counts.append(state.n_basins)
    assert counts[0] > counts[1] > counts[2] == 1


def test_mirror_states_of_ising_stay_apart_below_the_critical_temperature():
    field = systems.ising(6)
    diffusion = AttractionDiffusion(field, improvement_limit=20)
    for temperature, alpha, expected in ((1.0, 0.15, 2), (1.0, 5.0, 1)):
        mapping = Adelm(
            diffusion,
            temperature,
            alpha,
            propose=lambda n, generator: field.space.draw(1, generator)[:, :1] * torch.ones((n, 36), dtype=torch.int64),
            descend=steepest(field),
            burn_in=0,
            test=40,
            batch=1,
        )
        found = mapping.result(run(mapping))
        assert len(found.energy) == expected
        assert found.energy.tolist() == [-72.0] * expected


def test_same_seed_same_map_and_another_seed_another():
    assert same(run(glass_mapping(), 3), run(glass_mapping(), 3))
    assert not same(run(glass_mapping(), 3), run(glass_mapping(), 4))


@pytest.mark.parametrize("kind", ["compiled", "torch"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, kind):
    if kind == "compiled":
        mapping = glass_mapping(consolidate_every=50)
    else:
        glass = systems.spin_glass(6, seed=1)
        field = Field(Spins(6), glass.value)
        diffusion = AttractionDiffusion(field, improvement_limit=5)
        mapping = Adelm(diffusion, 0.2, 0.4, field.space.draw, steepest(glass), burn_in=8, test=8, batch=4)
    field = mapping.diffusion.field

    def go(stop_after, resume=None):
        generator = seeded(5)
        steps = []

        def stop(state, info):
            steps.append(info)
            return mapping.stop(state, info) or ("enough" if len(steps) == stop_after else None)

        meter = Meter(Budget(seconds=600.0), lambda: field.evaluations)
        start = resume.state if resume else mapping.init(generator)
        if resume:
            generator.set_state(resume.generator_state)
        return drive(mapping.step, start, generator, meter=meter, stop=stop, checkpoint=tmp_path / "state").state

    whole = go(None)
    assert mapping.finished(whole)
    half = go(4)
    assert not mapping.finished(half)
    assert same(go(None, read_checkpoint(tmp_path / "state")), whole)


def test_the_next_basin_to_try():
    nan, inf = math.nan, math.inf
    table = torch.tensor([[nan, nan, nan], [inf, nan, nan], [inf, nan, 2.0], [inf, inf, inf], [1.0, nan, nan]])
    order = torch.tensor([[2, 0, 1]] * 2 + [[0, 1, 2]] * 3)
    first, two = _next_in_order(table, order, 1), _next_in_order(table, order, 2)
    assert first.nonzero().tolist() == [[0, 2], [1, 2], [2, 1]]
    assert two.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [1, 2], [2, 1]]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"variant": "quick"}, "variant"),
        ({"burn_in": 0, "test": 0}, "burn_in"),
        ({"burn_in": -1}, "burn_in"),
        ({"batch": 0}, "batch"),
        ({"consolidate_every": 0}, "consolidate_every"),
    ],
)
def test_wrong_settings_are_refused(settings, name):
    with pytest.raises(UserError, match=name):
        dataclasses.replace(glass_mapping(), **settings)
