"""Points near a decision boundary to start a walk from: towards the easiest classes, and towards known examples."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from theodolite.search.margins import Margins
from theodolite.search.regions import Region

_MOST_CLASSES = 10  # ranked by gradients; of the others only the largest outputs are looked at
_OVERSTEP = 0.02  # of the margin: Newton steps aim this far beyond the boundary


def easiest_classes(margins: Margins, region: Region, x0: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """The classes ``(image, k)`` whose linearised boundary with the own class is nearest to ``x0`` within the region,
    k <= ``n_classes``, and the points ``(image, k, n)`` just beyond these; as many units an image as there are
    classes to compare, and one."""
    n_compared = min(_MOST_CLASSES, margins.outputs.n_outputs - 1)
    own = margins.own
    candidates = torch.zeros((len(x0), n_compared), dtype=torch.int64)

    def weights(output: Tensor, index: Tensor) -> Tensor:
        others = output.scatter(1, own[index, None], -torch.inf).topk(n_compared, 1).indices
        candidates[index] = others
        weight = output.new_zeros((len(index), n_compared, output.shape[1]))
        weight.scatter_(2, others[:, :, None], -1.0)
        return weight.scatter(2, own[index, None, None].expand(-1, n_compared, -1), 1.0)

    output, normal = margins.rows(x0, weights)
    margin = output.gather(1, own[:, None]) - output.gather(1, candidates)
    cut = (normal * x0[:, None]).sum(2) - (1 + _OVERSTEP) * margin
    points = torch.stack([region.project(x0, normal[:, [k]], cut[:, [k]]) for k in range(n_compared)], 1)
    distance = torch.stack([region.distance(x0, points[:, k]) for k in range(n_compared)], 1)
    # What cannot be reached linearly within the region comes last.
    missed = (normal * points).sum(2) - cut > _OVERSTEP * margin
    order = distance.masked_fill(missed, torch.inf).nan_to_num(torch.inf).argsort(dim=1, stable=True)[:, :n_classes]
    return candidates.gather(1, order), points.gather(1, order[:, :, None].expand(-1, -1, x0.shape[1]))


def newton_starts(
    margins: Margins, region: Region, x0: Tensor, largest_move: Tensor, n_steps: int, *, first: Tensor | None = None
) -> Tensor:
    """Points ``(row, n)`` on the far side, or as far as ``n_steps`` of Newton's method led from ``x0``, each projected
    on the region and at most ``largest_move (row,)`` long, in L2; two units a step until a row is there. ``first
    (row, n)``: where the first step leads, if known.

    The method of Moosavi-Dezfooli et al. 2016, "DeepFool", eq. 6-8, inside a region.
    """
    x = x0.clone() if first is None else x0 + _limited(first - x0, largest_move)
    rows = torch.arange(len(x0))
    for _ in range(n_steps if first is None else n_steps - 1):
        margin, gradient = margins.select(rows).value_and_gradient(x[rows])
        rows, margin, gradient = (tensor[margin > 0] for tensor in (rows, margin, gradient))
        if len(rows) == 0:
            break
        cut = (gradient * x[rows]).sum(1) - (1 + _OVERSTEP) * margin
        move = region.select(rows).project(x[rows], gradient[:, None], cut[:, None]) - x[rows]
        x[rows] += _limited(move, largest_move[rows])
    return x


def _limited(move: Tensor, longest: Tensor) -> Tensor:
    length = move.norm(dim=1)
    return torch.where(length > longest, longest / length, 1.0)[:, None] * move


def reference_starts(
    margins: Margins,
    region: Region,
    x0: Tensor,
    reference: tuple[Tensor, Tensor],
    n_tried: int,
    n_kept: int,
    n_halvings: int = 5,
) -> Tensor:
    """Points ``(image, n_kept, n)`` on the segments to the ``n_tried`` nearest reference points of another class (of
    the target, where one is given), halved towards the boundary; NaN where there are too few."""
    points, classes = reference
    wanted = torch.where(
        margins.target[:, None] >= 0, classes == margins.target[:, None], classes != margins.own[:, None]
    )
    distance = _distances(region, x0, points).masked_fill(~wanted, torch.inf)
    near = distance.topk(min(n_tried, len(points)), 1, largest=False)
    n_tried = near.indices.shape[1]
    image = torch.arange(len(x0)).repeat_interleave(n_tried)
    rows, wide, start = margins.select(image), region.select(image), x0[image]
    end = wide.nearest(start, points[near.indices.reshape(-1)].to(x0.dtype))
    usable = torch.isfinite(near.values).reshape(-1)
    inner, outer = x0.new_zeros(len(image)), x0.new_ones(len(image))
    for _ in range(n_halvings):
        middle = (inner + outer) / 2
        beyond = rows.value(start + middle[:, None] * (end - start)) <= 0
        inner, outer = torch.where(beyond, inner, middle), torch.where(beyond, middle, outer)
    found = (start + outer[:, None] * (end - start)).masked_fill(~usable[:, None], torch.nan)
    length = wide.distance(start, found).nan_to_num(torch.inf).reshape(len(x0), n_tried)
    best = length.argsort(dim=1, stable=True)[:, :n_kept]
    found = found.reshape(len(x0), n_tried, -1)
    return found.gather(1, best[:, :, None].expand(-1, -1, found.shape[2]))


def onto_boundary(margins: Margins, x0: Tensor, x: Tensor, n_steps: int) -> Tensor:
    """The boundary's point on the segment from ``x0`` to each ``x (row, n)``, on the far side; x itself where it is
    not beyond. Illinois steps (Dowell and Jarratt, BIT 11, 168 (1971)), every third a halving; a unit each, and two."""
    inner, outer = x0.new_zeros(len(x)), x0.new_ones(len(x))
    inner_margin, outer_margin = margins.value(x0), margins.value(x)
    way = x - x0
    was_beyond = torch.zeros_like(inner, dtype=torch.bool)
    for step in range(n_steps):
        trial = (inner * outer_margin - outer * inner_margin) / (outer_margin - inner_margin)
        usable = torch.isfinite(trial) & (trial >= inner) & (trial <= outer) & (step % 3 != 2)
        trial = torch.where(usable, trial, (inner + outer) / 2)
        margin = margins.value(x0 + trial[:, None] * way)
        beyond = margin <= 0
        pretence = torch.where((beyond == was_beyond) & (step > 0), 0.5, 1.0)
        inner_margin = torch.where(beyond, pretence * inner_margin, margin)
        outer_margin = torch.where(beyond, margin, pretence * outer_margin)
        inner, outer = torch.where(beyond, inner, trial), torch.where(beyond, trial, outer)
        was_beyond = beyond
    return x0 + outer[:, None] * way


def _distances(region: Region, x0: Tensor, points: Tensor) -> Tensor:
    """``(image, m)`` distances to the points, moved into the region where rows of it differ."""
    power = {"L1": 1.0, "L2": 2.0, "Linf": torch.inf}[region.norm]
    points = points.to(x0.dtype)
    same = bool((region.low == region.low[:1]).all()) and bool((region.high == region.high[:1]).all())
    if same:
        return torch.cdist(x0, points.clamp(region.low[:1], region.high[:1]), p=power)
    rows = [
        torch.cdist(x0[row, None], points.clamp(region.low[row], region.high[row]), p=power)[0]
        for row in range(len(x0))
    ]
    return cast(Tensor, torch.stack(rows))
