"""Reverse search against labels of all states: the passes that are recorded, and exact arithmetic."""

import numpy as np
import pytest

from theodolite.field import FlipCosts
from theodolite.search.exact_costs import costs_of, descend, exact_costs, pack_words, pass_path, unpack_mask
from theodolite.search.reverse_search import DEEPER, DONE, PAUSED, deepened, enumerate_trees, new_found, new_walk
from theodolite.systems import spin_glass


def masks_of(n):
    return ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1).astype(np.int64) - 1


def words_of(mask):
    words = np.zeros(-(-len(mask) // 64), np.uint64)
    pack_words(mask, words)
    return words


def energy_of(exact, mask):
    return costs_of(exact.quadruple, exact.external, mask, np.empty(len(mask), np.int64))


def labelled(exact, n):
    """Integer energies and the minimum each state descends to, of all states."""
    energy, label = np.empty(1 << n, np.int64), np.empty(1 << n, np.int64)
    for index, mask in enumerate(masks_of(n)):
        costs = np.empty(n, np.int64)
        energy[index] = costs_of(exact.quadruple, exact.external, mask, costs)
        descend(exact.quadruple, mask, costs)
        label[index] = ((mask + 1) << np.arange(n)).sum()
    return energy, label


def enumerated(exact, words, ceiling, quota=10**9, depth=8):
    """Passes of one tree, found in walks of ``quota`` states, and the states examined."""
    walk, found = new_walk(len(exact.external), depth), new_found(len(exact.external), 1 << 12)
    source, target, ceilings = np.zeros(1, np.int64), np.array([ceiling]), np.zeros(1, np.int64)
    ended, at, walking, states = PAUSED, 0, False, 0
    while ended != DONE:
        ended, at, walking, more = enumerate_trees(
            exact, walk, found, words[None], source, target, ceilings, at, walking, quota
        )
        states += more
        walk = deepened(walk) if ended == DEEPER else walk
    assert ceilings[0] == ceiling
    return found, int(found.count[0]), states


def instance(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 11))
    whole = bool(seed % 2)
    couplings = np.triu(rng.integers(-2, 3, (n, n)) if whole else rng.normal(0, 1, (n, n)), 1).astype(np.float64)
    external = (rng.integers(-1, 2, n) if whole else rng.normal(0, 0.4, n)).astype(np.float64)
    return exact_costs(FlipCosts(couplings + couplings.T, external)), n, rng


@pytest.mark.parametrize("seed", range(12))
def test_the_lowest_way_out_of_a_tree_is_recorded(seed):
    exact, n, rng = instance(seed)
    energy, label = labelled(exact, n)
    index = np.arange(1 << n)
    looked_at = 0
    for minimum in np.unique(label):
        inside = index[label == minimum]
        out = [
            np.maximum(energy[inside], energy[inside ^ (1 << k)])[label[inside ^ (1 << k)] != minimum] for k in range(n)
        ]
        truth = np.concatenate(out).min()
        mask = masks_of(n)[minimum]
        ceiling = int(rng.integers(energy[minimum], energy.max() + 2))
        found, count, _ = enumerated(exact, words_of(mask), ceiling)
        level = found.level[:count]
        assert (level >= truth).all()
        if truth < ceiling:
            assert level.min() == truth
            looked_at += 1
        for m in range(count):
            path = pass_path(exact, found.state[m], int(found.coordinate[m]))
            neighbour = np.empty(n, np.int64)
            unpack_mask(found.neighbour[m], neighbour)
            assert np.array_equal(path[0], 2 * mask + 1) and np.array_equal(path[-1], 2 * neighbour + 1)
            assert ((path[1:] != path[:-1]).sum(1) == 1).all()
            heights = [energy_of(exact, (step.astype(np.int64) - 1) // 2) for step in path]
            assert max(heights) == level[m]
    assert looked_at > 0


def test_a_walk_in_parts_finds_the_same():
    exact = exact_costs(spin_glass(40, 3).flip_costs)
    mask = np.zeros(40, np.int64)
    costs = np.empty(40, np.int64)
    ceiling = costs_of(exact.quadruple, exact.external, mask, costs)
    descend(exact.quadruple, mask, costs)
    bottom = energy_of(exact, mask)
    ceiling = bottom + (ceiling - bottom) // 4
    whole, count, states = enumerated(exact, words_of(mask), ceiling, depth=80)
    parts, count_parts, states_parts = enumerated(exact, words_of(mask), ceiling, quota=97, depth=3)
    assert states > 1000 and count > 2
    assert (count, states) == (count_parts, states_parts)
    assert np.array_equal(whole.level[:count], parts.level[:count])
    assert np.array_equal(whole.state[:count], parts.state[:count])


@pytest.mark.parametrize("n", [5, 64, 65, 130])
def test_integers_are_the_energies(n):
    rng = np.random.default_rng(n)
    costs = FlipCosts(spin_glass(n, 1).flip_costs.couplings * 7.3, rng.normal(0, 1, n))
    exact = exact_costs(costs)
    assert exact.rounding < 1e-9
    for _ in range(20):
        spins = rng.choice([-1.0, 1.0], n)
        mask = np.where(spins > 0, 0, -1).astype(np.int64)
        flips = np.empty(n, np.int64)
        energy = costs_of(exact.quadruple, exact.external, mask, flips) * exact.unit
        local = costs.couplings @ spins + costs.external
        assert energy == pytest.approx(-0.5 * spins @ costs.couplings @ spins - costs.external @ spins, abs=1e-9)
        assert flips * exact.unit == pytest.approx(2 * spins * local, abs=1e-9)
        back = np.empty(n, np.int64)
        unpack_mask(words_of(mask), back)
        assert np.array_equal(back, mask)


def test_whole_numbers_are_exact():
    costs = FlipCosts(np.array([[0.0, 3.0], [3.0, 0.0]]), np.array([1.0, -2.0]))
    exact = exact_costs(costs)
    assert exact.rounding == 0.0
    assert energy_of(exact, np.array([0, -1])) * exact.unit == 3.0 - 1.0 - 2.0
