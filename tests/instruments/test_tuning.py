"""Tuning, metastable borders and barriers at the border, against landscapes that can be worked out."""

import math

import numpy as np
import pytest
import torch

from tests.search.flooding import exact_barrier
from theodolite import systems
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.attraction_borders import attraction_barriers, metastable_borders
from theodolite.instruments.tuning import phase_diagram, proposed_resolution, tune
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.search.descent import descend
from theodolite.space import Box, Grid


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def two_wells(high=2.0):
    """U = 8 (x^2 - 1)^2: slope 64 / (3 sqrt 3) at its steepest, barrier 8."""
    return Field(Box((1,), -high, high), lambda x: 8.0 * (x.double() ** 2 - 1.0).square().sum(1))


STEEPEST = 64.0 / (3.0 * math.sqrt(3.0))


def ends():
    return torch.tensor([[-1.0]]), torch.tensor([[1.0]])


@pytest.mark.parametrize("search", ["paper", "bisection"])
def test_the_border_of_two_wells(search):
    """As T -> 0 a trial succeeds exactly where alpha T exceeds the steepest slope on the way."""
    temperature = 0.01
    diffusion = AttractionDiffusion(two_wells(), resolution=0.1, step=0.01, largest_drift=0.01, improvement_limit=100)
    left, right = ends()
    borders = metastable_borders(
        diffusion, torch.cat([left, right]), torch.cat([right, left]), temperature, seeded(), search=search, n_trials=3
    )
    assert (borders.alpha * temperature).tolist() == pytest.approx([STEEPEST] * 2, rel=0.1)
    assert borders.level.tolist() == pytest.approx([8.0, 8.0], abs=0.05)
    assert float(borders.paths[0][0]) == -1.0 and float(borders.paths[1][0]) == 1.0


def test_no_magnetisation_is_needed_within_the_resolution():
    left, _ = ends()
    diffusion = AttractionDiffusion(two_wells(), resolution=0.5, step=0.01)
    borders = metastable_borders(diffusion, left, left + 0.1, 0.01, seeded(), n_trials=2)
    assert borders.alpha.tolist() == [0.0]


def test_barriers_of_a_small_glass_are_upper_bounds_with_their_paths():
    n = 12
    field = systems.spin_glass(n, seed=6)
    index = np.arange(2**n)
    points = torch.from_numpy(2 * ((index[:, None] >> np.arange(n)) & 1) - 1)
    energy = field.value(points).numpy()
    minima = index[energy < np.min([energy[index ^ (1 << k)] for k in range(n)], axis=0)]
    first, second = np.triu_indices(len(minima), 1)
    diffusion = AttractionDiffusion(field, improvement_limit=30)
    found = attraction_barriers(diffusion, points[minima[first]], points[minima[second]], 0.2, seeded())
    exact = np.array([exact_barrier(energy, n, minima[i], minima[j]) for i, j in zip(first, second, strict=True)])
    assert (found.level.numpy() >= exact - 1e-9).all()
    assert (found.level.numpy() - exact).mean() < 0.2 * (exact.mean() - energy.min())
    assert (found.level.numpy() < exact + 1e-9).mean() > 0.5
    for k, path in enumerate(found.paths):
        assert torch.equal(path[0], points[minima[first[k]]]) and torch.equal(path[-1], points[minima[second[k]]])
        assert ((path[1:] != path[:-1]).sum(1) == 1).all()
        assert torch.equal(field.value(path), found.energies[k])
        assert float(found.energies[k].max()) == pytest.approx(float(found.level[k]), abs=1e-9)
    assert found.alpha.shape == (len(first), 2) and bool((found.alpha >= 0).all())


def test_the_last_leg_belongs_to_the_path():
    """With a wide resolution trials stop early: what is left to the target still counts."""
    field = systems.spin_glass(12, seed=6)
    lowest = descend(field, field.space.draw(20, seeded())).point[:1]
    diffusion = AttractionDiffusion(field, improvement_limit=10, resolution=8.0)
    found = attraction_barriers(diffusion, lowest, -lowest, 0.2, seeded())
    assert torch.equal(found.paths[0][0], lowest[0]) and torch.equal(found.paths[0][-1], -lowest[0])
    assert ((found.paths[0][1:] != found.paths[0][:-1]).sum(1) == 1).all()
    wall = Field(Box((1,), -2.0, 2.0), lambda x: torch.exp(-(((x[:, 0] - 0.95) / 0.01) ** 2)))
    flat = AttractionDiffusion(wall, resolution=0.2, step=0.02)
    found = attraction_barriers(flat, torch.tensor([[0.0]]), torch.tensor([[1.0]]), 0.05, seeded(), n_trials=3)
    assert float(found.level[0]) > 0.9


def test_a_wall_thinner_than_a_step_is_seen_between_steps():
    field = Field(Box((1,), -2.0, 2.0), lambda x: torch.exp(-(((x[:, 0]) / 0.02) ** 2)))
    diffusion = AttractionDiffusion(field, method="metropolis", resolution=0.1, step=0.3, improvement_limit=50)
    left, right = ends()
    borders = metastable_borders(diffusion, left, right, 0.05, seeded(), n_trials=10)
    assert float(borders.level[0]) < 0.9, "steps jump over the wall"
    found = attraction_barriers(diffusion, left, right, 0.05, seeded(), n_trials=10, points_between=100)
    assert float(found.level[0]) > 0.99


def test_grid_fields_without_compiled_costs():
    """Two pits on a 9 x 9 grid of values parted by a ridge of height 2 with a gap of height 1."""
    ridge = torch.full((9, 9), 0.1, dtype=torch.float64)
    ridge[4, :] = 2.0
    ridge[4, 7] = 1.0
    ridge[1, 1] = ridge[7, 1] = 0.0
    field = Field(Grid((2,), 9), lambda x: ridge[x[:, 0].long(), x[:, 1].long()])
    first, second = torch.tensor([[1, 1]]), torch.tensor([[7, 1]])
    found = attraction_barriers(AttractionDiffusion(field, improvement_limit=20), first, second, 0.3, seeded())
    # a change of one coordinate may leap over the ridge: the exact barrier is the rim of the pit
    assert float(found.level[0]) == pytest.approx(0.0, abs=1e-9)
    assert found.paths[0][0].tolist() == [1, 1] and found.paths[0][-1].tolist() == [7, 1]


def test_the_critical_temperature_of_ising():
    """Onsager: 2.269 without a field; a lattice of 12 x 12 gives way a little below."""
    field = systems.ising(12)
    up = torch.ones(144, dtype=torch.int64)
    diffusion = AttractionDiffusion(field, improvement_limit=20)
    temperatures = torch.tensor([1.0, 1.5, 1.9, 2.1, 2.2, 2.3, 2.5, 3.0])
    phase = phase_diagram(diffusion, up, -up, temperatures, seeded(), search="bisection", n_trials=10)
    assert phase.critical_temperature.tolist() == pytest.approx([2.269, 2.269], rel=0.06)
    assert bool((phase.order[:, 0] > 0.99).all()) and bool((phase.order[:, -1].abs() < 0.2).all())
    cold = phase.alpha[:, :3]
    assert bool((cold.diff(dim=1) < 0).all()), "the warmer, the weaker the field that turns the lattice"
    assert bool(torch.isnan(phase.alpha[:, -2:]).all()) and not bool(torch.isnan(phase.border).any())
    # the lattice turns by nucleation in both roles alike
    assert phase.alpha[0, :3].tolist() == pytest.approx(phase.alpha[1, :3].tolist(), rel=0.4)


def test_the_shallower_well_has_the_smaller_metastable_region():
    tilted = Field(Box((1,), -2.0, 2.0), lambda x: (8.0 * (x**2 - 1.0).square() + 2.0 * x).sum(1))
    diffusion = AttractionDiffusion(tilted, resolution=0.15, step=0.03, largest_drift=0.01, improvement_limit=50)
    deep, shallow = torch.tensor([-1.03]), torch.tensor([0.97])
    phase = phase_diagram(diffusion, deep, shallow, torch.tensor([0.1, 0.3]), seeded(), search="bisection", n_trials=5)
    assert bool((phase.alpha[0] > phase.alpha[1]).all())
    assert phase.alpha[:, 0].tolist() == pytest.approx([(STEEPEST + 2.0) / 0.1, (STEEPEST - 2.0) / 0.1], rel=0.25)


def test_tuning_proposes_settings_that_separate_the_wells():
    def value(x):
        return 8.0 * (x[:, 0] ** 2 - 1.0) ** 2 + 4.0 * x[:, 1] ** 2 + 0.2 * torch.cos(25.0 * x).sum(1)

    field = Field(Box((2,), -2.0, 2.0), value)

    def downhill(points):
        points = points.clone()
        for _ in range(300):
            points = (points - 0.004 * field.value_and_gradient(points)[1].clamp(-30, 30)).clamp(-2.0, 2.0)
        return points, field.value(points)

    diffusion = AttractionDiffusion(field, resolution=0.15, improvement_limit=25)
    tuned = tune(diffusion, field.space.draw, downhill, seeded(), n_proposals=12, n_iterations=40)
    assert tuned.diffusion.step is not None
    assert (tuned.temperatures.diff() > 0).all() and (tuned.alphas.diff() > 0).all()
    assert tuned.energies.shape == (12, 41) and float(tuned.energies[:, 0].abs().max()) == 0
    assert float(tuned.climbs[-1]) > 10 * float(tuned.climbs[0])
    assert tuned.basins[-1] == 1 and tuned.basins[0] > 5
    at = tuned.alphas.tolist().index(tuned.alpha)
    assert 2 <= int(tuned.basins[at]) <= 3
    assert 0.002 < tuned.temperature < 0.8
    assert f"{tuned.temperature:.3g}" in tuned.rule and f"{tuned.alpha:.3g}" in tuned.rule


def test_tuning_a_glass_is_the_same_for_the_same_seed():
    field = systems.spin_glass(30, seed=0)

    def down(points):
        found = descend(field, points)
        return found.point, found.energy

    diffusion = AttractionDiffusion(field, improvement_limit=20)
    one, two = (tune(diffusion, field.space.draw, down, seeded(7), n_proposals=40, n_iterations=50) for _ in range(2))
    assert one.rule == two.rule and torch.equal(one.basins, two.basins) and torch.equal(one.energies, two.energies)
    assert one.basins[0] > one.basins[-1] == 1
    given = tune(
        diffusion,
        field.space.draw,
        down,
        seeded(7),
        temperatures=torch.tensor([0.2, 0.1]),
        alphas=torch.tensor([1e3, 1.0]),
        climb=1e-9,
        n_proposals=20,
    )
    assert given.temperature == pytest.approx(0.1) and given.temperatures.tolist() == pytest.approx([0.1, 0.2])
    assert "the lowest tried" in given.rule


def test_the_proposed_resolution():
    minima = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert proposed_resolution(minima) == pytest.approx(5.0 / 4)
    assert proposed_resolution(minima, "L1") == pytest.approx(7.0 / 4)
    with pytest.raises(UserError, match="distinct"):
        proposed_resolution(minima[[0, 2]])


def test_wrong_arguments_are_refused():
    field = systems.spin_glass(8, 0)
    diffusion, up = AttractionDiffusion(field), torch.ones(8, dtype=torch.int64)

    def down(points):
        return torch.ones_like(points), torch.zeros(len(points), dtype=torch.float64)

    with pytest.raises(UserError, match="search"):
        metastable_borders(diffusion, up[None], -up[None], 1.0, seeded(), search="newton")
    with pytest.raises(UserError, match="n_trials"):
        metastable_borders(diffusion, up[None], -up[None], 1.0, seeded(), n_trials=0)
    with pytest.raises(UserError, match="temperature"):
        metastable_borders(diffusion, up[None], -up[None], -1.0, seeded())
    with pytest.raises(UserError, match="first, second"):
        phase_diagram(diffusion, up, up, torch.tensor([1.0]), seeded())
    with pytest.raises(UserError, match="temperature"):
        phase_diagram(diffusion, up, -up, torch.tensor([0.0]), seeded())
    with pytest.raises(UserError, match="distinct minima"):
        tune(diffusion, field.space.draw, down, seeded())
    with pytest.raises(UserError, match="climb"):
        tune(diffusion, field.space.draw, down, seeded(), climb=0.0)
    with pytest.raises(UserError, match="alpha"):
        tune(diffusion, field.space.draw, down, seeded(), alphas=torch.tensor([-1.0]))
