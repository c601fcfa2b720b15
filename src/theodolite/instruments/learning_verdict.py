"""Whether a learned energy is the density of its data: "convergent", "non-convergent" or "undecided", check by check.

A check holds, is refuted, or is open: its value is within the limit and its 95% interval not far outside; its whole
interval is outside; or neither. Equal energies are not convergence: classes, features and the run from noise must agree
as well, and chains that never left the class they began in prove nothing.
Source: Hill 2020 (PhD thesis, UCLA), chapter 3; limits: docs/learning.md.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from theodolite.instruments.verdict import Check
from theodolite.learning.agreement import CLASSES, DEVIATION, ENERGY, FRECHET, KOLMOGOROV, Agreement, Statistic
from theodolite.learning.examination import Examination, lost_class

CONVERGENT, NON_CONVERGENT, UNDECIDED = "convergent", "non-convergent", "undecided"
LIMITS = {
    ENERGY: (-0.25, 0.25),
    DEVIATION: (0.85, 1.15),
    CLASSES: (0.0, 0.10),
    FRECHET: (0.0, 2.0),
    KOLMOGOROV: (0.0, 0.15),
}
HELD_OUT = (-0.5, 0.5)
DRIFT = (-0.15, 0.15)
LEAST_SHARE = 0.5  # of a class, as a share of what the data have of it
RETENTION = (-1.0, 0.2)
LEAST_EFFECTIVE = 2.0  # effective samples a chain
_FORGOTTEN, _MANY_EFFECTIVE = 0.05, 5.0  # what chains must do for a run from noise, half of it cooling, to refute
_SLACK = 0.5  # an interval may reach beyond a limit by this share of the limits' half-width
_FROM = {"data": "long run from data", "noise": "long run from noise"}


class Finding(enum.Enum):
    """Of one check."""

    HOLDS = 1
    REFUTED = 0
    OPEN = -1


@final
@dataclass(frozen=True)
class LearningVerdict:
    """``word``: "convergent", "non-convergent" or "undecided"; ``sentence`` names the check that decided; ``advice``:
    what to change, empty where it is convergent; ``findings``: of each of ``checks``."""

    word: str
    sentence: str
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    advice: str


def judge(found: Examination | None, diverged: str = "") -> LearningVerdict:
    """The verdict on the long runs ``found`` (None: none were made). ``diverged``: how learning itself went astray, in
    words, empty where it did not; the long runs of the last good weights are judged all the same."""
    rows = [*_ended(found, diverged)]
    if found is not None and found.runs:
        rows += _rows(found)
    checks, findings = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
    failed = [row for row in rows if row[1] is not Finding.HOLDS]
    refuted = [row for row in rows if row[1] is Finding.REFUTED]
    if not failed:
        told = "energies, classes and features of long runs from data and from noise are those of the noisy data"
        return LearningVerdict(CONVERGENT, f"Convergent: {told}.", checks, findings, "")
    decided, _, advice = (refuted or failed)[0]
    reason = f"{decided.sentence} (asked: {decided.limit})"
    if refuted:
        told = f'Non-convergent: the check "{decided.name}" failed: {reason}.{_others(len(refuted) - 1, "failed")}'
        return LearningVerdict(NON_CONVERGENT, told, checks, findings, advice)
    told = f'Undecided: the check "{decided.name}" is open: {reason}.{_others(len(failed) - 1, "are open")}'
    return LearningVerdict(UNDECIDED, told, checks, findings, advice)


_Row = tuple[Check, Finding, str]


def _others(n: int, word: str) -> str:
    if n == 0:
        return ""
    return f" {n} others {word} too." if n > 1 else f" One other {word.replace('are', 'is')} too."


def _row(name: str, value: float, limit: str, sentence: str, finding: Finding, advice: str) -> _Row:
    passed = None if finding is Finding.OPEN else np.array(finding is Finding.HOLDS)
    return Check(name, float(value), limit, sentence, passed), finding, advice


def _ended(found: Examination | None, diverged: str) -> list[_Row]:
    smaller = "lower the learning rate, add steps or use a Gaussian prior"
    rows = [
        _row(
            "learning stayed finite",
            float(bool(diverged)),
            "not diverged",
            diverged or "no number overflowed while learning",
            Finding.REFUTED if diverged else Finding.HOLDS,
            smaller,
        )
    ]
    share = 0.0 if found is None else found.share_done
    if found is None:
        told, finding = "there were none, and nothing else can tell", Finding.OPEN
    elif not found.finite:
        told, finding = "energies or slopes overflowed in the long runs", Finding.REFUTED
    elif share < 1:
        told, finding = f"{share:.0%} of the steps were made before the budget was spent", Finding.OPEN
    else:
        told, finding = "every step was made, and all energies are finite", Finding.HOLDS
    advice = smaller if finding is Finding.REFUTED else "raise the budget, or the number of long steps"
    return [*rows, _row("long runs were made", share, "1", told, finding, advice)]


# ---------------------------------------------------------------------- the long runs


def _rows(found: Examination) -> list[_Row]:
    rows = [*_run(found, "data", doubted=False), *_mixes(found)]
    # A run from noise that has not come down yet, or is caught on its way, tells nothing of the energy's law; one that
    # rests below the data does, for the data are then not where the energy is low.
    settled = found.drift["noise"].low <= 0 <= found.drift["noise"].high
    mixed = found.mixing
    quick = mixed is not None and mixed.effective >= _MANY_EFFECTIVE and not mixed.retention.value > _FORGOTTEN
    caught = not (settled and quick)
    lower = found.runs["noise"].statistics[ENERGY].high < LIMITS[ENERGY][0]
    rows += _run(found, "noise", doubted=caught and not (settled and lower))
    return [*rows, *_apart(found, doubted=caught)]


def _run(found: Examination, name: str, *, doubted: bool) -> list[_Row]:
    """What must hold of the run that began at ``name``; ``doubted``: it may be off through no fault of the energy."""
    agreed, told = found.runs[name], _FROM[name]
    statistics = agreed.statistics
    classes = "classes" if found.labelled else "clusters"
    longer = "run the long chains longer"
    rows = [
        _statistic(
            f"energy, {told}",
            statistics[ENERGY],
            LIMITS[ENERGY],
            "mean energy less that of the noisy training data, in deviations of the data",
            longer if doubted else _energy_advice(statistics[ENERGY]),
        ),
        _statistic(
            f"spread of energies, {told}",
            statistics[DEVIATION],
            LIMITS[DEVIATION],
            "deviation of the energies over that of the data's",
            "learn longer, with more steps an update",
        ),
        _statistic(
            f"{classes}, {told}",
            statistics[CLASSES],
            LIMITS[CLASSES],
            f"total variation of shares of {classes}, less the {statistics[CLASSES].expected:.2g} that chance gives",
            "learn longer with persistent chains that begin at data, and a smaller last learning rate",
        ),
        _present(found, agreed, told, classes),
        _statistic(
            f"features, {told}",
            statistics[FRECHET],
            LIMITS[FRECHET],
            "Frechet distance to the training data over that of as many other data",
            "learn longer, widen the network or raise the data noise",
        ),
        _statistic(
            f"law of energies, {told}",
            statistics[KOLMOGOROV],
            LIMITS[KOLMOGOROV],
            f"largest distance of the distributions, where chance gives {statistics[KOLMOGOROV].expected:.2g}",
            "learn longer, with more steps an update",
        ),
        _statistic(
            f"no drift, {told}",
            found.drift[name],
            DRIFT,
            "change of the mean energy between the last two quarters of the steps, in deviations of the data",
            "run the long chains longer" if name == "noise" else "learn longer, with a smaller last learning rate",
        ),
    ]
    if not math.isnan(found.held_out[name].value):
        overfitted = "the network knows its images by heart: more images, more data noise or a smaller network"
        words = "mean energy less that of the held-out data, in deviations of those"
        rows.append(_statistic(f"held-out energy, {told}", found.held_out[name], HELD_OUT, words, overfitted))
    if not doubted:
        return rows
    return [_doubted(row) for row in rows]


def _doubted(row: _Row) -> _Row:
    check, finding, advice = row
    if finding is not Finding.REFUTED:
        return row
    sentence = f"{check.sentence}; but its chains have not settled"
    return _row(check.name, check.value, check.limit, sentence, Finding.OPEN, advice)


def _within(found: Statistic, limits: tuple[float, float]) -> Finding:
    low, high = limits
    slack = _SLACK * (high - low) / 2
    if found.low > high or found.high < low:
        return Finding.REFUTED
    inside = low <= found.value <= high and found.low >= low - slack and found.high <= high + slack
    return Finding.HOLDS if inside else Finding.OPEN


def _statistic(name: str, found: Statistic, limits: tuple[float, float], words: str, advice: str) -> _Row:
    low, high = limits
    limit = f"<= {high:g}" if low == 0 else f"{low:g} to {high:g}"
    sentence = f"{words}: {found.value:.3g} (95%: {found.low:.3g} to {found.high:.3g})"
    return _row(name, found.value, limit, sentence, _within(found, limits), advice)


def _energy_advice(found: Statistic) -> str:
    if found.value < 0:
        return "the energy is lower elsewhere than at the data: lower the learning rate, end with SGD, add data noise"
    return "the energy is too flat: learn longer, or begin from score matching"


def _present(found: Examination, agreed: Agreement, told: str, classes: str) -> _Row:
    lost = lost_class(agreed)
    name, limit = f"every one of the {classes}, {told}", f">= {LEAST_SHARE:g} of the data's share"
    advice = "learn longer, with a bank of chains that begin at data, one an image"
    if lost is None:
        return _row(name, 1.0, limit, f"none of the {classes} is rarer than in the data", Finding.HOLDS, "")
    worst, ratio, high = lost
    finding = Finding.HOLDS if ratio >= LEAST_SHARE else Finding.REFUTED if high < LEAST_SHARE else Finding.OPEN
    share = f"{agreed.class_share[worst]:.3g} of the points, {agreed.reference_share[worst]:.3g} of the data"
    return _row(name, ratio, limit, f"{found.class_names[worst]} is {share}", finding, advice)


def _mixes(found: Examination) -> list[_Row]:
    """Chains that keep the class they began in, or hardly move at all, leave the verdict open: never refuted."""
    mixed = found.mixing
    if mixed is None:
        return []
    kept = mixed.retention
    longer = "run the long chains longer"
    # Chance at 1: one class holds everything, and there is no other to move to.
    forgot = math.isnan(kept.value) or _within(kept, RETENTION) is Finding.HOLDS
    moves = mixed.effective >= LEAST_EFFECTIVE
    classes = "class" if found.labelled else "cluster"
    return [
        _row(
            "chains forget where they began",
            kept.value,
            f"<= {RETENTION[1]:g}",
            f"{mixed.kept:.0%} of the chains from data end in the {classes} they began in, chance {mixed.chance:.0%}",
            Finding.HOLDS if forgot else Finding.OPEN,
            longer,
        ),
        _row(
            "chains move",
            mixed.effective,
            f">= {LEAST_EFFECTIVE:g} a chain",
            f"{mixed.effective:.3g} effective samples a chain in the second half of the run",
            Finding.HOLDS if moves else Finding.OPEN,
            longer,
        ),
    ]


def _apart(found: Examination, *, doubted: bool) -> list[_Row]:
    """The two runs against each other: two laws cannot both be the energy's, but slow chains differ as well."""
    if found.apart is None:
        return []
    pairs: Sequence[tuple[str, str]] = (("energy", ENERGY), ("classes", CLASSES))
    rows = [
        _statistic(
            f"runs from data and from noise agree: {word}",
            found.apart.statistics[name],
            LIMITS[name],
            "from noise against from data, in deviations of the run from data"
            if name == ENERGY
            else "total variation beyond chance",
            "run the long chains longer: the runs from data and from noise have not met",
        )
        for word, name in pairs
    ]
    return [_doubted(row) for row in rows] if doubted else rows
