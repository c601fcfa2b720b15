"""Whether long runs forgot where they began: classes kept, energies' drift, effective samples.

Without it, chains that begin at data agree with them for any energy at all.
Sources: Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021 (rank-normalised effective samples), through arviz-stats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from theodolite.learning.agreement import Statistic


@final
@dataclass(frozen=True)
class Mixing:
    """``retention``: by how much chains end in the class they began in more often than chance has it: 0 where the start
    is forgotten, 1 where no chain changes. ``kept`` and ``chance``: the shares it is made of. ``drift``: mean energy of
    the last quarter of the steps less that of the quarter before, in the data's standard deviations. ``effective``:
    effective samples a chain in the second half of the steps."""

    retention: Statistic
    kept: float
    chance: float
    drift: Statistic
    effective: float


def mixing(first_classes: np.ndarray, last_classes: np.ndarray, trace: np.ndarray, deviation: float) -> Mixing:
    """Of chains from ``first_classes (chain,)`` to ``last_classes (chain,)``, whose energies were ``trace (chain,
    time)``; ``deviation``: of the data's energies, in nats."""
    retention, kept, chance = _retention(first_classes, last_classes)
    return Mixing(retention, kept, chance, drift(trace, deviation), effective_per_chain(trace))


def drift(trace: np.ndarray, deviation: float) -> Statistic:
    """Change of the mean energy between the last two quarters of ``trace (chain, time)``, in ``deviation``, with its
    95% interval over chains."""
    times = trace.shape[1]
    if times < 4 or len(trace) < 2:
        return Statistic(float("nan"), -np.inf, np.inf)
    last, before = trace[:, -(times // 4) :], trace[:, -2 * (times // 4) : -(times // 4)]
    change = (last.mean(1) - before.mean(1)) / deviation
    error = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    return Statistic(float(change.mean()), float(change.mean() - error), float(change.mean() + error))


def effective_per_chain(trace: np.ndarray) -> float:
    """Rank-normalised effective samples of the second half of ``trace (chain, time)``, for each chain."""
    from arviz_stats.base.array import array_stats

    half = trace[:, trace.shape[1] // 2 :]
    if half.shape[1] < 8 or not np.isfinite(half).all():
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.asarray(array_stats.ess(half, chain_axis=0, draw_axis=1, method="bulk"))
    return float(size) / len(trace)


def _retention(first: np.ndarray, last: np.ndarray) -> tuple[Statistic, float, float]:
    """(kept - chance) / (1 - chance): chance is that of independent starts and ends with these shares of classes."""
    n_classes = int(max(first.max(), last.max())) + 1
    shares = [np.bincount(classes, minlength=n_classes) / len(classes) for classes in (first, last)]
    same = first == last
    kept, chance = float(same.mean()), float((shares[0] * shares[1]).sum())
    if chance >= 1:
        return Statistic(float("nan"), float("nan"), float("nan")), kept, chance
    # The share of chance hardly varies beside that of chains kept, whose standard error is the binomial one.
    error = 1.96 * np.sqrt(max(kept * (1 - kept), 1 / len(first)) / len(first))
    low, value, high = ((kept + side * error - chance) / (1 - chance) for side in (-1, 0, 1))
    return Statistic(float(value), float(low), float(high)), kept, chance
