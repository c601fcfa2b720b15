"""What the members of an ensemble say together: entropies, disagreement, and whether these tell a wrong answer.

Sources: Lakshminarayanan, Pritzel and Blundell 2017 (the members' mean probability); Depeweg et al. 2018 (predictive
entropy = expected entropy + mutual information); Newcombe 2006, "Confidence intervals for an effect size measure based
on the Mann-Whitney statistic. Part 2", method 5 (the interval of an AUROC, also where it is 0 or 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from theodolite.instruments import flip_statistics
from theodolite.instruments.calibration import Estimate, Floats

QUANTITIES = ("predictive entropy", "expected entropy", "mutual information", "disagreement")
_NORMAL = 1.959963984540054  # of a 95% interval
_HALVINGS = 60


@dataclass(frozen=True)
class Uncertainty:
    """Of every input ``(row,)``: entropy of the mean probabilities, mean of the members' entropies, their difference
    (all nats; the last in [0, ln members]), and the share of pairs of members that name different classes."""

    predictive_entropy: Floats
    expected_entropy: Floats
    mutual_information: Floats
    disagreement: Floats

    def table(self) -> Floats:
        """``(row, quantity)`` in the order of `QUANTITIES`."""
        return np.stack(
            [self.predictive_entropy, self.expected_entropy, self.mutual_information, self.disagreement], -1
        )


def mean_log_probability(log_probability: Floats) -> Floats:
    """ln of the members' mean probability: ``(row, member, class)`` -> ``(row, class)``."""
    return logsumexp(log_probability, axis=1) - math.log(log_probability.shape[1])


def uncertainty(log_probability: Floats) -> Uncertainty:
    """From the members' ``log_probability (row, member, class)``."""
    predictive = _entropy(mean_log_probability(log_probability))
    expected = _entropy(log_probability).mean(1)
    return Uncertainty(predictive, expected, np.maximum(predictive - expected, 0.0), disagreement(log_probability))


def _entropy(log_probability: Floats) -> Floats:
    probability = np.exp(log_probability)
    with np.errstate(invalid="ignore"):
        return -np.where(probability > 0, probability * log_probability, 0.0).sum(-1)


def disagreement(log_probability: Floats) -> Floats:
    """``(row,)`` the share of pairs of members that name different classes; NaN for a single member."""
    n_members, n_classes = log_probability.shape[1:]
    if n_members < 2:
        return np.full(len(log_probability), np.nan)
    answer = log_probability.argmax(-1)
    votes = (answer[:, :, None] == np.arange(n_classes)).sum(1)
    alike = (votes * (votes - 1)).sum(1)
    return 1 - alike / (n_members * (n_members - 1))


# -------------------------------------------------------------------- does a score tell one kind from another


@dataclass(frozen=True)
class Ranking:
    """Whether a score is higher where something holds: AUROC, 0.5 for chance, with its 95% interval; the numbers of
    inputs with and without it. NaN where there are none of either."""

    auroc: Estimate
    n_yes: int
    n_no: int


def ranking(score: Floats, holds: NDArray[np.bool_], image: NDArray[np.int64]) -> Ranking:
    """Over rows that may show the same ``image`` several times: an image counts once for the interval, which is
    conservative."""
    n_yes, n_no = int(holds.sum()), int((~holds).sum())
    if not n_yes or not n_no:
        return Ranking(Estimate(math.nan, math.nan, math.nan), n_yes, n_no)
    value = auroc(score, holds)
    return Ranking(auroc_interval(value, len(set(image[holds])), len(set(image[~holds]))), n_yes, n_no)


def auroc(score: Floats, holds: NDArray[np.bool_]) -> float:
    """Probability that a row where ``holds`` has a higher score than one where it does not, ties counted half."""
    return flip_statistics.auroc(-score, holds)


def auroc_interval(value: float, n_yes: int, n_no: int) -> Estimate:
    """Newcombe's method 5: the values within 1.96 of their own standard errors of the one seen."""

    def beyond(truth: float) -> bool:
        half = (n_yes + n_no) / 2 - 1
        spread = truth * (1 - truth) * (1 + half * ((1 - truth) / (2 - truth) + truth / (1 + truth))) / (n_yes * n_no)
        return abs(value - truth) > _NORMAL * math.sqrt(spread)

    return Estimate(value, _end(beyond, value, 0.0), _end(beyond, value, 1.0))


def _end(beyond, inside: float, outside: float) -> float:
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return inside


def ranking_gain(
    score: Floats, other: Floats, holds: NDArray[np.bool_], image: NDArray[np.int64], drawn: Floats
) -> Estimate:
    """AUROC of ``score`` minus that of ``other`` on the same rows, with a bootstrap interval that draws images whole:
    ``drawn (resample, image)``. NaN where there are none of either kind."""
    if holds.all() or not holds.any():
        return Estimate(math.nan, math.nan, math.nan)
    gain = _ordered(score, holds) - _ordered(other, holds)
    yes, no = drawn[:, image[holds]], drawn[:, image[~holds]]
    total = yes.sum(1) * no.sum(1)
    kept = total > 0
    resampled = np.einsum("ri,ri->r", yes[kept] @ gain, no[kept]) / total[kept]
    low, high = np.quantile(resampled, (0.025, 0.975)) if kept.any() else (math.nan, math.nan)
    return Estimate(float(gain.mean()), float(low), float(high))


def _ordered(score: Floats, holds: NDArray[np.bool_]) -> Floats:
    """``(yes, no)``: 1 where the first has the higher score, 0.5 where both have the same."""
    one, other = score[holds][:, None], score[~holds][None]
    return (one > other) + 0.5 * (one == other)


def held_out_rankings(log_probability: Floats, sure: NDArray[np.bool_], image: NDArray[np.int64]) -> list[Ranking]:
    """Whether the others foresee that a member which has no part in them will not share the first one's sure answer.

    Each member but the first is held out in turn: the scores come from the rest, what they are to tell (it names
    another class) from it alone, so that nothing is compared with itself. The mean over the members, of the mutual
    information, of the predictive entropy and of the disagreement of the rest, and of 1 minus the first one's
    probability. Without a third member the first three are unknown.
    """
    rows = log_probability[sure]
    answer = rows.argmax(-1)
    found: list[list[Ranking]] = [[], [], [], []]
    for held in range(1, rows.shape[1]):
        rest = np.delete(rows, held, axis=1)
        apart = answer[:, held] != answer[:, 0]
        unknown = np.full(len(rows), np.nan)
        scores = [unknown, unknown, unknown]
        if rest.shape[1] > 1:
            told = uncertainty(rest)
            scores = [told.mutual_information, told.predictive_entropy, told.disagreement]
        for place, score in enumerate([*scores, 1 - np.exp(rows[:, 0].max(-1))]):
            if np.isnan(score).any():
                found[place].append(Ranking(Estimate(math.nan, math.nan, math.nan), int(apart.sum()), 0))
            else:
                found[place].append(ranking(score, apart, image[sure]))
    return [_mean_ranking(rankings) for rankings in found]


def _mean_ranking(rankings: list[Ranking]) -> Ranking:
    """The mean AUROC with the interval of one of them: the members are of one kind, and share their inputs."""
    known = [one for one in rankings if not math.isnan(one.auroc.value)]
    n_yes = round(float(np.mean([one.n_yes for one in rankings]))) if rankings else 0
    n_no = round(float(np.mean([one.n_no for one in rankings]))) if rankings else 0
    if not known:
        return Ranking(Estimate(math.nan, math.nan, math.nan), n_yes, n_no)
    value = float(np.mean([one.auroc.value for one in known]))
    return Ranking(auroc_interval(value, max(1, n_yes), max(1, n_no)), n_yes, n_no)
