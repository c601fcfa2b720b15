"""Small random networks of every operation that certificates know, for property tests."""

import itertools
import math

import torch
from torch import nn

from theodolite.embedding import Scale
from theodolite.instruments.bounds.dense_layers import DenseLayers
from theodolite.network import Network
from theodolite.space import Box, Grid


class ErfNetwork(nn.Module):
    """Layers erf(linear / sigma) with a trainable sigma, after a scaling of the input kept in buffers."""

    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes[:-2], sizes[1:-1], strict=True)])
        self.out = nn.Linear(sizes[-2], sizes[-1])
        self.sigma = nn.Parameter(torch.rand(len(self.layers)) + 0.3)
        self.register_buffer("low", torch.tensor(-0.4))
        self.register_buffer("scale", torch.tensor(1.7))

    def forward(self, x):
        y = x * self.scale + self.low
        for k, layer in enumerate(self.layers):
            y = torch.erf(layer(y) / self.sigma[k])
        return self.out(y)


class Residual(nn.Module):
    """Convolutions with a shortcut, normalisation, PReLU, grouped convolution, and functional calls."""

    def __init__(self, channels=4):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.normal = nn.BatchNorm2d(channels)
        self.slope = nn.PReLU(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding="same", groups=2)
        self.out = nn.Linear(channels, 3)
        with torch.no_grad():
            self.normal.running_mean.normal_()
            self.normal.running_var.uniform_(0.5, 2)
            self.normal.weight.uniform_(-1, 2)
            self.slope.weight.uniform_(-0.5, 1.5)

    def forward(self, x):
        y = self.slope(self.normal(self.first(x)))
        y = torch.relu(y + 0.5 * self.second(y))
        return self.out(y.mean((2, 3)))


class Branches(nn.Module):
    """Concatenation, differences, slices, a matrix product and a transposition."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.matrix = nn.Parameter(torch.randn(6, 3))

    def forward(self, x):
        a, b = torch.tanh(self.a(x)), torch.sigmoid(self.b(x))
        y = torch.cat([a - b, (2 - b)[:, 1:3]], 1)
        y = y.reshape(x.shape[0], 2, 3).transpose(1, 2).flatten(1)
        return nn.functional.leaky_relu(y, 0.2) @ self.matrix / 2


def _dense(activation, sizes=(3, 8, 8, 3)):
    layers = []
    for before, after in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def _pooled():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 4, 2, stride=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 3),
    )  # fmt: skip


def _averaged():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 2, dilation=2), nn.LeakyReLU(0.3), nn.AvgPool2d(2, 1, 1),
        nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3),
    )  # fmt: skip


FACTORIES = {
    "linear": lambda: Network(nn.Linear(3, 3), Box((3,), 0.0, 1.0)),
    "relu": lambda: Network(_dense(nn.ReLU), Box((3,), 0.0, 1.0)),
    "deep relu": lambda: Network(_dense(nn.ReLU, (2, 6, 6, 6, 6, 4)), Box((2,), -1.0, 1.0)),
    "leaky": lambda: Network(_dense(lambda: nn.LeakyReLU(0.1)), Box((3,), 0.0, 1.0)),
    "prelu": lambda: Network(_dense(lambda: nn.PReLU(init=1.4)), Box((3,), 0.0, 1.0)),
    "tanh": lambda: Network(_dense(nn.Tanh), Box((3,), -2.0, 2.0)),
    "sigmoid": lambda: Network(_dense(nn.Sigmoid), Box((3,), -4.0, 4.0)),
    "erf": lambda: Network(ErfNetwork([3, 8, 8, 8, 3]), Box((3,), 0.0, 1.0)),
    "branches": lambda: Network(Branches(), Box((3,), -1.0, 1.0)),
    "residual": lambda: Network(
        Residual(), Grid((1, 3, 3), 256), Scale(1 / 255), preprocess=lambda x: (x - 0.1) / torch.tensor(0.3)
    ),
    "maximum": lambda: Network(_pooled(), Box((1, 5, 5), 0.0, 1.0)),
    "average": lambda: Network(_averaged(), Box((16,), 0.0, 1.0)),
    "one output": lambda: Network(_dense(nn.ReLU, (3, 8, 1)), Box((3,), 0.0, 1.0), classes=["no", "yes"]),
}


def small_network(name, seed=0, gain=2.0):
    """A random network, its weights times ``gain`` so that its classes differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FACTORIES[name]()
    with torch.no_grad():
        for parameter in network.module.parameters():
            if parameter.ndim > 1:
                parameter *= gain
    return network


def points_of(network, n, seed=0):
    """``(n, *shape)`` float64 points in the space's hull."""
    low, high = network.space.bounds()
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((n, *network.space.shape), generator=generator, dtype=torch.float64)


def random_layers(sizes, seed):
    """A ReLU network of these widths over the unit box as matrices, and an input."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    pairs = list(itertools.pairwise(sizes))
    weight = tuple(draw(after, before) * math.sqrt(2 / before) for before, after in pairs)
    bias = tuple(0.3 * draw(after) for _, after in pairs)
    n = sizes[0]
    layers = DenseLayers(weight, bias, torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
    x0 = torch.rand((1, n), generator=generator, dtype=torch.float64)
    return layers, x0
