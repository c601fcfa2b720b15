"""What a survey of slopes works on: the layers of a network, where pairs may lie, inputs to look around."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.layer_rows import Layers, layers_of
from theodolite.instruments.bounds.layer_steps import POWER
from theodolite.instruments.bounds.operator_norms import Norm, checked_norm
from theodolite.instruments.bounds.slope_search import Domain
from theodolite.network import Network

if TYPE_CHECKING:
    from theodolite.instruments.lipschitz import Lipschitz

_INWARD = 0.98  # of the way from the middle of the box: starts at its edge could not move
_DRAWN = 12


@dataclass
class Passes:
    """Forward and backward passes of one row so far."""

    n: int = 0


@dataclass(frozen=True)
class LipschitzTask:
    """``search``: the graph through which slopes are measured; where a layer is unknown, the whole network as its one
    node. ``start (pair, n)``: where searches for steep pairs begin; ``centre (image, n)`` float64: inputs to look
    around, flat, or None."""

    network: Network
    layers: Layers
    norm: Norm
    search: LayerGraph
    domain: Domain
    start: Tensor
    inputs: Tensor | None
    centre: Tensor | None
    passes: Passes = field(default_factory=Passes)


def prepare(settings: Lipschitz, network: Network, inputs: Tensor | None) -> LipschitzTask:
    """Check everything and trace the network; raises UserError for what will not do."""
    if not isinstance(network, Network):
        raise UserError("network", "a Network", type(network).__name__, "wrap the module: Network(module, space)")
    norm = checked_norm(settings.norm)
    low, high = network.space.bounds()
    n = network.space.n_coordinates
    domain = Domain(torch.full((n,), low, dtype=torch.float64), torch.full((n,), high, dtype=torch.float64), extent=1.0)
    given = None if inputs is None else _checked(inputs, network, domain)
    if settings.radius and given is None:
        raise UserError("radius", "inputs to look around", "none", "give inputs, or leave the radius out")
    layers = layers_of(network, norm)
    start = _start(settings, network, given)
    spread = torch.linalg.vector_norm(start - start.mean(0), POWER[norm], dim=1).amax()
    across = torch.linalg.vector_norm(domain.high - domain.low, POWER[norm])
    extent = float(across) if math.isfinite(float(across)) else max(float(spread), 1e-300)
    return LipschitzTask(
        network,
        layers,
        norm,
        layers.graph or _opaque(layers, network),
        Domain(domain.low, domain.high, extent),
        start,
        None if inputs is None else torch.as_tensor(inputs),
        given,
    )


def _checked(inputs: Tensor, network: Network, domain: Domain) -> Tensor:
    flat = surveying.points_of("inputs", inputs, network.space).flatten(1).double()
    inside = flat.isfinite().all(1) & ((flat >= domain.low) & (flat <= domain.high)).all(1)
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        expected = f"finite points of {network.space.describe()}"
        raise UserError("inputs", expected, f"input {row} outside it", "leave it out, or widen the space")
    return flat


def _start(settings: Lipschitz, network: Network, given: Tensor | None) -> Tensor:
    """Half of the given inputs, as many as there are, half drawn at random."""
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = network.space.draw(_DRAWN, generator).flatten(1).double()
    if given is not None:
        some = given[torch.randperm(len(given), generator=generator)[: _DRAWN // 2]]
        # Taken in turn, so that the first few are of both kinds.
        both = [row for pair in zip(some, drawn, strict=False) for row in pair]
        drawn = torch.stack([*both, *drawn[len(some) :]])[:_DRAWN]
    low, high = network.space.bounds()
    if not (math.isfinite(low) and math.isfinite(high)):
        return drawn
    middle = (low + high) / 2
    return middle + _INWARD * (drawn - middle)


def _opaque(layers: Layers, network: Network) -> LayerGraph:
    """The network as a graph of one node of which only values are known."""
    shape = tuple(network.space.shape)

    def run(x: list[Tensor]) -> Tensor:
        return layers.function(x[0].reshape(-1, *shape)).flatten(1)

    refused: list[Tensor] = []
    node = Affine(
        network.name,
        "unknown",
        (0,),
        (shape,),
        (network.n_outputs,),
        10 * sum(parameter.numel() for parameter in network.module.parameters()),
        run,  # type: ignore[arg-type]
        run,  # type: ignore[arg-type]
        lambda rows: refused,
    )
    return LayerGraph(shape, (node,))
