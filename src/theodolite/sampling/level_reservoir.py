"""A uniform sample, without replacement, of the inputs of every level of a stream of inputs.

Every input gets a random key, and a level keeps the inputs of its largest keys (Vitter 1985, "Random sampling with
a reservoir", ACM TOMS 11, 37; with keys: Efraimidis and Spirakis 2006, Inf. Process. Lett. 97, 181).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class LevelReservoir:
    """Inputs kept for the bins from number ``first_bin`` on, each ``(bin, capacity)``: ``key`` (-1: free place),
    ``index`` of the input and ``output``."""

    first_bin: int
    key: NDArray[np.float64]
    index: NDArray[np.int64]
    output: NDArray[np.float64]


def empty_reservoir(capacity: int) -> LevelReservoir:
    """No bin yet, ``capacity`` places in each to come."""
    return LevelReservoir(0, np.zeros((0, capacity)), np.zeros((0, capacity), dtype=np.int64), np.zeros((0, capacity)))


def offer(
    reservoir: LevelReservoir,
    numbers: NDArray[np.int64],
    index: NDArray[np.int64],
    output: NDArray[np.float64],
    key: NDArray[np.float64],
) -> LevelReservoir:
    """The reservoir after inputs ``(batch,)`` with bin ``numbers``, ``index``, ``output`` and ``key`` in [0, 1)."""
    wider = _widened(reservoir, int(numbers.min()), int(numbers.max()) + 1)
    row = numbers - wider.first_bin
    above = np.flatnonzero(key > wider.key.min(1)[row])
    if not len(above):
        return wider
    capacity = wider.key.shape[1]
    touched = np.unique(row[above])
    held = wider.key[touched] >= 0
    rows = np.concatenate([np.repeat(touched, held.sum(1)), row[above]])
    keys = np.concatenate([wider.key[touched][held], key[above]])
    indices = np.concatenate([wider.index[touched][held], index[above]])
    outputs = np.concatenate([wider.output[touched][held], output[above]])
    order = np.lexsort((-keys, rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    order, rank = order[rank < capacity], rank[rank < capacity]
    wider.key[rows[order], rank] = keys[order]
    wider.index[rows[order], rank] = indices[order]
    wider.output[rows[order], rank] = outputs[order]
    return wider


def kept(reservoir: LevelReservoir) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and outputs ``(n,)`` of all inputs kept, level after level."""
    held = reservoir.key >= 0
    return reservoir.index[held], reservoir.output[held]


def _widened(reservoir: LevelReservoir, low: int, stop: int) -> LevelReservoir:
    """A copy with room for the bins from ``low`` to before ``stop``."""
    n_bins, capacity = reservoir.key.shape
    if n_bins:
        low, stop = min(low, reservoir.first_bin), max(stop, reservoir.first_bin + n_bins)
    here = slice(reservoir.first_bin - low, reservoir.first_bin - low + n_bins) if n_bins else slice(0, 0)
    key = np.full((stop - low, capacity), -1.0)
    index = np.zeros((stop - low, capacity), dtype=np.int64)
    output = np.zeros((stop - low, capacity))
    key[here], index[here], output[here] = reservoir.key, reservoir.index, reservoir.output
    return LevelReservoir(low, key, index, output)
