"""Exact closest flips against every activation pattern of tiny networks, and against closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import nn

import theodolite as th
from tests.instruments.small_networks import random_layers
from theodolite.errors import UserError
from theodolite.instruments.bounds.dense_layers import DenseLayers, dense_layers
from theodolite.instruments.bounds.exact_boundary import ExactSearch, exact_flips
from theodolite.instruments.bounds.quadratic_programs import Programs, dual_value, solve


def nearest_in_polytope(matrix, limit):
    """|d| of the shortest d with matrix d <= limit: Lawson and Hanson 1974, 'Solving Least Squares Problems', LDP."""
    scale = np.maximum(np.linalg.norm(matrix, axis=1), 1e-12)
    rows = np.vstack([-(matrix / scale[:, None]).T, -(limit / scale)[None]])
    goal = np.zeros(len(rows))
    goal[-1] = 1.0
    weight, distance = nnls(rows, goal, maxiter=10000)
    if distance < 1e-9:
        return math.inf
    residual = rows @ weight - goal
    return float(np.linalg.norm(residual[:-1] / residual[-1]))


def brute_force(layers, x0, own, targets, boxed):
    """The least over all activation patterns and targets, each a convex program."""
    x = x0[0].numpy()
    weight, bias = [w.numpy() for w in layers.weight], [b.numpy() for b in layers.bias]
    n = len(x)
    box = [(np.eye(n), 1 - x), (-np.eye(n), x)] if boxed else []
    best = math.inf
    sizes = [len(b) for b in bias[:-1]]
    for pattern in itertools.product([0.0, 1.0], repeat=sum(sizes)):
        matrix, offset = weight[0], bias[0] + weight[0] @ x
        constraints, start = list(box), 0
        for layer, size in enumerate(sizes):
            on = np.array(pattern[start : start + size])
            start += size
            sign = 1 - 2 * on
            constraints.append((sign[:, None] * matrix, -sign * offset))
            after = weight[layer + 1] * on
            matrix, offset = after @ matrix, after @ offset + bias[layer + 1]
        for target in targets:
            margin = [((matrix[own] - matrix[target])[None], np.array([offset[target] - offset[own]]))]
            every = constraints + margin
            best = min(
                best, nearest_in_polytope(np.vstack([c[0] for c in every]), np.concatenate([c[1] for c in every]))
            )
    return best


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize(
    ("sizes", "seed"),
    [((2, 5, 3), 0), ((3, 7, 2), 1), ((4, 6, 3), 2), ((2, 3, 3, 3), 3), ((3, 4, 3, 2), 4), ((6, 6, 2), 5)],
)
def test_equals_brute_force_over_all_patterns(sizes, seed, boxed):
    layers, x0 = random_layers(sizes, seed)
    own = layers.value(x0).argmax(1)
    targets = [k for k in range(sizes[-1]) if k != own]
    answer = exact_flips(layers, x0, own, settings=ExactSearch(boxed=boxed))
    truth = brute_force(layers, x0, int(own), targets, boxed)
    if math.isinf(truth) and boxed:
        assert bool(answer.solved) and math.isinf(float(answer.lower_bound)) and int(answer.target) == -1
        return
    assert float(answer.distance) == pytest.approx(truth, rel=3e-7)
    assert float(answer.lower_bound) <= truth * (1 + 1e-9)
    assert bool(answer.solved)
    output = layers.value(answer.point)[0]
    residual = float(output[answer.target[0]] - output[own[0]])
    assert 0 <= residual <= 1e-9
    assert float((answer.point - x0).norm()) == pytest.approx(float(answer.distance), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_given_target_has_its_own_closest_point(seed):
    layers, x0 = random_layers((3, 6, 4), 10 + seed)
    own = layers.value(x0).argmax(1)
    others = [k for k in range(4) if k != own]
    n = len(others)
    answer = exact_flips(layers, x0.expand(n, -1), own.expand(n), target=torch.tensor(others))
    truth = [brute_force(layers, x0, int(own), [target], True) for target in others]
    assert answer.distance.tolist() == pytest.approx(truth, rel=3e-7)
    assert answer.solved.all()
    assert float(exact_flips(layers, x0, own).distance) == pytest.approx(min(truth), rel=3e-7)


def test_a_linear_network_has_the_distance_of_its_line():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([0.0, 0.5], dtype=torch.float64)
    layers = DenseLayers((weight,), (bias,), torch.zeros(2).double(), torch.ones(2).double())
    x0 = torch.tensor([[0.9, 0.9], [0.05, 0.9], [0.01, 0.01]], dtype=torch.float64)
    own = layers.value(x0).argmax(1)
    free = exact_flips(layers, x0, own, settings=ExactSearch(boxed=False))
    assert free.distance.tolist() == pytest.approx([5.8 / 5, 3.25 / 5, 0.43 / 5], rel=1e-7)
    # The feet of the first two perpendiculars lie outside the box: the closest points are (1/6, 0) and (0, 1/8).
    boxed = exact_flips(layers, x0, own)
    truth = [math.hypot(0.9 - 1 / 6, 0.9), math.hypot(0.05, 0.9 - 1 / 8), 0.43 / 5]
    assert boxed.distance.tolist() == pytest.approx(truth, rel=2e-7)
    assert free.solved.all() and boxed.solved.all()


def test_rows_do_not_influence_each_other():
    layers, _ = random_layers((4, 8, 8, 3), 20)
    x = torch.rand((5, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own = layers.value(x).argmax(1)
    together = exact_flips(layers, x, own)
    bad = x.clone()
    bad[2] = torch.nan
    bad[3] = 1.5
    harmed = exact_flips(layers, bad, own)
    for row in range(5):
        alone = exact_flips(layers, x[row : row + 1], own[row : row + 1])
        assert torch.equal(alone.point[0], together.point[row]) and alone.n_nodes[0] == together.n_nodes[row]
        if row not in (2, 3):
            assert torch.equal(harmed.point[row], together.point[row])
    for row in (2, 3):
        assert math.isinf(harmed.distance[row]) and harmed.lower_bound[row] == 0 and not harmed.solved[row]
        assert harmed.target[row] == -1


def test_stopped_early_it_still_brackets_the_truth():
    n_stopped = 0
    for seed in range(30, 38):
        layers, x0 = random_layers((5, 10, 10, 3), seed)
        own = layers.value(x0).argmax(1)
        full = exact_flips(layers, x0, own)
        assert bool(full.solved)
        for max_nodes in (1, 20):
            stopped = exact_flips(layers, x0, own, settings=ExactSearch(max_nodes=max_nodes, batch=2))
            n_stopped += not bool(stopped.solved)
            assert float(stopped.lower_bound) <= float(full.distance) <= float(stopped.distance) * (1 + 1e-7)
    assert n_stopped >= 4


def test_inputs_on_the_far_side_and_classes_that_tie():
    layers, x0 = random_layers((3, 5, 3), 50)
    loser = layers.value(x0).argmin(1)
    answer = exact_flips(layers, x0, loser)
    assert float(answer.distance) == 0 and float(answer.lower_bound) == 0 and bool(answer.solved)
    # Two classes with one and the same logit, both of them in the lead: the answer is the input itself.
    weight = (layers.weight[0], layers.weight[1][[0, 0, 1]])
    bias = (layers.bias[0], layers.bias[1][[0, 0, 1]] + torch.tensor([50.0, 50.0, 0.0], dtype=torch.float64))
    tied = DenseLayers(weight, bias, layers.low, layers.high)
    answer = exact_flips(tied, x0, torch.tensor([0]))
    assert float(answer.distance) == 0 and int(answer.target) == 1


def test_a_lead_within_rounding_proves_nothing_and_breaks_nothing():
    layers, x0 = random_layers((2, 4, 3), 51)
    level = torch.tensor([1.0, 1.0 - 2.0**-53, 0.0], dtype=torch.float64)
    flat = DenseLayers((layers.weight[0], torch.zeros(3, 4).double()), (layers.bias[0], level), layers.low, layers.high)
    both = torch.cat([x0, 0.5 * x0])
    answer = exact_flips(flat, both, torch.tensor([0, 0]))
    assert answer.distance.isinf().all() and answer.lower_bound.eq(0).all() and not answer.solved.any()


def test_where_nothing_flips_the_whole_box_is_proven_free():
    layers, x0 = random_layers((3, 5, 2), 60)
    bias = (layers.bias[0], torch.tensor([100.0, 0.0], dtype=torch.float64))
    safe = DenseLayers(layers.weight, bias, layers.low, layers.high)
    answer = exact_flips(safe, x0, torch.tensor([0]))
    assert math.isinf(answer.distance) and math.isinf(answer.lower_bound) and bool(answer.solved)
    constant = DenseLayers((layers.weight[0], torch.zeros(2, 5).double()), bias, layers.low, layers.high)
    answer = exact_flips(constant, x0, torch.tensor([0]), settings=ExactSearch(boxed=False))
    assert math.isinf(answer.distance) and float(answer.lower_bound) > 1e5


def test_matrices_of_convolutions_and_embeddings_are_the_network():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Identity(),
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(3, 4),
        nn.ReLU(),
        nn.Linear(4, 1),
    )
    module[2].running_mean.normal_()
    module[2].running_var.uniform_(0.5, 2)
    space = th.Grid((1, 6, 6), 256)
    network = th.Network(module, space, embedding=th.Scale(1 / 255, -0.5), classes=["a", "b"])
    layers = dense_layers(network)
    x = space.draw(20, torch.Generator().manual_seed(0)).double().flatten(1)
    truth = network.all_outputs(torch.float64).value(x)
    torch.testing.assert_close(layers.value(x), truth, rtol=1e-12, atol=1e-12)
    own = truth.argmax(1)
    direction = nn.functional.one_hot(own, 2).double()
    _, slope = network.all_outputs(torch.float64).gradient(x, lambda z, index: direction[index])
    torch.testing.assert_close(layers.gradient(x, direction), slope, rtol=1e-10, atol=1e-14)
    assert layers.low.eq(0).all() and layers.high.eq(255).all()
    answer = exact_flips(network, x[:2], own[:2])
    assert answer.solved.all()


def test_what_it_cannot_do_is_refused():
    space = th.Box((4,), 0.0, 1.0)
    with pytest.raises(UserError, match="certificates"):
        dense_layers(th.Network(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), space))
    layers, x0 = random_layers((3, 5, 3), 0)
    with pytest.raises(UserError, match="own"):
        exact_flips(layers, x0, torch.tensor([3]))
    with pytest.raises(UserError, match="own"):
        exact_flips(layers, x0, torch.tensor([1]), target=torch.tensor([1]))
    with pytest.raises(UserError, match="inputs"):
        exact_flips(layers, x0[:, :2], torch.tensor([1]))
    with pytest.raises(UserError, match="gap"):
        ExactSearch(gap=0.0)
    with pytest.raises(UserError, match="max_nodes"):
        ExactSearch(max_nodes=0)


# ---------------------------------------------------------------------- the programs of the nodes


def random_programs(n_programs, n, m, seed):
    """Half-spaces alone: no free numbers, so that the truth is a shortest vector."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.eye(n, dtype=torch.float64)
    on_base = torch.randn((n_programs, m, n), generator=generator, dtype=torch.float64)
    limit = 0.4 * torch.randn((n_programs, m), generator=generator, dtype=torch.float64)
    ends = torch.full((n,), 1.0, dtype=torch.float64)
    return Programs(base, -ends, ends, on_base, torch.zeros((n_programs, m, 0), dtype=torch.float64), limit)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 6), (7, 5)])
def test_programs_reach_the_truth_and_their_duals_never_pass_it(n, m):
    programs = random_programs(60, n, m, n)
    found = solve(programs, 10.0)
    multiplier = torch.rand((60, m), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    n_feasible = 0
    for row in range(60):
        matrix = np.vstack([programs.on_base[row].numpy(), np.eye(n), -np.eye(n)])
        limit = np.concatenate([programs.limit[row].numpy(), np.ones(2 * n)])
        truth = 0.5 * nearest_in_polytope(matrix, limit) ** 2
        for scale in (0.01, 0.1, 1.0):
            assert float(dual_value(programs, scale * multiplier)[row]) <= truth + 1e-12
        assert float(found.value[row]) <= truth * (1 + 1e-10) + 1e-12
        if math.isfinite(truth):
            n_feasible += 1
            assert bool(found.solved[row])
            assert float(found.value[row]) == pytest.approx(truth, rel=1e-7, abs=1e-9)
        else:
            assert float(found.value[row]) >= 10.0
    assert n_feasible > 10
