"""The paper's attack against closed forms and a grid; failures, invariances, and what each example must be."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.search.adversarial import PENALTIES, LbfgsAttack, adversarial_examples
from theodolite.search.attack_kernels import turn_rows, weigh_rows
from theodolite.search.constant_search import ConstantSearch
from theodolite.search.pull_back import margins, pull_back
from theodolite.space import Box


def normal(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(function, n, n_outputs, low=0.0, high=1.0):
    walls = torch.full((n,), low, dtype=torch.float64), torch.full((n,), high, dtype=torch.float64)
    return tuple(Outputs(function, (n,), *walls, n_outputs, dtype=dtype) for dtype in (torch.float32, torch.float64))


def linear(n, n_classes, seed):
    weight, bias = normal((n_classes, n), seed), 0.3 * normal((n_classes,), seed + 1)
    return weight, bias, lambda x: x @ weight.T.to(x.dtype) + bias.to(x.dtype)


def sigmoid_network(seed=0, n=20, n_classes=4):
    first, second = normal((12, n), seed), 2 * normal((n_classes, 12), seed + 1)
    return lambda x: ((x - 0.5) @ first.T.to(x.dtype)).sigmoid() @ second.T.to(x.dtype)


def check(found, exact, x0, target):
    """What holds for every example, in float64."""
    assert bool(((found.point >= exact.low) & (found.point <= exact.high)).all())
    assert torch.allclose(found.margin, margins(exact.value(found.point), target), rtol=1e-9, atol=1e-9)
    assert torch.equal(found.found, found.margin > 0)
    assert torch.equal(exact.value(found.point[found.found]).argmax(1), target[found.found])
    length = (found.point - x0).norm(dim=1)
    assert torch.allclose(found.distance[found.found], length[found.found], rtol=1e-12, atol=0)
    assert bool(found.distance[~found.found].isinf().all())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_two_linear_classes_have_the_distance_to_the_plane(penalty):
    weight, bias, function = linear(30, 2, 0)
    outputs, exact = pair(function, 30, 2, -100.0, 100.0)
    x0 = normal((40, 30), 5)
    own = exact.value(x0).argmax(1)
    found = adversarial_examples(outputs, exact, x0, 1 - own, LbfgsAttack(penalty=penalty))
    check(found, exact, x0, 1 - own)
    difference = weight[0] - weight[1]
    truth = (x0 @ difference + bias[0] - bias[1]).abs() / difference.norm()
    assert bool(found.found.all())
    assert bool((found.distance >= truth).all())
    # A gradient left over of a tenth of the penalty's turns the direction by at most as much: 1 / sqrt(1 - 0.1^2).
    assert float((found.distance / truth).max()) < 1.0055
    assert float((found.distance / truth).median()) < 1.001


def nearest_of_class(weight, bias, x0, target):
    """The point of least distance in the unit box where the class leads, by sequential quadratic programming."""
    others = [k for k in range(len(weight)) if k != target]
    rows, offset = (weight[target] - weight[others]).numpy(), (bias[target] - bias[others]).numpy()
    start = x0.numpy()
    solved = minimize(
        lambda x: (0.5 * ((x - start) ** 2).sum(), x - start),
        start,
        jac=True,
        bounds=[(0.0, 1.0)] * len(start),
        constraints={"type": "ineq", "fun": lambda x: rows @ x + offset, "jac": lambda x: rows},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    return math.sqrt(2 * solved.fun)


def test_a_linear_softmax_in_a_box_is_near_the_nearest_point_of_the_class():
    weight, bias, function = linear(30, 5, 2)
    outputs, exact = pair(function, 30, 5)
    x0 = torch.rand((16, 30), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x0[x0 < 0.4] = 0.0
    target = (exact.value(x0).argmax(1) + torch.arange(16) % 4 + 1) % 5
    found = adversarial_examples(outputs, exact, x0, target)
    check(found, exact, x0, target)
    assert bool(found.found.all())
    truth = torch.tensor([nearest_of_class(weight, bias, *row) for row in zip(x0, target.tolist(), strict=True)])
    ratio = found.distance / truth
    # No example is nearer than the nearest; the loss minds all classes at once, so that they need not be as near.
    assert float(ratio.min()) > 1 - 1e-6
    assert float(ratio.median()) < 1.02 and float(ratio.max()) < 1.25


def test_in_the_plane_no_point_of_a_grid_is_much_nearer():
    def function(x):
        """Three sectors with bent borders."""
        first, second = x[:, 0], x[:, 1]
        return torch.stack([1.2 * first, 0.2 * first**2 + second - 0.5, 0.7 * (2 * second).sin() - second], 1)

    outputs, exact = pair(function, 2, 3, -4.0, 4.0)
    axis = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    classes = exact.value(grid).argmax(1)
    x0 = 2 * normal((30, 2), 9).clamp(-1.9, 1.9)
    target = (exact.value(x0).argmax(1) + 1 + torch.arange(30) % 2) % 3
    found = adversarial_examples(outputs, exact, x0, target)
    check(found, exact, x0, target)
    there = torch.cdist(x0, grid).masked_fill(classes[None] != target[:, None], math.inf).amin(1)
    assert len(exact.value(x0).argmax(1).unique()) == 3
    assert bool(found.found.all())
    # A cell of the grid is 0.01 wide: nothing nearer than the grid's point by more than half its diagonal.
    assert bool((found.distance > there - 0.008).all())
    assert float((found.distance / there).median()) < 1.02


def test_rows_do_not_influence_each_other_and_units_are_counted():
    outputs, exact = pair(sigmoid_network(), 20, 4)
    x0 = torch.rand((24, 20), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = (exact.value(x0).argmax(1) + 1 + torch.arange(24) % 3) % 4
    outputs.n_units = exact.n_units = 0
    together = adversarial_examples(outputs, exact, x0, target)
    assert int(together.units.sum()) == outputs.n_units + exact.n_units
    check(together, exact, x0, target)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    permuted = adversarial_examples(outputs, exact, x0[order], target[order])
    split = adversarial_examples(outputs, exact, x0, target, LbfgsAttack(batch_size=5))
    # Sums of a matrix product depend on the batch in the last digit of single precision, and branches on them.
    for other, distance in ((permuted, together.distance[order]), (split, together.distance)):
        assert float((other.distance / distance - 1).abs().max()) < 5e-3
        assert float((other.distance / distance - 1).abs().median()) < 1e-4


def test_a_network_of_one_class_fails_with_its_best_point_and_margin():
    outputs, exact = pair(lambda x: torch.stack([5.0 + 0 * x[:, 0], 0 * x[:, 0], -1.0 + 0 * x[:, 0]], 1), 6, 3)
    x0 = torch.full((2, 6), 0.5, dtype=torch.float64)
    found = adversarial_examples(outputs, exact, x0, torch.tensor([1, 2]))
    assert found.found.tolist() == [False, False]
    assert found.margin.tolist() == [-5.0, -6.0]
    assert torch.equal(found.point, x0)
    assert bool(found.distance.isinf().all()) and bool(found.constant.isnan().all())


def test_a_class_out_of_reach_fails_with_the_point_that_comes_nearest_to_it():
    # The second class lacks 1 at the best corner of the box.
    outputs, exact = pair(lambda x: torch.stack([0 * x[:, 0], x.sum(1) - 7.0], 1), 6, 2)
    x0 = torch.full((1, 6), 0.25, dtype=torch.float64)
    found = adversarial_examples(outputs, exact, x0, torch.tensor([1]))
    assert not bool(found.found[0])
    assert float(found.margin[0]) == pytest.approx(-1.0, abs=1e-3)
    assert (found.point - 1.0).abs().max() < 1e-3


def test_an_input_of_the_class_is_its_own_example_and_one_that_is_not_finite_is_none():
    _, _, function = linear(4, 3, 7)
    outputs, exact = pair(lambda x: torch.where(x[:, :1] > 0.9, torch.nan, function(x)), 4, 3)
    x0 = torch.tensor([[0.2, 0.3, 0.4, 0.5], [0.95, 0.5, 0.5, 0.5]], dtype=torch.float64)
    own = exact.value(x0[:1]).argmax(1)
    found = adversarial_examples(outputs, exact, x0, own.repeat(2))
    assert found.found.tolist() == [True, False]
    assert float(found.distance[0]) == 0.0 and torch.equal(found.point[0], x0[0])


def test_images_of_a_network_keep_the_box_and_its_corners():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Sigmoid(), nn.Linear(16, 4))
    with torch.no_grad():
        module[3].weight *= 5
    network = Network(module, Box((1, 6, 6), 0.0, 1.0))
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    x0 = (torch.rand((12, 36), generator=torch.Generator().manual_seed(3)) > 0.5).double()
    target = (exact.value(x0).argmax(1) + 1) % 4
    found = adversarial_examples(outputs, exact, x0, target)
    check(found, exact, x0, target)
    # The lead left by the pull back is one that single precision sees.
    assert torch.equal(outputs.value(found.point[found.found].float()).argmax(1), target[found.found])


def test_a_point_is_pulled_back_to_just_behind_the_boundary():
    _, exact = pair(lambda x: torch.stack([0 * x[:, 0], x.square().sum(1) - 0.25], 1), 2, 2)
    x0, point = torch.zeros((2, 2), dtype=torch.float64), torch.tensor([[0.6, 0.8], [0.1, 0.1]], dtype=torch.float64)
    units = torch.zeros(2, dtype=torch.long)
    target = torch.tensor([1, 1])
    pulled = pull_back(exact, target, x0, margins(exact.value(x0), target), point, units)
    assert float(pulled[0].norm()) == pytest.approx(0.5, abs=1e-4) and float(pulled[0].norm()) > 0.5
    assert (pulled[0] / pulled[0].norm() - point[0]).abs().max() < 1e-12
    assert bool(pulled[1].isnan().all())
    assert int(units[0]) <= 10


def test_the_search_finds_the_constant_at_which_a_margin_vanishes():
    truth = torch.tensor([1e-3, 2.0, 5e4], dtype=torch.float64)
    search = ConstantSearch(torch.ones(3, dtype=torch.float64), 3.0, 1e-3, 60)
    while not bool(search.done.all()):
        row = (~search.done).nonzero()[:, 0]
        ratio = truth[row] / search.constant[row]
        search.judge(row, ratio.log() + 0.3 * ratio.log() ** 3, 1 + ratio.clamp(0.01, 100) / 10)
    # Distances near the root change by a tenth of the relative change of the constant.
    assert (search.constant / truth - 1).abs().max() < 0.05
    assert int(search.n_trials.max()) < 30


@pytest.mark.parametrize("squared", [True, False])
def test_a_weighed_row_has_the_derivative_of_the_whole_and_another_c_changes_it_as_weighing_anew_would(squared):
    x0, points, tilt = normal((3, 7), 20), normal((5, 7), 21), normal((7,), 22)
    image, margin = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([1.0, -2.0, -1.0, -3.0, 2.0], dtype=torch.float64)
    points[4] = x0[0] + 0.1 * (points[0] - x0[0])

    def whole(x, start, c):
        length = (x - start).norm(dim=1)
        return (x @ tilt).sin() + c * (length**2 if squared else length)

    def weighed(constant):
        value, gradient, length = (points @ tilt).sin(), (points @ tilt).cos()[:, None] * tilt, margin * 0
        nearest, best = torch.full_like(x0, torch.nan), torch.full_like(x0, torch.nan)
        near, lead = torch.full((3,), torch.inf, dtype=torch.float64), torch.full((3,), -9.0, dtype=torch.float64)
        arrays = (value, gradient, margin, length, nearest, near, best, lead)
        weigh_rows(image.numpy(), points.numpy(), x0.numpy(), constant.numpy(), squared, *(a.numpy() for a in arrays))
        return value, gradient, length, nearest, best

    constant, other = torch.tensor([[0.5, 3.0, 0.1], [4.0, 0.2, 7.0]], dtype=torch.float64)
    value, gradient, length, nearest, best = weighed(constant)
    leaf = points.clone().requires_grad_(True)
    truth = whole(leaf, x0[image], constant[image])
    assert torch.allclose(value, truth.detach(), rtol=1e-13)
    assert torch.allclose(gradient, torch.autograd.grad(truth.sum(), leaf)[0], rtol=1e-12, atol=1e-13)
    assert torch.allclose(length, (points - x0[image]).norm(dim=1), rtol=1e-13)
    # The nearer success of the first image, none of the others; of these the points of the largest margin.
    assert torch.equal(nearest[0], points[4]) and bool(nearest[1:].isnan().all())
    assert torch.equal(best[1:], points[[3, 2]])

    share = [2 * c[image] if squared else c[image] / length for c in (constant, other)]
    anchor, pull, point, turned = torch.zeros_like(x0), torch.zeros_like(x0), points.clone(), gradient.clone()
    won, back = margin > 0, torch.zeros(5, dtype=torch.bool)
    given = (torch.arange(5), image, won, back, *share, x0, point, turned, anchor, pull)
    turn_rows(*(array.numpy() for array in given))
    assert torch.allclose(turned, weighed(other)[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(anchor[0], points[4])
    assert torch.allclose(pull[0], (points[4] @ tilt).cos() * tilt, rtol=1e-10, atol=1e-12)
    # A row of the same image that goes back stands where the anchor does, weighed with its own c.
    given = (torch.tensor([0]), image[:1], won[3:4], ~back[:1], share[0][:1], share[1][4:], x0, point, turned, anchor)
    turn_rows(*(array.numpy() for array in (*given, pull)))
    assert torch.equal(point[0], points[4]) and torch.allclose(turned[0], turned[4], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"exact": 0}, "exact"),
        ({"inputs": torch.zeros((2, 5))}, "inputs"),
        ({"inputs": torch.full((2, 4), 1.5)}, "inputs"),
        ({"inputs": torch.full((2, 4), torch.nan)}, "inputs"),
        ({"target": torch.tensor([0])}, "target"),
        ({"target": torch.tensor([0, 3])}, "target"),
    ],
)
def test_bad_arguments_are_named(given, argument):
    outputs, exact = pair(linear(4, 3, 0)[2], 4, 3)
    good = {"outputs": outputs, "exact": exact, "inputs": torch.full((2, 4), 0.5), "target": torch.tensor([0, 1])}
    given = {name: outputs if name == "exact" else value for name, value in given.items()}
    with pytest.raises(UserError) as error:
        adversarial_examples(**{**good, **given})
    assert error.value.argument == argument


@pytest.mark.parametrize(
    ("argument", "value"),
    [("penalty", "L1"), ("factor", 1.0), ("n_constants", 0), ("accuracy", -0.1), ("batch_size", 0)],
)
def test_settings_are_checked(argument, value):
    with pytest.raises(UserError) as error:
        LbfgsAttack(**{argument: value})
    assert error.value.argument == argument
