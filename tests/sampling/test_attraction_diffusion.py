"""Attraction-Diffusion: its moves against exact distributions, its trials against borders that can be worked out."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from tests.search.flooding import exact_barrier
from theodolite import systems
from theodolite.errors import FieldError, UserError
from theodolite.field import Field
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.sampling.attraction_spins import mixed_keys
from theodolite.space import Box, Grid, Latent, Spins
from theodolite.systems.spin_glass import pair_spin_field

CHAINS = 6_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def all_points(space):
    index = torch.arange(space.levels**space.n_coordinates)
    return space.from_levels(index[:, None] // space.levels ** torch.arange(space.n_coordinates) % space.levels)


def glass_without_costs(n, seed):
    """The same energies without the capability that compiles the trials."""
    return Field(Spins(n), systems.spin_glass(n, seed).value)


def rough_grid():
    generator = np.random.default_rng(3)
    first, second = generator.normal(0, 0.8, (2, 4)), generator.normal(0, 0.8, (4, 4))
    first, second = torch.from_numpy(first), torch.from_numpy(second)

    def value(x):
        x = x.reshape(len(x), 2).long()
        return first[0, x[:, 0]] + first[1, x[:, 1]] + second[x[:, 0], x[:, 1]]

    return Field(Grid((1, 2), 4), value)


def chosen(field, method, norm, **settings):
    return AttractionDiffusion(field, norm=norm, method=method, **settings)


DISCRETE = {
    "compiled": (lambda: systems.spin_glass(7, seed=1), "gibbs"),
    "spins": (lambda: glass_without_costs(7, 1), "gibbs"),
    "spins by components": (lambda: glass_without_costs(7, 1), "component"),
    "grid": (rough_grid, "gibbs"),
    "grid by components": (rough_grid, "component"),
}


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("case", DISCRETE)
def test_sweeps_leave_the_magnetised_distribution(case, norm):
    """From exact draws and from one point: the counts of all points are those of exp{-(U / T + alpha |X - X*|)}."""
    build, method = DISCRETE[case]
    field = build()
    space, temperature, alpha = field.space, 0.9, 0.35
    points = all_points(space)
    target = points[len(points) // 3]
    apart = (points - target).flatten(1).double()
    distance = apart.abs().sum(1) if norm == "L1" else apart.square().sum(1).sqrt()
    chance = (-(field.value(points) / temperature + alpha * distance)).softmax(0)
    generator = seeded(5)
    exact = torch.multinomial(chance, CHAINS, replacement=True, generator=generator)
    diffusion = chosen(field, method, norm)
    targets = target[None].expand(CHAINS, *space.shape)
    place = space.levels ** torch.arange(space.n_coordinates)
    for start, sweeps in ((points[exact], 2), (points[:1].expand(CHAINS, *space.shape), 40)):
        chains = diffusion.run_chains(start, targets, temperature, alpha, sweeps, generator)
        torch.testing.assert_close(chains.energy[:, -1], field.value(chains.point))
        counts = torch.bincount((space.to_levels(chains.point) * place).sum(1), minlength=len(points)).double()
        common = chance * CHAINS > 5
        observed = torch.cat([counts[common], counts[~common].sum()[None]])
        expected = torch.cat([chance[common], chance[~common].sum()[None]]) * CHAINS
        keep = expected > 0
        assert chisquare(observed[keep].numpy(), expected[keep].numpy()).pvalue > 1e-6


def test_the_tail_of_rare_flips_is_there():
    """Independent spins whose flips have chance 1e-3, below the compiled kernel's threshold, must flip that often."""
    n, rare = 40, 1e-3
    pull = 0.5 * math.log((1 - rare) / rare)
    field = pair_spin_field(np.zeros((n, n)), np.full(n, pull))
    up = torch.ones((2000, n), dtype=torch.int64)
    chains = AttractionDiffusion(field).run_chains(up, up, 1.0, 0.0, 5, seeded())
    down = int((chains.point < 0).sum())
    expected = up.numel() * rare
    assert abs(down - expected) < 5 * math.sqrt(expected)


def double_well(x):
    return 8.0 * (x**2 - 1.0).square().sum(1) + 0.7 * x.sum(1)


def quantiles(density, low, high):
    place = np.linspace(low, high, 40_001)
    weight = density(place)
    below = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    return place, below / below[-1]


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("method", ["langevin", "metropolis", "component"])
@pytest.mark.parametrize("space", [Box((1,), -1.1, 0.9), Latent(1)], ids=["box with walls", "latent"])
def test_real_steps_leave_the_magnetised_distribution(space, method, norm):
    """Walls included: the box ends on slopes, where chains press against it."""
    field, temperature, alpha, aim = Field(space, double_well), 2.0, 1.5, 0.6
    low, high = (-1.1, 0.9) if isinstance(space, Box) else (-4.0, 4.0)

    def density(x):
        return np.exp(-(8 * (x**2 - 1) ** 2 + 0.7 * x) / temperature - alpha * np.abs(x - aim))

    place, below = quantiles(density, low, high)
    start = torch.from_numpy(np.interp(np.random.default_rng(1).random((CHAINS, 1)), below, place)).float()
    diffusion = chosen(field, method, norm, resolution=0.05, step=0.6, largest_drift=1.0)
    target = torch.full((CHAINS, 1), aim)
    chains = diffusion.run_chains(start, target, temperature, alpha, 8, seeded(2))
    assert 0.05 < float(chains.acceptance.mean()) < 0.95
    assert float((chains.point != start).double().mean()) > 0.5
    assert kstest(np.interp(chains.point[:, 0].numpy(), place, below), "uniform").pvalue > 1e-5


def test_langevin_in_a_plane_feels_the_pull_of_the_norm():
    """exp(-alpha |X - X*|_2) in the plane: the distance has density r exp(-alpha r), a gamma law; L1: two Laplaces."""
    field = Field(Latent(2), lambda x: 0.0 * x.sum(1))
    aim, alpha = torch.tensor([[0.5, -0.3]]).expand(CHAINS, 2), 2.0
    drawn = np.random.default_rng(4)
    radius, angle = drawn.gamma(2.0, 1 / alpha, CHAINS), drawn.uniform(0, 2 * np.pi, CHAINS)
    start = aim + torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)).float()
    diffusion = chosen(field, "langevin", "L2", resolution=0.1, step=0.7, largest_drift=1.0)
    moved = diffusion.run_chains(start, aim, 1.0, alpha, 6, seeded(1)).point
    assert kstest((moved - aim).norm(dim=1).numpy(), "gamma", args=(2.0, 0.0, 1 / alpha)).pvalue > 1e-5
    start = aim + torch.from_numpy(drawn.laplace(0, 1 / alpha, (CHAINS, 2))).float()
    moved = dataclasses.replace(diffusion, norm="L1").run_chains(start, aim, 1.0, alpha, 6, seeded(2)).point
    assert kstest((moved - aim)[:, 0].numpy(), "laplace", args=(0.0, 1 / alpha)).pvalue > 1e-5


# ---------------------------------------------------------------------- trials


def two_minima(n=10, seed=2):
    field = systems.spin_glass(n, seed)
    points = all_points(field.space)
    energy = field.value(points).numpy()
    index = np.arange(2**n)
    lowest = np.min([energy[index ^ (1 << k)] for k in range(n)], axis=0)
    minima = index[energy < lowest]
    return field, points[minima], energy, minima


@pytest.mark.parametrize("case", ["compiled", "torch", "component"])
def test_trials_on_a_small_glass_tell_the_truth_about_their_paths(case):
    glass, minima, energy, index = two_minima()
    field = glass if case == "compiled" else glass_without_costs(10, 2)
    pairs = [(i, j) for i, j in itertools.permutations(range(len(minima)), 2)]
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    method = "component" if case == "component" else "gibbs"
    diffusion = AttractionDiffusion(field, method=method, improvement_limit=20)
    trials = diffusion.run_trials(minima[first], minima[second], 0.3, 0.8, seeded(), keep_paths=True)
    assert int(trials.success.sum()) > 0
    assert len(trials.paths) == len(pairs)
    for k, (i, j) in enumerate(pairs):
        path = trials.paths[k]
        if not trials.success[k]:
            assert len(path) == 0 and trials.closest[k] > 0
            continue
        assert torch.equal(path[0], minima[i]) and torch.equal(path[-1], minima[j])
        assert ((path[1:] != path[:-1]).sum(1) == 1).all()
        assert float(field.value(path).max()) == pytest.approx(float(trials.highest[k]), abs=1e-9)
        assert float(trials.highest[k]) >= exact_barrier(energy, 10, index[i], index[j]) - 1e-9
        assert trials.closest[k] == 0


def test_trials_follow_algorithm_3_step_by_step():
    """A frozen chain makes exactly M iterations; one whose target is its start, none."""
    field, minima, _, _ = two_minima()
    diffusion = AttractionDiffusion(field, improvement_limit=17)
    start = torch.stack([minima[0], minima[0]])
    target = torch.stack([-minima[0], minima[0]])
    trials = diffusion.run_trials(start, target, 0.01, 0.0, seeded())
    assert trials.success.tolist() == [False, True]
    assert trials.iterations.tolist() == [17, 0]
    assert trials.closest.tolist() == [20.0, 0.0]
    assert trials.highest.tolist() == pytest.approx(field.value(start).tolist())
    short = dataclasses.replace(diffusion, max_iterations=5)
    assert short.run_trials(start, target, 0.01, 0.0, seeded()).iterations.tolist() == [5, 0]


def test_resolution_is_a_distance_of_the_norm():
    field, minima, _, _ = two_minima()
    start = torch.stack([minima[0]])
    target = start.clone()
    target[0, :3] *= -1
    for norm, distance in (("L1", 6.0), ("L2", math.sqrt(12.0))):
        for share, success in ((1.0, True), (0.999, False)):
            diffusion = AttractionDiffusion(field, norm=norm, resolution=share * distance, improvement_limit=3)
            trials = diffusion.run_trials(start, target, 0.001, 0.0, seeded())
            assert bool(trials.success[0]) is success
            assert float(trials.closest[0]) == pytest.approx(distance)


def test_compiled_trials_depend_on_their_keys_alone():
    field, minima, _, _ = two_minima()
    first = torch.arange(200) % len(minima)
    second = (torch.arange(200) // 7 + 1 + first) % len(minima)
    keys = mixed_keys(3, np.arange(200))
    assert len(np.unique(keys)) == 200
    all_at_once = AttractionDiffusion(field, threads=3, improvement_limit=10).run_trials(
        minima[first], minima[second], 0.3, 0.5, seeded(1), keys=keys
    )
    order = torch.randperm(200, generator=seeded(9))
    other = AttractionDiffusion(field, threads=1, improvement_limit=10).run_trials(
        minima[first[order]], minima[second[order]], 0.3, 0.5, seeded(2), keys=keys[order.numpy()]
    )
    for name in ("success", "closest", "iterations", "highest", "acceptance"):
        assert torch.equal(getattr(all_at_once, name)[order], getattr(other, name))


def test_compiled_and_general_trials_agree_in_law():
    glass, minima, _, _ = two_minima()
    lowest = minima[int(glass.value(minima).argmin())]
    start, target = lowest.expand(3000, 10), (-lowest).expand(3000, 10)
    found = []
    for field in (glass, glass_without_costs(10, 2)):
        diffusion = AttractionDiffusion(field, improvement_limit=5)
        trials = diffusion.run_trials(start, target, 0.4, 0.55, seeded(4))
        found.append((trials.success.double().mean(), trials.iterations.double().mean(), trials.highest.mean()))
        assert 0.05 < float(found[-1][0]) < 0.95
    for one, two in zip(*found, strict=True):
        assert float(one) == pytest.approx(float(two), rel=0.06)


def test_success_rises_with_alpha():
    glass, minima, _, _ = two_minima()
    lowest = minima[int(glass.value(minima).argmin())]
    alpha = torch.linspace(0.2, 1.4, 7).double().repeat_interleave(1500)
    n = len(alpha)
    diffusion = AttractionDiffusion(glass, improvement_limit=10)
    trials = diffusion.run_trials(lowest.expand(n, 10), (-lowest).expand(n, 10), 0.3, alpha, seeded(4))
    rate = trials.success.double().reshape(7, -1).mean(1)
    assert rate[0] < 0.3 and rate[-1] > 0.9
    assert (rate.diff() > -0.03).all()


def test_mirror_states_of_ising_below_and_above_the_critical_temperature():
    """Magnetised weakly, the up state is metastable at T = 1 (nucleation is out of reach) and reaches down at T = 4."""
    field = systems.ising(8)
    up = torch.ones((100, 64), dtype=torch.int64)
    diffusion = AttractionDiffusion(field, improvement_limit=30, resolution=2 * 64 * 0.3)
    assert not bool(diffusion.run_trials(up, -up, 1.0, 0.1, seeded()).success.any())
    assert bool(diffusion.run_trials(up, -up, 4.0, 0.1, seeded()).success.all())
    # at T = 1 a corner-free flip costs 8 and the field must pay for it: alpha > 4 drives every spin over at once
    assert bool(diffusion.run_trials(up, -up, 1.0, 4.5, seeded()).success.all())


@pytest.mark.parametrize("method", ["langevin", "metropolis"])
def test_the_metastable_border_of_two_wells(method):
    """U = 8 (x^2 - 1)^2 at T -> 0: the pull wins where alpha T exceeds the steepest slope, 8 * 8 / (3 sqrt 3)."""
    field = Field(Box((1,), -2.0, 2.0), lambda x: 8.0 * (x**2 - 1.0).square().sum(1))
    temperature, border = 0.01, 8.0 * 8.0 / (3.0 * math.sqrt(3.0))
    diffusion = AttractionDiffusion(
        field, method=method, resolution=0.1, step=0.01, largest_drift=0.01, improvement_limit=200
    )
    left, right = torch.full((50, 1), -1.0), torch.full((50, 1), 1.0)
    below = diffusion.run_trials(left, right, temperature, 0.9 * border / temperature, seeded())
    above = diffusion.run_trials(left, right, temperature, 1.1 * border / temperature, seeded(), keep_paths=True)
    assert not bool(below.success.any()) and bool(above.success.all())
    assert float(above.highest.min()) == pytest.approx(8.0, abs=0.05)
    for path, highest in zip(above.paths, above.highest, strict=True):
        assert float(path[0]) == -1.0 and float((path[-1] - 1.0).abs()) <= 0.1
        assert float((path[1:] - path[:-1]).abs().max()) < 0.1
        assert float(field.value(path).max()) == pytest.approx(float(highest))


def test_the_drift_is_kept_short():
    """A strong pull must not throw the chain over the barrier onto its target."""
    field = Field(Box((1,), -2.0, 2.0), lambda x: 8.0 * (x**2 - 1.0).square().sum(1))
    diffusion = AttractionDiffusion(field, resolution=0.1, step=0.5, improvement_limit=200)
    left = torch.full((20, 1), -1.0)
    trials = diffusion.run_trials(left, -left, 0.01, 5000.0, seeded(), keep_paths=True)
    assert bool(trials.success.all())
    for path in trials.paths:
        assert float((path[1:] - path[:-1]).abs().max()) < 0.1
        assert float(field.value(path).max()) > 7.5


def test_a_tuned_step_accepts_and_a_discrete_space_has_none():
    field = Field(Latent(8), lambda x: 20.0 * x.square().sum(1))
    diffusion = AttractionDiffusion(field, resolution=0.5)
    points = torch.zeros(200, 8)
    tuned = diffusion.with_tuned_step(points, 0.5, seeded())
    chains = tuned.run_chains(points, points, 0.5, 0.0, 200, seeded(1))
    assert 0.45 < float(chains.acceptance.mean()) < 0.9
    with pytest.raises(UserError, match="real space"):
        AttractionDiffusion(systems.ising(4)).with_tuned_step(torch.ones(1, 16), 1.0, seeded())


def test_an_unfit_value_is_reported():
    field = Field(Box((1,), -1.0, 1.0), lambda x: torch.where(x[:, 0] > 0.5, torch.nan, x[:, 0]))
    diffusion = AttractionDiffusion(field, resolution=0.1, step=0.1)
    with pytest.raises(FieldError, match="non-finite"):
        diffusion.run_trials(torch.tensor([[0.0]]), torch.tensor([[0.9]]), 1.0, 50.0, seeded())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"norm": "L3"}, "norm"),
        ({"method": "langevin"}, "method"),
        ({"improvement_limit": 0}, "improvement_limit"),
        ({"resolution": -1.0}, "resolution"),
        ({"resolution": math.nan}, "resolution"),
        ({"step": 0.0}, "step"),
    ],
)
def test_wrong_settings_are_refused(settings, name):
    with pytest.raises(UserError, match=name):
        AttractionDiffusion(systems.ising(4), **settings)


def test_wrong_arguments_are_refused():
    field = systems.spin_glass(6, 0)
    diffusion, up = AttractionDiffusion(field), torch.ones((2, 6), dtype=torch.int64)
    for temperature, alpha, name in (
        (0.0, 1.0, "temperature"),
        (-1.0, 1.0, "temperature"),
        (math.inf, 1.0, "temperature"),
        (1.0, -0.1, "alpha"),
        (1.0, math.nan, "alpha"),
        (torch.tensor([1.0, 0.0]), 1.0, "temperature"),
    ):
        with pytest.raises(UserError, match=name):
            diffusion.run_trials(up, -up, temperature, alpha, seeded())
    with pytest.raises(UserError, match="target"):
        diffusion.run_trials(up, up[:1], 1.0, 1.0, seeded())
    with pytest.raises(UserError, match="outside"):
        diffusion.run_trials(up, 2 * up, 1.0, 1.0, seeded())
    with pytest.raises(UserError, match="outside"):
        diffusion.run_trials(2 * up, up, 1.0, 1.0, seeded())
    box = Field(Box((1,), 0.0, 1.0), lambda x: x.sum(1))
    with pytest.raises(UserError, match="resolution"):
        AttractionDiffusion(box)
    with pytest.raises(UserError, match="step"):
        AttractionDiffusion(box, resolution=0.1).run_trials(torch.zeros(1, 1), torch.ones(1, 1), 1.0, 1.0, seeded())
