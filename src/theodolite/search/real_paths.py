"""Paths between points of a real space: their geometry, and the highest energy on them.

A path is a polygon, ``(pair, point, *shape)`` for many at once. Its barrier is the highest energy on the polygon
itself, between its points too: only that is an upper bound of the barrier between its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field

__all__ = [
    "PathTop",
    "between",
    "linear_path",
    "path_barrier",
    "path_length",
    "pin_barrier",
    "resample",
    "sample_path",
    "stack_paths",
    "subdivide",
]

_ROUNDS = 16
_MOST_NUMBERS = 1 << 24  # coordinates of sampled points held at a time (128 MiB)
_PROBES = 8  # a round narrows a bracket to 2/9 of itself


@final
@dataclass(frozen=True)
class PathTop:
    """The highest point of each path: ``energy`` ``(pair,)``, ``point`` ``(pair, *shape)``, and the ``segment``
    ``(pair,)`` it lies on, counted from 0."""

    energy: Tensor
    point: Tensor
    segment: Tensor


def linear_path(start: Tensor, end: Tensor, n_points: int) -> Tensor:
    """Straight paths ``(pair, n_points, *shape)`` float64 from ``start`` to ``end``, each ``(pair, *shape)``.

    Raises UserError: fewer than 2 points, or shapes that differ.
    """
    if n_points < 2:
        raise UserError("n_points", "at least 2", str(n_points), "a path has two ends")
    if start.shape != end.shape:
        raise UserError("end", f"shape {tuple(start.shape)}", f"shape {tuple(end.shape)}", "one end for each start")
    share = torch.linspace(0.0, 1.0, n_points, dtype=torch.float64).reshape(1, -1, *[1] * (start.ndim - 1))
    start, end = start.double()[:, None], end.double()[:, None]
    return between(start, end, share)


def between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The points at ``share`` in [0, 1] of the way, exactly the ends at 0 and 1, and never beyond either.

    Rounding may otherwise carry a point between two points of a wall through the wall.
    """
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    return torch.minimum(torch.maximum(start * (1.0 - share) + end * share, low), high)


def stack_paths(paths: list[Tensor]) -> Tensor:
    """Paths of any lengths ``(point, *shape)`` as one ``(pair, longest, *shape)``; the last point fills up."""
    longest = max(len(path) for path in paths)
    return torch.stack([torch.cat((path, path[-1:].expand(longest - len(path), *path.shape[1:]))) for path in paths])


def path_length(path: Tensor) -> Tensor:
    """Euclidean length ``(pair,)`` of each polygon."""
    return (path[:, 1:] - path[:, :-1]).flatten(2).norm(dim=2).sum(1)


def resample(path: Tensor, n_points: int) -> Tensor:
    """The same polygons with ``n_points`` points at equal arc length, ``(pair, n_points, *shape)``; ends kept."""
    share = torch.linspace(0.0, 1.0, n_points, dtype=path.dtype).expand(len(path), -1)
    points = _at_share(path, share)
    # Rounding would let the ends creep when a string is laid out again and again.
    return torch.cat((path[:, :1], points[:, 1:-1], path[:, -1:]), 1)


def _at_share(path: Tensor, share: Tensor) -> Tensor:
    """Points ``(pair, k, *shape)`` at ``share`` ``(pair, k)`` in [0, 1] of each polygon's length."""
    flat = path.flatten(2)
    length = (flat[:, 1:] - flat[:, :-1]).norm(dim=2)
    reached = torch.cat((torch.zeros_like(length[:, :1]), length.cumsum(1)), 1)
    place = share * reached[:, -1:]
    segment = (torch.searchsorted(reached, place.contiguous(), right=True) - 1).clamp(0, length.shape[1] - 1)
    within = (place - reached.gather(1, segment)) / length.gather(1, segment).clamp(min=1e-300)
    return _on_segments(flat, segment, within.clamp(0.0, 1.0)).reshape(len(path), -1, *path.shape[2:])


def _on_segments(flat: Tensor, segment: Tensor, within: Tensor) -> Tensor:
    """Points ``(pair, k, dim)`` at ``within`` in [0, 1] of ``segment``, both ``(pair, k)``."""
    index = segment[..., None].expand(-1, -1, flat.shape[2])
    left, right = flat.gather(1, index), flat.gather(1, index + 1)
    return between(left, right, within[..., None])


def subdivide(path: Tensor, longest: float) -> Tensor:
    """The same polygon ``(points, *shape)`` with points added until no segment is longer than ``longest``."""
    pieces = ((path[1:] - path[:-1]).flatten(1).norm(dim=1) / longest).ceil().long().clamp(min=1)
    segment = torch.repeat_interleave(torch.arange(len(pieces)), pieces)
    first = torch.repeat_interleave(pieces.cumsum(0) - pieces, pieces)
    share = (torch.arange(len(segment)) - first).double() / pieces[segment]
    inner = between(path[segment], path[segment + 1], share.reshape(-1, *[1] * (path.ndim - 1)))
    return torch.cat((inner, path[-1:]))


def sample_path(field: Field, path: Tensor, samples: int = 8) -> Tensor:
    """Energies ``(pair, (point - 1) * samples + 1)`` at the points and ``samples - 1`` places between each two."""
    if samples < 1:
        raise UserError("samples", "at least 1 a segment", str(samples), "8 is a good choice")
    n_segments = path.shape[1] - 1
    index = torch.arange(n_segments * samples + 1)
    segment = (index // samples).clamp(max=n_segments - 1)
    within = (index - segment * samples).double() / samples
    # Long paths of large points would not fit into memory all at once.
    rows = max(1, _MOST_NUMBERS // max(1, len(index) * field.space.n_coordinates))
    parts = []
    for part in path.double().flatten(2).split(rows) if len(path) else ():
        points = _on_segments(part, segment.expand(len(part), -1), within.expand(len(part), -1))
        parts.append(field.value(points.reshape(-1, *path.shape[2:])).reshape(len(part), -1))
    return torch.cat(parts) if parts else torch.empty(0, len(index), dtype=torch.float64)


def path_barrier(field: Field, path: Tensor, samples: int = 8) -> Tensor:
    """Highest energy ``(pair,)`` on each densely sampled path ``(pair, point, *shape)``."""
    return sample_path(field, path, samples).amax(1)


def pin_barrier(field: Field, path: Tensor, samples: int = 8, tolerance: float = 1e-8) -> PathTop:
    """The maximum of the energy on each polygon, pinned to ``tolerance`` energy units.

    Every sampled local maximum that can still be the highest, judged by the drop to its neighbours, is bracketed and
    narrowed. A spike narrower than a segment's ``samples`` is not seen.
    """
    energy = sample_path(field, path, samples)
    n, count = energy.shape
    if n == 0:
        return PathTop(energy.new_empty(0), path.double()[:, 0], torch.empty(0, dtype=torch.long))
    flat = path.flatten(2).double()
    padded = torch.nn.functional.pad(energy, (1, 1), value=-torch.inf)
    left, right = padded[:, :-2], padded[:, 2:]
    lowest_side = torch.minimum(
        torch.where(left.isfinite(), left, energy), torch.where(right.isfinite(), right, energy)
    )
    peak = (energy >= left) & (energy >= right)
    candidate = peak & (energy + (energy - lowest_side) >= energy.amax(1, keepdim=True))
    pair, place = candidate.nonzero(as_tuple=True)
    best, best_place = energy[pair, place], place.double()
    low, high = (best_place - 1.0).clamp(min=0.0), (best_place + 1.0).clamp(max=count - 1.0)
    open_rows = torch.arange(len(pair))
    for _ in range(_ROUNDS):
        share = torch.linspace(0.0, 1.0, _PROBES + 2, dtype=torch.float64)
        probe = low[open_rows, None] + (high - low)[open_rows, None] * share
        value = field.value(_place_points(flat, pair[open_rows], probe, samples).reshape(-1, *path.shape[2:])).reshape(
            len(open_rows), -1
        )
        top, index = value.max(1)
        better = top > best[open_rows]
        best[open_rows] = torch.where(better, top, best[open_rows])
        best_place[open_rows] = torch.where(better, probe.gather(1, index[:, None])[:, 0], best_place[open_rows])
        low[open_rows] = probe.gather(1, (index - 1).clamp(min=0)[:, None])[:, 0]
        high[open_rows] = probe.gather(1, (index + 1).clamp(max=_PROBES + 1)[:, None])[:, 0]
        sides = torch.minimum(
            value.gather(1, (index - 1).clamp(min=0)[:, None])[:, 0],
            value.gather(1, (index + 1).clamp(max=_PROBES + 1)[:, None])[:, 0],
        )
        open_rows = open_rows[top - sides > tolerance]
        if len(open_rows) == 0:
            break
    highest = torch.full((n,), -torch.inf, dtype=torch.float64).scatter_reduce(0, pair, best, "amax")
    # One candidate a pair: any of those that reach the pair's highest energy.
    winner = torch.zeros(n, dtype=torch.long)
    reaching = (best == highest[pair]).nonzero()[:, 0]
    winner[pair[reaching]] = reaching
    top_place = best_place[winner]
    point = _place_points(flat, torch.arange(n), top_place[:, None], samples)[:, 0]
    segment = (top_place / samples).floor().long().clamp(max=path.shape[1] - 2)
    return PathTop(highest, point.reshape(n, *path.shape[2:]), segment)


def _place_points(flat: Tensor, pair: Tensor, place: Tensor, samples: int) -> Tensor:
    """Points ``(row, k, dim)`` at sample places ``(row, k)`` of the polygons ``pair`` ``(row,)``."""
    along = place / samples
    segment = along.floor().long().clamp(0, flat.shape[1] - 2)
    within = (along - segment)[..., None]
    start, stop = flat[pair[:, None], segment], flat[pair[:, None], segment + 1]
    return between(start, stop, within)
