"""Weights below the normal range: where they go, what they leave as it was, and what is kept."""

import torch
from torch import nn

from theodolite.network import Network
from theodolite.space import Box
from theodolite.subnormals import without_subnormals


def decayed(seed=0):
    """A network whose first weights have decayed at two inputs."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        module[0].weight[:, 1] *= 1e-40
        module[0].weight[:, 4] *= 1e-33
    return module


def test_faint_weights_are_zero_in_a_copy_that_says_the_same():
    module = decayed()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = without_subnormals(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    faint = torch.tensor([1, 4])
    assert bool((found[0].weight[:, faint] == 0).all()) and bool((module[0].weight[:, faint] != 0).all())
    others = torch.tensor([0, 2, 3, 5])
    assert torch.equal(found[0].weight[:, others], module[0].weight[:, others])
    assert all(torch.equal(a, b) for a, b in zip(found[2].parameters(), module[2].parameters(), strict=True))
    x = torch.randn((50, 6), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found(x), module(x))


def test_a_module_without_any_and_a_tensor_of_nothing_else_are_kept():
    clean = nn.Linear(4, 2)
    assert without_subnormals(clean) is clean
    faint = nn.Linear(4, 2)
    with torch.no_grad():
        faint.weight.fill_(1e-39)
    assert without_subnormals(faint) is faint
    assert without_subnormals(nn.ReLU()).__class__ is nn.ReLU


def test_shared_weights_stay_shared():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    with torch.no_grad():
        first.weight[0, 0] = 1e-39
    found = without_subnormals(nn.Sequential(first, second))
    assert found[0].weight is found[1].weight
    assert float(found[1].weight[0, 0].detach()) == 0.0


def test_gradients_of_all_outputs_have_no_numbers_below_the_normal_range():
    network = Network(decayed(), Box((6,), 0.0, 1.0))
    x = torch.rand((20, 6), generator=torch.Generator().manual_seed(2))
    pick = lambda output, index: torch.eye(3)[torch.zeros_like(index)]  # noqa: E731
    output, gradient = network.all_outputs().gradient(x, pick)
    assert torch.equal(output, network.outputs(x)) and torch.equal(output, network.module(x))
    assert bool((network.module[0].weight[:, [1, 4]] != 0).all())
    assert bool((gradient[:, [1, 4]] == 0).all()) and bool((gradient[:, [0, 2, 3, 5]] != 0).all())
    # In double precision the same weights are in the normal range, and judged as they are.
    _, exact = network.all_outputs(torch.float64).gradient(
        x.double(), lambda output, index: pick(output, index).double()
    )
    assert bool((exact[:, [1, 4]] != 0).all())
