"""Pictures of a map's points, and proposals from a learned energy's own Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments import landscape_pictures
from theodolite.instruments.landscape_pictures import check_picture, pictures
from theodolite.instruments.proposals import from_reference
from theodolite.learning.energy import GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.frame import PixelFrame
from theodolite.learning.model import EnergyModel
from theodolite.result import open_survey
from theodolite.space import Box, Latent
from theodolite.systems.mixtures import gaussian_mixture


def painted(z: torch.Tensor) -> torch.Tensor:
    """An image of 1 x 2 x 3 pixels of two coordinates, each a known combination."""
    first, second = z[:, 0].float(), z[:, 1].float()
    return torch.stack([first, second, first + second, first - second, 2 * first, 3 * second], 1).reshape(-1, 1, 2, 3)


def test_every_point_of_a_map_has_its_picture(tmp_path):
    field = gaussian_mixture(2, n_components=3).field
    survey = th.Landscape(
        method="adelm", temperature=0.1, alpha=2.0, improvement_limit=20, barriers="linear", proposals=20
    ).measure(field, picture=painted, directory=tmp_path, progress=False)
    for points, shown in (
        (survey.minimum_point, survey.minimum_picture),
        (survey.member_point, survey.member_picture),
        (survey.path_point, survey.path_picture),
    ):
        assert shown.dtype == np.float32
        assert shown.dims == (*points.dims[:-1], "picture_0", "picture_1", "picture_2")
        expected = painted(torch.as_tensor(points.values.reshape(-1, 2))).numpy()
        assert np.array_equal(shown.values.reshape(-1, 1, 2, 3), expected)
    kept = open_survey(tmp_path)["landscape"].to_dataset()
    assert np.array_equal(kept.minimum_picture, survey.minimum_picture)
    plain = th.Landscape(method="network", proposals=10).measure(field, progress=False)
    assert not [name for name in plain.variables if "picture" in str(name)]


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (lambda z: z @ torch.ones(3, 5, dtype=z.dtype), "RuntimeError"),
        (lambda z: z[:, 0], "shape"),
        (lambda z: z[:1], "shape"),
        (lambda z: z / 0.0, "not"),
        (lambda z: None, "AttributeError"),
    ],
)
def test_what_is_no_picture_is_refused_before_any_work(picture, told):
    field = gaussian_mixture(2, n_components=3).field
    before = field.evaluations
    with pytest.raises(UserError, match="picture") as refusal:
        th.Landscape().measure(field, picture=picture, progress=False)
    assert told in str(refusal.value)
    assert field.evaluations == before


def test_pictures_that_would_fill_the_disk_are_left_out(monkeypatch):
    space = Latent(2)
    assert check_picture(painted, space) == (1, 2, 3)
    monkeypatch.setattr(landscape_pictures, "_MOST_BYTES", 4 * 6 * 10)
    few, many = np.zeros((10, 2)), np.zeros((11, 2))
    found = pictures(
        painted,
        space,
        {"minimum_point": (("minimum", "point_0"), few), "member_point": (("member", "point_0"), many)},
    )
    assert set(found) == {"minimum_picture"}


def test_proposals_of_a_learned_energy_have_the_moments_of_its_gaussian_and_of_the_noisy_data():
    torch.manual_seed(0)
    deviation = torch.tensor([0.5, 2.0, 1.0])
    energy = SumEnergy([GaussianEnergy((3,), torch.tensor([1.0, 0.0, -1.0]), deviation), MLPEnergy((3,), (8,))])
    model = EnergyModel(energy, PixelFrame((3,)), Box((3,), -50.0, 50.0), 0.3)
    generator = torch.Generator().manual_seed(0)
    points, latent = from_reference(model)(20_000, generator)
    assert latent is None and bool(model.space.contains(points).all())
    error = deviation / 20_000**0.5
    assert bool(((points.mean(0) - torch.tensor([1.0, 0.0, -1.0])).abs() < 4 * error).all())
    assert bool(((points.std(0) / deviation - 1).abs() < 4 / 40_000**0.5).all())
    data = torch.full((5, 3), 20.0)
    mixed, _ = from_reference(model, data)(20_000, generator)
    from_data = mixed[:, 1] > 13.0
    assert abs(float(from_data.double().mean()) - 0.5) < 4 * 0.5 / 20_000**0.5
    assert abs(float(mixed[from_data].std()) / 0.3 - 1) < 4 / 60_000**0.5


def test_proposals_stay_in_the_space_and_fall_back_on_it_without_a_gaussian():
    model = EnergyModel(MLPEnergy((2,), (4,)), PixelFrame((2,)), Box((2,), -1.0, 1.0), 5.0)
    points, _ = from_reference(model, torch.zeros(3, 2))(500, torch.Generator().manual_seed(1))
    assert bool(model.space.contains(points).all())
    assert float(points.std()) > 0.3
