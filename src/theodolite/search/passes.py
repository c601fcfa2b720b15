"""The min-max closure of a network of minima and passes: the minimum bottleneck spanning forest.

A pass joins two minima at a level, the highest energy of a known path. The lowest barrier between two minima over
every chain of passes is the highest level on their path in the minimum spanning forest (Hu 1961; single linkage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

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


def bottlenecks(
    n: int, first: np.ndarray, second: np.ndarray, level: np.ndarray, energy: np.ndarray, listed: int | None = None
) -> np.ndarray:
    """Lowest barriers over all chains of passes between the first ``listed`` of ``n`` minima (None: all of them).

    ``(listed, listed)``: inf where there is no chain, ``energy`` ``(n,)`` on the diagonal. Chains may pass through
    minima that are not listed.
    """
    listed = n if listed is None else listed
    spanning = minimum_spanning_passes(n, first, second, level)
    barrier = _spread(
        n, listed, first[spanning].astype(np.int64), second[spanning].astype(np.int64), level[spanning].astype(float)
    )
    np.fill_diagonal(barrier, energy[:listed])
    return barrier


@final
@dataclass(frozen=True)
class SpanningForest:
    """The spanning passes, rooted: ``parent`` ``(n,)`` (-1 at a root), ``passage`` ``(n,)``: the pass to the parent,
    ``depth`` ``(n,)``, ``root`` ``(n,)``."""

    parent: np.ndarray
    passage: np.ndarray
    depth: np.ndarray
    root: np.ndarray

    def route(self, start: int, end: int) -> list[tuple[int, bool]]:
        """The passes from ``start`` to ``end`` in order, each with whether it is walked towards the root.

        Empty where start and end are one minimum, or no chain of passes joins them.
        """
        if self.root[start] != self.root[end]:
            return []
        up: list[tuple[int, bool]] = []
        down: list[tuple[int, bool]] = []
        while start != end:
            if self.depth[start] >= self.depth[end]:
                up.append((int(self.passage[start]), True))
                start = int(self.parent[start])
            else:
                down.append((int(self.passage[end]), False))
                end = int(self.parent[end])
        return up + down[::-1]


def spanning_forest(n: int, first: np.ndarray, second: np.ndarray, level: np.ndarray) -> SpanningForest:
    """The minimum bottleneck spanning forest of ``n`` minima, rooted, so that routes can be read off it."""
    spanning = minimum_spanning_passes(n, first, second, level)
    return SpanningForest(*_rooted(n, spanning, first.astype(np.int64), second.astype(np.int64)))


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
def _spread(n: int, listed: int, first: np.ndarray, second: np.ndarray, level: np.ndarray) -> np.ndarray:
    barrier = np.full((listed, listed), np.inf)
    parent = np.arange(n)
    # The listed members of each component as a chain: its first and last member, and who follows whom.
    head = np.arange(n)
    head[listed:] = -1
    last = head.copy()
    following = np.full(n, -1)
    for m in range(len(first)):
        a, b = _root(parent, first[m]), _root(parent, second[m])
        i = head[a]
        while i >= 0:
            j = head[b]
            while j >= 0:
                barrier[i, j] = level[m]
                barrier[j, i] = level[m]
                j = following[j]
            i = following[i]
        parent[b] = a
        if head[a] < 0:
            head[a], last[a] = head[b], last[b]
        elif head[b] >= 0:
            following[last[a]] = head[b]
            last[a] = last[b]
    return barrier


@njit
def _rooted(
    n: int, spanning: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    degree = np.zeros(n + 1, np.int64)
    for m in spanning:
        degree[first[m] + 1] += 1
        degree[second[m] + 1] += 1
    begin = np.cumsum(degree)
    fill = begin[:-1].copy()
    beside = np.empty(2 * len(spanning), np.int64)
    by = np.empty(2 * len(spanning), np.int64)
    for m in spanning:
        a, b = first[m], second[m]
        beside[fill[a]], by[fill[a]] = b, m
        beside[fill[b]], by[fill[b]] = a, m
        fill[a] += 1
        fill[b] += 1
    parent, passage = np.full(n, -1), np.full(n, -1)
    depth, root = np.zeros(n, np.int64), np.full(n, -1)
    queue = np.empty(n, np.int64)
    for start in range(n):
        if root[start] >= 0:
            continue
        root[start] = start
        queue[0], taken, filled = start, 0, 1
        while taken < filled:
            a = queue[taken]
            taken += 1
            for k in range(begin[a], begin[a + 1]):
                b = beside[k]
                if root[b] < 0:
                    root[b], parent[b], passage[b], depth[b] = start, a, by[k], depth[a] + 1
                    queue[filled] = b
                    filled += 1
    return parent, passage, depth, root
