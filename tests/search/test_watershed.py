"""The exact tree against floods of all states, one level at a time, in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theodolite.errors import UserError
from theodolite.search import enumerated_values
from theodolite.search.enumerated_values import all_values, levels_of_index
from theodolite.search.passes import bottlenecks
from theodolite.search.watershed import watershed
from theodolite.systems import ising, spin_glass


def neighbours(state, n, n_levels, neighbourhood):
    for coordinate in range(n):
        old = state // n_levels**coordinate % n_levels
        for new in range(n_levels):
            if new != old and (neighbourhood == "any" or abs(new - old) == 1):
                yield state + (new - old) * n_levels**coordinate


def flooded(values, n, n_levels, neighbourhood):
    """Smallest state of every minimum, rising, and their barriers ``(K, K)``: all states of a level enter at once."""
    parent, held, minima, barrier = {}, {}, [], {}

    def root(state):
        while parent[state] != state:
            state = parent[state]
        return state

    for level in np.unique(values):
        entering = np.flatnonzero(values == level).tolist()
        for state in entering:
            parent[state], held[state] = state, []
        for state in entering:
            for other in neighbours(state, n, n_levels, neighbourhood):
                if other in parent and (a := root(state)) != (b := root(other)):
                    barrier.update({pair: level for i in held[a] for j in held[b] for pair in ((i, j), (j, i))})
                    a, b = (a, b) if len(held[a]) >= len(held[b]) else (b, a)
                    parent[b] = a
                    held[a] = held[a] + held[b]
        for state in entering:
            if not held[root(state)]:
                held[root(state)] = [state]
                minima.append(state)
    return minima, np.array([[barrier.get((i, j), values[i]) for j in minima] for i in minima])


def index_of(levels, n_levels):
    return levels.astype(int) @ n_levels ** np.arange(levels.shape[-1])


def check_basins_and_paths(found, values, n, n_levels, neighbourhood, n_paths=10):
    """What the passes claim, walked."""
    sizes = np.bincount(found.basin_of(levels_of_index(np.arange(len(values)), n, n_levels)))
    assert sizes.tolist() == found.basin_size.tolist()
    assert (np.diff(found.energy) >= 0).all()
    assert (np.diff(found.level) >= 0).all()
    over = found.state.copy()
    over[np.arange(len(over)), found.coordinate] = found.new_level
    assert found.basin_of(found.state).tolist() == found.first.tolist()
    assert found.basin_of(over).tolist() == found.second.tolist()
    assert (found.first < found.second).all()
    ends = values[index_of(found.state, n_levels)], values[index_of(over, n_levels)]
    assert np.maximum(*ends).tolist() == found.level.tolist()
    for number in range(min(len(found.level), n_paths)):
        path = found.path(number)
        assert path[0].tolist() == found.minimum_level[found.first[number]].tolist()
        assert path[-1].tolist() == found.minimum_level[found.second[number]].tolist()
        assert values[index_of(path, n_levels)].max() == found.level[number]
        steps = np.abs(np.diff(path.astype(int), axis=0))
        assert ((steps > 0).sum(1) == 1).all()
        assert steps.max() == 1 or neighbourhood == "any"


@st.composite
def landscapes(draw):
    """Few different energies, so that plateaus are everywhere; or many, so that there are none."""
    n_levels = draw(st.sampled_from([2, 2, 3, 4]))
    n = draw(st.integers(1, {2: 9, 3: 5, 4: 4}[n_levels]))
    highest = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 10**6]))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, highest + 1, n_levels**n).astype(float)
    return values, n, n_levels, draw(st.sampled_from(["any", "adjacent"]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(landscapes(), st.sampled_from([1, 1 << 23]))
def test_minima_barriers_and_paths_equal_a_flood(landscape, pass_limit):
    values, n, n_levels, neighbourhood = landscape
    minima, barrier = flooded(values, n, n_levels, neighbourhood)
    found = watershed(values, n, n_levels, neighbourhood=neighbourhood, pass_limit=pass_limit)
    assert index_of(found.minimum_level, n_levels).tolist() == minima
    assert np.array_equal(found.barrier(), barrier)
    check_basins_and_paths(found, values, n, n_levels, neighbourhood, n_paths=3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.sampled_from([0, 1, 2, 4, 10**6]), st.integers(0, 2**32 - 1), st.booleans())
def test_the_mirror_quotient_gives_the_whole_tree(n, highest, seed, half):
    values = np.random.default_rng(seed).integers(0, highest + 1, 2**n).astype(float)
    values = values + values[::-1]
    minima, barrier = flooded(values, n, 2, "any")
    found = watershed(values[2 ** (n - 1) :] if half else values, n, mirror=True)
    # A mirrored plateau may be represented by another of its states: the full tree says which minimum that is.
    whole = watershed(values, n)
    place = whole.basin_of(found.minimum_level)
    assert sorted(place.tolist()) == list(range(len(minima)))
    assert np.array_equal(found.barrier(), barrier[np.ix_(place, place)])
    check_basins_and_paths(found, values, n, 2, "any", n_paths=3)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("n", "seed"), [(11, 0), (12, 1), (13, 2)])
def test_spin_glasses(n, seed, n_threads, monkeypatch):
    monkeypatch.setattr(enumerated_values.numba, "get_num_threads", lambda: n_threads)
    field = spin_glass(n, seed=seed)
    values = all_values(field)
    minima, barrier = flooded(values, n, 2, "any")
    found, quotient = watershed(values, n), watershed(all_values(field, half=True), n, mirror=True)
    assert index_of(found.minimum_level, 2).tolist() == minima
    assert np.array_equal(found.barrier(), barrier)
    for name in ("minimum_level", "energy", "basin_size", "first", "second", "level"):
        assert np.array_equal(getattr(quotient, name), getattr(found, name)), name
    assert np.array_equal(quotient.barrier(), barrier)
    check_basins_and_paths(quotient, values, n, 2, "any")
    assert found.complete
    # The lowest pass of every pair of basins up to the highest barrier, counted edge by edge.
    basin = found.basin_of(levels_of_index(np.arange(2**n), n, 2))
    lowest = {}
    for state in range(2**n):
        for other in neighbours(state, n, 2, "any"):
            pair, level = (basin[state], basin[other]), max(values[state], values[other])
            if pair[0] < pair[1] and level <= barrier[np.isfinite(barrier)].max():
                lowest[pair] = min(level, lowest.get(pair, np.inf))
    assert dict(zip(zip(found.first, found.second, strict=True), found.level, strict=True)) == lowest


def test_ising_with_its_plateaus():
    values = all_values(ising(4))
    minima, barrier = flooded(values, 16, 2, "any")
    found = watershed(values, 16)
    assert index_of(found.minimum_level, 2).tolist() == minima
    assert np.array_equal(found.barrier(), barrier)
    assert found.energy[:2].tolist() == [-32.0, -32.0]
    assert found.basin_size.sum() == 2**16


def test_more_minima_than_16_bits_can_number():
    """One coordinate: the barrier between two minima is the highest value between them."""
    values = np.random.default_rng(0).random(250_001)
    found = watershed(values, 1, len(values), neighbourhood="adjacent")
    walled = np.concatenate([[np.inf], values, [np.inf]])
    minima = np.flatnonzero((values < walled[:-2]) & (values < walled[2:]))
    minima = minima[np.argsort(values[minima])]
    assert len(minima) > 2**16
    assert found.minimum_level[:, 0].tolist() == minima.tolist()
    assert found.basin_size.sum() == len(values)
    listed = 60
    barrier = bottlenecks(len(minima), found.first, found.second, found.level, found.energy, listed)
    between = [[values[min(i, j) : max(i, j) + 1].max() for j in minima[:listed]] for i in minima[:listed]]
    assert np.array_equal(barrier, between)
    with pytest.raises(UserError, match="GiB"):
        found.barrier()


def test_passes_that_do_not_fit():
    """Independent values: a minimum in every fifteen states, and nearly as many pairs of neighbours as edges."""
    values = np.random.default_rng(0).random(1 << 14)
    found, every = watershed(values, 14, pass_limit=1), watershed(values, 14)
    assert every.complete
    assert not found.complete
    assert len(found.level) == len(found.energy) - 1
    assert np.array_equal(found.barrier(), every.barrier())
    check_basins_and_paths(found, values, 14, 2, "any")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"values": np.zeros(7), "n": 3}, "values"),
        ({"values": np.array([0.0, np.nan]), "n": 1}, "finite"),
        ({"values": np.zeros(9), "n": 2, "levels": 3, "mirror": True}, "mirror"),
        ({"values": np.arange(8.0), "n": 3, "mirror": True}, "mirror"),
        ({"values": np.zeros(4), "n": 3}, "values"),
        ({"values": np.zeros(9), "n": 2, "levels": 3, "neighbourhood": "near"}, "neighbourhood"),
        ({"values": np.zeros(1), "n": 0}, "levels"),
    ],
)
def test_wrong_input(arguments, word):
    with pytest.raises(UserError, match=word):
        watershed(**arguments)
