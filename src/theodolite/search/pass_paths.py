"""Paths over passes of a real space: from a saddle, or along a band, down to the minima on either side.

A pass's level is the pinned maximum of its own polygon, so it is an upper bound of the barrier whatever the saddle
search or the band have done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.search.minimise import trace_descents
from theodolite.search.real_paths import between, pin_barrier, sample_path, stack_paths, subdivide
from theodolite.search.transition_states import TransitionStates

__all__ = ["Crossings", "band_points", "cross_bands", "cross_saddles", "peaks_and_valleys"]

_PUSH = 0.05  # first step off a saddle, as a share of the reach
_FINEST = 0.25  # longest segment of a kept path, as a share of the reach
_HALVINGS = 12
_FINER = 3  # how often descents that overshoot are repeated with a quarter of the step


@final
@dataclass(frozen=True)
class Crossings:
    """Paths over passes: ``path[i]`` ``(points, *shape)`` runs from one minimum, ``path[i][0]``, to another;
    ``level`` ``(m,)`` is the highest energy on it; ``start_energy`` and ``end_energy`` ``(m,)`` are those of its ends,
    ``source`` ``(m,)`` the row of the saddle or band it came from."""

    path: list[Tensor]
    level: Tensor
    start_energy: Tensor
    end_energy: Tensor
    source: Tensor


def cross_saddles(
    field: Field, saddles: TransitionStates, reach: float, gradient_tolerance: float, tolerance: float = 1e-7
) -> Crossings:
    """Descents to both sides of each saddle, joined.

    Descents take steps of at most ``reach`` (input units); where the polygon rises more than ``tolerance`` over its
    saddle they are repeated with shorter ones.
    """
    n = len(saddles.point)
    paths: list[Tensor] = [saddles.point[row : row + 1] for row in range(n)]
    level = torch.full((n,), torch.inf, dtype=torch.float64)
    ends = torch.zeros(2, n, dtype=torch.float64)
    rows = torch.arange(n)
    for _ in range(_FINER + 1):
        if len(rows) == 0:
            break
        point, energy, along = saddles.point[rows], saddles.energy[rows], saddles.direction[rows]
        pushed = torch.cat([_push_off(field, point, energy, sign * along, reach) for sign in (-1.0, 1.0)])
        down = trace_descents(field, pushed, gradient_tolerance=gradient_tolerance, largest_step=reach)
        half = len(rows)
        joined = [
            subdivide(torch.cat((down.path[i].flip(0), point[i : i + 1], down.path[half + i])), _FINEST * reach)
            for i in range(half)
        ]
        pinned = pin_barrier(field, stack_paths(joined), samples=4).energy
        for i, row in enumerate(rows.tolist()):
            if pinned[i] < level[row]:
                paths[row], level[row] = joined[i], pinned[i]
                ends[:, row] = down.end.energy[[i, half + i]]
        rows = rows[pinned > energy + tolerance]
        reach = 0.25 * reach
    return Crossings(paths, level, ends[0], ends[1], torch.arange(n))


def cross_bands(field: Field, path: Tensor, reach: float, gradient_tolerance: float) -> Crossings:
    """The pieces of each path ``(pair, point, *shape)`` between its low points, with the descents from these.

    The ends of a path are taken for minima; the low points between are followed downhill.
    """
    pieces: list[tuple[int, int, int]] = []
    lows: list[tuple[int, int]] = []
    energy = field.value(path.reshape(-1, *path.shape[2:])).reshape(path.shape[:2])
    valley = peaks_and_valleys(energy)[1]
    last = path.shape[1] - 1
    for row in range(len(path)):
        stops = [0, *(valley[row].nonzero()[:, 0]).tolist(), last]
        pieces += [(row, first, second) for first, second in zip(stops[:-1], stops[1:], strict=True)]
        lows += [(row, stop) for stop in stops[1:-1]]
    below: dict[tuple[int, int], tuple[Tensor, float]] = {}
    for row in range(len(path)):
        below[row, 0] = (path[row, :1], float(energy[row, 0]))
        below[row, last] = (path[row, -1:], float(energy[row, -1]))
    if lows:
        starts = torch.stack([path[row, stop] for row, stop in lows])
        down = trace_descents(field, starts, gradient_tolerance=gradient_tolerance, largest_step=reach)
        for key, trace, bottom in zip(lows, down.path, down.end.energy.tolist(), strict=True):
            below[key] = (trace, bottom)
    paths = [
        subdivide(
            torch.cat((below[row, first][0].flip(0), path[row, first : second + 1], below[row, second][0])),
            _FINEST * reach,
        )
        for row, first, second in pieces
    ]
    if not paths:
        empty = torch.empty(0, dtype=torch.float64)
        return Crossings([], empty, empty, empty, torch.empty(0, dtype=torch.long))
    return Crossings(
        paths,
        pin_barrier(field, stack_paths(paths)).energy,
        torch.tensor([below[row, first][1] for row, first, _ in pieces], dtype=torch.float64),
        torch.tensor([below[row, second][1] for row, _, second in pieces], dtype=torch.float64),
        torch.tensor([row for row, _, _ in pieces]),
    )


def peaks_and_valleys(energy: Tensor) -> tuple[Tensor, Tensor]:
    """Inner local maxima and minima of ``energy`` ``(pair, k)`` along axis 1, both ``(pair, k)`` bool.

    Of a level stretch the last point counts.
    """
    peak, valley = torch.zeros_like(energy, dtype=torch.bool), torch.zeros_like(energy, dtype=torch.bool)
    before, here, after = energy[:, :-2], energy[:, 1:-1], energy[:, 2:]
    peak[:, 1:-1] = (here >= before) & (here > after)
    valley[:, 1:-1] = (here <= before) & (here < after)
    return peak, valley


def band_points(field: Field, path: Tensor, samples: int = 4) -> tuple[Tensor, Tensor]:
    """Highest and lowest points along the paths ``(pair, point, *shape)``, inner local ones, ``(k, *shape)`` each."""
    peak, valley = peaks_and_valleys(sample_path(field, path, samples))
    share = torch.arange(peak.shape[1]) / samples
    segment = share.floor().long().clamp(max=path.shape[1] - 2)
    within = (share - segment).double()

    def points(which: Tensor) -> Tensor:
        pair, place = which.nonzero(as_tuple=True)
        weight = within[place].reshape(-1, *[1] * (path.ndim - 2))
        return between(path[pair, segment[place]], path[pair, segment[place] + 1], weight)

    return points(peak), points(valley)


def _push_off(field: Field, point: Tensor, energy: Tensor, along: Tensor, reach: float) -> Tensor:
    """A point on the way ``along`` from each saddle that is lower than it; where none is found, a very near one."""
    spread = (-1, *[1] * (point.ndim - 1))
    push = torch.full((len(point),), _PUSH * reach, dtype=torch.float64)
    low, high = getattr(field.space, "low", -torch.inf), getattr(field.space, "high", torch.inf)
    for _ in range(_HALVINGS):
        pushed = (point + push.reshape(spread) * along).clamp(low, high)
        high_still = ~(field.value(pushed) < energy)
        if not bool(high_still.any()):
            break
        push = torch.where(high_still, 0.5 * push, push)
    return (point + push.reshape(spread) * along).clamp(low, high)
