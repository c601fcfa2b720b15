"""Strings, and the refinement of any path: onto the known saddle, and never above what came."""

import pytest
import torch

from theodolite.errors import UserError
from theodolite.search.real_paths import linear_path, path_barrier, pin_barrier, stack_paths
from theodolite.search.string import String, refine, relax_string
from theodolite.systems import gaussian_mixture, mueller_brown, quartic_wells, rough_basins


def between_neighbours(known, n_points=30, most=8):
    saddles, point = known.known_saddles(), torch.from_numpy(known.known_minima().point)
    first, second = torch.from_numpy(saddles.minimum[:most]).T
    return linear_path(point[first], point[second], n_points), torch.from_numpy(saddles.energy[:most])


def jagged(path, size, seed=0):
    """As a diffusion leaves it: every point thrown aside on its own, the ends kept."""
    noise = torch.randn(path.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[:, [0, -1]] = 0.0
    return path + size * noise


@pytest.mark.parametrize("size", [0.0, 0.1])
@pytest.mark.parametrize(
    "known", [mueller_brown(), quartic_wells(3), quartic_wells(8)], ids=lambda known: known.field.name
)
def test_refined_paths_lead_over_the_known_saddle(known, size):
    path, level = between_neighbours(known)
    excess = pin_barrier(known.field, refine(known.field, jagged(path, size))).energy - level
    # A jagged start may fall to another side of a hill, rarely; a straight one may not.
    assert float(excess.abs().median()) < 1e-6
    assert float(excess.abs().max()) < (1e-6 if size == 0.0 else 1.0)
    barrier = torch.from_numpy(known.known_barriers()[tuple(known.known_saddles().minimum[:8].T)])
    assert float((excess + level - barrier).min()) > -1e-6


def test_what_is_refined_is_never_worse_and_keeps_its_ends():
    known = gaussian_mixture(2, 0)
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(3, 60, (12,), generator=generator).tolist()
    walks = [6.0 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 3.0 for n in lengths]
    path = stack_paths(walks)
    refined = refine(known.field, path, String(iterations=40, zooms=2))
    dense = [path_barrier(known.field, one, 200) for one in (path, refined)]
    assert (dense[1] <= dense[0] + 1e-6).all()
    assert float((dense[0] - dense[1]).median()) > 1.0
    assert torch.equal(refined[:, [0, -1]], path[:, [0, -1]])


def test_a_perfect_path_is_kept():
    # On a line there is one way: nothing can gain, and the path itself comes back.
    known = rough_basins()
    point = torch.from_numpy(known.known_minima().point)
    path = linear_path(point[:1], point[5:6], 2000)
    refined = refine(known.field, path)
    assert pin_barrier(known.field, refined).energy[0] == pytest.approx(known.known_barriers()[0, 5], abs=1e-6)


def test_strings_are_evenly_spaced_and_do_not_influence_each_other():
    known = quartic_wells(3)
    path = jagged(between_neighbours(known)[0], 0.02)
    together = relax_string(known.field, path)
    gaps = together.diff(dim=1).norm(dim=2)
    assert float((gaps / gaps.mean(1, keepdim=True) - 1.0).abs().max()) < 0.2
    alone = torch.cat([relax_string(known.field, path[i : i + 1]) for i in range(len(path))])
    assert torch.allclose(together, alone, atol=1e-8)


def test_images_of_any_shape():
    from theodolite.field import Field
    from theodolite.space import Box

    # Two wells at -1 and 1 of every coordinate's mean; the barrier is 1, at the origin.
    def double_well(x):
        mean = x.mean((1, 2, 3))
        return (mean.square() - 1.0).square() + 5.0 * (x - mean[:, None, None, None]).square().sum((1, 2, 3))

    field = Field(Box((1, 2, 3), -2.0, 2.0), double_well)
    ends = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    path = jagged(linear_path(-ends, ends, 40), 0.2)
    refined = refine(field, path)
    assert refined.shape[2:] == (1, 2, 3)
    assert float(pin_barrier(field, refined).energy[0]) == pytest.approx(1.0, abs=1e-6)


def test_wrong_input_is_refused():
    for name, wrong in (("n_points", 2), ("iterations", 0), ("zooms", -1), ("check_every", 0), ("samples", 0)):
        with pytest.raises(UserError, match=name):
            String(**{name: wrong})
    with pytest.raises(UserError, match="tolerance"):
        String(tolerance=-1.0)
    assert len(refine(mueller_brown().field, torch.zeros(0, 4, 2))) == 0
