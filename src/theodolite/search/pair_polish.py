"""Ties made exact in double precision: gaps in [0, 1e-9], every other output strictly below, inside the region.

Newton steps to the nearest point that meets the linearised ties (least change, Yousefzadeh and O'Leary 2019, 'Deep
Learning Interpretation: Flip Points and Homotopy Methods', equation 3 made one-sided); where a kink makes them jump
from side to side, the segment between both sides is halved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.search.flips import FLIP_TOLERANCE
from theodolite.search.pair_quadratic import Cuts, cheapest
from theodolite.search.pair_search import with_equalities
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region

STRICTLY_BELOW = 1e-6  # by which other outputs stay below those that tie
_NEWTON_STEPS = 12
_HALVINGS = 60
_SPARE = 0.1  # share of both tolerances kept: outputs are rounded otherwise in batches of another size
_ROUNDING = 1e-13  # of the numbers an equality adds up
_NEAR = 1e-2  # outputs this close to the base, as a share of the largest output, are kept below by the steps


@final
@dataclass
class Exact:
    """``point (row, n)`` float64, ``residual (row,)`` the largest gap, ``met (row,)`` bool: all conditions hold."""

    point: Tensor
    residual: Tensor
    met: Tensor


def polish(ties: Ties, inputs: Tensor, region: Region, point: Tensor, strictly_below: float = STRICTLY_BELOW) -> Exact:
    """The exact tie near ``point (row, n)``, everything float64. Rows where none is found have ``met`` False."""
    result = Exact(
        point.clamp(region.low, region.high),
        torch.full_like(point[:, 0], torch.nan),
        torch.zeros(len(point), dtype=torch.bool),
    )
    before, behind = torch.full_like(point, torch.nan), torch.full_like(point, torch.nan)
    rows = torch.arange(len(point))
    for step in range(_NEWTON_STEPS):
        some, here = ties.select(rows), result.point[rows]
        output = some.outputs_at(here)
        gaps, excess = some.gaps(output), some.excesses(output).amax(1)
        below = excess <= -(1 + _SPARE) * strictly_below
        met = _within(gaps) & below & _on_equalities(region.select(rows), here)
        result.residual[rows], result.met[rows] = gaps.amax(1), met
        if ties.n_tied == 1:
            far = gaps[:, 0] >= FLIP_TOLERANCE / 2
            behind[rows[far & below]], before[rows[~far & below]] = here[far & below], here[~far & below]
        going = ~met & torch.isfinite(output).all(1)
        if step == _NEWTON_STEPS - 1 or not bool(going.any()):
            break
        rows = rows[going]
        moved = _newton(
            ties.select(rows), inputs[rows], region.select(rows), here[going], output[going], strictly_below
        )
        result.point[rows] = moved
    left = (~result.met & torch.isfinite(before).all(1) & torch.isfinite(behind).all(1)).nonzero()[:, 0]
    if len(left):
        _halve(ties, region, before, behind, left, strictly_below, result)
    return result


def _within(gaps: Tensor) -> Tensor:
    return ((gaps >= _SPARE * FLIP_TOLERANCE) & (gaps <= (1 - _SPARE) * FLIP_TOLERANCE)).all(1)


def _on_equalities(region: Region, point: Tensor) -> Tensor:
    if region.matrix is None or region.offset is None:
        return torch.ones(len(point), dtype=torch.bool)
    size = point.abs() @ region.matrix.abs().T + region.offset.abs()
    return ((point @ region.matrix.T - region.offset).abs() <= _ROUNDING * size).all(1)


def _newton(ties: Ties, inputs: Tensor, region: Region, point: Tensor, output: Tensor, strictly_below: float) -> Tensor:
    excess = ties.excesses(output)
    window = _NEAR * output.abs().amax(1, keepdim=True) + strictly_below
    wanted = excess > -window
    n_slots = int(wanted.sum(1).max())
    highest, other = torch.where(wanted, excess, -torch.inf).topk(n_slots, dim=1)
    other = torch.where(highest > -torch.inf, other, -1)
    output, gradient = ties.rows_at(point, other)
    n_tied = ties.n_tied
    # The middle of the tolerance, so that rounding falls on neither side.
    target = torch.cat(
        (
            torch.full_like(gradient[:, :n_tied, 0], FLIP_TOLERANCE / 2),
            torch.full_like(other, -2.0 * strictly_below, dtype=point.dtype),
        ),
        1,
    )
    value = torch.cat((ties.gaps(output), ties.excesses(output).gather(1, other.clamp(min=0))), 1)
    norm = gradient.norm(dim=2).clamp(min=torch.finfo(point.dtype).tiny ** 0.5)
    normal = gradient / norm[:, :, None]
    # About the point itself: differences of large numbers would cost the last digits.
    need = (target - value) / norm
    there = torch.cat((torch.ones_like(target[:, :n_tied], dtype=torch.bool), other >= 0), 1)
    dear = 1e6 * ((value - target).abs() / norm).amax(1, keepdim=True).expand_as(target)
    most = torch.where(there, dear, 0.0)
    least = torch.cat((-most[:, :n_tied], torch.zeros_like(most[:, n_tied:])), 1)
    shifted = Region(region.low - point, region.high - point, region.norm, region.matrix, region.offset)
    if region.matrix is not None and region.offset is not None:
        shifted = Region(shifted.low, shifted.high, region.norm, region.matrix, region.offset - point @ region.matrix.T)
    cuts = with_equalities(Cuts(normal, torch.where(there, need, 0.0), least, most), shifted)
    move, _ = cheapest(torch.zeros_like(point), cuts, shifted.low, shifted.high, torch.zeros_like(cuts.offset))
    return (point + move).clamp(region.low, region.high)


def _halve(
    ties: Ties,
    region: Region,
    before: Tensor,
    behind: Tensor,
    rows: Tensor,
    strictly_below: float,
    result: Exact,
) -> None:
    some = ties.select(rows)
    near, far = before[rows], behind[rows]
    low, high = region.low[rows], region.high[rows]
    for _ in range(_HALVINGS):
        middle = ((near + far) / 2).clamp(low, high)
        behind_it = some.gaps(some.outputs_at(middle))[:, 0] >= FLIP_TOLERANCE / 2
        far = torch.where(behind_it[:, None], middle, far)
        near = torch.where(behind_it[:, None], near, middle)
    output = some.outputs_at(far)
    gap = some.gaps(output)[:, 0]
    met = _within(gap[:, None]) & (some.excesses(output).amax(1) <= -strictly_below)
    met &= _on_equalities(region.select(rows), far)
    result.point[rows], result.residual[rows], result.met[rows] = far, gap, met
