"""Pair flips against convex quadratic programs, fine grids and what must not depend on anything else."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search import pair_solver
from theodolite.search.pair_flips import all_pairs, pair_flips
from theodolite.search.regions import Region

F64 = torch.float64


def outputs_of(function, n, n_outputs, low=0.0, high=1.0, dtype=F64):
    return Outputs(function, (n,), torch.full((n,), low), torch.full((n,), high), n_outputs, dtype=dtype)


def linear(n, n_outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_outputs, n, generator=generator, dtype=F64)
    bias = 0.3 * torch.randn(n_outputs, generator=generator, dtype=F64)
    bias = bias - weight.sum(1) / 2  # all classes occur in the unit box
    return weight, bias, lambda x: x @ weight.T.to(x) + bias.to(x)


def small_network(n, n_outputs, seed, width=12):
    generator = torch.Generator().manual_seed(seed)
    first = 3.0 * torch.randn(width, n, generator=generator, dtype=F64)
    shift = torch.randn(width, generator=generator, dtype=F64)
    last = torch.randn(n_outputs, width, generator=generator, dtype=F64)
    return lambda x: torch.relu(x @ first.T.to(x) + shift.to(x)) @ last.T.to(x)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def check(exact, inputs, first, second, flips, low=0.0, high=1.0):
    """What every pair flip must fulfil."""
    rows = flips.found
    point, z = flips.point[rows], exact.value(flips.point[rows])
    one, two = z.gather(1, first[rows, None]), z.gather(1, second[rows, None])
    assert torch.allclose((two - one)[:, 0], flips.residual[rows], atol=1e-13, rtol=0)
    assert ((two - one >= 0) & (two - one <= 1e-9)).all()
    others = z.scatter(1, first[rows, None], -torch.inf).scatter(1, second[rows, None], -torch.inf)
    assert (others.amax(1) <= one[:, 0] - 1e-6).all()
    assert ((point >= low) & (point <= high)).all()
    assert torch.allclose((point - inputs[rows]).norm(dim=1), flips.distance[rows])


def quadratic_program(weight, bias, x0, i, j, equality=None):
    """The exact distance for a linear network; inf where the pair never leads."""
    others = [k for k in range(len(bias)) if k not in (i, j)]
    constraints = [
        {
            "type": "eq",
            "fun": lambda x: (weight[j] - weight[i]) @ x + bias[j] - bias[i],
            "jac": lambda x: weight[j] - weight[i],
        },
        {
            "type": "ineq",
            "fun": lambda x: (weight[i] - weight[others]) @ x + bias[i] - bias[others] - 1e-6,
            "jac": lambda x: weight[i] - weight[others],
        },
    ]
    if equality is not None:
        constraints.append({"type": "eq", "fun": lambda x: equality[0] @ x - equality[1], "jac": lambda x: equality[0]})
    found = minimize(
        lambda x: ((x - x0) ** 2).sum() / 2,
        x0,
        jac=lambda x: x - x0,
        bounds=[(0, 1)] * len(x0),
        constraints=constraints,
        options={"ftol": 1e-14, "maxiter": 300},
    )
    return np.linalg.norm(found.x - x0) if found.success else np.inf


def all_of(n_classes):
    pairs = [(i, j) for i, j in itertools.product(range(n_classes), repeat=2) if i != j]
    return torch.tensor(pairs).T


def test_linear_networks_reach_the_quadratic_program():
    weight, bias, function = linear(8, 4, 0)
    exact = outputs_of(function, 8, 4)
    first, second = all_of(4)
    inputs = torch.rand(len(first), 8, generator=seeded(1), dtype=F64)
    flips = pair_flips(exact, exact, inputs, first, second, generator=seeded())
    truth = [
        quadratic_program(weight.numpy(), bias.numpy(), x0, i, j)
        for x0, i, j in zip(inputs.numpy(), first.tolist(), second.tolist(), strict=True)
    ]
    assert np.isfinite(truth).sum() >= 10
    assert flips.distance.numpy() == pytest.approx(truth, rel=1e-5)
    check(exact, inputs, first, second, flips)
    assert flips.target[flips.found].tolist() == second[flips.found].tolist()


def test_bounds_and_equalities_of_the_region_are_honoured_exactly():
    weight, bias, function = linear(8, 3, 2)
    exact = outputs_of(function, 8, 3)
    first, second = all_of(3)
    inputs = torch.rand(6, 8, generator=seeded(3), dtype=F64)
    low, high = torch.zeros_like(inputs), torch.ones_like(inputs)
    low[:, 0] = high[:, 0] = inputs[:, 0]
    matrix = torch.ones(1, 8, dtype=F64)
    region = Region(low, high, "L2", matrix, inputs.sum(1, keepdim=True))
    flips = pair_flips(exact, exact, inputs, first, second, region=region, generator=seeded())
    check(exact, inputs, first, second, flips)
    rows = flips.found
    assert torch.equal(flips.point[rows, 0], inputs[rows, 0])
    assert torch.allclose(flips.point[rows].sum(1), inputs[rows].sum(1), atol=1e-12, rtol=0)
    fixed = np.eye(8)[0]
    for row, x0 in enumerate(inputs.numpy()):
        equality = (np.stack((fixed, np.ones(8))), np.array([x0[0], x0.sum()]))
        truth = quadratic_program(weight.numpy(), bias.numpy(), x0, int(first[row]), int(second[row]), equality)
        assert float(flips.distance[row]) == pytest.approx(truth, rel=1e-5)
    assert int(rows.sum()) >= 3


@pytest.mark.parametrize("seed", [0, 1])
def test_networks_of_the_plane_against_a_fine_grid(seed):
    function = small_network(2, 4, seed)
    exact, rough = outputs_of(function, 2, 4), outputs_of(function, 2, 4, dtype=torch.float32)
    axis = torch.linspace(0, 1, 601, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    z = function(grid)
    highest = z.argmax(1).reshape(601, 601)
    inputs = torch.rand(3, 2, generator=seeded(seed), dtype=F64)
    every = grid[torch.randint(0, len(grid), (400,), generator=seeded(7))]
    reference = (every, function(every).argmax(1))
    first, second = all_of(4)
    n_pairs = len(first)
    inputs, first, second = inputs.repeat_interleave(n_pairs, 0), first.repeat(3), second.repeat(3)
    flips = pair_flips(rough, exact, inputs, first, second, reference=reference, generator=seeded())
    check(exact, inputs, first, second, flips)
    # Neighbouring grid points of classes i and j have their tie between them.
    left, right = highest[:-1].flatten(), highest[1:].flatten()
    low, up = highest[:, :-1].flatten(), highest[:, 1:].flatten()
    middle = grid.reshape(601, 601, 2)
    across = ((middle[:-1] + middle[1:]) / 2).reshape(-1, 2)
    upward = ((middle[:, :-1] + middle[:, 1:]) / 2).reshape(-1, 2)
    sides = torch.stack((torch.cat((left, low)), torch.cat((right, up))), 1).sort(1).values
    ties = torch.cat((across, upward))
    found = 0
    for row in range(len(inputs)):
        wanted = torch.tensor([min(first[row], second[row]), max(first[row], second[row])])
        crossings = ties[(sides == wanted).all(1)]
        if len(crossings) < 20:
            continue
        truth = float((crossings - inputs[row]).norm(dim=1).min())
        assert float(flips.distance[row]) == pytest.approx(truth, abs=2.5e-3)
        found += 1
    assert found >= 6


def test_rows_do_not_influence_each_other():
    function = small_network(6, 4, 3)
    exact = outputs_of(function, 6, 4)
    inputs = torch.rand(6, 6, generator=seeded(4), dtype=F64)
    first, second = function(inputs).argmax(1), (function(inputs).argmax(1) + 1) % 4
    every = torch.rand(200, 6, generator=seeded(5), dtype=F64)
    reference = (every, function(every).argmax(1))
    together = pair_flips(exact, exact, inputs, first, second, reference=reference, generator=seeded())
    for row in range(6):
        alone = pair_flips(
            exact,
            exact,
            inputs[row : row + 1],
            first[row : row + 1],
            second[row : row + 1],
            reference=reference,
            generator=seeded(),
        )
        assert float(alone.distance[0]) == pytest.approx(float(together.distance[row]), rel=1e-6)
        # Rounding differs with the size of a batch, and may cost or save a step.
        assert int(alone.units[0]) == pytest.approx(int(together.units[row]), rel=0.15)


@pytest.mark.parametrize("effort", ["thorough", "retry"])
def test_answers_do_not_depend_on_the_place_in_a_batch(effort, monkeypatch):
    # Random starts and references are drawn; many blocks and an effort that finds little, so that some rows go again.
    monkeypatch.setattr(pair_solver, "_NUMBERS_AT_ONCE", 7e3)
    little = pair_solver.PairEffort(4, 1, 1, (2,), (1,))
    few_steps = replace(pair_solver.EFFORTS["thorough"], steps=(4, 6, 20))
    monkeypatch.setitem(pair_solver.EFFORTS, "regular", little)
    monkeypatch.setitem(pair_solver.EFFORTS, "thorough", few_steps)
    effort = "regular" if effort == "retry" else effort
    function = small_network(6, 3, 6, width=30)
    exact = outputs_of(function, 6, 3)
    n = 12
    inputs = torch.rand(n, 6, generator=seeded(4), dtype=F64)
    first, second = function(inputs).topk(2, dim=1).indices.T
    every = torch.rand(300, 6, generator=seeded(5), dtype=F64)
    reference = (every, function(every).argmax(1))

    def flips_of(rows):
        return pair_flips(
            exact,
            exact,
            inputs[rows],
            first[rows],
            second[rows],
            reference=reference,
            effort=effort,
            generator=seeded(),
        )

    together = flips_of(torch.arange(n))
    order = torch.randperm(n, generator=seeded(6))
    permuted = flips_of(order)
    split = torch.cat([flips_of(rows).point for rows in torch.arange(n).split(5)])
    assert together.found.sum() >= 6
    for point in (permuted.point[order.argsort()], split):
        assert torch.allclose(point, together.point, rtol=0, atol=1e-6, equal_nan=True)


def test_units_of_length_do_not_matter():
    function = small_network(6, 3, 6)
    inputs = torch.rand(4, 6, generator=seeded(8), dtype=F64)
    first = function(inputs).argmax(1)
    second = (first + 1) % 3
    plain = outputs_of(function, 6, 3)
    stretched = outputs_of(lambda x: function(x / 256.0), 6, 3, high=256.0)
    one = pair_flips(plain, plain, inputs, first, second, generator=seeded())
    other = pair_flips(stretched, stretched, 256.0 * inputs, first, second, generator=seeded())
    assert one.found.any()
    assert torch.allclose(256.0 * one.distance, other.distance, rtol=1e-6)


def test_without_bounds_two_classes_meet_at_the_plane():
    weight, bias, function = linear(5, 2, 9)
    exact = outputs_of(function, 5, 2, -torch.inf, torch.inf)
    inputs = 10.0 * torch.randn(7, 5, generator=seeded(9), dtype=F64)
    z = function(inputs)
    first = z.argmax(1)
    flips = pair_flips(exact, exact, inputs, first, 1 - first, generator=seeded())
    truth = (z[:, 0] - z[:, 1]).abs() / (weight[0] - weight[1]).norm()
    assert torch.allclose(flips.distance, truth, rtol=1e-8)


def test_all_pairs_are_the_pairs_one_by_one():
    function = small_network(6, 4, 11)
    exact = outputs_of(function, 6, 4)
    inputs = torch.rand(3, 6, generator=seeded(12), dtype=F64)
    own = function(inputs).argmax(1)
    table = all_pairs(exact, exact, inputs, own, generator=seeded())
    assert table.distance.isnan().nonzero().tolist() == [[k, int(own[k])] for k in range(3)]
    units = torch.zeros(3, dtype=torch.int64)
    for image, second in itertools.product(range(3), range(4)):
        if second == own[image]:
            continue
        rows = slice(image, image + 1)
        alone = pair_flips(exact, exact, inputs[rows], own[rows], torch.tensor([second]), generator=seeded())
        units[image] += alone.units[0]
        assert float(alone.distance[0]) == pytest.approx(float(table.distance[image, second]), rel=1e-6)
    assert torch.allclose(units.double(), table.units.double(), rtol=0.15)


def test_bad_rows_are_reported_and_harm_no_other():
    weight, bias, function = linear(4, 3, 13)

    def broken(x):
        return torch.where(x[:, :1] > 0.9, torch.nan, function(x))

    exact = outputs_of(broken, 4, 3)
    inputs = torch.full((2, 4), 0.5, dtype=F64)
    inputs[1, 0] = 0.95
    first = torch.tensor([0, 0])
    both = pair_flips(exact, exact, inputs, first, first + 1, generator=seeded())
    alone = pair_flips(exact, exact, inputs[:1], first[:1], first[:1] + 1, generator=seeded())
    assert both.found.tolist() == [bool(alone.found[0]), False]
    assert float(both.distance[0]) == float(alone.distance[0])
    assert both.point[1].isnan().all() and both.target[1] == -1


def test_an_input_on_the_tie_is_its_own_flip_and_constants_have_none():
    def two_equal(x):
        return torch.stack((x[:, 0], x[:, 0], x[:, 1] - 1.0, torch.zeros_like(x[:, 0]) - 5.0), 1)

    exact = outputs_of(two_equal, 2, 4)
    inputs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], dtype=F64)
    flips = pair_flips(
        exact, exact, inputs, torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3]), generator=seeded(), effort="quick"
    )
    assert flips.distance.tolist() == [0.0, np.inf, np.inf]
    assert torch.equal(flips.point[0], inputs[0])


def test_a_tie_nearer_than_single_precision_resolves_is_found():
    weight, _, function = linear(5, 3, 20)
    rough, exact = outputs_of(function, 5, 3, dtype=torch.float32), outputs_of(function, 5, 3)
    inputs = torch.rand(40, 5, generator=seeded(21), dtype=F64)
    z = function(inputs)
    first, second = z.topk(2, dim=1).indices.T
    found = pair_flips(exact, exact, inputs, first, second, generator=seeded())
    normal = (weight[first] - weight[second]) / (weight[first] - weight[second]).norm(dim=1, keepdim=True)
    distances = 10.0 ** torch.linspace(-9, -3, 40, dtype=F64)
    near = found.point + distances[:, None] * normal
    inside = found.found & ((found.point > 0.01) & (found.point < 0.99)).all(1)
    flips = pair_flips(rough, exact, near[inside], first[inside], second[inside], generator=seeded())
    assert int(inside.sum()) >= 10
    assert torch.allclose(flips.distance, distances[inside], rtol=1e-4, atol=1e-9)


def test_wrong_input_is_refused():
    _, _, function = linear(3, 3, 0)
    exact = outputs_of(function, 3, 3)
    inputs, first, second = torch.rand(2, 3), torch.tensor([0, 1]), torch.tensor([1, 2])
    region = Region(torch.zeros(2, 3), torch.ones(2, 3), "L1")
    wrong = [
        (inputs[:, :2], first, second, {}, "inputs"),
        (inputs, first, first, {}, "second"),
        (inputs, first + 2, second, {}, "first"),
        (inputs, first[:1], second, {}, "first"),
        (inputs, first, second, {"effort": "lazy"}, "effort"),
        (inputs, first, second, {"region": region}, "L2"),
        (inputs, first, second, {"region": region.select(torch.tensor([0]))}, "region"),
        (inputs, first, second, {"reference": (inputs, first[:1])}, "reference"),
    ]
    for x, i, j, more, name in wrong:
        with pytest.raises(UserError, match=name):
            pair_flips(exact, exact, x, i, j, generator=seeded(), **more)
