"""Many small convex quadratic programs at once, each with a lower bound that holds however far the solver got.

The nearest point of a polytope: minimise |d|^2 / 2 over displacements d and free numbers p with linear inequalities and
bounds. Mehrotra's predictor and corrector (SIAM J. Optim. 2, 575 (1992)) proposes multipliers; what is returned as
proven is the Lagrangian dual at them (Boyd and Vandenberghe 2004, 'Convex Optimization', section 5.1.3), which is a
lower bound for any multipliers that are not negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

UNIT_ROUNDING = 2.0**-53
_BACK_OFF = 0.995  # share of the way to the nearest bound that a step may go
_TOLERANCE = 1e-10  # of scaled programs: violation, and a tenth of the relative gap, of those that count as solved


@final
@dataclass
class Programs:
    """Minimise |d|^2 / 2 subject to on_base . (base d) + on_free . p <= limit, low <= d <= high, 0 <= p <= 1.

    ``base (r, n)`` and ``low``, ``high (n,)`` (low < high, finite) are shared; ``on_base (program, m, r)``,
    ``on_free (program, m, f)``, ``limit (program, m)``. All float64, and scaled so that solutions are of order one.
    """

    base: Tensor
    low: Tensor
    high: Tensor
    on_base: Tensor
    on_free: Tensor
    limit: Tensor

    def select(self, index: Tensor) -> Programs:
        """The programs of ``index``."""
        return Programs(self.base, self.low, self.high, self.on_base[index], self.on_free[index], self.limit[index])


@final
@dataclass(frozen=True)
class Solutions:
    """``value (program,)`` proven lower bounds of |d|^2 / 2, rounding included (inf never; an infeasible program's
    grows past any threshold); ``d (program, n)``, ``p (program, f)`` the last points, feasible only where
    ``solved (program,)``; ``multiplier (program, m)``."""

    value: Tensor
    d: Tensor
    p: Tensor
    multiplier: Tensor
    solved: Tensor

    def select(self, index: Tensor) -> Solutions:
        """Those of ``index``."""
        return Solutions(*(getattr(self, field.name)[index] for field in fields(self)))


def dual_value(programs: Programs, multiplier: Tensor) -> Tensor:
    """Proven lower bounds ``(program,)`` of |d|^2 / 2 from any multipliers ``(program, m)`` that are not negative.

    The minimum over the bounds is taken coordinate by coordinate. Rounding: every sum of k terms is off by less than
    2 k u times the sum of their absolute values (u = 2^-53; Higham 2002, 'Accuracy and Stability of Numerical
    Algorithms', section 3.1); with d as large as its bounds allow, this also covers entries of the programs that are
    off by some u themselves. All such sums together are taken off.
    """
    row = multiplier[:, None]
    weight = (row @ programs.on_base)[:, 0] @ programs.base
    d = (-weight).clamp(programs.low, programs.high)
    free = (row @ programs.on_free)[:, 0]
    value = (0.5 * d.square() + weight * d).sum(1) + free.clamp(max=0).sum(1) - (multiplier * programs.limit).sum(1)
    widest = torch.maximum(programs.low.abs(), programs.high.abs())
    size = (row @ programs.on_base.abs())[:, 0] @ (programs.base.abs() @ widest) + d.square().sum(1)
    size = size + (row @ programs.on_free.abs())[:, 0].sum(1)
    size = size + (multiplier * programs.limit.abs()).sum(1)
    n_terms = sum(programs.base.shape) + programs.on_base.shape[1] + programs.on_free.shape[2]
    return value - 4 * n_terms * UNIT_ROUNDING * size


def solve(programs: Programs, threshold: Tensor | float = math.inf, max_iterations: int = 50) -> Solutions:
    """Solves each program, or stops at it once its proven bound reaches ``threshold`` (a number or ``(program,)``)."""
    n_programs, m = programs.limit.shape
    rows = _start(programs)
    threshold = torch.as_tensor(threshold, dtype=torch.float64).expand(n_programs)
    end = Solutions(
        torch.zeros(n_programs, dtype=torch.float64),
        rows.d.clone(),
        rows.p.clone(),
        rows.multiplier.clone(),
        torch.zeros(n_programs, dtype=torch.bool),
    )
    active = torch.arange(n_programs)
    for _ in range(max_iterations):
        if not len(active):
            break
        value = dual_value(programs, rows.multiplier)
        better = value > end.value[active]
        end.value[active] = torch.maximum(end.value[active], value)
        end.multiplier[active[better]] = rows.multiplier[better]
        solved = _solved(programs, rows, value)
        end.d[active], end.p[active], end.solved[active] = rows.d, rows.p, solved
        go_on = ~(solved | (end.value[active] >= threshold[active]))
        if not bool(go_on.all()):
            kept = go_on.nonzero()[:, 0]
            active, programs, rows = active[kept], programs.select(kept), rows.select(kept)
            if not len(active):
                break
        rows = _step(programs, rows)
        if not bool(rows.usable.all()):
            kept = rows.usable.nonzero()[:, 0]
            active, programs, rows = active[kept], programs.select(kept), rows.select(kept)
    return end


@final
@dataclass
class _Rows:
    """One program a row: the point, the slacks of the inequalities, and the multipliers of inequalities and bounds."""

    d: Tensor
    p: Tensor
    slack: Tensor
    multiplier: Tensor
    above: Tensor  # multipliers of y >= low, for (d, p)
    below: Tensor
    usable: Tensor

    def select(self, index: Tensor) -> _Rows:
        return _Rows(*(getattr(self, field.name)[index] for field in fields(self)))


def _start(programs: Programs) -> _Rows:
    n_programs, m = programs.limit.shape
    span = programs.high - programs.low
    d = torch.zeros_like(span).clamp(programs.low + 0.05 * span, programs.high - 0.05 * span).expand(n_programs, -1)
    p = programs.on_free.new_full((n_programs, programs.on_free.shape[2]), 0.5)
    slack = (programs.limit - left_side(programs, d, p)).clamp(min=0.1)
    bounds = d.new_full((n_programs, d.shape[1] + p.shape[1]), 0.1)
    usable = torch.ones(n_programs, dtype=torch.bool)
    return _Rows(d.clone(), p, slack, torch.full_like(slack, 0.1), bounds, bounds.clone(), usable)


def left_side(programs: Programs, d: Tensor, p: Tensor) -> Tensor:
    """``(program, m)``: what the limits are compared with."""
    left = programs.on_base @ (d @ programs.base.T)[:, :, None] + programs.on_free @ p[:, :, None]
    return left[:, :, 0]


def _solved(programs: Programs, rows: _Rows, value: Tensor) -> Tensor:
    violation = (left_side(programs, rows.d, rows.p) - programs.limit).amax(1)
    primal = 0.5 * rows.d.square().sum(1)
    return (violation <= _TOLERANCE) & (primal - value <= 10 * _TOLERANCE * primal.clamp(min=0.1))


def _step(programs: Programs, rows: _Rows) -> _Rows:
    n = rows.d.shape[1]
    lower = torch.cat([rows.d - programs.low, rows.p], 1)
    upper = torch.cat([programs.high - rows.d, 1 - rows.p], 1)
    curvature = rows.above / lower + rows.below / upper
    curvature[:, :n] += 1.0
    ratio = rows.slack / rows.multiplier
    on_base, on_free = programs.on_base, programs.on_free
    gram = (programs.base / curvature[:, None, :n]) @ programs.base.T
    schur = on_base @ gram @ on_base.mT + (on_free / curvature[:, None, n:]) @ on_free.mT
    diagonal = schur.diagonal(dim1=1, dim2=2)
    diagonal += ratio + 1e-14 * diagonal
    factor, failed = torch.linalg.cholesky_ex(schur)

    def across(y: Tensor) -> Tensor:
        return left_side(programs, y[:, :n], y[:, n:])

    def back(multiplier: Tensor) -> Tensor:
        row = multiplier[:, None]
        return torch.cat([(row @ on_base)[:, 0] @ programs.base, (row @ on_free)[:, 0]], 1)

    stationary = torch.cat([rows.d, torch.zeros_like(rows.p)], 1) + back(rows.multiplier)
    missing = left_side(programs, rows.d, rows.p) + rows.slack - programs.limit

    def direction(slack_goal: Tensor, above_goal: Tensor, below_goal: Tensor) -> tuple[Tensor, ...]:
        """Newton's step towards slack * multiplier = slack_goal, and likewise for both kinds of bounds."""
        pull = stationary - above_goal / lower + below_goal / upper
        right = missing + slack_goal / rows.multiplier - rows.slack - across(pull / curvature)
        multiplier = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        y = -(pull + back(multiplier)) / curvature
        slack = slack_goal / rows.multiplier - rows.slack - ratio * multiplier
        above = above_goal / lower - rows.above - rows.above / lower * y
        below = below_goal / upper - rows.below + rows.below / upper * y
        return y, slack, multiplier, above, below

    zero = torch.zeros_like(lower)
    y, slack, multiplier, above, below = direction(torch.zeros_like(ratio), zero, zero)
    primal = _reach((lower, y), (upper, -y), (rows.slack, slack))
    dual = _reach((rows.multiplier, multiplier), (rows.above, above), (rows.below, below))
    n_pairs = ratio.shape[1] + 2 * lower.shape[1]

    def mean(a: Tensor, b: Tensor, c: Tensor, e: Tensor, f: Tensor, g: Tensor) -> Tensor:
        return ((a * b).sum(1) + (c * e).sum(1) + (f * g).sum(1)) / n_pairs

    now = mean(rows.slack, rows.multiplier, lower, rows.above, upper, rows.below)
    then = mean(
        rows.slack + primal * slack,
        rows.multiplier + dual * multiplier,
        lower + primal * y,
        rows.above + dual * above,
        upper - primal * y,
        rows.below + dual * below,
    )
    centre = (now * (then / now).clamp(0, 1) ** 3)[:, None]
    y, slack, multiplier, above, below = direction(centre - slack * multiplier, centre - y * above, centre + y * below)
    primal = _BACK_OFF * _reach((lower, y), (upper, -y), (rows.slack, slack))
    dual = _BACK_OFF * _reach((rows.multiplier, multiplier), (rows.above, above), (rows.below, below))
    # One length for both keeps the residual of the curved part of the objective in step.
    length = torch.minimum(primal, dual)
    moved = _Rows(
        rows.d + length * y[:, :n],
        rows.p + length * y[:, n:],
        rows.slack + length * slack,
        rows.multiplier + length * multiplier,
        rows.above + length * above,
        rows.below + length * below,
        rows.usable,
    )
    moved.usable = (failed == 0) & moved.multiplier.isfinite().all(1) & (moved.multiplier > 0).all(1)
    return moved


def _reach(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """``(program, 1)``: the longest step of at most 1 that leaves every number positive."""
    found = torch.ones((len(pairs[0][0]), 1), dtype=torch.float64)
    for value, change in pairs:
        if value.shape[1]:
            # The largest relative fall limits the step.
            fall = (-change / value).amax(1, keepdim=True)
            found = torch.minimum(found, 1 / fall.clamp(min=1e-300))
    return found
