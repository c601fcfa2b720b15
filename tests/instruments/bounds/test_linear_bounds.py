"""Linear bounds against dense samples, linear programs and closed forms: never wrong, and not needlessly loose."""

import pytest
import torch
from scipy.optimize import linprog, minimize

from tests.instruments.small_networks import FACTORIES, points_of, small_network
from theodolite.instruments.bounds.activation_lines import lines, values
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation
from theodolite.instruments.bounds.linear_bounds import Caps, LinearBound, LinearBounds, Surroundings

NORMS = {"L2": 2.0, "L1": 1.0, "Linf": torch.inf}
DUAL = {"L2": 2.0, "L1": torch.inf, "Linf": 1.0}


def around(network, point, norm):
    low, high = network.space.bounds()
    centre = point.reshape(-1)
    return Surroundings(centre, low - centre, high - centre, norm)


def changes(surroundings, radius, n, seed=0):
    """Points of ball and box, many of them on the edges of both."""
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn((n, len(surroundings.centre)), generator=generator, dtype=torch.float64)
    d = torch.where(torch.rand(d.shape, generator=generator) < 0.3, 0.0, d) + 1e-9
    length = torch.linalg.vector_norm(d, NORMS[surroundings.norm], dim=1, keepdim=True)
    share = torch.rand((n, 1), generator=generator, dtype=torch.float64).sqrt().clamp(max=0.95) / 0.95
    d = (d / length * share * radius * (1 - 1e-12)).clamp(surroundings.low, surroundings.high)
    return d


@pytest.mark.parametrize("kind", ["piecewise", "erf", "tanh", "sigmoid"])
def test_lines_enclose_the_activation(kind):
    generator = torch.Generator().manual_seed(0)
    n = 1000
    scale = 10 ** (6 * torch.rand(n, generator=generator, dtype=torch.float64) - 4)
    low = torch.randn(n, generator=generator, dtype=torch.float64) * scale
    high = low + torch.rand(n, generator=generator, dtype=torch.float64) ** 3 * scale.flip(0)
    slope = torch.rand(n, generator=generator, dtype=torch.float64) * 2.4 - 0.6
    slope[:300] = 0.0
    activation = Activation("a", kind, (0,), (n,), slope)
    found = lines(activation, low[None], high[None])
    share = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None] ** 2
    for x in (low + share * (high - low), high - share * (high - low), torch.zeros(1, n).double()):
        x = x.clamp(low, high)
        y = values(activation, x)
        assert (found.slope_low * x + found.intercept_low <= y).all()
        assert (found.slope_high * x + found.intercept_high >= y).all()
    if kind != "piecewise":
        # Above, the least line at the middle of the interval: the least concave function above f, from a dense hull.
        for k in range(0, n, 200):
            x = torch.linspace(float(low[k]), float(high[k]), 1001, dtype=torch.float64)
            y = activation.apply([x[:, None].expand(-1, n)])[:, k]
            middle = (x[0] + x[-1]) / 2
            left, right = x < middle, x > middle
            share = (middle - x[left])[:, None] / (x[right] - x[left][:, None]).clamp(min=1e-300)
            hull = (y[left][:, None] * (1 - share) + y[right] * share).max()
            at_middle = found.slope_high[0, k] * middle + found.intercept_high[0, k]
            assert at_middle <= hull + 1e-3 * float(y.max() - y.min()) + 1e-12


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FACTORIES)
def test_intervals_and_bounds_contain_every_sample(name, norm):
    network = small_network(name)
    graph = layer_graph(network)
    for seed, share in enumerate((0.02, 0.3)):
        point = points_of(network, 1, seed)[0]
        surroundings = around(network, point, norm)
        low, high = network.space.bounds()
        radius = share * (high - low)
        bounds = LinearBounds(graph, surroundings, radius)
        one = torch.tensor([radius], dtype=torch.float64)
        intervals = bounds.intervals(Caps(one))
        rows = torch.eye(graph.n_outputs, dtype=torch.float64) - torch.eye(graph.n_outputs, dtype=torch.float64).roll(
            1, 0
        )
        owner = torch.zeros(len(rows), dtype=torch.int64)
        bound = bounds.margins(rows, owner, intervals)
        least = bounds.lowest(bound, owner, Caps(one))
        d = changes(surroundings, radius, 3000)
        found = graph.values(surroundings.centre + d)
        margins = found[-1] @ rows.T
        assert (margins >= d @ bound.slope.T + bound.constant).all()
        assert (margins >= least).all()
        check_inside(graph, intervals, 0, found)

        # Half-spaces through the samples, so that their caps are not empty: what lies inside must stay inside.
        wide = intervals.select(owner)
        caps = Caps(one.expand(len(rows)), LinearBound(bound.slope, -(d @ bound.slope.T).quantile(0.1, 0)))
        tight = bounds.intervals(caps, wide)
        assert not tight.empty().any()
        for k in range(len(rows)):
            inside = d @ bound.slope[k] + caps.bound.constant[k] <= 0
            assert inside.sum() > 100
            check_inside(graph, tight, k, [v[inside] for v in found])


def check_inside(graph, intervals, margin, found):
    for k in graph.activations:
        argument = found[graph.node(k).inputs[0]].flatten(1)
        assert (argument >= intervals.low[k][margin]).all()
        assert (argument <= intervals.high[k][margin]).all()


def random_problem(seed, norm, n=6):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    low, high = -normal(n).abs() * 0.5, normal(n).abs() * 0.5
    slope, constant, normals = normal(5, n), normal(5), normal(5, n)
    radius = torch.rand(5, generator=generator, dtype=torch.float64) + 0.1
    # Through the ball: at a share of the least value that the normal reaches in it alone.
    depth = 0.6 * torch.rand(5, generator=generator, dtype=torch.float64)
    surroundings = Surroundings(torch.zeros(n, dtype=torch.float64), low, high, norm)
    bounds = LinearBounds(layer_graph(small_network("linear")), surroundings, 2.0)
    own = torch.arange(5)
    reach = bounds.lowest(LinearBound(normals, torch.zeros(5, dtype=torch.float64)), own, Caps(radius))
    caps = Caps(radius, LinearBound(normals, -depth * reach))
    return bounds, surroundings, LinearBound(slope, constant), own, caps


def exact_lowest(surroundings, bound, caps, k):
    """The primal problem of one row, by a linear program or by sequential quadratic programming."""
    g, a = bound.slope[k].numpy(), caps.bound.slope[k].numpy()
    radius, offset, n = float(caps.radius[k]), float(caps.bound.constant[k]), len(bound.slope[k])
    low, high = surroundings.low.numpy(), surroundings.high.numpy()
    if surroundings.norm == "L2":
        best = torch.inf
        for start in (0.0, -0.1):
            found = minimize(
                lambda d: d @ g,
                start * g,
                jac=lambda d: g,
                bounds=list(zip(low, high, strict=True)),
                constraints=[
                    {"type": "ineq", "fun": lambda d: radius**2 - d @ d, "jac": lambda d: -2 * d},
                    {"type": "ineq", "fun": lambda d: -offset - d @ a, "jac": lambda d: -a},
                ],
                options={"ftol": 1e-13, "maxiter": 500},
            )
            if found.success:
                best = min(best, found.fun)
        return best + float(bound.constant[k])
    if surroundings.norm == "Linf":
        limits = [(max(x, -radius), min(y, radius)) for x, y in zip(low, high, strict=True)]
        found = linprog(g, A_ub=a[None], b_ub=[-offset], bounds=limits)
    else:
        both = torch.cat([torch.tensor(g), -torch.tensor(g)]).numpy()
        above = torch.stack([torch.cat([torch.tensor(a), -torch.tensor(a)]), torch.ones(2 * n).double()]).numpy()
        limits = [(0, y) for y in high] + [(0, -x) for x in low]
        found = linprog(both, A_ub=above, b_ub=[-offset, radius], bounds=limits)
    return found.fun + float(bound.constant[k])


@pytest.mark.parametrize("norm", NORMS)
def test_the_least_value_over_a_cap_is_nearly_exact_and_never_above(norm):
    short = []
    for seed in range(25):
        bounds, surroundings, bound, own, caps = random_problem(seed, norm)
        found = bounds.lowest(bound, own, caps)
        for k in range(5):
            truth = exact_lowest(surroundings, bound, caps, k)
            spread = float(caps.radius[k] * bound.slope[k].norm())
            assert found[k] <= truth + 1e-9
            if truth < torch.inf:
                short.append((truth - float(found[k])) / spread)
    short = torch.tensor(short, dtype=torch.float64)
    assert len(short) > 100
    assert short.quantile(0.95) < 5e-3
    assert short.max() < 0.2


@pytest.mark.parametrize("norm", NORMS)
def test_without_box_the_least_value_is_the_dual_norm(norm):
    bounds, surroundings, bound, own, caps = random_problem(0, norm)
    free = LinearBounds(bounds.graph, Surroundings(surroundings.centre, -1e3 + 0 * surroundings.low,
                                                   1e3 + 0 * surroundings.high, norm), 2.0)  # fmt: skip
    truth = bound.constant - caps.radius * torch.linalg.vector_norm(bound.slope, DUAL[norm], dim=1)
    found = free.lowest(bound, own, Caps(caps.radius))
    assert torch.allclose(found, truth, rtol=1e-9)
    assert (found <= truth).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_row_alone_gives_the_same(norm):
    bounds, _, bound, own, caps = random_problem(3, norm)
    together = bounds.lowest(bound, own, caps)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(bounds.lowest(bound.select(order), own, caps.select(order)), together[order])


def test_what_is_not_finite_proves_nothing():
    bounds, _, bound, own, caps = random_problem(1, "L2")
    slope = bound.slope.clone()
    slope[2, 3] = torch.nan
    found = bounds.lowest(LinearBound(slope, bound.constant + 100), own, caps)
    assert not found[2] > 0
    assert (found[[0, 1, 3, 4]] > 0).all()
