"""Paths for every merge of a tree, from the passes of a network of minima."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theodolite.instruments import disconnectivity
from theodolite.instruments.landscape_findings import LandscapePath
from theodolite.search.passes import spanning_forest


def merging_pairs(energy: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> list[tuple[int, int]]:
    """The lowest minimum of either side of each merge of finite level; together the pairs span the tree."""
    tree = disconnectivity.tree(energy, upper, lower)
    n = len(energy)
    lowest = list(range(n))
    pairs = []
    for merge in tree:
        first, second = lowest[int(merge[0])], lowest[int(merge[1])]
        first, second = (first, second) if energy[first] <= energy[second] else (second, first)
        lowest.append(first)
        if np.isfinite(merge[2]):
            pairs.append((first, second))
    return pairs


def paths_through_passes(
    n: int,
    first: np.ndarray,
    second: np.ndarray,
    level: np.ndarray,
    pairs: list[tuple[int, int]],
    points_of: Callable[[int], np.ndarray],
    energies_of: Callable[[np.ndarray], np.ndarray],
) -> list[LandscapePath]:
    """The path of each pair over the spanning forest of ``n`` minima and passes.

    ``points_of(pass)`` gives the points ``(step, *point)`` from its first minimum to its second, both included;
    ``energies_of(points)`` their energies.
    """
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
