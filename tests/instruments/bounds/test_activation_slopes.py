"""Slopes of smooth activations against slopes measured on dense grids, against autograd, and by interval arithmetic."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import theodolite as th
from theodolite.instruments.bounds.activation_slopes import curve_of, curve_of_function
from theodolite.instruments.bounds.certificates import distance_lower_bounds
from theodolite.instruments.bounds.layer_graph import UnsupportedLayer, layer_graph
from theodolite.instruments.bounds.lipschitz_bounds import lipschitz_bounds, lipschitz_distance, local_bounds

# The greatest slope to some digits, where one can be written down or computed from the turning point.
LAYERS = [
    (nn.GELU(), 0.5 + math.erf(1) / 2 + math.exp(-1) / math.sqrt(math.pi)),
    (nn.GELU("tanh"), 1.1289),
    (nn.SiLU(), 1.09984),
    (nn.Mish(), 1.0890),
    (nn.Softplus(), 1.0),
    (nn.Softplus(3.0, 30.0), 1.0),
    (nn.LogSigmoid(), 1.0),
    (nn.ELU(), 1.0),
    (nn.ELU(2.5), 2.5),
    (nn.CELU(0.25), 1.0),
    (nn.SELU(), 1.0507009873554805 * 1.6732632423543772),
    (nn.Hardtanh(-0.5, 2.0), 1.0),
    (nn.ReLU6(), 1.0),
    (nn.Hardsigmoid(), 1 / 6),
    (nn.Hardswish(), 1.5),
    (nn.Softsign(), 1.0),
    (nn.Tanhshrink(), 1.0),
    (nn.Softshrink(0.4), 1.0),
]
NAMES = [f"{type(layer).__name__}{position}" for position, (layer, _) in enumerate(LAYERS)]


def curve(layer):
    found = curve_of(layer)
    assert found is not None
    return found


@pytest.mark.parametrize(("layer", "greatest"), LAYERS, ids=NAMES)
def test_greatest_slopes_hold_every_slope_of_a_dense_grid_and_are_reached(layer, greatest):
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    y = layer(x)
    apart = (x[1:] - x[:-1], y[1:] - y[:-1])
    # Rounding of the values, and what softplus leaves out, over the step of the grid.
    steepest = float((apart[1].abs() - 1e-14 - curve(layer).jump).max() / 1e-4)
    assert steepest <= curve(layer).greatest
    assert curve(layer).greatest == pytest.approx(greatest, abs=2e-3 if isinstance(layer, nn.Mish) else 1e-4)
    assert steepest >= 0.998 * curve(layer).greatest


@pytest.mark.parametrize("layer", [layer for layer, _ in LAYERS], ids=NAMES)
def test_slopes_over_intervals_hold_the_derivative_everywhere_inside(layer):
    generator = torch.Generator().manual_seed(0)
    middle = 6 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    width = 10 ** (torch.rand(20_000, generator=generator, dtype=torch.float64) * 5 - 4)
    low, high = middle - width, middle + width
    bound = curve(layer).within(low, high)
    assert bool((bound <= curve(layer).greatest).all())
    for place in torch.linspace(0, 1, 23, dtype=torch.float64):
        x = (low + place * (high - low)).requires_grad_(True)
        (slope,) = torch.autograd.grad(layer(x).sum(), x)
        assert bool((slope.abs() <= bound + 1e-15).all())
    # A narrow interval knows its slope.
    x = middle.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(layer(x).sum(), x)
    narrow = curve(layer).within(middle - 1e-7, middle + 1e-7)
    assert float((narrow - slope.abs()).median()) <= 1e-6


def test_unbounded_and_far_intervals_have_slopes():
    infinite = torch.tensor([math.inf], dtype=torch.float64)
    for layer, _ in LAYERS:
        here = curve(layer)
        assert float(here.within(-infinite, infinite)) == here.greatest
        for end in (-1e5, -700.0, 700.0, 1e5):
            far = torch.tensor([end], dtype=torch.float64)
            x = far.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(layer(x).sum(), x)
            assert float(slope.abs()) <= float(here.within(far, far)) <= here.greatest


def test_the_greatest_slope_of_mish_by_intervals():
    """T + x T' over intervals, from numpy's own functions: independent of the code."""
    edge = torch.linspace(0, 40, 800_001, dtype=torch.float64)
    low, high = edge[:-1].numpy(), edge[1:].numpy()

    def share(x):
        return np.tanh(np.log1p(np.exp(x)))

    # T' = (1 - T^2) s(x): the first factor falls, the second rises.
    steepest = (1 - share(low) ** 2) / (1 + np.exp(-high))
    above = share(high) + high * steepest
    assert above.max() < 1.09 * (1 - 1e-6)
    # Beyond, T <= 1 and 1 - T^2 <= 8 e^-2x; below 0, T <= 3/5 and |x| T' <= |x| e^x <= 1 / e.
    assert 1 + 40 * 8 * math.exp(-80) < 1.09 and max(0.6, math.exp(-1)) < 1.09


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (F.gelu, nn.GELU()),
        (lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
        (F.silu, nn.SiLU()),
        (F.mish, nn.Mish()),
        (lambda x: F.softplus(x, 2.0), nn.Softplus(2.0)),
        (F.logsigmoid, nn.LogSigmoid()),
        (lambda x: F.elu(x, alpha=1.5), nn.ELU(1.5)),
        (F.selu, nn.SELU()),
        (lambda x: F.celu(x, 0.7), nn.CELU(0.7)),
        (F.hardtanh, nn.Hardtanh()),
        (lambda x: F.relu6(x), nn.ReLU6()),
        (F.hardsigmoid, nn.Hardsigmoid()),
        (F.hardswish, nn.Hardswish()),
        (F.softsign, nn.Softsign()),
        (lambda x: x.clamp(-0.5, 0.5), nn.Hardtanh(-0.5, 0.5)),
        (lambda x: torch.clamp(x, max=0.5), nn.Hardtanh(-1e9, 0.5)),
    ],
)
def test_functions_are_bounded_as_their_modules(function, layer):
    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.last(function(self.first(x)))

    torch.manual_seed(0)
    called = Called()
    same = nn.Sequential(called.first, layer, called.last)
    pair = [lipschitz_bounds(th.Network(module, th.Box((3,), -2, 2))).network for module in (called, same)]
    assert pair[0] == pair[1] and math.isfinite(pair[0])


def test_what_nothing_is_known_of_is_refused():
    assert curve_of(nn.Softplus(1.0, 2.0)) is None  # it jumps by 0.13
    assert curve_of(nn.CELU(-1.0)) is None
    assert curve_of(nn.Hardshrink()) is None
    assert curve_of_function("clamp", (torch.zeros(3),), {}) is None
    assert curve_of_function("clamp", (2.0, 1.0), {}) is None
    assert curve_of_function("softmax", (1,), {}) is None
    with pytest.raises(UnsupportedLayer):
        layer_graph(th.Network(nn.Sequential(nn.Linear(2, 2), nn.GELU()), th.Box((2,), 0, 1)))


def bent(layer, seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 9), layer, nn.Linear(9, 7), layer, nn.Linear(7, 3))
    for part in module[::2]:
        nn.init.normal_(part.weight, std=0.8)  # type: ignore[arg-type]
    return th.Network(module, th.Box((4,), -1.0, 1.0))


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
@pytest.mark.parametrize("layer", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.ELU(2.0), nn.Hardswish()])
def test_bounds_of_networks_hold_the_slopes_between_points(layer, norm):
    network, power = bent(layer), {"L2": 2.0, "L1": 1.0, "Linf": math.inf}[norm]
    generator = torch.Generator().manual_seed(1)
    module = network.module.double()
    centre = network.space.draw(12, generator).double()
    for radius, bound in [(math.inf, None), (0.2, None), (0.01, None)]:
        whole = torch.full((12,), lipschitz_bounds(network, norm).network, dtype=torch.float64)
        bound = whole if math.isinf(radius) else local_bounds(network, centre, radius, norm)
        assert bool((bound <= whole * (1 + 1e-9)).all())
        move = torch.randn((2, 300, 12, 4), generator=generator, dtype=torch.float64)
        move = move / torch.linalg.vector_norm(move, power, dim=-1, keepdim=True) * min(radius, 1.0)
        a, b = (centre + part for part in move)
        ends = (module(b) - module(a), b - a)
        up, down = (torch.linalg.vector_norm(end, power, dim=-1) for end in ends)
        assert bool((up <= bound * down * (1 + 1e-9)).all())


@pytest.mark.parametrize("layer", [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Softplus(), nn.SELU()])
def test_certificates_fall_back_to_slopes_and_never_exceed_a_flip(layer):
    network = bent(layer, seed=3)
    x = network.space.draw(20, torch.Generator().manual_seed(2)).double()
    module = network.module.double()
    own = module(x).argmax(1)
    nothing = torch.full((20,), math.inf, dtype=torch.float64)
    for method in ("auto", "crown", "cap", "lipschitz"):
        found = distance_lower_bounds(network, x, own, nothing, method=method)
        assert bool((found.distance > 0).all())
        assert all(words.startswith("lipschitz") for words in found.method)
        assert all((type(layer).__name__ in words) == (method != "lipschitz") for words in found.method)
    generator = torch.Generator().manual_seed(4)
    direction = torch.randn((4000, 20, 4), generator=generator, dtype=torch.float64)
    direction = direction / torch.linalg.vector_norm(direction, dim=2, keepdim=True)
    # Inside what is proven no point flips, right up to it.
    assert bool((module(x + direction * found.distance[:, None]).argmax(2) == own).all())
    free = lipschitz_distance(network, x, own, local=False)
    assert bool((free.distance.amin(1) <= found.distance * (1 + 1e-9)).all())


def test_found_flips_lie_beyond_the_proven_distance():
    network = bent(nn.GELU(), seed=3)
    x = network.space.draw(6, torch.Generator().manual_seed(2))
    survey = th.Boundary(certificate="auto").measure(network, x)
    bound, found = survey["distance_lower_bound"].values, survey["distance"].values
    assert (bound > 0).all() and (bound <= found).all()
