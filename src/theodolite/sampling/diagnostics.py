"""What a ladder's samples say about themselves: correlation, agreement between starts, drift, fluctuations.

``value`` is always ``(ladder, step, rung)``, outputs in the order they were drawn.
"""

from __future__ import annotations

import numpy as np


def effective_samples(value: np.ndarray) -> np.ndarray:
    """Effective sample size ``(ladder, rung)`` of the mean output, each ladder by itself.

    Vehtari et al. 2021, through arviz-stats; a constant output counts every sample.
    """
    from arviz_stats.base.array import array_stats

    n_ladders, n_steps, n_rungs = value.shape
    if n_steps < 8:
        return np.full((n_ladders, n_rungs), 1.0)
    chains = value.transpose(0, 2, 1).reshape(n_ladders * n_rungs, 1, n_steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.asarray(array_stats.ess(chains, chain_axis=1, draw_axis=2, method="mean"))
    size = np.where(np.isfinite(size), size, n_steps)
    return np.clip(size, 1.0, n_steps).reshape(n_ladders, n_rungs)


def autocorrelation_time(value: np.ndarray) -> np.ndarray:
    """Integrated autocorrelation time ``(rung,)`` in steps: the mean over ladders of steps / effective samples."""
    return (value.shape[1] / effective_samples(value)).mean(0)


def mean_error(value: np.ndarray) -> np.ndarray:
    """Standard error of the mean output ``(ladder, rung)``, each ladder by itself."""
    return np.sqrt(np.maximum(value.var(1), 1e-300) / effective_samples(value))


def disagreement(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between ladders, by rung: chi2 per degree of freedom of the mean outputs, and their range in standard
    deviations of the output. Ladders from different starts that agree have chi2 near 1."""
    mean, variance = value.mean(1), value.var(1)
    error = mean_error(value)
    weight = 1 / error**2
    common = (weight * mean).sum(0) / weight.sum(0)
    degrees = max(len(value) - 1, 1)
    chi2 = (((mean - common) / error) ** 2).sum(0) / degrees
    spread = np.sqrt(np.maximum(variance.mean(0), 1e-300))
    return chi2, np.ptp(mean, axis=0) / spread


def fluctuation_ratio(value: np.ndarray, rung_lambda: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variance of the output over d(mean) / d(lambda), by rung; 1 in equilibrium, NaN at the end rungs.

    Returns the ratio, and the least and the largest it may be: the slope over an interval is the mean of the variance
    over it, which lies between the extremes of the variance there, give or take two standard errors.
    """
    mean, variance = value.mean((0, 1)), value.var(1).mean(0)
    size = effective_samples(value).sum(0)
    n = len(rung_lambda)
    ratio, least, most = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for rung in range(1, n - 1):
        around = slice(rung - 1, rung + 2)
        step = rung_lambda[rung + 1] - rung_lambda[rung - 1]
        slope = (mean[rung + 1] - mean[rung - 1]) / step
        slope_error = np.sqrt((variance[around] / size[around])[[0, 2]].sum()) / step
        spread = 2 * np.sqrt(2 / size[around])
        low = (variance[around] * np.maximum(1 - spread, 0)).min()
        high = (variance[around] * (1 + spread)).max()
        steep, flat = slope + 2 * slope_error, slope - 2 * slope_error
        ratio[rung] = variance[rung] / slope if slope > 0 else np.inf
        least[rung] = low / steep if steep > 0 else np.inf
        most[rung] = high / flat if flat > 0 else np.inf
    return ratio, least, most


def half_run_drift(value: np.ndarray) -> np.ndarray:
    """Mean output of the second half less that of the first, in standard errors, by rung, ladders together."""
    half = value.shape[1] // 2
    first, second = value[:, :half], value[:, half : 2 * half]
    difference = (second.mean(1) - first.mean(1)).mean(0)
    variance = first.var(1) / effective_samples(first) + second.var(1) / effective_samples(second)
    return difference / np.sqrt(np.maximum(variance.mean(0) / len(value), 1e-300))
