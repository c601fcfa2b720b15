"""Least changes that reach an output, against closed forms and fine grids."""

import pytest
import torch
from torch import nn

from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.search.level_points import level_points
from theodolite.search.regions import Region
from theodolite.space import Box

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def outputs_of(function, n, n_outputs, low=0.0, high=1.0, dtype=F64):
    return Outputs(function, (n,), torch.full((n,), low), torch.full((n,), high), n_outputs, dtype=dtype)


def test_a_linear_output_moves_along_its_weights():
    weight = torch.randn(3, 6, generator=seeded(1), dtype=F64)
    exact = outputs_of(lambda x: x @ weight.T, 6, 3, -torch.inf, torch.inf)
    inputs = torch.randn(8, 6, generator=seeded(2), dtype=F64)
    index = torch.arange(8) % 3
    value = torch.linspace(-4, 4, 8, dtype=F64)
    found = level_points(exact, exact, inputs, index, value, generator=seeded())
    start = (inputs * weight[index]).sum(1)
    assert torch.allclose(found.distance, (value - start).abs() / weight[index].norm(dim=1), rtol=1e-8)
    reached = (found.point * weight[index]).sum(1)
    passed = torch.sign(value - start) * (exact.value(found.point).gather(1, index[:, None])[:, 0] - value)
    assert torch.equal(passed, found.residual)
    assert ((passed >= 0) & (passed <= 1e-9)).all()
    assert torch.allclose(reached, value)
    assert found.target.tolist() == index.tolist()


def test_a_regression_reaches_its_value_from_both_sides():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        module[0].weight *= 4
    network = Network(module, Box((2,), 0.0, 1.0))
    outputs, exact = (network.all_outputs(dtype, classify=False) for dtype in (torch.float32, F64))
    axis = torch.linspace(0, 1, 1001, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    level = exact.value(grid)[:, 0]
    value = torch.quantile(level, torch.tensor(0.6, dtype=F64))
    inputs = torch.rand(12, 2, generator=seeded(3), dtype=F64)
    start = exact.value(inputs)[:, 0]
    reference = torch.rand(100, 2, generator=seeded(4), dtype=F64)
    zeros = torch.zeros(12, dtype=torch.int64)
    found = level_points(
        outputs, exact, inputs, zeros, value.expand(12), reference=reference, effort="thorough", generator=seeded()
    )
    assert 2 <= int((start < value).sum()) <= 10
    for row in range(12):
        beyond = grid[(level >= value) if start[row] < value else (level <= value)]
        truth = float((beyond - inputs[row]).norm(dim=1).min())
        assert float(found.distance[row]) <= truth + 1e-9
        assert float(found.distance[row]) >= truth - 2e-3
    passed = torch.where(start < value, 1.0, -1.0) * (exact.value(found.point)[:, 0] - value)
    assert ((passed >= 0) & (passed <= 1e-9)).all()


def test_a_fixed_feature_stays_and_out_of_reach_is_not_found():
    exact = outputs_of(lambda x: x.sum(1, keepdim=True), 4, 1)
    inputs = torch.full((2, 4), 0.5, dtype=F64)
    low, high = torch.zeros(2, 4, dtype=F64), torch.ones(2, 4, dtype=F64)
    low[:, 0] = high[:, 0] = 0.5
    found = level_points(
        exact,
        exact,
        inputs,
        torch.zeros(2, dtype=torch.int64),
        torch.tensor([2.75, 3.75], dtype=F64),
        region=Region(low, high),
        generator=seeded(),
    )
    assert found.found.tolist() == [True, False]
    assert float(found.distance[0]) == pytest.approx(0.25 * 3**0.5, rel=1e-8)
    assert torch.allclose(found.point[0], torch.tensor([0.5, 0.75, 0.75, 0.75], dtype=F64))
    assert found.target.tolist() == [0, -1]


def test_an_input_at_the_value_stays():
    exact = outputs_of(lambda x: x, 2, 2)
    inputs = torch.tensor([[0.25, 0.5]], dtype=F64)
    found = level_points(exact, exact, inputs, torch.tensor([1]), torch.tensor([0.5], dtype=F64), generator=seeded())
    assert found.distance.tolist() == [0.0]
    assert torch.equal(found.point, inputs)


def test_wrong_input_is_refused():
    exact = outputs_of(lambda x: x, 2, 2)
    inputs, index, value = torch.rand(2, 2, dtype=F64), torch.tensor([0, 1]), torch.zeros(2, dtype=F64)
    for i, v, more, name in (
        (index + 1, value, {}, "index"),
        (index, value[:1], {}, "value"),
        (index, value / 0, {}, "value"),
        (index, value, {"reference": inputs[:, :1]}, "reference"),
    ):
        with pytest.raises(UserError, match=name):
            level_points(exact, exact, inputs, i, v, generator=seeded(), **more)
