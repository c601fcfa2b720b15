"""Compiled parts of `watershed`: steepest descent of every state, basins, and the lowest pass of every pair of basins.

States and moves are those of `state_moves`: ``neighbour(state, move, data)``. ``descent[state]`` is the move of a
state's descent. ``crossing`` is the move that leads to a mirror image (-1: none), so that under the mirror quotient
a basin's label is twice its number plus a parity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from theodolite.search.state_moves import spin_neighbour

_ROW = 32  # the blocks of `steepest_spins` are _ROW x _ROW states
BLOCK_BITS = 10


# ---------------------------------------------------------------------- descent


@njit(nogil=True)
def steepest(
    values: np.ndarray,
    neighbour: Callable[[int, int, np.ndarray], tuple[int, int]],
    data: np.ndarray,
    n_moves: int,
    descent: np.ndarray,
    flat: int,
    start: int,
    stop: int,
) -> None:
    """The move to the lowest of the strictly lower neighbours; ``flat`` where there is none."""
    for state in range(start, stop):
        best, found = values[state], flat
        for move in range(n_moves):
            other, _ = neighbour(state, move, data)
            if values[other] < best:
                best, found = values[other], move
        descent[state] = found


@njit(nogil=True)
def steepest_spins(
    values: np.ndarray, n_bits: int, mirrored: bool, descent: np.ndarray, flat: int, start: int, stop: int
) -> None:
    """`steepest` of spins, blocks ``start``..``stop`` of 2^10 states; ``mirrored`` adds move ``n_bits``, the crossing.

    Every inner loop runs over consecutive values (a transposed copy turns the lowest five spins into rows), and the
    move is kept as a float64 beside the value, so that both are selected by the same vector comparison.
    """
    size = _ROW * _ROW
    last = len(values) - 1
    best, found = np.empty(size), np.empty(size)
    turned, turned_best, turned_found = np.empty(size), np.empty(size), np.empty(size)
    for block in range(start, stop):
        base = block * size
        for k in range(size):
            best[k] = values[base + k]
            found[k] = flat
        for bit in range(BLOCK_BITS, n_bits):
            other = base ^ (1 << bit)
            for k in range(size):
                value = values[other + k]
                lower = value < best[k]
                best[k] = value if lower else best[k]
                found[k] = bit if lower else found[k]
        if mirrored:
            for k in range(size):
                value = values[last - base - k]
                lower = value < best[k]
                best[k] = value if lower else best[k]
                found[k] = n_bits if lower else found[k]
        for bit in range(5, BLOCK_BITS):
            for row in range(_ROW):
                other = base + (row ^ (1 << (bit - 5))) * _ROW
                for k in range(_ROW):
                    value = values[other + k]
                    lower = value < best[row * _ROW + k]
                    best[row * _ROW + k] = value if lower else best[row * _ROW + k]
                    found[row * _ROW + k] = bit if lower else found[row * _ROW + k]
        for row in range(_ROW):
            for k in range(_ROW):
                turned[k * _ROW + row] = values[base + row * _ROW + k]
                turned_best[k * _ROW + row] = best[row * _ROW + k]
                turned_found[k * _ROW + row] = found[row * _ROW + k]
        for bit in range(5):
            for row in range(_ROW):
                other = (row ^ (1 << bit)) * _ROW
                for k in range(_ROW):
                    value = turned[other + k]
                    lower = value < turned_best[row * _ROW + k]
                    turned_best[row * _ROW + k] = value if lower else turned_best[row * _ROW + k]
                    turned_found[row * _ROW + k] = bit if lower else turned_found[row * _ROW + k]
        for row in range(_ROW):
            for k in range(_ROW):
                descent[base + row * _ROW + k] = int(turned_found[k * _ROW + row])


@njit(nogil=True)
def settle_plateaus(
    values: np.ndarray,
    neighbour: Callable[[int, int, np.ndarray], tuple[int, int]],
    data: np.ndarray,
    n_moves: int,
    descent: np.ndarray,
    flat: int,
    flat_states: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Give every state without a lower neighbour a descent too; ``flat_states`` are those, rising.

    A plateau with an exit drains to the nearest one (breadth first from all exits). A plateau without is one minimum:
    its states drain to the one of the smallest index, whose descent becomes ``flat - 1``. Returns these roots, and all
    states of such plateaus.
    """
    queue = np.empty(len(flat_states), np.int64)
    exits = np.empty(len(flat_states), np.int64)
    tail = 0
    for state in flat_states:
        for move in range(n_moves):
            other, _ = neighbour(state, move, data)
            if values[other] == values[state] and descent[other] != flat:
                queue[tail], exits[tail] = state, move
                tail += 1
                break
    for k in range(tail):
        descent[queue[k]] = exits[k]
    roots = exits  # the exits are in place: their memory is free
    n_roots, n_drained, head, next_flat = 0, -1, 0, 0
    while True:
        if head == tail:
            n_drained = tail if n_drained < 0 else n_drained
            while next_flat < len(flat_states) and descent[flat_states[next_flat]] != flat:
                next_flat += 1
            if next_flat == len(flat_states):
                return roots[:n_roots].copy(), queue[n_drained:tail].copy()
            queue[tail] = roots[n_roots] = flat_states[next_flat]
            descent[flat_states[next_flat]] = flat - 1
            n_roots += 1
            tail += 1
        state = queue[head]
        head += 1
        for move in range(n_moves):
            other, back = neighbour(state, move, data)
            if descent[other] == flat and values[other] == values[state]:
                descent[other] = back
                queue[tail] = other
                tail += 1


# ---------------------------------------------------------------------- basins


@njit(nogil=True)
def label_basins(
    neighbour: Callable[[int, int, np.ndarray], tuple[int, int]],
    data: np.ndarray,
    crossing: int,
    descent: np.ndarray,
    label: np.ndarray,
    unknown: int,
    start: int,
    stop: int,
) -> None:
    """Labels of states ``start``..``stop`` by following their descents to a label that is known (the roots' are).

    Threads may share ``label``: whoever writes an entry writes the same.
    """
    for first in range(start, stop):
        if label[first] != unknown:
            continue
        state, parity = first, 0
        while label[state] == unknown:
            move = descent[state]
            parity ^= move == crossing
            state, _ = neighbour(state, move, data)
        found = label[state] ^ parity
        state = first
        while label[state] == unknown:
            label[state] = found
            move = descent[state]
            found ^= move == crossing
            state, _ = neighbour(state, move, data)


@njit(nogil=True)
def own_mirror_image(
    values: np.ndarray,
    masks: np.ndarray,
    crossing: int,
    label: np.ndarray,
    members: np.ndarray,
) -> bool:
    """Whether one of the minima, whose states are ``members``, is connected to its own mirror image."""
    for state in members:
        for move in range(len(masks)):
            other, _ = spin_neighbour(state, move, masks)
            if values[other] == values[state] and label[other] ^ (move == crossing) != label[state]:
                return True
    return False


# ---------------------------------------------------------------------- passes


@njit(nogil=True)
def lowest_passes(
    values: np.ndarray,
    above: float,
    ceiling: float,
    neighbour: Callable[[int, int, np.ndarray], tuple[int, int]],
    data: np.ndarray,
    n_moves: int,
    crossing: int,
    label: np.ndarray,
    n_labels: int,
    start: int,
    stop: int,
    keys: np.ndarray,
    levels: np.ndarray,
    codes: np.ndarray,
    used: int,
) -> tuple[int, int]:
    """Keep the lowest pass of every pair of labels over the edges whose higher end is one of the states
    ``start``..``stop`` with ``above`` < value <= ``ceiling``.

    The table is open-addressed: ``keys`` (capacity,) holds lower label * n_labels + higher label, or -1, ``levels``
    the pass's level and ``codes`` state * n_moves + move, the smallest of equal passes. Returns where it stopped, which
    is before ``stop`` when the table is half full, and the number of entries.
    """
    capacity = len(keys)
    for state in range(start, stop):
        energy = values[state]
        if not above < energy <= ceiling:
            continue
        if 2 * (used + n_moves) > capacity:
            return state, used
        here = np.int64(label[state])
        for move in range(n_moves):
            other, _ = neighbour(state, move, data)
            if values[other] > energy or (values[other] == energy and other > state):
                continue
            there = np.int64(label[other]) ^ (move == crossing)
            if here != there:
                key = pair_key(here, there, n_labels, crossing >= 0)
                used = keep_lowest(keys, levels, codes, used, key, energy, state * n_moves + move)
    return stop, used


@njit(nogil=True)
def pair_key(here: Any, there: Any, n_labels: int, mirrored: bool) -> Any:
    """The same for (a, b), (b, a) and, under the mirror quotient, the pair of their mirror images."""
    low, high = min(here, there), max(here, there)
    if mirrored:
        flip = low & 1
        low ^= flip
        high ^= flip
    return low * n_labels + high


@njit(nogil=True)
def keep_lowest(
    keys: np.ndarray, levels: np.ndarray, codes: np.ndarray, used: int, key: int, level: float, code: int
) -> int:
    """Enter a pass into the table; the number of entries afterwards."""
    mask = len(keys) - 1
    slot = ((key * 0x9E3779B97F4A7C1) >> 20) & mask
    while keys[slot] != key:
        if keys[slot] < 0:
            keys[slot], levels[slot], codes[slot] = key, level, code
            return used + 1
        slot = (slot + 1) & mask
    if level < levels[slot] or (level == levels[slot] and code < codes[slot]):
        levels[slot], codes[slot] = level, code
    return used


@njit(nogil=True)
def refill(
    old_keys: np.ndarray,
    old_levels: np.ndarray,
    old_codes: np.ndarray,
    keys: np.ndarray,
    levels: np.ndarray,
    codes: np.ndarray,
    used: int,
) -> int:
    """Enter a list of passes, or another table, into a table."""
    for k in range(len(old_keys)):
        if old_keys[k] >= 0:
            used = keep_lowest(keys, levels, codes, used, old_keys[k], old_levels[k], old_codes[k])
    return used
