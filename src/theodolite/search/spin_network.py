"""A growing network of minima of spins and the passes between their trees: what a certified tree remembers.

Minima are kept as packed bits, found by hash and compared bit by bit. Where E(s) = E(-s) only one of each mirror pair
is kept, the one with spin 0 up, and a pass has a *parity*: 1 where it leads to the mirror image of its second minimum.
Minimum i then stands for the nodes 2 i and 2 i + 1 (its image): two *sheets*. Without the symmetry there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numba import njit

from theodolite.search.exact_costs import (
    ExactCosts,
    costs_of,
    descend,
    pack_words,
    same_words,
    unpack_mask,
    word_hash,
)
from theodolite.search.reverse_search import FoundPasses, record

NEVER = np.iinfo(np.int64).min  # a ceiling that was never set
ALWAYS = np.iinfo(np.int64).max  # a ceiling above every energy


@final
@dataclass
class SpinNetwork:
    """Minima 0..n_minima-1 and passes 0..n_passes-1; the arrays are longer and grow by doubling.

    ``words`` (minimum, word) uint64, ``energy`` and ``ceiling`` (minimum,) int64 in units of the exact costs: all
    passes out of a minimum's tree below its ceiling are known. ``table`` finds minima by hash. A pass leads from the
    tree of ``first`` to that of ``second`` (or its mirror image, ``parity``) at energy ``level``, from the state
    ``state`` (pass, word) by flip ``coordinate``.
    """

    n_spins: int
    sheets: int
    words: np.ndarray
    energy: np.ndarray
    ceiling: np.ndarray
    table: np.ndarray
    n_minima: int
    first: np.ndarray
    second: np.ndarray
    parity: np.ndarray
    level: np.ndarray
    state: np.ndarray
    coordinate: np.ndarray
    n_passes: int

    def node_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """First, second, parity and level of the passes there are."""
        used = slice(0, self.n_passes)
        return self.first[used], self.second[used], self.parity[used], self.level[used]


def new_network(n_spins: int, mirrored: bool, size: int = 1024) -> SpinNetwork:
    """An empty network of ``n_spins`` spins, with mirror images where ``mirrored``."""
    n_words = -(-n_spins // 64)
    return SpinNetwork(
        n_spins=n_spins,
        sheets=2 if mirrored else 1,
        words=np.zeros((size, n_words), np.uint64),
        energy=np.zeros(size, np.int64),
        ceiling=np.full(size, NEVER, np.int64),
        table=np.full(4 * size, -1, np.int32),
        n_minima=0,
        first=np.zeros(size, np.int32),
        second=np.zeros(size, np.int32),
        parity=np.zeros(size, np.int8),
        level=np.zeros(size, np.int64),
        state=np.zeros((size, n_words), np.uint64),
        coordinate=np.zeros(size, np.int16),
        n_passes=0,
    )


def network_bytes(n_words: int, n_minima: int, n_passes: int) -> int:
    """Memory of a network of that capacity, with what spanning and compacting it takes on top."""
    minimum = 8 * n_words + 16 + 16  # words, energy and ceiling, four slots of the table
    spanning = 2 * (4 + 4 + 8 + 4 + 4) + 4 * (4 + 8) + 8  # per node and per merge of `span`
    one_pass = 4 + 4 + 1 + 8 + 8 * n_words + 2
    return n_minima * (minimum + spanning) + n_passes * (2 * one_pass + 8 + 2)


def make_room(network: SpinNetwork, n_new: int, limit: int) -> bool:
    """Grow until ``n_new`` more minima and passes fit; False, changing nothing, where this takes over ``limit``."""
    minima, passes = len(network.energy), len(network.level)
    while minima < network.n_minima + n_new:
        minima *= 2
    while passes < network.n_passes + n_new:
        passes *= 2
    if network_bytes(network.words.shape[1], minima, passes) > limit:
        return False
    for name, size, fill in (
        ("words", minima, 0),
        ("energy", minima, 0),
        ("ceiling", minima, NEVER),
        ("first", passes, 0),
        ("second", passes, 0),
        ("parity", passes, 0),
        ("level", passes, 0),
        ("state", passes, 0),
        ("coordinate", passes, 0),
    ):
        old = getattr(network, name)
        if len(old) < size:
            new = np.full((size, *old.shape[1:]), fill, old.dtype)
            new[: len(old)] = old
            setattr(network, name, new)
    if len(network.table) < 4 * minima:
        network.table = np.full(4 * minima, -1, np.int32)
        _refill(network.table, network.words[: network.n_minima])
    return True


def absorb(network: SpinNetwork, exact: ExactCosts, found: FoundPasses) -> None:
    """Add the passes found, and the minima they lead to; `make_room` was called for as many."""
    count = int(found.count[0])
    network.n_minima = _absorb(
        exact,
        found,
        network.sheets == 2,
        network.words,
        network.energy,
        network.table,
        network.n_minima,
        network.first[network.n_passes :],
        network.second[network.n_passes :],
        network.parity[network.n_passes :],
    )
    new = slice(network.n_passes, network.n_passes + count)
    network.level[new] = found.level[:count]
    network.state[new] = found.state[:count]
    network.coordinate[new] = found.coordinate[:count]
    network.n_passes += count
    found.table[:] = -1
    found.count[0] = 0


def add_minima(network: SpinNetwork, exact: ExactCosts, spins: np.ndarray) -> np.ndarray:
    """Nodes (m,) int64 of minima ``(m, n)`` of +-1, added where new; `make_room` was called for as many."""
    nodes = np.empty(len(spins), np.int64)
    network.n_minima = _add_minima(
        exact,
        np.where(spins > 0, 0, -1).astype(np.int64),
        network.sheets,
        network.words,
        network.energy,
        network.table,
        network.n_minima,
        nodes,
    )
    return nodes


def add_path(network: SpinNetwork, exact: ExactCosts, path: np.ndarray, found: FoundPasses, limit: int) -> bool:
    """Quench every state of a path ``(steps, n)`` and add the passes where it changes from tree to tree.

    Consecutive states differ in one spin. ``found`` is an empty buffer of at least ``steps`` passes. False, having
    added nothing, where memory over ``limit`` would be needed.
    """
    if not make_room(network, 2 * len(path), limit):
        return False
    mask = np.where(path > 0, 0, -1).astype(np.int64)
    minima = _quench_path(exact, mask)
    sources = add_minima(network, exact, 2 * minima + 1)
    _record_path(exact, mask, minima, sources, network.sheets, found)
    absorb(network, exact, found)
    return True


def compact(network: SpinNetwork, keep: np.ndarray) -> None:
    """Keep the passes ``keep`` (indices), in that order."""
    for name in ("first", "second", "parity", "level", "state", "coordinate"):
        column = getattr(network, name)
        column[: len(keep)] = column[keep]
    network.n_passes = len(keep)


def node_spins(network: SpinNetwork, node: int) -> np.ndarray:
    """Spins ``(n,)`` int8 of a node: a minimum, or the mirror image of one."""
    mask = np.empty(network.n_spins, np.int64)
    unpack_mask(network.words[node // network.sheets], mask)
    spins = (2 * mask + 1).astype(np.int8)
    return -spins if node % network.sheets else spins


@njit
def _canonical(words: np.ndarray, n_spins: int) -> int:
    """Turn words in place into those with spin 0 up; whether they were mirrored."""
    if words[0] & np.uint64(1):
        return 0
    for w in range(len(words)):
        bits = n_spins - 64 * w
        every = ~np.uint64(0) if bits >= 64 else (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
        words[w] ^= every
    return 1


@njit
def _place(words: np.ndarray, table: np.ndarray, all_words: np.ndarray) -> Any:
    """Where the minimum is in the table, or the empty place where it belongs."""
    size = len(table) - 1
    place = np.int64(word_hash(words) & np.uint64(size))
    while table[place] >= 0 and not same_words(all_words[table[place]], words):
        place = (place + 1) & size
    return place


@njit
def _refill(table: np.ndarray, all_words: np.ndarray) -> None:
    for i in range(len(all_words)):
        table[_place(all_words[i], table, all_words)] = i


@njit
def _number(exact, words, all_words, energy, table, n_minima):
    """The number of a minimum and how many there are now."""
    place = _place(words, table, all_words)
    if table[place] >= 0:
        return np.int64(table[place]), n_minima
    table[place] = n_minima
    for w in range(len(words)):
        all_words[n_minima, w] = words[w]
    n = len(exact.external)
    mask, costs = np.empty(n, np.int64), np.empty(n, np.int64)
    unpack_mask(words, mask)
    energy[n_minima] = costs_of(exact.quadruple, exact.external, mask, costs)
    return n_minima, n_minima + 1


@njit
def _absorb(exact, found, mirrored, all_words, energy, table, n_minima, first, second, parity):
    for m in range(found.count[0]):
        parity[m] = _canonical(found.neighbour[m], len(exact.external)) if mirrored else 0
        number, n_minima = _number(exact, found.neighbour[m], all_words, energy, table, n_minima)
        first[m] = found.source[m]
        second[m] = number
    return n_minima


@njit
def _add_minima(exact, masks, sheets, all_words, energy, table, n_minima, nodes):
    words = np.empty(all_words.shape[1], np.uint64)
    for m in range(len(masks)):
        pack_words(masks[m], words)
        sheet = _canonical(words, masks.shape[1]) if sheets == 2 else 0
        number, n_minima = _number(exact, words, all_words, energy, table, n_minima)
        nodes[m] = sheets * number + sheet
    return n_minima


@njit
def _quench_path(exact, masks):
    minima = masks.copy()
    costs = np.empty(masks.shape[1], np.int64)
    for t in range(len(masks)):
        costs_of(exact.quadruple, exact.external, minima[t], costs)
        descend(exact.quadruple, minima[t], costs)
    return minima


@njit
def _record_path(exact, masks, minima, nodes, sheets, found):
    n = masks.shape[1]
    costs, mask = np.empty(n, np.int64), np.empty(n, np.int64)
    label = np.empty(found.neighbour.shape[1], np.uint64)
    for t in range(1, len(masks)):
        if nodes[t] == nodes[t - 1]:
            continue
        site = 0
        while masks[t, site] == masks[t - 1, site]:
            site += 1
        mask[:] = masks[t - 1]
        below = costs_of(exact.quadruple, exact.external, mask, costs)
        level = below + max(np.int64(0), costs[site])
        label_mask = minima[t].copy()
        # A pass starts in the tree of a kept minimum, so that a start in a mirror image is mirrored whole.
        if sheets == 2 and nodes[t - 1] % 2 == 1:
            mask[:] = ~mask
            label_mask[:] = ~label_mask
        pack_words(label_mask, label)
        record(found, nodes[t - 1] // sheets, label, level, mask, site)
