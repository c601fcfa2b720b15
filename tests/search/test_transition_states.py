"""Saddles by eigenvector following, against the surfaces' known ones."""

import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.transition_states import curvatures, transition_states
from theodolite.space import Box, Latent
from theodolite.systems import gaussian_mixture, ising, mueller_brown, quartic_wells


@pytest.mark.parametrize(
    ("known", "share"),
    [(mueller_brown(), 1.0), (gaussian_mixture(2, 0), 1.0), (gaussian_mixture(2, 1), 1.0), (quartic_wells(4), 0.9)],
    ids=lambda value: value.field.name if hasattr(value, "field") else "",
)
def test_random_starts_find_the_known_saddles_and_no_others(known, share):
    low, high = torch.from_numpy(known.known_minima().point).aminmax(dim=0)
    generator = torch.Generator().manual_seed(0)
    starts = low + (high - low) * torch.rand(300, len(low), generator=generator, dtype=torch.float64)
    found = transition_states(known.field, starts)
    truth = known.known_saddles()
    gap = torch.cdist(found.point[found.converged], torch.from_numpy(truth.point)).min(1)
    assert float(gap.values.max()) < 1e-5
    assert len(set(gap.indices.tolist())) >= share * len(truth.energy)
    assert found.energy[found.converged].numpy() == pytest.approx(truth.energy[gap.indices.numpy()], abs=1e-8)
    assert float(found.gradient_norm[found.converged].max()) <= 1e-6
    assert (found.order[found.converged] == 1).all() and (found.curvature[found.converged] < 0).all()


def test_direction_and_curvature_are_those_of_the_hessian():
    tilt = torch.tensor([[3.0, 1.0], [1.0, -2.0]], dtype=torch.float64)
    field = Field(Latent(2), lambda x: 0.5 * ((x @ tilt) * x).sum(1))
    found = transition_states(field, torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    value, mode = torch.linalg.eigh(tilt)
    assert torch.allclose(curvatures(field, found.point)[0], tilt, atol=1e-9)
    assert float(found.curvature[0]) == pytest.approx(float(value[0]), abs=1e-9)
    assert abs(float(found.direction[0] @ mode[:, 0])) == pytest.approx(1.0, abs=1e-9)
    assert found.point[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_bowl_has_no_saddle():
    field = Field(Box((2,), -1.0, 1.0), lambda x: x.square().sum(1))
    found = transition_states(field, torch.tensor([[0.0, 0.0], [0.4, 0.1]], dtype=torch.float64))
    assert not bool(found.converged.any())
    assert int(found.order[0]) == 0


def test_a_saddle_pressed_against_a_wall_counts_without_the_wall():
    # Downhill to x_1 = 1 everywhere; along that wall a double well in x_0 with its top at 0.
    field = Field(Box((2,), -1.0, 1.0), lambda x: (x[:, 0].square() - 0.5).square() - 3.0 * x[:, 1])
    found = transition_states(field, torch.tensor([[0.2, 1.0]], dtype=torch.float64))
    assert bool(found.converged[0])
    assert found.point[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert float(found.energy[0]) == pytest.approx(0.25 - 3.0)


def test_rows_do_not_influence_each_other_and_keep_their_shape():
    known = quartic_wells(4)
    field = Field(Box((2, 2), -4.0, 4.0), lambda x: known.field._function(x.flatten(1)))
    starts = 0.7 * field.space.draw(12, torch.Generator().manual_seed(0)).double() / 2
    together = transition_states(field, starts)
    alone = [transition_states(field, starts[i : i + 1]) for i in range(12)]
    assert together.point.shape == together.direction.shape == (12, 2, 2)
    assert torch.allclose(together.point, torch.cat([one.point for one in alone]), atol=1e-6)
    assert together.converged.tolist() == [bool(one.converged[0]) for one in alone]


def test_rows_outside_the_finite_region_are_reported():
    field = Field(Latent(1), lambda x: (3.0 * x.log() - x)[:, 0])
    found = transition_states(field, torch.tensor([[-1.0], [2.0]], dtype=torch.float64))
    assert found.converged.tolist() == [False, True]
    assert float(found.point[1, 0]) == pytest.approx(3.0, abs=1e-6)
    assert float(found.energy[0]) == float("inf")


def test_wrong_input_is_refused():
    with pytest.raises(UserError, match="discrete"):
        transition_states(ising(4), torch.ones(1, 16))
    with pytest.raises(UserError, match="128 coordinates"):
        curvatures(Field(Latent(200), lambda x: x.sum(1)), torch.zeros(1, 200))
    with pytest.raises(UserError, match="positive"):
        transition_states(mueller_brown().field, torch.zeros(1, 2), largest_step=0.0)
    assert len(transition_states(mueller_brown().field, torch.zeros(0, 2)).energy) == 0
