"""Proven lower bounds of the distance to the closest flip point, by the strongest method that covers the network.

A flip point of an image of class ``own`` has z_own <= z_k for some other class k, so a radius within which every margin
z_own - z_k is proven positive is a lower bound. All flips in the continuous hull of the space count, whatever further
constraints a search obeys. Bounds are sound in floating point: see `linear_bounds`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import MissingCapability, UserError
from theodolite.instruments.bounds.cap_bounds import CapSearch, proven_distances
from theodolite.instruments.bounds.layer_graph import LayerGraph, layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.linear_bounds import Surroundings
from theodolite.instruments.bounds.lipschitz_bounds import lipschitz_distance
from theodolite.network import Network

_AFFORDABLE = 2e12  # multiplications of one pass of linear bounds: about a minute
_FAR = 8.0


@final
@dataclass(frozen=True)
class LowerBounds:
    """``distance (image,)`` float64 in input units: no flip point is nearer (0: nothing proven). ``by_class (image,
    K)``: the same for points where one class alone overtakes; at most the radius searched, NaN for the image's own
    class and for classes not asked for. ``method``: what proves an image's bound, "cap", "crown" or "lipschitz",
    with the reason where it is not the one asked for; or "none: " and why."""

    distance: Tensor
    by_class: Tensor
    method: list[str]


def distance_lower_bounds(
    network: Network,
    inputs: Tensor,
    own: Tensor,
    upper: Tensor,
    *,
    target: Tensor | None = None,
    norm: str = "L2",
    method: str = "auto",
    seconds: float | None = None,
) -> LowerBounds:
    """Lower bounds for ``inputs (image, *shape)`` of classes ``own (image,)``.

    ``upper``: the distance of a known flip point, ``(image,)``, or ``(image, K)`` for each class; inf where none is
    known. No more than this is proven, so that a bound never exceeds it; inf: no point of the space flips.
    ``target (image,)``: only flips to this class count, -1 for any. ``method``: "crown" is linear bounds carried back
    (Zhang et al. 2018), "cap" tightens them over the cap where a counterexample must lie, "lipschitz" divides margins
    by Lipschitz bounds; "auto" is "cap", of smooth activations the larger of "crown" and "cap", or "lipschitz" where
    the network is too large. Activations of which slopes are known and no lines (`activation_slopes`) leave
    "lipschitz" alone, whatever was asked for.
    ``seconds``: about how long to refine each image.
    A network of one output has the classes 0 and 1, with the outputs (0, z).

    Raises UserError for inputs of another shape, classes that there are not, and unknown norms and methods.
    """
    _check(network, inputs, own, upper, norm, method)
    n_images, n_classes = len(inputs), max(2, network.n_outputs)
    limit = torch.as_tensor(upper).double().nan_to_num(torch.inf, torch.inf).reshape(n_images, -1)
    limit = limit.expand(n_images, n_classes)
    asked = torch.ones((n_images, n_classes), dtype=torch.bool).scatter(1, own[:, None], False)
    if target is not None:
        one = torch.zeros_like(asked).scatter(1, target.clamp(min=0)[:, None], True)
        asked &= one | (target < 0)[:, None]
    by_class = torch.full((n_images, n_classes), torch.nan, dtype=torch.float64)
    words = ["none"] * n_images
    try:
        graph, no_lines = _graph(network)
    except MissingCapability as error:
        reason = f"none: {error.argument} ({error.got})"
        return LowerBounds(
            _least(by_class.masked_fill(asked, 0.0)), by_class.masked_fill(asked, 0.0), [reason] * n_images
        )
    weaker = no_lines if method != "lipschitz" else ""
    if method == "auto" and not weaker and _multiplications(graph) > _AFFORDABLE:
        weaker = ": too large for linear bounds"
    by_slopes = method == "lipschitz" or bool(weaker)
    methods = ("crown", "cap") if method == "auto" and _smooth(graph) else (method.replace("auto", "cap"),)
    sound = []
    for image in range(n_images):
        problem = _Problem(graph, network, inputs[image], int(own[image]), asked[image].nonzero()[:, 0], norm)
        trouble = problem.trouble()
        if trouble:
            by_class[image, problem.classes], words[image] = 0.0, f"none: {trouble}"
        elif by_slopes:
            sound.append(image)
        else:
            found, words[image] = problem.by_linear_bounds(limit[image, problem.classes], methods, seconds)
            by_class[image, problem.classes] = found
    if sound:
        rows = torch.tensor(sound)
        found = lipschitz_distance(graph, inputs[rows], own[rows], norm=norm, upper=limit[rows].amax(1)).distance
        by_class[rows] = torch.where(asked[rows], torch.minimum(found, limit[rows]), torch.nan)
        for image in sound:
            words[image] = f"lipschitz{weaker}"
    return LowerBounds(_least(by_class), by_class, words)


@dataclass(frozen=True)
class _Problem:
    """One image of class ``own`` and the ``classes`` that may overtake."""

    graph: LayerGraph
    network: Network
    point: Tensor
    own: int
    classes: Tensor
    norm: str

    def trouble(self) -> str:
        """Why nothing can be proven, in words; empty where something may be."""
        low, high = self.network.space.bounds()
        if not bool(torch.isfinite(self.point).all()):
            return "the input is not finite"
        if float(self.point.min()) < low or float(self.point.max()) > high:
            return "the input lies outside the space"
        output = self.graph.outputs(self.point[None])[0]
        if not bool(torch.isfinite(output).all()):
            return "outputs are not finite"
        if bool((output[self.own] <= output[self.classes]).any()):
            return "the input is not of its own class, or on the boundary"
        return ""

    def by_linear_bounds(self, limits: Tensor, methods: Sequence[str], seconds: float | None) -> tuple[Tensor, str]:
        """``(class,)`` the largest that the methods prove, one going on from another; and the one of the least."""
        begun, best, word = time.monotonic(), torch.zeros_like(limits), methods[0]
        for position, method in enumerate(methods):
            left = None if seconds is None else max(0.0, seconds - (time.monotonic() - begun))
            share = None if left is None else left / (len(methods) - position)
            search = CapSearch(rounds=0 if method == "crown" else CapSearch.rounds, seconds=share)
            found = torch.maximum(best, self._proven(limits, search, best))
            if float(found.min()) > float(best.min()):
                word = method
            best = found
        return best, word

    def _proven(self, limits: Tensor, search: CapSearch, known: Tensor) -> Tensor:
        """``(class,)``: classes with one limit are searched together."""
        centre = self.point.detach().double().reshape(-1)
        low, high = self.network.space.bounds()
        # Rounding of the differences must not leave out a point of the box.
        outward = 2.0**-50 * (1 + centre.abs())
        surroundings = Surroundings(centre, low - centre - outward, high - centre + outward, self.norm)
        identity = torch.eye(self.graph.n_outputs, dtype=torch.float64)
        rows = identity[self.own] - identity[self.classes]
        found = torch.zeros(len(rows), dtype=torch.float64)
        whole = self._whole(surroundings)
        for limit in limits.unique().tolist():
            members = (limits == limit).nonzero()[:, 0]
            radius = limit if math.isfinite(limit) else self._far(rows[members], whole)
            proven = proven_distances(self.graph, surroundings, rows[members], radius, search, known[members])
            # No point of the space is farther: there is no flip at all.
            found[members] = proven.masked_fill(proven >= whole, torch.inf)
        return torch.minimum(found, limits)

    def _whole(self, surroundings: Surroundings) -> float:
        """A distance that is greater than that of any point of the box."""
        order = {"L2": 2.0, "L1": 1.0, "Linf": math.inf}[self.norm]
        reach = torch.maximum(surroundings.low.abs(), surroundings.high.abs())
        return float(torch.linalg.vector_norm(reach, order)) * (1 + 2.0**-30)

    def _far(self, rows: Tensor, whole: float) -> float:
        """A radius to start from where no flip is known: several times the linear estimate, at most the whole box."""
        dual = {"L2": 2.0, "L1": math.inf, "Linf": 1.0}[self.norm]
        leaf = self.point.detach().double().reshape(1, -1).requires_grad_(True)
        with torch.enable_grad():
            margin = rows @ self.graph.outputs(leaf)[0]
        estimates = []
        for k in range(len(rows)):
            (slope,) = torch.autograd.grad(margin[k], leaf, retain_graph=True, allow_unused=True)
            steep = 0.0 if slope is None else float(torch.linalg.vector_norm(slope, dual))
            estimates.append(float(margin[k].detach()) / steep if steep > 0 else 1.001 * whole)
        # A little beyond the box, so that what rounding takes off a proven distance leaves it beyond.
        return min(1.001 * whole, _FAR * min(estimates)) if math.isfinite(whole) else _FAR * min([1.0, *estimates])


def _graph(network: Network) -> tuple[LayerGraph, str]:
    """The graph, and why linear bounds cannot have it, in words: activations of which slopes alone are known."""
    try:
        return layer_graph(network), ""
    except MissingCapability as error:
        return layer_graph(network, curves=True), f": no linear bounds of {error.argument} ({error.got})"


def _smooth(graph: LayerGraph) -> bool:
    """Whether activations bend everywhere: their lines are chosen by the interval, and one over a cap may be worse."""
    return any(isinstance(node, Activation) and node.kind != "piecewise" for node in graph.nodes)


def _multiplications(graph: LayerGraph) -> float:
    """Of one pass of linear bounds over all layers, about."""
    cost, passed = 0.0, 0.0
    for k, node in enumerate(graph.nodes, 1):
        if isinstance(node, Affine):
            passed += (
                node.n_terms * min(node.size, graph.size(node.inputs[0])) if node.weight is not None else node.size
            )
        else:
            cost += 2 * graph.size(k) * (passed + node.size)
    return cost


def _least(by_class: Tensor) -> Tensor:
    """The least over the classes asked for; 0 where none is."""
    least = by_class.nan_to_num(torch.inf, torch.inf).amin(1)
    return torch.where(by_class.isnan().all(1), 0.0, least)


def _check(network: Network, inputs: Tensor, own: Tensor, upper: Tensor, norm: str, method: str) -> None:
    shape = tuple(network.space.shape)
    if tuple(inputs.shape[1:]) != shape:
        raise UserError("inputs", f"points (image, {', '.join(map(str, shape))})", f"{tuple(inputs.shape)}", "reshape")
    n_classes = max(2, network.n_outputs)
    if own.shape != (len(inputs),) or not bool(((own >= 0) & (own < n_classes)).all()):
        raise UserError(
            "own", f"a class of 0..{n_classes - 1} for each input", f"{tuple(own.shape)}", "use predictions"
        )
    if tuple(torch.as_tensor(upper).shape) not in ((len(inputs),), (len(inputs), n_classes)):
        raise UserError(
            "upper", "a distance for each input, or for each of its classes", f"{tuple(upper.shape)}", "inf if unknown"
        )
    if norm not in ("L2", "L1", "Linf"):
        raise UserError("norm", "'L2', 'L1' or 'Linf'", repr(norm), "choose one")
    if method not in ("auto", "lipschitz", "crown", "cap"):
        raise UserError("method", "'auto', 'lipschitz', 'crown' or 'cap'", repr(method), "'auto' is the strongest")
