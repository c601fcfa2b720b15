"""Energies and flip costs of pair spins in integers: exact arithmetic, so that proofs need no margins.

Couplings are rounded once, to multiples of a tiny unit; after that every energy, cost and comparison is exact: nothing
drifts along a walk of a billion flips, equal energies are equal, and steepest descent is one function of the state
(the lowest index wins among equals). Spins are masks, int64 arrays of 0 (up) and -1 (down), so that a product with a
spin is (x ^ mask) - mask; states are kept as bits of 64-bit words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from theodolite.field import FlipCosts

COARSE_RANGE = 8000  # of the 16-bit costs: no flip costs more (four times a coupling may be twice as much)
LANES = 64  # coarse rows are padded to this, so that compiled loops have no remainder


class ExactCosts(NamedTuple):
    """Flip costs in integers: ``quadruple`` (n, n) is 4 J and ``external`` (n,) is h, both in ``unit``.

    ``coarse`` (n, padded) int16 is ``quadruple`` to the nearest 2^``shift``: most states are passed over by these
    alone. |E - unit * integer energy| <= ``rounding`` for every state, the field's constant left out.
    """

    quadruple: np.ndarray
    external: np.ndarray
    coarse: np.ndarray
    shift: int
    unit: float
    rounding: float


@njit
def flip_all(quadruple: np.ndarray, mask: np.ndarray, costs: np.ndarray, site: Any) -> None:
    """Flip one spin in place: its mask and every cost."""
    row = quadruple[site]
    here = mask[site]
    cost = costs[site]
    for j in range(len(costs)):
        sign = mask[j] ^ here
        costs[j] -= (row[j] ^ sign) - sign
    costs[site] = -cost
    mask[site] = ~here


@njit
def descend(quadruple: np.ndarray, mask: np.ndarray, costs: np.ndarray) -> None:
    """Steepest descent in place, the lowest index first among equals, until no flip lowers the energy."""
    while True:
        least = np.int64(0)
        for j in range(len(costs)):
            least = min(least, costs[j])
        if least == 0:
            return
        site = 0
        while costs[site] != least:
            site += 1
        flip_all(quadruple, mask, costs, site)


@njit
def pack_words(mask: np.ndarray, words: np.ndarray) -> None:
    """Write the up spins as bits of 64-bit words, coordinate 0 the least bit of word 0."""
    for w in range(len(words)):
        word = np.uint64(0)
        for b in range(min(64, len(mask) - 64 * w)):
            if mask[64 * w + b] == 0:
                word |= np.uint64(1) << np.uint64(b)
        words[w] = word


@njit
def unpack_mask(words: np.ndarray, mask: np.ndarray) -> None:
    """The inverse of ``pack_words``."""
    for j in range(len(mask)):
        up = (words[j >> 6] >> np.uint64(j & 63)) & np.uint64(1)
        mask[j] = np.int64(up) - 1


@njit
def costs_of(quadruple: np.ndarray, external: np.ndarray, mask: np.ndarray, costs: np.ndarray) -> Any:
    """Write the cost of every flip, 2 s_k (sum_j J_kj s_j + h_k), and return the integer energy."""
    total = np.int64(0)
    for k in range(len(costs)):
        row = quadruple[k]
        local = np.int64(0)
        for j in range(len(costs)):
            local += (row[j] ^ mask[j]) - mask[j]
        local = (local >> 1) + 2 * external[k]
        costs[k] = (local ^ mask[k]) - mask[k]
        total += (costs[k] >> 1) + ((external[k] ^ mask[k]) - mask[k])
    return -(total >> 1)


@njit
def word_hash(words: np.ndarray) -> Any:
    """A well mixed 64-bit hash of the words; equality is always decided by the words themselves."""
    value = np.uint64(0)
    for w in range(len(words)):
        value = (value ^ words[w]) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
        value *= np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(32)
    return value


@njit
def same_words(a: np.ndarray, b: np.ndarray) -> Any:
    """Whether two states are one."""
    differing = np.uint64(0)
    for w in range(len(a)):
        differing |= a[w] ^ b[w]
    return differing == 0


def exact_costs(flip_costs: FlipCosts) -> ExactCosts:
    """Couplings and external field in integers, as fine as 62 bits allow for every energy and cost."""
    couplings, external = flip_costs.couplings, flip_costs.external
    n = len(couplings)
    total = float(np.abs(couplings).sum() / 2 + np.abs(external).sum())
    bits = 59 - int(np.ceil(np.log2(total))) if total > 0 else 0
    scaled = np.rint(np.ldexp(couplings, bits)).astype(np.int64)
    along = np.rint(np.ldexp(external, bits)).astype(np.int64)
    # Powers of two scale without rounding, so that these differences are exact.
    rounding = np.abs(couplings - np.ldexp(scaled.astype(np.float64), -bits)).sum() / 2
    rounding += np.abs(external - np.ldexp(along.astype(np.float64), -bits)).sum()
    dearest = int((2 * (np.abs(scaled).sum(1) + np.abs(along))).max())
    shift = (dearest // COARSE_RANGE).bit_length()
    padded = -(-n // LANES) * LANES
    coarse = np.zeros((n, padded), np.int16)
    coarse[:, :n] = np.rint(np.ldexp((4 * scaled).astype(np.float64), -shift))
    return ExactCosts(4 * scaled, along, coarse, shift, float(np.ldexp(1.0, -bits)), float(rounding))


@njit
def descent_sites(exact: ExactCosts, mask: np.ndarray, costs: np.ndarray, sites: np.ndarray) -> int:
    """Write the flips of the steepest descent from ``mask`` in ``sites``; how many there are, -1 where too many."""
    n = 0
    while True:
        site = np.argmin(costs)
        if costs[site] >= 0:
            return n
        if n == len(sites):
            return -1
        sites[n] = site
        n += 1
        flip_all(exact.quadruple, mask, costs, site)


def descent_path(exact: ExactCosts, mask: np.ndarray) -> np.ndarray:
    """The masks ``(steps, n)`` of the steepest descent from a state to its minimum, both ends included."""
    size = 2 * len(mask) + 64
    while True:
        costs, sites = np.empty(len(mask), np.int64), np.empty(size, np.int64)
        costs_of(exact.quadruple, exact.external, mask, costs)
        count = descent_sites(exact, mask.copy(), costs, sites)
        if count >= 0:
            break
        size *= 2
    path = np.repeat(mask[None], count + 1, 0)
    for step in range(count):
        path[step + 1 :, sites[step]] = ~path[step + 1 :, sites[step]]
    return path


def pass_path(exact: ExactCosts, words: np.ndarray, site: Any) -> np.ndarray:
    """Spins ``(steps, n)`` int8 over a pass: up from one minimum to the state ``words``, flip ``site``, down to the
    other minimum."""
    mask = np.empty(len(exact.external), np.int64)
    unpack_mask(words, mask)
    up = descent_path(exact, mask)[::-1]
    mask[site] = ~mask[site]
    return (2 * np.concatenate([up, descent_path(exact, mask)]) + 1).astype(np.int8)
