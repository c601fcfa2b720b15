"""Constraints against their definitions, refusals, and constrained flips against exact programs on linear networks."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.constrained_flips import constrained_flips
from theodolite.search.constraints import Constraints, parse_constraints
from theodolite.search.linear_equalities import ITU_601_LUMA, Equalities, LuminanceKept, Sum

SHAPE = (3, 4, 5)
N = 60


def box(shape=SHAPE, low=0.0, high=1.0):
    n = int(np.prod(shape))
    return torch.full((n,), low, dtype=torch.float64), torch.full((n,), high, dtype=torch.float64), shape


def uniform(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def outputs_of(module, shape, low=0.0, high=1.0):
    bounds = box(shape, low, high)
    n_outputs = module(torch.zeros((1, *shape), dtype=torch.float64)).shape[1]
    return Outputs(module, shape, bounds[0], bounds[1], n_outputs, dtype=torch.float64)


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double()


def flips(outputs, x, constraints, **options):
    own = outputs.value(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    options = {"effort": "quick", **options}
    found = constrained_flips(outputs, outputs, x, own, constraints, generator=generator, **options)
    return own, *found


# ---------------------------------------------------------------- what is allowed


def test_movable_features_are_those_that_every_rule_leaves_free():
    mask = uniform(*SHAPE) > 0.3
    constraints = Constraints(
        fixed=[1, 59], mask=mask, patch=(range(1, 3), range(2, 5)), channels=[0, 2], increasing=[7, 8], decreasing=[9]
    )
    rules = constraints.rules(*box())
    x = uniform(4, N, seed=1)
    low, high = rules.box(x)
    for feature, (channel, row, column) in enumerate(itertools.product(*map(range, SHAPE))):
        free = channel != 1 and row in (1, 2) and column in (2, 3, 4) and bool(mask[channel, row, column])
        free = free and feature not in (1, 59)
        least = x[:, feature] if not free or feature in (7, 8) else torch.zeros(4, dtype=torch.float64)
        most = x[:, feature] if not free or feature == 9 else torch.ones(4, dtype=torch.float64)
        assert torch.equal(low[:, feature], least) and torch.equal(high[:, feature], most), feature


def test_bounds_for_all_for_each_and_for_some():
    own = torch.linspace(-0.5, 0.5, N, dtype=torch.float64)
    low, high = Constraints(low=own.reshape(SHAPE), high={3: 0.25, 5: 7.0}).rules(*box()).box(uniform(1, N))
    assert torch.equal(low[0], own.clamp(min=0.0))
    assert high[0, 3] == 0.25 and high[0, 5] == 1.0 and high[0, 4] == 1.0
    assert torch.equal(Constraints(low=0.125).rules(*box()).box(uniform(1, N))[0], torch.full((1, N), 0.125).double())


def test_text_says_the_same_as_python():
    text = "fixed=0-3,7; patch=1-2x0-4;low=10:0.1;high=3:0.5;high=4-5:0.75;increasing=20,21;whole=30;one_hot=40-42"
    one = parse_constraints(f"{text};one_hot=43,44;sum=50-52;sum=53-54:1.5;luminance_kept").rules(*box())
    other = Constraints(
        fixed=[0, 1, 2, 3, 7], patch=(range(1, 3), range(5)), low={10: 0.1}, high={3: 0.5, 4: 0.75, 5: 0.75},
        increasing=[20, 21], whole=[30], one_hot=[[40, 41, 42], [43, 44]],
        equalities=[Sum([50, 51, 52]), Sum([53, 54], 1.5), LuminanceKept()],
    ).rules(*box())  # fmt: skip
    for name in ("movable", "low", "high", "increasing", "decreasing", "whole", "matrix", "offset"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    assert [group.tolist() for group in one.groups] == [[40, 41, 42], [43, 44]]
    assert parse_constraints("").empty and not parse_constraints("fixed=0").empty


@pytest.mark.parametrize(
    "text", ["fixed", "fixed=3-1", "fixed=a", "colour=1", "low=x", "low=1;low=2", "low=1;low=3:2", "fixed=1;fixed=2"]
)
def test_wrong_text_is_refused(text):
    with pytest.raises(UserError, match="constraints"):
        parse_constraints(text)


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (lambda: Constraints(fixed=[N]), "fixed"),
        (lambda: Constraints(fixed=torch.tensor([0.5])), "fixed"),
        (lambda: Constraints(mask=torch.ones(7, dtype=torch.bool)), "mask"),
        (lambda: Constraints(mask=[]), "may change"),
        (lambda: Constraints(fixed=range(N)), "may change"),
        (lambda: Constraints(patch=(range(3), range(9))), "patch"),
        (lambda: Constraints(channels=[3]), "channels"),
        (lambda: Constraints(increasing=[1], decreasing=[1]), "increasing"),
        (lambda: Constraints(low=0.6, high=0.4), "feature 0"),
        (lambda: Constraints(low={2: 1.5}), "feature 2"),
        (lambda: Constraints(low=float("nan")), "low"),
        (lambda: Constraints(low=torch.zeros(3)), "low"),
        (lambda: Constraints(whole=[4], low=0.2, high=0.8), "whole number"),
        (lambda: Constraints(one_hot=[[1, 2], [2, 3]]), "one_hot"),
        (lambda: Constraints(one_hot=[[1]]), "one_hot"),
        (lambda: Constraints(one_hot=[[1, 2]], low=0.1, high=0.9), "whole number"),
        (lambda: Constraints(one_hot=[[1, 2]], high={1: 0.5, 2: 0.5}), "equalities"),
        (lambda: Constraints(equalities=Sum([0, 1], 3.0)), "equalities"),
        (lambda: Constraints(equalities=[Sum([0, 1], 1.0), Sum([1, 0], 1.5)]), "equalities"),
        (lambda: Constraints(equalities=Sum([N])), "equalities"),
        (lambda: Constraints(equalities=Equalities(torch.zeros(2, N))), "equalities"),
        (lambda: Constraints(equalities=Equalities(torch.ones(2, N), torch.ones(3))), "equalities"),
        (lambda: Constraints(equalities=Equalities(torch.ones(2, N - 1))), "equalities"),
    ],
)
def test_what_contradicts_itself_whatever_the_input_is_refused(constraints, words):
    with pytest.raises(UserError, match=words):
        constraints().rules(*box())


def test_images_without_rows_have_no_patches_or_channels():
    for constraints in (
        Constraints(patch=([0], [0])),
        Constraints(channels=[0]),
        Constraints(equalities=LuminanceKept()),
    ):
        with pytest.raises(UserError):
            constraints.rules(*box((9,)))


def test_violation_is_the_largest_by_definition():
    constraints = parse_constraints("fixed=0;increasing=1;whole=2;one_hot=3-5;sum=6-9;high=10:0.5")
    rules = constraints.rules(*box((11,), high=3.0))
    x = 3.0 * uniform(200, 11)
    x[:, 3:6] = torch.eye(3, dtype=torch.float64)[torch.arange(200) % 3]
    x[:, 10] = 0.25
    x[:, 2] = x[:, 2].round()
    y = torch.where(uniform(200, 11, seed=1) < 0.15, x + 2.0 * uniform(200, 11, seed=2) - 1.0, x)
    wanted = torch.stack(
        [
            (y - x)[:, 0].abs(),
            (x - y)[:, 1],
            (y[:, 2:6] - y[:, 2:6].round()).abs().amax(1),
            (-y[:, 3:6]).amax(1),
            (y[:, 3:6] - 1).amax(1),
            (y[:, 3:6].sum(1) - 1).abs() / 3**0.5,
            (y[:, 6:10] - x[:, 6:10]).sum(1).abs() / 2,
            y[:, 10] - 0.5,
            (-y).amax(1),
            (y - 3.0).amax(1),
        ]
    ).amax(0)
    got = rules.violation(x, y)
    torch.testing.assert_close(got, wanted.clamp(min=0.0), rtol=1e-9, atol=1e-12)
    assert int((got == 0).sum()) > 20 and bool(rules.possible(x).all())


def test_words_name_every_constraint():
    text = "fixed=0-27,30;mask=4-59;channels=0,2;low=0.25;high=7:0.5;increasing=31;decreasing=32;whole=33;one_hot=34-36"
    words = parse_constraints(f"{text};sum=40-44;sum=50-52:1.5;luminance_kept;patch=1-2x3-4").describe()
    for part in ("0-27, 30", "4-59", "channels change: 0, 2", ">= 0.25", "feature 7 <= 0.5", "31", "32", "33", "34-36"):
        assert part in words
    assert "sum of 5 features kept" in words and "sum of 3 features = 1.5" in words and "luminance" in words
    assert "rows 1-2, columns 3-4" in words and Constraints().describe() == "none"


# ---------------------------------------------------------------- per image


def test_an_image_that_contradicts_its_constraints_harms_no_other():
    outputs = outputs_of(seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))), (6,), -2.0, 2.0)
    x = 4 * uniform(6, 6) - 2
    x[1, 0], x[3, 0] = 1.75, 1.5
    x[0, 0], x[2, 0], x[4, 0], x[5, 0] = -1.0, 0.25, 1.0, -2.0
    constraints = Constraints(increasing=[0], high={0: 1.25})
    possible = constraints.rules(*box((6,), -2.0, 2.0)).possible(x)
    assert possible.tolist() == [True, False, True, False, True, True]
    own, found, violation = flips(outputs, x, constraints)
    assert found.found.tolist() == possible.tolist()
    assert violation[[1, 3]].tolist() == pytest.approx([0.25, 0.125], rel=0.2)
    assert torch.equal(outputs.value(found.point).argmax(1)[~possible] != own[~possible], torch.tensor([True, True]))
    good = possible.nonzero()[:, 0]
    _, alone, _ = flips(outputs, x[good], constraints)
    torch.testing.assert_close(alone.point, found.point[good], rtol=1e-12, atol=1e-12)
    assert float(violation[good].max()) == 0.0


def test_sums_an_image_cannot_reach_are_found_by_a_linear_program():
    constraints = Constraints(fixed=[0, 1], equalities=[Sum([0, 1, 2], 1.5), Sum([2, 3], 0.5)])
    x = uniform(300, 5, seed=3)
    wanted = []
    for point in x:
        bounds = [(float(point[0]),) * 2, (float(point[1]),) * 2, (0, 1), (0, 1), (0, 1)]
        matrix = [[1, 1, 1, 0, 0], [0, 0, 1, 1, 0]]
        wanted.append(linprog(np.zeros(5), A_eq=matrix, b_eq=[1.5, 0.5], bounds=bounds).status == 0)
    assert constraints.rules(*box((5,))).possible(x).tolist() == wanted
    assert 20 < sum(wanted) < 280


def test_nothing_to_find_where_the_own_class_does_not_lead_or_outputs_are_not_finite():
    outputs = outputs_of(seeded(lambda: nn.Linear(6, 3)), (6,))
    x = uniform(4, 6)
    own = outputs.value(x).argmax(1)
    x[2, 1] = torch.nan
    own[0] = (own[0] + 1) % 3
    found, violation = constrained_flips(
        outputs, outputs, x, own, Constraints(fixed=[0]), generator=torch.Generator().manual_seed(0)
    )
    assert found.found.tolist() == [False, True, False, True]
    assert torch.equal(violation, torch.zeros(4, dtype=torch.float64))


# ---------------------------------------------------------------- closest points against exact programs


def quadratic_program(x, normal, bias, low, high, matrix, offset):
    """Least distance from x to normal . y + bias <= 0 within the box and the equalities, by SLSQP from a feasible
    point; inf where there is none."""
    start = linprog(normal, A_eq=matrix, b_eq=offset, bounds=list(zip(low, high, strict=True)))
    if start.status != 0 or start.fun + bias > 0:
        return np.inf
    constraints = [{"type": "ineq", "fun": lambda y: -(normal @ y + bias), "jac": lambda y: -normal}]
    if matrix is not None:
        constraints.append({"type": "eq", "fun": lambda y: matrix @ y - offset, "jac": lambda y: matrix})
    found = minimize(
        lambda y: ((y - x) ** 2).sum(), start.x, jac=lambda y: 2 * (y - x), bounds=list(zip(low, high, strict=True)),
        constraints=constraints, method="SLSQP", options={"maxiter": 500, "ftol": 1e-15},
    )  # fmt: skip
    return float(np.sqrt(found.fun))


@pytest.mark.parametrize(
    "text",
    ["sum=0-7", "sum=0-3;sum=2-6:1.7;increasing=0,1", "sum=0-7;fixed=2,3;low=0.05;high=0.95", "low=0.3;high=0.8"],
)
def test_closest_points_of_linear_networks_equal_the_quadratic_program(text):
    network = seeded(lambda: nn.Linear(8, 3), 2)
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()
    outputs, x = outputs_of(network, (8,)), uniform(12, 8, seed=4)
    constraints = parse_constraints(text)
    rules = constraints.rules(*box((8,)))
    own, found, violation = flips(outputs, x, constraints)
    low, high = rules.box(x)
    possible = rules.possible(x)
    wanted = []
    for row in range(len(x)):
        matrix = None if rules.matrix is None else rules.matrix.numpy()
        offset = None if rules.matrix is None else rules.offsets(x)[row].numpy()
        one = int(own[row])
        each = [
            quadratic_program(
                x[row].numpy(), weight[one] - weight[k], bias[one] - bias[k], low[row].numpy(), high[row].numpy(),
                matrix, offset,
            )
            for k in range(3)
            if k != one and possible[row]
        ]  # fmt: skip
        wanted.append(min(each, default=np.inf))
    assert found.distance.tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    assert np.isfinite(wanted).sum() >= 7
    assert float(rules.violation(x, found.point)[found.found].max()) == 0.0
    assert bool((violation[~found.found] > 0).all())


def linear_program(x, normal, bias, matrix, norm):
    """Least L1 or Linf distance from x to normal . y + bias <= 0 within [0, 1] with matrix . y as at x."""
    n = len(x)
    if norm == "L1":
        found = linprog(
            np.ones(2 * n), A_ub=[np.r_[normal, -normal]], b_ub=[-(normal @ x + bias)],
            A_eq=np.hstack([matrix, -matrix]), b_eq=np.zeros(len(matrix)),
            bounds=[*((0, 1 - one) for one in x), *((0, one) for one in x)],
        )  # fmt: skip
    else:
        eye, ones = np.eye(n), np.ones((n, 1))
        found = linprog(
            np.r_[np.zeros(n), 1.0], A_ub=np.block([[normal, np.zeros(1)], [eye, -ones], [-eye, -ones]]),
            b_ub=np.r_[-(normal @ x + bias), np.zeros(2 * n)], A_eq=np.hstack([matrix, np.zeros((len(matrix), 1))]),
            b_eq=np.zeros(len(matrix)), bounds=[*((-one, 1 - one) for one in x), (0, None)],
        )  # fmt: skip
    return found.fun if found.status == 0 else np.inf


@pytest.mark.parametrize("norm", ["L1", "Linf"])
def test_kept_sums_in_other_norms_equal_the_linear_program(norm):
    network = seeded(lambda: nn.Linear(12, 3), 1)
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()
    outputs, x = outputs_of(network, (12,)), uniform(8, 12, seed=8)
    constraints = parse_constraints("sum=0-7;sum=6-11")
    matrix = np.zeros((2, 12))
    matrix[0, :8] = matrix[1, 6:] = 1.0
    target = (outputs.value(x).argmax(1) + 1) % 3
    own, found, _ = flips(outputs, x, constraints, norm=norm, target=target)
    wanted = [
        linear_program(x[row].numpy(), weight[one] - weight[other], bias[one] - bias[other], matrix, norm)
        for row, (one, other) in enumerate(zip(own.tolist(), target.tolist(), strict=True))
    ]
    assert found.distance.tolist() == pytest.approx(wanted, rel=1e-6)
    assert np.isfinite(wanted).sum() >= 5


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
def test_every_constraint_is_kept_exactly_on_a_network_that_bends(norm):
    make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(N, 24), nn.Tanh(), nn.Linear(24, 4))  # noqa: E731
    outputs, x = outputs_of(seeded(make), SHAPE), uniform(6, N, seed=5)
    for text in ("sum=0-59;fixed=3-9", "patch=0-2x1-3;decreasing=0-20;sum=20-50", "channels=1"):
        constraints = parse_constraints(text)
        rules = constraints.rules(*box())
        own, found, violation = flips(outputs, x, constraints, norm=norm)
        kept = found.found
        assert int(kept.sum()) >= 3, text
        assert float(rules.violation(x, found.point)[kept].max()) == 0.0
        output = outputs.value(found.point)[kept]
        margin = output.gather(1, own[kept, None])[:, 0] - output.gather(1, found.target[kept, None])[:, 0]
        assert bool((margin <= 0).all()) and bool((margin >= -1e-9).all())
        assert bool((violation[~kept] > 0).all()), text


def test_kept_luminance_changes_colour_alone():
    make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(N, 24), nn.Tanh(), nn.Linear(24, 4))  # noqa: E731
    outputs, x = outputs_of(seeded(make, 1), SHAPE), uniform(5, N, seed=6)
    _, found, _ = flips(outputs, x, Constraints(equalities=LuminanceKept()))
    weights = torch.tensor(ITU_601_LUMA, dtype=torch.float64)
    before, after = (torch.einsum("c,bcp->bp", weights, y.reshape(5, 3, 20)) for y in (x, found.point))
    assert int(found.found.sum()) >= 4
    torch.testing.assert_close(after[found.found], before[found.found], rtol=1e-9, atol=0)


def test_a_class_out_of_reach_under_the_mask_is_infeasible_with_the_least_violated_point():
    """Only features 0-2 may move, and they cannot pay the margin: feature by feature the rest must give the same."""
    normal = torch.tensor([1.0, -2.0, 1.0, 3.0, -1.0, 2.0], dtype=torch.float64)
    network = nn.Linear(6, 2).double()
    with torch.no_grad():
        network.weight.copy_(torch.stack([normal / 2, -normal / 2]))
        network.bias.copy_(torch.tensor([1.0, -1.0]))
    x = torch.full((3, 6), 0.5, dtype=torch.float64)
    x[0, 3], x[1, 3], x[2, 3] = 0.7, 0.9, -0.55
    outputs = outputs_of(network, (6,), -1.0, 1.0)
    own, found, violation = flips(outputs, x, Constraints(mask=[0, 1, 2]))
    assert own.tolist() == [0, 0, 0] and found.found.tolist() == [False, False, True]
    # The movable ones reach their bounds (-1, 1, -1) and win 4; what is left is paid by 3 + 1 + 2 a unit.
    rest = x[:2, 3:] @ normal[3:] + 2.0 - 4.0
    truth = rest / 6
    assert bool((violation[:2] >= truth - 1e-9).all())
    assert violation[:2].tolist() == pytest.approx(truth.tolist(), rel=0.02)
    assert violation[2] == 0.0
    assert bool(((found.point[:2] @ normal) + 2.0 <= 1e-12).all())


def test_a_constant_class_has_no_flip_point_even_outside_the_rules():
    network = nn.Linear(4, 2).double()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([1.0, 0.0]))
    _, found, violation = flips(outputs_of(network, (4,)), uniform(2, 4), Constraints(fixed=[0]))
    assert not bool(found.found.any()) and bool(violation.isnan().all()) and bool(found.point.isnan().all())
    assert found.target.tolist() == [-1, -1]


def test_bounds_that_move_the_input_across_give_the_nearest_allowed_point():
    network = nn.Linear(2, 2).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        network.bias.copy_(torch.tensor([1.0, 0.0]))
    _, found, violation = flips(
        outputs_of(network, (2,)), torch.tensor([[0.1, 0.2]], dtype=torch.float64), Constraints(low=0.75)
    )
    assert found.point[0].tolist() == [0.75, 0.75]
    assert float(found.residual[0]) == pytest.approx(0.5) and float(violation[0]) == 0.0
