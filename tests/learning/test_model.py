"""Learned energies: saved and read to the last bit, as a field, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.convolutions import by_name
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.frame import Frame, PixelFrame, PrincipalFrame
from theodolite.learning.model import EnergyModel, is_energy, load_energy
from theodolite.learning.wrapped import ScaledEnergy
from theodolite.space import Box


@pytest.fixture
def images() -> Tensor:
    return torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def model_of(energy: Energy, frame: Frame) -> EnergyModel:
    return EnergyModel(energy, frame, Box(energy.shape, -8.0, 8.0), 0.25, "digits")


def models(images: Tensor) -> list[EnergyModel]:
    torch.manual_seed(1)
    components = PrincipalFrame.of(images, 4)
    points = components.coordinates(images)
    tilted = SumEnergy(
        [GaussianEnergy((4,), points.mean(0), points.std(0)), MLPEnergy((4,), (8, 8), "silu", points.mean(0), 2.0)]
    )
    pixels = PixelFrame((1, 6, 6))
    return [
        model_of(tilted, components),
        model_of(ScaledEnergy(by_name("conv", (1, 6, 6), (3, 5), "relu"), 0.1), pixels),
        model_of(by_name("nonlocal", (1, 6, 6), (2, 3, 4, 5), "leaky_relu"), pixels),
    ]


def test_what_is_saved_is_read_to_the_last_bit(images: Tensor, tmp_path: Path) -> None:
    for model in models(images):
        path = tmp_path / "energy.safetensors"
        model.save(path)
        again = load_energy(path)
        points = model.points(images)
        assert is_energy(path)
        assert torch.equal(again(points), model(points)) and torch.equal(again.images(points), model.images(points))
        assert (again.data_noise, again.name, again.space) == (0.25, "digits", model.space)
        assert not again.training


def test_its_field_is_the_energy_in_double_precision(images: Tensor) -> None:
    for model in models(images):
        points = model.points(images).clamp(-8, 8)
        field = model.field()
        value, slope = field.value_and_gradient(points.double())
        found = model.energy.value_and_gradient(points)
        scale = float(value.abs().max())
        assert value.dtype == torch.float64 and float((value - found[0]).abs().max()) < 1e-5 * max(1.0, scale)
        assert float((slope - found[1]).abs().max()) < 1e-4 * float(slope.abs().max())
        before = field.value(points.double()).clone()
        with torch.no_grad():  # the field is a survey's: what happens to the model later does not reach it
            for parameter in model.energy.parameters():
                parameter.add_(1.0)
        assert torch.equal(field.value(points.double()), before)


def test_points_and_images_are_the_frames(images: Tensor) -> None:
    model = models(images)[0]
    points = model.points(images.double())
    assert points.dtype == torch.float32 and points.shape == (30, 4)
    assert torch.allclose(model.points(model.images(points)), points, atol=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for energy, frame, space in (
        (GaussianEnergy((4,)), PixelFrame((5,)), Box((5,), -1.0, 1.0)),
        (GaussianEnergy((5,)), PixelFrame((5,)), Box((4,), -1.0, 1.0)),
    ):
        with pytest.raises(UserError, match="one shape"):
            EnergyModel(energy, frame, space)


def test_files_that_are_no_energies_are_refused(images: Tensor, tmp_path: Path) -> None:
    foreign, text, half = tmp_path / "foreign.safetensors", tmp_path / "text.safetensors", tmp_path / "half.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    text.write_text("no tensors here")
    models(images)[0].save(half)
    half.write_bytes(half.read_bytes()[:-100])
    for path in (foreign, text, half, tmp_path / "absent.safetensors"):
        assert not is_energy(path)
        with pytest.raises(UserError) as refused:
            load_energy(path)
        assert refused.value.argument == "energy"


def test_weights_that_do_not_fit_are_refused(images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "energy.safetensors"
    model = models(images)[0]
    model.save(path)
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(path)
    tensors.popitem()
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="weights that fit"):
        load_energy(path)
