"""The layers of a network as rows of a table, those that nothing is known of among them, with the reason in words."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.instruments.bounds.layer_graph import LayerGraph, UnsupportedLayer, WholeNetwork, layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.layer_steps import Step, plain_steps
from theodolite.instruments.bounds.operator_norms import Norm
from theodolite.network import Network
from theodolite.space import Box

UNKNOWN = "unknown"
_TRIAL_SEED = 20_231
_KINDS = {"scale": "scale", "average": "average pool", "sum": "sum"}


@final
@dataclass(frozen=True)
class Row:
    """A layer: its name, kind and shape in words. ``step`` of ``graph``, which is the whole network's (then slopes can
    be measured) or the layer's own; both None, and ``reason`` in words, where nothing is known of it."""

    name: str
    kind: str
    shape: str
    graph: LayerGraph | None = None
    step: Step | None = None
    reason: str = ""


@final
@dataclass(frozen=True)
class Layers:
    """``rows`` in the order of the network. ``graph`` of the whole, None where a layer is unknown; then ``function``
    alone gives its outputs ``(batch, K)``, differentiable, at points ``(batch, *shape)`` float64. ``steps`` of the
    graph, their factors not yet known."""

    rows: tuple[Row, ...]
    graph: LayerGraph | None
    steps: tuple[Step, ...]
    function: WholeNetwork


def layers_of(network: Network, norm: Norm) -> Layers:
    """The rows of a network; one with an unknown layer is taken apart into its modules, each looked at alone."""
    whole = WholeNetwork(network).double().eval()
    try:
        graph = layer_graph(network, classify=False, curves=True)
    except UnsupportedLayer as error:
        return Layers(_named(_apart(whole, network, norm, error)), None, (), whole)
    steps = tuple(plain_steps(graph, norm))
    return Layers(_named([_row(graph, step) for step in steps if step.name]), graph, steps, whole)


def _row(graph: LayerGraph, step: Step, name: str = "") -> Row:
    node = graph.node(step.index)
    kind = _KINDS.get(step.kind, step.kind)
    if step.kind == "piecewise":
        kind = "ReLU" if isinstance(node, Affine) or not bool(node.slope.any()) else "leaky ReLU"
    if isinstance(node, Activation) and node.curve is not None:
        kind = node.curve.name
    return Row(name or step.name, kind, _shape(graph, step), graph, step)


def _shape(graph: LayerGraph, step: Step) -> str:
    """In the form of Szegedy et al. 2013: input channels x window x output channels; inputs x outputs."""
    node = graph.node(step.index)
    if isinstance(node, Affine) and node.weight is not None and node.kind == "convolution":
        n_out, n_in, *window = node.weight.shape
        return _times((n_in * node.groups, *window, n_out))
    if isinstance(node, Affine) and node.weight is not None and node.kind == "linear":
        return _times(tuple(reversed(node.weight.shape)))
    before = graph.node(step.inputs[0]).shape if step.inputs[0] else graph.shape
    return _times(node.shape) if before == node.shape else f"{_times(before)} to {_times(node.shape)}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _named(rows: list[Row]) -> tuple[Row, ...]:
    """Names told apart: what is called twice is numbered."""
    total, seen = Counter(row.name for row in rows), Counter[str]()
    found = []
    for row in rows:
        seen[row.name] += 1
        alone = total[row.name] == 1
        found.append(row if alone else dataclasses.replace(row, name=f"{row.name} #{seen[row.name]}"))
    return tuple(found)


# ---------------------------------------------------------------------- networks with unknown layers


def _apart(whole: WholeNetwork, network: Network, norm: Norm, error: UnsupportedLayer) -> list[Row]:
    rows: list[Row] = []
    for name, layer, shape in _calls(whole, network):
        rows += _alone(name, layer, shape, norm)
    if not any(row.graph is None and row.name == error.argument for row in rows):
        rows.append(Row(error.argument, UNKNOWN, "", reason=error.got))
    return rows


def _calls(whole: WholeNetwork, network: Network) -> list[tuple[str, nn.Module, tuple[int, ...] | None]]:
    """Every call of a module without parts of its own: name, module, shape of its input (None: no single tensor)."""
    found: list[tuple[str, nn.Module, tuple[int, ...] | None]] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], _output: Any) -> None:
            single = len(given) == 1 and isinstance(given[0], Tensor) and given[0].ndim > 1
            found.append((name, layer, tuple(given[0].shape[1:]) if single else None))

        return hook

    leaves = [(n, m) for n, m in whole.network_module.named_modules() if not list(m.children())]
    hooks = [layer.register_forward_hook(watch(name or network.name)) for name, layer in leaves]
    try:
        with torch.no_grad():
            whole(network.space.draw(2, torch.Generator().manual_seed(_TRIAL_SEED)).double())
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _alone(name: str, layer: nn.Module, shape: tuple[int, ...] | None, norm: Norm) -> list[Row]:
    if shape is None:
        return [Row(name, UNKNOWN, "", reason=f"{type(layer).__name__} of several values")]
    try:
        alone = Network(nn.Sequential(layer, nn.Flatten()), Box(shape, 0.0, 1.0))
        graph = layer_graph(alone, classify=False, curves=True)
    except UserError as error:
        return [Row(name, UNKNOWN, _times(shape), reason=error.got)]
    steps = [step for step in plain_steps(graph, norm) if step.name]
    return [_row(graph, step, name) for step in steps]


def joint_factor(factors: tuple[float, ...], norm: Norm) -> float:
    """The norm of a map of several inputs taken as one, from the factor of each."""
    if len(factors) == 1:
        return factors[0]
    if norm == "L1":
        return max(factors)
    return math.fsum(factors) if norm == "Linf" else math.hypot(*factors)
