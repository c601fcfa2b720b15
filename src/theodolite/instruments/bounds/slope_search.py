"""How steep a network or one of its layers is seen to be: the largest slope |f(a) - f(b)| / |a - b| between real pairs.

The counterpart from below of a Lipschitz bound: every slope is that of two points that were found, so that none is
larger than the true constant. Directions start from power iterations on the Jacobian (in other norms than L2 by
duality: Higham 1992, 'Estimating the matrix p-norm', Numerische Mathematik 62), then both points climb the slope
itself inside the box by Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.layer_steps import POWER
from theodolite.instruments.bounds.operator_norms import Norm

_POWER_STEPS = 6
_APART = 1e-3  # of the extent: how far apart the points of a pair begin
_NEAREST = 1e-5  # of the extent: nearer pairs say more of rounding than of the network
_STEP = 0.03  # of the distance between the points: a first step of Adam
_DECAY = (0.9, 0.99)
_WORK = 4e9  # multiplications that a search may take, about
_MOST_PAIRS, _FEWEST_PAIRS = 12, 2
_MOST_STEPS, _FEWEST_STEPS = 60, 8


@final
@dataclass(frozen=True)
class Domain:
    """Where pairs may lie: a box ``low``, ``high (n,)`` and, of each pair, a ball of ``radius`` around ``centre
    (pair, n)``; without centre the box alone. ``extent`` of the points to be looked at."""

    low: Tensor
    high: Tensor
    extent: float
    centre: Tensor | None = None
    radius: float = 0.0

    def inside(self, x: Tensor, norm: Norm) -> Tensor:
        """``(pair, n)`` moved into the domain."""
        if self.centre is not None:
            change = x - self.centre
            length = torch.linalg.vector_norm(change, POWER[norm], dim=1, keepdim=True)
            x = self.centre + change * (self.radius * (1 - 1e-12) / length.clamp(min=1e-300)).clamp(max=1.0)
        # The centre lies in the box, so that this leaves no ball.
        return torch.minimum(torch.maximum(x, self.low), self.high)


@final
@dataclass(frozen=True)
class Pairs:
    """``first``, ``second (pair, n)`` float64 and the ``slope (pair,)`` computed between them; ``passes`` forward and
    backward that it took."""

    slope: Tensor
    first: Tensor
    second: Tensor
    passes: int


@final
@dataclass(frozen=True)
class Segment:
    """From the values of nodes ``inputs``, side by side, to that of node ``output``."""

    inputs: tuple[int, ...]
    output: int

    def ends(self, graph: LayerGraph, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, numbers)`` each: what goes in and what comes out, at points ``(batch, n)``."""
        values = node_values(graph, x, self.output)
        return torch.cat([values[k].flatten(1) for k in self.inputs], 1), values[self.output].flatten(1)


def node_values(graph: LayerGraph, x: Tensor, last: int) -> list[Tensor]:
    """Values of nodes 0 to ``last`` at points ``(batch, n)``."""
    found = [x.reshape(len(x), *graph.shape)]
    for node in graph.nodes[:last]:
        found.append(node.apply([found[k] for k in node.inputs]))
    return found


def effort(graph: LayerGraph, last: int) -> tuple[int, int]:
    """Pairs and steps that a search is worth, from the multiplications of a forward pass up to a node alone."""
    passes = _WORK / max(1.0, sum(float(node.size) * getattr(node, "n_terms", 1) for node in graph.nodes[:last]))
    # Four rows a pair and step: two points, forward and backward.
    n_pairs = int(min(_MOST_PAIRS, max(_FEWEST_PAIRS, passes / (4 * _FEWEST_STEPS))))
    return n_pairs, int(min(_MOST_STEPS, max(_FEWEST_STEPS, passes / (4 * n_pairs))))


def steepest_pairs(
    graph: LayerGraph,
    segment: Segment,
    start: Tensor,
    domain: Domain,
    norm: Norm,
    generator: torch.Generator,
    *,
    n_steps: int,
    direction: Tensor | None = None,
) -> Pairs:
    """Climb from points ``start (pair, n)`` float64: a pair each, the steepest seen on its way.

    ``direction``: of what goes into the segment, flat, that it is known to stretch most; every second pair starts
    along it.
    """
    middle = domain.inside(start.double(), norm)
    along = _directions(graph, segment, middle, norm, generator)
    passes = (2 * _POWER_STEPS + 1) * len(middle)
    if direction is not None:
        along[::2] = _pulled_back(graph, segment, middle[::2], direction)
        passes += len(middle)
    apart = domain.radius if domain.centre is not None else _APART * domain.extent
    move = along / torch.linalg.vector_norm(along, dim=1, keepdim=True).clamp(min=1e-300) * (apart / 2)
    first, second = domain.inside(middle - move, norm), domain.inside(middle + move, norm)
    nearest = _NEAREST * (min(domain.radius, domain.extent) if domain.centre is not None else domain.extent)
    best = torch.full((len(middle),), -torch.inf, dtype=torch.float64)
    kept = first.clone(), second.clone()
    points = torch.cat([first, second])
    mean, square = torch.zeros_like(points), torch.zeros_like(points)
    for step in range(n_steps):
        slope, gradient = _slope(graph, segment, points, norm)
        half = len(middle)
        length = torch.linalg.vector_norm(points[half:] - points[:half], dim=1)
        better = (slope > best) & (length >= nearest)
        best = torch.where(better, slope, best)
        kept = tuple(torch.where(better[:, None], new, old) for new, old in zip(points.split(half), kept, strict=True))  # type: ignore[assignment]
        mean = _DECAY[0] * mean + (1 - _DECAY[0]) * gradient
        square = _DECAY[1] * square + (1 - _DECAY[1]) * gradient.square()
        change = (mean / (1 - _DECAY[0] ** (step + 1))) / (square / (1 - _DECAY[1] ** (step + 1))).sqrt().clamp(
            min=1e-300
        )
        rate = _STEP * (1 - step / n_steps) * length.clamp(min=nearest).repeat(2)[:, None]
        moved = points + rate * change.nan_to_num(0.0)
        points = torch.cat([domain.inside(part, norm) for part in moved.split(half)])
    return Pairs(best, kept[0], kept[1], passes + 4 * n_steps * len(middle))


def _slope(graph: LayerGraph, segment: Segment, points: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """``(pair,)`` slopes, -inf where a pair does not differ, and the gradient ``(2 pair, n)`` of their logarithms."""
    leaf = points.detach().requires_grad_(True)
    with torch.enable_grad():
        low, high = (torch.linalg.vector_norm(_difference(end), POWER[norm], dim=1) for end in
                     segment.ends(graph, leaf))  # fmt: skip
        told = (low > 0) & (high > 0) & low.isfinite() & high.isfinite()
        slope = high / low
        climbed = torch.where(told, torch.where(told, high, 1.0).log() - torch.where(told, low, 1.0).log(), 0.0)
        (gradient,) = torch.autograd.grad(climbed.sum(), leaf, allow_unused=True)
    gradient = torch.zeros_like(points) if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
    return torch.where(told, slope.detach(), -torch.inf), gradient


def _difference(end: Tensor) -> Tensor:
    first, second = end.split(len(end) // 2)
    return second - first


def _directions(graph: LayerGraph, segment: Segment, x: Tensor, norm: Norm, generator: torch.Generator) -> Tensor:
    """``(pair, n)``: changes of the input that the Jacobian of the segment's end stretches most, about."""
    along = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    leaf = x.detach().requires_grad_(True)
    with torch.enable_grad():
        _, output = segment.ends(graph, leaf)
        weight = torch.zeros_like(output).requires_grad_(True)
        (back,) = torch.autograd.grad(output, leaf, weight, create_graph=True, allow_unused=True)
    if back is None or not back.requires_grad:
        return along
    for _ in range(_POWER_STEPS):
        # J v as the derivative of J' w with respect to w: no forward mode is needed.
        (image,) = torch.autograd.grad(back, weight, along, retain_graph=True)
        (pulled,) = torch.autograd.grad(output, leaf, _dual(image, norm), retain_graph=True)
        new = _steepest(pulled, norm)
        lost = ~(torch.linalg.vector_norm(pulled, dim=1) > 0)
        along = torch.where(lost[:, None], along, new).nan_to_num(0.0)
    return along


def _pulled_back(graph: LayerGraph, segment: Segment, x: Tensor, direction: Tensor) -> Tensor:
    """``(pair, n)``: changes of the input that move what goes into the segment along a direction most."""
    leaf = x.detach().requires_grad_(True)
    with torch.enable_grad():
        start, _ = segment.ends(graph, leaf)
        (pulled,) = torch.autograd.grad(start, leaf, direction.expand_as(start))
    return pulled


def _dual(image: Tensor, norm: Norm) -> Tensor:
    """A row that attains the norm of ``image (pair, m)``."""
    if norm == "L2":
        return image / torch.linalg.vector_norm(image, dim=1, keepdim=True).clamp(min=1e-300)
    return image.sign() if norm == "L1" else _largest(image)


def _steepest(row: Tensor, norm: Norm) -> Tensor:
    """The change of norm 1 along which ``row (pair, n)`` grows most."""
    if norm == "L2":
        return row / torch.linalg.vector_norm(row, dim=1, keepdim=True).clamp(min=1e-300)
    return row.sign() if norm == "Linf" else _largest(row)


def _largest(row: Tensor) -> Tensor:
    place = row.abs().argmax(1, keepdim=True)
    return torch.zeros_like(row).scatter(1, place, row.gather(1, place).sign())


def joined(found: Sequence[Pairs]) -> Pairs:
    """The pairs of several searches as one list."""
    return Pairs(
        torch.cat([pairs.slope for pairs in found]),
        torch.cat([pairs.first for pairs in found]),
        torch.cat([pairs.second for pairs in found]),
        sum(pairs.passes for pairs in found),
    )
