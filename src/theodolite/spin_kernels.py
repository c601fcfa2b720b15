"""Compiled moves on spins with pair couplings (`field.FlipCosts`), shared by samplers and searches.

Spins are float64 arrays of -1 and +1, so that the inner loops are one multiply-add an entry. The caller keeps the
local fields L_i = sum_k J_ik s_k + h_i beside the spins; `flip` updates both.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=False)
def local_fields(couplings: np.ndarray, external: np.ndarray, spins: np.ndarray) -> np.ndarray:
    """L ``(n,)`` of one state ``(n,)``."""
    fields = external.copy()
    for i in range(len(spins)):
        for k in range(len(spins)):
            fields[i] += couplings[i, k] * spins[k]
    return fields


@njit(cache=False)
def energy(spins: np.ndarray, fields: np.ndarray, external: np.ndarray, constant: float) -> float:
    """E of one state from its local fields."""
    total = 0.0
    for i in range(len(spins)):
        total += spins[i] * (fields[i] + external[i])
    return constant - 0.5 * total


@njit(cache=False, fastmath=True, inline="always")
def flip(couplings: np.ndarray, spins: np.ndarray, fields: np.ndarray, site: int) -> None:
    """Flip one spin in place and update the local fields."""
    twice = 2.0 * spins[site]
    spins[site] = -spins[site]
    row = couplings[site]
    for k in range(len(spins)):
        fields[k] -= twice * row[k]


@njit(cache=False, fastmath=True)
def steepest_descent(couplings: np.ndarray, spins: np.ndarray, fields: np.ndarray, tolerance: float) -> int:
    """Flip the spin that gains most until no flip gains more than ``tolerance``; in place; the number of flips."""
    n_flips = 0
    while True:
        best, least = -1, -0.5 * tolerance
        for i in range(len(spins)):
            cost = spins[i] * fields[i]
            if cost < least:
                least, best = cost, i
        if best < 0:
            return n_flips
        flip(couplings, spins, fields, best)
        n_flips += 1


def zobrist_keys(n: int) -> np.ndarray:
    """The same ``n`` random 64-bit words every time: they identify states, and are no part of a seed."""
    return np.random.default_rng(20_260_101).integers(1, 2**63, n, dtype=np.uint64)
