"""Are a classifier's probabilities what they say: accuracy, likelihood, Brier score and calibration error, with
intervals.

Sources: Naeini, Cooper and Hauskrecht 2015 (the binned calibration error); Kumar, Liang and Ma 2019, "Verified
Uncertainty Calibration" (its bias on finite samples, and a plug-in correction); Carpenter 1999, "Test inversion
bootstrap confidence intervals" (a lower end that stays valid where the true error is 0); Hall 1988 (studentised
bootstrap, for the skewed means); Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
proportions". What was measured of their coverage: docs/ensembles.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf
from scipy.stats import beta

Floats = NDArray[np.float64]

MEASURES = (
    "accuracy",
    "negative log-likelihood",
    "Brier score",
    "calibration error",
    "calibration error, equal mass",
    "squared calibration error",
)
PROPER = ("negative log-likelihood", "Brier score")  # scores that the true probabilities make least
BINNED = {"calibration error": "width", "calibration error, equal mass": "mass"}
SQUARED = "squared calibration error"
_LEVEL = 0.95
_TAILS = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
_NORMAL = 1.959963984540054
_HALVINGS = 8  # of the scales among which the lower end of an interval is looked for
_LEAST_SHARE = 0.25  # of the standard error, below which a resample's own is not believed: values may be nearly alike
_LEAST_SPREAD = 1e-12
_FEWEST_WRONG = 5  # below which the sample alone does not tell what a wrong answer costs


@dataclass(frozen=True)
class Judged:
    """What one classifier says of labelled inputs, a row each: ``confidence`` is the probability of its answer,
    ``right`` 1.0 where the answer is the label's, ``loss`` minus ln of the label's probability (nats), ``brier`` the
    squared distance of its probabilities from the label's, in [0, 2]; ``own_loss`` and ``own_brier`` what these
    would be on average if labels were drawn from its own probabilities, ``wrong_loss`` and ``wrong_brier`` if every
    label were the class that it holds second likeliest."""

    confidence: Floats
    right: Floats
    loss: Floats
    brier: Floats
    own_loss: Floats
    own_brier: Floats
    wrong_loss: Floats
    wrong_brier: Floats

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """One measure of one classifier. ``expected``: its mean under perfect calibration, from the same confidences and
    as many inputs; ``debiased``: less what the finite sample adds (the value itself where it adds nothing)."""

    measured: Estimate
    expected: float
    debiased: float


@dataclass(frozen=True)
class Reliability:
    """The bins of a reliability diagram, all ``(bin,)``: number of inputs, mean confidence, accuracy with its 95%
    interval (Clopper and Pearson); NaN in empty bins."""

    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats


def judged(log_probability: Floats, label: NDArray[np.int64]) -> Judged:
    """``log_probability (row, class)`` normalised, ``label (row,)`` in 0..classes - 1."""
    rows = np.arange(len(label))
    probability = np.exp(log_probability)
    answer = log_probability.argmax(1)
    square = np.square(probability).sum(1)
    with np.errstate(invalid="ignore"):
        surprise = np.where(probability > 0, probability * log_probability, 0.0)
    second = np.partition(log_probability, -2, axis=1)[:, -2]
    return Judged(
        confidence=probability[rows, answer],
        right=(answer == label).astype(np.float64),
        loss=-log_probability[rows, label],
        brier=square - 2 * probability[rows, label] + 1,
        own_loss=-surprise.sum(1),
        own_brier=1 - square,
        wrong_loss=-second,
        wrong_brier=square - 2 * np.exp(second) + 1,
    )


# -------------------------------------------------------------------- bins


def edges(confidence: Floats, n_bins: int, kind: str) -> Floats:
    """``(bin + 1,)`` rising from 0 to 1: of equal "width", or with equal numbers of inputs ("mass")."""
    if kind == "width":
        return np.linspace(0.0, 1.0, n_bins + 1)
    inner = np.quantile(confidence, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.concatenate([[0.0], inner, [1.0]])


def bins_of(confidence: Floats, edge: Floats) -> NDArray[np.int64]:
    """``(row,)`` the bin of each, intervals closed above as in Naeini et al.; many alike may leave bins empty."""
    return np.clip(np.searchsorted(edge, confidence, side="left") - 1, 0, len(edge) - 2)


def reliability(found: Judged, n_bins: int) -> Reliability:
    """The reliability diagram in bins of equal width."""
    place = bins_of(found.confidence, edges(found.confidence, n_bins, "width"))
    count = np.bincount(place, minlength=n_bins)
    right = np.bincount(place, found.right, n_bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = np.bincount(place, found.confidence, n_bins) / count, right / count
    low, high = share_interval(right, count)
    empty = count == 0
    return Reliability(count, confidence, accuracy, np.where(empty, np.nan, low), np.where(empty, np.nan, high))


def share_interval(successes: NDArray, n: NDArray) -> tuple[Floats, Floats]:
    """Clopper and Pearson's 95% interval of a share, elementwise: it covers at least as often as it says."""
    with np.errstate(invalid="ignore"):
        low = np.where(successes > 0, beta.ppf(_TAILS[0], successes, n - successes + 1), 0.0)
        high = np.where(successes < n, beta.ppf(_TAILS[1], successes + 1, n - successes), 1.0)
    return low, high


# -------------------------------------------------------------------- single classifiers


def drawn_again(n: int, resamples: int, random: np.random.Generator) -> Floats:
    """``(resample, row)`` how often each of ``n`` rows is drawn: the bootstrap, the same draws for every classifier."""
    if not n:
        return np.zeros((resamples, 0))
    place = random.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(place.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def measure(found: Judged, name: str, n_bins: int, drawn: Floats, random: np.random.Generator) -> Calibration:
    """One of `MEASURES` with its interval, from the resamples of `drawn_again`. NaN without inputs."""
    if not len(found):
        return Calibration(Estimate(math.nan, math.nan, math.nan), math.nan, math.nan)
    if name == SQUARED:
        told = _squared_estimate([(1.0, found)], n_bins, drawn)
        return Calibration(told, 0.0, told.value)
    if name in BINNED:
        return _calibration_error(found, n_bins, BINNED[name], len(drawn), random)
    if name == "accuracy":
        low, high = share_interval(found.right.sum(), np.array(len(found)))
        accuracy = float(found.right.mean())
        return Calibration(Estimate(accuracy, float(low), float(high)), float(found.confidence.mean()), accuracy)
    values, expected, if_wrong = {
        "negative log-likelihood": (found.loss, found.own_loss, found.wrong_loss),
        "Brier score": (found.brier, found.own_brier, found.wrong_brier),
    }[name]
    estimate = mean_interval(values, drawn)
    if _few_wrong(found):
        estimate = _with_one_more(estimate, values, float(if_wrong.mean()))
    return Calibration(estimate, float(expected.mean()), estimate.value)


def mean_interval(values: Floats, drawn: Floats, least: float = 0.0) -> Estimate:
    """The mean of values that are ``least`` or more with a studentised bootstrap interval from the resamples of
    `drawn_again`; an infinite value makes the mean and the upper end infinite."""
    if not np.isfinite(values).all():
        return Estimate(math.inf, least, math.inf)
    n, mean = len(values), float(values.mean())
    spread = float(values.std() / math.sqrt(max(n - 1, 1)))
    if n < 2 or spread < _LEAST_SPREAD:
        return Estimate(mean, mean, mean)
    means, squares = drawn @ values / n, drawn @ np.square(values) / n
    error = np.sqrt(np.maximum(squares - np.square(means), (_LEAST_SHARE * spread) ** 2) / (n - 1))
    low, high = np.quantile((means - mean) / error, _TAILS)
    return Estimate(mean, max(least, mean - float(high) * spread), mean - float(low) * spread)


def _few_wrong(*found: Judged) -> bool:
    return any((one.right == 0).sum() < _FEWEST_WRONG for one in found)


def _with_one_more(told: Estimate, values: Floats, unseen: float) -> Estimate:
    """The interval widened to what it would be with one more value, that of a wrong answer none of which was seen."""
    more = np.append(values, unseen)
    if not np.isfinite(more).all():
        return told
    centre, half = float(more.mean()), _NORMAL * float(more.std(ddof=1)) / math.sqrt(len(more))
    return Estimate(told.value, min(told.low, centre - half), max(told.high, centre + half))


@dataclass(frozen=True)
class _Bins:
    """Occupied bins: numbers, shares of the inputs, mean confidences, accuracies; all ``(bin,)``."""

    count: Floats
    weight: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def gap(self) -> Floats:
        return self.accuracy - self.confidence


def _binned(found: Judged, n_bins: int, kind: str) -> _Bins:
    place = bins_of(found.confidence, edges(found.confidence, n_bins, kind))
    count = np.bincount(place, minlength=n_bins).astype(np.float64)
    kept = count > 0
    sums = [np.bincount(place, values, n_bins)[kept] for values in (found.confidence, found.right)]
    count = count[kept]
    return _Bins(count, count / count.sum(), sums[0] / count, sums[1] / count)


def _calibration_error(
    found: Judged, n_bins: int, kind: str, resamples: int, random: np.random.Generator
) -> Calibration:
    bins = _binned(found, n_bins, kind)
    value = float((bins.weight * np.abs(bins.gap)).sum())
    expected = float(_errors_if_true(bins, 0.0, resamples, random).mean())
    debiased = max(0.0, _debiased(bins))
    # Seen errors of a bin's noise make a world scaled from them more biased than one whose errors all have one sign:
    # that world, in which the estimate is hardly biased, holds the upper end.
    # Two right and two wrong answers are added (Agresti and Coull 1998), since a sample without mistakes has no spread.
    signed = np.append(found.right - found.confidence, np.array([0.0, 0.0, 1.0, 1.0]) - found.confidence.mean())
    high = max(value, debiased + _NORMAL * float(signed.std()) / math.sqrt(len(signed)))
    return Calibration(Estimate(value, _least_truth(bins, value, resamples, random), high), expected, debiased)


def _least_truth(bins: _Bins, value: float, resamples: int, random: np.random.Generator) -> float:
    """The smallest true error under which a value as high as the one seen is nothing out of the ordinary."""

    def ordinary(scale: float) -> bool:
        return bool((_errors_if_true(bins, scale, resamples, random) >= value).mean() >= _TAILS[0])

    return min(value, _true_error(bins, _edge_of(ordinary, 1.0, 0.0)))


def _edge_of(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """Between ``inside``, where ``holds``, and ``outside`` the last scale that does."""
    if holds(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def _true_error(bins: _Bins, scale: float) -> float:
    """The calibration error where every bin's accuracy lies ``scale`` times as far from its confidence as was seen."""
    return float((bins.weight * np.abs(_scaled(bins, scale) - bins.confidence)).sum())


def _scaled(bins: _Bins, scale: float) -> Floats:
    return np.clip(bins.confidence + scale * bins.gap, 0.0, 1.0)


def _errors_if_true(bins: _Bins, scale: float, resamples: int, random: np.random.Generator) -> Floats:
    """``(resample,)`` calibration errors of samples of this size where the truth is ``scale`` times what was seen."""
    n = int(bins.count.sum())
    count = random.multinomial(n, bins.weight, size=resamples)
    accuracy = random.binomial(count, _scaled(bins, scale)) / np.maximum(count, 1)
    return (count / n * np.abs(accuracy - bins.confidence)).sum(1)


def _debiased(bins: _Bins) -> float:
    """The calibration error less what the finite sample adds to it, as far as that is known from the sample."""
    spread = np.sqrt(bins.accuracy * (1 - bins.accuracy) / np.maximum(bins.count - 1, 1))
    return float((bins.weight * (2 * np.abs(bins.gap) - _folded_mean(bins.gap, spread))).sum())


def _folded_mean(mean: Floats, spread: Floats) -> Floats:
    """The mean of |x| for normal x (Leone, Nelson and Nottingham 1961)."""
    safe = np.maximum(spread, _LEAST_SPREAD)
    return safe * math.sqrt(2 / math.pi) * np.exp(-0.5 * np.square(mean / safe)) + mean * erf(
        mean / (safe * math.sqrt(2))
    )


# -------------------------------------------------------------------- the ensemble against its members


def difference(
    one: Judged, others: Sequence[Judged], name: str, n_bins: int, drawn: Floats, most: float = math.inf
) -> Estimate:
    """The measure of ``one`` minus its mean over ``others``, all of the same inputs row by row, with its 95% interval
    (from the resamples of `drawn_again`), cut off at ``most`` where more cannot be. NaN without inputs.

    A calibration error has no interval here (NaN): what the finite sample adds to it differs between classifiers and
    is only partly known, so that they are compared by the squared one, whose estimate is unbiased; that has none with
    fewer than 5 wrong answers of any of them. Of the negative log-likelihood and the Brier score the difference to the
    members of an ensemble is never above 0 (Jensen's inequality), whatever the data: ``most`` is 0 there.
    """
    if not len(one):
        return Estimate(math.nan, math.nan, math.nan)
    if name == SQUARED:
        told = _squared_estimate([(1.0, one), *((-1 / len(others), other) for other in others)], n_bins, drawn)
        return Estimate(told.value, math.nan, math.nan) if _few_wrong(one, *others) else told
    if name in BINNED:
        errors = [_debiased(_binned(found, n_bins, BINNED[name])) for found in (one, *others)]
        return Estimate(errors[0] - float(np.mean(errors[1:])), math.nan, math.nan)
    if name == "accuracy":
        return _difference_of_shares(one.right - np.mean([other.right for other in others], axis=0))
    field = {"negative log-likelihood": "loss", "Brier score": "brier"}[name]
    change, if_wrong = (
        getattr(one, of) - np.mean([getattr(other, of) for other in others], axis=0) for of in (field, f"wrong_{field}")
    )
    if not np.isfinite(change).all():
        return Estimate(math.nan if np.isnan(change).any() else -math.inf, -math.inf, math.inf)
    told = mean_interval(change, drawn, least=-math.inf)
    if _few_wrong(one, *others):
        told = _with_one_more(told, change, float(if_wrong.mean()))
    return Estimate(told.value, min(told.low, most), min(told.high, most))


def _difference_of_shares(change: Floats) -> Estimate:
    """The mean of values in [-1, 1], as the paired difference of shares of Agresti and Min 2005: half an input more of
    each kind, so that a sample without differences does not prove that there are none."""
    n = len(change) + 2
    centre = change.sum() / n
    half = _NORMAL * math.sqrt((np.square(change).sum() + 1) / n - centre**2) / math.sqrt(n)
    return Estimate(float(change.mean()), max(-1.0, centre - half), min(1.0, centre + half))


def _squared_estimate(parts: Sequence[tuple[float, Judged]], n_bins: int, drawn: Floats) -> Estimate:
    """The weighted sum of the classifiers' squared calibration errors, unbiased (Kumar, Liang and Ma 2019, section 5),
    with the basic bootstrap interval: errors around the resampled world's own truth, so that no bias moves it."""
    value, plain, resampled = 0.0, 0.0, np.zeros(len(drawn))
    for share, found in parts:
        place = bins_of(found.confidence, edges(found.confidence, n_bins, "width"))
        gap = found.right - found.confidence
        table = np.zeros((len(found), n_bins, 3))
        table[np.arange(len(found)), place] = np.stack([np.ones(len(found)), gap, np.square(gap)], 1)
        whole = table.sum(0)[None]
        value += share * float(_unbiased_square(whole, found)[0])
        plain += share * float((np.square(whole[..., 1]) / np.maximum(whole[..., 0], 1)).sum() / len(found))
        sums = (drawn @ table.reshape(len(found), -1)).reshape(len(drawn), n_bins, 3)
        resampled += share * _unbiased_square(sums, found)
    low, high = np.quantile(resampled - plain, _TAILS)
    return Estimate(value, value - float(high), value - float(low))


def _unbiased_square(sums: Floats, found: Judged) -> Floats:
    """From ``sums (resample, bin, [number, gap, gap^2])``: each bin's squared mean gap less the variance of that mean;
    of a single input the variance of an answer as sure as the average one."""
    count = np.maximum(sums[..., 0], 1)
    mean = sums[..., 1] / count
    alone = float((found.confidence * (1 - found.confidence)).mean())
    variance = np.where(count > 1, (sums[..., 2] - count * np.square(mean)) / np.maximum(count * (count - 1), 1), alone)
    return (sums[..., 0] * (np.square(mean) - np.maximum(variance, 0.0))).sum(1) / len(found)
