"""The exact tree of a surface known on a rectangular grid: every minimum and the level at which it joins a lower one.

Grid points are taken up from the lowest to the highest and united with the neighbours already there; where two pools
meet, the one with the higher minimum ends and the meeting point is their pass (sorted union-find, the merge tree of
Carr, Snoeyink and Axen, Comput. Geom. 24, 75 (2003); the elder rule of Edelsbrunner, Letscher and Zomorodian, Discrete
Comput. Geom. 28, 511 (2002)). The grid's own answer, without error: the truth for methods on continuous surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from theodolite.errors import UserError
from theodolite.search.passes import bottlenecks

__all__ = ["SurfaceFlood", "surface_flood"]


@dataclass(frozen=True, eq=False)
class SurfaceFlood:
    """Minima of a grid, rising in energy, and the passes that span them, rising in level.

    ``row``, ``column`` ``(K,)`` of a minimum (of a plateau: its first point, row by row), ``energy`` ``(K,)``,
    ``depth`` ``(K,)``: how far its pool rises before it joins a lower one (inf where it never does). Passes:
    ``first`` < ``second`` ``(m,)`` are minima, the second being the one whose pool ends at ``level`` ``(m,)``, at the
    grid point ``pass_row``, ``pass_column`` ``(m,)``. Energies in the unit of the values.
    """

    row: np.ndarray
    column: np.ndarray
    energy: np.ndarray
    depth: np.ndarray
    first: np.ndarray
    second: np.ndarray
    level: np.ndarray
    pass_row: np.ndarray
    pass_column: np.ndarray

    def barrier(self) -> np.ndarray:
        """Barriers ``(K, K)`` between all minima; inf where unconnected, their energy on the diagonal."""
        return bottlenecks(len(self.energy), self.first, self.second, self.level, self.energy)


def surface_flood(values: np.ndarray, *, diagonal: bool = False, persistence: float = 0.0) -> SurfaceFlood:
    """Exact minima and passes of the ``values`` ``(rows, columns)`` on a grid of points.

    A point has four neighbours, with ``diagonal`` eight. A connected set of equal values is one minimum. Points of
    value +inf are walls. Minima whose depth is below ``persistence`` are left out; the barriers between the others
    are the same.

    Raises UserError, before any work: values that are not two-dimensional, hold a NaN or -inf or nothing but walls, or
    a persistence that is negative or not finite.
    """
    surface = np.ascontiguousarray(values, dtype=np.float64)
    if surface.ndim != 2 or surface.size == 0:
        raise UserError("values", "(rows, columns) values", f"shape {surface.shape}", "give one value a grid point")
    lowest = float(surface.min())
    if not np.isfinite(lowest):
        got = "walls alone" if lowest > 0 else "a NaN or -inf"
        raise UserError("values", "finite values, or +inf where there is no way", got, "look at the grid's values")
    if not 0.0 <= persistence < np.inf:
        raise UserError("persistence", "a depth of at least 0", repr(persistence), "0 keeps every minimum")

    flat = surface.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[: np.searchsorted(flat, np.inf, sorter=order)]
    minimum, ended, elder, place = _flood(flat, order, surface.shape[1], diagonal)
    level = flat[place]
    kept = (level > flat[ended]) & (level - flat[ended] >= persistence)
    ended, elder, place, level = ended[kept], elder[kept], place[kept], level[kept]
    minima = np.append(minimum, ended)
    minima = minima[np.lexsort((minima, flat[minima]))]
    number = np.zeros(flat.size, np.int64)
    number[minima] = np.arange(len(minima))
    depth = np.full(len(minima), np.inf)
    depth[number[ended]] = level - flat[ended]
    return SurfaceFlood(
        row=minima // surface.shape[1],
        column=minima % surface.shape[1],
        energy=flat[minima],
        depth=depth,
        first=number[elder],
        second=number[ended],
        level=level,
        pass_row=place // surface.shape[1],
        pass_column=place % surface.shape[1],
    )


@njit(nogil=True)
def _root(parent: np.ndarray, point: int) -> int:
    while parent[point] != point:
        parent[point] = parent[parent[point]]
        point = parent[point]
    return point


@njit(nogil=True)
def _flood(
    values: np.ndarray, order: np.ndarray, n_columns: int, diagonal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Minima whose pools never end; and, of every pool that ends, its minimum, the elder one's, and where they met.

    A pool's root is its lowest point, of equal ones the first. Pools that end at the level they began at are included.
    """
    n_rows = len(values) // n_columns
    parent = np.full(len(values), -1)
    ended, elder, place = np.empty_like(order), np.empty_like(order), np.empty_like(order)
    n_met = 0
    for point in order:
        parent[point] = point
        here = point
        row, column = point // n_columns, point % n_columns
        for down in range(-1, 2):
            for right in range(-1, 2):
                if not (0 <= row + down < n_rows and 0 <= column + right < n_columns):
                    continue
                if (down == 0 and right == 0) or (not diagonal and down != 0 and right != 0):
                    continue
                beside = point + down * n_columns + right
                if parent[beside] < 0:
                    continue
                there = _root(parent, beside)
                if there == here:
                    continue
                if values[there] < values[here] or (values[there] == values[here] and there < here):
                    here, there = there, here
                parent[there] = here
                # A point above the pools it joins is no minimum of its own.
                if there != point:
                    ended[n_met], elder[n_met], place[n_met] = there, here, point
                    n_met += 1
    lasting = order[parent[order] == order]
    return lasting, ended[:n_met].copy(), elder[:n_met].copy(), place[:n_met].copy()
