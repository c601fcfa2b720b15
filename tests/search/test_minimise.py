"""Batched L-BFGS against scipy's, and what it does at walls, edges of the finite region and bad arguments."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from theodolite.errors import FieldError, UserError
from theodolite.field import Field
from theodolite.search.minimise import distinct, minimise, trace_descents
from theodolite.space import Box, Latent
from theodolite.systems import gaussian_mixture, ising, mueller_brown, quartic_wells, rough_basins

SURFACES = [mueller_brown(), rough_basins(), gaussian_mixture(2, 1), gaussian_mixture(8, 0), quartic_wells(5)]


def draws(field, n, seed=0):
    return field.space.draw(n, torch.Generator().manual_seed(seed)).double()


def scipy_minimum(field, start):
    shape = start.shape

    def function(x):
        value, gradient = field.value_and_gradient(torch.from_numpy(x).reshape(1, *shape))
        return float(value[0]), gradient[0].numpy().ravel()

    box = [(field.space.low, field.space.high)] * start.numel() if isinstance(field.space, Box) else None
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000}
    return minimize(function, start.numpy().ravel(), jac=True, method="L-BFGS-B", bounds=box, options=options)


def random_bowl(seed, dim=7):
    """A stiff quadratic whose free minimum lies outside the box in some coordinates."""
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(dim, dim)))[0]
    matrix = torch.from_numpy(rotation @ np.diag(np.geomspace(1.0, 300.0, dim)) @ rotation.T)
    centre = torch.from_numpy(random.uniform(-2.0, 2.0, dim))
    return Field(Box((dim,), -1.0, 1.0), lambda x: 0.5 * (((x - centre) @ matrix) * (x - centre)).sum(1))


@pytest.mark.parametrize("seed", range(5))
def test_bowls_cut_by_walls_have_scipys_minimum(seed):
    field = random_bowl(seed)
    starts = draws(field, 20, seed)
    found = minimise(field, starts)
    truth = scipy_minimum(field, starts[0])
    assert bool(found.converged.all())
    assert ((np.abs(truth.x) == 1.0).any()) == bool((found.point[0].abs() == 1.0).any())
    assert found.energy.numpy() == pytest.approx(np.full(20, truth.fun), rel=1e-9, abs=1e-9)
    assert (found.point - torch.from_numpy(truth.x)).abs().max() < 1e-5


def test_a_curved_valley_has_scipys_minimum_and_few_evaluations():
    def rosenbrock(x):
        return (100.0 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1.0 - x[:, :-1]) ** 2).sum(1)

    field = Field(Latent(6), rosenbrock)
    starts = draws(field, 50)
    field.evaluations = 0
    found = minimise(field, starts)
    mine = field.evaluations / len(starts)
    field.evaluations = 0
    truths = [scipy_minimum(field, start) for start in starts]
    assert bool(found.converged.all())
    # Beside the one at (1, ..., 1) there is a second minimum, near (-1, 1, ..., 1).
    ends = np.array([0.0, 3.9739405009])
    for energy in (found.energy.numpy(), np.array([truth.fun for truth in truths])):
        assert np.abs(energy[:, None] - ends).min(1).max() < 1e-8
    assert mine < 1.5 * field.evaluations / len(starts)


@pytest.mark.parametrize("known", SURFACES, ids=lambda known: known.field.name)
def test_every_minimum_of_a_surface_is_found_and_nothing_else(known):
    found = minimise(known.field, draws(known.field, 600))
    truth = known.known_minima()
    assert bool(found.converged.all())
    assert float(found.gradient_norm.max()) <= 1e-6
    kept, label = distinct(found.point, found.energy, distance=1e-3)
    gap = torch.cdist(found.point[kept], torch.from_numpy(truth.point)).min(1)
    assert float(gap.values.max()) < 1e-5
    assert len(set(gap.indices.tolist())) == len(kept) >= 0.9 * len(truth.energy)
    assert found.energy[kept].numpy() == pytest.approx(truth.energy[gap.indices.numpy()], abs=1e-9)
    assert torch.equal(label.bincount(minlength=len(kept)) > 0, torch.ones(len(kept), dtype=torch.bool))


def test_rows_do_not_influence_each_other():
    field = quartic_wells(5).field
    starts = draws(field, 40)
    together = minimise(field, starts)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    permuted = minimise(field, starts[order])
    alone = [minimise(field, starts[i : i + 1]) for i in range(40)]
    assert (permuted.point - together.point[order]).abs().max() < 1e-8
    assert (torch.cat([end.point for end in alone]) - together.point).abs().max() < 1e-8
    assert [int(end.iterations[0]) for end in alone] == together.iterations.tolist()


def test_an_energy_without_curvature_ends_in_the_lowest_corner():
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    field = Field(Box((3,), 0.0, 1.0), lambda x: x @ slope)
    found = minimise(field, draws(field, 5))
    assert found.point.tolist() == [[0.0, 1.0, 0.0]] * 5
    assert bool(found.converged.all()) and float(found.gradient_norm.max()) == 0.0


def test_points_keep_their_shape():
    field = Field(Box((1, 3, 2), -1.0, 1.0), lambda x: (x - 0.25).square().sum((1, 2, 3)))
    found = minimise(field, draws(field, 4))
    assert found.point.shape == (4, 1, 3, 2)
    assert (found.point - 0.25).abs().max() < 1e-6


def test_steps_out_of_the_finite_region_are_shortened_and_starts_there_reported():
    # The logarithm is not a number left of 0, where a free step from the right would end.
    field = Field(Latent(1), lambda x: (3.0 * x - x.log())[:, 0])
    found = minimise(field, torch.tensor([[5.0], [-1.0], [0.01], [2.0]], dtype=torch.float64))
    assert found.converged.tolist() == [True, False, True, True]
    assert found.point[[0, 2, 3], 0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert found.energy[1] == found.gradient_norm[1] == float("inf")
    assert int(found.iterations[1]) == 0 and float(found.point[1, 0]) == -1.0


def test_unfinished_rows_say_so():
    found = minimise(mueller_brown().field, torch.tensor([[0.0, 0.0]], dtype=torch.float64), max_iterations=2)
    assert not bool(found.converged[0]) and int(found.iterations[0]) == 2
    unbounded = minimise(Field(Latent(2), lambda x: -x.square().square().sum(1)), torch.ones(1, 2))
    assert not bool(unbounded.converged[0])


def test_traces_fall_and_end_at_the_minimum():
    known = gaussian_mixture(2, 0)
    down = trace_descents(known.field, draws(known.field, 20), largest_step=0.1)
    for row, path in enumerate(down.path):
        assert torch.equal(path[-1], down.end.point[row])
        assert (known.field.value(path).diff() <= 1e-12).all()
        assert float(path.diff(dim=0).norm(dim=1).max()) <= 0.1 + 1e-9
        assert len(path) == int(down.end.iterations[row]) + 1


def test_distinct_takes_the_lowest_of_each_group():
    points = torch.tensor([[0.0], [1.0], [1.05], [0.01], [3.0]])
    kept, label = distinct(points, torch.tensor([2.0, 1.0, 0.5, 1.9, 7.0]), distance=0.1)
    assert kept.tolist() == [2, 3, 4]
    assert label.tolist() == [1, 0, 0, 1, 2]
    strict = distinct(points, torch.tensor([2.0, 1.0, 0.5, 1.9, 7.0]), distance=0.1, energy_tolerance=0.2)[0]
    assert strict.tolist() == [2, 1, 3, 4]


def test_wrong_input_is_refused():
    field = mueller_brown().field
    with pytest.raises(UserError, match="discrete"):
        minimise(ising(4), torch.ones(1, 16))
    with pytest.raises(UserError, match="points"):
        minimise(field, torch.full((1, 2), 9.0))
    for name in ("max_iterations", "gradient_tolerance", "history", "largest_step"):
        with pytest.raises(UserError, match=name):
            minimise(field, torch.zeros(1, 2), **{name: 0})
    with pytest.raises(FieldError, match="one number a point"):
        minimise(Field(Latent(2), lambda x: x), torch.zeros(3, 2))
    assert len(minimise(field, torch.zeros(0, 2)).energy) == 0
