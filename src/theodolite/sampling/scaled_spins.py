"""Pair spins in whole numbers: flip costs as multiples of a small quantum, for searches that make many million flips.

The costs c_k = 2 s_k L_k of flipping each spin are kept as int32, so that a state's costs never drift, energies add
up exactly and one pass over a vector of 32-bit words updates the costs and finds the least. The quantum is a power of
two, at most 2^-27 of the largest cost: couplings that are small whole numbers are exact, others are rounded, and
callers take the minima they keep down to exact ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from theodolite.field import FlipCosts

_LARGEST = 2**29  # no cost reaches it: sums of rounded couplings stay clear of overflow


class ScaledCosts(NamedTuple):
    """``pair`` (n, n) int32: 4 J in quanta, even; ``along`` (n,) int32: 2 h; ``quantum`` in units of the energy;
    ``place_mask``: the low bits of a cost that hold a spin's number when the least cost is looked for."""

    pair: np.ndarray
    along: np.ndarray
    quantum: float
    place_mask: np.int32


def scaled_costs(costs: FlipCosts) -> ScaledCosts:
    """The flip costs in quanta."""
    n = len(costs.external)
    largest = 2.0 * float((np.abs(costs.couplings).sum(1) + np.abs(costs.external)).max())
    quantum = 2.0 ** np.ceil(np.log2(max(largest, 1e-300) / (_LARGEST - 2 * n)))
    pair = 2 * np.rint(2.0 * costs.couplings / quantum).astype(np.int32)
    along = np.rint(2.0 * costs.external / quantum).astype(np.int32)
    return ScaledCosts(pair, along, quantum, np.int32((1 << max(1, (n - 1).bit_length())) - 1))


def scaled_energies(scaled: ScaledCosts, spins: np.ndarray) -> np.ndarray:
    """Energies ``(batch,)`` int64 in quanta of spins ``(batch, n)``, less the constant."""
    state = spins.astype(np.int64)
    # -1/2 s.J s - h.s with 4 J = pair and 2 h = along.
    return -((state @ scaled.pair.astype(np.int64) + 4 * scaled.along) * state).sum(1) // 8


@njit(nogil=True)
def fill_costs(pair: np.ndarray, along: np.ndarray, spins: np.ndarray, costs: np.ndarray) -> None:
    """The costs ``(n,)`` of flipping each of ``spins`` (n,), both int32."""
    for k in range(len(spins)):
        total = along[k]
        for j in range(len(spins)):
            total += pair[k, j] // 2 * spins[j]
        costs[k] = spins[k] * total


@njit(nogil=True, inline="always")
def flip(pair: np.ndarray, spins: np.ndarray, costs: np.ndarray, site: Any) -> None:
    """Flip one spin in place."""
    row, spin, cost = pair[site], spins[site], costs[site]
    for k in range(len(spins)):
        costs[k] -= spin * row[k] * spins[k]
    spins[site] = -spin
    costs[site] = -cost


@njit(nogil=True)
def quench(pair: np.ndarray, spins: np.ndarray, costs: np.ndarray, place_mask: Any) -> tuple[Any, int]:
    """Steepest descent in place: the change of energy in quanta, and the flips made.

    Costs that agree but for ``place_mask`` count as equal; of equal ones the first spin is flipped.
    """
    value_mask = ~place_mask
    least = np.int32(0)
    for k in range(len(spins)):
        least = min(least, (costs[k] & value_mask) | np.int32(k))
    change, n_flips = 0, 0
    while least < 0:
        site = least & place_mask
        row, spin, cost = pair[site], spins[site], costs[site]
        change += cost
        n_flips += 1
        costs[site] = -cost
        spins[site] = -spin
        least = np.int32(0)
        for k in range(len(spins)):
            # The row is 0 at the site itself.
            lower = costs[k] - spin * row[k] * spins[k]
            costs[k] = lower
            least = min(least, (lower & value_mask) | np.int32(k))
    return change, n_flips
