"""Where flip points may lie, and the nearest such point on the far side of linearised boundaries.

A region is a box, a row an image, and linear equalities; distances are measured in L2, L1 or Linf. Nearest points in
L2 come from the dual, by the semismooth Newton method of Qi and Sun, Math. Programming 58, 353 (1993); for one cut
the dual has one variable and is solved exactly, as is the continuous knapsack that L1 leads to (Dantzig, Operations
Research 5, 266 (1957)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs

NORMS = ("L2", "L1", "Linf")
_MAX_NEWTON_STEPS = 60
_ROUNDING = 32.0  # machine precisions within which a cut counts as met
_DAMPING = 1e-3  # of a Newton step, times the share of the excess that is left (measured: 1e-3 to 0.1 do)
_RIDGE = 10.0  # machine precisions added to a curvature, so that parallel cuts do no harm


@final
@dataclass(frozen=True)
class Region:
    """``low``, ``high`` ``(image, n)`` with low <= high (infinite where free); optionally ``matrix (m, n)`` and
    ``offset (image, m)`` with matrix . y = offset. ``norm`` of distances. Raises UserError for another norm."""

    low: Tensor
    high: Tensor
    norm: str = "L2"
    matrix: Tensor | None = None
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError("norm", " or ".join(NORMS), repr(self.norm), "L2 is the plain Euclidean distance")
        if (self.matrix is None) != (self.offset is None):
            raise UserError("matrix, offset", "both or neither", "one of them", "give the offset of every equality")

    def select(self, index: Tensor) -> Region:
        """The rows of ``index``."""
        offset = None if self.offset is None else self.offset[index]
        return Region(self.low[index], self.high[index], self.norm, self.matrix, offset)

    def to(self, dtype: torch.dtype) -> Region:
        """The same in another precision; a box never grows by rounding, except to the one nearest number where it
        holds none of that precision."""
        if dtype == self.low.dtype:
            return self
        low, high = self.low.to(dtype), self.high.to(dtype)
        up, down = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
        inner_low = torch.where(low.double() < self.low.double(), low.nextafter(up), low)
        inner_high = torch.where(high.double() > self.high.double(), high.nextafter(down), high)
        empty = inner_low > inner_high
        return Region(
            torch.where(empty, low, inner_low),
            torch.where(empty, low, inner_high),
            self.norm,
            None if self.matrix is None else self.matrix.to(dtype),
            None if self.offset is None else self.offset.to(dtype),
        )

    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """``(row,)`` in the region's norm."""
        change = (x - x0).abs()
        if self.norm == "Linf":
            return change.amax(1)
        return change.sum(1) if self.norm == "L1" else change.norm(dim=1)

    def contains(self, x: Tensor, tolerance: float = 0.0) -> Tensor:
        """``(row,)`` bool: in the box exactly, equalities to ``tolerance`` in their own units."""
        inside = ((x >= self.low) & (x <= self.high)).all(1)
        if self.matrix is None or self.offset is None:
            return inside
        return inside & ((x @ self.matrix.T - self.offset).abs() <= tolerance).all(1)

    def nearest(self, x0: Tensor, x: Tensor) -> Tensor:
        """The point of the region nearest to ``x`` (in L2), ``(row, n)``; nearest to ``x0`` where x is not finite."""
        x = torch.where(torch.isfinite(x).all(1, keepdim=True), x, x0)
        if self.matrix is None:
            return x.clamp(self.low, self.high)
        return self._project_many(x, x.new_zeros((len(x), 0, x.shape[1])), x.new_zeros((len(x), 0)))

    def project(self, x0: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
        """The point ``y (row, n)`` of the region nearest to ``x0`` in its norm with ``normal (row, c, n)`` . y <=
        ``offset (row, c)``; where there is none, a point of small violation. A normal of zeros is no cut.

        Exact in L2, and in L1 and Linf for one cut without equalities. Otherwise L1 and Linf give a point that meets
        everything, not the nearest: the first cut's own, moved onto the rest in L2.
        """
        if normal.shape[1] == 0:
            return self.nearest(x0, x0)
        y = self._project_one(x0, normal[:, 0], offset[:, 0])
        if self.matrix is None and normal.shape[1] == 1:
            return y
        unmet = self._unmet(y, normal, offset)
        if bool(unmet.any()):
            rows = unmet.nonzero()[:, 0]
            start = x0 if self.norm == "L2" else y
            y = y.index_copy(0, rows, self.select(rows)._project_many(start[rows], normal[rows], offset[rows]))
        return y

    def _unmet(self, y: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
        precision = _ROUNDING * torch.finfo(y.dtype).eps
        excess = torch.einsum("rcn,rn->rc", normal, y) - offset
        unmet = (excess > precision * (normal.norm(dim=2) * y.norm(dim=1, keepdim=True) + offset.abs())).any(1)
        if self.matrix is None or self.offset is None:
            return unmet
        gap = (y @ self.matrix.T - self.offset).abs()
        size = self.matrix.norm(dim=1) * y.norm(dim=1, keepdim=True) + self.offset.abs()
        return unmet | (gap > precision * size).any(1)

    def _project_one(self, x0: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
        if self.norm == "L1":
            return _knapsack(x0, normal, offset, self.low, self.high)
        direction = normal if self.norm == "L2" else normal.sign()
        return _along(x0, normal, offset, direction, self.low, self.high)

    def _project_many(self, x0: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
        n_cuts = normal.shape[1]
        if self.matrix is not None and self.offset is not None:
            normal = torch.cat((normal, self.matrix[None].expand(len(x0), -1, -1)), 1)
            offset = torch.cat((offset, self.offset), 1)
        equal = torch.arange(normal.shape[1]) >= n_cuts
        return _dual_newton(x0, normal, offset, equal, self.low, self.high)


def hull(outputs: Outputs, n_images: int, norm: str = "L2") -> Region:
    """The whole hull of the space ``outputs`` live on, for every image, float64."""
    return Region(outputs.low.expand(n_images, -1), outputs.high.expand(n_images, -1), norm)


def _along(x0: Tensor, normal: Tensor, offset: Tensor, direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """First point of the path clamp(x0 - t direction) with normal . y <= offset, where normal . direction >= 0 in
    every coordinate; its end where there is none.

    The excess falls piecewise linearly in t, and from an x0 inside the box ever more slowly: Newton's method from
    0 then never oversteps and ends after finitely many steps. Outside, brackets guard it.
    """
    down, up = low - x0, high - x0
    need = offset - (normal * x0).sum(1)
    t = x0.new_zeros((len(x0), 1))
    below, above = t.clone(), torch.full_like(t, torch.inf)
    slopes = normal * direction
    change = torch.zeros_like(x0).clamp(down, up)
    precision = _ROUNDING / 8 * torch.finfo(x0.dtype).eps
    for _ in range(_MAX_NEWTON_STEPS):
        product = normal * change
        excess = (product.sum(1) - need)[:, None]
        tolerance = precision * (need.abs() + product.abs().sum(1))[:, None]
        todo = (excess > tolerance) | ((excess < -tolerance) & (t > 0))
        if not bool(todo.any()):
            break
        below, above = torch.where(excess > 0, t, below), torch.where(excess > 0, above, t)
        free = (-t * direction) == change
        trial = t + excess / (slopes * free).sum(1, keepdim=True)
        stuck = todo & ~torch.isfinite(trial)
        if bool(stuck.any()):
            # Nothing moves here: go on where the next coordinate comes off its bound, if one does.
            off = torch.where(direction > 0, -up / direction, -down / direction)
            off = torch.where((off > t) & (direction != 0), off, torch.inf).amin(1, keepdim=True)
            trial = torch.where(stuck, off * (1 + 4 * torch.finfo(x0.dtype).eps), trial)
        trial = torch.where((trial <= below) | (trial >= above), (below + above) / 2, trial)
        t = torch.where(todo & torch.isfinite(trial), trial, t)
        change = (-t * direction).clamp(down, up)
    return (x0 + change).clamp(low, high)


def _knapsack(x0: Tensor, normal: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Nearest point in L1: coordinates move to their bounds in the order of their slopes, the last one in part."""
    y = x0.clamp(low, high)
    need = ((normal * y).sum(1) - offset).clamp(min=0.0)[:, None]
    slope, order = normal.abs().sort(1, descending=True)
    room = torch.where(normal > 0, y - low, high - y).gather(1, order)
    gain = torch.where(slope > 0, slope * room, 0.0)
    before = torch.cat((torch.zeros_like(need), gain.cumsum(1)[:, :-1]), 1)
    share = torch.where(slope > 0, (need - before) / slope, 0.0).clamp(min=0.0)
    moves = torch.zeros_like(y).scatter(1, order, torch.minimum(share, room))
    return (y - normal.sign() * moves).clamp(low, high)


def _dual_newton(x0: Tensor, normal: Tensor, offset: Tensor, equal: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Nearest point in L2 under several cuts (``equal (c,)``: met with equality), by maximising the dual

        q(lambda) = |d|^2 / 2 + lambda . (A d - b),  d = clamp(-A' lambda, low - x0, high - x0),  q' = A d - b

    with projected Newton steps, halved until q rises.
    """
    precision = torch.finfo(x0.dtype).eps
    length = normal.norm(dim=2)
    scale = torch.where(length > 0, length, 1.0)
    cuts = normal / scale[:, :, None]
    need = torch.where(length > 0, offset / scale - torch.einsum("rcn,rn->rc", cuts, x0), 0.0)
    down, up = low - x0, high - x0
    # No point of the box is farther: a dual above this proves that the cuts exclude each other.
    farthest = (1 + 1e-6) * 0.5 * torch.maximum(down.square(), up.square()).sum(1)
    end = torch.zeros_like(x0)
    rows = torch.arange(len(x0))
    multiplier, step = torch.zeros_like(need), x0.new_ones((len(x0), 1))
    d, excess, value = _dual(multiplier, cuts, need, down, up)
    for _ in range(_MAX_NEWTON_STEPS):
        tolerance = _ROUNDING * precision * (d.norm(dim=1, keepdim=True) + need.abs())
        unmet = (excess > tolerance) | ((excess < -tolerance) & ((multiplier > 0) | equal))
        todo = unmet.any(1, keepdim=True) & (value <= farthest)[:, None]
        live = todo[:, 0].nonzero()[:, 0]
        if 2 * len(live) <= len(rows):
            end[rows] = d
            if len(live) == 0:
                break
            rows, cuts, need, down, up = rows[live], cuts[live], need[live], down[live], up[live]
            multiplier, step, d, excess, value = multiplier[live], step[live], d[live], excess[live], value[live]
            todo, farthest = todo[live], farthest[live]
        used = (multiplier > 0) | (excess > 0) | equal
        free = cuts * (-torch.einsum("rc,rcn->rn", multiplier, cuts) == d)[:, None]
        curvature = torch.einsum("rcn,ren->rce", free, free) * used[:, :, None] * used[:, None]
        # Where most coordinates are at their bounds the curvature vanishes: damped by the excess, a step stays finite.
        left = torch.where(used, excess, 0.0).norm(dim=1, keepdim=True)
        share = left / (d.norm(dim=1, keepdim=True) + need.norm(dim=1, keepdim=True)).clamp(min=precision)
        diagonal = torch.where(used, _RIDGE * precision + (_DAMPING * share).clamp(max=1.0), 1.0)
        newton, _ = torch.linalg.solve_ex(curvature + torch.diag_embed(diagonal), (excess * used)[:, :, None])
        trial = multiplier + step * newton[:, :, 0]
        trial = torch.where(equal, trial, trial.clamp(min=0.0))
        d_trial, excess_trial, value_trial = _dual(trial, cuts, need, down, up)
        rise = (excess * (trial - multiplier)).sum(1)
        # Within rounding the value says nothing.
        accepted = todo & (value_trial >= value + 1e-4 * rise - 8 * precision * value.abs())[:, None]
        multiplier = torch.where(accepted, trial, multiplier)
        d, excess = torch.where(accepted, d_trial, d), torch.where(accepted, excess_trial, excess)
        value = torch.where(accepted[:, 0], value_trial, value)
        step = torch.where(accepted, (2 * step).clamp(max=1.0), step / 2)
    else:
        end[rows] = d
    return (x0 + end).clamp(low, high)


def _dual(multiplier: Tensor, cuts: Tensor, need: Tensor, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The point of these multipliers (relative to x0), its excess over the cuts, and the dual's value."""
    d = (-torch.einsum("rc,rcn->rn", multiplier, cuts)).clamp(down, up)
    excess = torch.einsum("rcn,rn->rc", cuts, d) - need
    return d, excess, 0.5 * d.square().sum(1) + (multiplier * excess).sum(1)
