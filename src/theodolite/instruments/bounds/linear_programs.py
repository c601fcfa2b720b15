"""The closest flip point of a tiny ReLU network in the largest change of a coordinate (Linf), by integer programming.

Every ReLU becomes one binary number and inequalities whose constants are the bounds of what it can see (Tjeng, Xiao and
Tedrake 2019, 'Evaluating Robustness of Neural Networks with Mixed Integer Programming'); HiGHS minimises the distance,
and its dual bound is the proven lower bound, less what its tolerances allow.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.bounds.dense_layers import DenseLayers, Rays
from theodolite.instruments.bounds.exact_boundary import ExactFlips, exact_problem
from theodolite.network import Network

_TOLERANCE = 1e-7  # of HiGHS: by how much a reduced cost may have the wrong sign
_PAST = 1e-6  # share of the scaled margin row to aim past the boundary
_STEPS = 12
_INFEASIBLE = 2


@final
@dataclass(frozen=True)
class LinfSearch:
    """``seconds`` an image; ``gap``: share within which lower bound and distance count as one.

    Raises UserError for a setting out of range.
    """

    seconds: float = 60.0
    gap: float = 1e-3

    def __post_init__(self) -> None:
        if not self.seconds > 0 or not 0 < self.gap < 1:
            raise UserError(
                "seconds, gap",
                "a positive time, a share",
                f"{self.seconds}, {self.gap}",
                "leave them out for the default",
            )


LINF_SEARCH = LinfSearch()


def exact_linf_flips(
    network: Network | DenseLayers,
    inputs: Tensor,
    own: Tensor,
    *,
    target: Tensor | None = None,
    settings: LinfSearch = LINF_SEARCH,
) -> ExactFlips:
    """The nearest flip points in Linf within the box, as `exact_flips` gives them in L2; ``n_nodes`` those of HiGHS.

    The lower bound trusts HiGHS to its tolerances: with every variable scaled to a range of at most 2, reduced costs
    that are wrong by 1e-7 change a dual bound by at most 1e-7 times the sum of the ranges, which is taken off.

    Raises:
        UserError: a network other than affine layers and ReLUs; classes that it does not have; wrong shapes.
    """
    layers, x0, goals = exact_problem(network, inputs, own, target)
    n_images = len(x0)
    flips = ExactFlips(
        torch.full_like(x0, torch.nan),
        torch.full((n_images,), torch.inf, dtype=torch.float64),
        torch.zeros(n_images, dtype=torch.float64),
        torch.full((n_images,), -1, dtype=torch.int64),
        torch.zeros(n_images, dtype=torch.int64),
        torch.zeros(n_images, dtype=torch.bool),
    )
    for row in range(n_images):
        _solve_image(layers, x0[row], int(own[row]), int(goals[row]), settings, flips, row)
    return flips


def _solve_image(
    layers: DenseLayers, x0: Tensor, own: int, target: int, settings: LinfSearch, flips: ExactFlips, row: int
) -> None:
    targets = [target] if target >= 0 else [k for k in range(layers.n_classes) if k != own]
    finite = all(bool(part.isfinite().all()) for part in (*layers.weight, *layers.bias, layers.low, layers.high, x0))
    if not finite or bool(((x0 < layers.low) | (x0 > layers.high)).any()):
        return
    rays = Rays(layers, x0, own, tuple(targets), layers.low, layers.high)
    least, which = rays.margins(x0[None])[0].min(0)
    if float(least) <= 0:
        flips.point[row], flips.distance[row], flips.target[row] = x0, 0.0, targets[int(which)]
        flips.solved[row] = True
        return
    _offer(rays, _first_points(rays), flips, row)
    largest = float(torch.maximum(layers.high - x0, x0 - layers.low).max()) * (1 + 1e-9)
    bounds = []
    until = time.monotonic() + settings.seconds
    order = rays.margins(x0[None])[0].argsort().tolist()
    for position, k in enumerate(order):
        share = (until - time.monotonic()) / (len(order) - position)
        radius = min(largest, float(flips.distance[row]))
        program = _Program(rays, targets[k], radius)
        bound, point, n_nodes = program.solve(max(share, 1e-3))
        flips.n_nodes[row] += n_nodes
        bounds.append(bound)
        if point is not None:
            _offer(rays, point[None], flips, row)
    found = float(flips.distance[row])
    lower = min(bounds)
    if math.isinf(found) and lower >= largest * (1 - settings.gap):
        # Nothing in the whole box flips.
        flips.lower_bound[row], flips.solved[row] = math.inf, True
        return
    flips.lower_bound[row] = min(lower, found)
    flips.solved[row] = math.isfinite(found) and lower >= found * (1 - settings.gap)


def _offer(rays: Rays, points: Tensor, flips: ExactFlips, row: int) -> None:
    point = rays.far_side(points, math.inf)
    if not len(point):
        return
    distance = (point - rays.x0).abs().amax(1)
    best = int(distance.argmin())
    if float(distance[best]) < float(flips.distance[row]):
        flips.distance[row], flips.point[row] = distance[best], point[best]
        flips.target[row] = rays.targets[int(rays.margins(point[best : best + 1])[0].argmin())]


def _first_points(rays: Rays) -> Tensor:
    """Steps along the signs of each target's slope, longer and longer."""
    n_targets = len(rays.targets)
    row = torch.arange(n_targets)
    direction = torch.zeros((n_targets, rays.layers.n_classes), dtype=torch.float64)
    direction[:, rays.own] = 1.0
    direction[row, torch.tensor(rays.targets)] -= 1.0
    x, tried = rays.x0.expand(n_targets, -1), []
    for _ in range(_STEPS):
        slope = rays.layers.gradient(x, direction)
        blocked = ((x <= rays.low) & (slope > 0)) | ((x >= rays.high) & (slope < 0))
        reach = slope.masked_fill(blocked, 0.0).abs().sum(1).clamp(min=1e-300)
        step = 1.02 * rays.margins(x)[row, row] / reach
        x = torch.minimum(torch.maximum(x - step[:, None] * slope.sign(), rays.low), rays.high)
        tried.append(x)
    return torch.cat(tried)


@final
class _Program:
    """One target class within ``radius``: variables are changes of the input over the radius (n), the distance over
    the radius (1), activations over their largest value (unit), and whether each ReLU is on (unit)."""

    def __init__(self, rays: Rays, target: int, radius: float) -> None:
        self.rays, self.radius = rays, radius
        layers, x0 = rays.layers, rays.x0
        self.n, self.n_units = len(x0), layers.n_hidden
        low = torch.maximum(rays.low - x0, torch.tensor(-radius)) / radius
        high = torch.minimum(rays.high - x0, torch.tensor(radius)) / radius
        self.change = low.numpy(), high.numpy()
        self.bottom, self.top = (part.numpy() for part in self._intervals(low, high))
        rows, limits = self._distance_rows()
        start = 0
        before = self._place(layers.weight[0].numpy() * radius, 0)
        constant = (layers.weight[0] @ x0 + layers.bias[0]).numpy()
        for layer in range(len(layers.weight) - 1):
            units = slice(start, start + len(constant))
            more, their = self._relu_rows(before, constant, units)
            rows, limits, start = rows + more, limits + their, units.stop
            weight = layers.weight[layer + 1].numpy() * np.maximum(self.top[units], 0)
            before, constant = self._place(weight, self.n + 1 + units.start), layers.bias[layer + 1].numpy()
        margin, offset = before[rays.own] - before[target], constant[rays.own] - constant[target]
        scale = max(float(abs(margin).sum()), 1e-300)
        self.matrix = sp.vstack([*rows, sp.csr_matrix(margin / scale)]).tocsr()
        self.limit = np.concatenate([*limits, [-offset / scale]])

    def solve(self, seconds: float) -> tuple[float, Tensor | None, int]:
        """A proven lower bound of the distance, a point near the boundary if there is one, and HiGHS's nodes."""
        n, n_units = self.n, self.n_units
        cost = np.zeros(n + 1 + 2 * n_units)
        cost[n] = 1.0
        whole = np.concatenate([np.zeros(n + 1 + n_units), np.ones(n_units)])
        low = np.concatenate([self.change[0], np.zeros(1 + n_units), (self.bottom >= 0) * 1.0])
        high = np.concatenate([self.change[1], np.ones(1 + n_units), (self.top > 0) * 1.0])
        options = {"time_limit": seconds, "mip_rel_gap": 1e-9}
        constraint = _at_most(self.matrix, self.limit)
        found = milp(cost, constraints=constraint, bounds=_between(low, high), integrality=whole, options=options)
        margin = _TOLERANCE * float((high - low).sum())
        n_nodes = int(getattr(found, "mip_node_count", 0) or 0)
        if found.status == _INFEASIBLE:
            return self.radius * (1 - margin), None, n_nodes
        bound = found.fun if found.status == 0 and not whole.any() else getattr(found, "mip_dual_bound", None)
        # A limit that is reached before the first relaxation leaves no bound.
        proven = self.radius * max(float(bound) - margin, 0.0) if bound is not None and math.isfinite(bound) else 0.0
        if found.x is None:
            return proven, None, n_nodes
        # The piece that was found, once more without binary numbers, aimed past the boundary: exact to simplex.
        on = found.x[n + 1 + n_units :].round()
        limit = self.limit.copy()
        limit[-1] -= _PAST
        fixed = _between(np.concatenate([low[: n + 1 + n_units], on]), np.concatenate([high[: n + 1 + n_units], on]))
        piece = milp(cost, constraints=_at_most(self.matrix, limit), bounds=fixed)
        change = found.x[:n] if piece.x is None else piece.x[:n]
        return proven, self.rays.x0 + self.radius * torch.from_numpy(change), n_nodes

    def _intervals(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds ``(unit,)`` of the numbers before all ReLUs by interval arithmetic, moved outward by its rounding."""
        layers = self.rays.layers
        centre = self.rays.x0
        bottom, top = centre + self.radius * low, centre + self.radius * high
        size = torch.maximum(bottom.abs(), top.abs())
        bottoms, tops = [], []
        for weight, bias in zip(layers.weight[:-1], layers.bias[:-1], strict=True):
            size = weight.abs() @ size + bias.abs()
            slack = 4 * layers.rounding() * size
            positive, negative = weight.clamp(min=0), weight.clamp(max=0)
            bottom, top = positive @ bottom + negative @ top + bias, positive @ top + negative @ bottom + bias
            bottoms.append(bottom - slack)
            tops.append(top + slack)
            bottom, top = bottoms[-1].clamp(min=0), tops[-1].clamp(min=0)
        none = torch.zeros(0, dtype=torch.float64)
        return torch.cat([none, *bottoms]), torch.cat([none, *tops])

    def _distance_rows(self) -> tuple[list, list]:
        identity = sp.identity(self.n, format="csr")
        distance = sp.csr_matrix(np.ones((self.n, 1)))
        rest = sp.csr_matrix((self.n, 2 * self.n_units))
        rows = [sp.hstack([sign * identity, -distance, rest]) for sign in (1, -1)]
        return rows, [np.zeros(self.n), np.zeros(self.n)]

    def _place(self, weight: np.ndarray, column: int) -> Any:
        """``weight`` over all variables, its first column at ``column``."""
        total = self.n + 1 + 2 * self.n_units
        right = total - column - weight.shape[1]
        parts = [sp.csr_matrix((len(weight), column)), sp.csr_matrix(weight), sp.csr_matrix((len(weight), right))]
        return sp.hstack(parts).tocsr()

    def _relu_rows(self, before: Any, constant: np.ndarray, units: slice) -> tuple[list, list]:
        """p = relu(h) with h = before . variables + constant and o for on: h <= p <= h - bottom (1 - o), p <= top o,
        each divided by the range of h."""
        bottom, top = np.minimum(self.bottom[units], 0), np.maximum(self.top[units], 0)
        scale = 1 / np.maximum(top - bottom, 1e-300)
        scaled = sp.diags(scale)
        active = self._place(np.diag(top), self.n + 1 + units.start)
        on = self.n + 1 + self.n_units + units.start
        rows = [
            scaled @ (before - active),
            scaled @ (active - before - self._place(np.diag(bottom), on)),
            scaled @ (active - self._place(np.diag(top), on)),
        ]
        return rows, [-constant * scale, (constant - bottom) * scale, np.zeros_like(scale)]


def _between(low: Any, high: Any) -> Bounds:
    return Bounds(low, high)


def _at_most(matrix: Any, limit: Any) -> LinearConstraint:
    return LinearConstraint(matrix, -np.inf, limit)
