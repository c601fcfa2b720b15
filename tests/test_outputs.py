"""All outputs at once: values, gradients and what they cost, against automatic differentiation of the bare module."""

import math

import pytest
import torch
from torch import nn

from theodolite.embedding import OneHot, Scale
from theodolite.errors import FieldError, MissingCapability, UserError
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.space import Box, Grid, Latent, Spins


def small(outputs=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, outputs))


def pixels(n=5, seed=1):
    return 255.0 * torch.rand(n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(outputs=3):
    return Network(small(outputs), Grid((1, 4, 4), 256), Scale(1 / 255, -0.5))


def truth(outputs, x):
    module = small(outputs).double()
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda p: module((p / 255 - 0.5)[None])[0], row) for row in x]
    )


def every(z, _index):
    return torch.eye(z.shape[1], dtype=z.dtype).expand(len(z), -1, -1)


def test_outputs_and_jacobian_rows_are_the_modules():
    found, x = network().all_outputs(torch.float64), pixels()
    output, rows = found.rows(x, every)
    torch.testing.assert_close(output, small().double()(x / 255 - 0.5).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows, truth(3, x), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.value(x), output, rtol=0, atol=0)


def test_a_weight_may_depend_on_the_outputs_and_on_the_row():
    found, x = network().all_outputs(torch.float64), pixels()
    own = torch.tensor([0, 1, 2, 1, 0])

    def weight(z, index):
        best = z.scatter(1, own[index, None], -torch.inf).argmax(1)
        return nn.functional.one_hot(own[index], 3).double() - nn.functional.one_hot(best, 3).double()

    output, gradient = found.gradient(x, weight)
    wanted = torch.einsum("bk,bkn->bn", weight(output, torch.arange(5)), truth(3, x))
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-15)


def test_splitting_the_batch_changes_nothing_and_every_pass_is_counted():
    whole, x = network().all_outputs(torch.float64), pixels(7)
    split = Outputs(whole._function, whole.shape, whole.low, whole.high, 3, dtype=torch.float64, batch_size=2)
    for one, other in zip(split.rows(x, every), whole.rows(x, every), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    split.gradient(x, lambda z, _index: torch.ones_like(z))
    split.value(x)
    assert split.n_units == 7 * (1 + 3) + 7 * 2 + 7


def test_one_output_is_two_classes_unless_a_number_is_wanted():
    x = pixels()
    two, one = network(1).all_outputs(torch.float64), network(1).all_outputs(torch.float64, classify=False)
    assert (two.n_outputs, one.n_outputs) == (2, 1)
    torch.testing.assert_close(two.value(x), torch.cat([torch.zeros(5, 1).double(), one.value(x)], 1))


def test_double_precision_leaves_the_network_as_it_was():
    made = network()
    single, double = made.all_outputs(), made.all_outputs(torch.float64)
    assert made.module[1].weight.dtype == torch.float32
    gap = (single.value(pixels().float()).double() - double.value(pixels())).abs().max()
    assert 0 < gap < 1e-5


@pytest.mark.parametrize(
    ("space", "bounds"),
    [(Grid((2, 2), 7), (0, 6)), (Spins(4), (-1, 1)), (Box((4,), -2, 3), (-2, 3)), (Latent(4), (-math.inf, math.inf))],
)
def test_the_hull_is_that_of_the_space(space, bounds):
    assert space.bounds() == bounds
    found = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), space).all_outputs()
    assert (found.low.unique().tolist(), found.high.unique().tolist()) == ([bounds[0]], [bounds[1]])
    assert found.n_coordinates == 4


def test_what_cannot_be_differentiated_or_read_is_refused():
    onehot = Network(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), Grid((4, 4), 3), OneHot())
    with pytest.raises(MissingCapability, match="Scale"):
        onehot.all_outputs()
    found = network().all_outputs()
    with pytest.raises(UserError, match="flatten"):
        found.value(torch.zeros(2, 1, 4, 4))
    with pytest.raises(FieldError, match="one vector a point"):
        Outputs(lambda x: x.sum(1), (16,), found.low, found.high, 3).value(torch.zeros(2, 16))


def test_an_output_that_ignores_its_input_has_a_zero_gradient():
    found = Outputs(lambda x: 0.0 * x[:, :1] + x.detach()[:, :2], (3,), torch.zeros(3), torch.ones(3), 2)
    assert not found.gradient(torch.rand(4, 3), lambda z, _index: torch.ones_like(z))[1].any()
