"""Linear lower bounds of a network's values around an input, carried back layer by layer.

Source: Zhang et al. 2018, 'Efficient Neural Network Robustness Certification with General Activation Functions'
(CROWN), with the least value taken over ball and box together.

Rounding. All is float64, and every bound is lowered by a proven margin, so that it holds for the network in exact
arithmetic and for its outputs evaluated in float64 in any order of summation. A row A over a node of values v (at most
``magnitude`` in size) that passes an affine map with sums of at most N terms changes by rounding at most by
N u |L|' |A|, which acts on values of size at most M: N u |A| . (|L| M + |b|). The float64 evaluation of the map itself
errs by no more than that again. So 2 (N + 8) u |A| . magnitude is taken off at every node, u = 2^-53, the 8 for the
activations' own rounding, folded constants and the sums of several paths. The kernels take off the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.activation_lines import UNIT_ROUNDING, Lines, lines, values
from theodolite.instruments.bounds.bound_kernels import (
    lowest_in_ball,
    lowest_in_polytope,
    through_activation,
    weighed,
)
from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine

_CHUNK_NUMBERS = 2**22  # of rows carried back at once: what stays within the memory of a small machine
_NARROW = 1e-9  # an interval not worth narrowing
_SLACK = 1.0 + 1e-6  # on magnitudes, for their own rounding


@final
@dataclass(frozen=True)
class Surroundings:
    """Where counterexamples to an input may lie: ``centre (n,)`` plus a change in [``low``, ``high``] ``(n,)`` of
    limited ``norm`` ("L2", "L1", "Linf")."""

    centre: Tensor
    low: Tensor
    high: Tensor
    norm: str = "L2"


@final
@dataclass(frozen=True)
class LinearBound:
    """value >= slope . d + constant for every change d of the surroundings: ``slope (row, n)``, ``constant (row,)``."""

    slope: Tensor
    constant: Tensor

    def select(self, index: Tensor) -> LinearBound:
        """The rows of ``index``."""
        return LinearBound(self.slope[index], self.constant[index])


@final
@dataclass(frozen=True)
class Caps:
    """For every margin, where its counterexamples lie: |d| <= ``radius (margin,)`` and, if ``bound`` is given,
    ``bound.slope . d + bound.constant <= 0``."""

    radius: Tensor
    bound: LinearBound | None = None

    def select(self, index: Tensor) -> Caps:
        """The margins of ``index``."""
        return Caps(self.radius[index], None if self.bound is None else self.bound.select(index))


@final
@dataclass
class Intervals:
    """``low[k]``, ``high[k]`` ``(margin, size)`` of the arguments of activation k, and its ``lines``, for ``n_margins``
    margins."""

    low: dict[int, Tensor]
    high: dict[int, Tensor]
    lines: dict[int, Lines]
    n_margins: int

    def select(self, index: Tensor) -> Intervals:
        """The margins of ``index``."""
        low, high = ({k: v[index] for k, v in ends.items()} for ends in (self.low, self.high))
        return Intervals(low, high, {k: line.select(index) for k, line in self.lines.items()}, len(index))

    def empty(self) -> Tensor:
        """``(margin,)`` bool: some argument has no value left, so that the margin has no counterexample.

        Both ends are proven, so that a crossing is a proof as well.
        """
        crossed = torch.zeros(self.n_margins, dtype=torch.bool)
        for k in self.low:
            crossed |= (self.low[k] > self.high[k]).any(1)
        return crossed


@final
class LinearBounds:
    """Bounds of the values of one graph around one input, for changes up to ``radius``.

    The first call must be ``intervals(caps)`` with caps of that radius: it also finds the magnitudes that all margins
    of rounding are made of.
    """

    def __init__(self, graph: LayerGraph, surroundings: Surroundings, radius: float) -> None:
        self.graph = graph
        self.surroundings = surroundings
        reach = torch.maximum(surroundings.low.clamp(min=-radius).abs(), surroundings.high.clamp(max=radius).abs())
        self.size = (surroundings.centre.abs() + reach) * _SLACK
        self._magnitude: list[Tensor] = [self.size]  # of node k: at least the absolute values added for its value
        self._value_size: dict[int, Tensor] = {}
        self._argument_size: dict[int, Tensor] = {}
        self._first: dict[int, LinearBound] = {}
        self._offset = {
            k: node.offset() for k, node in enumerate(graph.nodes, 1) if isinstance(node, Affine) and node.n_terms
        }

    # ------------------------------------------------------------------ all layers

    def intervals(self, caps: Caps, known: Intervals | None = None) -> Intervals:
        """Intervals of the arguments of all activations, one layer after the other, within ``known``.

        Only arguments whose activation bends are bounded anew. Margins whose interval becomes empty have no
        counterexample in their cap.
        """
        found = Intervals({}, {}, {}, len(caps.radius))
        for index in self.graph.activations:
            node = self._activation(index)
            self._measure(node.inputs[0])
            low, high = self._argument(index, caps, known, found.lines)
            found.low[index], found.high[index] = low, high
            found.lines[index] = lines(node, low, high)
            if known is None:
                self._remember(index, low, high)
        self._measure(self.graph.n_nodes - 1)
        return found

    def margins(self, rows: Tensor, owner: Tensor, intervals: Intervals) -> LinearBound:
        """Lower bounds of ``rows (row, K)`` . outputs, with the intervals of the margins ``owner (row,)``."""
        return self._carried_back(self.graph.n_nodes - 1, rows.clone(), owner, intervals.lines)

    def lowest(self, bound: LinearBound, owner: Tensor, caps: Caps, *, sign_only: bool = False) -> Tensor:
        """Proven least value ``(row,)`` of linear bounds over the caps ``owner (row,)``; see `bound_kernels`."""
        normal, offset = (
            (torch.zeros((len(caps.radius), bound.slope.shape[1]), dtype=torch.float64), torch.zeros_like(caps.radius))
            if caps.bound is None
            else (caps.bound.slope, caps.bound.constant)
        )
        reach = float(caps.radius.max()) if len(caps.radius) else 0.0
        low, high = self.surroundings.low.clamp(min=-reach), self.surroundings.high.clamp(max=reach)
        lowest = torch.empty(len(bound.slope), dtype=torch.float64)
        arrays = (
            bound.slope.contiguous().numpy(),
            bound.constant.numpy(),
            owner.numpy(),
            low.numpy(),
            high.numpy(),
            caps.radius.contiguous().numpy(),
            normal.contiguous().numpy(),
            offset.contiguous().numpy(),
            caps.bound is not None,
        )
        if self.surroundings.norm == "L2":
            lowest_in_ball(*arrays, sign_only, 24 if caps.bound is None else 12, lowest.numpy())
        else:
            lowest_in_polytope(*arrays, self.surroundings.norm == "L1", 24, lowest.numpy())
        return lowest

    # ------------------------------------------------------------------ one layer

    def _argument(
        self, index: int, caps: Caps, known: Intervals | None, relaxed: dict[int, Lines]
    ) -> tuple[Tensor, Tensor]:
        node = self._activation(index)
        source, n_margins = node.inputs[0], len(caps.radius)
        if known is None:
            low = torch.full((n_margins, node.size), -torch.inf, dtype=torch.float64)
            high = -low
        else:
            low, high = known.low[index].clone(), known.high[index].clone()
        piecewise = node.kind == "piecewise"
        bends = (low < 0) & (high > 0) & (node.slope != 1) if piecewise else high - low > _NARROW
        owner, unit = bends.nonzero(as_tuple=True)
        if not len(owner):
            return low, high
        sign_only = piecewise and known is not None
        size = max(self.graph.size(k) for k in range(source + 1))
        for chunk in torch.arange(len(owner)).split(max(1, _CHUNK_NUMBERS // (2 * size))):
            margin, units = owner[chunk].repeat(2), unit[chunk].repeat(2)
            sign = torch.ones(len(margin), dtype=torch.float64)
            sign[len(chunk) :] = -1.0
            bound = self._units(source, units, sign, margin, relaxed)
            least = self.lowest(bound, margin, caps, sign_only=sign_only)
            where = owner[chunk], unit[chunk]
            new_low, new_high = least[: len(chunk)], -least[len(chunk) :]
            low[where] = torch.where(new_low > low[where], new_low, low[where])
            high[where] = torch.where(new_high < high[where], new_high, high[where])
        return low, high

    def _units(self, source: int, units: Tensor, sign: Tensor, owner: Tensor, relaxed: dict[int, Lines]) -> LinearBound:
        """Lower bounds of single numbers of a node, times their signs."""
        if source in self._first:
            return self._first[source].select(units + self.graph.size(source) * (sign < 0))
        rows = torch.zeros((len(units), self.graph.size(source)), dtype=torch.float64)
        rows[torch.arange(len(units)), units] = sign
        return self._carried_back(source, rows, owner, relaxed)

    def _carried_back(self, index: int, rows: Tensor, owner: Tensor, relaxed: dict[int, Lines]) -> LinearBound:
        """Lower bounds of ``rows (row, size)`` . value of node ``index``; the rows are used up."""
        n_rows = len(rows)
        constant = torch.zeros(n_rows, dtype=torch.float64)
        margin = torch.zeros(n_rows, dtype=torch.float64)
        pending = {index: rows}
        for k in range(index, 0, -1):
            if k not in pending:
                continue
            rows, node = pending.pop(k).contiguous(), self.graph.node(k)
            absolute = torch.zeros(n_rows, dtype=torch.float64)
            if isinstance(node, Activation):
                line = relaxed[k]
                through_activation(
                    rows.numpy(),
                    owner.numpy(),
                    line.slope_low.numpy(),
                    line.intercept_low.numpy(),
                    line.slope_high.numpy(),
                    line.intercept_high.numpy(),
                    self._argument_size[k].numpy(),
                    constant.numpy(),
                    absolute.numpy(),
                )
                _accumulate(pending, node.inputs[0], rows)
                margin += 2 * (node.size + 8) * UNIT_ROUNDING * absolute
                continue
            if node.n_terms:
                constant += rows @ self._offset[k]
                weighed(rows.numpy(), self._magnitude[k].numpy(), absolute.numpy())
                margin += 2 * (node.size + node.n_terms + 8) * UNIT_ROUNDING * absolute
            for source, part in zip(node.inputs, node.transpose(rows.reshape(n_rows, *node.shape)), strict=True):
                _accumulate(pending, source, part.reshape(n_rows, -1))
        slope = pending[0].contiguous()
        absolute = torch.zeros(n_rows, dtype=torch.float64)
        weighed(slope.numpy(), self._magnitude[0].numpy(), absolute.numpy())
        margin += 2 * (slope.shape[1] + 8) * UNIT_ROUNDING * absolute
        return LinearBound(slope, constant + slope @ self.surroundings.centre - margin)

    # ------------------------------------------------------------------ sizes

    def _measure(self, index: int) -> None:
        """Magnitudes of all nodes up to ``index``, and the bounds of units that no activation comes before."""
        for k in range(len(self._magnitude), index + 1):
            node = self.graph.node(k)
            if isinstance(node, Activation):
                self._magnitude.append(self._value_size[k])
                continue
            inputs = [
                self._magnitude[source].reshape(1, *shape)
                for source, shape in zip(node.inputs, node.input_shapes, strict=True)
            ]
            self._magnitude.append(node.apply_absolute(inputs).reshape(-1) * _SLACK)
        size = self.graph.size(index)
        if index not in self._first and self._affine(index) and 2 * size * len(self.size) <= _CHUNK_NUMBERS * 2:
            identity = torch.eye(size, dtype=torch.float64)
            rows = torch.cat([identity, -identity])
            self._first[index] = self._carried_back(index, rows, torch.zeros(len(rows), dtype=torch.int64), {})

    def _remember(self, index: int, low: Tensor, high: Tensor) -> None:
        node = self._activation(index)
        self._argument_size[index] = torch.maximum(low.abs(), high.abs()).amax(0) * _SLACK
        at_ends = torch.maximum(values(node, low).abs(), values(node, high).abs())
        self._value_size[index] = at_ends.amax(0) * _SLACK

    def _affine(self, index: int) -> bool:
        return index == 0 or (
            isinstance(self.graph.node(index), Affine) and all(self._affine(k) for k in self.graph.node(index).inputs)
        )

    def _activation(self, index: int) -> Activation:
        node = self.graph.node(index)
        if not isinstance(node, Activation):
            raise TypeError(f"node {index} is no activation")
        return node


def _accumulate(pending: dict[int, Tensor], source: int, rows: Tensor) -> None:
    pending[source] = pending[source] + rows if source in pending else rows
