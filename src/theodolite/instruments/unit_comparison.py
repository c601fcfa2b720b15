"""A layer's units against random bases and against principal directions: p-values, effects, what they add up to.

Claim tested: Szegedy et al. 2013, "Intriguing properties of neural networks", section 3: "there is no distinction
between individual high level units and random linear combinations of high level units".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from theodolite.instruments.unit_sampler import MEASURES, UnitState
from theodolite.instruments.unit_statistics import (
    Alike,
    Estimate,
    PValue,
    alike,
    exceeding,
    exchange_p_value,
    mean_estimate,
    rotation_p_value,
    top_inputs,
)
from theodolite.instruments.unit_task import SCALINGS, UnitTask
from theodolite.instruments.verdict import Check

AGAINST = tuple(f"{kind}, {scaling}" for kind in ("random", "principal") for scaling in SCALINGS)
LEVEL = 0.05  # a p-value of at most this is a difference seen
SEEN = 0.5  # standard deviations of a random direction: a smaller difference counts as none
LEAST_BASES = 99  # below them no p-value, doubled, is small enough to be sure of
MORE, NONE, LESS, OPEN = "units mean more", "no difference seen", "units mean less", "undecided"
_LEAST_RESOLVED = 0.5  # of the units: the others have no top set of their own
_LEAST_UNITS = 8
_SHARE_OF_VARIANCE = 1e-10  # of the first principal direction's: less is rounding


@dataclass(frozen=True)
class Principal:
    """Principal directions of the living units, each in both its signs: ``direction (component, unit)``, ``explained
    (component,)`` share of the variance, largest first."""

    direction: Tensor
    explained: Tensor


@dataclass(frozen=True)
class Comparison:
    """Of all units at every k: ``units``. Rows ``against`` in the order of AGAINST: ``p_value (against, measure,
    top)``, ``difference`` of the means (units minus others) and ``standardised``, in standard deviations of the
    others' directions, of the same shape; ``exceeds (against, top)``: the probability that a unit's purity exceeds
    that of one of the others. Intervals are over units."""

    units: Alike
    p_value: PValue
    difference: Tensor
    standardised: Estimate
    exceeds: Estimate


@dataclass(frozen=True)
class Claim:
    """``word``: "units mean more", "no difference seen", "units mean less" or "undecided"; ``checks`` under it."""

    word: str
    sentence: str
    checks: tuple[Check, ...]
    complete: bool


def principal(task: UnitTask, scaling: str) -> Principal:
    """Principal directions of the activations (scikit-learn), over inputs and positions, centred."""
    rows = task.turned.rows()
    scale = task.scale(scaling)
    rows = rows if scale is None else rows / scale
    fitted = PCA().fit(rows.numpy())
    explained = np.asarray(fitted.explained_variance_ratio_)
    kept = explained > _SHARE_OF_VARIANCE * explained[0]
    component = torch.from_numpy(np.ascontiguousarray(np.asarray(fitted.components_)[kept]))
    both = torch.stack((component, -component), 1).flatten(0, 1)
    return Principal(both, torch.from_numpy(explained[kept]).repeat_interleave(2))


def compare(task: UnitTask, state: UnitState, n_permutations: int, generator: torch.Generator) -> Comparison:
    """Units against every other kind of direction; NaN where no random basis was drawn, or no unit is resolved."""
    units = alike(task.label[task.most_exciting], task.top)
    n_top = len(task.top)
    parts: list[tuple[PValue, Tensor, Estimate, Estimate]] = []
    for row in range(len(SCALINGS)):
        parts.append(_against_random(task, units, state, row, generator))
    for scaling in SCALINGS:
        directions = principal(task, scaling).direction
        projection = task.turned.project(directions, task.scale(scaling))
        others = alike(task.label[top_inputs(projection, max(task.top))], task.top)
        parts.append(_against_principal(task, units, others, n_permutations, generator))
    shape = (len(AGAINST), len(MEASURES), n_top)
    return Comparison(
        units,
        PValue(*(torch.stack([getattr(part[0], name) for part in parts]) for name in ("more", "less", "either"))),
        torch.stack([part[1] for part in parts]).reshape(shape),
        _stacked([part[2] for part in parts]),
        _stacked([part[3] for part in parts]),
    )


def _against_random(
    task: UnitTask, units: Alike, state: UnitState, row: int, generator: torch.Generator
) -> tuple[PValue, Tensor, Estimate, Estimate]:
    columns = []
    for column, k in enumerate(task.top):
        rows = task.resolved[:, column]
        values = torch.stack((units.purity[rows, column], units.entropy[rows, column]), 1)
        rotated = state.mean[:, row, :, column]
        count = state.size_count[row, column].double()
        n, size = count.sum(), torch.arange(len(count), dtype=torch.float64) / k
        mean = torch.stack(((count * size).sum() / n, state.entropy_sum[row, column] / n))
        square = torch.stack(((count * size.square()).sum() / n, state.entropy_square_sum[row, column] / n))
        spread = (square - mean.square()).clamp(min=0).sqrt()
        p_value = rotation_p_value(values.mean(0), rotated) if len(rotated) and len(values) else _no_p_value()
        columns.append(_column(values, mean, spread, size, count, p_value, generator))
    return _joined(columns)


def _against_principal(
    task: UnitTask, units: Alike, others: Alike, n_permutations: int, generator: torch.Generator
) -> tuple[PValue, Tensor, Estimate, Estimate]:
    columns = []
    for column in range(len(task.top)):
        rows = task.resolved[:, column]
        values = torch.stack((units.purity[rows, column], units.entropy[rows, column]), 1)
        other = torch.stack((others.purity[:, column], others.entropy[:, column]), 1)
        p_value = exchange_p_value(values, other, n_permutations, generator) if len(values) else _no_p_value()
        weight = torch.ones(len(other))
        columns.append(
            _column(values, other.mean(0), other.std(0, correction=0), other[:, 0], weight, p_value, generator)
        )
    return _joined(columns)


def _column(
    values: Tensor,
    mean: Tensor,
    spread: Tensor,
    other_purity: Tensor,
    weight: Tensor,
    p_value: PValue,
    generator: torch.Generator,
) -> tuple[PValue, Tensor, Estimate, Estimate]:
    """``values (unit, measure)`` against others of these means and spreads ``(measure,)``, and their purities."""
    spread = torch.where(spread > 0, spread, torch.nan)
    exceeds = exceeding(values[:, 0], other_purity, weight)
    scores = torch.cat(((values - mean) / spread, exceeds[:, None]), 1)
    found = mean_estimate(scores, generator)
    standardised = Estimate(found.value[:2], found.low[:2], found.high[:2])
    return p_value, values.mean(0) - mean, standardised, Estimate(found.value[2], found.low[2], found.high[2])


def _no_p_value() -> PValue:
    unknown = torch.full((len(MEASURES),), math.nan, dtype=torch.float64)
    return PValue(unknown, unknown, unknown)


def _joined(
    columns: Sequence[tuple[PValue, Tensor, Estimate, Estimate]],
) -> tuple[PValue, Tensor, Estimate, Estimate]:
    """One k beside the other, in the last axis."""
    p_value = PValue(*(torch.stack([getattr(c[0], n) for c in columns], -1) for n in ("more", "less", "either")))
    estimates = [
        Estimate(*(torch.stack([getattr(c[place], n) for c in columns], -1) for n in ("value", "low", "high")))
        for place in (2, 3)
    ]
    return p_value, torch.stack([c[1] for c in columns], -1), estimates[0], estimates[1]


def _stacked(parts: Sequence[Estimate]) -> Estimate:
    return Estimate(*(torch.stack([getattr(part, name) for part in parts]) for name in ("value", "low", "high")))


# ------------------------------------------------------------------ the claim


def claim(task: UnitTask, comparison: Comparison, state: UnitState, n_wanted: int, n_flips_found: int) -> Claim:
    """The claim's word by purity at the first k against random bases, and the checks it stands on.

    "units mean more" (or less): with raw and with standardised units the p-value is at most 0.05 and the difference
    has that sign. "no difference seen": neither p-value is, and both intervals of the standardised difference lie
    within half a standard deviation. "undecided": anything else, or fewer than 99 random bases, or fewer than 8 units
    or half of the living ones with a top set of their own.
    """
    n_bases = len(state.mean)
    n_resolved, n_living = int(task.resolved[:, 0].sum()), int(task.living.sum())
    enough = n_bases >= LEAST_BASES
    units_enough = n_resolved >= max(_LEAST_UNITS, _LEAST_RESOLVED * n_living)
    each = [_word(comparison, row, 0) for row in range(len(SCALINGS))]
    agree = len(set(each)) == 1
    word = each[0] if agree and enough and units_enough else OPEN
    others = [
        f"{_word(comparison, row, column)} at {k}"
        for column, k in enumerate(task.top)
        for row in range(len(SCALINGS))
        if _word(comparison, row, column) != each[0]
    ]
    n_flips = len(task.flipped)
    checks = (
        _check("random bases drawn", n_bases, f"{n_wanted:,}", f"{n_bases:,} of {n_wanted:,}", n_bases >= n_wanted),
        _check("enough random bases", n_bases, f">= {LEAST_BASES}", "fewer cannot give a small p-value", enough),
        _check(
            "units with a top set",
            n_resolved,
            f">= {max(_LEAST_UNITS, math.ceil(_LEAST_RESOLVED * n_living))}",
            f"{n_resolved:,} of {len(task.living):,} units have {task.top[0]} inputs that excite them more than all "
            f"others; {len(task.living) - n_living:,} say the same of every input",
            units_enough,
        ),
        _check(
            "raw and standardised units agree",
            len(set(each)),
            "1 answer",
            f"raw: {each[0]}; standardised: {each[1]}",
            agree,
        ),
        _check(
            "all sizes of top sets agree",
            len(others),
            "0 others",
            "the same answer at " + ", ".join(map(str, task.top)) if not others else "but " + ", ".join(others),
            not others,
        ),
        Check(
            "labels are true classes",
            float(task.labels_given),
            "1",
            "labels were given" if task.labels_given else "labels are the network's own predictions",
            np.array(True) if task.labels_given else None,
        ),
        Check(
            "flip points found",
            float(n_flips_found),
            f"{n_flips:,}",
            f"{n_flips_found:,} of {n_flips:,} inputs" if n_flips else "none was asked for, or can be searched",
            np.array(n_flips_found == n_flips) if n_flips else None,
        ),
    )
    complete = n_bases >= n_wanted and state.n_flipped >= n_flips
    return Claim(word, _sentence(task, comparison, word, n_bases), checks, complete)


def _word(comparison: Comparison, row: int, column: int) -> str:
    """The answer at one k with one scaling."""
    p_value = float(comparison.p_value.either[row, 0, column])
    if math.isnan(p_value):
        return OPEN
    if p_value <= LEVEL:
        return MORE if float(comparison.difference[row, 0, column]) > 0 else LESS
    estimate = comparison.standardised
    small = max(abs(float(estimate.low[row, 0, column])), abs(float(estimate.high[row, 0, column]))) <= SEEN
    return NONE if small else OPEN


def _sentence(task: UnitTask, comparison: Comparison, word: str, n_bases: int) -> str:
    k, column = task.top[0], 0
    rows = task.resolved[:, column]
    if not int(rows.sum()) or not n_bases:
        return (
            f"{word.capitalize()}: no unit has {k} inputs that excite it more than all others, or no basis was drawn."
        )
    units = float(comparison.units.purity[rows, column].mean())
    parts = []
    for row, scaling in enumerate(SCALINGS):
        other = units - float(comparison.difference[row, 0, column])
        estimate = comparison.standardised
        value, low, high = (float(getattr(estimate, name)[row, 0, column]) for name in ("value", "low", "high"))
        parts.append(
            f"{other:.1%} with {scaling} units (p = {float(comparison.p_value.either[row, 0, column]):.2g}; "
            f"{value:+.2f} standard deviations, {low:+.2f} to {high:+.2f})"
        )
    return (
        f"{word.capitalize()}: of the {k} inputs that excite a unit most, {units:.1%} are of one class; of a random "
        f"direction {' and '.join(parts)}; {n_bases:,} random bases."
    )


def _check(name: str, value: float, limit: str, sentence: str, passed: bool) -> Check:
    return Check(name, float(value), limit, sentence, np.array(passed))
