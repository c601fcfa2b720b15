"""Disconnectivity graphs: which minima are joined below each energy, as a tree of merges.

Sources: Becker and Karplus, J. Chem. Phys. 106, 1495 (1997); Hill, Nijkamp and Zhu 2019, 'Building a Telescope to
Look Into High-Dimensional Image Spaces', section 2.7; Hill 2020 (PhD thesis, UCLA), Algorithm 2.

A tree is an array ``(K - 1, 5)``, a row a merge, in the layout of the result's `disconnectivity` (`MERGE_PARTS`): its
two children (minimum k, or K + row of a merge; the child with the lower minimum first), the upper and the lower bound
of its energy, and the number of minima below it. Merges rise in energy. Minima between which no path is known meet at
an infinite upper bound: those merges come last, so that the first K - components rows are the finite ones and the
array has K - 1 rows whatever is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from theodolite.errors import UserError

__all__ = [
    "MERGE_PARTS",
    "Emphasis",
    "Pruned",
    "TreeDistance",
    "algorithm_2",
    "barriers",
    "compare",
    "prune",
    "tree",
    "tree_distance",
    "within",
]

MERGE_PARTS = ("first", "second", "upper_bound", "lower_bound", "size")
_FIRST, _SECOND, _UPPER = range(3)


@dataclass(frozen=True)
class Pruned:
    """A smaller tree: `kept` ``(M,)`` its minima, rising; `into` ``(K,)`` the kept minimum each now belongs to."""

    kept: np.ndarray
    into: np.ndarray
    tree: np.ndarray


@dataclass(frozen=True)
class Emphasis:
    """What lies in an energy window: `minima` ``(K,)``, and `merges` ``(K - 1,)`` that join two of them; bool."""

    minima: np.ndarray
    merges: np.ndarray


@dataclass(frozen=True)
class TreeDistance:
    """How far two trees of the same minima are apart.

    `barrier`: mean absolute difference of the barriers over pairs of minima, in units of the energy.
    `relative`: `barrier` over the mean depth of the second tree's barriers (above the higher minimum of the pair).
    `robinson_foulds`: sets of minima that are joined at some energy in one tree and in the other at none; `most`:
    the largest it could be. `pairs`: the pairs compared, those with a path in both trees.
    """

    barrier: float
    relative: float
    robinson_foulds: int
    most: int
    pairs: int


def tree(energy: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The disconnectivity graph ``(K - 1, 5)`` of barriers: the single linkage of their upper bounds.

    ``energy`` ``(K,)`` of the minima; ``upper`` and ``lower`` ``(K, K)``, symmetric bounds of the barriers in the same
    unit, ``upper`` infinite where no path is known; diagonals are not read. The lower bound of a merge is the least
    over all pairs that it joins: no path between the two sides stays below it.

    Raises UserError: shapes that do not fit, NaN, matrices that are not symmetric, a lower bound over an upper one, or
    an upper bound under one of its minima.
    """
    energy, upper, lower = (np.asarray(values, np.float64) for values in (energy, upper, lower))
    if energy.shape == (0,):
        return np.empty((0, 5))  # an interrupted search may not have found a minimum yet
    _require_bounds(energy, upper, lower)
    n = len(energy)
    if n == 1:
        return np.empty((0, 5))
    condensed = squareform(upper, checks=False)
    # Single linkage needs only the order of the levels. Ranks keep ties and infinite levels exact, which
    # differences from the lowest energy would round.
    rank = np.unique(condensed, return_inverse=True)[1].astype(np.float64)
    joined = linkage(rank + 1.0, "single")[:, :2].astype(np.int64)
    below: list[np.ndarray] = [np.array([minimum]) for minimum in range(n)]
    lowest = list(range(n))
    merges = np.empty((n - 1, 5))
    for row, (one, other) in enumerate(joined.tolist()):
        first, second = (one, other) if _elder(energy, lowest[one], lowest[other]) else (other, one)
        pairs = np.ix_(below[first], below[second])
        below.append(np.concatenate([below[first], below[second]]))
        lowest.append(lowest[first])
        merges[row] = first, second, upper[pairs].min(), lower[pairs].min(), len(below[-1])
        below[first] = below[second] = np.empty(0, np.int64)
    return merges


def algorithm_2(matrix: np.ndarray) -> np.ndarray:
    """Hill 2020, Algorithm 2, word for word, in O(K^3): ``(K - 1, 3)``, the two children and the level of each merge.

    ``matrix`` ``(K, K)``: the lowest barrier of each pair, the minima's own energies on the diagonal (not read here:
    they only say where leaves are drawn). The plain form that `tree` is held to in the tests.
    """
    current = np.array(matrix, np.float64)
    n = len(current)
    labels = list(range(n))
    merges = np.empty((max(n - 1, 0), 3))
    for step in range(n - 1):
        pairs = np.triu_indices(len(labels), 1)
        least = int(np.argmin(current[pairs]))
        one, other = int(pairs[0][least]), int(pairs[1][least])
        merges[step] = labels[one], labels[other], current[one, other]
        kept = [place for place in range(len(labels)) if place not in (one, other)]
        following = np.empty((len(kept) + 1, len(kept) + 1))
        following[:-1, :-1] = current[np.ix_(kept, kept)]
        following[-1, :-1] = following[:-1, -1] = np.minimum(current[one, kept], current[other, kept])
        following[-1, -1] = current[one, other]
        current, labels = following, [labels[place] for place in kept] + [n + step]
    return merges


def barriers(merges: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """The barriers ``(K, K)`` a tree says: the level at which each pair meets, ``energy`` on the diagonal."""
    n = len(energy)
    found = np.empty((n, n))
    np.fill_diagonal(found, energy)
    below: list[list[int]] = [[minimum] for minimum in range(n)]
    for first, second, level in _children(merges):
        for one, other in ((first, second), (second, first)):
            found[np.ix_(below[one], below[other])] = level
        below.append(below[first] + below[second])
    return found


def prune(merges: np.ndarray, energy: np.ndarray, depth: float) -> Pruned:
    """Merge minima shallower than ``depth`` into their neighbours.

    A minimum's depth is the climb from it to where it first meets a lower one (on equal energies the one of smaller
    index counts as lower); the lowest of each connected part is infinitely deep. What is pruned goes to the lower
    minimum that it meets, or on to where that one goes. ``depth`` is in units of the energy.

    Raises UserError: a depth below 0 or NaN, or a tree that is not of these minima.
    """
    energy = np.asarray(energy, np.float64)
    _require_tree(merges, len(energy))
    if not depth >= 0:
        raise UserError("depth", "a number of at least 0, in units of the energy", repr(depth), "for example depth=0.1")
    into = np.arange(len(energy))
    lowest = list(range(len(energy)))
    for first, second, level in _children(merges):
        elder, younger = lowest[first], lowest[second]
        if not _elder(energy, elder, younger):
            elder, younger = younger, elder
        lowest.append(elder)
        if level - energy[younger] < depth:
            into[younger] = elder
    while not np.array_equal(into, into[into]):
        into = into[into]
    kept = np.unique(into)
    return Pruned(kept, into, _restrict(merges, len(energy), kept))


def within(merges: np.ndarray, energy: np.ndarray, low: float, high: float) -> Emphasis:
    """What to emphasise in an energy window: minima in [``low``, ``high``] and the merges that join two of them.

    Raises UserError: a window that ends before it starts, or a tree that is not of these minima.
    """
    energy = np.asarray(energy, np.float64)
    _require_tree(merges, len(energy))
    if not low <= high:
        raise UserError("high", f"an energy of at least low = {low}", repr(high), "exchange the two ends")
    minima = (energy >= low) & (energy <= high)
    holds = list(minima)
    joins = []
    for first, second, _ in _children(merges):
        joins.append(holds[first] and holds[second])
        holds.append(holds[first] or holds[second])
    return Emphasis(minima, np.array(joins, bool))


def compare(tree_a: np.ndarray, tree_b: np.ndarray, matching: np.ndarray) -> np.ndarray:
    """For each merge of ``tree_a`` ``(K_a - 1,)`` whether ``tree_b`` agrees: 1 yes, 0 no, -1 not testable.

    ``matching`` ``(m, 2)``: minima of the two trees that are the same place. A merge agrees where the minima joined at
    its level, of those that are in both trees, are joined at some level of the other tree with no others (the
    blue and red lines of Hill, Nijkamp and Zhu 2019, Figure 15). Not testable: a merge with an unmatched side, or at
    an infinite level. Merges of equal level are one merge of several sides.

    Raises UserError: a matching that names a minimum twice or one that is not there.
    """
    matching = _matched(tree_a, tree_b, matching)
    theirs = set(_joined_sets(tree_b, matching[:, 1]))
    return np.array(
        [-1 if group is None else int(group in theirs) for group in _joined_sets(tree_a, matching[:, 0])], int
    )


def tree_distance(
    tree_a: np.ndarray, energy_a: np.ndarray, tree_b: np.ndarray, energy_b: np.ndarray, matching: np.ndarray
) -> TreeDistance:
    """The distance of two trees over their ``matching`` ``(m, 2)`` minima, ``tree_b`` the reference.

    Two measures: the difference of the barriers the trees say (`TreeDistance.barrier`, `relative`), which weighs high
    and low merges alike, and the Robinson-Foulds count of the sets of minima that only one of them joins.
    Raises UserError as `compare`.
    """
    matching = _matched(tree_a, tree_b, matching)
    rows = np.triu_indices(len(matching), 1)
    ours = barriers(tree_a, energy_a)[np.ix_(matching[:, 0], matching[:, 0])][rows]
    theirs = barriers(tree_b, energy_b)[np.ix_(matching[:, 1], matching[:, 1])][rows]
    energy = np.asarray(energy_b, np.float64)[matching[:, 1]]
    known = np.isfinite(ours) & np.isfinite(theirs)
    difference = relative = float("nan")
    if known.any():
        difference = float(np.abs(ours[known] - theirs[known]).mean())
        depth = float((theirs - np.maximum(energy[rows[0]], energy[rows[1]]))[known].mean())
        relative = difference / depth if depth > 0 else (0.0 if difference == 0 else float("inf"))
    everything = (1 << len(matching)) - 1
    groups = [
        {group for group in _joined_sets(merges, side) if group is not None and group != everything}
        for merges, side in ((tree_a, matching[:, 0]), (tree_b, matching[:, 1]))
    ]
    return TreeDistance(
        difference, relative, len(groups[0] ^ groups[1]), len(groups[0]) + len(groups[1]), int(known.sum())
    )


def _elder(energy: np.ndarray, one: int, other: int) -> bool:
    return (energy[one], one) < (energy[other], other)


def _children(merges: np.ndarray) -> list[tuple[int, int, float]]:
    return [(int(first), int(second), float(level)) for first, second, level in np.asarray(merges)[:, :3]]


def _restrict(merges: np.ndarray, n: int, kept: np.ndarray) -> np.ndarray:
    """The tree of some of the minima: merges with nothing left on one side are gone, nodes are named anew."""
    name = [-1] * n
    size = [0] * n
    for new, old in enumerate(kept.tolist()):
        name[old], size[old] = new, 1
    rows: list[tuple[float, ...]] = []
    for first, second, upper, lower, _ in np.asarray(merges).tolist():
        one, other = name[int(first)], name[int(second)]
        size.append(size[int(first)] + size[int(second)])
        if one >= 0 and other >= 0:
            name.append(len(kept) + len(rows))
            rows.append((one, other, upper, lower, size[-1]))
        else:
            name.append(max(one, other))
    return np.array(rows).reshape(-1, 5)


def _joined_sets(merges: np.ndarray, matched: np.ndarray) -> list[int | None]:
    """Of each merge the matched minima joined at its level, a bit each; None where it joins no two of them."""
    n = len(merges) + 1
    below = [0] * n
    for place, minimum in enumerate(matched.tolist()):
        below[minimum] = 1 << place
    testable = []
    for first, second, level in _children(merges):
        testable.append(bool(below[first] and below[second]) and np.isfinite(level))
        below.append(below[first] | below[second])
    whole: list[int | None] = [None] * len(merges)
    top = below[n:]
    # Down from the root: a merge that only continues one at the same level belongs to that one.
    for row in range(len(merges) - 1, -1, -1):
        whole[row] = top[row] if testable[row] else None
        for child in (int(merges[row, _FIRST]) - n, int(merges[row, _SECOND]) - n):
            if child >= 0 and merges[child, _UPPER] == merges[row, _UPPER]:
                top[child] = top[row]
    return whole


def _matched(tree_a: np.ndarray, tree_b: np.ndarray, matching: np.ndarray) -> np.ndarray:
    for merges in (tree_a, tree_b):
        _require_tree(merges, len(merges) + 1)
    pairs = np.asarray(matching, np.int64).reshape(-1, 2)
    for side, merges in enumerate((tree_a, tree_b)):
        named = pairs[:, side]
        inside = ((named >= 0) & (named <= len(merges))).all()
        if not inside or len(np.unique(named)) != len(named):
            raise UserError(
                "matching",
                f"pairs that name each of the {len(merges) + 1} minima of a tree once at most",
                f"column {side}: {named.tolist()[:12]}",
                "give (minimum of tree_a, minimum of tree_b) for the minima that both have",
            )
    return pairs


def _require_tree(merges: np.ndarray, n: int) -> None:
    if np.shape(merges) != (n - 1, 5):
        raise UserError(
            "tree",
            f"({n - 1}, 5), the merges of {n} minima",
            str(np.shape(merges)),
            "make it with disconnectivity.tree",
        )


def _require_bounds(energy: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
    n = len(energy) if energy.ndim == 1 else 0
    if n == 0 or not np.isfinite(energy).all():
        raise UserError("energy", "the finite energies of at least one minimum", f"shape {energy.shape}", "give (K,)")
    for name, matrix in (("upper", upper), ("lower", lower)):
        if matrix.shape != (n, n):
            raise UserError(name, f"a matrix ({n}, {n})", str(matrix.shape), "give a row and a column a minimum")
        if np.isnan(matrix).any() or not np.array_equal(matrix, matrix.T):
            raise UserError(name, "a symmetric matrix without NaN", "another", "use inf where no path is known")
    apart = ~np.eye(n, dtype=bool)
    slack = 1e-9 * max(1.0, float(np.abs(energy).max()))
    if (lower[apart] > upper[apart] + slack).any():
        raise UserError("lower", "bounds of at most those in upper", "larger ones", "check which matrix is which")
    if (upper[apart] < np.maximum(energy[:, None], energy[None, :])[apart] - slack).any():
        raise UserError("upper", "barriers no lower than their minima", "lower ones", "check the order of the minima")
