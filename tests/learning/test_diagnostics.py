"""Traces of learning: against series whose correlations are known exactly, and white noise over many seeds."""

from collections import Counter

import numpy as np
import pytest
from scipy.signal import lfilter

from theodolite.learning.diagnostics import mean_and_error, oscillation


def autoregressive(phi: float, n: int, seed: int) -> np.ndarray:
    """x_t = phi x_(t-1) + noise: correlation phi^lag, variance 1 / (1 - phi^2)."""
    noise = np.random.default_rng(seed).normal(size=n + 300)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))[300:]


@pytest.mark.parametrize("phi", [-0.8, -0.3, 0.6])
def test_correlations_of_an_autoregressive_series(phi: float) -> None:
    series = autoregressive(phi, 80_000, 0)
    found = oscillation(series + 5, -2 * series, n_lags=8)
    expected = phi ** np.arange(8)
    assert found.difference == pytest.approx(expected, abs=0.03)
    assert found.gradient == pytest.approx(expected, abs=0.03)
    assert found.signed_lag.tolist() == list(range(-7, 8))
    assert found.cross == pytest.approx(-(phi ** np.abs(found.signed_lag)), abs=0.03)
    assert found.bartlett == pytest.approx(1 / np.sqrt(40_000))
    assert found.mean == pytest.approx(5, abs=5 * found.error)


def test_cross_correlation_knows_which_is_later() -> None:
    white = np.random.default_rng(1).normal(size=20_000)
    found = oscillation(white, np.roll(white, 3), n_lags=6)
    assert found.signed_lag[found.cross.argmax()] == 3
    assert found.cross.max() > 0.99


def test_a_mean_is_not_taken_for_correlation() -> None:
    """White noise about 10: uncentred correlations are .99 at every lag, which would be called nothing at all."""
    found = oscillation(10 + autoregressive(0.0, 4000, 2), np.ones(4000))
    assert np.abs(found.difference[1:]).max() < 5 * found.bartlett
    assert found.mean == pytest.approx(10, abs=5 * found.error)
    assert np.isnan(found.gradient).all()


def test_words_and_false_alarms() -> None:
    """White noise is hardly ever strong, alternation always, and weak correlations are never called strong."""
    words = {
        phi: Counter(oscillation(x, x).word for x in (autoregressive(phi, 4000, seed) for seed in range(100)))
        for phi in (-0.4, 0.0, 0.5)
    }
    assert words[-0.4] == {"strong": 100}
    assert words[0.0]["strong"] <= 5
    assert words[0.0]["weak"] >= 80
    assert words[0.5]["strong"] <= 5
    short = Counter(oscillation(x, x).word for x in (autoregressive(0.0, 60, seed) for seed in range(20)))
    assert short == {"undecided": 20}


@pytest.mark.parametrize("phi", [-0.8, -0.4, 0.0, 0.5, 0.9])
def test_error_of_the_mean_covers(phi: float) -> None:
    """The exact standard error is 1 / ((1 - phi) sqrt(n)) for long series."""
    n, seeds = 1000, 200
    found = [mean_and_error(autoregressive(phi, n, seed)) for seed in range(seeds)]
    covered = sum(abs(mean) < 1.96 * error for mean, error in found)
    assert covered >= 0.95 * seeds - 4 * (seeds * 0.95 * 0.05) ** 0.5
    exact = 1 / ((1 - phi) * n**0.5)
    assert 0.85 < np.mean([error for _, error in found]) / exact < 1.3


def test_short_constant_and_broken_traces() -> None:
    assert oscillation(np.zeros(0), np.zeros(0)).word == "undecided"
    assert oscillation(np.zeros(500), np.zeros(500)).word == "undecided"
    series = autoregressive(-0.7, 2000, 3)
    holed = series.copy()
    holed[1500] = np.nan
    found = oscillation(holed, series)
    assert found.word == "strong"
    assert np.isfinite(found.mean)
