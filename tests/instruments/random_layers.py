"""Random small layers of every kind: all strides, paddings, dilations, groups and odd sizes, for operator norms."""

import math
import random

import torch
from torch import nn

from theodolite.instruments.bounds.layer_nodes import averaged, convolution, linear

N_LAYERS = 200


def random_layers(n=N_LAYERS, seed=0):
    """Nodes with their dense matrix ``(out, in)`` by columns, from the layer itself."""
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = []
    while len(found) < n:
        kind = drawn.choice(["convolution"] * 7 + ["linear"] * 2 + ["average"])
        make = {"convolution": _convolution, "linear": _linear, "average": _average}[kind]
        made = make(drawn, generator)
        if made is not None:
            found.append(made)
    return found


def _pair(drawn, low, high):
    return drawn.randint(low, high), drawn.randint(low, high)


def _convolution(drawn, generator):
    groups = drawn.choice([1, 1, 1, 2, 3])
    n_in, n_out = groups * drawn.randint(1, 4), groups * drawn.randint(1, 5)
    kernel, stride, dilation, padding = (_pair(drawn, low, high) for low, high in ((1, 5), (1, 3), (1, 2), (0, 3)))
    size = _pair(drawn, 3, 11)
    if any(size[a] + 2 * padding[a] <= dilation[a] * (kernel[a] - 1) for a in range(2)):
        return None
    weight = torch.randn((n_out, n_in // groups, *kernel), generator=generator, dtype=torch.float64)
    bias = torch.randn(n_out, generator=generator, dtype=torch.float64)
    node = convolution("", 0, (n_in, *size), weight, bias, stride, padding, dilation, groups)
    return node, _by_columns(
        lambda x: nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups), (n_in, *size)
    )


def _linear(drawn, generator):
    n_in, n_out = drawn.randint(1, 60), drawn.randint(1, 60)
    weight = torch.randn((n_out, n_in), generator=generator, dtype=torch.float64)
    return linear("", 0, (n_in,), weight, torch.ones(n_out)), weight


def _average(drawn, generator):
    kernel = drawn.randint(1, 4)
    size = _pair(drawn, kernel, 11)
    shape = (drawn.randint(1, 3), *size)
    pool = nn.AvgPool2d(kernel, drawn.randint(1, 3), drawn.randint(0, kernel // 2))
    return averaged("", 0, shape, pool), _by_columns(pool, shape)


def _by_columns(function, shape):
    identity = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return function(identity).flatten(1).T
