"""Closest flips against closed forms, linear programs and fine searches; bad rows; what must not change an answer."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search import closest_flips as flips_module
from theodolite.search.closest_flips import EFFORTS, closest_flips
from theodolite.search.regions import NORMS, Region, hull


def uniform(shape, seed):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normal(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(function, n, n_outputs, low=0.0, high=1.0, dtype=torch.float32) -> tuple[Outputs, Outputs]:
    """The same outputs in the precision of the search and in float64; ``function`` takes either."""
    bound = torch.ones(n, dtype=torch.float64)
    one, other = (
        Outputs(function, (n,), low * bound, high * bound, n_outputs, dtype=kind) for kind in (dtype, torch.float64)
    )
    return one, other


def search(outputs, exact, x, own=None, **more):
    own = exact.value(x).argmax(1) if own is None else own
    return closest_flips(outputs, exact, x, own, generator=torch.Generator().manual_seed(0), **more)


def linear(n, n_classes, seed):
    weight, bias = normal((n_classes, n), seed), 0.3 * normal((n_classes,), seed + 1)
    return weight, bias, lambda x: x @ weight.T.to(x.dtype) + bias.to(x.dtype)


def small_network(widths, seed, activation: type[nn.Module] = nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), activation())]
        module = nn.Sequential(*layers[:-1]).double().requires_grad_(False)
    single = [(layer.weight, layer.bias) if isinstance(layer, nn.Linear) else None for layer in module]

    def function(x):
        for layer, weights in zip(module, single, strict=True):
            x = layer(x) if weights is None else x @ weights[0].T.to(x.dtype) + weights[1].to(x.dtype)
        return x

    return function


def check_exactness(flips, exact, region, x, own, target=None):
    """Every answer, in float64: on the far side to 1e-9, inside, and of another class than just before."""
    assert flips.found.all()
    z = exact.value(flips.point)
    lead = z.gather(1, own[:, None])[:, 0] - z.gather(1, flips.target[:, None])[:, 0]
    assert (lead <= 0).all()
    assert (lead >= -1e-9).all()
    assert torch.allclose(flips.residual, -lead, atol=1e-12)
    assert region.contains(flips.point).all()
    assert torch.allclose(flips.distance, region.distance(x, flips.point), rtol=1e-12)
    before = exact.value(x + (1 - 1e-4) * (flips.point - x))
    if target is None:
        assert (before.argmax(1) == own).all()
        assert (z.scatter(1, own[:, None], -torch.inf).argmax(1) == flips.target).all()
    else:
        assert torch.equal(flips.target, target)
        assert (before.gather(1, own[:, None]) > before.gather(1, target[:, None])).all()


def least_linear_distance(norm, x0, normal_, offset, low, high):
    """Least distance to normal . y <= offset in a box; inf where there is none."""
    n = len(x0)
    if norm == "L2":
        result = minimize(
            lambda y: ((y - x0) ** 2).sum(),
            np.where(normal_ > 0, low, high),
            jac=lambda y: 2 * (y - x0),
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "ineq", "fun": lambda y: offset - normal_ @ y, "jac": lambda y: -normal_},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return math.sqrt(result.fun) if result.success else math.inf
    k = n if norm == "L1" else 1
    bound = np.eye(n) if norm == "L1" else np.ones((n, 1))
    above = np.block([[normal_[None], np.zeros((1, k))], [np.eye(n), -bound], [-np.eye(n), -bound]])
    limits = [*zip(low, high, strict=True), *[(0, None)] * k]
    right = np.concatenate(([offset], x0, -x0))
    result = linprog(np.concatenate((np.zeros(n), np.ones(k))), A_ub=above, b_ub=right, bounds=limits, method="highs")
    return result.fun if result.success else math.inf


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifiers_in_a_box(norm):
    """All classes by scipy, the least of them; the box is active for many of these inputs, some features fixed."""
    n, n_classes, rows = 8, 4, 15
    weight, bias, function = linear(n, n_classes, 1)
    outputs, exact = pair(function, n, n_classes)
    x = uniform((rows, n), 3)
    own = exact.value(x).argmax(1)
    region = hull(exact, rows, norm)
    fixed = uniform((rows, n), 4) < 0.3
    region = Region(torch.where(fixed, x, region.low), torch.where(fixed, x, region.high), norm)
    flips = search(outputs, exact, x, region=region)
    to_each = {
        (row, k): least_linear_distance(
            norm,
            x[row].numpy(),
            (weight[own[row]] - weight[k]).numpy(),
            float(bias[k] - bias[own[row]]),
            region.low[row].numpy(),
            region.high[row].numpy(),
        )
        for row in range(rows)
        for k in range(n_classes)
        if k != int(own[row])
    }
    truth = [min(distance for (row, _), distance in to_each.items() if row == image) for image in range(rows)]
    found = flips.found
    assert found.tolist() == [math.isfinite(distance) for distance in truth]
    assert found.sum() >= 5
    kept = found.nonzero()[:, 0]
    check_exactness(flips.select(kept), exact, region.select(kept), x[kept], own[kept])
    assert flips.distance[kept].tolist() == pytest.approx([truth[row] for row in kept.tolist()], rel=1e-5)
    for k in range(n_classes):
        rows_k = torch.tensor([row for row in range(rows) if (row, k) in to_each])
        target = torch.full_like(rows_k, k)
        aimed = search(
            outputs, exact, x[rows_k], own[rows_k], region=region.select(rows_k), target=target, effort="quick"
        )
        assert aimed.distance.tolist() == pytest.approx([to_each[row, k] for row in rows_k.tolist()], rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_free_spaces_have_closed_forms(norm):
    n, rows = 6, 10
    weight, bias, function = linear(n, 3, 5)
    outputs, exact = pair(function, n, 3, -torch.inf, torch.inf)
    x = 4 * normal((rows, n), 7)
    own = exact.value(x).argmax(1)
    lead = exact.value(x).gather(1, own[:, None]) - exact.value(x)
    dual = {"L2": 2, "L1": torch.inf, "Linf": 1}[norm]
    length = (weight[own][:, None] - weight).norm(p=dual, dim=2)
    truth = (lead / length).scatter(1, own[:, None], torch.inf)
    flips = search(outputs, exact, x, region=hull(exact, rows, norm))
    check_exactness(flips, exact, hull(exact, rows, norm), x, own)
    assert torch.allclose(flips.distance, truth.amin(1), rtol=1e-5)
    assert torch.equal(flips.target, truth.argmin(1))


def test_equalities_are_kept():
    """On the plane sum(y) = sum(x) the gradient loses its mean; every distance is in closed form."""
    n, rows = 7, 8
    weight, _, function = linear(n, 2, 9)
    outputs, exact = pair(function, n, 2, -torch.inf, torch.inf)
    x = normal((rows, n), 11)
    own = exact.value(x).argmax(1)
    box = hull(exact, rows)
    ones = torch.ones(1, n, dtype=torch.float64)
    region = Region(box.low, box.high, "L2", ones, x.sum(1, keepdim=True))
    direction = weight[0] - weight[1]
    truth = (exact.value(x)[:, 0] - exact.value(x)[:, 1]).abs() / (direction - direction.mean()).norm()
    flips = search(outputs, exact, x, region=region)
    assert torch.allclose(flips.distance, truth, rtol=1e-5)
    assert region.contains(flips.point, 1e-12).all()
    check_exactness(flips, exact, box, x, own)


def test_two_spheres_and_the_nearer_of_them():
    """Flips wait inside two balls of different size, and only one of them is nearest."""
    n, rows = 5, 20
    centres, radii = 0.3 + 0.4 * uniform((2, n), 13), (0.15, 0.3)

    def function(x):
        beyond = [radius - (x - c.to(x.dtype)).norm(dim=1) for c, radius in zip(centres, radii, strict=True)]
        return torch.stack((torch.zeros_like(beyond[0]), *beyond), 1)

    outputs, exact = pair(function, n, 3)
    x = uniform((400, n), 14)
    x = x[exact.value(x).argmax(1) == 0][:rows]
    own = torch.zeros(rows, dtype=torch.int64)
    to_each = torch.stack([(x - c).norm(dim=1) - r for c, r in zip(centres, radii, strict=True)], 1)
    flips = search(outputs, exact, x)
    check_exactness(flips, exact, hull(exact, rows), x, own)
    assert torch.allclose(flips.distance, to_each.amin(1), rtol=1e-5)
    for k in (1, 2):
        target = torch.full((rows,), k)
        aimed = search(outputs, exact, x, own, target=target)
        check_exactness(aimed, exact, hull(exact, rows), x, own, target)
        assert torch.allclose(aimed.distance, to_each[:, k - 1], rtol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_small_networks_against_a_fine_search_of_the_plane(activation):
    function = small_network((2, 12, 12, 4), 21, activation)
    side = torch.linspace(0, 1, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    middle = function(8 * grid[::1000] - 4).mean(0)  # no class leads everywhere
    outputs, exact = pair(lambda x: function(8 * x - 4) - middle.to(x.dtype), 2, 4)
    x = uniform((30, 2), 22)
    own = exact.value(x).argmax(1)
    classes = exact.value(grid).argmax(1)
    assert len(classes.unique()) > 2
    reference = grid[::3203], classes[::3203]
    flips = search(outputs, exact, x, reference=reference, effort="thorough")
    check_exactness(flips, exact, hull(exact, len(x)), x, own)
    for row in range(len(x)):
        nearest = float((grid[classes != own[row]] - x[row]).norm(dim=1).min())
        assert float(flips.distance[row]) <= nearest
        assert float(flips.distance[row]) >= nearest - 1.5 / 800


def test_more_effort_never_ends_farther_on_average_and_costs_what_it_says():
    function = small_network((20, 24, 24, 5), 31)
    x = uniform((24, 20), 32)
    points = uniform((200, 20), 33)
    means, costs = [], []
    for effort in EFFORTS:
        outputs, exact = pair(lambda x: function(2 * x - 1), 20, 5)
        own = exact.value(x).argmax(1)
        reference = points, exact.value(points).argmax(1)
        outputs.n_units = exact.n_units = 0
        flips = search(outputs, exact, x, own, reference=reference, effort=effort)
        assert int(flips.units.sum()) == outputs.n_units + exact.n_units
        check_exactness(flips, exact, hull(exact, len(x)), x, own)
        means.append(float(flips.distance.mean()))
        costs.append(float(flips.units.double().mean()))
    assert means[0] >= means[2] * (1 - 1e-6)
    assert costs[0] < 300
    assert costs[0] < costs[1] < costs[2] <= 800


@pytest.mark.parametrize("scale", [255.0, 1e-3])
def test_units_of_the_input_do_not_matter(scale):
    function = small_network((10, 16, 4), 41, nn.Tanh)
    x = uniform((10, 10), 42)
    plain = search(*pair(lambda x: function(3 * x), 10, 4, dtype=torch.float64), x)
    scaled = search(*pair(lambda x: function(3 / scale * x), 10, 4, 0.0, scale, dtype=torch.float64), scale * x)
    assert plain.found.all()
    assert torch.allclose(scaled.distance / scale, plain.distance, rtol=1e-6)


def test_rows_do_not_influence_each_other():
    function = small_network((10, 16, 4), 51)
    outputs, exact = pair(lambda x: function(3 * x), 10, 4, dtype=torch.float64)
    x, points = uniform((9, 10), 52), uniform((40, 10), 53)
    reference = points, exact.value(points).argmax(1)
    together = search(outputs, exact, x, reference=reference)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = search(outputs, exact, x[order], reference=reference)
    assert torch.allclose(shuffled.distance, together.distance[order], rtol=1e-6)
    assert torch.equal(shuffled.target, together.target[order])
    for row in range(9):
        alone = search(outputs, exact, x[row : row + 1], reference=reference)
        assert torch.allclose(alone.distance, together.distance[row : row + 1], rtol=1e-6)


def test_bad_rows_are_not_found_and_harm_no_other():
    """Coordinate 0 chooses the kind of row: constant outputs, no numbers, a jump, a far side of no numbers."""

    def function(x):
        kind, lead = x[:, 0], x[:, 1:].sum(1) - 1.0
        jump = torch.where(lead > -0.3, 1.0, -1.0).to(x.dtype)
        lead = torch.where(kind < 5.5, lead, torch.where(lead > 0.1, lead, torch.full_like(lead, torch.nan)))
        for number, other in ((1.0, torch.ones_like(lead)), (2.0, torch.full_like(lead, torch.nan)), (3.0, jump)):
            lead = torch.where((kind - number).abs() < 0.5, other, lead)
        return torch.stack((lead, torch.zeros_like(lead)), 1)

    outputs, exact = pair(function, 4, 2, 0.0, 10.0)
    x = torch.full((8, 4), 0.5, dtype=torch.float64)
    x[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0, 6.0, 0.0, 0.0])
    x[4, 1] = 0.0  # on the boundary: its lead is nought
    x[6, 1:] = 0.2  # class 0 does not lead
    x[7, 2] = torch.nan
    low, high = torch.zeros_like(x), torch.full_like(x, 10.0)
    region = Region(torch.cat((x[:, :1], low[:, 1:]), 1), torch.cat((x[:, :1], high[:, 1:]), 1))
    own = torch.zeros(8, dtype=torch.int64)
    flips = search(outputs, exact, x, own, region=region)
    assert flips.found.tolist() == [True, False, False, False, True, False, False, False]
    assert flips.target.tolist() == [1, -1, -1, -1, 1, -1, -1, -1]
    assert float(flips.distance[0]) == pytest.approx(0.5 / math.sqrt(3), rel=1e-6)
    assert float(flips.distance[4]) == 0.0
    assert torch.equal(flips.point[4], x[4])
    assert torch.isnan(flips.point[~flips.found]).all()
    alone = search(outputs, exact, x[:1], own[:1], region=region.select(torch.tensor([0])))
    assert torch.allclose(alone.point, flips.point[:1], atol=1e-9)


def test_an_island_is_found_from_a_start_inside_it_only():
    """Outputs are flat but on a ball: no gradient leads there."""
    centre = torch.tensor([0.8, 0.7, 0.8])

    def function(x):
        lead = ((x - centre.to(x.dtype)).norm(dim=1) - 0.1).clamp(max=0.2)
        return torch.stack((lead, torch.zeros_like(lead)), 1)

    outputs, exact = pair(function, 3, 2)
    x = torch.full((2, 3), 0.2, dtype=torch.float64)
    assert not search(outputs, exact, x).found.any()
    starts = torch.full((2, 2, 3), torch.nan, dtype=torch.float64)
    starts[0, 1] = centre + 0.02
    flips = search(outputs, exact, x, starts=starts)
    assert flips.found.tolist() == [True, False]
    assert float(flips.distance[0]) == pytest.approx(float((x[0] - centre).norm()) - 0.1, rel=1e-5)


def test_an_input_just_before_the_boundary():
    """Nearer than single precision can tell from the input."""
    weight, _, function = linear(5, 2, 61)
    outputs, exact = pair(function, 5, 2)
    direction = weight[0] - weight[1]
    x = uniform((6, 5), 62) * 0.6 + 0.2
    lead = exact.value(x) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    for distance in (1e-4, 1e-7, 1e-10):
        near = x - ((lead / direction.norm()) - distance)[:, None] * direction / direction.norm()
        near = near[((near > 0) & (near < 1)).all(1)]
        own = torch.zeros(len(near), dtype=torch.int64)
        flips = search(outputs, exact, near, own)
        assert len(near) >= 2
        assert flips.found.all()
        assert ((flips.distance - distance).abs() <= 1e-4 * distance + 1e-9).all()


def test_of_very_many_references_some_are_drawn(monkeypatch):
    """A start inside the island is among the first or the last half of the references."""
    monkeypatch.setattr(flips_module, "_MOST_REFERENCES", 4)
    centre = torch.full((3,), 0.8)

    def function(x):
        lead = ((x - centre.to(x.dtype)).norm(dim=1) - 0.1).clamp(max=0.2)
        return torch.stack((lead, torch.zeros_like(lead)), 1)

    outputs, exact = pair(function, 3, 2)
    x, own = torch.full((1, 3), 0.2, dtype=torch.float64), torch.tensor([0])
    found = []
    for place in range(8):
        points = torch.full((8, 3), 0.5, dtype=torch.float64)
        points[place] = 0.8
        reference = points, (torch.arange(8) == place).long()
        found.append(bool(search(outputs, exact, x, own, reference=reference, effort="quick").found))
    assert sum(found) == 4


def test_wrong_arguments_are_refused_before_any_work():
    outputs, exact = pair(lambda x: x, 3, 3)
    x, own = uniform((2, 3), 71), torch.tensor([0, 1])
    wrong = {
        "effort": {"effort": "heroic"},
        "exact": {"exact": outputs},
        "inputs": {"inputs": x[:, :2]},
        "own": {"own": torch.tensor([0, 3])},
        "target": {"target": torch.tensor([1, 1])},
        "starts": {"starts": x},
        "reference": {"reference": (x, own[:1])},
    }
    for name, change in wrong.items():
        arguments = {"outputs": outputs, "exact": exact, "inputs": x, "own": own, **change}
        with pytest.raises(UserError, match=name):
            closest_flips(**arguments, generator=torch.Generator())
    assert outputs.n_units == exact.n_units == 0
