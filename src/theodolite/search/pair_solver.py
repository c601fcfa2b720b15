"""Nearest ties from many starts: ranked, searched with ever fewer survivors, made exact.

The problem is equations 1-3 of Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy
Methods'; their section 3 observes many local minima, hence the starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search import pair_search
from theodolite.search.flips import FLIP_TOLERANCE
from theodolite.search.pair_polish import STRICTLY_BELOW, polish
from theodolite.search.pair_starts import crossings
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region, hull

_SAME = 0.2  # of its distance, within which two points are on their way to the same tie
_UNRESOLVED = 100.0  # roundings of an input
_NUMBERS_AT_ONCE = 6e7  # held in gradients; more problems are worked on in blocks


@final
@dataclass(frozen=True)
class PairEffort:
    """How much is spent on one tie.

    ``n_references`` segments are ranked, ``n_crossings`` of them searched from, besides the input and ``n_jitters``
    random points around it. ``steps`` of each round, and how many starts ``keep`` goes on with in it. ``n_slots``
    outputs are linearised beside those that tie; ``bisections`` of a segment. ``random``: draw the farther half of
    the references at random.
    """

    n_references: int
    n_crossings: int
    n_jitters: int
    steps: tuple[int, ...]
    keep: tuple[int, ...]
    n_slots: int = 3
    bisections: int = 5
    random: bool = False


EFFORTS = {
    "quick": PairEffort(8, 2, 0, (6, 12), (3, 1), n_slots=4),
    "regular": PairEffort(8, 4, 4, (14, 20, 60), (9, 4, 2)),
    "thorough": PairEffort(40, 16, 4, (12, 30, 120), (21, 12, 6), 8, 6, True),
}
RETRY = PairEffort(40, 20, 2, (12, 40, 80), (23, 8, 4), 8, 8)  # for what a smaller effort has not found


@final
@dataclass
class TiePoints:
    """A row a search: ``point (row, n)`` float64 (NaN: none), ``distance (row,)`` (inf: none), ``residual (row,)``
    the largest gap."""

    point: Tensor
    distance: Tensor
    residual: Tensor

    def put(self, index: Tensor, part: TiePoints) -> None:
        """Replace the rows of ``index``."""
        self.point[index], self.distance[index], self.residual[index] = part.point, part.distance, part.residual


Segments = Callable[[Ties, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def effort_of(effort: str) -> PairEffort:
    """The settings of a named effort. Raises UserError for another name."""
    if effort not in EFFORTS:
        raise UserError("effort", " or ".join(EFFORTS), repr(effort), "regular is the default")
    return EFFORTS[effort]


def checked_region(region: Region | None, outputs: Outputs, inputs: Tensor) -> Region:
    """The region in double precision; the hull where none is given.

    Raises UserError for inputs that are not ``(row, n)``, another norm than L2, or a region of other rows.
    """
    if inputs.ndim != 2 or inputs.shape[1] != outputs.n_coordinates:
        raise UserError(
            "inputs", f"points (row, {outputs.n_coordinates})", f"{tuple(inputs.shape)}", "flatten each point"
        )
    region = hull(outputs, len(inputs)) if region is None else region.to(torch.float64)
    if region.norm != "L2":
        raise UserError("region", "the norm L2", region.norm, "ties of given classes are searched in L2 only")
    if region.low.shape != inputs.shape:
        raise UserError("region", f"bounds {tuple(inputs.shape)}", f"{tuple(region.low.shape)}", "one row an input")
    return region


def nearest_ties(
    ties: Ties,
    exact: Outputs,
    inputs: Tensor,
    region: Region,
    segments: Segments,
    effort: PairEffort,
    generator: torch.Generator,
    *,
    strictly_below: float = STRICTLY_BELOW,
) -> TiePoints:
    """The nearest tie found for each row of ``ties``; ``inputs`` and ``region`` in float64.

    ``segments(ties, inputs, generator) -> start, end``, each ``(row, s, n)``, cross the ties somewhere; NaN where there
    is none.
    """
    n_rows, n = inputs.shape
    found = TiePoints(
        torch.full_like(inputs, torch.nan),
        torch.full((n_rows,), torch.inf, dtype=torch.float64),
        torch.full((n_rows,), torch.nan, dtype=torch.float64),
    )
    n_starts = 1 + effort.n_crossings + effort.n_jitters
    block = max(1, int(_NUMBERS_AT_ONCE / (n * n_starts * (ties.n_tied + effort.n_slots + 3))))
    # Every block starts from the same seed, so that no row depends on the others.
    seed = int(torch.randint(2**62, (), generator=generator))
    for rows in torch.arange(n_rows).split(block):
        generator = torch.Generator().manual_seed(seed)
        part, some, where = ties.select(rows), inputs[rows], region.select(rows)
        found.point[rows], found.distance[rows], found.residual[rows] = _block(
            part, exact, some, where, segments, effort, generator, strictly_below
        )
    return found


def _block(
    ties: Ties,
    exact: Outputs,
    inputs: Tensor,
    region: Region,
    segments: Segments,
    effort: PairEffort,
    generator: torch.Generator,
    strictly_below: float,
) -> tuple[Tensor, Tensor, Tensor]:
    doubled = ties.through(exact)
    point = torch.full_like(inputs, torch.nan)
    distance = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
    residual = torch.full((len(inputs),), torch.nan, dtype=torch.float64)
    output = doubled.outputs_at(inputs)
    gaps = doubled.gaps(output)
    already = (gaps >= 0).all(1) & (gaps <= FLIP_TOLERANCE).all(1) & region.contains(inputs, FLIP_TOLERANCE)
    already &= doubled.excesses(output).amax(1) <= -strictly_below
    point[already], distance[already], residual[already] = inputs[already], 0.0, gaps[already].amax(1)
    rows = (~already & torch.isfinite(output).all(1)).nonzero()[:, 0]
    if len(rows) == 0:
        return point, distance, residual
    some, here, where = ties.select(rows), inputs[rows], region.select(rows)
    candidate, promised = _search(some, here, where, segments, effort, generator)
    # So near a tie the single precision of a candidate is longer than the way; the exact step from the input is not.
    unresolved = promised <= _UNRESOLVED * torch.finfo(ties.outputs.dtype).eps * here.norm(dim=1, keepdim=True)
    candidate = torch.where(unresolved[:, :, None], here[:, None], candidate)
    for k in range(candidate.shape[1]):
        open_rows = (~torch.isfinite(distance[rows]) & torch.isfinite(promised[:, k])).nonzero()[:, 0]
        if len(open_rows) == 0:
            continue
        exact_points = polish(
            doubled.select(rows[open_rows]),
            here[open_rows],
            where.select(open_rows),
            candidate[open_rows, k],
            strictly_below,
        )
        met = exact_points.met
        into = rows[open_rows[met]]
        point[into], residual[into] = exact_points.point[met], exact_points.residual[met]
        distance[into] = (point[into] - inputs[into]).norm(dim=1)
    return point, distance, residual


def _search(
    ties: Ties,
    inputs: Tensor,
    region: Region,
    segments: Segments,
    effort: PairEffort,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Candidates ``(row, k, n)`` float64, the most promising first, and their distances ``(row, k)``."""
    dtype = ties.outputs.dtype
    narrow = region.to(dtype)
    x0 = inputs.to(dtype)
    n_rows, n = x0.shape
    starts, within = _starts(ties, x0, narrow, segments, effort, generator)
    n_starts = starts.shape[1]
    row = torch.arange(n_rows).repeat_interleave(n_starts)
    present = torch.isfinite(starts).all(2).flatten()
    row, start = row[present], starts.flatten(0, 1)[present]
    state = pair_search.begin(ties.select(row), x0[row], narrow.select(row), start, effort.n_slots, within[row])
    banked_points, banked_distances, banked_rows = [], [], []
    for n_steps, n_kept in zip(effort.steps, effort.keep, strict=True):
        promised = _distinct(row, state.point, state.length, pair_search.promise(ties.select(row), state))
        kept = _most_promising(row, promised, n_kept)
        gone = torch.ones(len(row), dtype=torch.bool)
        gone[kept] = False
        banked_points.append(state.best_point[gone])
        banked_distances.append(state.best_distance[gone])
        banked_rows.append(row[gone])
        row, state = row[kept], state.select(kept)
        pair_search.advance(ties.select(row), x0[row], narrow.select(row), state, n_steps)
    banked_points.append(state.best_point)
    banked_distances.append(state.best_distance)
    banked_rows.append(row)
    return _ranked(torch.cat(banked_rows), torch.cat(banked_points), torch.cat(banked_distances), n_rows, 3)


def _starts(
    ties: Ties,
    x0: Tensor,
    region: Region,
    segments: Segments,
    effort: PairEffort,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Starts ``(row, s, n)``, NaN where there is none; and a length ``(row,)`` within which a tie may be expected."""
    n_rows, n = x0.shape
    starts = [region.nearest(x0, x0)[:, None]]
    within = torch.full_like(x0[:, 0], torch.inf)
    start, end = segments(ties, x0, generator)
    n_segments = start.shape[1]
    if n_segments:
        row = torch.arange(n_rows).repeat_interleave(n_segments)
        start, end = start.flatten(0, 1), end.flatten(0, 1)
        present = torch.isfinite(end).all(1) & torch.isfinite(start).all(1)
        point = torch.full_like(start, torch.nan)
        quality = torch.full_like(start[:, 0], torch.inf)
        point[present], quality[present] = crossings(
            ties.select(row[present]), start[present], end[present], effort.bisections
        )
        # What counts is the distance from the input, wherever the segment starts.
        quality = quality + (point - x0[row]).norm(dim=1) - (point - start).norm(dim=1)
        quality = torch.where(torch.isfinite(quality), quality, torch.inf).reshape(n_rows, n_segments)
        best, order = quality.topk(min(effort.n_crossings, n_segments), dim=1, largest=False)
        chosen = point.reshape(n_rows, n_segments, n).gather(1, order[:, :, None].expand(-1, -1, n))
        chosen = torch.where(torch.isfinite(best)[:, :, None], chosen, torch.nan)
        starts.append(chosen)
        within = quality.amin(1)
    if effort.n_jitters:
        starts.append(_jittered(ties, x0, region, within, effort.n_jitters, generator))
    return torch.cat(starts, 1), within


def _jittered(
    ties: Ties, x0: Tensor, region: Region, within: Tensor, n_jitters: int, generator: torch.Generator
) -> Tensor:
    """Points around the input, up to a few times as far as a tie may be expected."""
    begun = pair_search.begin(ties, x0, region, x0, 0, within)
    size = torch.where(torch.isfinite(begun.price), begun.price, 0.0)
    noise = torch.randn((n_jitters, x0.shape[1]), generator=generator, dtype=torch.float64).to(x0)
    far = x0[:, None] + noise * (size / x0.shape[1] ** 0.5)[:, None, None]
    return far.clamp(region.low[:, None], region.high[:, None])


def _most_promising(row: Tensor, promised: Tensor, n_kept: int) -> Tensor:
    """Indices of the ``n_kept`` smallest of each row, in the order of the rows."""
    order = promised.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    return order[_rank_within(row[order]) < n_kept]


def _distinct(row: Tensor, point: Tensor, length: Tensor, promised: Tensor) -> Tensor:
    """The promises, inf for a point that is on its way to where a more promising one of its row goes."""
    order = _most_promising(row, promised, len(row))
    place = _rank_within(row[order])
    n_rows, n_places = int(row.max()) + 1, int(place.max()) + 1
    table = point.new_full((n_rows, n_places, point.shape[1]), torch.inf)
    table[row[order], place] = point[order]
    near = torch.cdist(table, table).nan_to_num(nan=torch.inf)[row[order], place]
    earlier = torch.arange(n_places) < place[:, None]
    same = (near < _SAME * length[order, None]) & earlier
    distinct = promised.clone()
    distinct[order[same.any(1)]] = torch.inf
    return distinct


def _rank_within(row: Tensor) -> Tensor:
    """Places 0, 1, ... of sorted rows."""
    place = torch.arange(len(row))
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    return place - torch.where(first, place, 0).cummax(0).values


def _ranked(row: Tensor, point: Tensor, distance: Tensor, n_rows: int, n_kept: int) -> tuple[Tensor, Tensor]:
    kept = _most_promising(row, distance, n_kept)
    place = _rank_within(row[kept])
    points = torch.full((n_rows, n_kept, point.shape[1]), torch.nan, dtype=torch.float64)
    distances = torch.full((n_rows, n_kept), torch.inf, dtype=torch.float64)
    points[row[kept], place] = point[kept].double()
    distances[row[kept], place] = distance[kept].double()
    return points, distances
