"""Nearest points of regions against scipy's solvers, in every norm; boxes in another precision; bad rows."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.regions import NORMS, Region, hull


def uniform(shape, seed, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator)


def normals(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit_box(rows, n, norm="L2", **more):
    return Region(torch.zeros(rows, n, dtype=torch.float64), torch.ones(rows, n, dtype=torch.float64), norm, **more)


def cuts(rows, c, n, seed):
    """Random cuts that a point of the box satisfies, so that there is a nearest one."""
    normal, inside = normals((rows, c, n), seed), uniform((rows, n), seed + 1)
    return normal, torch.einsum("rcn,rn->rc", normal, inside), inside


def least_distance(norm, x0, normal, offset, inside, matrix=None, right=None):
    """By scipy: sequential quadratic programming in L2, linear programs in L1 and Linf."""
    n = len(x0)
    if norm == "L2":
        constraints = [{"type": "ineq", "fun": lambda y: offset - normal @ y, "jac": lambda y: -normal}]
        if matrix is not None:
            constraints.append({"type": "eq", "fun": lambda y: matrix @ y - right, "jac": lambda y: matrix})
        found = [
            minimize(
                lambda y: ((y - x0) ** 2).sum(),
                start,
                jac=lambda y: 2 * (y - x0),
                bounds=[(0, 1)] * n,
                constraints=constraints,
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            )
            for start in (np.clip(x0, 0, 1), inside)
        ]
        return min(result.fun for result in found if result.success) ** 0.5
    k = n if norm == "L1" else 1
    bound = np.eye(n) if norm == "L1" else np.ones((n, 1))
    above = np.block([[normal, np.zeros((len(normal), k))], [np.eye(n), -bound], [-np.eye(n), -bound]])
    cost = np.concatenate((np.zeros(n), np.ones(k)))
    result = linprog(
        cost, A_ub=above, b_ub=np.concatenate((offset, x0, -x0)), bounds=[(0, 1)] * n + [(0, None)] * k, method="highs"
    )
    return result.fun


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spread", [0.0, 0.4], ids=["inside", "outside"])
def test_one_cut_is_exact_in_every_norm(norm, spread):
    rows, n = 25, 7
    x0 = uniform((rows, n), 3, -spread, 1 + spread)
    normal, offset, inside = cuts(rows, 1, n, 5)
    region = unit_box(rows, n, norm)
    y = region.project(x0, normal, offset)
    assert region.contains(y).all()
    assert (torch.einsum("rcn,rn->rc", normal, y) <= offset + 1e-12).all()
    truth = [least_distance(norm, *(t[row].numpy() for t in (x0, normal, offset, inside))) for row in range(rows)]
    assert region.distance(x0, y).tolist() == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize(("c", "m"), [(2, 0), (4, 0), (0, 2), (3, 2), (6, 1)])
def test_several_cuts_and_equalities_are_exact_in_l2(c, m):
    rows, n = 12, 10
    x0 = uniform((rows, n), 11)
    normal, offset, inside = cuts(rows, c, n, 13)
    matrix = normals((m, n), 17)
    right = inside @ matrix.T
    region = unit_box(rows, n, matrix=matrix, offset=right) if m else unit_box(rows, n)
    y = region.project(x0, normal, offset)
    assert region.contains(y, 1e-10).all()
    assert (torch.einsum("rcn,rn->rc", normal, y) <= offset + 1e-10).all()
    for row in range(rows):
        equality = (matrix.numpy(), right[row].numpy()) if m else ()
        truth = least_distance("L2", *(t[row].numpy() for t in (x0, normal, offset, inside)), *equality)
        assert float((y - x0)[row].norm()) == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("norm", ["L1", "Linf"])
def test_several_cuts_are_all_met_in_the_other_norms(norm):
    rows, n = 20, 10
    x0 = uniform((rows, n), 21)
    normal, offset, inside = cuts(rows, 3, n, 23)
    region = unit_box(rows, n, norm)
    y = region.project(x0, normal, offset)
    assert region.contains(y).all()
    assert (torch.einsum("rcn,rn->rc", normal, y) <= offset + 1e-10).all()
    for row in range(rows):
        truth = least_distance(norm, *(t[row].numpy() for t in (x0, normal, offset, inside)))
        assert float(region.distance(x0, y)[row]) >= truth - 1e-9


def test_a_free_space_needs_no_box():
    normal, offset = normals((8, 1, 5), 1), -torch.ones(8, 1, dtype=torch.float64)
    x0 = torch.zeros(8, 5, dtype=torch.float64)
    free = torch.full((8, 5), torch.inf, dtype=torch.float64)
    dual = {"L2": normal.norm(dim=2), "L1": normal.abs().amax(2), "Linf": normal.abs().sum(2)}
    for norm, length in dual.items():
        region = Region(-free, free, norm)
        y = region.project(x0, normal, offset)
        assert torch.allclose(region.distance(x0, y), (1 / length)[:, 0], rtol=1e-12)


def test_what_cannot_be_met_is_violated_least():
    region = unit_box(1, 3)
    normal = torch.tensor([[[1.0, 2.0, -1.0]]], dtype=torch.float64)
    x0 = torch.full((1, 3), 0.5, dtype=torch.float64)
    y = region.project(x0, normal, torch.tensor([[-5.0]], dtype=torch.float64))
    assert y.tolist() == [[0.0, 0.0, 1.0]]
    both = torch.cat((normal, -normal), 1)
    torn = region.project(x0, both, torch.tensor([[-0.5, -0.5]], dtype=torch.float64))
    assert region.contains(torn).all()


def test_zeros_are_no_cut_and_rows_do_not_touch_each_other():
    rows, n = 9, 6
    x0, (normal, offset, _) = uniform((rows, n), 31), cuts(rows, 3, n, 33)
    normal[0], offset[0] = 0.0, 0.0
    normal[1, 1:], offset[1, 1:] = 0.0, 0.0
    normal[2] = torch.nan
    for norm in NORMS:
        region = unit_box(rows, n, norm)
        y = region.project(x0, normal, offset)
        assert torch.equal(y[0], x0[0])
        one = unit_box(1, n, norm).project(x0[1:2], normal[1:2, :1], offset[1:2, :1])
        assert torch.allclose(y[1:2], one, atol=1e-12)
        for row in (0, 1, *range(3, rows)):
            index = torch.tensor([row])
            alone = region.select(index).project(x0[index], normal[index], offset[index])
            assert torch.allclose(y[index], alone, atol=1e-9)


def test_single_precision_is_as_good_as_it_can_be():
    rows, n = 30, 50
    x0, (normal, offset, _) = uniform((rows, n), 41), cuts(rows, 4, n, 43)
    for norm in NORMS:
        exact = unit_box(rows, n, norm)
        y = exact.to(torch.float32).project(x0.float(), normal.float(), offset.float()).double()
        assert exact.contains(y).all()
        assert ((torch.einsum("rcn,rn->rc", normal, y) - offset) / normal.norm(dim=2)).max() < 2e-5


def test_a_box_never_grows_in_another_precision():
    low, width = uniform((200, 4), 51), uniform((200, 4), 52)
    width[:50] = 1e-9
    region = Region(low, low + width)
    coarse = region.to(torch.float32)
    assert coarse.low.dtype == torch.float32
    assert (coarse.low <= coarse.high).all()
    wide = width > 1e-6
    assert (coarse.low.double() >= region.low)[wide].all()
    assert (coarse.high.double() <= region.high)[wide].all()
    assert (coarse.low.double() - region.low).abs().max() < 1e-7
    assert region.to(torch.float64) is region


def test_nearest_and_contains():
    matrix = torch.ones(1, 3, dtype=torch.float64)
    region = unit_box(2, 3, matrix=matrix, offset=torch.full((2, 1), 1.5, dtype=torch.float64))
    x = torch.tensor([[0.9, 0.9, 0.9], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    x0 = torch.full((2, 3), 0.5, dtype=torch.float64)
    y = region.nearest(x0, x)
    assert torch.allclose(y, torch.full_like(y, 0.5), atol=1e-14)
    assert region.contains(y, 1e-12).tolist() == [True, True]
    assert region.contains(y + 1e-6, 1e-12).tolist() == [False, False]
    assert unit_box(1, 3).contains(torch.tensor([[0.0, 1.0, 1.0 + 1e-15]], dtype=torch.float64)).tolist() == [False]


def test_the_hull_is_that_of_the_space():
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, torch.inf])
    outputs = Outputs(lambda x: x, (2,), low, high, 2)
    region = hull(outputs, 3, "L1")
    assert region.low.shape == (3, 2)
    assert region.high[2].tolist() == [1.0, torch.inf]
    assert region.norm == "L1"


def test_wrong_regions_are_refused():
    with pytest.raises(UserError, match="norm"):
        unit_box(1, 2, "L3")
    with pytest.raises(UserError, match="matrix, offset"):
        unit_box(1, 2, matrix=torch.ones(1, 2))
