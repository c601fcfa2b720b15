"""What holds of an ensemble, check by check, and the verdict in words: better calibrated or not seen to be, and whether
it knows where the single network is overconfident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from theodolite.instruments.calibration import MEASURES, SQUARED
from theodolite.instruments.ensemble_task import EnsembleTask
from theodolite.instruments.verdict import Check, Judgement

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble
    from theodolite.instruments.ensemble_sampler import Condition, Examined

FEWEST = 5  # sure answers of either kind below which nothing is said of them
MOST = 0.5  # share of the wrong sure answers that an ensemble which knows must doubt
FEWEST_INPUTS = 100  # below which intervals of calibration errors are not tested
_REACHED = "every condition examined"


def judge(
    settings: Ensemble,
    task: EnsembleTask,
    conditions: Sequence[Condition],
    found: Examined,
    variables: Mapping[str, tuple],
) -> Judgement:
    """The checks; "converged" where everything asked for was examined. The other checks are findings and may fail."""
    values = {name: np.asarray(variable[1]) for name, variable in variables.items()}
    single = task.members.names[0]
    missing = int((found.reached & ~found.point.isfinite().all(-1)).sum())
    calibrated, calibration_words = _calibrated(values, len(task.points))
    knows, knows_words = _knows(values, single)
    checks = (
        _check(
            _REACHED,
            len(found.unreached),
            "0 left",
            f"{len(found.unreached)} were left when the budget was spent: {', '.join(found.unreached)}"
            if found.unreached
            else f"{len(conditions)} conditions of {len(task.points):,} inputs each were examined",
            not found.unreached,
        ),
        _check("every flip point found", missing, "0 missing", f"{missing:,} flip points were not found", missing == 0),
        calibrated,
        knows,
        _gains(values, single),
        *_at_levels(values, single, task),
    )
    sentences = [calibration_words, knows_words]
    if task.levels is not None and len(found.levels):
        sentences.append(f"{checks[-1].sentence}.")
    if found.unreached:
        left = ", ".join(found.unreached)
        return Judgement(checks, "not converged", f"Not converged: the budget was spent before {left}.")
    return Judgement(checks, "converged", f"Converged: every condition was examined. {' '.join(sentences)}")


def _check(name: str, value: float, limit: str, sentence: str, passed: bool | None) -> Check:
    return Check(name, float(value), limit, sentence, None if passed is None else np.array(passed))


def _interval(low: float, high: float) -> str:
    return f"95%: {low:.3g} to {high:.3g}"


def _calibrated(values: Mapping[str, np.ndarray], n_images: int) -> tuple[Check, str]:
    """On the inputs as given; the paired difference of squared calibration errors decides."""
    place = (0, MEASURES.index(SQUARED))
    names = ("calibration_difference", "calibration_difference_low", "calibration_difference_high")
    value, low, high = (float(values[name][place]) for name in names)
    name, limit = "better calibrated than its members", "interval below 0"
    if math.isnan(value):
        return _check(name, value, limit, "no input was examined", None), "Calibration was not measured."
    if n_images < FEWEST_INPUTS:
        told = f"{n_images:,} inputs are too few to compare calibration: {FEWEST_INPUTS} at least"
        return _check(name, value, limit, told, None), f"{told}."
    measured = f"squared calibration error {value:+.3g} against its members' mean, {_interval(low, high)}"
    if high < 0:
        told = f"On the inputs as given the ensemble is better calibrated than its members ({measured})."
    elif low > 0:
        told = f"On the inputs as given the ensemble is worse calibrated than its members ({measured})."
    else:
        told = f"On the inputs as given the ensemble is not seen to be better calibrated than its members ({measured})."
    return _check(name, value, limit, f"on the inputs as given: {measured}", high < 0), told


def _knows(values: Mapping[str, np.ndarray], single: str) -> tuple[Check, str]:
    value, low, high = (float(values[name][0, 0]) for name in ("auroc", "auroc_low", "auroc_high"))
    n_wrong, n_right = int(values["auroc_yes"][0]), int(values["auroc_no"][0])
    name, limit = f"knows where {single} is overconfident", "interval above 0.5, half doubted"
    counted = f"{n_wrong:,} sure answers are wrong and {n_right:,} right"
    if min(n_wrong, n_right) < FEWEST:
        check = _check(name, value, limit, f"too few to tell: {counted}", None)
        return check, f"Whether it knows where {single} is overconfident was not seen: {counted}."
    doubted = 100 * float(values["doubted_wrong_share"])
    measured = (
        f"a wrong sure answer of {single} has the higher mutual information with probability {value:.3g}, "
        f"{_interval(low, high)}; {counted}, and the ensemble doubts {doubted:.3g}% of the wrong ones"
    )
    knows = low > 0.5 and float(values["doubted_wrong_share"]) >= MOST
    if knows:
        told = f"It knows where {single} is overconfident: {measured}."
    elif low > 0.5:
        told = f"It suspects where {single} is overconfident, but rarely doubts it: {measured}."
    elif high < 0.5:
        told = f"It is misled where {single} is overconfident: {measured}."
    else:
        told = f"It is not seen to know where {single} is overconfident: {measured}."
    return _check(name, value, limit, measured, knows), told


def _gains(values: Mapping[str, np.ndarray], single: str) -> Check:
    value, low, high = (float(values[name]) for name in ("auroc_gain", "auroc_gain_low", "auroc_gain_high"))
    enough = min(int(values["auroc_yes"][0]), int(values["auroc_no"][0])) >= FEWEST and not math.isnan(low)
    sentence = f"AUROC of the mutual information minus that of {single}'s own doubt, {_interval(low, high)}"
    name = f"knows more than {single} itself"
    if not enough:
        return _check(name, value, "interval above 0", "too few sure answers to tell", None)
    return _check(name, value, "interval above 0", sentence, low > 0)


def _at_levels(values: Mapping[str, np.ndarray], single: str, task: EnsembleTask) -> tuple[Check, ...]:
    """Of the sure representatives of all levels, the share that the ensemble doubts: reported, not required."""
    if task.levels is None:
        return ()
    n = values["level_count"]
    sure = np.nan_to_num(values["level_sure_share"]) * n
    doubted = np.nan_to_num(values["level_doubted_share"]) * sure
    n_levels = int((sure > 0).sum())
    half = int((np.nan_to_num(values["level_doubted_share"]) > 0.5).sum())
    share = float(doubted.sum() / sure.sum()) if sure.sum() else math.nan
    sentence = (
        f"{single} is sure of {int(round(sure.sum())):,} of {int(n.sum()):,} representatives of {n_levels} levels; the "
        f"ensemble doubts {int(round(doubted.sum())):,} of these, more than half of them at {half} levels"
    )
    return (_check("doubts at levels of the survey", share, "reported", sentence, None),)
