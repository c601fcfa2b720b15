"""What flip points tell of a network: whom to trust, in which directions it flips, which features it never uses.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", sections 4-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

_RESAMPLES = 2000
_RESAMPLED_AT_ONCE = 2**22  # numbers held while resampling
_INTERVAL = (2.5, 97.5)  # percentiles of a 95% interval


@dataclass(frozen=True)
class Trust:
    """``auroc``, ``low``, ``high`` ``(score,)``: how well each score tells mistakes, with its 95% bootstrap
    interval. ``lead``, ``lead_low``, ``lead_high`` ``(score,)``: by how much the first score's AUROC is larger than
    this one's, with the 95% interval of that difference in the same resamples. NaN where there are no mistakes, or
    nothing else."""

    score: tuple[str, ...]
    auroc: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lead: np.ndarray
    lead_low: np.ndarray
    lead_high: np.ndarray


@dataclass(frozen=True)
class Directions:
    """Of the changes from inputs to flip points, by predicted class: ``mean (class, n)``; ``component (class,
    component, n)`` of unit length; ``explained (class, component)`` share of the squared length; NaN where a class
    has too few."""

    mean: np.ndarray
    component: np.ndarray
    explained: np.ndarray


def trust(scores: Mapping[str, np.ndarray], mistake: np.ndarray, generator: torch.Generator) -> Trust:
    """How well a low score tells that an answer is a mistake: section 6.1, "a better measure of trust".

    ``scores``: name -> ``(image,)``, infinite allowed; ``mistake (image,)`` bool. The intervals are percentiles of
    resamples of the mistakes and of the correct answers apart, the same ones for every score: scores of the same
    answers rise and fall together, so that their difference is known better than either.
    """
    n_mistakes, n_correct = int(mistake.sum()), int((~mistake).sum())
    if not n_mistakes or not n_correct:
        unknown = np.full(len(scores), np.nan)
        return Trust(tuple(scores), *[unknown] * 6)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    found = np.array([auroc(score, mistake) for score in scores.values()])
    resampled = np.array(
        [
            _resampled(np.unique(score, return_inverse=True)[1], mistake, np.random.default_rng(seed))
            for score in scores.values()
        ]
    )
    low, high = np.percentile(resampled, _INTERVAL, axis=1)
    lead_low, lead_high = np.percentile(resampled[0] - resampled, _INTERVAL, axis=1)
    return Trust(tuple(scores), found, low, high, found[0] - found, lead_low, lead_high)


def auroc(score: np.ndarray, mistake: np.ndarray) -> float:
    """Probability that a mistake has a lower score than a correct answer, ties counted half; NaN without both."""
    if mistake.all() or not mistake.any():
        return float("nan")
    group = np.unique(score, return_inverse=True)[1]
    n_groups = int(group.max()) + 1
    wrong = np.bincount(group[mistake], minlength=n_groups)[None]
    right = np.bincount(group[~mistake], minlength=n_groups)[None]
    return float(_ordered_pairs(wrong, right)[0])


def _ordered_pairs(wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Share of (mistake, correct answer) pairs in order, from their numbers ``(resample, group)`` by rising score."""
    above = right.sum(1, keepdims=True) - right.cumsum(1)
    pairs = wrong.sum(1).astype(np.float64) * right.sum(1)
    return (wrong * (above + 0.5 * right)).sum(1) / pairs


def _resampled(group: np.ndarray, mistake: np.ndarray, random: np.random.Generator) -> np.ndarray:
    n_groups = int(group.max()) + 1
    n_together = max(1, _RESAMPLED_AT_ONCE // max(n_groups, len(group)))
    found = []
    for begin in range(0, _RESAMPLES, n_together):
        n_now = min(n_together, _RESAMPLES - begin)
        found.append(
            _ordered_pairs(
                _drawn_again(group[mistake], n_groups, n_now, random),
                _drawn_again(group[~mistake], n_groups, n_now, random),
            )
        )
    return np.concatenate(found)


def _drawn_again(group: np.ndarray, n_groups: int, n_resamples: int, random: np.random.Generator) -> np.ndarray:
    """Numbers by group ``(resample, group)`` of samples drawn with replacement."""
    drawn = group[random.integers(len(group), size=(n_resamples, len(group)))]
    place = drawn + n_groups * np.arange(n_resamples)[:, None]
    return np.bincount(place.ravel(), minlength=n_resamples * n_groups).reshape(n_resamples, n_groups)


def true_class_rank(pair_distance: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """``(image,)`` int: the true class's place among the alternatives of a mistake, nearest first; 1: the nearest.

    ``pair_distance (image, class)``: to the flip with each class, inf or NaN where there is none. 0 where the answer
    is right, the label unknown (-1), or no flip to the true class is known. Of classes at one distance, to the four
    decimals of section 6.1, all have the first place.
    """
    rank = np.zeros(len(predicted), dtype=np.int64)
    rows = np.flatnonzero((label >= 0) & (label != predicted))
    distance = np.round(pair_distance[rows], 4)
    own = distance[np.arange(len(rows)), label[rows]]
    known = np.isfinite(own)
    rank[rows[known]] = 1 + (distance[known] < own[known, None]).sum(1)
    return rank


def directions(change: np.ndarray, predicted: np.ndarray, n_classes: int, n_components: int = 3) -> Directions:
    """Principal directions of the changes ``(image, n)`` from inputs to flip points, for each predicted class.

    The paper's matrix with a row x^c - x an input (section 4), from which no mean is taken: the components are its
    right singular vectors, and what each explains is its share of the sum of squares. The sign is the one in which
    the mean change points.
    """
    n = change.shape[1]
    mean = np.full((n_classes, n), np.nan)
    component = np.full((n_classes, n_components, n), np.nan)
    explained = np.full((n_classes, n_components), np.nan)
    for index in range(n_classes):
        rows = change[predicted == index]
        if not len(rows):
            continue
        mean[index] = rows.mean(0)
        total = float(np.square(rows).sum())
        if total == 0:
            continue
        _, singular, right = np.linalg.svd(rows, full_matrices=False)
        n_known = min(n_components, int((singular > 1e-12 * singular[0]).sum()))
        sign = np.where(right[:n_known] @ mean[index] < 0, -1.0, 1.0)
        component[index, :n_known] = sign[:, None] * right[:n_known]
        explained[index, :n_known] = np.square(singular[:n_known]) / total
    return Directions(mean, component, explained)


def changed_share(change: np.ndarray, threshold: float) -> np.ndarray:
    """``(n,)`` share of the changes ``(image, n)`` in which a feature changes by more than ``threshold``."""
    if not len(change):
        return np.full(change.shape[1], np.nan)
    return (np.abs(change) > threshold).mean(0)


def suspicious(distance: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Indices of the inputs whose label the network contradicts, nearest flip first, those without one last."""
    contradicted = np.flatnonzero((label >= 0) & (predicted >= 0) & (label != predicted))
    return contradicted[np.argsort(distance[contradicted], kind="stable")]


def ambiguous(distance: np.ndarray, uncertainty: float) -> np.ndarray:
    """``(image,)`` bool: a flip point lies within the uncertainty of the measured input (section 4)."""
    return distance <= uncertainty
