"""Nudged bands: equal to each other in the plane, different beyond, and on the known saddles of surfaces."""

import pytest
import torch

from theodolite.errors import UserError
from theodolite.search.elastic_band import ElasticBand, relax_band, tangents
from theodolite.search.real_paths import linear_path, path_barrier
from theodolite.systems import gaussian_mixture, mueller_brown, quartic_wells

PLAIN = ElasticBand(doubly_nudged=False)


def lines(known, n_points=16, most=6):
    """Straight paths over the known saddles: between the two minima each of them joins."""
    saddles, point = known.known_saddles(), torch.from_numpy(known.known_minima().point)
    first, second = torch.from_numpy(saddles.minimum[:most]).T
    return linear_path(point[first], point[second], n_points), torch.from_numpy(saddles.energy[:most])


def bent(path, size, seed=0):
    """A smooth arc beside the line: what makes springs pull across the path."""
    generator = torch.Generator().manual_seed(seed)
    aside = size * torch.randn(len(path), 1, path.shape[2], generator=generator, dtype=torch.float64)
    arch = torch.sin(torch.linspace(0.0, torch.pi, path.shape[1], dtype=torch.float64))[None, :, None]
    return path + arch * aside


def test_in_the_plane_the_second_nudge_is_nothing():
    known = gaussian_mixture(2, 0)
    path = bent(lines(known)[0], 0.3)
    plain, doubly = relax_band(known.field, path, PLAIN), relax_band(known.field, path)
    assert float((plain - path).abs().max()) > 0.05
    assert torch.allclose(plain, doubly, atol=1e-6)


@pytest.mark.parametrize("dim", [3, 5])
def test_beyond_the_plane_it_is_something(dim):
    known = quartic_wells(dim)
    path = bent(lines(known)[0], 0.3)
    settings = {"iterations": 10, "check_every": 10}
    plain = relax_band(known.field, path, ElasticBand(doubly_nudged=False, **settings))
    doubly = relax_band(known.field, path, ElasticBand(**settings))
    assert float((plain - doubly).abs().max()) > 1e-3


@pytest.mark.parametrize("settings", [PLAIN, ElasticBand()], ids=["NEB", "DNEB"])
@pytest.mark.parametrize(
    ("known", "tolerance"), [(mueller_brown(), 0.1), (gaussian_mixture(2, 1), 0.01), (quartic_wells(4), 0.01)],
    ids=lambda value: value.field.name if hasattr(value, "field") else "",
)  # fmt: skip
def test_bands_between_neighbours_reach_their_saddle(known, tolerance, settings):
    path, level = lines(known)
    before, after = (path_barrier(known.field, band) for band in (path, relax_band(known.field, path, settings)))
    # No path can beat the barrier, which a detour past a third minimum may put below the saddle of the pair itself.
    barrier = torch.from_numpy(known.known_barriers()[tuple(known.known_saddles().minimum[:6].T)])
    assert float((after - barrier).min()) > -tolerance
    assert float((after - level).abs().median()) < tolerance
    assert float((after - before).max()) < tolerance


def test_no_band_is_returned_higher_than_it_came_and_ends_stay():
    known = gaussian_mixture(2, 2)
    generator = torch.Generator().manual_seed(0)
    path = 6.0 * torch.rand(30, 12, 2, generator=generator, dtype=torch.float64) - 3.0
    settings = ElasticBand(iterations=25, check_every=5)
    found = relax_band(known.field, path, settings)
    sampled = [path_barrier(known.field, band, settings.samples) for band in (found, path)]
    assert (sampled[0] <= sampled[1]).all() and (sampled[0] < sampled[1]).any()
    assert torch.equal(found[:, [0, -1]], path[:, [0, -1]])
    assert bool(known.field.space.contains(found.reshape(-1, 2)).all())


def test_bands_do_not_influence_each_other():
    known = quartic_wells(3)
    path = bent(lines(known)[0], 0.2)
    together = relax_band(known.field, path)
    alone = torch.cat([relax_band(known.field, path[i : i + 1]) for i in range(len(path))])
    assert torch.allclose(together, alone, atol=1e-9)


def test_tangents_point_uphill_and_mix_at_the_top():
    images = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0]]], dtype=torch.float64)
    rising = tangents(images, torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64))
    assert rising[0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    falling = tangents(images, torch.tensor([[3.0, 2.0, 1.0, 0.0]], dtype=torch.float64))
    assert falling[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    top = tangents(images, torch.tensor([[0.0, 3.0, 1.0, 0.0]], dtype=torch.float64))[0, 0]
    # The higher neighbour (energy 1) weighs 3, the lower one 2.
    assert top.tolist() == pytest.approx([2.0 / 13.0**0.5, 3.0 / 13.0**0.5])


def test_wrong_input_is_refused():
    for name in ("iterations", "spring", "check_every", "samples"):
        with pytest.raises(UserError, match=name):
            ElasticBand(**{name: 0})
    with pytest.raises(UserError, match="3 points"):
        relax_band(mueller_brown().field, torch.zeros(1, 2, 2))
