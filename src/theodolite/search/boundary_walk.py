"""Walk along a decision boundary towards the input: project the input onto the linearised boundary, step, return.

The cuts of the last few boundary points are kept as a bundle, in the manner of Lemarechal's bundle methods (Lemarechal
1975, Math. Programming Study 3, 95), so that a kink of a piecewise linear network is seen from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from theodolite.search.margins import Margins
from theodolite.search.regions import Region

_TRUSTED = 0.02  # share of its length over which a ray's slope is believed; .1 and more lead astray (measured)


@final
@dataclass(frozen=True)
class Walk:
    """``n_cuts`` linearised boundaries are projected onto at once; the step is multiplied by ``growth`` after a
    success and by ``shrinkage`` after a failure, never under ``least_step``. ``reach``: the return to the boundary
    multiplies the distance to the input by at most this, at least by its inverse."""

    n_cuts: int = 4
    growth: float = 1.6
    shrinkage: float = 0.5
    least_step: float = 1e-3
    reach: float = 1.2


@final
@dataclass
class WalkState:
    """A row a search. ``point (row, n)`` near the boundary with its ``margin``, ``gradient`` and ``estimate`` of the
    distance at which its ray meets the boundary; ``step (row,)``; ``normal (row, c, n)``, ``offset (row, c)`` earlier
    cuts (zeros: none); ``bundled``: whether the next step uses them; ``best_point``, ``best_distance``: nearest point
    seen on the far side (inf: none)."""

    point: Tensor
    margin: Tensor
    gradient: Tensor
    estimate: Tensor
    step: Tensor
    normal: Tensor
    offset: Tensor
    bundled: Tensor
    best_point: Tensor
    best_distance: Tensor

    def select(self, index: Tensor) -> WalkState:
        """The rows of ``index``."""
        return WalkState(*(getattr(self, field.name)[index] for field in fields(self)))

    def bank(self, region: Region, x0: Tensor, point: Tensor, margin: Tensor) -> None:
        """Remember points ``(row, n)`` where they are the nearest on the far side."""
        distance = region.distance(x0, point)
        better = (margin <= 0) & (distance < self.best_distance)
        self.best_point = torch.where(better[:, None], point, self.best_point)
        self.best_distance = torch.where(better, distance, self.best_distance)


def start_walk(settings: Walk, margins: Margins, region: Region, x0: Tensor, x: Tensor) -> WalkState:
    """Begin at ``x (row, n)``, at or near the boundary; two units a row."""
    margin, gradient = margins.value_and_gradient(x)
    n_kept = settings.n_cuts - 1
    state = WalkState(
        point=x,
        margin=margin,
        gradient=gradient,
        estimate=_estimate(region, x0, x, margin, gradient),
        step=torch.ones_like(margin),
        normal=x.new_zeros((len(x), n_kept, x.shape[1])),
        offset=x.new_zeros((len(x), n_kept)),
        bundled=torch.ones_like(margin, dtype=torch.bool),
        best_point=x,
        best_distance=torch.full_like(margin, torch.inf),
    )
    state.bank(region, x0, x, margin)
    return state


def walk(settings: Walk, margins: Margins, region: Region, x0: Tensor, state: WalkState, n_steps: int) -> WalkState:
    """``n_steps`` steps of every row, three units each. Points stay in ``region``, and rows whose function gives no
    finite numbers stay where they are. ``x0 (row, n)`` lies in the region."""
    for _ in range(n_steps):
        state = _step(settings, margins, region, x0, state)
    return state


def _step(settings: Walk, margins: Margins, region: Region, x0: Tensor, state: WalkState) -> WalkState:
    x, gradient = state.point, state.gradient
    cut = (gradient * x).sum(1) - state.margin
    # A cut that the present point violates belongs to another piece of a boundary that bends away.
    excess = torch.einsum("rcn,rn->rc", state.normal, x) - state.offset
    length = (x - x0).norm(dim=1, keepdim=True)
    kept = (excess <= 1e-3 * gradient.norm(dim=1, keepdim=True) * length) & state.bundled[:, None]
    normal = torch.cat((gradient[:, None], state.normal * kept[:, :, None]), 1)
    offset = torch.cat((cut[:, None], state.offset * kept), 1)
    several = kept & (state.normal != 0).any(2)
    target = region.project(x0, normal, offset)

    trial = x + state.step[:, None] * (target - x)
    trial_margin = margins.value(trial)
    state.bank(region, x0, trial, trial_margin)
    ray = trial - x0
    factor = 1 - trial_margin / (gradient * ray).sum(1)
    falling = ((gradient * ray).sum(1) < 0) & torch.isfinite(factor)
    factor = torch.where(falling, factor.clamp(1 / settings.reach, settings.reach), 1.0)
    new = region.nearest(x0, x0 + factor[:, None] * ray)
    new_margin, new_gradient = margins.value_and_gradient(new)
    state.bank(region, x0, new, new_margin)
    estimate = _estimate(region, x0, new, new_margin, new_gradient)

    accepted = estimate < state.estimate * (1 - 1e-7)
    column = accepted[:, None]
    # After a success the cut left behind is kept, after a failure that of the refused point: a null step.
    new_cut = (new_gradient * new).sum(1) - new_margin
    finite = torch.isfinite(new_cut)
    memory = torch.where(column, gradient, torch.where(finite[:, None], new_gradient, 0.0))
    memory_offset = torch.where(accepted, cut, torch.where(finite, new_cut, 0.0))
    shorter = torch.where(several.any(1), state.step, (settings.shrinkage * state.step).clamp(min=settings.least_step))
    return WalkState(
        point=torch.where(column, new, x),
        margin=torch.where(accepted, new_margin, state.margin),
        gradient=torch.where(column, new_gradient, gradient),
        estimate=torch.where(accepted, estimate, state.estimate),
        step=torch.where(accepted, (settings.growth * state.step).clamp(max=1.0), shorter),
        normal=torch.cat((memory[:, None], normal[:, 1:]), 1)[:, : state.normal.shape[1]],
        offset=torch.cat((memory_offset[:, None], offset[:, 1:]), 1)[:, : state.offset.shape[1]],
        bundled=torch.where(accepted, state.bundled, ~state.bundled),
        best_point=state.best_point,
        best_distance=state.best_distance,
    )


def _estimate(region: Region, x0: Tensor, x: Tensor, margin: Tensor, gradient: Tensor) -> Tensor:
    """Distance at which the ray from ``x0`` through ``x`` meets the linearised boundary, inf where that is far from
    x on the own side. The slope is trusted for a short way only: promises of a much nearer boundary that nobody has
    seen would hold a walk on curved boundaries fast where they were made."""
    ray = x - x0
    gain = gradient * ray
    # Onwards, what has come to an edge of the box stays there.
    held = ((ray > 0) & (x >= region.high)) | ((ray < 0) & (x <= region.low))
    back, onwards = -margin / gain.sum(1), -margin / gain.masked_fill(held, 0.0).sum(1)
    outside = torch.where(back <= 0, back.clamp(min=-_TRUSTED), 0.0)
    inside = torch.where((onwards >= 0) & (onwards <= _TRUSTED), onwards, torch.inf)
    return region.distance(x0, x) * (1 + torch.where(margin <= 0, outside, inside))
