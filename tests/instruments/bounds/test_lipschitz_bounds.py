"""Lipschitz bounds against operator norms of whole matrices, measured slopes, and exact distances to the boundary."""

import itertools
import math

import pytest
import torch
from torch import nn

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.bounds.dense_layers import dense_layers
from theodolite.instruments.bounds.exact_boundary import exact_flips
from theodolite.instruments.bounds.layer_graph import UnsupportedLayer
from theodolite.instruments.bounds.layer_nodes import averaged, convolution
from theodolite.instruments.bounds.lipschitz_bounds import lipschitz_bounds, lipschitz_distance
from theodolite.instruments.bounds.operator_norms import affine_norm, matrix_of, spectral_norm, torus_norm
from theodolite.instruments.bounds.torus_norms import circular_singular_values, torus

POWER = {"L2": 2.0, "L1": 1.0, "Linf": math.inf}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = torch.tanh(self.first(x))
        return self.last(y + torch.sigmoid(self.second(y)))


class Erf(nn.Module):
    def __init__(self, widths=(5, 7, 6, 4), sigma=0.6):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(widths)])
        self.sigma = sigma

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.erf(layer(x) / self.sigma)
        return self.layers[-1](x)


def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(3, stride=1),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.PReLU(4, init=1.3),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def network(name, seed=0):
    torch.manual_seed(seed)
    if name == "relu":
        module, shape = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), (5,)
    elif name == "pools":
        module, shape = pooled(), (1, 8, 8)
        module[1].running_var.uniform_(0.5, 2.0)
        module[1].running_mean.normal_()
    elif name == "one output":
        return th.Network(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)), th.Box((4,), 0, 1), classes="ab")
    else:
        module, shape = (Erf() if name == "erf" else Residual()), (5,)
    return th.Network(module, th.Box(shape, 0.0, 2.0), embedding=th.Scale(1.5, -0.2))


NAMES = ("relu", "erf", "residual", "pools", "one output")

CONVOLUTIONS = [
    # in, out, size, kernel, stride, padding, dilation, groups
    (3, 8, (9, 7), (3, 3), 1, 1, 1, 1),
    (2, 4, (8, 8), (4, 4), 2, 1, 1, 1),
    (4, 6, (10, 7), (3, 2), 2, 0, 1, 2),
    (4, 4, (9, 9), (3, 3), 1, 2, 2, 4),
    (3, 5, (6, 6), (5, 5), 3, 2, 1, 1),
    (2, 3, (5, 5), (5, 5), 1, 4, 1, 1),
    (2, 3, (5, 5), (1, 1), 2, 0, 1, 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_norms_of_convolutions_hold_the_whole_matrix(case):
    n_in, n_out, size, kernel, stride, padding, dilation, groups = case
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((n_out, n_in // groups, *kernel), generator=generator)
    bias = torch.randn(n_out, generator=generator)
    two = (stride,) * 2, (padding,) * 2, (dilation,) * 2
    node = convolution("", 0, (n_in, *size), weight, bias, *two, groups)
    # By columns, from the map itself rather than from its transpose.
    identity = torch.eye(n_in * math.prod(size), dtype=torch.float64).reshape(-1, n_in, *size)
    matrix = nn.functional.conv2d(identity, weight.double(), None, *two, groups).flatten(1).T
    torch.testing.assert_close(matrix_of(node), matrix)
    truth = float(torch.linalg.svdvals(matrix)[0])
    assert truth <= affine_norm(node, "L2") <= truth * (1 + 1e-9)
    assert truth * (1 - 1e-12) <= torus_norm(weight, size, *two, groups=groups) <= 1.5 * truth
    for norm, axis in (("L1", 0), ("Linf", 1)):
        truth = float(matrix.abs().sum(axis).max())
        assert truth <= affine_norm(node, norm) <= truth * (1 + 1e-9)


def test_the_torus_is_exact_where_convolutions_are_circular():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn((3, 2, 3, 3), generator=generator, dtype=torch.float64)
    for stride in (1, 2):
        identity = torch.eye(2 * 64, dtype=torch.float64).reshape(-1, 2, 8, 8)
        padded = nn.functional.pad(identity, (0, 2, 0, 2), mode="circular")
        matrix = nn.functional.conv2d(padded, weight, stride=stride).flatten(1)
        shape = torus(weight, (8, 8), (stride, stride), (1, 1), (1, 1), 1, circular=True)
        highest, lowest = circular_singular_values(shape)
        truth = torch.linalg.svdvals(matrix)
        assert highest == pytest.approx(float(truth[0]), rel=1e-10)
        assert lowest == pytest.approx(float(truth[-1]), rel=1e-10)


def test_norms_of_matrices_and_pools():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn((6, 9), generator=generator, dtype=torch.float64)
    left, _ = torch.linalg.qr(torch.randn((6, 6), generator=generator, dtype=torch.float64))
    assert 1 <= spectral_norm(left) <= 1 + 1e-12
    assert spectral_norm(3 * matrix) == pytest.approx(3 * float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-12)
    assert math.isinf(spectral_norm(matrix / 0))
    pool = averaged("", 0, (2, 6, 6), nn.AvgPool2d(3, stride=2, padding=1))
    truth = float(torch.linalg.matrix_norm(matrix_of(pool), 2))
    assert truth <= affine_norm(pool, "L2") <= truth * (1 + 1e-9)
    for norm in ("L2", "L1", "Linf"):
        assert math.isinf(affine_norm(convolution("", 0, (1, 4, 4), torch.full((1, 1, 3, 3), torch.nan), None,
                                                  (1, 1), (0, 0), (1, 1), 1), norm))  # fmt: skip


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
@pytest.mark.parametrize("name", NAMES)
def test_no_pair_of_inputs_is_steeper(name, norm):
    surveyed = network(name)
    bound = lipschitz_bounds(surveyed, norm)
    assert len(bound.layer) == len(bound.bound) and (bound.bound > 0).all()
    outputs = surveyed.all_outputs(torch.float64)
    generator = torch.Generator().manual_seed(3)
    n = outputs.n_coordinates
    x = 2 * torch.rand((4000, n), generator=generator, dtype=torch.float64)
    steepest = 0.0
    for size in (1.0, 1e-3):
        y = x + size * torch.randn((4000, n), generator=generator, dtype=torch.float64)
        change = torch.linalg.vector_norm(outputs.value(y) - outputs.value(x), POWER[norm], dim=1)
        steepest = max(steepest, float((change / torch.linalg.vector_norm(y - x, POWER[norm], dim=1)).max()))
    # The steepest direction of the Jacobian itself, at many points.
    eye = torch.eye(outputs.n_outputs, dtype=torch.float64)
    _, jacobian = outputs.rows(x[:1000], lambda z, index: eye.expand(len(z), -1, -1))
    order = {"L2": 2, "L1": 1, "Linf": math.inf}[norm]
    steepest = max(steepest, float(torch.linalg.matrix_norm(jacobian, order).max()))
    assert steepest <= bound.network
    assert bound.network <= 100 * steepest


def test_one_layer_is_its_norm_and_units_are_those_of_the_input():
    torch.manual_seed(4)
    layer = nn.Linear(6, 4)
    surveyed = th.Network(layer, th.Grid((6,), 256), embedding=th.Scale(1 / 255))
    weight = layer.weight.detach().double() / 255
    for norm, order in (("L2", 2), ("L1", 1), ("Linf", math.inf)):
        truth = float(torch.linalg.matrix_norm(weight, order))
        assert lipschitz_bounds(surveyed, norm).network == pytest.approx(truth, rel=1e-9)
    x = th.Grid((6,), 256).draw(5, torch.Generator().manual_seed(0))
    z = layer(x / 255).double()
    own = z.argmax(1)
    found = lipschitz_distance(surveyed, x, own)
    truth = (z.gather(1, own[:, None]) - z) / (weight[own][:, None] - weight).norm(dim=2)
    keep = torch.ones_like(z, dtype=torch.bool).scatter(1, own[:, None], False)
    # Float32 arithmetic in the truth.
    torch.testing.assert_close(found.distance[keep], truth.detach()[keep], rtol=1e-4, atol=1e-4)
    assert torch.isinf(found.distance[~keep]).all()


def test_erf_networks_have_the_bound_of_equation_15():
    torch.manual_seed(5)
    module = Erf()
    found = lipschitz_bounds(th.Network(module, th.Box((5,), 0, 1)), "Linf")
    m = len(module.layers)
    truth = 2 ** (m - 1) / (math.pi ** ((m - 1) / 2) * module.sigma ** (m - 1))
    for layer in module.layers:
        truth *= float(layer.weight.detach().double().abs().sum(1).max())
    assert found.network == pytest.approx(truth, rel=1e-9)
    assert math.prod(found.bound.tolist()) == pytest.approx(truth, rel=1e-9)


def test_a_maximum_pool_stretches_no_more_than_its_windows_overlap():
    space = th.Box((1, 6, 6), 0, 1)
    for kernel, stride, repeats in ((2, 2, 1), (3, 1, 9), (3, 2, 4)):
        module = nn.Sequential(nn.MaxPool2d(kernel, stride), nn.Flatten())
        for norm, factor in (("L2", math.sqrt(repeats)), ("L1", repeats), ("Linf", 1)):
            assert lipschitz_bounds(th.Network(module, space), norm).network == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
def test_nothing_flips_nearer_than_proven(name, norm, local):
    surveyed = network(name, 1)
    outputs = surveyed.all_outputs(torch.float64)
    generator = torch.Generator().manual_seed(6)
    n = outputs.n_coordinates
    x = 2 * torch.rand((6, n), generator=generator, dtype=torch.float64)
    own = outputs.value(x).argmax(1)
    found = lipschitz_distance(surveyed, x, own, norm=norm, local=local)
    assert found.distance.shape == (6, outputs.n_outputs) and (found.distance >= 0).all()
    assert (found.distance.amin(1) > 0).all()
    if local:
        everywhere = lipschitz_distance(surveyed, x, own, norm=norm, local=False)
        assert (found.distance >= everywhere.distance * (1 - 1e-12)).all()
    for image in range(6):
        for k in range(outputs.n_outputs):
            radius = float(found.distance[image, k])
            if math.isinf(radius):
                continue
            direction = torch.randn((400, n), generator=generator, dtype=torch.float64)
            weight = torch.zeros(outputs.n_outputs, dtype=torch.float64)
            weight[own[image]], weight[k] = 1.0, -1.0
            _, slope = outputs.gradient(x[image][None], lambda z, index, w=weight: w.expand(len(z), -1))
            steepest = {"L2": slope, "Linf": slope.sign(), "L1": slope * (slope.abs() == slope.abs().amax())}[norm]
            direction = torch.cat([direction, -steepest])
            direction /= torch.linalg.vector_norm(direction, POWER[norm], dim=1, keepdim=True)
            output = outputs.value(x[image] + radius * (1 - 1e-9) * direction)
            assert (output[:, own[image]] > output[:, k]).all()


def test_never_above_the_exact_distance():
    n_compared = 0
    for seed in range(8):
        surveyed = network("relu", 10 + seed)
        x = 2 * torch.rand((1, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        layers = dense_layers(surveyed)
        own = layers.value(x).argmax(1)
        exact = exact_flips(layers, x, own)
        found = lipschitz_distance(surveyed, x, own).distance.amin(1)
        assert float(found) <= float(exact.distance)
        n_compared += math.isfinite(exact.distance)
    assert n_compared >= 3


def test_rows_and_bad_input():
    surveyed = network("erf")
    x = 2 * torch.rand((4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = surveyed.all_outputs(torch.float64).value(x).argmax(1)
    whole = lipschitz_distance(surveyed, x, own).distance
    for row in range(4):
        alone = lipschitz_distance(surveyed, x[row : row + 1], own[row : row + 1]).distance[0]
        torch.testing.assert_close(alone, whole[row], rtol=1e-12, atol=0)
    bad = x.clone()
    bad[1] = torch.nan
    other = (own + 1) % 4
    harmed = lipschitz_distance(surveyed, bad, torch.cat([own[:3], other[3:]])).distance
    torch.testing.assert_close(harmed[[0, 2]], whole[[0, 2]], rtol=1e-12, atol=0)
    assert harmed[1].scatter(0, own[1], 0.0).eq(0).all()
    assert harmed[3].amin() == 0
    module = Erf()
    nn.init.constant_(module.layers[0].bias, math.nan)
    broken = th.Network(module, th.Box((5,), 0, 1))
    assert lipschitz_distance(broken, x, own).distance.amin(1).eq(0).all()
    with pytest.raises(UserError, match="norm"):
        lipschitz_bounds(surveyed, "L3")
    with pytest.raises(UserError, match="own"):
        lipschitz_distance(surveyed, x, own + 9)
    with pytest.raises(UnsupportedLayer):
        lipschitz_bounds(th.Network(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), th.Box((2,), 0, 1)))
