"""Closest flips in Linf by integer programming against every activation pattern, and against closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from tests.instruments.small_networks import random_layers
from theodolite.errors import UserError
from theodolite.instruments.bounds.dense_layers import DenseLayers
from theodolite.instruments.bounds.exact_boundary import exact_flips
from theodolite.instruments.bounds.linear_programs import LinfSearch, exact_linf_flips


def brute_force(layers, x0, own, targets):
    """The least over all activation patterns and targets, each a linear program."""
    x = x0[0].numpy()
    n = len(x)
    weight, bias = [w.numpy() for w in layers.weight], [b.numpy() for b in layers.bias]
    best = math.inf
    sizes = [len(b) for b in bias[:-1]]
    for pattern in itertools.product([0.0, 1.0], repeat=sum(sizes)):
        matrix, offset = weight[0], bias[0] + weight[0] @ x
        ones = np.ones((n, 1))
        rows = [np.hstack([np.eye(n), -ones]), np.hstack([-np.eye(n), -ones])]
        limits, start = [np.zeros(n), np.zeros(n)], 0
        for layer, size in enumerate(sizes):
            on = np.array(pattern[start : start + size])
            start += size
            sign = 1 - 2 * on
            rows.append(np.hstack([sign[:, None] * matrix, np.zeros((size, 1))]))
            limits.append(-sign * offset)
            after = weight[layer + 1] * on
            matrix, offset = after @ matrix, after @ offset + bias[layer + 1]
        for target in targets:
            margin = np.append(matrix[own] - matrix[target], 0.0)[None]
            found = linprog(
                np.append(np.zeros(n), 1.0),
                A_ub=np.vstack([*rows, margin]),
                b_ub=np.concatenate([*limits, [offset[target] - offset[own]]]),
                bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
            )
            if found.status == 0:
                best = min(best, found.fun)
    return best


@pytest.mark.parametrize(
    ("sizes", "seed"),
    [((2, 5, 3), 0), ((3, 6, 2), 1), ((4, 5, 3), 2), ((2, 3, 3, 3), 3), ((3, 3, 3, 2), 4), ((5, 6, 2), 6)],
)
def test_equals_brute_force_over_all_patterns(sizes, seed):
    layers, x0 = random_layers(sizes, seed)
    own = layers.value(x0).argmax(1)
    answer = exact_linf_flips(layers, x0, own)
    truth = brute_force(layers, x0, int(own), [k for k in range(sizes[-1]) if k != own])
    assert bool(answer.solved)
    if math.isinf(truth):
        assert math.isinf(answer.distance) and math.isinf(answer.lower_bound)
        return
    assert float(answer.distance) == pytest.approx(truth, rel=1e-5)
    assert truth * (1 - 1e-4) <= float(answer.lower_bound) <= truth * (1 + 1e-9)
    output = layers.value(answer.point)[0]
    assert 0 <= float(output[answer.target[0]] - output[own[0]]) <= 1e-9
    assert float((answer.point - x0).abs().max()) == pytest.approx(float(answer.distance), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_network_has_the_distance_of_its_plane(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((2, 6), generator=generator, dtype=torch.float64)
    x0 = torch.rand((1, 6), generator=generator, dtype=torch.float64)
    wide = torch.full((6,), 100.0, dtype=torch.float64)
    layers = DenseLayers((weight,), (torch.zeros(2, dtype=torch.float64),), -wide, wide)
    output = layers.value(x0)[0]
    truth = float((output[0] - output[1]).abs() / (weight[0] - weight[1]).abs().sum())
    answer = exact_linf_flips(layers, x0, layers.value(x0).argmax(1))
    assert float(answer.distance) == pytest.approx(truth, rel=1e-9)
    assert float(answer.lower_bound) <= truth and bool(answer.solved)


def test_norms_are_in_order():
    layers, _ = random_layers((4, 8, 8, 3), 8)
    x0 = torch.rand((4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = layers.value(x0).argmax(1)
    largest, euclid = exact_linf_flips(layers, x0, own), exact_flips(layers, x0, own)
    found = torch.isfinite(euclid.distance)
    assert found.any() and largest.solved.all() and euclid.solved.all()
    assert torch.equal(found, torch.isfinite(largest.distance))
    ratio = (euclid.distance / largest.distance)[found]
    assert (ratio >= 1 - 1e-5).all() and (ratio <= 2 + 1e-5).all()


def test_targets_and_bad_rows():
    layers, _ = random_layers((3, 6, 4), 11)
    x0 = torch.rand((3, 3), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x0[1] = torch.nan
    own = layers.value(x0).argmax(1)
    own[2] = layers.value(x0[2:]).argmin(1)[0]
    answer = exact_linf_flips(layers, x0, own)
    assert math.isinf(answer.distance[1]) and answer.lower_bound[1] == 0 and not answer.solved[1]
    assert answer.distance[2] == 0 and torch.equal(answer.point[2], x0[2])
    others = torch.tensor([k for k in range(4) if k != own[0]])
    each = exact_linf_flips(layers, x0[:1].expand(3, -1), own[:1].expand(3), target=others)
    assert float(each.distance.min()) == pytest.approx(float(answer.distance[0]), rel=1e-5)
    for k, target in enumerate(others.tolist()):
        truth = brute_force(layers, x0[:1], int(own[0]), [target])
        assert float(each.distance[k]) == pytest.approx(truth, rel=1e-5)
    with pytest.raises(UserError, match="own"):
        exact_linf_flips(layers, x0, torch.tensor([0, 9, 0]))
    with pytest.raises(UserError, match="seconds"):
        LinfSearch(seconds=0)


def test_out_of_time_the_bound_is_still_below():
    layers, x0 = random_layers((6, 14, 14, 4), 5)
    own = layers.value(x0).argmax(1)
    full = exact_linf_flips(layers, x0, own)
    short = exact_linf_flips(layers, x0, own, settings=LinfSearch(seconds=0.02))
    assert bool(full.solved)
    assert float(short.lower_bound) <= float(full.distance) <= float(short.distance) * (1 + 1e-5)
