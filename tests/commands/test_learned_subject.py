"""A saved energy on the command line: what is loaded, named and mapped, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from theodolite import cli
from theodolite.commands.arguments import InspectCommand, LandscapeCommand
from theodolite.commands.latent_subject import in_latent_space
from theodolite.commands.subject import Loaded, load
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.learning.energy import GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.frame import PrincipalFrame
from theodolite.learning.generators import MLPGenerator, load_generator, save_generator
from theodolite.learning.model import EnergyModel
from theodolite.result import open_survey
from theodolite.space import Box


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An energy of 8 x 8 images of bars, their file, and generators of its points and of its images."""
    made = tmp_path_factory.mktemp("learned")
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = torch.full((60, 1, 8, 8), -1.0)
    images[labels == 0, :, :, 2:4] = 1.0
    images[labels == 1, :, 2:4, :] = 1.0
    images = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    np.savez(made / "bars.npz", x=images.numpy(), y=labels.numpy() + 4)
    torch.manual_seed(0)
    frame = PrincipalFrame.of(images, 3)
    energy = SumEnergy([GaussianEnergy((3,), 0.0, 2.0), MLPEnergy((3,), (8,))])
    EnergyModel(energy, frame, Box((3,), -20.0, 20.0), 0.2, "bars").save(made / "energy.safetensors")
    save_generator(MLPGenerator(2, (3,), (8,)), made / "points.safetensors")
    save_generator(MLPGenerator(2, (1, 8, 8), (8,)), made / "images.safetensors")
    save_generator(MLPGenerator(2, (7,), (8,)), made / "other.safetensors")
    return made


def loaded(settings) -> Loaded:
    found = load(settings, 0, Console(file=io.StringIO()))
    return in_latent_space(settings, found) if isinstance(settings, LandscapeCommand) else found


def test_images_become_points_with_names_and_pictures(folder):
    found = loaded(LandscapeCommand(model=str(folder / "energy.safetensors"), data=folder / "bars.npz"))
    points, labels = found.sets["images"]
    assert points.shape == (60, 3) and sorted(found.by_class(0)) == ["images: 4", "images: 5"]
    assert found.namer is not None and found.picture is not None
    assert found.namer(points) == [found.label(int(k)) for k in labels]
    shown = found.picture(points.double())
    upright = shown[:, 0, :, 2:4].mean((1, 2)) > shown[:, 0, 2:4, :].mean((1, 2))
    assert [("4" if up else "5") for up in upright] == found.namer(points)
    one = loaded(LandscapeCommand(model=str(folder / "energy.safetensors"), data=folder / "bars.npz", classes="5"))
    assert one.namer is None and list(one.by_class(0)) == ["images: 5"]


@pytest.mark.parametrize("name", ["points", "images"])
def test_a_saved_generator_makes_a_latent_map(folder, name):
    flags = {"model": str(folder / "energy.safetensors"), "data": folder / "bars.npz"}
    plain = loaded(LandscapeCommand(**flags))
    found = loaded(LandscapeCommand(**flags, generator=str(folder / f"{name}.safetensors")))
    z = torch.randn((5, 2), generator=torch.Generator().manual_seed(1))
    assert found.field.space.spec() == "latent:2" and not found.sets
    assert found.picture is not None and found.namer is not None and plain.picture is not None
    images = found.picture(z)
    assert images.shape == (5, 1, 8, 8)
    points = plain.learned.model.points(images)
    if name == "points":
        assert torch.allclose(plain.picture(points), images, atol=1e-4)
    expected = plain.field.value(points) + 0.5 * z.double().square().sum(1)
    assert torch.allclose(found.field.value(z), expected, atol=1e-3)
    assert found.namer(z) == plain.namer(points)


def test_a_saved_generator_makes_a_latent_map_of_any_field(folder):
    field = Field(Box((3,), -20.0, 20.0), lambda x: x.double().square().sum(1))
    settings = LandscapeCommand(generator=str(folder / "points.safetensors"))
    found = in_latent_space(settings, Loaded(field, None, {}, ()))
    z = torch.randn((5, 2), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        points = load_generator(folder / "points.safetensors")(z)
    assert torch.allclose(found.field.value(z), field.value(points) + 0.5 * z.double().square().sum(1), atol=1e-5)
    assert found.picture is not None and torch.equal(found.picture(z).detach(), points) and found.namer is None


def test_a_map_from_the_command_line_holds_pictures_and_names(folder, tmp_path):
    out = tmp_path / "map"
    flags = ["landscape", "--model", folder / "energy.safetensors", "--data", folder / "bars.npz"]
    flags += ["--method", "network", "--proposals", "20", "--budget", "20000 evaluations", "--out", out]
    assert cli.main([str(word) for word in flags]) == 0
    survey = open_survey(out)["landscape"].to_dataset()
    assert survey.minimum_picture.shape[1:] == (1, 8, 8)
    assert set(survey.minimum_label.values) <= {"4", "5"}


def test_inspect_tells_what_was_learned(folder, capsys):
    words = ["inspect", "--model", str(folder / "energy.safetensors"), "--data", str(folder / "bars.npz")]
    assert cli.main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Learned energy: bars, of images 1x8x8 in 3 coordinates, with noise of deviation 0.2" in told
    assert "images: 4" in told and "values alone" not in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": "box:3:0:1"}, "space"),
        ({"embedding": "scale:1/255"}, "embedding"),
        ({"observable": "logit:2"}, "observable"),
        ({"classes": "4,5", "data": None}, "classes"),
        ({"classes": "9"}, "classes"),
        ({"data": "wide.npz"}, "data"),
        ({"generator": "other.safetensors"}, "generator"),
        ({"generator": "points.safetensors", "latent": 5}, "latent"),
        ({"generator": "energy.safetensors"}, "generator"),
    ],
)
def test_what_does_not_fit_is_refused(folder, changes, told):
    np.savez(folder / "wide.npz", x=np.zeros((4, 5), np.float32))
    changes = {
        key: (folder / value if key == "data" and value else str(folder / value) if key == "generator" else value)
        for key, value in changes.items()
    }
    flags = {"model": str(folder / "energy.safetensors"), "data": folder / "bars.npz"} | changes
    with pytest.raises(UserError) as refusal:
        loaded(LandscapeCommand(**flags))
    assert str(refusal.value).startswith(told)


def test_a_saved_generator_is_no_energy_and_a_broken_file_is_told(folder, tmp_path):
    broken = tmp_path / "energy.safetensors"
    broken.write_bytes((folder / "energy.safetensors").read_bytes()[:200])
    for path, told in (
        (folder / "points.safetensors", "--generator"),
        (broken, "whole .safetensors file"),
        (tmp_path / "nothing.safetensors", "existing file"),
    ):
        with pytest.raises(UserError, match=told):
            loaded(InspectCommand(model=str(path)))
