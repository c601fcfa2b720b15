"""The whole continuous search against surfaces whose landscape is known."""

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.run import pack, unpack
from theodolite.search.continuous_network import ContinuousSearch, find_network
from theodolite.search.real_paths import path_barrier
from theodolite.space import Box, Latent
from theodolite.systems import gaussian_mixture, ising, mueller_brown, quartic_wells, rough_basins

SURFACES = [mueller_brown(), gaussian_mixture(2, 0), gaussian_mixture(2, 1), rough_basins(), quartic_wells(4)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def check_paths(field, network):
    """What a pass claims: its path joins its two minima and nowhere rises above its level."""
    assert network.ends.shape == (len(network.path), 2)
    for ends, level, path in zip(network.ends, network.level, network.path, strict=True):
        assert torch.equal(path[[0, -1]], network.point[ends])
        assert float(path_barrier(field, path[None], 50)[0]) <= float(level) + 1e-6
    spanning = network.level[network.spanning]
    assert (spanning.diff() >= 0).all()
    assert (network.energy.diff() >= 0).all()


@pytest.mark.parametrize("n_saddle_starts", [64, 0])
@pytest.mark.parametrize("known", SURFACES, ids=lambda known: known.field.name)
def test_minima_and_barriers_are_the_known_ones(known, n_saddle_starts):
    search = ContinuousSearch(known.field, n_saddle_starts=n_saddle_starts)
    network = find_network(known.field, generator(), search=search)
    truth = known.known_minima()
    assert network.energy.numpy() == pytest.approx(truth.energy, abs=1e-9)
    assert network.point.numpy() == pytest.approx(truth.point, abs=1e-5)
    assert network.barrier.numpy() == pytest.approx(known.known_barriers(), abs=1e-7)
    check_paths(known.field, network)
    saddles = known.known_saddles()
    gap = torch.cdist(network.saddle[network.verified], torch.from_numpy(saddles.point)).min(1)
    assert float(gap.values.max()) < 1e-5
    joined = np.sort(saddles.minimum[gap.indices.numpy()], axis=1)
    assert np.array_equal(np.sort(network.ends[network.verified].numpy(), axis=1), joined)


def test_six_dimensions_from_given_and_from_proposed_starts():
    known = quartic_wells(6)
    starts = known.field.space.draw(1500, generator(3))
    given = find_network(known.field, generator(), starts=starts)
    assert given.barrier.numpy() == pytest.approx(known.known_barriers(), abs=1e-6)
    proposed = find_network(
        known.field,
        generator(),
        propose=lambda n, chance: 0.9 * known.field.space.draw(n, chance),
        search=ContinuousSearch(known.field, n_starts=1500),
    )
    assert proposed.energy.numpy() == pytest.approx(given.energy.numpy(), abs=1e-9)


def test_minima_in_corners_and_passes_along_walls():
    # Downhill outwards: the four corners are the minima, and the ways between them lead along the walls.
    wall = 0.7 / 3.0  # rounding between two points of such a wall must not lead through it
    field = Field(Box((2,), -wall, wall), lambda x: -x.square() @ torch.tensor([1.0, 2.0], dtype=x.dtype))
    network = find_network(field, generator())
    assert network.point.abs().tolist() == [[wall, wall]] * 4
    levels = np.sort(network.barrier.numpy()[np.triu_indices(4, 1)]) / wall**2
    # Across x_0 = 0 the energy is -2, across x_1 = 0 it is -1; a diagonal takes both.
    assert levels == pytest.approx([-2.0, -2.0, -1.0, -1.0, -1.0, -1.0], abs=1e-6)
    check_paths(field, network)


def test_points_where_a_ridge_balances_are_no_minima():
    field = Field(Box((2,), -2.0, 2.0), lambda x: (x[:, 0].square() - 1.0).square() + x[:, 1].square())
    starts = torch.tensor([[0.0, 1.0], [0.0, -0.5]])
    network = find_network(field, generator(), starts=starts, search=ContinuousSearch(field, n_saddle_starts=8))
    assert network.energy.numpy() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert float(network.barrier[0, 1]) == pytest.approx(1.0, abs=1e-9)


def test_many_coordinates_are_joined_by_bands():
    def two_wells(x):
        mean = x[:, 0]
        return (mean.square() - 1.0).square() + (x[:, 1:] - 0.1 * mean[:, None]).square().sum(1)

    field = Field(Latent(150), two_wells)
    network = find_network(field, generator(), search=ContinuousSearch(field, n_starts=8))
    assert network.energy.numpy() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert not bool(network.verified.any())
    assert float(network.barrier[0, 1]) == pytest.approx(1.0, abs=1e-6)
    check_paths(field, network)


def test_levels_bound_the_paths_of_a_rough_field_in_single_precision():
    random = np.random.default_rng(0)
    first, second = (torch.from_numpy(random.normal(0.0, 1.5, size).astype(np.float32)) for size in ((4, 40), (40,)))

    def energy(x):
        return torch.sin(x.float() @ first) @ second + 0.5 * x.float().square().sum(1)

    field = Field(Latent(4), energy)
    search = ContinuousSearch(field, n_starts=32, gradient_tolerance=1e-3, most_minima=8)
    network = find_network(field, generator(), search=search)
    assert len(network.energy) > 8
    for level, path in zip(network.level, network.path, strict=True):
        # Single precision leaves 1e-6 of energies of a hundred.
        assert float(path_barrier(field, path[None], 50)[0]) <= float(level) + 1e-3


def test_one_minimum_has_no_pass():
    field = Field(Latent(3), lambda x: x.square().sum(1))
    network = find_network(field, generator())
    assert len(network.energy) == 1 and not network.path
    assert network.barrier.tolist() == [network.energy.tolist()]


def test_a_state_can_be_stored_at_every_step():
    known = gaussian_mixture(2, 0)
    search = ContinuousSearch(known.field, pairs_per_step=4)
    straight = stored = search.init(generator())
    n_steps = 0
    while straight.stage != "done":
        straight, info = search.step(straight, generator())
        stored, _ = search.step(unpack(pack(stored)), generator())
        assert info["stage"] == stored.stage
        n_steps += 1
    assert n_steps > 4
    one, two = search.network(straight), search.network(stored)
    assert torch.equal(one.barrier, two.barrier) and torch.equal(one.point, two.point)
    assert all(torch.equal(a, b) for a, b in zip(one.path, two.path, strict=True))


def test_a_step_leaves_the_state_it_came_from_alone():
    known = gaussian_mixture(2, 0)
    search = ContinuousSearch(known.field)
    state = search.init(generator())
    for _ in range(2):
        state, _ = search.step(state, generator())
    before = (state.stage, len(state.path), state.point.clone(), len(state.tried))
    search.step(state, generator())
    assert before[0] == state.stage and before[1] == len(state.path) and before[3] == len(state.tried)
    assert torch.equal(before[2], state.point)


def test_wrong_input_is_refused():
    field = mueller_brown().field
    with pytest.raises(UserError, match="discrete"):
        find_network(ising(4), generator())
    for name, wrong in (("n_starts", 0), ("neighbours", 0), ("n_images", 2), ("most_minima", 1), ("across", -1)):
        with pytest.raises(UserError, match=name):
            ContinuousSearch(field, **{name: wrong})
    with pytest.raises(UserError, match="same_distance"):
        ContinuousSearch(field, same_distance=0.0)
    for starts in (torch.zeros(0, 2), torch.full((3, 2), 50.0)):
        with pytest.raises(UserError, match="starts"):
            find_network(field, generator(), starts=starts)
