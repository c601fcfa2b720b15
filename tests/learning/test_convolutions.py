"""Convolutional energies against the networks they stand for, and the non-local layer against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning import network_kernels, stack
from theodolite.learning.convolutions import ConvEnergy, NonLocal, by_name
from theodolite.learning.energy import build, by_autograd


def images(n: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def parameters(energy: nn.Module) -> int:
    return sum(parameter.numel() for parameter in energy.parameters())


def test_the_papers_networks_have_their_shapes() -> None:
    digits = by_name("conv", (1, 16, 16), None, "relu")
    assert parameters(digits) == (25 * 50 + 50) + (50 * 64 * 100 + 100) + 101
    textures = by_name("conv", (3, 32, 32), None, "relu")
    assert parameters(textures) == (75 * 100 + 100) + (2500 * 200 + 200) + (200 * 64 + 1)
    thesis = by_name("deepframe", (3, 32, 32), None, "leaky_relu")  # sides 32, 17, 9, 5
    wanted = (27 * 32 + 32) + (16 * 32 * 64 + 64) + (16 * 64 * 128 + 128) + (16 * 128 * 256 + 256) + (256 * 25 + 1)
    assert parameters(thesis) == wanted
    nonlocal_ = by_name("nonlocal", (3, 32, 32), None, "leaky_relu")
    assert parameters(nonlocal_) == wanted + (64 * 96 + 96) + (32 * 64 + 64)
    narrow = by_name("nonlocal", (1, 16, 16), (3, 4, 5, 6), "relu").description
    assert narrow == ((3, 3, 1), (4, 4, 2), ("nonlocal",), (5, 4, 2), (6, 4, 2))
    assert by_name("conv", (1, 16, 16), (7, 9), "relu").description == ((7, 5, 2), (9, "fully"))


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_it_is_the_network_written_out(activation: str) -> None:
    torch.manual_seed(0)
    energy = ConvEnergy((2, 9, 11), [(4, 3, 1), (6, 4, 2), (5, "fully")], activation)
    between = {"relu": nn.ReLU, "silu": nn.SiLU}[activation]
    first, second, third, last = energy.layers
    sequence = nn.Sequential(
        first, between(), second, between(), nn.Flatten(), third, between(), last
    )  # fmt: skip
    assert isinstance(second, nn.Conv2d) and second.padding == (2, 2) and second.stride == (2, 2)
    x = images(5, (2, 9, 11))
    assert torch.equal(energy(x), sequence(x)[:, 0])


CASES = [
    ((1, 16, 16), ((50, 5, 2), (100, "fully")), "relu"),
    ((3, 12, 12), ((33, 5, 2), (40, 5, 2)), "silu"),
    ((2, 9, 11), ((4, 3, 1), (6, 4, 2), (5, "fully"), (4, "fully")), "tanh"),
    ((1, 7, 8), ((3, 4, 3), (2, 1, 1)), "softplus"),
    ((40, 5, 5), ((3, 3, 2), (40, 3, 1), (35, 2, 1)), "leaky_relu"),
    ((1, 4, 6), ((5, "fully"),), "silu"),
    ((1, 4, 6), (), "silu"),
    ((2, 8, 8), ((6, 3, 1), ("nonlocal",), (5, 4, 2), ("nonlocal",)), "leaky_relu"),
]


@pytest.mark.parametrize(("shape", "layers", "activation"), CASES)
@pytest.mark.parametrize("at_once", [1, 3000, 1 << 20])
def test_fast_slopes_are_those_of_double_precision(
    shape: tuple[int, ...], layers: tuple, activation: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_PATCH_NUMBERS", at_once)  # parts of the batch of 1, some and all images
    torch.manual_seed(3)
    energy = ConvEnergy(shape, layers, activation)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    x = images(7, shape)
    truth = by_autograd(energy.double(), x.double())
    energy.float()
    evaluate = energy.evaluator(len(x), torch.float32)
    for found in (energy.value_and_gradient(x), evaluate(2 * x) and evaluate(x)):
        for one, other in zip(found, truth, strict=True):
            assert one.shape == other.shape
            assert float((one.double() - other).abs().max()) < 1e-5 * max(1.0, float(other.abs().max()))
    few = energy.evaluator(2, torch.float32)(x[4:6].clone())
    assert torch.allclose(few[1].double(), truth[1][4:6], atol=1e-5)


@pytest.mark.parametrize(("stride", "side", "padding"), [(1, 3, 1), (2, 5, 2), (3, 4, 2), (2, 2, 0)])
def test_scattering_is_the_transpose_of_gathering(stride: int, side: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(4)
    n, rows, columns, channels = 2, 7, 9, 3
    padded = torch.randn(n, rows + 2 * padding, columns + 2 * padding, channels, generator=generator)
    high, wide = ((size + 2 * padding - side) // stride + 1 for size in (rows, columns))
    patches = torch.empty(n * high * wide, side * side * channels)
    places = network_kernels.patch_places((rows + 2 * padding, columns + 2 * padding, channels), side, stride)
    network_kernels.gather_patches(padded.numpy(), places, patches.numpy())
    unfolded = nn.functional.unfold(padded.permute(0, 3, 1, 2), side, stride=stride)
    unfolded = unfolded.reshape(n, channels, side * side, -1).permute(0, 3, 2, 1).reshape(patches.shape)
    assert torch.equal(patches, unfolded)
    other, back = torch.randn(patches.shape, generator=generator), torch.empty_like(padded)
    network_kernels.scatter_patches(other.numpy(), places, back.numpy())
    first, second = (patches.double() * other).sum(), (padded.double() * back).sum()
    assert float(first) == pytest.approx(float(second), rel=1e-5)


def test_a_nonlocal_layer_begins_as_the_identity_and_follows_its_formula() -> None:
    torch.manual_seed(5)
    layer, x = NonLocal(6), images(3, (6, 4, 5))
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.back.weight.normal_()
        layer.back.bias.normal_()  # type: ignore[union-attr]
        found = layer(x)
        weight, bias, last = layer.embed.weight[:, :, 0, 0], layer.embed.bias, layer.back.bias
        assert bias is not None and last is not None
        for row in range(3):
            places = x[row].flatten(1).T  # (place, channel)
            embedded = places @ weight.T + bias
            theta, phi, g = embedded[:, :3], embedded[:, 3:6], embedded[:, 6:]
            for i in range(20):
                kernel = torch.stack([torch.exp(theta[i] @ phi[j]) for j in range(20)])
                y = sum(kernel[j] * g[j] for j in range(20)) / kernel.sum()
                wanted = places[i] + layer.back.weight[:, :, 0, 0] @ y + last
                assert torch.allclose(found[row].flatten(1)[:, i], wanted, atol=1e-5)


def test_a_nonlocal_layer_does_not_know_places() -> None:
    torch.manual_seed(6)
    layer, x = NonLocal(4), images(2, (4, 3, 3))
    with torch.no_grad():
        layer.back.weight.normal_()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(7))
    mixed = x.flatten(2)[:, :, order].reshape(x.shape)
    assert torch.allclose(layer(mixed).flatten(2), layer(x).flatten(2)[:, :, order], atol=1e-5)


def test_a_description_makes_the_same_energy() -> None:
    for kind in ("conv", "deepframe", "nonlocal"):
        energy = by_name(kind, (1, 16, 16), None, "leaky_relu")
        again = build(energy.spec())
        again.load_state_dict(energy.state_dict())
        x = images(3, (1, 16, 16))
        assert torch.equal(again(x), energy(x)) and again.spec() == energy.spec()


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("energy", lambda: by_name("resnet", (1, 16, 16), None, "relu")),
        ("widths", lambda: by_name("conv", (1, 16, 16), (3, 4, 5), "relu")),
        ("widths", lambda: by_name("deepframe", (1, 16, 16), (32,), "relu")),
        ("layers", lambda: by_name("deepframe", (1, 16, 16), (0, 1, 1, 1), "relu")),
        ("shape", lambda: by_name("conv", (40,), None, "relu")),
        ("activation", lambda: by_name("conv", (1, 16, 16), None, "sine")),
        ("layers", lambda: ConvEnergy((1, 8, 8), [(4, "fully"), (3, 3, 1)])),
        ("layers", lambda: ConvEnergy((1, 8, 8), [(4, 3)])),
        ("layers", lambda: ConvEnergy((1, 8, 8), [(4, 3, 0)])),
        ("layers", lambda: ConvEnergy((1, 8, 8), [(-4, "fully")])),
    ],
)
def test_wrong_networks_are_refused(argument: str, make: Callable[[], ConvEnergy]) -> None:
    with pytest.raises(UserError) as refused:
        make()
    assert refused.value.argument == argument
