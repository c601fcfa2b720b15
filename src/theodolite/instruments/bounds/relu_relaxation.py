"""What a node of the branch and bound over ReLU signs knows, and its convex relaxation.

Within a ball around the input and the box, every number before a ReLU lies in an interval. A ReLU whose sign is known
is affine; any other is relaxed to the triangle 0 <= p, h <= p <= chord(h) (Ehlers 2017). Intervals of deeper layers
come from linear bounds carried back to the input (Zhang et al. 2018, 'Efficient Neural Network Robustness
Certification with General Activation Functions'), minimised over ball and box by the dual of the ball.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.dense_layers import DenseLayers
from theodolite.instruments.bounds.quadratic_programs import UNIT_ROUNDING, Programs, Solutions, left_side

_BALL_STEPS = 12


@final
@dataclass
class Nodes:
    """``bound (node,)``: proven distance within which the node has no flip; ``target (node,)``; ``sign (node, unit)``
    int8: 1 on, -1 off, 0 either; ``low``, ``high (node, unit)`` of the number before each ReLU. Units are those of all
    layers, one after the other."""

    bound: Tensor
    target: Tensor
    sign: Tensor
    low: Tensor
    high: Tensor

    def select(self, index: Tensor) -> Nodes:
        """The nodes of ``index``."""
        return Nodes(*(getattr(self, field.name)[index] for field in fields(self)))

    def join(self, other: Nodes) -> Nodes:
        """Both, one after the other."""
        return Nodes(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def divided(self, unit: Tensor) -> Nodes:
        """The two children of each node: ``unit (node,)`` on, and off."""
        row = torch.arange(len(unit))
        on, off = self.select(row), self.select(row)
        on.sign[row, unit], off.sign[row, unit] = 1, -1
        on.low[row, unit] = on.low[row, unit].clamp(min=0)
        off.high[row, unit] = off.high[row, unit].clamp(max=0)
        return on.join(off)


def first_nodes(relaxation: Relaxation, targets: list[int]) -> Nodes:
    """A node for each target class, with nothing known of any ReLU."""
    shape = (len(targets), relaxation.n_units)
    return Nodes(
        torch.zeros(len(targets), dtype=torch.float64),
        torch.tensor(targets, dtype=torch.int64),
        torch.zeros(shape, dtype=torch.int8),
        torch.full(shape, -torch.inf, dtype=torch.float64),
        torch.full(shape, torch.inf, dtype=torch.float64),
    )


def least(weight: Tensor, low: Tensor, high: Tensor, radius: float) -> Tensor:
    """Proven minimum ``(...)`` of weight . d for ``weight (..., n)`` over |d| <= radius, low <= d <= high ``(n,)``.

    max over mu of min over the box of weight . d + (|d|^2 - radius^2) / (2 mu): any mu gives a bound; mu is bisected to
    where the minimiser has length radius. Moved down by the rounding of sums of n terms.
    """
    length = weight.norm(dim=-1).clamp(min=1e-300)
    unit = weight / length[..., None]
    box = torch.minimum(unit * low, unit * high).sum(-1)
    below = torch.full_like(length, -1.0)
    above = torch.full_like(length, 20.0)
    for _ in range(_BALL_STEPS):
        middle = 0.5 * (below + above)
        d = (-(radius * middle.exp())[..., None] * unit).clamp(low, high)
        long = d.norm(dim=-1) > radius
        below, above = torch.where(long, below, middle), torch.where(long, middle, above)
    scale = radius * below.exp()
    d = (-scale[..., None] * unit).clamp(low, high)
    ball = (unit * d).sum(-1) + (d.square().sum(-1) - radius**2) / (2 * scale)
    found = torch.maximum(torch.maximum(ball, box), torch.full_like(box, -radius))
    size = unit.abs().sum(-1) * torch.maximum(low.abs(), high.abs()).clamp(max=radius).max() + radius
    return length * (found - 8 * (weight.shape[-1] + 8) * UNIT_ROUNDING * size)


@final
@dataclass(frozen=True)
class Relaxed:
    """The programs of some nodes, in displacements divided by the radius and activations divided by their largest value
    ``top (node, unit)``; rows of units: the triangle's lower side or the sign, then its chord, then the margin, each
    divided by ``scale (node, m)``; ``unit (f,)``: which units the rows and the free numbers belong to."""

    programs: Programs
    scale: Tensor
    top: Tensor
    unit: Tensor

    def select(self, index: Tensor) -> Relaxed:
        """Those of the nodes of ``index``."""
        return Relaxed(self.programs.select(index), self.scale[index], self.top[index], self.unit)


@final
class Relaxation:
    """The relaxations around one input ``x0 (n,)``: within the box ``low``, ``high`` ``(n,)`` and a ball of ``radius``.

    Where the box is infinite and there are fewer units in the first layer than inputs, displacements are kept in the
    space that the first layer sees: what lies outside it only adds to the distance.
    """

    def __init__(self, layers: DenseLayers, x0: Tensor, own: int, low: Tensor, high: Tensor, radius: float) -> None:
        self.layers, self.x0, self.own = layers, x0, own
        self._box_low, self._box_high = low, high
        self._first, self._rotation = layers.weight[0], torch.eye(len(x0), dtype=torch.float64)
        self._free = bool((low.isinf() & high.isinf()).all()) and len(layers.weight[0]) < len(x0)
        if self._free:
            turn = torch.linalg.qr(layers.weight[0].T)[0]
            # Shorter than orthonormal, so that no displacement grows by the turn; what it loses is in the slack.
            defect = (turn.T @ turn - torch.eye(turn.shape[1], dtype=torch.float64)).norm()
            self._rotation = turn / (1 + defect + 1e-14)
            self._first = layers.weight[0] @ turn
        lost = (layers.weight[0] - self._first @ self._rotation.T).norm(dim=1) if self._free else 0.0
        self._lost = lost + 4 * len(x0) * UNIT_ROUNDING * layers.weight[0].norm(dim=1)
        self._centre = x0 @ layers.weight[0].T + layers.bias[0]
        ends = torch.tensor([0] + [len(bias) for bias in layers.bias[:-1]]).cumsum(0).tolist()
        self._slices = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        self.n_units = ends[-1]
        self.shrink(radius)

    def shrink(self, radius: float) -> None:
        """Only points nearer than ``radius`` matter from now on."""
        self.radius = radius
        if self._free:
            self._low = torch.full((self._first.shape[1],), -radius, dtype=torch.float64)
            self._high = -self._low
        else:
            # Outward by the rounding of the difference, and of the quotient with the radius later on.
            outward = 8 * UNIT_ROUNDING
            low, high = self._box_low - self.x0, self._box_high - self.x0
            self._low = (low - outward * (self._box_low.abs() + self.x0.abs())).clamp(min=-radius)
            self._high = (high + outward * (self._box_high.abs() + self.x0.abs())).clamp(max=radius)
        # A coordinate without freedom keeps a span, for the interior of the programs, and loses its weight.
        stuck = (self._box_high <= self._box_low) if not self._free else torch.zeros_like(self._low, dtype=torch.bool)
        self._low, self._high = self._low.masked_fill(stuck, -radius), self._high.masked_fill(stuck, radius)
        self._seen = self._first.masked_fill(stuck, 0.0)
        size, lost = self.x0.abs() + radius, self._lost * radius
        self._slack = []
        for layer, (weight, bias) in enumerate(zip(self.layers.weight, self.layers.bias, strict=True)):
            size = weight.abs() @ size + bias.abs()
            lost = weight.abs() @ lost if layer else lost
            self._slack.append(4 * self.layers.rounding() * size + lost)
        first_low = self._centre + least(self._seen, self._low, self._high, radius) - self._slack[0]
        first_high = self._centre - least(-self._seen, self._low, self._high, radius) + self._slack[0]
        self._first_interval = first_low, first_high
        self._root = None
        self._root = self.tightened(first_nodes(self, [0]))
        self._unit = ((self._root.low[0] < 0) & (self._root.high[0] > 0)).nonzero()[:, 0]

    def points(self, d: Tensor) -> Tensor:
        """Inputs ``(program, n)`` of scaled displacements ``(program, n or less)``, inside the box."""
        x = self.x0 + self.radius * d @ self._rotation.T if self._free else self.x0 + self.radius * d
        return torch.minimum(torch.maximum(x, self._box_low), self._box_high)

    def tightened(self, nodes: Nodes) -> Nodes:
        """The nodes with proven intervals, and the signs that follow; without those proven to be empty."""
        low, high = nodes.low.clone(), nodes.high.clone()
        for layer, units in enumerate(self._slices):
            new_low, new_high = self._first_interval if layer == 0 else self._interval(layer, low, high)
            low[:, units] = torch.maximum(low[:, units], new_low)
            high[:, units] = torch.minimum(high[:, units], new_high)
            if self._root is not None:
                # Lines chosen for a part of the inputs may bound one unit worse than those for all.
                low[:, units] = torch.maximum(low[:, units], self._root.low[:, units])
                high[:, units] = torch.minimum(high[:, units], self._root.high[:, units])
        possible = (low <= high).all(1).nonzero()[:, 0]
        sign = torch.where(low >= 0, 1, torch.where(high <= 0, -1, nodes.sign)).to(torch.int8)
        return Nodes(nodes.bound, nodes.target, sign, low, high).select(possible)

    def _interval(self, layer: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds ``(node, n_layer)`` of a deeper layer, carried back to the input through lines around each ReLU."""
        weight = self.layers.weight[layer]
        rows = torch.cat([weight, -weight]).expand(len(low), -1, -1)
        bias = self.layers.bias[layer]
        constant = torch.cat([bias, -bias]).expand(len(low), -1)
        for before in range(layer - 1, -1, -1):
            bottom, top = low[:, self._slices[before]], high[:, self._slices[before]]
            span = (top.clamp(min=0) - bottom.clamp(max=0)).clamp(min=1e-300)
            upper = torch.where(bottom >= 0, 1.0, top.clamp(min=0) / span)
            intercept = torch.where(bottom >= 0, 0.0, -upper * bottom.clamp(max=0))
            lower = torch.where(bottom >= 0, 1.0, ((top > -bottom) & (top > 0)).double())
            constant = constant + (rows.clamp(max=0) * intercept[:, None]).sum(2)
            rows = rows.clamp(min=0) * lower[:, None] + rows.clamp(max=0) * upper[:, None]
            constant = constant + rows @ self.layers.bias[before]
            if before:
                rows = rows @ self.layers.weight[before]
        at_input = constant + rows @ (self._centre - self.layers.bias[0])
        found = at_input + least(rows @ self._seen, self._low, self._high, self.radius)
        slack = self._slack[layer]
        return found[:, : len(bias)] - slack, -found[:, len(bias) :] + slack

    def programs(self, nodes: Nodes) -> Relaxed:
        """One program a node; every inequality is loosened by what rounding may have changed."""
        unit, n_nodes = self._unit, len(nodes.bound)
        n_first, n_free = len(self._centre), len(unit)
        column = torch.full((self.n_units,), -1)
        column[unit] = torch.arange(n_free)
        top = nodes.high[:, unit].clamp(min=1e-300)
        free = nodes.sign[:, unit] == 0
        before: list[Tensor] = []
        affine = torch.zeros((n_nodes, n_first, n_first + n_free + 1), dtype=torch.float64)
        affine[:, :, :n_first] = torch.eye(n_first, dtype=torch.float64)
        affine[:, :, -1] = self._centre
        for layer, units in enumerate(self._slices):
            before.append(affine)
            sign, where = nodes.sign[:, units], column[units]
            after = affine * (sign == 1)[:, :, None]
            row, position = (sign == 0).nonzero(as_tuple=True)
            after[row, position, n_first + where[position]] = top[row, where[position]]
            affine = self.layers.weight[layer + 1] @ after
            affine[:, :, -1] += self.layers.bias[layer + 1]
        node = torch.arange(n_nodes)
        margin = affine[:, self.own] - affine[node, nodes.target]
        numbers = torch.cat(before, 1)[:, unit] if before else affine[:, :0]
        direction = torch.where(free, 1.0, -nodes.sign[:, unit].double())
        side = numbers * direction[:, :, None]
        span = (nodes.high - nodes.low)[:, unit].clamp(min=1e-300)
        slope = torch.where(free, nodes.high[:, unit] / span, 0.0)
        chord = -numbers * slope[:, :, None]
        chord[:, :, -1] += slope * nodes.low[:, unit]
        own = torch.arange(n_free)
        side[:, own, n_first + own] -= torch.where(free, top, 0.0)
        chord[:, own, n_first + own] += torch.where(free, top, 0.0)
        rows = torch.cat([side, chord, margin[:, None]], 1)
        slack = torch.cat(self._slack[:-1])[unit] if before else self._slack[0][:0]
        last = self._slack[-1][self.own] + self._slack[-1][nodes.target]
        slack = torch.cat([slack.expand(n_nodes, -1), 2 * slack.expand(n_nodes, -1), last[:, None]], 1)
        on_base, on_free, limit = rows[:, :, :n_first], rows[:, :, n_first:-1], slack - rows[:, :, -1]
        base = self.radius * self._seen
        scale = ((on_base @ base).square().sum(2) + on_free.square().sum(2)).sqrt()
        limit = torch.where((scale == 0) & (limit >= 0), 1.0, limit)  # says nothing, and must not look tight
        scale = torch.where(scale > 0, scale, 1.0)
        programs = Programs(
            base,
            self._low / self.radius * (1 + 4 * UNIT_ROUNDING),
            self._high / self.radius * (1 + 4 * UNIT_ROUNDING),
            on_base / scale[:, :, None],
            on_free / scale[:, :, None],
            limit / scale,
        )
        return Relaxed(programs, scale, top, unit)

    def fixed_at(self, nodes: Nodes, x: Tensor) -> Nodes:
        """The nodes with every ReLU of the sign that it has at ``x (node, n)``: one affine piece of the network."""
        before = self.layers.hidden(x)
        sign = torch.where(torch.cat(before, 1) > 0, 1, -1) if before else nodes.sign
        return Nodes(nodes.bound, nodes.target, sign.to(torch.int8), nodes.low, nodes.high)


def worst(nodes: Nodes, relaxed: Relaxed, found: Solutions) -> tuple[Tensor, Tensor]:
    """The ReLU ``(node,)`` to branch on, and whether there is one ``(node,)``.

    The one whose chord costs most: its multiplier times how far the relaxed activation lies above the true one; where
    none lies above, the widest.
    """
    if not len(relaxed.unit):
        return torch.zeros(len(nodes.bound), dtype=torch.int64), torch.zeros(len(nodes.bound), dtype=torch.bool)
    n_free = len(relaxed.unit)
    slack = (relaxed.programs.limit - left_side(relaxed.programs, found.d, found.p)) * relaxed.scale
    multiplier = (found.multiplier / relaxed.scale)[:, n_free : 2 * n_free]
    above = torch.minimum(slack[:, :n_free], found.p * relaxed.top).clamp(min=0)
    low, high = nodes.low[:, relaxed.unit], nodes.high[:, relaxed.unit]
    width = torch.minimum(-low, high).clamp(min=0)
    score = multiplier * above + 1e-9 * above + 1e-15 * width
    free = nodes.sign[:, relaxed.unit] == 0
    return relaxed.unit[torch.where(free, score, -1.0).argmax(1)], free.any(1)
