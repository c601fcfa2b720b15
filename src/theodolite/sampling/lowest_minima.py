"""The lowest distinct minima that a search has met, and when: a bounded table that compiled kernels fill.

Points are identified by a sum of random 64-bit words times their coordinates. When the table is full, the highest
half is dropped, and what lies above the rest is no longer taken in. Of a minimum and its mirror image one is kept,
the one with coordinate 0 positive; both are listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from theodolite import spin_kernels
from theodolite.field import Field, FlipCosts
from theodolite.sampling.multicanonical import discrete_space
from theodolite.site_changes import spin_rounding


@final
@dataclass
class MinimaTable:
    """``point`` (capacity, n), ``energy``, ``key``, ``found_at`` (capacity,) of the minima met, in no order.

    ``slot`` finds them by key (-1: empty). ``count`` (1,) of them are filled; states at or above ``ceiling`` (1,) are
    not taken in. ``words`` (n,) identify points; ``mirrored``: mirror images count as one.
    """

    point: np.ndarray
    energy: np.ndarray
    key: np.ndarray
    found_at: np.ndarray
    slot: np.ndarray
    count: np.ndarray
    ceiling: np.ndarray
    words: np.ndarray
    mirrored: bool

    def arrays(self) -> tuple[Any, ...]:
        """What the compiled functions here take."""
        return (
            self.point,
            self.energy,
            self.key,
            self.found_at,
            self.slot,
            self.count,
            self.ceiling,
            self.words,
            self.mirrored,
        )


@final
@dataclass(frozen=True)
class FoundMinima:
    """Minima rising in energy: ``point`` (minimum, *shape), ``energy`` (minimum,) float64, ``found_at`` (minimum,)
    int64, the search's own count of sweeps, kicks or steps when each was first met."""

    point: Tensor
    energy: Tensor
    found_at: Tensor


def empty_table(n: int, n_kept: int, dtype: Any, mirrored: bool, spare: bool = True) -> MinimaTable:
    """Room for the ``n_kept`` lowest minima of ``n`` coordinates of the array type ``dtype``, and for as many more
    before the highest are dropped (``spare``)."""
    kept = -(-n_kept // 2) if mirrored else n_kept
    capacity = max(kept, 1) * (2 if spare else 1)
    return MinimaTable(
        point=np.zeros((capacity, n), dtype),
        energy=np.zeros(capacity),
        key=np.zeros(capacity, np.uint64),
        found_at=np.zeros(capacity, np.int64),
        slot=np.full(1 << (4 * capacity - 1).bit_length(), -1, np.int64),
        count=np.zeros(1, np.int64),
        ceiling=np.full(1, np.inf),
        words=np.random.default_rng(20_260_101).integers(1, 2**63, n, dtype=np.uint64) | np.uint64(1),
        mirrored=mirrored,
    )


@njit(nogil=True)
def point_key(state: np.ndarray, words: np.ndarray, mirrored: bool) -> Any:
    """The key of a point; that of its mirror image is the same where ``mirrored``."""
    key = np.uint64(0)
    for k in range(len(state)):
        key += np.uint64(np.int64(state[k])) * words[k]
    if mirrored and state[0] < 0:
        key = np.uint64(0) - key
    return key


@njit(nogil=True)
def find(key: Any, keys: np.ndarray, slot: np.ndarray) -> Any:
    """The slot of a key, or the free one where it belongs."""
    mask = len(slot) - 1
    place = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
    while slot[place] >= 0 and keys[slot[place]] != key:
        place = (place + 1) & mask
    return place


@njit(nogil=True)
def offer(
    state: np.ndarray,
    value: float,
    time: int,
    point: np.ndarray,
    energy: np.ndarray,
    key: np.ndarray,
    found_at: np.ndarray,
    slot: np.ndarray,
    count: np.ndarray,
    ceiling: np.ndarray,
    words: np.ndarray,
    mirrored: bool,
) -> Any:
    """Take a minimum in unless it is known or too high: its row, or -1 where it is not kept."""
    if value >= ceiling[0]:
        return -1
    name = point_key(state, words, mirrored)
    place = find(name, key, slot)
    if slot[place] >= 0:
        return slot[place]
    if count[0] == len(energy):
        drop_highest(point, energy, key, found_at, slot, count, ceiling)
        if value >= ceiling[0]:
            return -1
        place = find(name, key, slot)
    row = count[0]
    turn = -1 if mirrored and state[0] < 0 else 1
    for k in range(len(state)):
        point[row, k] = turn * state[k]
    energy[row], key[row], found_at[row] = value, name, time
    slot[place] = row
    count[0] += 1
    return row


@njit(nogil=True)
def drop_highest(
    point: np.ndarray,
    energy: np.ndarray,
    key: np.ndarray,
    found_at: np.ndarray,
    slot: np.ndarray,
    count: np.ndarray,
    ceiling: np.ndarray,
) -> None:
    """Keep the lowest half, in the order of their rows; the ceiling falls to the highest of them."""
    n_kept = len(energy) // 2
    order = np.argsort(energy[: count[0]], kind="mergesort")
    ceiling[0] = energy[order[n_kept - 1]]
    kept = np.sort(order[:n_kept])
    slot[:] = -1
    for row in range(n_kept):
        old = kept[row]
        point[row] = point[old]
        energy[row], key[row], found_at[row] = energy[old], key[old], found_at[old]
        slot[find(key[row], key, slot)] = row
    count[0] = n_kept


def listed(field: Field, table: MinimaTable, n_lowest: int) -> FoundMinima:
    """The ``n_lowest`` lowest minima of the table and their mirror images, exact and rising in energy.

    Pair spins are taken down to exact minima first, which moves only what rounding to quanta misjudged.
    """
    space = discrete_space(field)
    found = table.point[: table.count[0]].astype(np.int64)
    if field.flip_costs is not None:
        found = descend_exactly(field.flip_costs, found)
    if table.mirrored:
        found = found * np.sign(found[:, :1])
    found, row = np.unique(found, axis=0, return_index=True)
    found_at = table.found_at[: table.count[0]][row]
    if table.mirrored:
        found, found_at = np.concatenate([found, -found]), np.tile(found_at, 2)
    # Tables of pair spins hold spins, others levels.
    points = torch.from_numpy(found)
    points = points if field.flip_costs is not None else space.from_levels(points)
    energy = field.value(points) if len(points) else torch.empty(0, dtype=torch.float64)
    order = torch.from_numpy(np.lexsort((np.arange(len(found)) % max(1, len(row)), energy.numpy()))[:n_lowest])
    return FoundMinima(points[order], energy[order], torch.from_numpy(found_at)[order])


def agree(first: FoundMinima, second: FoundMinima, n_lowest: int, tolerance: float = 1e-9) -> bool:
    """Whether two searches list the same ``n_lowest`` minima; equals of the last one's energy may differ."""
    if min(len(first.energy), len(second.energy), n_lowest) != min(
        max(len(first.energy), len(second.energy)), n_lowest
    ):
        return False
    a, b = first.energy[:n_lowest], second.energy[:n_lowest]
    if not torch.allclose(a, b, rtol=0.0, atol=tolerance):
        return False
    n_below = int((a < a.max() - tolerance).sum()) if len(a) else 0
    lists = [{tuple(row) for row in found.point[:n_below].flatten(1).tolist()} for found in (first, second)]
    return lists[0] == lists[1]


@njit(nogil=True)
def _descend_rows(couplings: np.ndarray, external: np.ndarray, spins: np.ndarray, tolerance: float) -> None:
    for row in range(len(spins)):
        fields = spin_kernels.local_fields(couplings, external, spins[row])
        spin_kernels.steepest_descent(couplings, spins[row], fields, tolerance)


def descend_exactly(costs: FlipCosts, spins: np.ndarray) -> np.ndarray:
    """The minima ``(batch, n)`` int64 below ``spins``, in full precision."""
    exact = spins.astype(np.float64)
    _descend_rows(costs.couplings, costs.external, exact, spin_rounding(costs))
    return exact.astype(np.int64)
