"""How far an input is from any flip at least, from how steep a network can be: proven Lipschitz constants.

Global: the product of the norms of the layers and of the greatest slopes of the activations (Szegedy et al. 2014,
'Intriguing properties of neural networks', section 4.3; Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation:
Flip Points and Homotopy Methods', eq. 15 in the infinity norm, without the softmax). Local: slopes over the intervals
that the numbers before each activation can reach within a ball. The last layer enters by the differences of its rows,
one for each pair of classes. Distances and norms are all L2, all L1 or all Linf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.bounds.layer_graph import LayerGraph, layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.layer_steps import OUTWARD, POWER, Step, greatest_slopes, product, steps_of
from theodolite.instruments.bounds.operator_norms import Norm, checked_norm
from theodolite.network import Network

_UNIT_ROUNDING = 2.0**-53
_GROWTH = (2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.3, 1.2, 1.1, 1.05)  # of the radius, from the distance proven so far
_LARGEST_GRAM = 256  # side of a matrix whose norm is worth computing for every image


@final
@dataclass(frozen=True)
class LipschitzBounds:
    """``layer`` names of the nodes with a bound of their own, ``bound (layer,)`` float64 of each alone, and
    ``network``: of all outputs together, from input units to logits. inf where a weight is not finite."""

    norm: str
    layer: tuple[str, ...]
    bound: Tensor
    network: float


@final
@dataclass(frozen=True)
class LipschitzDistances:
    """``distance (image, K)`` float64: no point nearer gives this class at least the output of the own class, proven
    (inf for the own class, 0 where that does not lead); ``margin (image, K)`` own output minus the class's, less its
    rounding; ``slope (image, K)`` the bound of how fast that margin can fall that proves the distance."""

    distance: Tensor
    margin: Tensor
    slope: Tensor


def lipschitz_bounds(network: Network | LayerGraph, norm: str = "L2") -> LipschitzBounds:
    """Bounds of every layer, and of the whole network, wherever the input.

    Raises:
        UserError: an unknown norm.
        UnsupportedLayer: a layer whose slope nothing is known of.
    """
    kind = checked_norm(norm)
    graph = network if isinstance(network, LayerGraph) else layer_graph(network, curves=True)
    steps = steps_of(graph, kind)
    telling = [step for step in steps if step.name]
    return LipschitzBounds(
        norm,
        tuple(step.name for step in telling),
        torch.tensor([max(step.factors) for step in telling], dtype=torch.float64),
        product(steps, graph.n_nodes),
    )


def lipschitz_distance(
    network: Network | LayerGraph,
    inputs: Tensor,
    own: Tensor,
    *,
    norm: str = "L2",
    local: bool = True,
    upper: Tensor | None = None,
) -> LipschitzDistances:
    """Proven distances to each class from ``inputs (image, *shape)`` of class ``own (image,)``.

    A margin m that falls by at most s for each unit of distance within a radius r is positive nearer than
    min(r, m / s). ``local``: s comes from slopes within balls of several radii, up to ``upper (image,)`` where a flip
    is known; the best counts. Else from the slopes anywhere. Margins are lowered by what rounding may have added in
    float64.

    Raises:
        UserError: an unknown norm; classes that the network does not have; wrong shapes.
        UnsupportedLayer: a layer whose slope nothing is known of.
    """
    kind = checked_norm(norm)
    graph = network if isinstance(network, LayerGraph) else layer_graph(network, curves=True)
    x = inputs.detach().double().reshape(len(inputs), *graph.shape)
    if own.shape != (len(x),) or bool(((own < 0) | (own >= graph.n_outputs)).any()):
        raise UserError(
            "own", f"a class of 0..{graph.n_outputs - 1} for each of {len(x)} inputs", f"{tuple(own.shape)}", "give one"
        )
    survey = _Survey(graph, kind, x, own)
    margin = survey.margin
    slope = survey.slopes(None)
    distance = margin / slope
    if local:
        for factor in _GROWTH:
            nearest = torch.where(distance > 0, distance, torch.inf).amin(1)
            radius = factor * torch.where(nearest.isfinite(), nearest, 0.0)
            radius = radius if upper is None else torch.minimum(radius, upper.double())
            here = survey.slopes(radius)
            found = torch.minimum(margin / here, radius[:, None])
            better = found > distance
            distance, slope = torch.where(better, found, distance), torch.where(better, here, slope)
    distance = torch.where(margin > 0, distance / OUTWARD, 0.0).nan_to_num(0.0, posinf=torch.inf)
    return LipschitzDistances(distance.scatter(1, own[:, None], torch.inf), margin, slope)


def local_bounds(
    network: Network | LayerGraph, inputs: Tensor, radius: float, norm: str = "L2", *, steps: list[Step] | None = None
) -> Tensor:
    """``(image,)``: no two points within ``radius`` of an input ``(image, *shape)`` have outputs that differ by more
    than this for each unit of distance between them, in the norm; proven. ``steps`` with their factors, where known.

    Raises:
        UserError: an unknown norm, a radius that is not above 0.
        UnsupportedLayer: a layer whose slope nothing is known of.
    """
    kind = checked_norm(norm)
    if not (math.isfinite(radius) and radius > 0):
        raise UserError("radius", "a finite distance above 0", str(radius), "give it in input units")
    graph = network if isinstance(network, LayerGraph) else layer_graph(network, curves=True)
    x = inputs.detach().double().reshape(len(inputs), *graph.shape)
    survey = _Survey(graph, kind, x, torch.zeros(len(x), dtype=torch.long), steps)
    return survey.network_slopes(torch.full((len(x),), float(radius), dtype=torch.float64)).nan_to_num(torch.inf)


def rounding_errors(
    graph: LayerGraph, steps: Sequence[Step], values: Sequence[Tensor], norm: Norm
) -> dict[int, Tensor]:
    """``(image,)`` a node: by how much its computed ``values[node] (image, *shape)`` may be off, in the norm; a sum of
    k terms by less than 2 k u times the sum of their absolute values. ``steps`` with their factors."""
    error = {0: torch.zeros(len(values[0]), dtype=torch.float64)}
    for step in steps:
        node = graph.node(step.index)
        if isinstance(node, Affine) and step.first == step.index:
            size = node.apply_absolute([values[k].abs() for k in node.inputs])
            share = 2 * (node.n_terms + 8) * _UNIT_ROUNDING
        elif isinstance(node, Activation) and node.curve is not None:
            # Their values may be differences of larger numbers.
            size = values[step.index].abs() + values[node.inputs[0]].abs() + 1
            share = 64 * _UNIT_ROUNDING + 2 * node.curve.jump
        else:
            size, share = values[step.index], 64 * _UNIT_ROUNDING
        added = share * torch.linalg.vector_norm(size.flatten(1), POWER[norm], dim=1)
        error[step.index] = step.combined([error[k] for k in step.inputs]) + added
    return error


@final
class _Survey:
    """What slopes are made of, for some inputs ``x (image, *shape)`` of class ``own (image,)``."""

    def __init__(self, graph: LayerGraph, norm: Norm, x: Tensor, own: Tensor, steps: list[Step] | None = None) -> None:
        self.graph, self.own = graph, own
        self.norm: Norm = norm
        self.steps = steps_of(graph, norm) if steps is None else steps
        self.values = graph.values(x)
        self.error = rounding_errors(graph, self.steps, self.values, norm)
        last = self.error[graph.n_nodes - 1]
        output = self.values[-1]
        leading = output.gather(1, own[:, None])
        rounding = 2 * last[:, None] + 2 * _UNIT_ROUNDING * (leading.abs() + output.abs())
        self.margin = leading - output - rounding

    def slopes(self, radius: Tensor | None) -> Tensor:
        """``(image, K)``: how fast each margin can fall for each unit of distance, within ``radius (image,)`` of each
        input, or anywhere."""
        return self._last(*self._reach(radius))

    def network_slopes(self, radius: Tensor) -> Tensor:
        """``(image,)``: how fast all outputs together can change within ``radius (image,)`` of each input."""
        return self._reach(radius)[0][self.graph.n_nodes - 1]

    def _reach(self, radius: Tensor | None) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """``(image,)`` a node: the slope from the input; ``(image, unit)`` an activation: the slope of each unit."""
        reach = {0: torch.ones(len(self.own), dtype=torch.float64)}
        slope: dict[int, Tensor] = {}
        for step in self.steps:
            node = self.graph.node(step.index)
            found = step.combined([reach[k] for k in step.inputs])
            if isinstance(node, Activation):
                slope[step.index] = self._activation_slopes(step.index, node, reach, radius)
                found = torch.minimum(found, slope[step.index].amax(1) * reach[node.inputs[0]] * OUTWARD)
            elif (
                isinstance(node, Affine) and node.kind == "linear" and step.inputs[0] in slope and len(node.shape) == 1
            ):
                source = step.inputs[0]
                if radius is not None and node.weight is not None:
                    stretched = self._stretched(node.weight, slope[source])
                    before = self.graph.node(source).inputs[0]
                    found = torch.minimum(found, stretched * reach[before] * OUTWARD)
            reach[step.index] = found
        return reach, slope

    def _last(self, reach: dict[int, Tensor], slope: dict[int, Tensor]) -> Tensor:
        """The margins' own slopes from the differences of the last layer's rows."""
        node = self.graph.nodes[-1]
        if isinstance(node, Activation) or node.kind != "linear" or node.weight is None:
            # Two outputs change by at most this much against each other, where all change by 1 together.
            apart = {"L2": math.sqrt(2), "L1": 1.0, "Linf": 2.0}[self.norm]
            return (apart * OUTWARD * reach[self.graph.n_nodes - 1])[:, None].expand(-1, self.graph.n_outputs)
        rows = node.weight[self.own][:, None] - node.weight
        source = node.inputs[0]
        before = reach[source]
        if source in slope:
            rows = rows * slope[source][:, None]
            before = reach[self.graph.node(source).inputs[0]]
        outward = OUTWARD + 4 * rows.shape[2] * _UNIT_ROUNDING
        return torch.linalg.vector_norm(rows, _dual(self.norm), dim=2) * before[:, None] * outward

    def _activation_slopes(
        self, index: int, node: Activation, reach: dict[int, Tensor], radius: Tensor | None
    ) -> Tensor:
        """``(image, unit)``: the greatest slope of each over what it can see within ``radius``."""
        if radius is None:
            return greatest_slopes(node).expand(len(self.own), node.size)
        source = node.inputs[0]
        centre = self.values[source].flatten(1)
        spread = (reach[source] * radius)[:, None].expand_as(centre)
        before = self.graph.node(source) if source else None
        if isinstance(before, Affine) and before.kind in ("linear", "convolution") and before.weight is not None:
            of_row = torch.linalg.vector_norm(before.weight.flatten(1), _dual(self.norm), dim=1)
            shape = (-1, 1, 1) if before.kind == "convolution" else before.shape
            of_row = of_row.reshape(shape).expand(before.shape).reshape(-1)
            spread = torch.minimum(spread, of_row * (reach[before.inputs[0]] * radius)[:, None])
        spread = spread * (OUTWARD + 4 * centre.shape[1] * _UNIT_ROUNDING) + self.error[source][:, None]
        if node.curve is not None:
            return node.curve.within(centre - spread, centre + spread)
        if node.kind == "piecewise":
            below = torch.where(centre - spread < 0, node.slope.abs(), 0.0)
            return torch.maximum(below, (centre + spread >= 0).double())
        nearest = (centre.abs() - spread).clamp(min=0)
        steepest = {
            "erf": lambda t: 2 / math.sqrt(math.pi) * torch.exp(-t.square()),
            "tanh": lambda t: 1 / torch.cosh(t.clamp(max=300)).square(),
            "sigmoid": lambda t: torch.sigmoid(t) * torch.sigmoid(-t),
        }[node.kind](nearest)
        return steepest * OUTWARD

    def _stretched(self, weight: Tensor, slope: Tensor) -> Tensor:
        """``(image,)``: the norm of weight . diag(slope)."""
        outward = OUTWARD + 20 * sum(weight.shape) * _UNIT_ROUNDING
        if self.norm == "L1":
            return (weight.abs().sum(0) * slope).amax(1) * outward
        if self.norm == "Linf":
            return (slope @ weight.abs().T).amax(1) * outward
        total = (slope.square() @ weight.square().sum(0)).sqrt()
        if min(weight.shape) > _LARGEST_GRAM:
            return total * outward
        found = []
        for row in slope:
            scaled = weight * row
            gram = scaled @ scaled.T if weight.shape[0] <= weight.shape[1] else scaled.T @ scaled
            if not bool(gram.isfinite().all()):
                found.append(torch.tensor(torch.inf, dtype=torch.float64))
                continue
            largest = torch.linalg.eigvalsh(gram)[-1].clamp(min=0)
            found.append((largest + 10 * sum(weight.shape) * _UNIT_ROUNDING * gram.trace()).sqrt())
        return torch.minimum(torch.stack(found), total) * outward


def _dual(norm: Norm) -> float:
    """The order of the norm of a row that bounds its product with a change measured in ``norm``."""
    return {"L2": 2.0, "L1": math.inf, "Linf": 1.0}[norm]
