"""Attraction-Diffusion on spins with pair couplings, compiled: sweeps of single-site heat bath under a magnetisation.

Source: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", equation 3.1
and Algorithm 3, steps 3a and 3b. Every trial has a random generator of its own, seeded by one 64-bit key, so that its
result depends neither on the batch it runs in nor on the number of threads.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numba import njit

from theodolite.field import FlipCosts
from theodolite.sampling.site_kernels import next_word, to_uniform
from theodolite.spin_kernels import energy as state_energy
from theodolite.spin_kernels import flip

# A site's uniform number is below TAIL in one of 403 visits; those visits are drawn ahead, so that at all others a
# spin whose flip is less likely than TAIL costs one comparison and no random number. The law is that of plain sweeps.
_CUT = 6.0
_TAIL = 1.0 / (1.0 + math.exp(_CUT))
_LOG_KEPT = math.log1p(-_TAIL)
_LEAST_TRIALS_A_THREAD = 32


@final
@dataclass(frozen=True)
class SpinLimits:
    """When a trial ends: as soon as at most ``stop`` spins differ (success), after ``improvement`` sweeps in a row
    whose ends came no closer, or after ``sweeps`` altogether."""

    improvement: int
    stop: int
    sweeps: int


@final
@dataclass(frozen=True)
class SpinTrials:
    """Results ``(trial,)``: ``success``, ``closest`` (spins that differ, at the ends of sweeps), ``sweeps``,
    ``highest`` energy of the states passed (unmagnetised), number of ``flips``."""

    success: np.ndarray
    closest: np.ndarray
    sweeps: np.ndarray
    highest: np.ndarray
    flips: np.ndarray


@final
@dataclass(frozen=True)
class SpinChains:
    """The last ``spins`` ``(chain, n)``, the ``energy`` after each sweep, the start's first, ``(chain, sweep + 1)``,
    and the number of ``flips`` ``(chain,)``."""

    spins: np.ndarray
    energy: np.ndarray
    flips: np.ndarray


def penalty_steps(n: int, alpha: float, norm: str) -> np.ndarray:
    """What a flip away from the target adds to alpha |X - X*|, ``(n + 1,)``, by the number of spins that differ.

    On -1 and +1 the L1 norm is 2 d and the L2 norm 2 sqrt(d) at d spins that differ.
    """
    distance = np.arange(n + 2, dtype=np.float64)
    return np.diff(2.0 * alpha * (distance if norm == "L1" else np.sqrt(distance)))


def differing(distance: float, norm: str) -> int:
    """The most spins that may differ within a distance of the norm."""
    half = 0.5 * distance
    return math.floor((half if norm == "L1" else half * half) + 1e-9)


def mixed_keys(*parts: Any) -> np.ndarray:
    """One well mixed 64-bit word for each row of broadcast whole numbers: a key for the generator of a trial."""
    key = np.zeros(np.broadcast_shapes(*(np.shape(part) for part in parts)), np.uint64)
    for part in parts:
        key = _mixed(key ^ np.asarray(part, np.int64).astype(np.uint64))
    return key


def drawn_keys(n: int, generator: torch.Generator) -> np.ndarray:
    """``n`` keys from a torch generator."""
    return torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator).numpy().view(np.uint64)


def run_spin_trials(
    flip_costs: FlipCosts,
    start: np.ndarray,
    target: np.ndarray,
    temperature: np.ndarray,
    away: np.ndarray,
    away_row: np.ndarray,
    keys: np.ndarray,
    limits: SpinLimits,
    n_threads: int = 1,
) -> SpinTrials:
    """Trials from ``start`` to ``target`` ``(trial, n)``, spins of any type; the other arrays are ``(trial,)``.

    ``away[away_row]`` are each trial's ``penalty_steps``.
    """
    n = len(target)
    spins, target = start.astype(np.float64, order="C"), target.astype(np.float64, order="C")
    results = SpinTrials(
        np.zeros(n, np.bool_), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
    )

    def part(first: int, last: int) -> None:
        here = slice(first, last)
        _trials(
            flip_costs.couplings,
            flip_costs.external,
            flip_costs.constant,
            spins[here],
            target[here],
            temperature[here],
            away,
            away_row[here],
            keys[here],
            limits.improvement,
            limits.stop,
            limits.sweeps,
            results.success[here],
            results.closest[here],
            results.sweeps[here],
            results.highest[here],
            results.flips[here],
        )

    n_parts = max(1, min(n_threads, n // _LEAST_TRIALS_A_THREAD))
    edges = [n * k // n_parts for k in range(n_parts + 1)]
    if n_parts == 1:
        part(0, n)
    else:
        with ThreadPoolExecutor(n_parts) as pool:
            list(pool.map(part, edges[:-1], edges[1:]))
    return results


def replay_trial(
    flip_costs: FlipCosts,
    start: np.ndarray,
    target: np.ndarray,
    temperature: float,
    away: np.ndarray,
    key: Any,
    n_flips: int,
    limits: SpinLimits,
) -> np.ndarray:
    """The sites flipped, in order ``(n_flips,)``, in the trial of that key from ``start`` to ``target`` ``(n,)``."""
    sites = np.empty(n_flips, np.int32)
    _trial(
        flip_costs.couplings,
        flip_costs.external,
        flip_costs.constant,
        start.astype(np.float64, order="C"),
        target.astype(np.float64, order="C"),
        2.0 / temperature,
        away,
        _words(np.uint64(key)),
        limits.improvement,
        limits.stop,
        limits.sweeps,
        sites,
    )
    return sites


def run_spin_chains(
    flip_costs: FlipCosts,
    start: np.ndarray,
    target: np.ndarray,
    temperature: np.ndarray,
    away: np.ndarray,
    away_row: np.ndarray,
    keys: np.ndarray,
    n_sweeps: int,
) -> SpinChains:
    """Chains of ``n_sweeps`` that never stop, drawn to targets; arguments as in ``run_spin_trials``."""
    spins, target = start.astype(np.float64, order="C"), target.astype(np.float64, order="C")
    energy, flips = np.empty((len(spins), n_sweeps + 1)), np.zeros(len(spins), np.int64)
    _chains(
        flip_costs.couplings,
        flip_costs.external,
        flip_costs.constant,
        spins,
        target,
        temperature,
        away,
        away_row,
        keys,
        energy,
        flips,
    )
    return SpinChains(spins, energy, flips)


@njit
def _mixed(word: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) after its increment."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit
def _words(key: Any) -> np.ndarray:
    """Four words of xoshiro256+ from a key."""
    words = np.empty(4, np.uint64)
    for k in range(4):
        words[k] = _mixed(key + np.uint64(k) * np.uint64(0x9E3779B97F4A7C15))
    return words


@njit(cache=False, nogil=True, fastmath=True)
def _fields(couplings: np.ndarray, external: np.ndarray, spins: np.ndarray) -> np.ndarray:
    """Local fields of one state: the same to the last bit whatever the batch, unlike a matrix product."""
    fields = np.empty(len(spins))
    for i in range(len(spins)):
        total = external[i]
        row = couplings[i]
        for k in range(len(spins)):
            total += row[k] * spins[k]
        fields[i] = total
    return fields


@njit(inline="always")
def _visits_to_tail(word: Any) -> Any:
    """Visits before the next one whose uniform number is below TAIL: geometric."""
    return np.int64(math.log(1.0 - to_uniform(word)) / _LOG_KEPT)


@njit(cache=False, nogil=True, fastmath=True)
def _sweep(
    couplings: np.ndarray,
    spins: np.ndarray,
    fields: np.ndarray,
    target: np.ndarray,
    scale: float,
    away: np.ndarray,
    words: np.ndarray,
    stop: int,
    energy: float,
    highest: float,
    distance: int,
    ahead: int,
    sites: np.ndarray,
    n_flips: int,
) -> Any:
    """One heat-bath visit of every site, in order, until at most ``stop`` spins differ; ``scale`` is 2 / T.

    ``ahead`` counts the visits to the next uniform number below TAIL. Flipped sites are written to ``sites`` while
    it has room. Returns energy, highest energy, distance, ahead and number of flips.
    """
    n = len(spins)
    s0, s1, s2, s3 = words[0], words[1], words[2], words[3]
    leave, approach = away[distance], -away[max(distance - 1, 0)]
    for i in range(n):
        agree = spins[i] == target[i]
        cost = scale * spins[i] * fields[i] + (leave if agree else approach)
        if ahead > 0 and cost >= _CUT:
            ahead -= 1
            continue
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        uniform = to_uniform(word)
        if ahead == 0:
            uniform *= _TAIL
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            ahead = _visits_to_tail(word)
        else:
            uniform = _TAIL + (1.0 - _TAIL) * uniform
            ahead -= 1
        if uniform * (1.0 + math.exp(cost)) < 1.0:
            energy += 2.0 * spins[i] * fields[i]
            highest = max(highest, energy)
            flip(couplings, spins, fields, i)
            distance += 1 if agree else -1
            leave, approach = away[distance], -away[max(distance - 1, 0)]
            if n_flips < len(sites):
                sites[n_flips] = i
            n_flips += 1
            if distance <= stop:
                break
    words[0], words[1], words[2], words[3] = s0, s1, s2, s3
    return energy, highest, distance, ahead, n_flips


@njit(cache=False, nogil=True)
def _trial(
    couplings: np.ndarray,
    external: np.ndarray,
    constant: float,
    spins: np.ndarray,
    target: np.ndarray,
    scale: float,
    away: np.ndarray,
    words: np.ndarray,
    limit: int,
    stop: int,
    max_sweeps: int,
    sites: np.ndarray,
) -> Any:
    """One trial, ``spins`` moved in place: success, closest, sweeps, highest energy, flips."""
    fields = _fields(couplings, external, spins)
    energy = state_energy(spins, fields, external, constant)
    distance = 0
    for i in range(len(spins)):
        if spins[i] != target[i]:
            distance += 1
    highest, closest, stale, sweeps, n_flips = energy, distance, 0, 0, 0
    word, words[0], words[1], words[2], words[3] = next_word(words[0], words[1], words[2], words[3])
    ahead = _visits_to_tail(word)
    while distance > stop and stale < limit and sweeps < max_sweeps:
        energy, highest, distance, ahead, n_flips = _sweep(
            couplings, spins, fields, target, scale, away, words, stop, energy, highest, distance, ahead, sites, n_flips
        )
        sweeps += 1
        stale += 1
        if distance < closest:
            closest, stale = distance, 0
    return distance <= stop, closest, sweeps, highest, n_flips


@njit(cache=False, nogil=True)
def _trials(
    couplings: np.ndarray,
    external: np.ndarray,
    constant: float,
    spins: np.ndarray,
    target: np.ndarray,
    temperature: np.ndarray,
    away: np.ndarray,
    away_row: np.ndarray,
    keys: np.ndarray,
    limit: int,
    stop: int,
    max_sweeps: int,
    success: np.ndarray,
    closest: np.ndarray,
    sweeps: np.ndarray,
    highest: np.ndarray,
    flips: np.ndarray,
) -> None:
    unrecorded = np.empty(0, np.int32)
    for k in range(len(spins)):
        success[k], closest[k], sweeps[k], highest[k], flips[k] = _trial(
            couplings,
            external,
            constant,
            spins[k],
            target[k],
            2.0 / temperature[k],
            away[away_row[k]],
            _words(keys[k]),
            limit,
            stop,
            max_sweeps,
            unrecorded,
        )


@njit(cache=False, nogil=True)
def _chains(
    couplings: np.ndarray,
    external: np.ndarray,
    constant: float,
    spins: np.ndarray,
    target: np.ndarray,
    temperature: np.ndarray,
    away: np.ndarray,
    away_row: np.ndarray,
    keys: np.ndarray,
    energy: np.ndarray,
    flips: np.ndarray,
) -> None:
    unrecorded = np.empty(0, np.int32)
    for k in range(len(spins)):
        words = _words(keys[k])
        fields = _fields(couplings, external, spins[k])
        now = state_energy(spins[k], fields, external, constant)
        energy[k, 0] = now
        distance = 0
        for i in range(spins.shape[1]):
            if spins[k, i] != target[k, i]:
                distance += 1
        word, words[0], words[1], words[2], words[3] = next_word(words[0], words[1], words[2], words[3])
        ahead = _visits_to_tail(word)
        for t in range(1, energy.shape[1]):
            now, _, distance, ahead, flips[k] = _sweep(
                couplings,
                spins[k],
                fields,
                target[k],
                2.0 / temperature[k],
                away[away_row[k]],
                words,
                -1,
                now,
                now,
                distance,
                ahead,
                unrecorded,
                flips[k],
            )
            energy[k, t] = now
