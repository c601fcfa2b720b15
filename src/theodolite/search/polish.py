"""Move points onto the far side of a boundary to rounding error, in float64: margin in [-1e-9, 0].

Single precision leaves margins of 1e-6 to 1e-2, and with them the class of a point depends on the batch it is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.search.flips import FLIP_TOLERANCE
from theodolite.search.margins import Margins
from theodolite.search.regions import Region

_LEAST_REACH = 1e-12  # first half-width of the bracket, as a share of the ray
_WIDENING = 8.0
_PATIENCE = 3  # secants that shorten a bracket by less than half, before it is halved
_AIM = -FLIP_TOLERANCE / 2  # margins here have the same sign whatever batch a point is evaluated in


@final
@dataclass
class Polished:
    """``point (row, n)`` float64 with ``margin (row,)``; ``met`` where that lies in [-1e-9, 0]."""

    point: Tensor
    margin: Tensor

    @property
    def met(self) -> Tensor:
        return (self.margin <= 0) & (self.margin >= -FLIP_TOLERANCE)


def polish(margins: Margins, region: Region, x0: Tensor, x: Tensor, *, n_steps: int = 80) -> Polished:
    """The boundary's point on the ray from ``x0`` through ``x (row, n)``, near x; all float64, ``margins`` of the
    exact outputs. The margin is positive at x0, which lies in the region; the ray bends where it leaves the region.

    A bracket grows from x until the margin changes sign, then Illinois steps (Dowell and Jarratt, BIT 11, 168
    (1971)) aim at the middle of the tolerance. At most ``n_steps`` units a row and two.
    """
    margin, gradient = margins.value_and_gradient(x)
    point = x.clone()
    rows = (torch.isfinite(margin) & ~_well_inside(margin)).nonzero()[:, 0]
    if len(rows) == 0:
        return Polished(point, margin)
    bracket = _Bracket(margin, (gradient * (x - x0)).sum(1))
    for _ in range(n_steps):
        trial = bracket.trial()[rows]
        moved = region.select(rows).nearest(x0[rows], x0[rows] + trial[:, None] * (x - x0)[rows])
        value = margins.select(rows).value(moved)
        bracket.judge(rows, trial, value)
        before = torch.where(margin[rows] <= 0, (margin[rows] - _AIM).abs(), torch.inf)
        better = (value <= 0) & ((value - _AIM).abs() < before)
        point[rows[better]] = moved[better]
        margin[rows[better]] = value[better]
        rows = rows[~_well_inside(value) & bracket.open(rows)]
        if len(rows) == 0:
            break
    return Polished(point, margin)


def _well_inside(margin: Tensor) -> Tensor:
    return (margin - _AIM).abs() <= 0.9 * FLIP_TOLERANCE / 2


class _Bracket:
    """Places on a ray (0: x0, 1: x), a row each: ``inner`` with a margin over the aim, ``outer`` with one at or under
    it, NaN while unknown."""

    def __init__(self, margin: Tensor, slope: Tensor) -> None:
        shifted = margin - _AIM
        nowhere = torch.full_like(margin, torch.nan)
        self.inner, self.inner_margin = (
            torch.where(shifted > 0, 1.0, nowhere),
            torch.where(shifted > 0, shifted, nowhere),
        )
        self.outer, self.outer_margin = (
            torch.where(shifted > 0, nowhere, 1.0),
            torch.where(shifted > 0, nowhere, shifted),
        )
        reach = (1.5 * shifted / slope).abs()
        self.reach = torch.where(torch.isfinite(reach), reach, 1e-6).clamp(_LEAST_REACH, 0.25)
        self.was_near = shifted > 0
        self.n_slow = torch.zeros_like(margin, dtype=torch.int64)

    def trial(self) -> Tensor:
        secant = (self.inner * self.outer_margin - self.outer * self.inner_margin) / (
            self.outer_margin - self.inner_margin
        )
        middle = (self.inner + self.outer) / 2
        inside = torch.isfinite(secant) & (secant > self.inner) & (secant < self.outer) & (self.n_slow < _PATIENCE)
        bracketed = torch.where(inside, secant, middle)
        widened = torch.where(
            torch.isfinite(self.inner), self.inner + self.reach, (self.outer - self.reach).clamp(min=0.0)
        )
        return torch.where(torch.isfinite(middle), bracketed, widened)

    def judge(self, rows: Tensor, trial: Tensor, margin: Tensor) -> None:
        shifted = margin - _AIM
        near = shifted > 0
        complete = torch.isfinite(self.inner[rows] + self.outer[rows])
        width = self.outer[rows] - self.inner[rows]
        # The end that stays twice in a row pretends to be nearer its root, else secants would never move it.
        pretence = torch.where(complete & (near == self.was_near[rows]), 0.5, 1.0)
        self.inner_margin[rows] = torch.where(near, shifted, self.inner_margin[rows] * pretence)
        self.outer_margin[rows] = torch.where(near, self.outer_margin[rows] * pretence, shifted)
        self.inner[rows] = torch.where(near, trial, self.inner[rows])
        self.outer[rows] = torch.where(near, self.outer[rows], trial)
        self.was_near[rows] = near
        self.n_slow[rows] = torch.where(
            complete & ((self.outer - self.inner)[rows] > width / 2), self.n_slow[rows] + 1, 0
        )
        self.reach[rows] = torch.where(complete, self.reach[rows], _WIDENING * self.reach[rows])

    def open(self, rows: Tensor) -> Tensor:
        """Whether there is still a number between the two ends, and the bracket within the ray's double."""
        middle = (self.inner + self.outer)[rows] / 2
        closed = (middle <= self.inner[rows]) | (middle >= self.outer[rows])
        lost = (self.inner[rows] > 2.0) | (self.outer[rows] <= 0.0)
        return ~(closed | lost)
