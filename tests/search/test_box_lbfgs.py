"""L-BFGS in a box against exact minima of quadratics, and what a changed function, an edge or a bad argument does."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from theodolite.errors import UserError
from theodolite.search.box_lbfgs import BoxRows, BoxSettings, box_minimise, projected


def normal(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bowls(n_rows, dim, seed):
    """A stiff quadratic |M x - t|^2 / 2 a row, whose free minimum lies outside the unit box in many coordinates."""
    matrix = normal((n_rows, dim + 3, dim), seed) * torch.logspace(0, 1, dim, dtype=torch.float64)
    aim = matrix @ (3 * normal((n_rows, dim, 1), seed + 1))

    def function(x, rows):
        rest = matrix[rows].to(x.dtype) @ x[:, :, None] - aim[rows].to(x.dtype)
        return 0.5 * rest.square().sum((1, 2)), (matrix[rows].to(x.dtype).mT @ rest)[:, :, 0]

    return matrix, aim, function


def test_bowls_in_a_box_end_where_bounded_least_squares_does():
    matrix, aim, function = bowls(12, 9, 0)
    found = box_minimise(function, torch.full((12, 9), 0.5, dtype=torch.float64), 0.0, 1.0)
    assert bool(found.converged.all())
    for row in range(12):
        truth = lsq_linear(matrix[row].numpy(), aim[row, :, 0].numpy(), (0.0, 1.0), method="bvls", tol=1e-14)
        assert len({0.0, 1.0} & set(truth.x)) > 0
        assert found.point[row].numpy() == pytest.approx(truth.x, abs=1e-6)
        assert float(found.value[row]) == pytest.approx(truth.cost, rel=1e-10)


def test_a_separable_bowl_has_the_clamped_centre_exactly_on_each_wall():
    low, high = torch.tensor([-1.0, 0.0, -math.inf, 2.0]), torch.tensor([1.0, 0.5, math.inf, 3.0])
    centre = torch.tensor([[4.0, 0.2, -7.0, 0.0], [-0.3, 9.0, 5.0, 2.5]], dtype=torch.float64)
    scale = torch.tensor([1.0, 30.0, 0.1, 5.0], dtype=torch.float64)

    def function(x, rows):
        rest = x - centre[rows]
        return 0.5 * (scale * rest.square()).sum(1), scale * rest

    start = torch.tensor([[0.0, 0.0, 0.0, 2.0]] * 2, dtype=torch.float64)
    found = box_minimise(function, start, low, high, BoxSettings(gradient_tolerance=1e-9))
    truth = centre.clamp(low.double(), high.double())
    assert (found.point - truth).abs().max() < 1e-7
    on_wall = truth != centre
    assert torch.equal(found.point[on_wall], truth[on_wall])


def test_single_precision_reaches_the_minimum_to_its_rounding():
    _, _, function = bowls(6, 9, 3)
    start = torch.full((6, 9), 0.5)
    truth = box_minimise(function, start.double(), 0.0, 1.0)
    found = box_minimise(function, start, 0.0, 1.0, BoxSettings(gradient_tolerance=1e-2))
    assert found.point.dtype == torch.float32
    assert (found.value / truth.value - 1).abs().max() < 1e-5


def test_rows_do_not_influence_each_other():
    _, _, function = bowls(9, 7, 5)
    start = torch.rand((9, 7), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = box_minimise(function, start, 0.0, 1.0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    permuted = box_minimise(lambda x, rows: function(x, order[rows]), start[order], 0.0, 1.0)
    assert (permuted.point - together.point[order]).abs().max() < 1e-9
    for row in range(9):
        alone = box_minimise(lambda x, rows, row=row: function(x, rows + row), start[row : row + 1], 0.0, 1.0)
        assert (alone.point[0] - together.point[row]).abs().max() < 1e-9


def test_every_point_on_the_way_is_visited_and_lower_than_the_one_before():
    _, _, function = bowls(3, 5, 8)
    start = torch.full((3, 5), 0.5, dtype=torch.float64)
    way = [[] for _ in range(3)]

    def visit(points, rows):
        for row, value in zip(rows.tolist(), function(points, rows)[0].tolist(), strict=True):
            way[row].append(value)

    found = box_minimise(function, start, 0.0, 1.0, visit=visit)
    for row in range(3):
        assert len(way[row]) == 1 + int(found.iterations[row])
        assert way[row][-1] == pytest.approx(float(found.value[row]), rel=1e-12)
        assert (np.diff(way[row]) <= 1e-9).all()


def test_starts_that_are_not_finite_and_stops_after_few_steps_are_said():
    def function(x, rows):
        return (3.0 * x - x.log())[:, 0], 3.0 - 1.0 / x

    start = torch.tensor([[5.0], [-1.0], [0.01]], dtype=torch.float64)
    found = box_minimise(function, start, -2.0, 9.0)
    assert found.converged.tolist() == [True, False, True]
    assert found.point[[0, 2], 0].tolist() == pytest.approx([1 / 3] * 2, abs=1e-6)
    assert found.value[1] == found.gradient_norm[1] == math.inf
    early = box_minimise(function, start[:1], -2.0, 9.0, BoxSettings(max_iterations=2))
    assert early.iterations.tolist() == [2] and not bool(early.converged[0])
    assert float(early.value[0]) < float(function(start[:1], None)[0])
    assert len(box_minimise(function, start[:0], 0.0, 1.0).point) == 0


def test_a_stiffer_function_goes_on_with_an_exact_history():
    """After a quadratic's curvature is known, c |x|^2 added to it is met by full steps: the model needs no learning."""
    scale = torch.linspace(1.0, 4.0, 4, dtype=torch.float64)
    wall = torch.full((4,), math.inf, dtype=torch.float64)

    def solve(corrected):
        rows = BoxRows(torch.ones((1, 4), dtype=torch.float64), -wall, wall, 8)
        evaluate = lambda x, c: ((0.5 * (scale + c) * (x - 3) ** 2).sum(1), (scale + c) * (x - 3))  # noqa: E731
        rows.begin(*evaluate(rows.point, 0.0))
        for stiffness in (0.0, 50.0):
            if stiffness:
                start = torch.full((1, 4), 1.0, dtype=torch.float64)
                amount = torch.tensor([stiffness if corrected else math.nan], dtype=torch.float64)
                value, gradient = evaluate(start, stiffness)
                rows.point.copy_(start)
                rows.gradient.copy_(gradient)
                rows.restart(torch.tensor([0]), value, amount)
                assert float(rows.gradient_norm[0]) == pytest.approx(float(gradient.norm()), rel=1e-12)
            n_steps = 0
            while float(rows.gradient_norm[0]) > 1e-7 and n_steps < 200:
                here, trial = rows.trial()
                rows.judge(here, *evaluate(trial, stiffness))
                n_steps += 1
            assert (rows.point - 3).abs().max() < 1e-7
        return n_steps

    assert solve(True) < solve(False)


def test_the_projected_gradient_keeps_what_points_inward():
    gradient, point = torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert projected(gradient, point, 0.0, 1.0).tolist() == [[0.0, -1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"start": torch.zeros(3)}, "start"),
        ({"start": torch.zeros((2, 3), dtype=torch.long)}, "start"),
        ({"start": torch.full((2, 3), 2.0)}, "start"),
        ({"low": torch.zeros(2)}, "low"),
        ({"high": torch.zeros((2, 3))}, "high"),
    ],
)
def test_bad_arguments_are_named(given, argument):
    good = {"start": torch.full((2, 3), 0.5), "low": 0.0, "high": 1.0}
    with pytest.raises(UserError) as error:
        box_minimise(lambda x, rows: (x.sum(1), x), **{**good, **given})
    assert error.value.argument == argument


@pytest.mark.parametrize("argument", ["max_iterations", "gradient_tolerance", "history", "largest_step"])
def test_settings_are_positive(argument):
    with pytest.raises(UserError) as error:
        BoxSettings(**{argument: 0})
    assert error.value.argument == argument
