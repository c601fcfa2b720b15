"""The verdict on flip points: was every one found, does the answer flip there, is it proven the closest?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from theodolite.instruments.boundary_task import BoundaryTask
from theodolite.instruments.verdict import Check, Judgement
from theodolite.search.flips import FLIP_TOLERANCE, Flips

if TYPE_CHECKING:
    from theodolite.instruments.boundary_sampler import Found

ON_BOUNDARY = "found: the input lies on the boundary"
NOWHERE = "none: proven that the answer flips nowhere in the space"
EXACT_SHARE = 0.99  # of the distance: a lower bound from here on counts as equal to it
_STEP_BACK = 1e-6  # of the way back to the input: the near side
_ROUNDING = 1e-9  # of a distance
_BOUNDED = "every distance bounded"
_CLOSEST = "closest flip points proven"
_PAIRS = "every pair has a flip point"
# What may fail in a survey that has converged: a class can be out of reach, and proofs are a verdict of their own.
_MAY_FAIL = (_BOUNDED, _CLOSEST, _PAIRS)


@dataclass(frozen=True)
class Verified:
    """Looked at again, in float64: ``behind`` and ``before`` ``(image,)`` bool: the target class no longer lags at the
    flip point, the predicted class still leads a step before; true where there is no flip point."""

    behind: Tensor
    before: Tensor


def verified(task: BoundaryTask, flips: Flips) -> Verified:
    """Evaluate both sides of every flip point found."""
    behind, before = torch.ones(len(task.own), dtype=torch.bool), torch.ones(len(task.own), dtype=torch.bool)
    rows = flips.found.nonzero()[:, 0]
    if not len(rows):
        return Verified(behind, before)
    own, other = task.own[rows], flips.target[rows]
    point, start = flips.point[rows], task.points[rows]
    output = task.exact.value(point)
    lag = output.gather(1, own[:, None]) - output.gather(1, other[:, None])
    # Rounding of the outputs themselves: their last bits depend on the rows evaluated beside them.
    behind[rows] = lag[:, 0] <= 1e-13 * output.abs().amax(1)
    nearer = task.exact.value(point - _STEP_BACK * (point - start))
    moved = (flips.distance[rows] > 0) & (flips.residual[rows] <= FLIP_TOLERANCE)
    before[rows] = ~moved | (nearer.argmax(1) == own)
    return Verified(behind, before)


def judge(task: BoundaryTask, sides: Verified, found: Found, outcome: Sequence[str]) -> Judgement:
    """The checks; "exact" where every bound equals its distance to 1%, "bracketed" where every input has a bound above
    0, "converged" where every flip point was found, else "not converged"."""
    n = len(outcome)
    known = found.flips.found
    distance, lower = found.flips.distance, found.bounds.lower
    nowhere = torch.tensor([words == NOWHERE for words in outcome], dtype=torch.bool)
    settled = known | nowhere
    missing = Counter(words for words in outcome if not words.startswith("found") and words != NOWHERE)
    residual = found.flips.residual[known]
    worst = float(residual.abs().max()) if len(residual) else 0.0
    flipped = sides.behind & sides.before
    sound = ~known | (lower <= distance * (1 + _ROUNDING))
    n_bounded = int((settled & ((lower > 0) | (distance == 0))).sum())
    n_exact = int((settled & (lower >= EXACT_SHARE * distance)).sum())
    none = f", {int(nowhere.sum()):,} are proven to have none" if nowhere.any() else ""
    # Whole numbers, or bounds that exclude the input, leave no point on the boundary itself.
    off = task.rules is not None
    checks = (
        _check(
            "every flip point found",
            int(settled.sum()),
            f"{n:,} of {n:,}",
            f"{int(known.sum()):,} of {n:,} inputs have a flip point{none}",
            int(settled.sum()) == n,
        ),
        _check(
            "flip points on the far side",
            worst,
            ">= 0" if off else f"0 to {FLIP_TOLERANCE:g}",
            f"the largest residual is {worst:.2g}",
            bool(((residual >= 0) & ((residual <= FLIP_TOLERANCE) | off)).all()),
        ),
        _check(
            "the answer flips there",
            int((known & flipped).sum()),
            f"{int(known.sum()):,} flip points",
            f"the class differs on the two sides of {int((known & flipped).sum()):,} of {int(known.sum()):,}",
            bool(flipped.all()),
        ),
        _check(
            "bounds below distances",
            int((~sound).sum()),
            "0 above",
            f"{int((~sound).sum()):,} lower bounds above a distance",
            bool(sound.all()),
        ),
        _check(
            _BOUNDED,
            n_bounded,
            f"{n:,} inputs",
            f"{n_bounded:,} of {n:,} inputs have a proven bound",
            n_bounded == n,
        ),
        _check(
            _CLOSEST,
            n_exact,
            f"{n:,} inputs",
            f"{n_exact:,} of {n:,} bounds equal their distance to {1 - EXACT_SHARE:.0%}",
            n_exact == n,
        ),
    )
    if len(task.pairs[0]):
        checks += _of_pairs(found)
    if found.meetings is not None:
        checks += (_reached("every meeting point searched", found.unreached.get("meetings", 0), "inputs"),)
    return Judgement(checks, *_verdict(checks, missing, found, n))


def _of_pairs(found: Found) -> tuple[Check, Check]:
    n_pairs, n_found = len(found.pairs.distance), int(found.pairs.found.sum())
    told = f"{n_found:,} of {n_pairs:,} pairs have a flip point"
    return (
        _reached("every pair searched", found.unreached.get("pairs", 0), "pairs"),
        _check(_PAIRS, n_found, f"{n_pairs:,} pairs", told, n_found == n_pairs),
    )


def _reached(name: str, n_left: int, what: str) -> Check:
    return _check(name, n_left, "0 left", f"{n_left:,} {what} were left when the budget was spent", n_left == 0)


def _check(name: str, value: float, limit: str, sentence: str, passed: bool) -> Check:
    return Check(name, float(value), limit, sentence, np.array(passed))


def _verdict(checks: Sequence[Check], missing: Counter[str], found: Found, n: int) -> tuple[str, str]:
    passed = {check.name: bool(np.all(check.passed)) for check in checks}
    if missing:
        reasons = "; ".join(f"{count:,} {_inputs(count)} {words}" for words, count in sorted(missing.items()))
        return "not converged", f"Not converged: of {n:,} {_inputs(n)}, {reasons}."
    failed = [check for check in checks if not passed[check.name] and check.name not in _MAY_FAIL]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.sentence}" for check in failed)
        return "not converged", f"Not converged: {reasons}."
    distance, lower = found.flips.distance, found.bounds.lower
    n_none = int((~found.flips.found).sum())
    none = f", but for {n_none:,} proven to have none" if n_none else ""
    if n_none == n:
        return "exact", f"Exact: the answer is proven to flip nowhere in the space, for {n:,} {_inputs(n)}."
    if passed[_CLOSEST]:
        return (
            "exact",
            f"Exact: the flip points of {n:,} {_inputs(n)} are proven closest, to {1 - EXACT_SHARE:.0%}{none}.",
        )
    if passed[_BOUNDED]:
        share = torch.where(distance > 0, lower / distance, 1.0)[found.flips.found]
        return (
            "bracketed",
            f"Bracketed: every input has a flip point{none}, and a proven bound; the bound is "
            f"{float(share.median()):.1%} of the distance in the median and {float(share.min()):.1%} at least.",
        )
    n_bounded = int(((lower > 0) | (distance == 0)).sum())
    return (
        "converged",
        f"Converged: every input has a flip point{none}; {n_bounded:,} of {n:,} have a proven bound, the other "
        "distances are upper bounds alone.",
    )


def _inputs(count: int) -> str:
    return "input" if count == 1 else "inputs"
