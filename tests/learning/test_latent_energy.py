"""U(g(z)) + |z|^2 / 2 where it is a known quadratic, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.energy import GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.frame import PixelFrame, PrincipalFrame
from theodolite.learning.generators import MLPGenerator
from theodolite.learning.latent_energy import latent_field, pictures, points_of
from theodolite.learning.model import EnergyModel
from theodolite.search.minimise import minimise
from theodolite.space import Box, Latent


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pixels(n: int = 4) -> EnergyModel:
    energy = GaussianEnergy((n,), torch.arange(float(n)), torch.linspace(0.5, 2.0, n))
    return EnergyModel(energy, PixelFrame((n,)), Box((n,), -50.0, 50.0))


def _network(latent: int = 2, shape: tuple[int, ...] = (4,), widths: tuple[int, ...] = ()) -> MLPGenerator:
    torch.manual_seed(0)
    return MLPGenerator(latent, shape, widths, output="linear", centre=0.3)


@pytest.mark.parametrize("reference", [1.0, 0.25])
def test_a_linear_generator_of_a_gaussian_has_the_minimum_of_its_normal_equations(reference: float) -> None:
    model, network = _pixels(), _network()
    field = latent_field(model, network, reference)
    layer = network.layers[0]
    weight = layer.weight.detach().double()  # type: ignore[union-attr]
    offset = layer.bias.detach().double() + network.centre.double()  # type: ignore[union-attr,operator]
    precision = torch.diag(model.energy.precision.double())  # type: ignore[union-attr,arg-type]
    away = torch.arange(4.0, dtype=torch.float64) - offset
    curvature = weight.T @ precision @ weight + reference * torch.eye(2, dtype=torch.float64)
    exact = torch.linalg.solve(curvature, weight.T @ precision @ away)
    end = minimise(field, field.space.draw(5, _generator()))
    assert field.space == Latent(2)
    assert torch.allclose(end.point.double(), exact.expand(5, 2), atol=1e-6)
    misfit = weight @ exact - away
    lowest = 0.5 * float(misfit @ precision @ misfit) + 0.5 * reference * float(exact @ exact)
    assert float(end.energy[0]) == pytest.approx(lowest, rel=1e-9)


def test_the_slope_is_that_of_the_value_in_double_precision() -> None:
    torch.manual_seed(1)
    energy = SumEnergy([GaussianEnergy((4,)), MLPEnergy((4,), (8, 8))])
    model = EnergyModel(energy, PixelFrame((4,)), Box((4,), -50.0, 50.0))
    field = latent_field(model, _network(3, widths=(6,)))
    z = torch.randn(5, 3, generator=_generator(), dtype=torch.float64)
    value, slope = field.value_and_gradient(z)
    assert value.dtype == slope.dtype == torch.float64
    for axis in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = 1e-5
        rise = (field.value(z + shift) - field.value(z - shift)) / 2e-5
        assert torch.allclose(slope[:, axis], rise, rtol=1e-6, atol=1e-7)


def test_without_its_reference_measure_the_energy_has_no_lowest_point() -> None:
    """A Gaussian far from the generator's line: U(g(z)) is flat along what the generator ignores."""
    network = _network()
    with torch.no_grad():
        network.layers[0].weight[:, 1] = 0  # type: ignore[union-attr,index]
    field = latent_field(_pixels(), network, 1.0)
    far = torch.tensor([[0.0, 0.0], [0.0, 30.0]])
    near_value, far_value = field.value(far).tolist()
    assert far_value - near_value == pytest.approx(450.0)  # |z|^2 / 2 and nothing else


def test_a_generator_of_images_is_read_in_the_energys_frame() -> None:
    images = torch.rand(30, 1, 3, 3, generator=_generator())
    frame = PrincipalFrame.of(images, 4)
    model = EnergyModel(GaussianEnergy((4,)), frame, Box((4,), -50.0, 50.0))
    network = _network(2, (1, 3, 3), (5,))
    z = torch.randn(6, 2, generator=_generator(1))
    made = points_of(model, network)(z.double())
    with torch.no_grad():
        assert torch.allclose(made.float(), model.points(network(z)), atol=1e-5)
        assert torch.equal(pictures(model, network, z), network(z))
    in_frame = _network(2, (4,))
    with torch.no_grad():
        assert torch.allclose(pictures(model, in_frame, z), model.images(in_frame(z)))
    assert pictures(model, in_frame, z).shape == (6, 1, 3, 3)


def test_the_field_tells_two_generators_and_two_weights_apart() -> None:
    model = _pixels()
    hashes = {latent_field(model, _network(d), weight).model_hash for d in (2, 3) for weight in (1.0, 0.5)}
    assert len(hashes) == 4


def test_a_generator_that_does_not_fit_is_refused_with_both_shapes() -> None:
    with pytest.raises(UserError, match=r"generator: expected .*\(4,\).*got \(5,\)"):
        latent_field(_pixels(), _network(2, (5,)))


@pytest.mark.parametrize("reference", [0.0, -1.0, math.inf, math.nan])
def test_a_weight_that_leaves_the_energy_open_is_refused(reference: float) -> None:
    with pytest.raises(UserError, match="reference"):
        latent_field(_pixels(), _network(), reference)


def test_weights_that_are_not_finite_are_refused() -> None:
    network = _network()
    with torch.no_grad():
        network.layers[0].weight[0, 0] = math.nan  # type: ignore[union-attr,index]
    with pytest.raises(UserError, match="generator"):
        latent_field(_pixels(), network)
