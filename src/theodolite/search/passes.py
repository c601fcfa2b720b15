"""The min-max closure of a network of minima and passes: the minimum bottleneck spanning forest.

A pass joins two minima at a level, the highest energy of a known path. The lowest barrier between two minima over
every chain of passes is the highest level on their path in the minimum spanning forest (Hu 1961; single linkage).
"""

from __future__ import annotations

import numpy as np
from numba import njit


def minimum_spanning_passes(n: int, first: np.ndarray, second: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Indices of the passes that span ``n`` minima at the least levels, rising in level; ties keep their order.

    ``first``, ``second`` ``(m,)`` name minima 0..n-1 and ``level`` ``(m,)`` is in units of the energy. Passes that
    are infinite or NaN are left out, so the forest may have several trees.
    """
    order = np.argsort(level, kind="stable")
    order = order[np.isfinite(level[order])]
    return order[_joins(n, first[order].astype(np.int64), second[order].astype(np.int64))]


def bottlenecks(n: int, first: np.ndarray, second: np.ndarray, level: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Lowest barriers ``(n, n)`` over all chains of passes; inf where there is none, ``energy`` on the diagonal."""
    spanning = minimum_spanning_passes(n, first, second, level)
    barrier = _spread(
        n, first[spanning].astype(np.int64), second[spanning].astype(np.int64), level[spanning].astype(np.float64)
    )
    np.fill_diagonal(barrier, energy)
    return barrier


@njit
def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit
def _joins(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    parent = np.arange(n)
    kept = np.zeros(len(first), np.bool_)
    for m in range(len(first)):
        a, b = _root(parent, first[m]), _root(parent, second[m])
        if a != b:
            parent[b] = a
            kept[m] = True
    return kept


@njit
def _spread(n: int, first: np.ndarray, second: np.ndarray, level: np.ndarray) -> np.ndarray:
    barrier = np.full((n, n), np.inf)
    parent = np.arange(n)
    following = np.full(n, -1)
    last = np.arange(n)
    for m in range(len(first)):
        a, b = _root(parent, first[m]), _root(parent, second[m])
        i = a
        while i >= 0:
            j = b
            while j >= 0:
                barrier[i, j] = level[m]
                barrier[j, i] = level[m]
                j = following[j]
            i = following[i]
        parent[b] = a
        following[last[a]] = b
        last[a] = last[b]
    return barrier
