"""How far an input is at least from any point where a margin is lost, by tightening over the cap where it can be.

A counterexample within radius e satisfies the linear bound of its own margin, slope . d + constant <= 0. So it lies in
a cap of the ball, over which the arguments of all activations have narrower intervals, which give a better linear
bound, and so on; an empty cap proves that there is no counterexample within e. Intervals found for a radius hold for
every smaller one. Only proven ends are compared: a search for multipliers that stops early gives wider intervals,
never an empty cap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.linear_bounds import Caps, Intervals, LinearBound, LinearBounds, Surroundings

_HALVINGS = 18
_OUTWARD = 1.0 - 1e-12  # of a radius: for the rounding of distances


@final
@dataclass(frozen=True)
class CapSearch:
    """``tolerance``: stop when the proven radius is within it of the least that fails, relatively; ``rounds`` of
    tightening at a radius, ended when a round's gain falls below ``least_gain`` of what is missing (0 rounds: plain
    linear bounds); at most ``radii`` are tried; None ``seconds`` is no limit.
    """

    tolerance: float = 0.003
    rounds: int = 40
    least_gain: float = 0.002
    radii: int = 14
    seconds: float | None = None


def proven_distances(
    graph: LayerGraph,
    surroundings: Surroundings,
    rows: Tensor,
    upper: float,
    search: CapSearch,
    known: Tensor | None = None,
) -> Tensor:
    """``(margin,)``: within less than this of the centre, in the norm of ``surroundings``, ``rows (margin, K)`` .
    outputs stays above 0; at most ``upper``, the radius searched. What is not proven is 0. ``known (margin,)``:
    such distances proven before, from which the search goes on.

    The margins stand together for the untargeted question: once the least is settled the others are left as they are.
    """
    lower = torch.zeros(len(rows), dtype=torch.float64) if known is None else known.clone()
    if not upper > 0:
        return lower
    clock = _Clock(search.seconds, time.monotonic())
    bounds = LinearBounds(graph, surroundings, upper)
    first = bounds.intervals(Caps(torch.tensor([upper], dtype=torch.float64)))
    everyone = torch.arange(len(rows))
    failing = _Failing(everyone, first.select(torch.zeros_like(everyone)))
    least_failing, radius = upper, upper
    for _ in range(search.radii):
        failing_here = _tighten(bounds, rows, radius, failing.without(lower >= radius), lower, search, clock)
        if len(failing_here.margin):
            failing, least_failing = failing_here, radius
        proven = float(lower.min())
        if proven >= least_failing * (1 - search.tolerance) or clock.late():
            break
        radius = (proven + least_failing) / 2
    return lower * _OUTWARD


@dataclass(frozen=True)
class _Clock:
    seconds: float | None
    started: float

    def late(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.started > self.seconds


@dataclass(frozen=True)
class _Failing:
    """Margins not yet proven at some radius, with the intervals that their counterexamples within it must keep."""

    margin: Tensor
    intervals: Intervals

    def select(self, keep: Tensor) -> _Failing:
        index = keep.nonzero()[:, 0]
        return _Failing(self.margin[index], self.intervals.select(index))

    def without(self, proven: Tensor) -> _Failing:
        return self.select(~proven[self.margin])


def _tighten(
    bounds: LinearBounds,
    rows: Tensor,
    radius: float,
    failing: _Failing,
    lower: Tensor,
    search: CapSearch,
    clock: _Clock,
) -> _Failing:
    """Raises ``lower`` in place as far as the cap allows; what is left fails at ``radius``."""
    missing = torch.inf
    for round_number in range(search.rounds + 1):
        if not len(failing.margin):
            break
        caps = Caps(torch.full((len(failing.margin),), radius, dtype=torch.float64))
        if search.rounds == 0:
            failing = _Failing(failing.margin, bounds.intervals(caps, failing.intervals))
        bound = bounds.margins(rows[failing.margin], torch.arange(len(failing.margin)), failing.intervals)
        value = bounds.lowest(bound, torch.arange(len(failing.margin)), caps)
        certain = value > 0
        reached = torch.where(certain, caps.radius, _reach(bounds, bound, radius))
        lower[failing.margin] = torch.maximum(lower[failing.margin], reached)
        remaining = (~certain).nonzero()[:, 0]
        failing, bound = failing.select(~certain), bound.select(remaining)
        left = -float(value[remaining].sum())
        close = bool((lower[failing.margin] >= radius * (1 - search.tolerance)).all())
        stalled = missing - left < search.least_gain * left
        if round_number == search.rounds or close or stalled or clock.late():
            break
        missing = left
        intervals = bounds.intervals(Caps(caps.radius[remaining], bound), failing.intervals)
        empty = intervals.empty()
        lower[failing.margin[empty]] = radius
        failing = _Failing(failing.margin, intervals).select(~empty)
    return failing


def _reach(bounds: LinearBounds, bound: LinearBound, radius: float) -> Tensor:
    """``(row,)``: the largest radius found within which a linear bound stays above 0."""
    near = torch.zeros(len(bound.constant), dtype=torch.float64)
    far = torch.full_like(near, radius)
    own = torch.arange(len(near))
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        above = bounds.lowest(bound, own, Caps(middle), sign_only=True) > 0
        near, far = torch.where(above, middle, near), torch.where(above, far, middle)
    return near
