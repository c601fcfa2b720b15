"""The density of states of a field of chains, through the transfer matrix and a Fourier integral.

With Z(s) the mean of exp(s y) over all inputs (through products of transfer matrices, for complex s too), the
share of inputs in a bin [e, e'] is 1/(2 pi) times the integral over t of Z(s) (exp(-s e) - exp(-s e')) / s
along s = lambda + i t, for any lambda (inverse Laplace transform). At the saddle point lambda, where the
weighted mean of y is the bin's edge nearest to 0, the integrand is a bell curve without cancellation, and the
trapezoidal rule converges geometrically. (Daniels, Ann. Math. Stat. 25, 631, 1954, gives the saddle point;
the integral is done in full here.)
"""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq

from theodolite.errors import UserError
from theodolite.systems.bins import checked_edges
from theodolite.systems.chains import Chains

__all__ = ["exact_log_density_of_states", "largest_value", "log_partition", "mean_value"]

_POINTS_AT_MOST = 4000


def log_partition(settings: Chains, s: complex) -> complex:
    """ln of the mean over all inputs of exp(s y), s in 1/output; 0 at s = 0.

    The imaginary part is a sum of continuous-looking pieces, right modulo 2 pi times rows.
    """
    row = _Row(settings)
    return settings.rows * row.log_partition(complex(s))


def mean_value(settings: Chains, rate: float) -> float:
    """Mean of y under the weight exp(rate * y), in output units; rate in 1/output."""
    return settings.rows * _Row(settings).moments(rate)[0]


def largest_value(settings: Chains, sign: float = 1.0) -> float:
    """The largest value of y (sign 1) or the smallest (sign -1), by dynamic programming, in output units."""
    single, pair = sign * settings.site_table(), sign * settings.bond_table()
    best = single
    for _ in range(settings.sites - 1):
        best = single + (best[:, None] + pair).max(0)
    return sign * settings.rows * float(best.max())


def exact_log_density_of_states(settings: Chains, edges: np.ndarray) -> np.ndarray:
    """ln of the number of inputs with y in each bin, to about 1e-8 nats.

    Args:
        settings: the chains.
        edges: `(bin + 1,)` ascending edges, in output units.

    Returns:
        `(bin,)` float64 in nats; -inf where the largest and smallest values prove the bin empty; NaN where
        the integral does not converge (bins close to the extremes, where single inputs show).

    Raises:
        UserError: edges that do not ascend or are not finite.
    """
    edges = checked_edges(edges)
    if not np.isfinite(edges).all():
        raise UserError("edges", "finite numbers", "an infinite one", "end at largest_value(settings)")
    row = _Row(settings)
    smallest, largest = largest_value(settings, -1.0), largest_value(settings, 1.0)
    log_inputs = settings.rows * settings.sites * math.log(settings.levels)
    widest = float(np.diff(edges).max())
    result = np.full(len(edges) - 1, np.nan)
    tilt: _Tilt | None = None
    for index, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        if high < smallest or low > largest:
            result[index] = -np.inf
            continue
        nearest = min(max(0.0, low), high)
        if tilt is None or abs(nearest - tilt.mean) > 1.5 * tilt.spread:
            tilt = _tilt_at(row, settings.rows, nearest, widest)
        if tilt is not None:
            result[index] = log_inputs + _log_share(tilt, nearest, low, high)
    return result


@dataclass(frozen=True)
class _Tilt:
    """Z(s) along s = rate + i t at t = 0, step, 2 step, ...: ln Z(rate), and `ratio` = Z(s) / Z(rate)."""

    rate: float
    mean: float
    spread: float
    step: float
    s: np.ndarray
    log_start: float
    ratio: np.ndarray


def _tilt_at(row: "_Row", rows: int, target: float, widest: float) -> _Tilt | None:
    """The tilt whose mean is target, followed until Z(s) has died out; None where that does not happen."""
    rate = _saddle_point(row, rows, target)
    if math.isnan(rate):
        return None
    mean, variance = (rows * moment for moment in row.moments(rate))
    spread = math.sqrt(variance)
    # The rule sees the distribution of y repeated with period 2 pi / step: so far apart that none overlap.
    step = 2 * math.pi / (widest + 40.0 * spread)
    log_start = rows * row.log_partition(complex(rate)).real
    s, ratio = [], []
    while len(s) < _POINTS_AT_MOST:
        s.append(rate + 1j * step * len(s))
        ratio.append(np.exp(rows * row.log_partition(s[-1]) - log_start))
        if len(s) > 16 and max(abs(value) for value in ratio[-16:]) < 1e-15:
            return _Tilt(rate, mean, spread, step, np.array(s), log_start, np.array(ratio))
    return None


def _log_share(tilt: _Tilt, nearest: float, low: float, high: float) -> float:
    """ln of the share of inputs with y in [low, high]; nearest is the edge that holds most of them."""
    # Measured from `nearest` the bin's factor stays near 1; exp(-rate * nearest) is put back at the end.
    factor = _interval(tilt.s, low - nearest, high - nearest) * np.exp(-1j * np.imag(tilt.s) * nearest)
    integrand = np.real(tilt.ratio * factor)
    total = float(integrand.sum() - 0.5 * integrand[0])
    if total <= 0.0:
        return math.nan
    return tilt.log_start - tilt.rate * nearest + math.log(total * tilt.step / math.pi)


def _interval(s: np.ndarray, low: float, high: float) -> np.ndarray:
    """The integral of exp(-s z) over [low, high], with the right limit at s = 0."""
    tiny = np.abs(s) * (high - low) < 1e-6
    safe = np.where(tiny, 1.0, s)
    series = (high - low) * np.exp(-s * 0.5 * (low + high))
    return np.where(tiny, series, (np.exp(-safe * low) - np.exp(-safe * high)) / safe)


def _saddle_point(row: "_Row", rows: int, target: float) -> float:
    """The rate at which the mean of y is target; NaN where float64 cannot hold the weights at that rate."""
    if target == 0.0:
        return 0.0
    unit = math.copysign(1.0 / math.sqrt(row.moments(0.0)[1]), target)
    low, high = 0.0, unit
    while abs(rows * row.moments(high)[0]) < abs(target):
        low, high = high, 2.0 * high
    if math.isnan(row.moments(high)[0]):
        return math.nan
    return cast(float, brentq(lambda rate: rows * row.moments(rate)[0] - target, low, high, xtol=1e-6 * abs(unit)))


class _Row:
    """One chain: its partition function by the transfer matrix, scaled at every site against overflow."""

    def __init__(self, settings: Chains) -> None:
        self.single, self.pair, self.sites = settings.site_table(), settings.bond_table(), settings.sites
        self.log_uniform = -settings.sites * math.log(settings.levels)

    def log_partition(self, s: complex) -> complex:
        site, bond, shift = self._weights(s)
        vector, logarithm = site, shift + self.log_uniform
        for _ in range(self.sites - 1):
            vector = site * (vector @ bond)
            size = np.abs(vector).max()
            vector, logarithm = vector / size, logarithm + math.log(size)
        return complex(np.log(complex(vector.sum())) + logarithm)

    def moments(self, rate: float) -> tuple[float, float]:
        """Mean and variance of one row's y under the weight exp(rate * y); NaN where weights underflow."""
        site, bond, _ = self._weights(rate)
        bond_1 = bond * self.pair
        bond_2 = bond_1 * self.pair
        zeroth, first, second = site, site * self.single, site * self.single**2
        for _ in range(self.sites - 1):
            moved = zeroth @ bond
            moved_1 = first @ bond + zeroth @ bond_1
            moved_2 = second @ bond + 2 * (first @ bond_1) + zeroth @ bond_2
            size = moved.max()
            if size < 1e-250:
                return math.nan, math.nan
            zeroth = site * moved / size
            first = site * (moved_1 + self.single * moved) / size
            second = site * (moved_2 + 2 * self.single * moved_1 + self.single**2 * moved) / size
        mean = float(first.sum() / zeroth.sum())
        return mean, float(second.sum() / zeroth.sum()) - mean**2

    def _weights(self, s):
        """exp(s a), exp(s b) divided by their largest sizes, and the logarithm of what was divided out."""
        rate = float(np.real(s))
        single_top, pair_top = (rate * self.single).max(), (rate * self.pair).max()
        site = np.exp(s * self.single - single_top)
        bond = np.exp(s * self.pair - pair_top)
        return site, bond, self.sites * single_top + (self.sites - 1) * pair_top
