"""The closest flip point of a small ReLU network, exactly: branch and bound over the signs of its ReLUs.

A node fixes the signs of some ReLUs and relaxes the others to the triangle around them (Ehlers 2017, 'Formal
Verification of Piece-Wise Linear Feed-Forward Neural Networks'), so that its closest point is a convex quadratic
program, whose dual proves a lower bound. A node whose bound reaches the best flip point known is closed; else the ReLU
that the relaxation violates most is branched on. With all signs fixed the program is exact.

The bound is proven in floating point for the network of `dense_layers`: intervals, constraints and duals are moved
outward by what rounding may have changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.bounds.dense_layers import DenseLayers, Rays, dense_layers
from theodolite.instruments.bounds.quadratic_programs import solve
from theodolite.instruments.bounds.relu_relaxation import Nodes, Relaxation, first_nodes, worst
from theodolite.network import Network

_NEWTON_STEPS = 15
_DIVES = 8
_FAR_SIDE = 1e-9  # share of the radius to aim past the boundary: beyond a corner the ray may come back
_SHRINK = 1e-3  # share of the radius below which a new one is not worth its intervals
_ROUNDING = 2.0**-48  # of a square root and two products, with room


@final
@dataclass(frozen=True)
class ExactSearch:
    """``max_nodes`` an image; ``gap``: a flip point counts as the closest when no other can be nearer by more than this
    share; ``batch``: nodes bounded at once; ``boxed``: flip points lie in the hull of the space, or anywhere.

    Raises UserError for a setting out of range.
    """

    max_nodes: int = 6000
    gap: float = 1e-7
    batch: int = 32
    boxed: bool = True

    def __post_init__(self) -> None:
        if self.max_nodes < 1 or self.batch < 1:
            raise UserError(
                "max_nodes, batch", "at least 1", f"{self.max_nodes}, {self.batch}", "leave them out for the default"
            )
        if not 1e-10 <= self.gap < 1:
            raise UserError("gap", "a share from 1e-10 to 1", repr(self.gap), "1e-7 is reached in float64")


EXACT_SEARCH = ExactSearch()


@final
@dataclass(frozen=True)
class ExactFlips:
    """``point (image, n)`` float64 on the far side (NaN: none found), ``distance (image,)`` its L2 distance in input
    units (inf: none found), ``lower_bound (image,)``: no flip point is nearer, proven; ``target (image,)`` the class
    there (-1: none), ``n_nodes (image,)`` nodes bounded, ``solved (image,)`` bool: lower bound and distance are as
    close as the settings ask."""

    point: Tensor
    distance: Tensor
    lower_bound: Tensor
    target: Tensor
    n_nodes: Tensor
    solved: Tensor


def exact_flips(
    network: Network | DenseLayers,
    inputs: Tensor,
    own: Tensor,
    *,
    target: Tensor | None = None,
    settings: ExactSearch = EXACT_SEARCH,
) -> ExactFlips:
    """The nearest points where class ``own (image,)`` no longer leads, or no longer leads class ``target (image,)``
    (-1: any), from ``inputs (image, *shape)``, in L2.

    An input on the far side already is its own flip point, at distance 0. An input or a network that is not finite, or
    an input outside the box, has no answer: distance inf, lower bound 0, not solved.

    Raises:
        UserError: a network other than affine layers and ReLUs; classes that it does not have; wrong shapes.
    """
    layers, x0, goals = exact_problem(network, inputs, own, target)
    answers = [_answer(layers, x, int(i), int(j), settings) for x, i, j in zip(x0, own, goals, strict=True)]
    return ExactFlips(
        torch.stack([answer.point for answer in answers]) if answers else x0,
        torch.tensor([answer.distance for answer in answers], dtype=torch.float64),
        torch.tensor([answer.lower_bound for answer in answers], dtype=torch.float64),
        torch.tensor([answer.target for answer in answers], dtype=torch.int64),
        torch.tensor([answer.n_nodes for answer in answers], dtype=torch.int64),
        torch.tensor([answer.solved for answer in answers], dtype=torch.bool),
    )


def exact_problem(
    network: Network | DenseLayers, inputs: Tensor, own: Tensor, target: Tensor | None
) -> tuple[DenseLayers, Tensor, Tensor]:
    """A network as matrices, inputs ``(image, n)`` float64 and targets ``(image,)``, -1: any.

    Raises UserError where inputs, classes and targets do not fit the network, or it is not affine layers and ReLUs.
    """
    layers = network if isinstance(network, DenseLayers) else dense_layers(network)
    x0 = inputs.detach().double().reshape(len(inputs), -1)
    goals = torch.full_like(own, -1) if target is None else target
    _check_classes(layers, x0, own, goals)
    return layers, x0, goals


def _check_classes(layers: DenseLayers, x0: Tensor, own: Tensor, target: Tensor) -> None:
    if x0.shape[1] != len(layers.low) or own.shape != (len(x0),) or target.shape != (len(x0),):
        raise UserError(
            "inputs, own, target",
            f"points of {len(layers.low)} coordinates and a class each",
            f"shapes {tuple(x0.shape)}, {tuple(own.shape)}, {tuple(target.shape)}",
            "give a row an image",
        )
    wrong = (own < 0) | (own >= layers.n_classes) | (target < -1) | (target >= layers.n_classes) | (target == own)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            "own, target",
            f"two different classes of 0..{layers.n_classes - 1} (target -1: any)",
            f"{int(own[row])}, {int(target[row])} in row {row}",
            "give the class of each input",
        )


@final
@dataclass
class _Answer:
    """What is known of one image."""

    point: Tensor
    distance: float
    target: int
    lower_bound: float = 0.0
    n_nodes: int = 0
    solved: bool = False


def _answer(layers: DenseLayers, x0: Tensor, own: int, target: int, settings: ExactSearch) -> _Answer:
    answer = _Answer(torch.full_like(x0, torch.nan), math.inf, -1)
    targets = [target] if target >= 0 else [k for k in range(layers.n_classes) if k != own]
    output = layers.value(x0[None])[0]
    finite = all(
        bool(w.isfinite().all() and b.isfinite().all()) for w, b in zip(layers.weight, layers.bias, strict=True)
    )
    low, high = (layers.low, layers.high) if settings.boxed else (-torch.inf, torch.inf)
    low, high = torch.as_tensor(low).expand_as(x0), torch.as_tensor(high).expand_as(x0)
    if not finite or not bool(output.isfinite().all()) or bool(((x0 < low) | (x0 > high)).any()):
        return answer
    search = _Search(layers, x0, own, targets, low, high, settings, answer)
    least, which = search.rays.margins(x0[None])[0].min(0)
    if float(least) <= 0:
        return _Answer(x0, 0.0, targets[int(which)], solved=True)
    search.newton()
    # Without a flip point the radius within which there is proven to be none grows until it is found or hopeless.
    radius = answer.distance if answer.distance < math.inf else search.first_radius()
    while search.run(radius):
        if answer.distance < math.inf or radius >= search.largest_radius:
            break
        radius = min(4 * radius, search.largest_radius)
    return answer


@final
class _Search:
    """Branch and bound for one image."""

    def __init__(
        self,
        layers: DenseLayers,
        x0: Tensor,
        own: int,
        targets: list[int],
        low: Tensor,
        high: Tensor,
        settings: ExactSearch,
        answer: _Answer,
    ) -> None:
        self.layers, self.x0, self.own, self.targets = layers, x0, own, targets
        self.low, self.high, self.settings, self.answer = low, high, settings, answer
        edge = torch.maximum(x0 - low, high - x0).norm()
        self.rays = Rays(layers, x0, own, tuple(targets), low, high)
        self.bounded = bool(edge.isfinite())
        scale = 1.0 + float(x0.abs().max())
        self.largest_radius = (1 + 1e-6) * float(edge) if self.bounded else 1e6 * scale * math.sqrt(len(x0))

    def first_radius(self) -> float:
        return min(self.largest_radius, 1.0 + float(self.x0.norm()))

    def offer(self, x: Tensor) -> None:
        """Tries points ``(batch, n)`` close to the boundary."""
        point = self.rays.far_side(x, self.answer.distance)
        if not len(point):
            return
        distance = (point - self.x0).norm(dim=1)
        best = int(distance.argmin())
        if float(distance[best]) < self.answer.distance:
            self.answer.distance, self.answer.point = float(distance[best]), point[best]
            self.answer.target = self.targets[int(self.rays.margins(point[best : best + 1])[0].argmin())]

    def newton(self) -> None:
        """Flip points to begin with: each target's linearised boundary, again and again."""
        x = self.x0.expand(len(self.targets), -1)
        row = torch.arange(len(self.targets))
        direction = torch.zeros((len(self.targets), self.layers.n_classes), dtype=torch.float64)
        direction[:, self.own] = 1.0
        direction[row, torch.tensor(self.targets)] -= 1.0
        tried = []
        for _ in range(_NEWTON_STEPS):
            margin = self.rays.margins(x)[row, row]
            slope = self.layers.gradient(x, direction)
            slope = slope.masked_fill(((x <= self.low) & (slope > 0)) | ((x >= self.high) & (slope < 0)), 0.0)
            step = 1.02 * margin / slope.square().sum(1).clamp(min=1e-300)
            x = torch.minimum(torch.maximum(x - step[:, None] * slope, self.low), self.high)
            x = torch.where(x.isfinite(), x, self.x0)
            tried.append(x)
        self.offer(torch.cat(tried))

    def run(self, radius: float) -> bool:
        """Looks at everything within ``radius``, or nearer than the best flip point; False when out of nodes."""
        answer, settings = self.answer, self.settings
        relaxation = Relaxation(self.layers, self.x0, self.own, self.low, self.high, min(radius, answer.distance))
        nodes = first_nodes(relaxation, self.targets)
        closed = math.inf  # least bound of the nodes that are exact but did not reach the threshold
        while len(nodes.bound):
            reach = min(radius, answer.distance)
            if reach < relaxation.radius * (1 - _SHRINK):
                relaxation.shrink(reach)
            goal = reach * (1 - settings.gap)
            nodes = nodes.select((nodes.bound < goal).nonzero()[:, 0])
            if not len(nodes.bound):
                break
            if answer.n_nodes >= settings.max_nodes:
                answer.lower_bound = max(answer.lower_bound, min(float(nodes.bound.min()), closed, goal))
                return False
            order = nodes.bound.argsort(stable=True)
            chosen, nodes = nodes.select(order[: settings.batch]), nodes.select(order[settings.batch :])
            answer.n_nodes += len(chosen.bound)
            exact, children = self._expand(relaxation, chosen, goal)
            closed = min(closed, exact)
            nodes = nodes.join(children)
        reach = min(radius, answer.distance)
        if answer.distance == math.inf and closed == math.inf and self.bounded and radius >= self.largest_radius:
            answer.lower_bound, answer.solved = math.inf, True
            return True
        answer.lower_bound = max(answer.lower_bound, min(closed, reach * (1 - settings.gap)))
        answer.solved = answer.distance < math.inf and answer.lower_bound >= answer.distance * (1 - settings.gap)
        return True

    def _expand(self, relaxation: Relaxation, chosen: Nodes, goal: float) -> tuple[float, Nodes]:
        """The least bound of those of the ``chosen`` nodes that cannot be divided, and the children of the others."""
        chosen = relaxation.tightened(chosen)
        relaxed = relaxation.programs(chosen)
        threshold = 0.5 * (goal / relaxation.radius) ** 2
        found = solve(relaxed.programs, threshold)
        bound = relaxation.radius * (2 * found.value).sqrt() * (1 - _ROUNDING)
        chosen.bound = torch.maximum(chosen.bound, bound)
        remaining = (chosen.bound < goal).nonzero()[:, 0]
        if not len(remaining):
            return math.inf, chosen.select(remaining)
        chosen, relaxed, found = chosen.select(remaining), relaxed.select(remaining), found.select(remaining)
        x = relaxation.points(found.d)
        self.offer(x)
        lowest = chosen.bound.argsort(stable=True)[:_DIVES]
        pieces = relaxation.programs(relaxation.fixed_at(chosen.select(lowest), x[lowest])).programs
        pieces.limit[:, -1] -= _FAR_SIDE
        self.offer(relaxation.points(solve(pieces, threshold).d))
        unit, divisible = worst(chosen, relaxed, found)
        exact = chosen.bound[~divisible]
        rows = divisible.nonzero()[:, 0]
        return float(exact.min()) if len(exact) else math.inf, chosen.select(rows).divided(unit[rows])
