"""How much the closest change that flips the network's answer moves each unit, and whether units keep their top sets.

Question: Szegedy et al. 2013, "Intriguing properties of neural networks", sections 3 and 4, joined: does what a unit
means survive an adversarial example?
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from theodolite.instruments.unit_statistics import Estimate, mean_estimate, share_estimate
from theodolite.instruments.unit_task import UnitTask
from theodolite.search.flips import Flips


@dataclass(frozen=True)
class Steadiness:
    """``flips`` a row an input searched. A row a unit: ``change``, the mean over the flip points found of |change of
    the activation| / its standard deviation over the inputs; ``noise``, the same for a change of equal length in a
    random direction; ``leaving``, the share of its k most exciting inputs, among those with a flip point, whose flip
    point excites it less than its (k + 1)-th input does; ``n_tried``: how many those are."""

    flips: Flips
    change: Estimate
    noise: Estimate
    leaving: Estimate
    n_tried: Tensor


def steadiness(task: UnitTask, flips: Flips, generator: torch.Generator) -> Steadiness:
    """Read the layer at every flip point found, and beside it at a random point as far away.

    The random point may lie outside the space: clipping would shorten the change.
    """
    rows = flips.found.nonzero()[:, 0]
    image = task.flipped[: len(flips.distance)][rows]
    start = task.inputs[image].flatten(1).double()
    drawn = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    length = flips.distance[rows] / drawn.norm(dim=1)
    before = task.natural[:, image].T
    flipped, noisy = (_read(task, points) for points in (flips.point[rows], start + length[:, None] * drawn))
    spread = torch.where(task.living, task.spread, torch.nan)
    k = task.top[0]
    ordered = task.natural.topk(k + 1, dim=1)
    place = torch.full((len(task.inputs),), -1)
    place[image] = torch.arange(len(image))
    met = place[ordered.indices[:, :k]]
    known = (met >= 0) & task.resolved[:, :1]
    there = flipped.T.gather(1, met.clamp(min=0)) if len(image) else torch.zeros(met.shape, dtype=torch.float64)
    left = known & (there < ordered.values[:, k:])
    return Steadiness(
        flips,
        mean_estimate((flipped - before).abs() / spread, generator),
        mean_estimate((noisy - before).abs() / spread, generator),
        share_estimate(left.sum(1), known.sum(1)),
        known.sum(1),
    )


def _read(task: UnitTask, points: Tensor) -> Tensor:
    """``(flip, unit)``."""
    if not len(points):
        return torch.zeros((0, len(task.living)), dtype=torch.float64)
    return task.reader.read(points.reshape(-1, *task.network.space.shape)).natural().T
