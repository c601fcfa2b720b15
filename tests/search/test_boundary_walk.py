"""The walk and its starts on boundaries whose nearest points are known: planes, wedges, spheres."""

import math

import pytest
import torch

from theodolite.outputs import Outputs
from theodolite.search.boundary_starts import easiest_classes, newton_starts, onto_boundary, reference_starts
from theodolite.search.boundary_walk import Walk, start_walk, walk
from theodolite.search.margins import margins
from theodolite.search.regions import NORMS, Region, hull


def uniform(shape, seed):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normal(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def outputs_of(function, n, n_outputs=2, low=0.0, high=1.0):
    bound = torch.ones(n, dtype=torch.float64)
    return Outputs(function, (n,), low * bound, high * bound, n_outputs, dtype=torch.float64)


def lead(function):
    """Outputs (f, 0): class 0 leads by f."""
    return lambda x: torch.stack((function(x), torch.zeros(len(x), dtype=x.dtype)), 1)


def all_zero(rows):
    return torch.zeros(rows, dtype=torch.int64)


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_takes_one_step_in_every_norm(norm):
    rows, n = 20, 8
    a, x0 = normal((n,), 1), 0.2 + 0.6 * uniform((rows, n), 2)
    offset = (x0 @ a).amin() - 0.4
    outputs = outputs_of(lead(lambda x: x @ a - offset), n)
    region = hull(outputs, rows, norm)
    rows_of = margins(outputs, all_zero(rows))
    truth = region.distance(x0, region.project(x0, a.expand(rows, 1, n), offset.expand(rows, 1)))
    far = uniform((rows, n), 3)
    far = region.project(far, a.expand(rows, 1, n), (offset - 0.01).expand(rows, 1))
    state = start_walk(Walk(), rows_of, region, x0, onto_boundary(rows_of, x0, far, 3))
    assert (state.best_distance >= truth - 1e-12).all()
    state = walk(Walk(), rows_of, region, x0, state, 2)
    assert torch.allclose(state.estimate, truth, atol=1e-9)
    assert rows_of.units.tolist() == [2 + 3 + 2 + 2 * 3] * rows


@pytest.mark.parametrize("n_cuts", [2, 3])
def test_the_bundle_finds_the_edge_of_a_wedge(n_cuts):
    """Beyond the boundary means beyond several planes at once: the nearest point lies on a kink."""
    rows, n = 30, 6
    a = normal((rows, n_cuts, n), 5)
    x0, inside = uniform((rows, n), 6), uniform((rows, n), 7)
    offset = torch.einsum("rcn,rn->rc", a, inside) + 0.05
    excess = torch.einsum("rcn,rn->rc", a, x0) - offset
    keep = (excess.amax(1) > 0.1).nonzero()[:, 0]
    a, offset, x0, inside = a[keep], offset[keep], x0[keep], inside[keep]
    rows = len(keep)
    # The row is told by an extra coordinate that cannot change.
    number = torch.arange(rows, dtype=torch.float64)[:, None]

    def function(x):
        which = x[:, -1].round().long()
        return (torch.einsum("rcn,rn->rc", a[which], x[:, :-1]) - offset[which]).amax(1)

    outputs = outputs_of(lead(function), n + 1)
    box = torch.zeros(rows, n, dtype=torch.float64)
    region = Region(torch.cat((box, number), 1), torch.cat((box + 1, number), 1))
    x0, start = torch.cat((x0, number), 1), torch.cat((inside, number), 1)
    truth = Region(box, box + 1).project(x0[:, :-1], a, offset)
    truth = (truth - x0[:, :-1]).norm(dim=1)
    rows_of = margins(outputs, all_zero(rows))
    states = {}
    for n_kept in (1, 4):
        settings = Walk(n_cuts=n_kept)
        state = start_walk(settings, rows_of, region, x0, onto_boundary(rows_of, x0, start, 4))
        before = state.best_distance
        for _ in range(8):
            state = walk(settings, rows_of, region, x0, state, 5)
            assert (state.best_distance <= before).all()
            assert (state.best_distance >= truth - 1e-9).all()
            assert region.contains(state.best_point).all()
            assert region.contains(state.point).all()
            before = state.best_distance
        states[n_kept] = state.estimate / truth - 1
    assert rows >= 15
    assert states[4].median() < 1e-6
    assert (states[4] < 1e-3).double().mean() > 0.9
    assert states[4].mean() < states[1].mean()


def test_spheres_around_the_input_and_beside_it():
    rows, n = 25, 5
    x0 = normal((rows, n), 8)
    centre, radius = 0.5 * normal((n,), 9), 6.0
    outputs = outputs_of(lead(lambda x: radius**2 - (x - centre).square().sum(1)), n, 2, -torch.inf, torch.inf)
    rows_of, region = margins(outputs, all_zero(rows)), hull(outputs, rows)
    truth = radius - (x0 - centre).norm(dim=1)
    start = x0 + 20 * normal((rows, n), 10)
    state = start_walk(Walk(), rows_of, region, x0, onto_boundary(rows_of, x0, start, 5))
    state = walk(Walk(), rows_of, region, x0, state, 40)
    assert torch.allclose(state.estimate, truth, rtol=2e-3)
    assert (state.best_distance >= truth * (1 - 1e-12)).all()
    assert torch.allclose(state.best_distance, truth, rtol=5e-3)


def test_rows_without_numbers_stay_and_harm_nobody():
    def function(x):
        return torch.where(x[:, 0] > 0.9, torch.nan, x.sum(1) - 1.0)

    outputs = outputs_of(lead(function), 3)
    x0 = torch.tensor([[0.5, 0.8, 0.6], [0.95, 0.8, 0.6], [0.5, 0.5, 0.3]], dtype=torch.float64)
    start = 0.5 * x0
    start[1, 0] = 0.95
    rows_of, region = margins(outputs, all_zero(3)), hull(outputs, 3)
    state = walk(Walk(), rows_of, region, x0, start_walk(Walk(), rows_of, region, x0, start), 6)
    assert torch.isfinite(state.best_distance).tolist() == [True, False, True]
    good = torch.tensor([0, 2])
    alone_of = margins(outputs, all_zero(2))
    alone = start_walk(Walk(), alone_of, region.select(good), x0[good], start[good])
    alone = walk(Walk(), alone_of, region.select(good), x0[good], alone, 6)
    assert torch.allclose(state.point[good], alone.point, atol=1e-12)


def test_the_easiest_classes_of_a_linear_classifier_come_in_order():
    n, n_classes, rows = 6, 5, 12
    weight, bias, x0 = normal((n_classes, n), 11), normal((n_classes,), 12), uniform((rows, n), 13)
    outputs = outputs_of(lambda x: x @ weight.T + bias, n, n_classes, -torch.inf, torch.inf)
    z = x0 @ weight.T + bias
    own = z.argmax(1)
    rows_of = margins(outputs, own)
    classes, points = easiest_classes(rows_of, hull(outputs, rows), x0, 3)
    distance = (z.gather(1, own[:, None]) - z) / (weight[own][:, None] - weight).norm(dim=2)
    distance.scatter_(1, own[:, None], torch.inf)
    assert torch.equal(classes, distance.argsort(1)[:, :3])
    assert torch.allclose((points - x0[:, None]).norm(dim=2), 1.02 * distance.gather(1, classes), rtol=1e-9)
    assert rows_of.units.tolist() == [1 + n_classes - 1] * rows


def test_newton_starts_keep_to_their_longest_move():
    a = normal((1, 4), 14)
    outputs = outputs_of(lead(lambda x: 3.0 + (x @ a.T)[:, 0]), 4, 2, -torch.inf, torch.inf)
    x0, region = torch.zeros(2, 4, dtype=torch.float64), hull(outputs, 2)
    distance = float(3.0 / a.norm())
    longest = torch.tensor([torch.inf, distance / 10], dtype=torch.float64)
    x = newton_starts(margins(outputs, all_zero(2)), region, x0, longest, 3)
    assert x.norm(dim=1).tolist() == pytest.approx([1.02 * distance, 0.3 * distance])


def test_reference_starts_are_bracketed_and_nearest_first():
    n, rows = 3, 4
    outputs = outputs_of(lead(lambda x: 1.5 - x.sum(1)), n)
    x0 = 0.3 * uniform((rows, n), 15)
    points = uniform((60, n), 16)
    classes = (points.sum(1) > 1.5).long()
    rows_of, region = margins(outputs, all_zero(rows)), hull(outputs, rows)
    found = reference_starts(rows_of, region, x0, (points, classes), 10, 4, n_halvings=6)
    assert (found.sum(2) >= 1.5).all()
    assert (x0[:, None] + 0.97 * (found - x0[:, None])).sum(2).amax() < 1.55
    distance = (found - x0[:, None]).norm(dim=2)
    assert torch.equal(distance, distance.sort(1).values)
    assert rows_of.units.tolist() == [60] * rows
    few = reference_starts(rows_of, region, x0, (points[classes == 0], classes[classes == 0]), 10, 4)
    assert torch.isnan(few).all()


def test_promises_are_believed_nearby_and_inside_the_box_only():
    """The boundary x_0 + x_1 = 1.5, from points on the own side of it, the last held by the edge of the box."""
    outputs = outputs_of(lead(lambda x: 1.5 - x[:, :2].sum(1)), 3)
    x0 = torch.zeros(4, 3, dtype=torch.float64)
    x = torch.tensor([[0.745, 0.745, 0.0], [0.5, 0.5, 0.0], [0.752, 0.752, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
    region = hull(outputs, 4)
    estimate = start_walk(Walk(), margins(outputs, all_zero(4)), region, x0, x).estimate
    truth = math.hypot(0.75, 0.75)
    assert estimate[[0, 2]].tolist() == pytest.approx([truth, truth])
    assert torch.isinf(estimate[[1, 3]]).all()
