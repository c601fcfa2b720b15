"""From the passes of a network of minima to its barriers: bounds, the tree, and a path for every merge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theodolite import disconnectivity
from theodolite.instruments.landscape_findings import Barriers, LandscapePath, least_lower_bounds
from theodolite.search.passes import bottlenecks, spanning_forest


def barriers_of_passes(
    energy: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    level: np.ndarray,
    listed: int,
    points_of: Callable[[int], np.ndarray],
    energies_of: Callable[[np.ndarray], np.ndarray],
    *,
    exact: bool = False,
) -> Barriers:
    """The barriers between the first ``listed`` minima of ``energy`` ``(n,)``, over all chains of passes.

    Passes join minima ``first`` and ``second`` ``(m,)`` at ``level`` ``(m,)``. ``points_of(pass)`` gives the points
    ``(step, *point)`` from its first minimum to its second, both included; ``energies_of(points)`` their energies.
    ``exact``: the passes are the lowest there are; otherwise nothing lower than the ends of a path is proven.
    """
    n = len(energy)
    known = energy[:listed]
    upper = bottlenecks(n, first, second, level, energy, listed)
    lower = upper if exact else least_lower_bounds(known)
    upper = np.maximum(upper, lower)
    tree = disconnectivity.tree(known, upper, lower)
    paths = _paths(n, first, second, level, merging_pairs(tree, known), points_of, energies_of)
    return Barriers(upper, lower, tree, paths)


def merging_pairs(tree: np.ndarray, energy: np.ndarray) -> list[tuple[int, int]]:
    """The lowest minimum of either side of each merge of finite level; together the pairs span the ``tree``."""
    lowest = list(range(len(energy)))
    pairs = []
    for merge in tree:
        first, second = lowest[int(merge[0])], lowest[int(merge[1])]
        first, second = (first, second) if energy[first] <= energy[second] else (second, first)
        lowest.append(first)
        if np.isfinite(merge[2]):
            pairs.append((first, second))
    return pairs


def _paths(
    n: int,
    first: np.ndarray,
    second: np.ndarray,
    level: np.ndarray,
    pairs: list[tuple[int, int]],
    points_of: Callable[[int], np.ndarray],
    energies_of: Callable[[np.ndarray], np.ndarray],
) -> list[LandscapePath]:
    """The path of each pair over the spanning forest of the passes."""
    forest = spanning_forest(n, first, second, level)
    known: dict[int, np.ndarray] = {}
    paths = []
    for start, end in pairs:
        parts: list[np.ndarray] = []
        place = start
        for index, _ in forest.route(start, end):
            if index not in known:
                known[index] = points_of(index)
            forward = place == int(first[index])
            points = known[index] if forward else known[index][::-1]
            parts.append(points[1:] if parts else points)
            place = int(second[index]) if forward else int(first[index])
        if parts:
            point = np.concatenate(parts)
            paths.append(LandscapePath(start, end, point, energies_of(point)))
    return paths
