"""Compiled parts of linear bounds: rows through activations, and the least value of a linear function over a ball, a
box and a half-space.

The least value is bounded by the Lagrangian dual, which is valid at any multipliers; the search for good ones need not
converge. What is returned is lowered by the rounding of all the numbers that were added: sums of n terms err by at most
n u / (1 - n u) times the sum of their absolute values (Higham 2002, 'Accuracy and Stability of Numerical Algorithms',
section 3.1), whatever their order, so that sums may be vectorised.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_ANY_ORDER = {"reassoc", "contract", "nsz"}
_ROUNDING = 2.0**-52  # twice the unit roundoff: covers 1 / (1 - n u) and the rounding of the sums of absolute values
_LEAST_MULTIPLIER = 1e-2  # of the ball, by its value without a box: with less the dual is hardly smooth


@njit(nogil=True, fastmath=_ANY_ORDER)
def through_activation(
    rows: np.ndarray,
    owner: np.ndarray,
    slope_low: np.ndarray,
    intercept_low: np.ndarray,
    slope_high: np.ndarray,
    intercept_high: np.ndarray,
    magnitude: np.ndarray,
    constant: np.ndarray,
    absolute: np.ndarray,
) -> None:
    """Rows ``(row, size)`` over an activation become, in place, lower bounds over its argument.

    ``owner (row,)`` chooses the lines. Adds the intercepts to ``constant (row,)`` and what was added in absolute
    values, with arguments up to ``magnitude (size,)``, to ``absolute (row,)``.
    """
    n_rows, size = rows.shape
    for row in range(n_rows):
        k = owner[row]
        total, sizes = 0.0, 0.0
        for j in range(size):
            a = rows[row, j]
            below = a >= 0
            slope = slope_low[k, j] if below else slope_high[k, j]
            intercept = intercept_low[k, j] if below else intercept_high[k, j]
            new, moved = a * slope, a * intercept
            rows[row, j] = new
            total += moved
            sizes += abs(moved) + abs(new) * magnitude[j]
        constant[row] += total
        absolute[row] += sizes


@njit(nogil=True, fastmath=_ANY_ORDER)
def weighed(rows: np.ndarray, magnitude: np.ndarray, absolute: np.ndarray) -> None:
    """Adds sum_j |rows[r, j]| magnitude[j] to ``absolute[r]``."""
    n_rows, size = rows.shape
    for row in range(n_rows):
        total = 0.0
        for j in range(size):
            total += abs(rows[row, j]) * magnitude[j]
        absolute[row] += total


# ---------------------------------------------------------------------- L2


@njit(nogil=True, fastmath=_ANY_ORDER)
def _ball_dual(g, a, low, high, ratio, s):
    """With q = g + ratio a and d = clip(-q / s): sums of q d, d^2, a d, and over free coordinates a^2, a d, d^2."""
    qd, dd, ad, free_aa, free_ad, free_dd = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    t = -1.0 / s
    for j in range(len(g)):
        q = g[j] + ratio * a[j]
        wanted = t * q
        d = min(max(wanted, low[j]), high[j])
        free = 1.0 if d == wanted else 0.0
        qd += q * d
        dd += d * d
        ad += a[j] * d
        free_aa += free * a[j] * a[j]
        free_ad += free * a[j] * d
        free_dd += free * d * d
    return qd, dd, ad, free_aa, free_ad, free_dd


@njit(nogil=True, fastmath=_ANY_ORDER)
def _ball_sizes(g, a, low, high, ratio, s):
    """The dual's terms again, and the sum of their absolute values."""
    value, sizes = 0.0, 0.0
    t = -1.0 / s
    for j in range(len(g)):
        q = g[j] + ratio * a[j]
        d = min(max(t * q, low[j]), high[j])
        value += q * d + 0.5 * s * d * d
        sizes += (abs(g[j]) + ratio * abs(a[j])) * abs(d) + 0.5 * s * d * d
    return value, sizes


@njit(nogil=True, fastmath=_ANY_ORDER)
def _moments(g, a):
    gg, ga, aa = 0.0, 0.0, 0.0
    for j in range(len(g)):
        gg += g[j] * g[j]
        ga += g[j] * a[j]
        aa += a[j] * a[j]
    return gg, ga, aa


@njit(nogil=True)
def lowest_in_ball(
    slope: np.ndarray,
    constant: np.ndarray,
    owner: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    radius: np.ndarray,
    normal: np.ndarray,
    offset: np.ndarray,
    capped: bool,
    sign_only: bool,
    steps: int,
    lowest: np.ndarray,
) -> None:
    """Proven lower bounds of slope[r] . d + constant[r] for |d|_2 <= radius, low <= d <= high and, if ``capped``,
    normal . d + offset <= 0, with the ``owner``'s radius, normal and offset.

    max over ratio >= 0, s > 0 of min_d slope . d + ratio (normal . d + offset) + s (|d|^2 - radius^2) / 2 over the box,
    by a safeguarded Newton iteration from the solution without the box. ``sign_only``: stop once above 0.
    """
    n = slope.shape[1]
    for row in range(len(slope)):
        k = owner[row]
        g, a, e, b = slope[row], normal[k], radius[k], offset[k]
        gg, ga, aa = _moments(g, a)
        if not gg > 0.0 or not e > 0.0:
            lowest[row] = constant[row] - _ROUNDING * abs(constant[row]) if gg == 0.0 or e == 0.0 else -np.inf
            continue
        s, ratio = np.sqrt(gg) / e, 0.0
        least_s = _LEAST_MULTIPLIER * s
        if capped and aa > 0.0:
            length = np.sqrt(aa)
            depth = b / length
            if depth > 0.0 and -e * ga / np.sqrt(gg) > -b and depth < e:
                across = max(gg - ga * ga / aa, 1e-12 * gg)
                s = max(np.sqrt(across / (e * e - depth * depth)), least_s)
                ratio = max((s * depth - ga / length) / length, 0.0)
        best, best_ratio, best_s, damping, stretch = -np.inf, ratio, s, 1e-9, 1.0
        slope_ratio, slope_s, free_aa, free_ad, free_dd = 0.0, 0.0, 0.0, 0.0, 0.0
        for _ in range(steps):
            qd, dd, ad, new_aa, new_ad, new_dd = _ball_dual(g, a, low, high, ratio, s)
            value = constant[row] + qd + 0.5 * s * (dd - e * e) + ratio * b
            if value > best:
                best, best_ratio, best_s = value, ratio, s
                slope_ratio, slope_s, free_aa, free_ad, free_dd = ad + b, 0.5 * (dd - e * e), new_aa, new_ad, new_dd
                damping = max(0.01 * damping, 1e-9)
                if sign_only and best > 0.0:
                    break
            elif np.isfinite(best):
                damping = max(30.0 * damping, 1e-2)
            else:
                break
            ratio, s = best_ratio, best_s
            damped_aa, damped_dd = free_aa + damping * aa, free_dd + damping * e * e
            move_ratio, move_s = 0.0, s * slope_s / damped_dd
            on_floor = s <= least_s * (1.0 + 1e-9)
            if capped and (ratio > 0.0 or slope_ratio > 0.0):
                determinant = damped_aa * damped_dd - free_ad * free_ad
                move_ratio = s * (damped_dd * slope_ratio - free_ad * slope_s) / determinant
                move_s = s * (damped_aa * slope_s - free_ad * slope_ratio) / determinant
                if ratio == 0.0 and move_ratio < 0.0:
                    move_ratio, move_s = 0.0, s * slope_s / damped_dd
                elif on_floor and move_s < 0.0:
                    stretch = 2.0 * stretch if value == best else 1.0
                    move_ratio = stretch * s * slope_ratio / damped_aa
            if on_floor and move_s < 0.0:
                move_s = 0.0
            if slope_ratio * move_ratio + slope_s * move_s < 1e-5 * s * e * e:
                break
            # Shortened as a whole: cut one by one, the moves need not lead upwards.
            share = 1.0
            fall = max(-0.8 * s, least_s - s)
            if move_s < fall:
                share = fall / move_s
            elif move_s > 4.0 * s:
                share = 4.0 * s / move_s
            if ratio + share * move_ratio < 0.0:
                share = -ratio / move_ratio
            ratio, s = max(ratio + share * move_ratio, 0.0), max(s + share * move_s, least_s)
        value, sizes = _ball_sizes(g, a, low, high, best_ratio, best_s)
        rest = 0.5 * best_s * e * e
        value += constant[row] - rest + best_ratio * b
        sizes += abs(constant[row]) + rest + best_ratio * abs(b)
        lowest[row] = value - (n + 12) * _ROUNDING * sizes


# ---------------------------------------------------------------------- Linf and L1


@njit(nogil=True, fastmath=_ANY_ORDER)
def _corner(g, a, low, high, e, ratio):
    """The least q . d over the box and |d|_inf <= e, its a . d, and the sum of absolute values."""
    value, ad, sizes = 0.0, 0.0, 0.0
    for j in range(len(g)):
        q = g[j] + ratio * a[j]
        d = max(low[j], -e) if q > 0.0 else min(high[j], e)
        value += q * d
        ad += a[j] * d
        sizes += (abs(g[j]) + ratio * abs(a[j])) * abs(d)
    return value, ad, sizes


@njit(nogil=True, fastmath=_ANY_ORDER)
def _diamond(g, a, low, high, ratio, s):
    """The least q . d + s |d|_1 over the box, its a . d, its |d|_1, and the sum of absolute values."""
    value, ad, length, sizes = 0.0, 0.0, 0.0, 0.0
    for j in range(len(g)):
        q = g[j] + ratio * a[j]
        near = min(max(0.0, low[j]), high[j])
        d, least = near, q * near + s * abs(near)
        if q * low[j] + s * abs(low[j]) < least:
            d, least = low[j], q * low[j] + s * abs(low[j])
        if q * high[j] + s * abs(high[j]) < least:
            d, least = high[j], q * high[j] + s * abs(high[j])
        value += least
        ad += a[j] * d
        length += abs(d)
        sizes += (abs(g[j]) + ratio * abs(a[j]) + s) * abs(d)
    return value, ad, length, sizes


@njit(nogil=True)
def _at_ratio(g, a, low, high, e, ratio, manhattan, steps):
    """Dual value without constants at a multiplier of the half-space, its slope less the offset, its absolute size.

    Linf: the ball is a box. L1: the multiplier s of |d|_1 <= e is found where tangents from both sides meet.
    """
    if not manhattan:
        return _corner(g, a, low, high, e, ratio)
    top = 0.0
    for j in range(len(g)):
        top = max(top, abs(g[j] + ratio * a[j]))
    left, right = 0.0, top
    best, left_ad, length, best_sizes = _diamond(g, a, low, high, ratio, left)
    if length <= e:
        return best, left_ad, best_sizes
    left_value, left_slope = best, length - e
    value, right_ad, length, sizes = _diamond(g, a, low, high, ratio, right)
    right_value, right_slope = value - right * e, length - e
    if right_value > best:
        best, best_sizes = right_value, sizes + right * e
    for _ in range(steps):
        if right_slope >= 0.0 or left_slope - right_slope <= 0.0:
            break
        s = (right_value - left_value + left_slope * left - right_slope * right) / (left_slope - right_slope)
        if not left < s < right:
            break
        value, ad, length, sizes = _diamond(g, a, low, high, ratio, s)
        value -= s * e
        if value > best:
            best, best_sizes = value, sizes + s * e
        if length > e:
            left, left_value, left_slope, left_ad = s, value, length - e, ad
        else:
            right, right_value, right_slope, right_ad = s, value, length - e, ad
    # Only the mixture of both ends whose length is e tells where the half-space's multiplier should go.
    share = 0.0 if right_slope >= 0.0 else -right_slope / (left_slope - right_slope)
    return best, share * left_ad + (1.0 - share) * right_ad, best_sizes


@njit(nogil=True)
def lowest_in_polytope(
    slope: np.ndarray,
    constant: np.ndarray,
    owner: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    radius: np.ndarray,
    normal: np.ndarray,
    offset: np.ndarray,
    capped: bool,
    manhattan: bool,
    steps: int,
    lowest: np.ndarray,
) -> None:
    """`lowest_in_ball` for |d|_inf <= radius, or |d|_1 <= radius if ``manhattan``.

    The dual is concave and piecewise linear in the half-space's multiplier: a bracket is doubled, then cut where the
    tangents of its ends meet.
    """
    n = slope.shape[1]
    for row in range(len(slope)):
        k = owner[row]
        g, a, e, b = slope[row], normal[k], radius[k], offset[k]
        value, ad, sizes = _at_ratio(g, a, low, high, e, 0.0, manhattan, steps)
        best, best_sizes = value, sizes
        left, left_value, left_slope = 0.0, value, ad + b
        gg, _, aa = _moments(g, a)
        if not np.isfinite(gg):
            lowest[row] = -np.inf
            continue
        if capped and left_slope > 0.0 and aa > 0.0:
            right = np.sqrt(gg / aa) + 1e-300
            right_value, right_slope = value, left_slope
            for _ in range(steps):
                value, ad, sizes = _at_ratio(g, a, low, high, e, right, manhattan, steps)
                value, right_slope = value + right * b, ad + b
                right_value = value
                if value > best:
                    best, best_sizes = value, sizes + right * abs(b)
                if right_slope <= 0.0:
                    break
                left, left_value, left_slope = right, value, right_slope
                right *= 2.0
            for _ in range(steps):
                if right_slope > 0.0 or left_slope - right_slope <= 0.0:
                    break
                ratio = (right_value - left_value + left_slope * left - right_slope * right) / (
                    left_slope - right_slope
                )
                if not (left < ratio < right):
                    break
                value, ad, sizes = _at_ratio(g, a, low, high, e, ratio, manhattan, steps)
                value += ratio * b
                if value > best:
                    best, best_sizes = value, sizes + ratio * abs(b)
                if ad + b > 0.0:
                    left, left_value, left_slope = ratio, value, ad + b
                else:
                    right, right_value, right_slope = ratio, value, ad + b
        lowest[row] = best + constant[row] - (n + 12) * _ROUNDING * (best_sizes + abs(constant[row]))
