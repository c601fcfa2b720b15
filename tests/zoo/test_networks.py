"""The zoo's networks: shapes, independence of rows, tracing, the table look-up against one-hot planes."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch.nn import functional

from theodolite.zoo.networks import NoiseAugmentedResNet, PaperCNN, ResNet18, ToyCNN, initialised
from theodolite.zoo.training import outputs_of_levels, stem_of_levels

CASES = [(PaperCNN, 256, 28), (ToyCNN, 2, 5), (ResNet18, 256, 28), (NoiseAugmentedResNet, 256, 28)]


def planes(x: torch.Tensor, levels: int) -> torch.Tensor:
    return functional.one_hot(x[:, 0], levels).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(("factory", "levels", "size"), CASES)
def test_the_look_up_equals_the_planes_and_rows_are_independent(factory, levels, size):
    module = initialised(factory, 1).eval()
    x = torch.randint(0, levels, (3, 1, size, size), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        by_planes = module(planes(x, levels))
        by_table = outputs_of_levels(module, x)
        alone = module(planes(x[1:2], levels))
    assert by_planes.shape == (3, 1)
    torch.testing.assert_close(by_table, by_planes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[0], by_planes[1], rtol=1e-4, atol=1e-5)


def test_the_look_up_has_the_gradient_of_the_convolution():
    stem = initialised(PaperCNN, 3)[0]
    x = torch.randint(0, 256, (2, 1, 7, 6), generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(1))
    (through_table,) = torch.autograd.grad((stem_of_levels(stem, x) * weight).sum(), stem.weight)
    (through_planes,) = torch.autograd.grad((stem(planes(x, 256)) * weight).sum(), stem.weight)
    torch.testing.assert_close(through_table, through_planes)


@pytest.mark.parametrize(("factory", "levels", "size"), CASES)
def test_networks_can_be_traced(factory, levels, size):
    module = initialised(factory, 0).eval()
    traced = fx.symbolic_trace(module)
    x = torch.rand(2, levels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(traced(x), module(x))


def test_parameters_of_the_paper_cnn_and_resnet_18():
    # Counted by hand: 3x3 convolutions 256 -> 3 -> 32 -> 128 and a linear layer, each with a bias.
    expected = (256 * 9 + 1) * 3 + (3 * 9 + 1) * 32 + (32 * 9 + 1) * 128 + 128 + 1
    assert sum(p.numel() for p in PaperCNN().parameters()) == expected
    # 11,173,962 in the ResNet-18 for small images and ten classes; its first layer reads 3 channels.
    network = ResNet18(outputs=10)
    stem = sum(p.numel() for p in network[0].parameters())
    assert sum(p.numel() for p in network.parameters()) - stem == 11_173_962


def test_initialised_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = initialised(ToyCNN, 5), initialised(ToyCNN, 5)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
