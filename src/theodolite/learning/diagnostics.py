"""What the traces of learning tell: the mean energy difference d_s, and whether its signs alternate.

Oscillation is strong where an update's outcome depends on the last few: d_s is then followed by values of the other
sign within about five updates. Correlations are taken about the mean: the thesis leaves d_s as it is, so that a mean
which is not 0 fills every lag and hides the oscillation; the mean is told apart, with its error.
Sources: Hill 2020 (PhD thesis, UCLA), sections 2.3.1 and 3.2.2, Figs. 3.3 and 3.4; Bartlett 1946 (error of
correlations); Geyer 1992 (initial positive sequence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

STRONG, WEAK, UNDECIDED = "strong", "weak", "undecided"
SHORT = 5  # lags within which strong oscillation shows (k = 5 of section 3.2.2)
_LAGS = 50
_FEWEST = 50  # updates below which nothing is said
_NEGLIGIBLE = 0.1  # a correlation that, if it is no more, makes no oscillation
# Two-sided, over the lags together: the chance that white noise is called strong.
_FALSE_ALARM = 0.01


@final
@dataclass(frozen=True)
class Oscillation:
    """``mean`` of d_s in nats with its standard ``error``, corrected for correlation, over the second half of the
    updates, as everything here; ``difference (lag,)`` and ``gradient (lag,)``: autocorrelations of d_s and r_t, the
    first being 1; ``cross (2 lag - 1,)`` at ``signed_lag``: of d_s with r_t that many updates later; ``bartlett``:
    standard deviation of an autocorrelation of as many numbers that have none; ``word``: "strong", "weak" or
    "undecided", with the reason in ``sentence``."""

    mean: float
    error: float
    difference: np.ndarray
    gradient: np.ndarray
    cross: np.ndarray
    signed_lag: np.ndarray
    bartlett: float
    word: str
    sentence: str


def oscillation(difference: np.ndarray, gradient: np.ndarray, n_lags: int = _LAGS) -> Oscillation:
    """Of the traces d_s ``(update,)`` in nats and r_t ``(update,)``, their second half; correlations are NaN where a
    trace is too short for a lag or does not vary. Updates with numbers that are not finite are left out."""
    together = np.stack([np.asarray(difference, dtype=np.float64), np.asarray(gradient, dtype=np.float64)])
    half = together[:, together.shape[1] // 2 :]
    energies, lengths = half[:, np.isfinite(half).all(0)]
    n = len(energies)
    correlation = _correlation(energies, energies, n_lags)
    ahead, behind = _correlation(energies, lengths, n_lags), _correlation(lengths, energies, n_lags)
    mean, error = mean_and_error(energies)
    word, sentence = _named(correlation, n)
    return Oscillation(
        mean,
        error,
        correlation,
        _correlation(lengths, lengths, n_lags),
        np.concatenate([behind[:0:-1], ahead]),
        np.arange(1 - n_lags, n_lags),
        1 / math.sqrt(n) if n else math.nan,
        word,
        sentence,
    )


def mean_and_error(series: np.ndarray) -> tuple[float, float]:
    """Mean of ``series (n,)`` and its standard error: the larger of two: from autocovariances summed over Geyer's
    initial positive sequence of pairs of lags, and from means of about sqrt(n) numbers. NaN for fewer than 4."""
    n = len(series)
    if n < 4:
        return (float(series.mean()) if n else math.nan), math.nan
    away = series - series.mean()
    size = 2 ** math.ceil(math.log2(2 * n))
    covariance = np.fft.irfft(np.abs(np.fft.rfft(away, size)) ** 2, size)[: n - n % 2] / n
    pairs = covariance.reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs <= 0)
    kept = pairs[: negative[0]] if len(negative) else pairs
    variance = 2 * kept.sum() - covariance[0] if len(kept) else 0.0
    # Where a series alternates, the sum is a small difference of large numbers; means of batches do not cancel.
    length = 2 * max(1, round(math.sqrt(n) / 2))
    batches = series[: n - n % length].reshape(-1, length).mean(1)
    spread = length * batches.var(ddof=1) if len(batches) > 1 else 0.0
    return float(series.mean()), math.sqrt(max(variance, spread, covariance[0] / n) / n)


def _correlation(first: np.ndarray, later: np.ndarray, n_lags: int) -> np.ndarray:
    """``(lag,)``: of ``first[t]`` with ``later[t + lag]``, both about their means."""
    n = len(first)
    found = np.full(n_lags, np.nan)
    if n < 2:
        return found
    one, other = first - first.mean(), later - later.mean()
    scale = math.sqrt(float((one**2).sum() * (other**2).sum()))
    if scale <= 1e-12 * n * max(float(np.abs(first).max() * np.abs(later).max()), 1e-300):
        return found
    for lag in range(min(n_lags, n)):
        found[lag] = float(one[: n - lag] @ other[lag:]) / scale
    return found


def _named(correlation: np.ndarray, n: int) -> tuple[str, str]:
    """Strong: a correlation within the short lags is negative beyond chance and not negligible. Weak: none can be."""
    from scipy.stats import norm

    short = correlation[1 : SHORT + 1]
    if n < _FEWEST or len(short) < SHORT or not np.isfinite(short).all():
        return UNDECIDED, f"{n:,} updates are too few to tell oscillation, or their energy differences do not vary"
    lag = int(short.argmin()) + 1
    lowest = float(short.min())
    # Every lag is tested: each at its share of the false alarms.
    width = float(norm.isf(_FALSE_ALARM / SHORT)) / math.sqrt(n)
    told = f"the energy difference is correlated by {lowest:+.2g} with that {lag} updates later"
    if lowest < -max(width, _NEGLIGIBLE):
        return STRONG, f"{told}: expansion and contraction follow each other"
    if lowest - width > -2 * _NEGLIGIBLE:
        return WEAK, f"{told}: no update depends on the sign of the last {SHORT}"
    return UNDECIDED, f"{told}, give or take {width:.2g}: too few updates to tell"
