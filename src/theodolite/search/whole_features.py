"""Closest flip points whose named features are whole numbers: best-first branch and bound over relaxed ones.

The method of Land and Doig, Econometrica 28, 497 (1960), one tree an image and class of the far side, all trees
advancing in one batch. A relaxation is solved by repeated projection on the linearised boundary: exact where the
network is linear, so that the search then ends with the optimum; elsewhere its distance is only a guide, and so is
the pruning by it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from theodolite.outputs import Outputs
from theodolite.search.constraint_rules import Rules
from theodolite.search.flips import FLIP_TOLERANCE
from theodolite.search.linear_projection import project_beyond
from theodolite.search.margins import Margins
from theodolite.search.regions import Region
from theodolite.search.whole_moves import (
    WholeMoves,
    improved,
    keeps_equalities,
    moved_back,
    rounded,
    until_flipped,
    whole_moves,
)

_WHOLE = 1e-7  # nearer to a whole number than this counts as whole in a relaxed point
_FEW = 64  # whole features: among more, random points rarely flip near the input
_LONGEST_SCATTER = 8  # moves that lead to a random point, at most
_N_FLIPPED = 4  # nearest of the random points on the far side that are improved
_BEYOND = 0.05  # of a margin that stays positive: how far beyond the boundary the next step aims


@final
@dataclass(frozen=True)
class WholeSearch:
    """``n_nodes`` branched an image, ``width`` of them at once; ``n_classes`` trees an image where any class will do;
    ``n_steps`` of projection a relaxation; ``n_rounds`` of exchanges after rounding; ``n_scattered`` random whole
    points near the input, tried where few features are whole; ``gap``: where many are, a node that promises less gain
    than this share of the distance is given up."""

    n_nodes: int
    width: int = 8
    n_classes: int = 9
    n_steps: int = 8
    n_rounds: int = 8
    n_scattered: int = 128
    gap: float = 0.002


WHOLE_SEARCHES = {
    "quick": WholeSearch(16, n_classes=3, n_steps=6, n_rounds=4, n_scattered=32, gap=0.01),
    "regular": WholeSearch(128),
    "thorough": WholeSearch(1024, width=16, n_steps=12, n_rounds=24, n_scattered=1024, gap=0.0005),
}


@final
@dataclass(order=True)
class _Node:
    """A part of one tree: the box of the image, narrowed by ``cuts`` (feature, low, high); ``point`` its relaxed
    closest flip."""

    distance: float
    number: int
    target: int = field(compare=False)
    cuts: tuple[tuple[int, float, float], ...] = field(compare=False)
    point: Tensor = field(compare=False)


def nearest_flips(margins: Margins, region: Region, x0: Tensor, start: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """``(row, n)`` the nearest points on the far side met by projecting ``x0`` again and again on the linearised
    boundary, first at ``start``, and their distances, inf where none was met; two units a step and one.

    Where the region's own nearest point to ``x0`` is on the far side already, it is that.
    """
    best = region.project(x0, x0.new_zeros((len(x0), 1, x0.shape[1])), x0.new_zeros((len(x0), 1)))
    flipped = (margins.value(best) <= 0) & keeps_equalities(region, best)
    distance = torch.where(flipped, region.distance(x0, best), torch.inf)
    y = region.nearest(x0, start)
    rows = (~flipped).nonzero()[:, 0]
    y = y[rows]
    for step in range(n_steps + 1):
        if not len(rows):
            break
        part, here = region.select(rows), margins.select(rows)
        value, gradient = here.value_and_gradient(y)
        length = part.distance(x0[rows], y)
        nearer = (value <= 0) & (length < distance[rows]) & keeps_equalities(part, y)
        distance[rows[nearer]], best[rows[nearer]] = length[nearer], y[nearer]
        if step == n_steps:
            break
        # A hair beyond, so that rounding leaves the point on the far side.
        hair = FLIP_TOLERANCE / 2 + 1e-13 * (gradient.norm(dim=1) * y.norm(dim=1) + value.abs())
        aim = torch.where(value > 0, (1 + _BEYOND * step) * value, value)
        cut = (gradient * y).sum(1) - aim - hair
        moved = project_beyond(part, x0[rows], gradient, cut)
        going = (moved - y).norm(dim=1) > 1e-13 * (1 + y.norm(dim=1))
        going &= torch.isfinite(moved).all(1)
        rows, y = rows[going], moved[going]
    return best, distance


def whole_flips(
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    target: Tensor,
    rules: Rules,
    norm: str,
    roots: Tensor,
    settings: WholeSearch,
    units: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """``(image, n)`` the closest points on the far side whose whole features are whole, and their distances
    ``(image,)``, inf where none was found.

    ``roots (image, n)``: known relaxed flips, NaN for none. The other features of a point lie where they end the
    distance to rounding, or at the input where whole features alone lead across. Every point keeps the rules; units
    are added to ``units (image,)``.
    """
    search = _Search(exact, inputs.to(torch.float64), own, rules, rules.region(inputs, norm), settings, units)
    search.scatter(target, generator)
    search.plant(target, roots)
    while search.branch():
        pass
    return search.best, search.distance


class _Search:
    """The trees of all images, and the best point of each so far."""

    def __init__(
        self,
        exact: Outputs,
        inputs: Tensor,
        own: Tensor,
        rules: Rules,
        region: Region,
        settings: WholeSearch,
        units: Tensor,
    ) -> None:
        self.exact, self.inputs, self.own = exact, inputs, own
        self.rules, self.region, self.settings, self.units = rules, region, settings, units
        self.moves: WholeMoves = whole_moves(rules)
        self.mixed = bool((rules.movable & (rules.low < rules.high) & ~rules.whole).any())
        self.best = torch.full_like(inputs, torch.nan)
        self.distance = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
        self.open: list[list[_Node]] = [[] for _ in range(len(inputs))]
        self.left = [settings.n_nodes] * len(inputs)
        self.number = 0
        origin = self.region.nearest(inputs, inputs)
        whole = torch.where(rules.whole, origin.round(), origin)
        # No whole point is nearer than each feature's own nearest whole number.
        self.floor = self.region.distance(inputs, torch.where(rules.whole, whole, inputs))
        self.gap = settings.gap if int(rules.whole.sum()) > _FEW else 1e-12

    def scatter(self, target: Tensor, generator: torch.Generator) -> None:
        """Random whole points near the inputs: the same moves for every image, so that none depends on another."""
        n_images, n_points, n_moves = len(self.inputs), self.settings.n_scattered, len(self.moves.first)
        if self.mixed or not n_moves or int(self.rules.whole.sum()) > _FEW:
            return
        steps = torch.randint(n_moves, (n_points, _LONGEST_SCATTER), generator=generator)
        length = torch.randint(1, _LONGEST_SCATTER + 1, (n_points, 1), generator=generator)
        used = (torch.arange(_LONGEST_SCATTER) < length).double()
        count = torch.zeros((n_points, n_moves), dtype=torch.float64).scatter_add(1, steps, used)
        change = self.moves.apply(torch.zeros((n_points, self.inputs.shape[1]), dtype=torch.float64), count)
        origin = self.region.nearest(self.inputs, self.inputs)
        base = rounded(self.rules, self.region, self.inputs, origin, away=False)
        image = torch.arange(n_images).repeat_interleave(n_points)
        points = (base[:, None] + change).reshape(n_images * n_points, -1)
        margins = Margins(self.exact, image, self.own[image], target[image], self.units)
        distance = self.region.select(image).distance(self.inputs[image], points)
        usable = (margins.value(points) <= 0) & (self.rules.violation(self.inputs[image], points) == 0)
        ranked = distance.masked_fill(~usable, torch.inf).reshape(n_images, n_points)
        n_kept = min(_N_FLIPPED, n_points)
        nearest = ranked.topk(n_kept, 1, largest=False)
        chosen = (nearest.indices + n_points * torch.arange(n_images)[:, None])[torch.isfinite(nearest.values)]
        if len(chosen):
            rows = image[chosen]
            self._polish_whole(
                margins.select(chosen), rows, self.region.select(rows), self.inputs[rows], points[chosen]
            )

    def plant(self, target: Tensor, roots: Tensor) -> None:
        """A tree for every image and class it may flip to."""
        everything = torch.arange(len(self.inputs))
        output = self.exact.value(self.inputs)
        self.units += 1
        known = torch.isfinite(roots).all(1)
        start = torch.where(known[:, None], roots, self.inputs)
        at_root = self.exact.value(start).scatter(1, self.own[:, None], -torch.inf).argmax(1)
        self.units += 1
        order = output.scatter(1, self.own[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        order = order[:, : min(self.settings.n_classes, output.shape[1] - 1)]
        pairs = [
            (image, one)
            for image in everything.tolist()
            for one in (
                [int(target[image])]
                if target[image] >= 0
                else sorted({*order[image].tolist(), *([int(at_root[image])] if known[image] else [])})
            )
        ]
        image, one = torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])
        origin = self.region.select(image).nearest(self.inputs[image], self.inputs[image])
        begin = torch.where((known[image] & (one == at_root[image]))[:, None], roots[image], origin)
        self._grow(image, one, [()] * len(image), self.region.select(image), begin)

    def branch(self) -> bool:
        """Split the most promising nodes of every image; False when nothing is left to split."""
        images, targets, cuts, starts = [], [], [], []
        for image, heap in enumerate(self.open):
            for _ in range(min(self.settings.width, self.left[image])):
                if not heap or heap[0].distance >= float(self.distance[image]) * (1 - self.gap):
                    heap.clear()
                    break
                node = heapq.heappop(heap)
                self.left[image] -= 1
                split = self._most_fractional(node.point)
                if split is None:
                    continue
                value = float(node.point[split])
                for low, high in ((-torch.inf, float(int(value // 1))), (float(int(value // 1)) + 1.0, torch.inf)):
                    images.append(image)
                    targets.append(node.target)
                    cuts.append((*node.cuts, (split, low, high)))
                    starts.append(node.point)
            if self.left[image] <= 0:
                heap.clear()
        if not images:
            return False
        image = torch.tensor(images)
        low, high = self.region.low[image].clone(), self.region.high[image].clone()
        for row, narrowed in enumerate(cuts):
            for feature, least, most in narrowed:
                low[row, feature] = max(float(low[row, feature]), least)
                high[row, feature] = min(float(high[row, feature]), most)
        sound = (low <= high).all(1)
        region = Region(low, high, self.region.norm, self.region.matrix, _rows(self.region.offset, image))
        kept = sound.nonzero()[:, 0]
        if len(kept):
            self._grow(
                image[kept],
                torch.tensor(targets)[kept],
                [cuts[row] for row in kept.tolist()],
                region.select(kept),
                torch.stack(starts)[kept],
            )
        return True

    def _grow(
        self,
        image: Tensor,
        target: Tensor,
        cuts: list[tuple[tuple[int, float, float], ...]],
        region: Region,
        start: Tensor,
    ) -> None:
        """Relax each node, try whole points near its relaxed flip, and keep it open where it may hold a nearer one."""
        margins = Margins(self.exact, image, self.own[image], target, self.units)
        x0 = self.inputs[image]
        point, distance = nearest_flips(margins, region, x0, start, self.settings.n_steps)
        distance = torch.maximum(distance, self.floor[image])
        promising = (distance < self.distance[image]).nonzero()[:, 0]
        if len(promising):
            self._try_whole(margins.select(promising), image[promising], x0[promising], point[promising])
        for row in promising.tolist():
            if float(distance[row]) < float(self.distance[image[row]]):
                self.number += 1
                node = _Node(float(distance[row]), self.number, int(target[row]), cuts[row], point[row])
                heapq.heappush(self.open[int(image[row])], node)

    def _try_whole(self, margins: Margins, image: Tensor, x0: Tensor, y: Tensor) -> None:
        """Whole points near the relaxed flips ``y``, anywhere in the images' regions."""
        region = self.region.select(image)
        for away in (False, True):
            v = rounded(self.rules, region, x0, y, away=away)
            if self.mixed:
                held = self.rules.whole
                part = Region(
                    torch.where(held, v, region.low),
                    torch.where(held, v, region.high),
                    region.norm,
                    region.matrix,
                    region.offset,
                )
                point, distance = nearest_flips(margins, part, x0, torch.where(held, v, y), self.settings.n_steps)
                self._bank(image, point, distance)
                continue
            sound = keeps_equalities(region, v).nonzero()[:, 0]
            if len(sound):
                self._polish_whole(margins.select(sound), image[sound], region.select(sound), x0[sound], v[sound])

    def _polish_whole(self, margins: Margins, image: Tensor, region: Region, x0: Tensor, v: Tensor) -> None:
        v, margin = until_flipped(self.moves, margins, region, x0, v, self.settings.n_rounds)
        there = (margin <= 0).nonzero()[:, 0]
        if not len(there):
            return
        margins, image, region, x0, v = (
            margins.select(there),
            image[there],
            region.select(there),
            x0[there],
            v[there],
        )
        v, margin = moved_back(self.moves, margins, region, x0, v, self.settings.n_rounds)
        # Exchanges cost many passes: only what comes near the best point is worth them.
        near = (region.distance(x0, v) < 1.25 * self.distance[image]).nonzero()[:, 0]
        if len(near):
            v[near], margin[near] = improved(
                self.moves,
                margins.select(near),
                region.select(near),
                x0[near],
                v[near],
                self.settings.n_rounds,
            )
        distance = torch.where(margin <= 0, region.distance(x0, v), torch.inf)
        self._bank(image, v, distance)

    def _bank(self, image: Tensor, point: Tensor, distance: Tensor) -> None:
        allowed = self.rules.violation(self.inputs[image], point) == 0
        for row in (allowed & (distance < self.distance[image])).nonzero()[:, 0].tolist():
            if float(distance[row]) < float(self.distance[image[row]]):
                self.best[image[row]], self.distance[image[row]] = point[row], distance[row]

    def _most_fractional(self, point: Tensor) -> int | None:
        gap = torch.where(self.rules.whole & self.rules.movable, (point - point.round()).abs(), 0.0)
        feature = int(gap.argmax())
        return feature if float(gap[feature]) > _WHOLE else None


def _rows(offset: Tensor | None, index: Tensor) -> Tensor | None:
    return None if offset is None else offset[index]
