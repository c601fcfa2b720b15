"""Compiled single-site Metropolis kernels of the flat-histogram samplers: many million trial moves a second.

A trial draws one coordinate and one other level uniformly; the weight of a point is exp(-entropy[bin]). The
kernels keep their own generators (xoshiro256+, Blackman & Vigna, ACM TOMS 47, 36 (2021)), one a walker, so
that a state restored from a checkpoint goes on bit for bit. They stop early, undoing the trial, when a trial
leaves the arrays: the caller makes room and calls again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit

from theodolite.errors import MissingCapability
from theodolite.field import Field, SingleSite
from theodolite.site_changes import compiled_change


def seed_generators(n: int, generator: torch.Generator) -> np.ndarray:
    """Four 64-bit words for each of ``n`` xoshiro256+ generators, ``(n, 4)`` uint64, from a torch
    generator."""
    words = torch.randint(0, 2**62, (n, 8), generator=generator).numpy().astype(np.uint64)
    return words[:, :4] ^ (words[:, 4:] << np.uint64(2))


def single_site_of(field: Field) -> SingleSite:
    """The field's ``single_site``, or one made from its ``table``; raises MissingCapability without
    either."""
    change = compiled_change(field)
    if change is None:
        raise MissingCapability(
            "field", "a field with single_site or table", f"{field.name!r} without", "use a method of batches"
        )
    return change


@njit
def next_word(s0: Any, s1: Any, s2: Any, s3: Any) -> tuple[Any, Any, Any, Any, Any]:
    """One step of xoshiro256+ on four words kept in registers: the output and the four new words."""
    result = s0 + s3
    shifted = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    return result, s0, s1, s2, s3


@njit
def to_move(word: Any, levels: np.ndarray, n_levels: int) -> tuple[Any, Any]:
    """A uniform coordinate of one point ``levels`` (coordinate,) and a uniform other level for it, from 64
    random bits."""
    site = np.int64(((word >> np.uint64(32)) * np.uint64(len(levels))) >> np.uint64(32))
    old_level = np.int64(levels[site])
    if n_levels == 2:
        return site, 1 - old_level
    jump = np.int64(((word & np.uint64(0xFFFFFFFF)) * np.uint64(n_levels - 1)) >> np.uint64(32))
    return site, jump + 1 if jump >= old_level else jump


@njit
def to_uniform(word: Any) -> float:
    """Uniform in [0, 1) from the upper 53 of 64 random bits."""
    return np.float64(word >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit
def admit(there: Any, entropy: np.ndarray, seen: np.ndarray) -> None:
    """A bin seen for the first time starts at the least entropy seen so far."""
    least = np.inf
    for b in range(len(entropy)):
        if seen[b] and entropy[b] < least:
            least = entropy[b]
    entropy[there] = least
    seen[there] = True


@njit
def advance(
    change: Any,
    data: Any,
    n_levels: int,
    levels: np.ndarray,
    values: np.ndarray,
    bins: np.ndarray,
    words: np.ndarray,
    origin: float,
    width: float,
    entropy: np.ndarray,
    seen: np.ndarray,
    visits: np.ndarray,
    moves: np.ndarray,
    left: np.ndarray,
    learning: bool,
    increment: float,
    inverse_time: float,
    time: int,
) -> tuple[Any, Any]:
    """Make ``left`` (walker,) trial moves, the walkers taking turns of 64; ``left`` counts down.

    All arrays are changed in place: ``levels`` (walker, coordinate), ``values`` and ``bins`` (walker,),
    ``words`` (walker, 4), ``entropy`` and ``seen`` (bin,), ``visits`` (walker, bin), ``moves`` (walker, bin,
    2 * reach + 1): trials from a bin by the distance of the bin they proposed, accepted or not. When
    ``learning`` every trial adds to the entropy of the bin it ends in: ``increment``, or ``inverse_time`` /
    (trials before and with this one) where that is not 0. Returns -1, 0, or the walker and the bin of a trial
    that was undone because it left ``entropy`` or ``moves``.
    """
    n_walkers = len(levels)
    n_bins = len(entropy)
    reach = (moves.shape[2] - 1) // 2
    scale = 1.0 / width
    clock = time + 1.0
    while left.max() > 0:
        for walker in range(n_walkers):
            row = levels[walker]
            walker_moves = moves[walker]
            walker_visits = visits[walker]
            s0, s1, s2, s3 = words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3]
            here = bins[walker]
            value = values[walker]
            turn = min(64, left[walker])
            escaped = -1
            escape = 0
            for t in range(turn):
                r0, r1, r2, r3 = s0, s1, s2, s3
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                site, new_level = to_move(word, row, n_levels)
                new_value = value + change(row, site, new_level, data)
                there = np.int64(np.floor((new_value - origin) * scale))
                distance = there - here
                if there < 0 or there >= n_bins or distance > reach or distance < -reach:
                    s0, s1, s2, s3 = r0, r1, r2, r3
                    escaped = walker
                    escape = there
                    turn = t
                    break
                walker_moves[here, distance + reach] += 1
                if learning and not seen[there]:
                    admit(there, entropy, seen)
                gain = entropy[here] - entropy[there]
                accepted = gain >= 0.0
                if not accepted:
                    word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                    accepted = to_uniform(word) < np.exp(gain)
                if accepted:
                    row[site] = new_level
                    value = new_value
                    here = there
                walker_visits[here] += 1
                if learning:
                    entropy[here] += inverse_time / clock if inverse_time > 0.0 else increment
                    clock += 1.0
            words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3] = s0, s1, s2, s3
            bins[walker] = here
            values[walker] = value
            left[walker] -= turn
            if escaped >= 0:
                return escaped, escape
    return -1, 0


@njit
def draw_moves(levels: np.ndarray, n_levels: int, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One move of each walker: sites and new levels, both ``(walker,)``."""
    sites = np.empty(len(levels), np.int64)
    new_levels = np.empty(len(levels), np.int64)
    for walker in range(len(levels)):
        word, words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3] = next_word(
            words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3]
        )
        sites[walker], new_levels[walker] = to_move(word, levels[walker], n_levels)
    return sites, new_levels


@njit
def decide_moves(
    sites: np.ndarray,
    new_levels: np.ndarray,
    new_values: np.ndarray,
    new_bins: np.ndarray,
    levels: np.ndarray,
    values: np.ndarray,
    bins: np.ndarray,
    words: np.ndarray,
    entropy: np.ndarray,
    seen: np.ndarray,
    visits: np.ndarray,
    moves: np.ndarray,
    learning: bool,
    increment: float,
    inverse_time: float,
    time: int,
) -> None:
    """Accept or reject one move of each walker whose new value is known; the arrays are those of
    ``advance``."""
    reach = (moves.shape[2] - 1) // 2
    for walker in range(len(levels)):
        here = bins[walker]
        there = new_bins[walker]
        moves[walker, here, there - here + reach] += 1
        if learning and not seen[there]:
            admit(there, entropy, seen)
        gain = entropy[here] - entropy[there]
        accepted = gain >= 0.0
        if not accepted:
            word, words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3] = next_word(
                words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3]
            )
            accepted = to_uniform(word) < np.exp(gain)
        if accepted:
            levels[walker, sites[walker]] = new_levels[walker]
            values[walker] = new_values[walker]
            bins[walker] = there
            here = there
        visits[walker, here] += 1
        if learning:
            entropy[here] += inverse_time / (time + walker + 1.0) if inverse_time > 0.0 else increment


@njit
def log_stationary(moves: np.ndarray) -> np.ndarray:
    """ln of the stationary distribution of the chain that accepts every trial, ``(bin,)``; NaN where not
    linked.

    ``moves`` (bin, 2 * reach + 1) counts trials by proposed distance. Uniform trials accepted always leave
    the uniform distribution of points unchanged, so this is the density of states up to a constant: the
    infinite-temperature transition matrix of Wang & Swendsen, J. Stat. Phys. 106, 245 (2002). Solved without
    subtraction (Grassmann, Taksar & Heyman, Oper. Res. 33, 1107 (1985)), the last step in logarithms, so that
    every bin has full relative accuracy.
    """
    n_bins, span = moves.shape
    reach = (span - 1) // 2
    linked = _linked(moves)
    chance = np.zeros((n_bins, span))
    for i in range(n_bins):
        if not linked[i]:
            continue
        total = 0.0
        for k in range(span):
            total += moves[i, k]
        for k in range(span):
            j = i + k - reach
            if 0 <= j < n_bins and linked[j]:
                chance[i, k] = moves[i, k] / total
    for n in range(n_bins - 1, 0, -1):
        if not linked[n]:
            continue
        low = max(0, n - reach)
        leaving = 0.0
        for j in range(low, n):
            leaving += chance[n, j - n + reach]
        if leaving == 0.0:
            continue
        for i in range(low, n):
            entering = chance[i, n - i + reach] / leaving
            chance[i, n - i + reach] = entering
            if entering > 0.0:
                for j in range(low, n):
                    chance[i, j - i + reach] += entering * chance[n, j - n + reach]
    result = np.full(n_bins, np.nan)
    started = False
    for n in range(n_bins):
        if not linked[n]:
            continue
        if not started:
            result[n] = 0.0
            started = True
            continue
        top = -np.inf
        for i in range(max(0, n - reach), n):
            if linked[i] and chance[i, n - i + reach] > 0.0:
                top = max(top, result[i] + np.log(chance[i, n - i + reach]))
        total = 0.0
        for i in range(max(0, n - reach), n):
            if linked[i] and chance[i, n - i + reach] > 0.0:
                total += np.exp(result[i] + np.log(chance[i, n - i + reach]) - top)
        result[n] = top + np.log(total)
    return result


@njit
def _linked(moves: np.ndarray) -> np.ndarray:
    """Bins joined to the most tried bin by trials seen in both directions, ``(bin,)`` bool."""
    n_bins, span = moves.shape
    reach = (span - 1) // 2
    root = np.argmax(moves.sum(axis=1))
    linked = np.zeros(n_bins, np.bool_)
    queue = np.empty(n_bins, np.int64)
    linked[root] = True
    queue[0] = root
    head, tail = 0, 1
    while head < tail:
        i = queue[head]
        head += 1
        for k in range(span):
            j = i + k - reach
            if 0 <= j < n_bins and not linked[j] and moves[i, k] > 0 and moves[j, i - j + reach] > 0:
                linked[j] = True
                queue[tail] = j
                tail += 1
    return linked
