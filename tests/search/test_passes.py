"""The closure of passes against the definition: the least highest level over all chains."""

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from theodolite.search.passes import bottlenecks, minimum_spanning_passes, spanning_forest


def network(seed: int, n: int = 12, m: int = 20):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, n, m), rng.integers(0, n, m)
    energy = np.sort(rng.normal(size=n))
    level = np.maximum(energy[first], energy[second]) + rng.exponential(size=m)
    return n, first, second, level, energy


def floyd(n, first, second, level, energy):
    """The definition, by dynamic programming over intermediate minima."""
    barrier = np.full((n, n), np.inf)
    for a, b, w in zip(first, second, level, strict=True):
        if a != b:
            barrier[a, b] = barrier[b, a] = min(barrier[a, b], w)
    for k in range(n):
        barrier = np.minimum(barrier, np.maximum(barrier[:, k : k + 1], barrier[k : k + 1]))
    np.fill_diagonal(barrier, energy)
    return barrier


@pytest.mark.parametrize("seed", range(30))
def test_bottlenecks_are_those_of_the_definition(seed):
    n, first, second, level, energy = network(seed)
    assert np.array_equal(bottlenecks(n, first, second, level, energy), floyd(n, first, second, level, energy))


@pytest.mark.parametrize("listed", [1, 5, 12])
def test_listed_minima_are_joined_through_the_others(listed):
    n, first, second, level, energy = network(3, m=40)
    whole = floyd(n, first, second, level, energy)
    assert np.array_equal(bottlenecks(n, first, second, level, energy, listed), whole[:listed, :listed])


def test_the_spanning_passes_weigh_as_little_as_scipys_tree():
    n, first, second, level, _ = network(5, m=60)
    level = level + 10.0
    dense = np.full((n, n), np.inf)
    for a, b, w in zip(first, second, level, strict=True):
        if a != b:
            dense[a, b] = dense[b, a] = min(dense[a, b], w)
    tree = minimum_spanning_tree(np.where(np.isfinite(dense), dense, 0.0))
    chosen = minimum_spanning_passes(n, first, second, level)
    assert level[chosen].sum() == pytest.approx(tree.sum())
    assert np.all(np.diff(level[chosen]) >= 0)


def test_infinite_and_unknown_levels_join_nothing():
    first, second = np.array([0, 1]), np.array([1, 2])
    barrier = bottlenecks(3, first, second, np.array([np.inf, np.nan]), np.zeros(3))
    assert np.isinf(barrier[~np.eye(3, dtype=bool)]).all()


@pytest.mark.parametrize("seed", range(10))
def test_routes_lead_from_start_to_end_below_the_barrier(seed):
    n, first, second, level, energy = network(seed, m=25)
    barrier = bottlenecks(n, first, second, level, energy)
    forest = spanning_forest(n, first, second, level)
    for start in range(n):
        for end in range(n):
            route = forest.route(start, end)
            if start == end or np.isinf(barrier[start, end]):
                assert route == []
                continue
            assert max(level[m] for m, _ in route) == barrier[start, end]
            place = start
            for m, towards_root in route:
                assert place in (first[m], second[m])
                assert (
                    forest.depth[second[m] if place == first[m] else first[m]] < forest.depth[place]
                ) == towards_root
                place = second[m] if place == first[m] else first[m]
            assert place == end
