"""Every state of a steepest-descent tree below a ceiling, without remembering any: reverse search, compiled.

The parent of a state is the state its steepest flip leads to, so the states that descend to one minimum form a tree.
A depth-first walk from the minimum enumerates it in the memory of one path: state x with flip k is a child of x
where undoing k is the steepest flip there (Avis and Fukuda, Discrete Appl. Math. 65, 21 (1996)). On the way the walk
records passes, the flips that lead into other trees.

Which passes must be recorded. Let a set of trees be enumerated below a ceiling, and let two neighbouring states, the
higher one of energy e below the ceiling, lie inside and outside of the set. Then a recorded pass leaves the set at
energy e or lower, although

- of the descending flips of a state x in the tree, those joined to the steepest one through states below x are not
  followed (j and l are joined where flipping both leads below x), and of other joined groups only one flip is: what
  lies between joined flips lies below e, where the same argument holds again;
- a state x = s^k above s that lies in another tree is not followed where a flip l, steeper in x than k, has
  E(s^l) < E(x): s, s^l, s^kl lie below x, and s^kl is x's steeper neighbour, from where x is looked at again;
- a flat flip l (equal energies) of x = s^k is not followed where E(s^l) < E(x): s^kl is then looked at from s^l.

Arithmetic is exact (`exact_costs`): nothing drifts, ties are ties and equal energies are allowed, though a plateau is
split into as many trees as it has states without a lower neighbour.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from theodolite.search.exact_costs import (
    COARSE_RANGE,
    LANES,
    ExactCosts,
    costs_of,
    descend,
    flip_all,
    pack_words,
    same_words,
    unpack_mask,
    word_hash,
)

_REFRESHED = 64  # depths at which coarse costs are rounded anew
_PADDING = -16384  # below every coarse cost

DONE, PAUSED, FULL, DEEPER = 0, 1, 2, 3
_OTHER, _WAITING, _REACHED = 0, 1, 2


class Walk(NamedTuple):
    """One depth-first walk, resumable: a row of each array is a state on the path from the minimum.

    ``costs`` (depth, n) int64, ``coarse`` (depth, padded) int16, ``candidates`` (depth, n) int16 with ``n_candidates``
    and ``pointer`` (depth,), ``flips`` (depth,) what led here, ``energies`` (depth,) int64; ``mask`` (n,) int64 is 0
    for up and -1 for down, ``signs`` (padded,) int16 the same as +-1, ``root`` (words,) the minimum; ``numbers`` is
    depth, source (the minimum's number), ceiling.
    """

    costs: np.ndarray
    coarse: np.ndarray
    candidates: np.ndarray
    n_candidates: np.ndarray
    pointer: np.ndarray
    flips: np.ndarray
    energies: np.ndarray
    mask: np.ndarray
    signs: np.ndarray
    root: np.ndarray
    numbers: np.ndarray


class FoundPasses(NamedTuple):
    """Passes as they are found, the lowest for each source and neighbour: ``state`` (m, words) with flip
    ``coordinate`` leads from the tree of minimum ``source`` to that of the state ``neighbour`` (m, words), at integer
    energy ``level``. ``table`` finds them by hash; ``count`` (1,)."""

    source: np.ndarray
    level: np.ndarray
    state: np.ndarray
    neighbour: np.ndarray
    coordinate: np.ndarray
    table: np.ndarray
    count: np.ndarray


@njit
def record(found: FoundPasses, source: int, neighbour: np.ndarray, level: Any, mask: np.ndarray, site: Any) -> None:
    """Add a pass from the state ``mask``, or lower the one already found between the two trees."""
    size = len(found.table) - 1
    place = np.int64((word_hash(neighbour) ^ (np.uint64(source) * np.uint64(0xD6E8FEB86659FD93))) & np.uint64(size))
    while found.table[place] >= 0:
        at = found.table[place]
        if found.source[at] == source and same_words(found.neighbour[at], neighbour):
            if level < found.level[at]:
                found.level[at] = level
                found.coordinate[at] = site
                pack_words(mask, found.state[at])
            return
        place = (place + 1) & size
    at = found.count[0]
    found.count[0] = at + 1
    found.table[place] = at
    found.source[at] = source
    found.level[at] = level
    found.coordinate[at] = site
    for w in range(len(neighbour)):
        found.neighbour[at, w] = neighbour[w]
    pack_words(mask, found.state[at])


@njit
def start_walk(exact: ExactCosts, walk: Walk, words: np.ndarray, source: int, ceiling: Any) -> None:
    """Set a walk to the minimum ``words``, to enumerate its tree below ``ceiling``."""
    mask, costs = walk.mask, walk.costs[0]
    unpack_mask(words, mask)
    for w in range(len(words)):
        walk.root[w] = words[w]
    walk.energies[0] = costs_of(exact.quadruple, exact.external, mask, costs)
    coarsen(walk.costs, walk.coarse, 0, exact.shift)
    slack = ceiling - walk.energies[0]
    n = 0
    for j in range(len(mask)):
        walk.signs[j] = 2 * mask[j] + 1
        if 0 < costs[j] < slack:
            walk.candidates[0, n] = j
            n += 1
    walk.n_candidates[0] = n
    walk.pointer[0] = 0
    walk.numbers[0], walk.numbers[1], walk.numbers[2] = 0, source, ceiling


@njit
def coarsen(costs: np.ndarray, coarse: np.ndarray, depth: int, shift: int) -> None:
    """Round a row of exact costs to coarse ones."""
    half = (np.int64(1) << shift) >> 1
    for j in range(costs.shape[1]):
        coarse[depth, j] = (costs[depth, j] + half) >> shift


@njit(inline="always")
def may_matter(
    coarse: np.ndarray, depth: int, rows: np.ndarray, site: Any, signs: np.ndarray, limit: int, error: int
) -> Any:
    """Whether some flip j no cheaper than ``site`` may cost at most ``limit`` once ``site`` is flipped.

    Only these are children of the flipped state, or lead from it into other trees. All in coarse units, in which a
    difference of two costs is wrong by ``error`` at most.
    """
    least, bound = np.int16(coarse[depth, site] - error), np.int16(limit)
    sign = signs[site]
    # Counted in 16 bits, so that the whole loop runs in 16-bit lanes.
    count = np.int16(0)
    for j in range(coarse.shape[1]):
        cost = np.int16(coarse[depth, j] - np.int16(np.int16(sign * signs[j]) * rows[site, j]))
        if coarse[depth, j] >= least and cost <= bound:
            count = np.int16(count + np.int16(1))
    return count > 0


@njit(inline="always")
def flip_coarse(coarse: np.ndarray, depth: int, rows: np.ndarray, site: Any, signs: np.ndarray, error: int) -> Any:
    """Write the coarse costs after a flip one row deeper; whether a cheaper flip is surely steeper then than undoing
    this one, so that the flipped state is neither a child nor of interest."""
    sign = signs[site]
    cheaper, steeper = np.int16(coarse[depth, site] - error), np.int16(-coarse[depth, site] - error)
    count = np.int16(0)
    for j in range(coarse.shape[1]):
        cost = np.int16(coarse[depth, j] - np.int16(np.int16(sign * signs[j]) * rows[site, j]))
        coarse[depth + 1, j] = cost
        if coarse[depth, j] < cheaper and cost < steeper and cost > _PADDING:
            count = np.int16(count + np.int16(1))
    coarse[depth + 1, site] = np.int16(-coarse[depth, site])
    return count > 0


@njit(inline="always")
def flip_exact(costs: np.ndarray, depth: int, quadruple: np.ndarray, site: Any, mask: np.ndarray) -> None:
    """Write the costs after a flip one row deeper."""
    there = mask[site]
    for j in range(len(mask)):
        sign = mask[j] ^ there
        costs[depth + 1, j] = costs[depth, j] - ((quadruple[site, j] ^ sign) - sign)
    costs[depth + 1, site] = -costs[depth, site]


@njit(nogil=True)
def enumerate_tree(exact: ExactCosts, walk: Walk, found: FoundPasses, quota: int) -> tuple[Any, Any]:
    """Go on with a walk for ``quota`` states; how it ended (DONE, PAUSED, FULL, DEEPER), and the states examined."""
    quadruple, rows, shift = exact.quadruple, exact.coarse, exact.shift
    costs, coarse, candidates, mask, signs = walk.costs, walk.coarse, walk.candidates, walk.mask, walk.signs
    n_candidates, pointer, flips, energies = walk.n_candidates, walk.pointer, walk.flips, walk.energies
    n = len(mask)
    depth, ceiling = walk.numbers[0], walk.numbers[2]
    room = _room(found, walk)
    low = np.empty(n + 1, np.int64)
    scratch = np.empty((2, n), np.int64)
    kind = np.empty(n, np.int8)
    label = np.empty(len(walk.root), np.uint64)
    n_states = 0
    while True:
        if pointer[depth] >= n_candidates[depth]:
            if depth == 0:
                return DONE, n_states
            site = flips[depth]
            mask[site] = ~mask[site]
            signs[site] = -signs[site]
            depth -= 1
            continue
        if n_states >= quota or found.count[0] >= room or depth + 2 > len(flips):
            walk.numbers[0] = depth
            return PAUSED if n_states >= quota else FULL if found.count[0] >= room else DEEPER, n_states
        site = np.int64(candidates[depth, pointer[depth]])
        pointer[depth] += 1
        n_states += 1
        cost = costs[depth, site]
        energy = energies[depth] + cost
        slack = ceiling - energy
        if slack <= 0:
            continue
        # A coarse cost is wrong by half a unit when rounded and by half a unit more with every flip since.
        error = depth % _REFRESHED + 2
        limit = min((slack >> shift) + error, 2 * COARSE_RANGE)
        if not may_matter(coarse, depth, rows, site, signs, limit, error):
            continue
        if flip_coarse(coarse, depth, rows, site, signs, error):
            continue
        least, steeper = coarse[depth, site] - error, error - coarse[depth, site]
        n_low = 0
        for j in range(n):
            low[n_low] = j
            below_coarse = coarse[depth + 1, j]
            n_low += ((below_coarse <= limit) & (coarse[depth, j] >= least)) | (below_coarse <= steeper)
        there = mask[site]
        outside, joined, loose = False, False, False
        n_next = 0
        for q in range(n_low):
            j = low[q]
            sign = mask[j] ^ there
            below = costs[depth, j] - ((quadruple[site, j] ^ sign) - sign)
            if j == site or below >= slack:
                continue
            if below > 0:
                if costs[depth, j] > cost or (costs[depth, j] == cost and j < site):
                    candidates[depth + 1, n_next] = j
                    n_next += 1
            elif below < -cost or (below == -cost and j < site):
                outside = True
                if costs[depth, j] < cost:
                    joined = True
                    break
            elif costs[depth, j] >= cost:
                loose = True
        if joined or not (outside or loose or n_next > 0):
            continue
        flip_exact(costs, depth, quadruple, site, mask)
        if outside:
            follow(exact, walk, found, depth, site, site, energy, scratch, label)
            continue
        mask[site] = ~there
        if loose:
            follow_loose(exact, walk, found, depth, site, energy, kind, low, scratch, label)
        if n_next == 0:
            mask[site] = there
            continue
        signs[site] = -signs[site]
        depth += 1
        if depth % _REFRESHED == 0:
            coarsen(costs, coarse, depth, shift)
        energies[depth] = energy
        flips[depth] = site
        n_candidates[depth] = n_next
        pointer[depth] = 0


@njit
def follow(exact, walk, found, depth, site, flipped, energy, scratch, label):
    """Record where flip ``site`` leads from the walk's state; ``costs[depth + 1]`` are those after ``flipped``.

    Where ``site`` is ``flipped`` the pass starts at the walk's state, else at the state one deeper (the walk's mask is
    there already).
    """
    mask, costs = scratch[0], scratch[1]
    for j in range(len(mask)):
        mask[j] = walk.mask[j]
        costs[j] = walk.costs[depth + 1, j]
    if site == flipped:
        mask[site] = ~mask[site]
    else:
        flip_all(exact.quadruple, mask, costs, site)
    descend(exact.quadruple, mask, costs)
    pack_words(mask, label)
    if not same_words(label, walk.root):
        record(found, walk.numbers[1], label, energy, walk.mask, site)


@njit
def follow_loose(exact, walk, found, depth, steepest, energy, kind, reached, scratch, label):
    """Record where the descending flips lead that are not joined to the steepest one, and the flat flips."""
    quadruple, mask = exact.quadruple, walk.mask
    above, costs = walk.costs[depth], walk.costs[depth + 1]
    n = len(mask)
    for j in range(n):
        kind[j] = _WAITING if costs[j] < 0 else _OTHER
    start = steepest
    while start >= 0:
        if start != steepest:
            follow(exact, walk, found, depth, start, steepest, energy, scratch, label)
        kind[start] = _REACHED
        reached[0] = start
        n_reached, at = 1, 0
        while at < n_reached:
            j = reached[at]
            at += 1
            for other in range(n):
                if kind[other] == _WAITING:
                    sign = mask[j] ^ mask[other]
                    if costs[j] + costs[other] - ((quadruple[j, other] ^ sign) - sign) < 0:
                        kind[other] = _REACHED
                        reached[n_reached] = other
                        n_reached += 1
        start = -1
        for j in range(n):
            if kind[j] == _WAITING:
                start = j
                break
    for j in range(n):
        if costs[j] == 0 and above[j] >= above[steepest]:
            follow(exact, walk, found, depth, j, steepest, energy, scratch, label)


@njit
def follow_flat(exact: ExactCosts, walk: Walk, found: FoundPasses) -> None:
    """Record where the flat flips of the minimum itself lead, before the walk has left it."""
    scratch = np.empty((2, len(walk.mask)), np.int64)
    label = np.empty(len(walk.root), np.uint64)
    for j in range(len(walk.mask)):
        if walk.costs[0, j] == 0:
            follow(exact, walk, found, -1, j, -1, walk.energies[0], scratch, label)


@njit
def _room(found: FoundPasses, walk: Walk) -> int:
    """Passes found up to which another state, and another minimum, can be looked at."""
    return len(found.source) - 2 * len(walk.mask)


@njit(nogil=True)
def enumerate_trees(
    exact: ExactCosts,
    walk: Walk,
    found: FoundPasses,
    words: np.ndarray,
    sources: np.ndarray,
    target: np.ndarray,
    ceilings: np.ndarray,
    at: int,
    walking: bool,
    quota: int,
) -> tuple[Any, Any, Any, Any]:
    """Enumerate the trees of the minima ``sources[at:]``, with ``words`` (minimum, word), below ``target`` (minimum,).

    ``walking``: the walk is on its way in the first of them. Writes the ceiling each finished tree was enumerated to
    in ``ceilings``. Returns how it ended, where in ``sources``, whether on the way in that one, and states examined.
    """
    n_states = 0
    while at < len(sources):
        source = sources[at]
        if not walking:
            if found.count[0] >= _room(found, walk):
                return FULL, at, False, n_states
            start_walk(exact, walk, words[source], source, target[source])
            follow_flat(exact, walk, found)
        walk.numbers[2] = min(walk.numbers[2], target[source])
        ended, states = enumerate_tree(exact, walk, found, quota - n_states)
        n_states += states
        if ended != DONE:
            return ended, at, True, n_states
        ceilings[at] = walk.numbers[2]
        walking = False
        at += 1
        # A tree without states of its own costs something too.
        n_states += 1
        if n_states >= quota:
            return PAUSED, at, False, n_states
    return DONE, at, False, n_states


def deepened(walk: Walk) -> Walk:
    """The same walk with room for twice the depth."""
    deeper = new_walk(len(walk.mask), 2 * len(walk.flips))
    for old, new in zip(walk, deeper, strict=True):
        new[: len(old)] = old
    return deeper


def new_walk(n: int, depth: int) -> Walk:
    """A walk of ``n`` spins, not started, with room for ``depth`` flips."""
    padded = -(-n // LANES) * LANES
    return Walk(
        costs=np.zeros((depth, n), np.int64),
        coarse=np.full((depth, padded), _PADDING, np.int16),
        candidates=np.zeros((depth, n), np.int16),
        n_candidates=np.zeros(depth, np.int64),
        pointer=np.zeros(depth, np.int64),
        flips=np.zeros(depth, np.int64),
        energies=np.zeros(depth, np.int64),
        mask=np.zeros(n, np.int64),
        signs=np.zeros(padded, np.int16),
        root=np.zeros(-(-n // 64), np.uint64),
        numbers=np.zeros(3, np.int64),
    )


def new_found(n: int, size: int) -> FoundPasses:
    """An empty buffer of ``size`` passes between states of ``n`` spins; ``size`` is a power of 2."""
    n_words = -(-n // 64)
    return FoundPasses(
        source=np.zeros(size, np.int32),
        level=np.zeros(size, np.int64),
        state=np.zeros((size, n_words), np.uint64),
        neighbour=np.zeros((size, n_words), np.uint64),
        coordinate=np.zeros(size, np.int16),
        table=np.full(4 * size, -1, np.int32),
        count=np.zeros(1, np.int64),
    )
