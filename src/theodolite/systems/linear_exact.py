"""Exactly how many inputs give each value of a linear field with integer weights.

The number of inputs at value k is the coefficient of q^k in the product over coordinates of
1 + q^w + ... + q^((levels - 1) w). Each factor is built from multiplications by 1 + q^s, which only add
positive numbers, so nothing cancels; exponential tilting (Esscher, Skand. Aktuarietidskr. 15, 175, 1932)
moves the range of float64 along the values.
"""

import functools
import math
from collections.abc import Callable
from typing import cast

import numba
import numpy as np
from scipy.optimize import bisect, fminbound
from scipy.special import expit, logsumexp

from theodolite.errors import UserError
from theodolite.systems.bins import checked_edges
from theodolite.systems.linear import checked_weights

__all__ = ["linear_log_counts", "linear_log_density_of_states"]

# Tilted probabilities below this may have lost addends to underflow; see _tilted_probabilities.
_SMALLEST_TRUSTED = 1e-285
# Per unit of value: e^-64 a unit puts practically all of the weight on the highest value.
_STEEPEST = 64.0
# Bounds memory (8 bytes a value, a few arrays) and time.
_LARGEST_RANGE = 20_000_000


def linear_log_density_of_states(weights: np.ndarray, levels: int, edges: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """ln of the number of inputs in each bin, exact to a relative error of 1e-9 of the number.

    Args:
        weights, levels, scale: as for `linear`.
        edges: `(bin + 1,)`, ascending, in output units; a bin holds its lower edge, the last also its upper.

    Returns:
        `(bin,)` float64 in nats; -inf where no input lies.

    Raises:
        UserError: edges that do not ascend, or what `linear` refuses.
    """
    edges = checked_edges(edges)
    values, log_counts = linear_log_counts(weights, levels)
    outputs = scale * values
    bounds = np.searchsorted(outputs, edges)
    bounds[-1] = np.searchsorted(outputs, edges[-1], side="right")
    result = np.full(len(edges) - 1, -np.inf)
    for index, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if last > first:
            result[index] = logsumexp(log_counts[first:last])
    return result


def linear_log_counts(weights: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Every value sum_i w_i x_i that occurs, and ln of the number of inputs that give it.

    Returns:
        values `(value,)` int64, ascending, and log_counts `(value,)` float64 in nats (absolute error 1e-10).

    Raises:
        UserError: weights that are not whole numbers or all zero, or fewer than 2 levels.
    """
    weights = checked_weights(weights)
    if levels < 2:
        raise UserError("levels", "at least 2 values a coordinate", str(levels), "8-bit pixels have 256")
    common = math.gcd(*weights.tolist())
    steps = tuple(sorted(abs(int(w)) // common for w in weights if w))
    occurring, log_counts = _log_counts(steps, int(levels))
    lowest = int(weights[weights < 0].sum()) * (levels - 1)
    return lowest + common * occurring, log_counts + np.count_nonzero(weights == 0) * math.log(levels)


@functools.lru_cache(maxsize=4)
def _log_counts(steps: tuple[int, ...], levels: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for positive steps: occurring values counted from the lowest, and ln of their counts."""
    top = (levels - 1) * sum(steps)
    if top > _LARGEST_RANGE:
        raise UserError(
            "weights",
            f"a range of at most {_LARGEST_RANGE} values",
            str(top),
            "use smaller weights or levels",
        )
    middle, index = top // 2, np.arange(top + 1)
    distinct, multiplicity = np.unique(steps, return_counts=True)

    def log_partition(tilt: float) -> float:
        return sum(
            int(n) * _log_geometric(tilt * int(step), levels) for step, n in zip(distinct, multiplicity, strict=True)
        )

    occurs = _occurring(steps, levels, top)
    log_counts = np.full(top + 1, np.nan)
    frontier, tilt = middle, 0.0
    while True:
        probability = _tilted_probabilities(steps, levels, tilt)
        new = (probability > _SMALLEST_TRUSTED) & np.isnan(log_counts)
        log_counts[new] = np.log(probability[new]) + log_partition(tilt) - tilt * index[new]
        missing = np.flatnonzero(np.isnan(log_counts[middle:]) & occurs[middle:])
        if not len(missing):
            break
        if middle + missing[0] == frontier:
            raise UserError(
                "weights",
                "counts within a factor of 1e285 of their concave envelope",
                "a value far rarer than both its neighbours",
                "use weights of similar size",
            )
        frontier = middle + int(missing[0])
        tilt = _tilt_beyond(frontier, log_partition)
    # x -> levels - 1 - x maps the value v to top - v, so the counts are symmetric.
    log_counts[:middle] = log_counts[: top - middle : -1]
    return np.flatnonzero(occurs), log_counts[occurs]


def _occurring(steps: tuple[int, ...], levels: int, top: int) -> np.ndarray:
    """Which values occur at all, `(top + 1,)` bool: bit v of a whole number stands for the value v."""
    bits = 1
    for step in steps:
        reached, terms = bits, 1
        while terms < levels:
            more = min(terms, levels - terms)
            reached, terms = reached | reached << more * step, terms + more
        bits = reached
    packed = np.frombuffer(bits.to_bytes(top // 8 + 1, "little"), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little")[: top + 1].astype(bool)


def _tilt_beyond(frontier: int, log_partition: Callable[[float], float]) -> float:
    """The largest tilt that leaves the frontier a probability of about exp(-600), at most _STEEPEST."""

    def log_likelihood(tilt: float) -> float:
        return tilt * frontier - log_partition(tilt)

    peak = cast(float, fminbound(lambda tilt: -log_likelihood(tilt), 0.0, _STEEPEST))
    best = log_likelihood(peak)
    if best - log_likelihood(_STEEPEST) < 600.0:
        return _STEEPEST
    return cast(float, bisect(lambda tilt: best - log_likelihood(tilt) - 600.0, peak, _STEEPEST))


def _log_geometric(log_ratio: float, levels: int) -> float:
    """ln of 1 + r + ... + r^(levels - 1), r = exp(log_ratio) >= 1."""
    logs = log_ratio * np.arange(levels)
    return float(logs[-1] + math.log(np.exp(logs - logs[-1]).sum()))


def _tilted_probabilities(steps: tuple[int, ...], levels: int, tilt: float) -> np.ndarray:
    """Probability of each value when an input has weight exp(tilt * value), `(top + 1,)`.

    Relative error under (number of additions) * 2^-52 wherever the result exceeds _SMALLEST_TRUSTED: every
    array on the way is a probability distribution too, so what is cut off below 1e-300 adds nothing.
    """
    probability, lowest = np.ones(1), 0
    for step in steps:
        probability = _spread(probability, levels, step, tilt)
        kept = probability > 1e-300
        first, last = int(kept.argmax()), len(kept) - int(kept[::-1].argmax())
        probability, lowest = probability[first:last], lowest + first
    result = np.zeros((levels - 1) * sum(steps) + 1)
    result[lowest : lowest + len(probability)] = probability
    return result


def _spread(probability: np.ndarray, levels: int, step: int, tilt: float) -> np.ndarray:
    """The distribution after adding step * k, where k = 0..levels-1 has weight exp(tilt * step * k).

    1 + ... + r^(2h-1) = (1 + r^h)(1 + ... + r^(h-1)), and 1 + ... + r^(2h) = 1 + r (1 + ... + r^(2h-1)).
    """
    if levels == 1:
        return probability
    if levels % 2 == 0:
        half = _spread(probability, levels // 2, step, tilt)
        shift = levels // 2 * step
        return _mix(half, float(expit(-tilt * shift)), half, float(expit(tilt * shift)), shift)
    rest = _spread(probability, levels - 1, step, tilt)
    lowest = math.exp(-_log_geometric(tilt * step, levels))
    return _mix(probability, lowest, rest, 1.0 - lowest, step)


@numba.njit
def _mix(first, first_share, second, second_share, shift):
    """first_share * first + second_share * (second moved up by shift); second reaches at least as far."""
    mixed = np.empty(len(second) + shift)
    overlap = max(shift, len(first))
    for index in range(min(shift, len(first))):
        mixed[index] = first_share * first[index]
    for index in range(len(first), shift):
        mixed[index] = 0.0
    for index in range(shift, len(first)):
        mixed[index] = first_share * first[index] + second_share * second[index - shift]
    for index in range(overlap, len(mixed)):
        mixed[index] = second_share * second[index - shift]
    return mixed
