"""The nearest point of a box under a few cuts whose violation costs a bounded price: the step of an l1 penalty method.

    min |y - center|^2 / 2 + sum_c price_c |violation_c(y)|   over low <= y <= high

is solved through its dual, whose multipliers are bounded by the prices (Fletcher, Practical Methods of Optimization,
2nd ed., section 12.3). Each step maximises the dual's second-order model within the bounds (projected Newton;
Bertsekas, SIAM J. Control Optim. 20, 221 (1982)). There is always a solution, whether or not the cuts can be met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numba import njit
from torch import Tensor

_MAX_STEPS = 60
_SHORTEST = 1e-4  # share of a step after which the dual is as high as rounding allows
_SUFFICIENT = 1e-3  # share of the slope's promise that a step must bring
_ROUNDING = 16.0  # machine precisions within which a cut counts as met
_RIDGE = 16.0  # machine precisions added to the curvature: parallel cuts share their multiplier
_SWEEPS = 200  # of coordinate ascent in the model
_INEXACT = 1e-7  # share of the slope that they may leave


@final
@dataclass(frozen=True)
class Cuts:
    """``normal (row, c, n)`` . y against ``offset (row, c)``, with multipliers between ``least`` and ``most``
    ``(row, c)``: 0 and the price for <=, minus and plus the price for =, 0 and 0 for a cut that is not there."""

    normal: Tensor
    offset: Tensor
    least: Tensor
    most: Tensor

    def select(self, index: Tensor) -> Cuts:
        """The rows of ``index``."""
        return Cuts(self.normal[index], self.offset[index], self.least[index], self.most[index])


def cheapest(center: Tensor, cuts: Cuts, low: Tensor, high: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Points ``(row, n)`` and multipliers ``(row, c)``, from multipliers ``start (row, c)`` near the answer.

    Normals should be of similar length: their curvatures are added up.
    """
    multiplier = start.clamp(cuts.least, cuts.most)
    answer = center.clamp(low, high)
    rows = torch.arange(len(center))
    here = _Dual(center, cuts, low, high, multiplier)
    step = center.new_ones(len(center))
    direction = here.direction()
    for _ in range(_MAX_STEPS):
        going = here.open() & (step > _SHORTEST)
        done = rows[~going]
        answer[done], multiplier[done] = here.point[~going], here.multiplier[~going]
        if not bool(going.any()):
            return answer, multiplier
        if len(done):
            here = here.select(going)
            rows, step, direction = rows[going], step[going], direction[going]
        trial = (here.multiplier + step[:, None] * direction).clamp(here.cuts.least, here.cuts.most)
        there = _Dual(here.center, here.cuts, here.low, here.high, trial)
        promise = (here.slope * (trial - here.multiplier)).sum(1)
        # Below rounding the dual tells nothing, its slope still does.
        level = promise <= here.noise
        rises = there.value >= here.value + _SUFFICIENT * promise
        rises = torch.where(level, there.unmet() < 0.5 * here.unmet(), rises)
        here = here.replaced(there, rises)
        step = torch.where(rises, 1.0, torch.where(level, 0.0, step / 4))
        risen = rises.nonzero()[:, 0]
        direction[risen] = here.select(risen).direction()
    answer[rows], multiplier[rows] = here.point, here.multiplier
    return answer, multiplier


@final
class _Dual:
    """The dual at some multipliers: its value, slope and the primal point; every attribute a row a problem."""

    def __init__(self, center: Tensor, cuts: Cuts, low: Tensor, high: Tensor, multiplier: Tensor) -> None:
        self.center, self.cuts, self.low, self.high, self.multiplier = center, cuts, low, high, multiplier
        wish = center - torch.bmm(multiplier[:, None], cuts.normal)[:, 0]
        self.point = wish.clamp(low, high)
        self.free = wish == self.point
        reached = torch.bmm(cuts.normal, self.point[:, :, None])[:, :, 0]
        self.slope = reached - cuts.offset
        half_square = (self.point - center).square().sum(1) / 2
        self.value = half_square + (multiplier * self.slope).sum(1)
        size = reached.abs() + cuts.offset.abs()
        self.precision = _ROUNDING * torch.finfo(center.dtype).eps * size
        self.noise = torch.finfo(center.dtype).eps * (half_square + (multiplier.abs() * size).sum(1))

    def open(self) -> Tensor:
        """``(row,)`` bool: some multiplier may still rise or fall to good effect."""
        return self.unmet() > 1.0

    def unmet(self) -> Tensor:
        """``(row,)`` the steepest slope in which a multiplier may move, in units of what rounding makes of it."""
        rising = torch.where(self.multiplier < self.cuts.most, self.slope, 0.0).clamp(min=0.0)
        falling = torch.where(self.multiplier > self.cuts.least, -self.slope, 0.0).clamp(min=0.0)
        return (torch.maximum(rising, falling) / self.precision.clamp(min=torch.finfo(rising.dtype).tiny)).amax(1)

    def direction(self) -> Tensor:
        """The step to where the second-order model is highest between the bounds."""
        normal = self.cuts.normal
        curvature = torch.bmm(normal * self.free[:, None], normal.transpose(1, 2))
        full = normal.square().sum(2)
        # Where all coordinates are at their bounds the curvature is 0: the cut's own length stands in.
        flat = curvature.diagonal(dim1=1, dim2=2) <= 1e-3 * full
        ridge = torch.where(flat, 1e-3, _RIDGE * torch.finfo(normal.dtype).eps) * full
        curvature = curvature + torch.diag_embed(torch.where(full > 0, ridge, 1.0))
        return box_maximum(curvature, self.slope, self.cuts.least - self.multiplier, self.cuts.most - self.multiplier)

    def select(self, index: Tensor) -> _Dual:
        chosen = object.__new__(_Dual)
        for name, value in vars(self).items():
            setattr(chosen, name, value.select(index) if isinstance(value, Cuts) else value[index])
        return chosen

    def replaced(self, other: _Dual, where: Tensor) -> _Dual:
        """The other's rows where ``where``, this one's elsewhere."""
        mixed = object.__new__(_Dual)
        for name, value in vars(self).items():
            new = getattr(other, name)
            if isinstance(value, Tensor) and value is not new:
                value = torch.where(where.reshape(-1, *[1] * (value.ndim - 1)), new, value)
            setattr(mixed, name, value)
        return mixed


def box_maximum(curvature: Tensor, slope: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """The d ``(row, c)`` with least <= d <= most, both sides of 0, that maximises slope . d - d . curvature d / 2,
    for positive definite ``curvature (row, c, c)``."""
    parts = (part.double().cpu().numpy() for part in (curvature, slope, least, most))
    d = torch.from_numpy(_coordinate_ascent(*parts)).to(slope)
    d = torch.where(d > most, most, torch.where(d < least, least, d))
    # Cuts that are nearly parallel converge slowly; where the bounds in force are found, the rest is a linear system.
    free = (d < most) & (d > least)
    held = torch.where(free, 0.0, d)
    system = curvature * (free[:, :, None] & free[:, None]) + torch.diag_embed((~free).to(slope))
    right = torch.where(free, slope - torch.bmm(curvature, held[:, :, None])[:, :, 0], held)
    last = torch.linalg.solve_ex(system, right[:, :, None])[0][:, :, 0].clamp(least, most)
    better = _height(curvature, slope, last) > _height(curvature, slope, d)
    return torch.where(better[:, None], last, d)


def _height(curvature: Tensor, slope: Tensor, d: Tensor) -> Tensor:
    return ((slope - torch.bmm(curvature, d[:, :, None])[:, :, 0] / 2) * d).sum(1)


@njit(cache=True)
def _coordinate_ascent(curvature: np.ndarray, slope: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    n_rows, n_cuts = slope.shape
    d = np.zeros((n_rows, n_cuts))
    for row in range(n_rows):
        steepest = np.abs(slope[row]).max()
        for _ in range(_SWEEPS):
            left = 0.0
            for k in range(n_cuts):
                rest = slope[row, k]
                for other in range(n_cuts):
                    rest -= curvature[row, k, other] * d[row, other]
                before = d[row, k]
                d[row, k] = min(max(before + rest / curvature[row, k, k], least[row, k]), most[row, k])
                left = max(left, abs(d[row, k] - before) * curvature[row, k, k])
            if not left > _INEXACT * steepest:
                break
    return d
