"""Whole-number and one-hot flips against enumeration of every whole point on small networks."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from theodolite.outputs import Outputs
from theodolite.search.constrained_flips import constrained_flips
from theodolite.search.constraints import Constraints, parse_constraints
from theodolite.search.linear_equalities import Sum
from theodolite.search.margins import margins
from theodolite.search.whole_moves import improved, moved_back, rounded, until_flipped, whole_moves


def outputs_of(module, n, low, high):
    low, high = (torch.full((n,), float(bound)) for bound in (low, high))
    n_outputs = module(torch.zeros((1, n), dtype=torch.float64)).shape[1]
    return Outputs(module, (n,), low, high, n_outputs, dtype=torch.float64)


def seeded(make, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double()


def linear(n, seed, classes=3):
    return seeded(lambda: nn.Linear(n, classes), seed)


def bent(n, seed):
    return seeded(lambda: nn.Sequential(nn.Linear(n, 16), nn.ReLU(), nn.Linear(16, 3)), seed)


def grid(levels, n):
    return torch.tensor(list(itertools.product(range(levels), repeat=n)), dtype=torch.float64)


def integers(n_images, n, levels, seed=0):
    return torch.randint(levels, (n_images, n), generator=torch.Generator().manual_seed(seed)).double()


def flips(outputs, x, constraints, **options):
    own = outputs.value(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    return own, *constrained_flips(outputs, outputs, x, own, constraints, generator=generator, **options)


def far(outputs, own, points):
    """``(point,)`` bool: another class leads or ties, to rounding (which depends on the batch)."""
    output = outputs.value(points)
    return output[:, own] - 1e-12 <= output.scatter(1, torch.full((len(output), 1), own), -torch.inf).amax(1)


def nearest(outputs, x, own, points, norm):
    """Least distance from x to the points on the far side."""
    points = points[far(outputs, own, points)]
    order = {"L2": 2, "L1": 1, "Linf": np.inf}[norm]
    return float(torch.linalg.vector_norm(points - x, ord=order, dim=1).min()) if len(points) else np.inf


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
def test_whole_points_of_linear_networks_equal_enumeration(norm):
    points = grid(5, 5)
    for seed in range(3):
        outputs, x = outputs_of(linear(5, seed), 5, 0, 4), integers(6, 5, 5, seed)
        own, found, violation = flips(outputs, x, Constraints(whole=range(5)), norm=norm)
        wanted = [nearest(outputs, x[row], int(own[row]), points, norm) for row in range(6)]
        assert found.distance.tolist() == pytest.approx(wanted, rel=1e-12)
        kept = found.found
        assert torch.equal(found.point[kept], found.point[kept].round())
        assert bool((violation[~kept] > 0).all()) or not bool((~kept).any())


def test_whole_points_of_bent_networks_are_rarely_farther_than_enumeration():
    points, equal, total = grid(4, 5), 0, 0
    for seed in range(3):
        outputs, x = outputs_of(bent(5, seed), 5, 0, 3), integers(6, 5, 4, seed)
        own, found, _ = flips(outputs, x, Constraints(whole=range(5)))
        for row in range(6):
            truth = nearest(outputs, x[row], int(own[row]), points, "L2")
            assert float(found.distance[row]) >= truth - 1e-12
            equal, total = equal + (float(found.distance[row]) <= truth + 1e-12), total + 1
            if found.found[row]:
                assert bool(far(outputs, int(own[row]), found.point[row, None]))
                output = outputs.value(found.point[row, None])[0]
                gap = output[int(found.target[row])] - output[int(own[row])]
                assert float(found.residual[row]) == pytest.approx(float(gap), abs=1e-12) and gap >= 0
    assert equal >= total - 1


def test_one_hot_groups_bounds_and_monotone_features_equal_enumeration():
    """Two groups, a count that may only grow, a fixed count and a bounded one."""
    text = "one_hot=0-2;one_hot=3-6;whole=7-9;increasing=7;fixed=8;high=9:2"
    first, second = torch.eye(3).double(), torch.eye(4).double()
    counts = grid(4, 3)
    points = torch.cat(
        [
            first.repeat_interleave(4 * 64, 0),
            second.repeat(3, 1).repeat_interleave(64, 0),
            counts.repeat(12, 1),
        ],
        1,
    )
    for seed in range(3):
        outputs = outputs_of(linear(10, seed, 4), 10, 0, 3)
        pick = torch.randint(len(points), (6,), generator=torch.Generator().manual_seed(seed))
        x = points[pick].clone()
        x[:, 9] = x[:, 9].clamp(max=2)
        own, found, violation = flips(outputs, x, parse_constraints(text))
        rules = parse_constraints(text).rules(outputs.low, outputs.high, outputs.shape)
        for row in range(6):
            allowed = points[rules.violation(x[row].expand(len(points), -1), points) == 0]
            assert 12 <= len(allowed) <= 12 * 12
            truth = nearest(outputs, x[row], int(own[row]), allowed, "L2")
            assert float(found.distance[row]) == pytest.approx(truth, rel=1e-12)
            assert (float(violation[row]) == 0.0) == np.isfinite(truth)


def test_whole_points_with_a_kept_sum_equal_enumeration():
    points = grid(4, 5)
    for seed in range(3):
        outputs, x = outputs_of(linear(5, seed), 5, 0, 3), integers(6, 5, 4, seed)
        own, found, _ = flips(outputs, x, Constraints(whole=range(5), equalities=Sum(range(4))))
        for row in range(6):
            allowed = points[points[:, :4].sum(1) == x[row, :4].sum()]
            truth = nearest(outputs, x[row], int(own[row]), allowed, "L2")
            assert float(found.distance[row]) == pytest.approx(truth, rel=1e-12)


def test_mixed_features_equal_the_best_over_all_whole_parts():
    """Three whole features and two real ones: for each whole part the distance of a half-plane in a square."""
    whole = grid(4, 3)
    for seed in range(3):
        network = linear(5, seed)
        outputs, x = outputs_of(network, 5, 0, 3), integers(6, 5, 4, seed)
        x[:, 3:] = 3 * torch.rand((6, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        own, found, _ = flips(outputs, x, Constraints(whole=range(3)))
        weight, bias = network.weight.detach(), network.bias.detach()
        for row in range(6):
            truth = np.inf
            for other in set(range(3)) - {int(own[row])}:
                normal, shift = weight[own[row]] - weight[other], bias[own[row]] - bias[other]
                for part in whole:
                    left = float(normal[:3] @ part + shift)
                    real = real_part(normal[3:].numpy(), left, x[row, 3:].numpy())
                    truth = min(truth, np.hypot(float((part - x[row, :3]).norm()), real))
            assert float(found.distance[row]) == pytest.approx(truth, rel=1e-7)
            if found.found[row]:
                assert torch.equal(found.point[row, :3], found.point[row, :3].round())
                assert bool(far(outputs, int(own[row]), found.point[row, None]))


def real_part(normal, shift, x):
    """Distance from x to normal . y + shift <= 0 within [0, 3]^2: the line's nearest point, or one on an edge."""
    if normal @ x + shift <= 0:
        return 0.0
    candidates = [x - normal * (normal @ x + shift) / (normal @ normal)]
    for axis in (0, 1):
        for edge in (0.0, 3.0):
            point = np.full(2, edge)
            point[1 - axis] = -(shift + normal[axis] * edge) / normal[1 - axis]
            candidates.append(point)
    inside = [np.linalg.norm(y - x) for y in candidates if (y >= -1e-12).all() and (y <= 3 + 1e-12).all()]
    return min(inside, default=np.inf)


def test_an_input_that_is_not_whole_moves_to_a_whole_point():
    points = grid(4, 4)
    outputs, x = outputs_of(linear(4, 5), 4, 0, 3), integers(6, 4, 4, 5) * 0.9 + 0.13
    own, found, _ = flips(outputs, x, Constraints(whole=range(4)))
    wanted = [nearest(outputs, x[row], int(own[row]), points, "L2") for row in range(6)]
    assert found.distance.tolist() == pytest.approx(wanted, rel=1e-12)


def test_what_no_whole_point_satisfies_is_infeasible_and_harms_no_other():
    """Class 1 leads only where 0.3 < x < 0.7; a second input may use another feature."""

    class Narrow(nn.Module):
        def forward(self, x):
            return torch.stack([10 * (x[:, 0] - 0.5).abs() - 2 + 0 * x[:, 1], 4 * x[:, 1] - 4 * x[:, 2]], 1)

    outputs = outputs_of(Narrow(), 3, 0, 2)
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    constraints = Constraints(whole=[0], increasing=[2], decreasing=[1])
    own, found, violation = flips(outputs, x, constraints)
    assert own.tolist() == [0, 0, 0] and not bool(found.found.any())
    # A violation of v wins 10 v of feature 0 (as long as v < 0.5), and 4 v each of features 1 and 2 where the box
    # lets them: 3 = 14 v, 3 = 18 v, and 11 = 5 + 8 v.
    truth = [3 / 14, 3 / 18, 6 / 8]
    assert violation.tolist() == pytest.approx(truth, rel=0.02)
    assert bool((violation >= torch.tensor(truth) - 1e-6).all()) and bool(far(outputs, 0, found.point).all())
    free, _ = flips(outputs, x, Constraints(whole=[0]))[1:]
    assert bool(free.found[0]) and float(free.distance[0]) < 2.0


def test_rows_do_not_influence_each_other():
    outputs, x = outputs_of(bent(5, 7), 5, 0, 3), integers(5, 5, 4, 7)
    order = torch.tensor([3, 1, 4, 0, 2])
    constraints = Constraints(whole=range(4))
    _, found, _ = flips(outputs, x, constraints, effort="quick")
    _, moved, _ = flips(outputs, x[order], constraints, effort="quick")
    torch.testing.assert_close(moved.distance, found.distance[order], rtol=1e-9, atol=0)


# ---------------------------------------------------------------- rounding and moving


def test_rounding_repairs_sums_nearest_first():
    rules = parse_constraints("one_hot=0-2;whole=3-6;sum=3-6").rules(torch.zeros(7), torch.full((7,), 9.0), (7,))
    x0 = torch.tensor([[1.0, 0, 0, 2, 2, 2, 2], [0, 1.0, 0, 0, 1, 2, 5]], dtype=torch.float64)
    y = torch.tensor(
        [[0.3, 0.45, 0.25, 1.6, 1.7, 1.8, 2.9], [0.5, 0.5, 0.0, 0.4, 1.45, 2.3, 3.85]], dtype=torch.float64
    )
    v = rounded(rules, rules.region(x0), x0, y, away=False)
    assert v[0].tolist() == [0, 1, 0, 1, 2, 2, 3]
    assert v[1, :3].sum() == 1 and v[1, 3:].tolist() == [0, 2, 2, 4]


def test_moves_keep_sums_and_reach_every_exchange():
    rules = parse_constraints("one_hot=0-2;whole=3-6;sum=3-5").rules(torch.zeros(7), torch.full((7,), 9.0), (7,))
    moves = whole_moves(rules)
    # 2 of the free count, 3 * 2 in the group, 3 * 2 in the sum.
    assert len(moves.first) == 2 + 6 + 6
    change = moves.apply(torch.zeros((14, 7), dtype=torch.float64), torch.eye(14))
    assert rules.matrix is not None
    assert torch.equal(change @ rules.matrix.T, torch.zeros((14, 2), dtype=torch.float64))
    assert len(torch.unique(change, dim=0)) == 14


def test_moves_flip_then_come_nearer_and_stay_flipped():
    n = 12
    outputs = outputs_of(bent(n, 3), n, 0, 40)
    rules = Constraints(whole=range(n)).rules(outputs.low, outputs.high, outputs.shape)
    x = integers(8, n, 41, 3)
    region, rows, moves = rules.region(x), margins(outputs, outputs.value(x).argmax(1)), whole_moves(rules)
    v, margin = until_flipped(moves, rows, region, x, x, 200)
    flipped = (margin <= 0).nonzero()[:, 0]
    assert len(flipped) >= 5
    rows, region, x, v = rows.select(flipped), region.select(flipped), x[flipped], v[flipped]
    lengths = [region.distance(x, v)]
    for step in (moved_back, improved):
        v, margin = step(moves, rows, region, x, v, 6)
        torch.testing.assert_close(margin, rows.value(v), rtol=1e-12, atol=1e-12)
        assert bool((margin <= 0).all()) and bool(region.contains(v).all()) and torch.equal(v, v.round())
        lengths.append(region.distance(x, v))
        assert bool((lengths[-1] <= lengths[-2]).all())
    assert float(lengths[-1].sum()) < float(lengths[0].sum())
