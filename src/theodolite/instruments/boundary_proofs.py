"""How close a flip point can be: the lower bounds of a survey, by the certificate its settings name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.boundary_task import BoundaryTask
from theodolite.instruments.bounds.certificates import distance_lower_bounds
from theodolite.instruments.bounds.exact_boundary import exact_flips
from theodolite.instruments.bounds.linear_programs import exact_linf_flips
from theodolite.search.flips import FLIP_TOLERANCE, Flips, no_flips

NONE = "none"
_EXACT = {"L2": (exact_flips, "branch and bound"), "Linf": (exact_linf_flips, "integer program")}


@final
@dataclass(frozen=True)
class Bounds:
    """``lower (image,)`` float64: no flip point is nearer, 0 where nothing is proven, inf where there is none at all;
    ``by_class (image, class)`` the same for the flips to each class; ``method``: what proves it, an image each;
    ``flips``: those that a proof met on its way, None of proofs that meet none."""

    lower: Tensor
    by_class: Tensor
    method: tuple[str, ...]
    flips: Flips | None = None


def no_bounds(n_images: int, n_classes: int) -> Bounds:
    """Nothing is proven."""
    nothing = torch.zeros(n_images, dtype=torch.float64)
    return Bounds(nothing, nothing[:, None].repeat(1, n_classes), (NONE,) * n_images)


def certify(task: BoundaryTask, rows: Tensor, upper: Tensor, method: str, seconds: float | None) -> Bounds:
    """Bounds of the images ``rows``, within ``upper`` of which flip points are known.

    ``upper`` is ``(image,)``, or ``(image, class)`` with a distance of its own for every class, which takes much
    longer: classes of one limit are proven together.

    They hold for the whole space: that a user's constraints leave out a part of it makes them no less true.
    ``seconds``: about how long for each image, or None.
    """
    inputs, own = task.points[rows].reshape(len(rows), *task.network.space.shape), task.own[rows]
    if method == "exact":
        return _exactly(task, rows)
    proven = distance_lower_bounds(task.network, inputs, own, upper, norm=task.norm, method=method, seconds=seconds)
    return Bounds(proven.distance, proven.by_class.nan_to_num(0.0, torch.inf), tuple(proven.method))


def _exactly(task: BoundaryTask, rows: Tensor) -> Bounds:
    own = task.own[rows]
    solve, name = _EXACT[task.norm]
    found = solve(task.network, task.points[rows].reshape(len(rows), *task.network.space.shape), own)
    flips = no_flips(len(rows), task.points.shape[1])
    some = (found.target >= 0).nonzero()[:, 0] if task.rules is None else torch.empty(0, dtype=torch.int64)
    if len(some):
        output = task.exact.value(found.point[some])
        other = found.target[some]
        residual = (output.gather(1, other[:, None]) - output.gather(1, own[some, None]))[:, 0]
        met = (residual >= 0) & (residual <= FLIP_TOLERANCE)
        some = some[met]
        flips.point[some], flips.distance[some] = found.point[some], found.distance[some]
        flips.target[some], flips.residual[some] = other[met], residual[met]
    by_class = found.lower_bound[:, None].repeat(1, task.n_classes)
    words = tuple(name if solved else f"{name}, not finished" for solved in found.solved.tolist())
    return Bounds(found.lower_bound, by_class, words, flips)
