"""What L-BFGS in a box does to one row after another: accept or shorten its step, remember it, aim the next.

Sources: Nocedal, Math. Comp. 35, 773 (1980), the two loops; Bertsekas, SIAM J. Control Optim. 20, 221 (1982), the
projected line search; Hager and Zhang, SIAM J. Optim. 16, 170 (2005), the approximate decrease near rounding. Row by
row a whole iteration stays in the nearest cache; as tensors of all rows it would pass through memory fifty times.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_SUFFICIENT = 1e-4  # share of the predicted decrease a step must bring (Armijo)
_RETRIES = 2  # steepest descents after a failed quasi-Newton step before a row gives up
_DOWNHILL = 1e-10  # least cosine of a direction and the way down

# Sums may be taken in any order; infinities keep their meaning.
_FAST = {"reassoc", "contract"}


class Limits(NamedTuple):
    """``history`` pairs, ``largest_step``; relative: ``rounding`` of values, ``smallest_step``, and ``curved``, the
    least cosine of a move and its change of gradient that counts as curvature."""

    history: int
    largest_step: float
    rounding: float
    smallest_step: float
    curved: float


LIMITS = {"float64": (1e-13, 1e-14, 1e-10), "float32": (1e-6, 1e-6, 1e-6)}


@njit(cache=True, fastmath=_FAST)
def judge_rows(
    here,
    new_value,
    new_gradient,
    accepted,
    point,
    value,
    gradient,
    norm,
    iterations,
    stuck,
    lost,
    pairs,
    n_pairs,
    retries,
    step,
    direction,
    trial,
    low,
    high,
    limits,
):
    """Rows ``here (k,)`` were evaluated at ``trial``: ``new_value (k,)``, ``new_gradient (k, n)``. Writes all of
    the row in place; ``lost`` says where a new line search is to begin."""
    dim = point.shape[1]
    zero = point.dtype.type(0)
    for k in range(len(here)):
        r = here[k]
        x, g, there, new = point[r], gradient[r], trial[r], new_gradient[k]
        slope, square = zero, zero
        for i in range(dim):
            held = (x[i] <= low[i] and g[i] > 0) or (x[i] >= high[i] and g[i] < 0)
            slope += zero if held else g[i] * (there[i] - x[i])
        for i in range(dim):
            held = (there[i] <= low[i] and new[i] > 0) or (there[i] >= high[i] and new[i] < 0)
            square += zero if held else new[i] * new[i]
        predicted, new_norm = float(slope), np.sqrt(float(square))
        change = new_value[k] - value[r]
        level = abs(change) <= limits.rounding * max(abs(value[r]), 1.0)
        lower = change <= _SUFFICIENT * predicted and predicted < 0 and not level
        if np.isfinite(new_value[k]) and (lower or (level and new_norm < norm[r])):
            accepted[k] = True
            slot = n_pairs[r] % limits.history
            move, turn = pairs[r, slot], pairs[r, limits.history + slot]
            moved, turned, curvature = zero, zero, zero
            for i in range(dim):
                s, y = there[i] - x[i], new[i] - g[i]
                moved += s * s
                turned += y * y
                curvature += s * y
            # A pair without positive curvature would turn the model of the valley upside down.
            if curvature > limits.curved * np.sqrt(float(moved)) * np.sqrt(float(turned)):
                for i in range(dim):
                    move[i], turn[i] = there[i] - x[i], new[i] - g[i]
                n_pairs[r] += 1
            for i in range(dim):
                x[i], g[i] = there[i], new[i]
            value[r] = new_value[k]
            iterations[r] += 1
            retries[r] = 0
            norm[r] = new_norm
            lost[r] = True
        else:
            # The parabola through both values and the slope, kept between a tenth and a half.
            shorter = -0.5 * predicted / (change - predicted) if change != predicted else 0.1
            step[r] *= min(max(shorter, 0.1), 0.5) if np.isfinite(shorter) else 0.1
            length, largest = zero, zero
            for i in range(dim):
                length = max(length, abs(direction[r, i]))
                largest = max(largest, abs(x[i]))
            if step[r] * length <= limits.smallest_step * max(float(largest), 1.0):
                retries[r] += 1
                stuck[r] = retries[r] > _RETRIES
                n_pairs[r] = 0
                lost[r] = True
            else:
                _place(r, point, step, direction, trial, low, high)


@njit(cache=True, fastmath=_FAST)
def aim_rows(
    here,
    point,
    value,
    gradient,
    norm,
    iterations,
    stuck,
    lost,
    pairs,
    n_pairs,
    retries,
    step,
    direction,
    trial,
    low,
    high,
    limits,
):
    """Begin a line search in each of the rows ``here (k,)`` that have ``lost`` theirs, and place its trial."""
    work = np.empty((2, point.shape[1]), point.dtype)
    for r in here:
        if not lost[r]:
            continue
        lost[r] = False
        _aim(r, work, point, gradient, norm, pairs, n_pairs, step, direction, low, high, limits)
        _place(r, point, step, direction, trial, low, high)


@njit(cache=True, fastmath=_FAST)
def restart_rows(here, stiffening, point, gradient, norm, pairs, n_pairs, low, high):
    """Add ``stiffening (k,)`` times the moves to the changes of gradient of the rows ``here (k,)``, and write the norm
    of their free gradient."""
    history = pairs.shape[1] // 2
    for k in range(len(here)):
        r = here[k]
        amount = pairs.dtype.type(stiffening[k])
        for slot in range(min(n_pairs[r], history)):
            move, turn = pairs[r, slot], pairs[r, history + slot]
            for i in range(pairs.shape[2]):
                turn[i] += amount * move[i]
        x, g, square = point[r], gradient[r], point.dtype.type(0)
        for i in range(pairs.shape[2]):
            held = (x[i] <= low[i] and g[i] > 0) or (x[i] >= high[i] and g[i] < 0)
            square += point.dtype.type(0) if held else g[i] * g[i]
        norm[r] = np.sqrt(float(square))


@njit(cache=True, fastmath=_FAST)
def _place(r, point, step, direction, trial, low, high):
    length = point.dtype.type(step[r])
    for i in range(point.shape[1]):
        trial[r, i] = min(max(point[r, i] + length * direction[r, i], low[i]), high[i])


@njit(cache=True, fastmath=_FAST)
def _aim(r, work, point, gradient, norm, pairs, n_pairs, step, direction, low, high, limits):
    """Direction and first step, and the norm of the free gradient.

    ``work (2, n)``: free coordinates as ones, and the two loops' vector, which stays within them."""
    dim, history = point.shape[1], limits.history
    zero, one = point.dtype.type(0), point.dtype.type(1)
    x, g, free, q = point[r], gradient[r], work[0], work[1]
    square = zero
    for i in range(dim):
        held = (x[i] <= low[i] and g[i] > 0) or (x[i] >= high[i] and g[i] < 0)
        free[i] = zero if held else one
        q[i] = free[i] * g[i]
        square += q[i] * q[i]
    norm[r] = np.sqrt(float(square))
    n_kept = min(n_pairs[r], history)
    weight, inverse, gamma = np.zeros(history), np.zeros(history), 0.0
    for age in range(n_kept):
        slot = (n_pairs[r] - 1 - age) % history
        move, turn = pairs[r, slot], pairs[r, history + slot]
        moved, turned, curvature, along = zero, zero, zero, zero
        for i in range(dim):
            s, y = free[i] * move[i], free[i] * turn[i]
            moved += s * s
            turned += y * y
            curvature += s * y
            along += move[i] * q[i]
        if not curvature > limits.curved * np.sqrt(float(moved)) * np.sqrt(float(turned)):
            continue
        inverse[age] = 1.0 / curvature
        weight[age] = along * inverse[age]
        gamma = gamma if gamma > 0 else float(curvature) / float(turned)
        amount = point.dtype.type(weight[age])
        for i in range(dim):
            q[i] -= amount * free[i] * turn[i]
    scale = point.dtype.type(gamma)
    for i in range(dim):
        q[i] *= scale
    for age in range(n_kept - 1, -1, -1):
        if inverse[age] == 0.0:
            continue
        slot = (n_pairs[r] - 1 - age) % history
        move, turn = pairs[r, slot], pairs[r, history + slot]
        along = zero
        for i in range(dim):
            along += turn[i] * q[i]
        amount = point.dtype.type(weight[age] - inverse[age] * along)
        for i in range(dim):
            q[i] += amount * free[i] * move[i]
    slope, square = zero, zero
    for i in range(dim):
        slope += q[i] * g[i]
        square += q[i] * q[i]
    step[r] = 1.0
    length = np.sqrt(float(square))
    if gamma > 0 and slope > _DOWNHILL * length * norm[r]:
        for i in range(dim):
            direction[r, i] = -q[i]
    else:
        for i in range(dim):
            direction[r, i] = -free[i] * g[i]
        length = norm[r]
        n_pairs[r] = 0
        # Without a model the first step is a short one: a unit, or a tenth of the gradient's own length if less.
        step[r] = 0.1 * min(1.0 / norm[r], 1.0) if norm[r] > 0 else 0.1
    if length > 0:
        step[r] = min(step[r], limits.largest_step / length)
