"""How far the points of a run are from the noisy data: energies, classes and features, each with an interval.

Intervals are bootstrapped over chains and over the points compared with: the times of one chain are never taken for
independent. A distance between two finite samples of one law is above 0: what it would be is estimated by the bootstrap
about the observed difference, and given beside it.
Sources: Hill 2020 (PhD thesis, UCLA), chapter 3 (long runs against data); Heusel et al. 2017 (Frechet distance of
features); Efron and Tibshirani 1993, An Introduction to the Bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from theodolite.learning.energy import Energy
from theodolite.learning.reference import Reference

ENERGY, DEVIATION, CLASSES = "energy difference", "deviation ratio", "class variation"
FRECHET, KOLMOGOROV = "Frechet ratio", "Kolmogorov-Smirnov"
STATISTICS = (ENERGY, DEVIATION, CLASSES, FRECHET, KOLMOGOROV)
_RESAMPLES = 500
_FRECHET_RESAMPLES = 100
_GROUPS = 800
_LEVELS = 200  # energies at which distributions are compared
_NEGLIGIBLE = 0.01  # of the data's variance: a Frechet distance of no consequence
_CHUNK = 4096


@final
@dataclass(frozen=True)
class Statistic:
    """``value`` with its 95% interval. ``expected``: what agreement in law would give by chance (0 where it is not a
    distance); ``p``: how often agreement in law gives as much or more, NaN where that is not told."""

    value: float
    low: float
    high: float
    expected: float = 0.0
    p: float = float("nan")


NOTHING = Statistic(*[float("nan")] * 3)


@final
@dataclass(frozen=True)
class Agreement:
    """``statistics`` by name (`STATISTICS`): the energy difference in the data's standard deviations (the run's mean
    less the data's), the deviations' ratio, the total variation of classes beyond what chance gives (``expected``), the
    Frechet distance divided by that of as many other data, the Kolmogorov-Smirnov distance of energies.

    ``energies (chain,)``: of the last points; ``class_share (class,)`` of all points with ``class_low``, ``class_high``
    (bootstrap) and ``reference_share (class,)``, ``last_classes (chain,)``.
    """

    statistics: Mapping[str, Statistic]
    energies: np.ndarray
    last_classes: np.ndarray
    class_share: np.ndarray
    class_low: np.ndarray
    class_high: np.ndarray
    reference_share: np.ndarray


def energies(energy: Energy, points: Tensor) -> np.ndarray:
    """U ``(n,)`` float64 of points ``(n, *shape)``."""
    with torch.no_grad():
        return torch.cat([energy(part) for part in points.split(_CHUNK)]).double().numpy()


def agreement(
    energy: Energy, reference: Reference, states: Tensor, generator: torch.Generator, *, against: Tensor | None = None
) -> Agreement:
    """Of the points ``states (chain, time, *shape)`` of a run with the noisy training data, or with ``against``
    ``(chain, time, *shape)`` (other chains), whose times are no more independent than the run's.

    Times of one chain are pooled. A Frechet ratio is of the run against the training data, whatever else is given.
    """
    run = _Sample.of(energy, reference, states)
    other = _Sample.data(energy, reference) if against is None else _Sample.of(energy, reference, against)
    random = np.random.default_rng(int(torch.randint(2**31 - 1, (), generator=generator)))
    centre, width = float(other.energy.mean()), float(other.energy.std())
    levels = np.unique(np.quantile(other.energy, (np.arange(_LEVELS) + 0.5) / _LEVELS))
    n_classes = len(reference.classes.names)
    mine, its = (sample.summary(centre, width, levels, n_classes) for sample in (run, other))
    seen = _compared(mine.mean(0), its.mean(0), n_classes)
    drawn = _compared(_resampled(mine, random), _resampled(its, random), n_classes)
    gap = drawn.gap - seen.gap
    step = drawn.step - seen.step
    shares = drawn.share
    return Agreement(
        {
            ENERGY: Statistic(float(seen.difference), *_interval(drawn.difference)),
            DEVIATION: Statistic(float(seen.ratio), *_interval(drawn.ratio)),
            CLASSES: _distance(seen.variation, drawn.variation, 0.5 * np.abs(gap).sum(-1), beyond=True),
            FRECHET: frechet_ratio(reference, run.features, random),
            KOLMOGOROV: _distance(seen.distance, drawn.distance, np.abs(step).max(-1), beyond=False),
        },
        run.energy[:, -1],
        run.classes[:, -1],
        seen.share,
        np.quantile(shares, 0.025, axis=0),
        np.quantile(shares, 0.975, axis=0),
        seen.share - seen.gap,
    )


def share_interval(count: int, n: int) -> tuple[float, float]:
    """95% interval of a share of which ``count`` of ``n`` independent points were seen (Clopper and Pearson 1934)."""
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, n - count + 1))
    return low, 1.0 if count == n else float(beta.ppf(0.975, count + 1, n - count))


# ---------------------------------------------------------------------- energies and classes


@dataclass(frozen=True)
class _Sample:
    """Energies and classes ``(chain, time)`` and features ``(chain, time, k)``."""

    energy: np.ndarray
    classes: np.ndarray
    features: np.ndarray

    @classmethod
    def of(cls, energy: Energy, reference: Reference, states: Tensor) -> _Sample:
        chains, times = states.shape[:2]
        flat = states.flatten(0, 1)
        features = reference.features(flat)
        return cls(
            energies(energy, flat).reshape(chains, times),
            reference.classes.of(features).reshape(chains, times),
            features.reshape(chains, times, -1),
        )

    @classmethod
    def data(cls, energy: Energy, reference: Reference) -> _Sample:
        features = reference.features(reference.noisy)
        return cls(energies(energy, reference.noisy)[:, None], reference.noisy_class[:, None], features[:, None])

    def summary(self, centre: float, width: float, levels: np.ndarray, n_classes: int) -> np.ndarray:
        """Means over times ``(chain, 2 + class + level)``: scaled energy, its square, classes, energy <= level."""
        scaled = (self.energy - centre) / width
        classes = np.stack([(self.classes == k).mean(1) for k in range(n_classes)], 1)
        below = np.stack([np.searchsorted(np.sort(row), levels, side="right") for row in self.energy])
        moments = np.stack([scaled.mean(1), (scaled**2).mean(1)], 1)
        return np.concatenate([moments, classes, below / self.energy.shape[1]], 1)


@dataclass(frozen=True)
class _Compared:
    difference: np.ndarray
    ratio: np.ndarray
    share: np.ndarray
    gap: np.ndarray
    step: np.ndarray

    @property
    def variation(self) -> np.ndarray:
        return 0.5 * np.abs(self.gap).sum(-1)

    @property
    def distance(self) -> np.ndarray:
        return np.abs(self.step).max(-1)


def _compared(mine: np.ndarray, its: np.ndarray, n_classes: int) -> _Compared:
    """Of mean summaries ``(..., 2 + class + level)`` of the run and of what it is compared with."""
    width = np.sqrt(np.maximum(its[..., 1] - its[..., 0] ** 2, 1e-300))
    mean, square = mine[..., 0], mine[..., 1]
    classes, levels = slice(2, 2 + n_classes), slice(2 + n_classes, None)
    return _Compared(
        (mean - its[..., 0]) / width,
        np.sqrt(np.maximum(square - mean**2, 0)) / width,
        mine[..., classes],
        mine[..., classes] - its[..., classes],
        mine[..., levels] - its[..., levels],
    )


def _resampled(summary: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mean summaries ``(resample, q)`` of as many chains drawn with replacement.

    Of many, means over groups of chains are drawn, which have the same variance.
    """
    if len(summary) > 2 * _GROUPS:
        order = random.permutation(len(summary))[: len(summary) // _GROUPS * _GROUPS]
        summary = summary[order].reshape(_GROUPS, -1, summary.shape[1]).mean(1)
    n = len(summary)
    weights = random.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float32)
    return (weights @ summary.astype(np.float32)).astype(np.float64) / n


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _distance(seen: np.ndarray, drawn: np.ndarray, null: np.ndarray, *, beyond: bool) -> Statistic:
    """A distance that noise enlarges: resampling adds noise once more, which its interval is freed of."""
    expected = float(null.mean())
    shift = float(drawn.mean() - seen)
    less = expected if beyond else 0.0
    low, high = (max(end - shift - less, 0.0) for end in _interval(drawn))
    return Statistic(max(float(seen) - less, 0.0), low, high, expected, float((null >= seen).mean()))


# ---------------------------------------------------------------------- Frechet distance


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Squared Frechet distance between the Gaussians with the moments of ``features (n, k)`` and ``others (m, k)``."""
    return float(_Gaussian.of(others).distances(features[None])[0])


def frechet_ratio(reference: Reference, features: np.ndarray, random: np.random.Generator) -> Statistic:
    """Frechet distance of a run's ``features (chain, time, k)`` to the training data, divided by that of as many other
    data: finite samples enlarge both alike. Times are taken one by one and averaged.

    In few dimensions two samples of one law may come as near as can be by chance, so that the distance is divided by a
    hundredth of the data's variance at least: twice that is seen by nobody.
    """
    target = _Gaussian.of(reference.features(reference.noisy[reference.first]))
    yardstick = reference.features(reference.yardstick())
    n = min(len(features), len(yardstick))
    times = features.shape[1]
    if n < 4:
        return NOTHING
    rows = np.stack([random.permutation(len(features))[:n] for _ in range(times)])
    above = target.distances(features[rows, np.arange(times)[:, None]]).mean()
    repeats = np.stack([random.permutation(len(yardstick))[:n] for _ in range(8)])
    least = _NEGLIGIBLE * float(np.trace(target.covariance))
    below = max(target.distances(yardstick[repeats]).mean(), least)
    drawn = random.integers(len(features), size=(_FRECHET_RESAMPLES, n))
    tops = np.mean([target.distances(features[drawn, time]) for time in range(times)], 0)
    again = random.integers(len(yardstick), size=(_FRECHET_RESAMPLES, n))
    bottoms = np.maximum(target.distances(yardstick[again]), least)
    # Resampling enlarges a distance as sampling did: only its relative scatter is used.
    scatter = np.log(tops / tops.mean()) - np.log(bottoms / bottoms.mean())
    low, high = above / below * np.exp(np.quantile(scatter, [0.025, 0.975]))
    return Statistic(float(above / below), float(low), float(high), 1.0)


@dataclass(frozen=True)
class _Gaussian:
    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> _Gaussian:
        covariance = np.atleast_2d(np.cov(features.T))
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return cls(features.mean(0), covariance, root)

    def distances(self, samples: np.ndarray) -> np.ndarray:
        """``(sample,)`` of ``samples (sample, n, k)``: |m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)."""
        means = samples.mean(1)
        away = samples - means[:, None]
        covariances = away.transpose(0, 2, 1) @ away / (samples.shape[1] - 1)
        product = self.root @ covariances @ self.root
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0)).sum(1)
        traces = np.trace(self.covariance) + np.trace(covariances, axis1=1, axis2=2)
        return ((means - self.mean) ** 2).sum(1) + traces - 2 * roots
