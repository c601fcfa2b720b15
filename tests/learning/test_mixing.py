"""Whether chains forgot their start: autoregressive energies and classes whose retention is known exactly."""

import numpy as np
import pytest
from scipy.signal import lfilter

from theodolite.learning.mixing import drift, effective_per_chain, mixing


def traces(phi: float, chains: int, times: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(chains, times + 200))
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=1))[:, 200:]


def test_retention_of_known_share() -> None:
    """Chains keep their class with probability .4, else draw one by the shares: (kept - chance) / (1 - chance) = .4."""
    random = np.random.default_rng(0)
    shares = [0.5, 0.3, 0.2]
    first = random.choice(3, 20_000, p=shares)
    last = np.where(random.random(20_000) < 0.4, first, random.choice(3, 20_000, p=shares))
    found = mixing(first, last, traces(0.5, 50, 100, 0), 1.0)
    assert found.retention.value == pytest.approx(0.4, abs=0.03)
    assert found.retention.low < 0.4 < found.retention.high
    assert found.chance == pytest.approx(0.38, abs=0.01)
    assert found.kept == pytest.approx(0.4 + 0.6 * 0.38, abs=0.01)


def test_chains_that_all_stay_and_one_class() -> None:
    first = np.arange(100) % 2
    assert mixing(first, first, traces(0.0, 100, 40, 1), 1.0).retention.value == pytest.approx(1)
    assert np.isnan(mixing(first * 0, first * 0, traces(0.0, 100, 40, 1), 1.0).retention.value)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_effective_samples_of_an_autoregressive_trace(phi: float) -> None:
    """n (1 - phi) / (1 + phi) of the second half of the trace."""
    found = effective_per_chain(traces(phi, 100, 400, 2))
    assert found == pytest.approx(200 * (1 - phi) / (1 + phi), rel=0.2)


def test_chains_that_do_not_move_have_no_effective_samples() -> None:
    still = np.repeat(np.random.default_rng(0).normal(size=(50, 1)), 100, 1)
    still += 1e-3 * np.random.default_rng(1).normal(size=still.shape)
    assert effective_per_chain(still) < 2


def test_drift_is_measured_and_covered() -> None:
    """A slope of .01 a step, in quarters of 50 steps of unit deviation 2: .25 deviations a quarter."""
    sloped = traces(0.3, 400, 200, 3) + 0.01 * np.arange(200)
    found = drift(sloped, 2.0)
    assert found.low < 0.25 < found.high
    assert found.value == pytest.approx(0.25, abs=0.03)
    covered = sum(
        one.low <= 0 <= one.high for one in (drift(traces(0.6, 60, 80, 10 + seed), 1.0) for seed in range(100))
    )
    assert covered >= 87


def test_too_short_to_tell() -> None:
    found = drift(np.zeros((5, 3)), 1.0)
    assert np.isnan(found.value)
    assert np.isnan(effective_per_chain(np.zeros((5, 6))))
