"""Trees of merges against Algorithm 2 of the thesis, against brute-force closures, and against trees drawn by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_trees import random_tree
from theodolite import disconnectivity
from theodolite.errors import UserError
from theodolite.search import passes


def random_barriers(seed, n, levels=None, missing=0.0):
    """Energies and pair barriers of `n` minima; few distinct `levels` make ties; some pairs have no path."""
    generator = np.random.default_rng(seed)
    energy = generator.normal(size=n) if levels is None else generator.integers(0, 3, n).astype(float)
    height = generator.exponential(size=(n, n)) if levels is None else generator.integers(0, levels, (n, n))
    barrier = np.maximum(energy[:, None], energy) + np.triu(height, 1) + np.triu(height, 1).T
    gone = np.triu(generator.random((n, n)) < missing, 1)
    barrier[gone | gone.T] = np.inf
    np.fill_diagonal(barrier, energy)
    return energy, barrier


def closed(barrier):
    """Min-max closure by trying every detour."""
    found = barrier.copy()
    for through in range(len(found)):
        found = np.minimum(found, np.maximum(found[:, through, None], found[None, through, :]))
    return found


def leaf_sets(merges, n):
    below = [{k} for k in range(n)]
    for first, second in merges[:, :2].astype(int):
        below.append(below[first] | below[second])
    return below[n:]


def of(energy, barrier, lower=None):
    lower = np.maximum(energy[:, None], energy) if lower is None else lower
    return disconnectivity.tree(energy, barrier, lower)


@pytest.mark.parametrize("seed", range(20))
def test_tree_is_algorithm_2_of_the_thesis(seed):
    energy, barrier = random_barriers(seed, 3 + seed)
    merges, literal = of(energy, barrier), disconnectivity.algorithm_2(barrier)
    assert np.array_equal(merges[:, 2], literal[:, 2])
    assert leaf_sets(merges, len(energy)) == leaf_sets(literal, len(energy))


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.8]))
@settings(max_examples=150, deadline=None)
def test_with_ties_and_missing_paths_both_say_the_closed_barriers(seed, n, levels, missing):
    energy, barrier = random_barriers(seed, n, levels, missing)
    merges, literal = of(energy, barrier), disconnectivity.algorithm_2(barrier)
    truth = closed(barrier)
    for found in (merges, literal):
        np.fill_diagonal(truth, energy)
        assert np.array_equal(disconnectivity.barriers(found, energy), truth)
        assert (np.diff(found[:, 2][np.isfinite(found[:, 2])]) >= 0).all()
    components = len({tuple(np.isfinite(row)) for row in truth})
    assert np.isfinite(merges[: n - components, 2]).all()
    assert np.isinf(merges[n - components :, 2]).all()
    assert [len(group) for group in leaf_sets(merges, n)] == merges[:, 4].tolist()


def test_levels_are_exact_far_from_zero_and_the_lower_minimum_comes_first():
    energy, barrier = random_barriers(3, 40)
    merges = of(energy + 1e9, barrier + 1e9)
    assert set(merges[:, 2]) <= set((barrier + 1e9).ravel())
    below = [{k} for k in range(40)] + leaf_sets(merges, 40)
    for first, second in merges[:, :2].astype(int):
        assert min(energy[list(below[first])]) < min(energy[list(below[second])])


def test_the_lower_bound_of_a_merge_is_the_least_of_its_pairs():
    energy, barrier = random_barriers(5, 15)
    generator = np.random.default_rng(6)
    share = np.triu(generator.random((15, 15)), 1)
    floor = np.maximum(energy[:, None], energy)
    lower = floor + (share + share.T) * (barrier - floor)
    merges = of(energy, barrier, lower)
    below = [{k} for k in range(15)] + leaf_sets(merges, 15)
    for first, second, upper, bound, _ in merges:
        pairs = list(itertools.product(below[int(first)], below[int(second)]))
        assert bound == min(lower[pair] for pair in pairs)
        assert upper == min(barrier[pair] for pair in pairs)


def test_tree_of_the_closure_is_the_tree_of_the_passes():
    generator = np.random.default_rng(8)
    first, second = generator.integers(0, 30, (2, 90))
    first, second = first[first != second], second[first != second]
    energy = generator.normal(size=30)
    level = np.maximum(energy[first], energy[second]) + generator.exponential(size=len(first))
    barrier = passes.bottlenecks(30, first, second, level, energy)
    assert np.array_equal(disconnectivity.barriers(of(energy, barrier), energy), barrier)


def comb():
    """Four minima: 1 meets 0 at 2, 3 meets 2 at 2.5, the two pairs meet at 5; depths 5+, 1, 3.5, 0.25."""
    energy = np.array([0.0, 1.0, 1.5, 2.25])
    barrier = np.full((4, 4), 5.0)
    barrier[0, 1] = barrier[1, 0] = 2.0
    barrier[2, 3] = barrier[3, 2] = 2.5
    np.fill_diagonal(barrier, energy)
    return energy, of(energy, barrier)


def test_pruning_takes_the_shallow_into_the_lower_minimum_they_meet():
    energy, merges = comb()
    for depth, into in ((0.0, [0, 1, 2, 3]), (0.5, [0, 1, 2, 2]), (1.5, [0, 0, 2, 2]), (4.0, [0, 0, 0, 0])):
        pruned = disconnectivity.prune(merges, energy, depth)
        assert pruned.into.tolist() == into
        assert pruned.kept.tolist() == sorted(set(into))
    pruned = disconnectivity.prune(merges, energy, 1.5)
    assert pruned.tree.tolist() == [[0, 1, 5.0, 1.5, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_after_pruning_keeps_its_barriers(seed):
    energy, barrier = random_barriers(seed, 60, missing=0.97)
    merges = of(energy, barrier)
    truth = disconnectivity.barriers(merges, energy)
    pruned = disconnectivity.prune(merges, energy, 0.8)
    assert 1 < len(pruned.kept) < 60
    left = disconnectivity.barriers(pruned.tree, energy[pruned.kept])
    assert np.array_equal(left, truth[np.ix_(pruned.kept, pruned.kept)])
    for minimum in range(60):
        lower = [k for k in range(60) if energy[k] < energy[minimum]]
        depth = min(truth[minimum, lower], default=np.inf) - energy[minimum]
        assert (minimum in pruned.kept) == (depth >= 0.8)
        assert np.isfinite(truth[minimum, pruned.into[minimum]])


def test_equal_minima_are_pruned_to_the_first():
    energy = np.zeros(3)
    merges = of(energy, np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    assert disconnectivity.prune(merges, energy, 2.0).into.tolist() == [0, 0, 0]


def test_a_window_emphasises_minima_and_the_merges_between_them():
    energy, merges = comb()
    emphasis = disconnectivity.within(merges, energy, 0.0, 1.5)
    assert emphasis.minima.tolist() == [True, True, True, False]
    assert emphasis.merges.tolist() == [True, False, True]


def test_compare_marks_the_merges_that_only_one_tree_has():
    energy, merges = comb()
    other = np.full((4, 4), 5.0)
    other[0, 1] = other[1, 0] = 1.7
    other[0, 2] = other[2, 0] = other[1, 2] = other[2, 1] = 3.0
    theirs = of(energy, other)
    matching = np.stack([np.arange(4)] * 2, axis=1)
    assert disconnectivity.compare(merges, theirs, matching).tolist() == [1, 0, 1]
    assert disconnectivity.compare(merges, merges, matching).tolist() == [1, 1, 1]
    # Without minimum 3 the merge of 2 and 3 has nothing to say, and the rest agrees.
    assert disconnectivity.compare(merges, theirs, matching[:3]).tolist() == [1, -1, 1]


def test_ties_have_no_order_to_disagree_about():
    energy = np.zeros(4)
    level = np.full((4, 4), 2.0)
    level[0, 1] = level[1, 0] = 1.0
    merges = of(energy, level)
    swapped = merges.copy()
    # The same tree with the last two minima joined in the other order.
    swapped[1, :2], swapped[2, :2] = (4, merges[2, 1]), (5, merges[1, 1])
    assert not np.array_equal(merges[:, :2], swapped[:, :2])
    matching = np.stack([np.arange(4)] * 2, axis=1)
    assert disconnectivity.compare(merges, swapped, matching).tolist() == [1, 1, 1]


def test_distance_counts_sets_and_averages_barriers():
    energy, merges = comb()
    matching = np.stack([np.arange(4)] * 2, axis=1)
    same = disconnectivity.tree_distance(merges, energy, merges, energy, matching)
    assert (same.barrier, same.relative, same.robinson_foulds, same.most, same.pairs) == (0.0, 0.0, 0, 4, 6)
    other = np.full((4, 4), 5.0)
    other[0, 1] = other[1, 0] = 1.7
    other[0, 2] = other[2, 0] = other[1, 2] = other[2, 1] = 3.0
    apart = disconnectivity.tree_distance(merges, energy, of(energy, other), energy, matching)
    # {2, 3} only in the one, {0, 1, 2} only in the other; barriers differ by .3, 2, 2 and 2.5 in 6 pairs.
    assert apart.robinson_foulds == 2
    assert apart.barrier == pytest.approx(6.8 / 6)
    assert apart.relative == pytest.approx(6.8 / (1.7 - 1 + 2 * (3 - 1.5) + 3 * (5 - 2.25)))


def test_unknown_barriers_are_not_compared():
    energy = np.array([0.0, 0.1, 0.2])
    level = np.full((3, 3), np.inf)
    level[0, 1] = level[1, 0] = 1.0
    merges = of(energy, level)
    matching = np.stack([np.arange(3)] * 2, axis=1)
    assert disconnectivity.compare(merges, merges, matching).tolist() == [1, -1]
    assert disconnectivity.tree_distance(merges, energy, merges, energy, matching).pairs == 1


def test_one_minimum_has_no_merges():
    assert of(np.zeros(1), np.zeros((1, 1))).shape == (0, 5)
    assert disconnectivity.prune(np.empty((0, 5)), np.zeros(1), 1.0).kept.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e, u, low: (e[:2], u, low), "upper"),
        (lambda e, u, low: (e, u + np.triu(np.ones((3, 3))), low), "upper"),
        (lambda e, u, low: (e, u, u + 1), "lower"),
        (lambda e, u, low: (e + 10, u, low), "upper"),
        (lambda e, u, low: (e * np.nan, u, low), "energy"),
        (lambda e, u, low: (e, u * np.nan, low), "upper"),
    ],
)
def test_bad_bounds_are_refused(change, named):
    energy, barrier = random_barriers(1, 3)
    with pytest.raises(UserError) as caught:
        disconnectivity.tree(*change(energy, barrier, barrier))
    assert caught.value.argument == named


def test_bad_depths_windows_and_matchings_are_refused():
    energy, merges = comb()
    with pytest.raises(UserError, match="depth"):
        disconnectivity.prune(merges, energy, -1.0)
    with pytest.raises(UserError, match="high"):
        disconnectivity.within(merges, energy, 1.0, 0.0)
    with pytest.raises(UserError, match="matching"):
        disconnectivity.compare(merges, merges, np.array([[0, 1], [0, 2]]))
    with pytest.raises(UserError, match="tree"):
        disconnectivity.prune(merges, energy[:3], 1.0)


def agreement_by_sets(tree_a, tree_b, matching):
    """`compare` by its definition, with sets of places instead of bits."""

    def joined(tree, matched):
        n = len(tree) + 1
        below = [frozenset()] * n
        for place, minimum in enumerate(matched.tolist()):
            below[minimum] = frozenset([place])
        found = []
        for one, other, level in np.asarray(tree)[:, :3].tolist():
            first, second = below[int(one)], below[int(other)]
            below.append(first | second)
            found.append(below[-1] if first and second and np.isfinite(level) else None)
        whole = below[n:]
        for row in range(len(tree) - 1, -1, -1):
            found[row] = whole[row] if found[row] is not None else None
            for child in (int(tree[row, 0]) - n, int(tree[row, 1]) - n):
                if child >= 0 and tree[child, 2] == tree[row, 2]:
                    whole[child] = whole[row]
        return found

    theirs = set(joined(tree_b, matching[:, 1]))
    return np.array([-1 if group is None else int(group in theirs) for group in joined(tree_a, matching[:, 0])], int)


@pytest.mark.parametrize("seed", range(8))
def test_comparison_is_that_of_sets_of_matched_minima(seed):
    generator = np.random.default_rng(100 + seed)
    (_, ours), (_, theirs) = (random_tree(2 * seed + k, 30, missing=0.9 if seed % 2 else 0.0) for k in (0, 1))
    n_matched = 3 + 3 * seed
    matching = np.stack([generator.choice(30, n_matched, replace=False) for _ in range(2)], 1)
    found = disconnectivity.compare(ours, theirs, matching)
    assert np.array_equal(found, agreement_by_sets(ours, theirs, matching))
    if seed == 2:
        assert set(found.tolist()) == {-1, 0, 1}
