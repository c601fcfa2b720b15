"""Where searches for ties start: the input itself, and where segments to reference points cross the tie.

A segment to a point where the tied output leads crosses the tie; Yousefzadeh and O'Leary 2019, 'Deep Learning
Interpretation: Flip Points and Homotopy Methods', section 3, start from points of the other class too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theodolite.search.pair_ties import Ties

_ROWS_AT_ONCE = 256  # of distances to all reference points
_POOL = 5  # as many references again as are tried, to draw the more distant half from


def nearest_references(
    inputs: Tensor, points: Tensor, allowed: Tensor, n_kept: int, generator: torch.Generator | None = None
) -> Tensor:
    """Indices ``(row, k)`` into ``points (m, n)`` of those ``allowed (row, m)`` bool nearest to ``inputs (row, n)``,
    -1 where there are fewer. With a generator the farther half is drawn from a pool of the nearest."""
    n_pool = min(len(points), n_kept * (_POOL if generator is not None else 1))
    n_kept = min(n_kept, len(points))
    n_near = (n_kept + 1) // 2
    # One draw for all rows, so that none depends on the others.
    draw = None if generator is None else torch.rand(n_pool - n_near, generator=generator)
    chosen = []
    for part, may in zip(inputs.split(_ROWS_AT_ONCE), allowed.split(_ROWS_AT_ONCE), strict=True):
        distance, index = torch.cdist(part, points).masked_fill(~may, torch.inf).topk(n_pool, dim=1, largest=False)
        index = torch.where(torch.isfinite(distance), index, -1)
        if draw is not None:
            missing_last = draw + 2.0 * (index[:, n_near:] < 0)
            far = index[:, n_near:].gather(1, missing_last.argsort(1))
            index = torch.cat((index[:, :n_near], far), 1)
        chosen.append(index[:, :n_kept])
    return torch.cat(chosen)


def crossings(ties: Ties, start: Tensor, end: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """Points ``(row, n)`` near where the gaps change sign between ``start`` and ``end``, and how good they are.

    The second result ``(row,)`` is smaller the better: the length from the start, longer by what other outputs lead
    there, as the gap's mean slope turns outputs into lengths; inf where the segment crosses nothing. ``n_steps``
    units and two more.
    """
    move = end - start
    # Several gaps: their mean is halved, the search sees to the rest.
    negative = ties.gaps(ties.outputs_at(start)).mean(1)
    output = ties.outputs_at(end)
    positive, lead = ties.gaps(output).mean(1), ties.excesses(output).amax(1)
    crosses = (negative * positive <= 0) & torch.isfinite(negative) & torch.isfinite(positive)
    slope = (positive - negative).abs().clamp(min=torch.finfo(start.dtype).tiny)
    orientation = torch.where(positive >= negative, 1.0, -1.0).to(start)
    negative, positive = orientation * negative, orientation * positive
    low, high = torch.zeros_like(negative), torch.ones_like(negative)
    for step in range(n_steps):
        # False position first, then halves: outputs of networks bend.
        middle = (low * positive - high * negative) / (positive - negative) if step % 2 == 0 else (low + high) / 2
        middle = torch.where(torch.isfinite(middle), middle, (low + high) / 2).clamp(low, high)
        output = ties.outputs_at(start + middle[:, None] * move)
        gap = orientation * ties.gaps(output).mean(1)
        below = gap < 0
        low, negative = torch.where(below, middle, low), torch.where(below, gap, negative)
        high, positive = torch.where(below, high, middle), torch.where(below, positive, gap)
        lead = torch.where(below, lead, ties.excesses(output).amax(1))
    point = start + high[:, None] * move
    quality = move.norm(dim=1) * (high + lead.clamp(min=0.0) / slope)
    return point, torch.where(crosses & torch.isfinite(quality), quality, torch.inf)
