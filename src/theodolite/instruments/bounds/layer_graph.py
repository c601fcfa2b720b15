"""A network as a graph of known operations in float64: what bounds and certificates walk through.

The module, its embedding and its preprocessing are traced together, so that node 0 is the input in units of the space.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from theodolite.errors import MissingCapability
from theodolite.instruments.bounds.activation_slopes import Curve, curve_of, curve_of_function
from theodolite.instruments.bounds.layer_nodes import (
    Activation,
    ActivationKind,
    Affine,
    Node,
    added,
    averaged,
    convolution,
    joined,
    linear,
    rearranged,
    scaled,
)
from theodolite.network import Network

_BATCH = 7  # of the tensors that shapes are read from
_AGREEMENT = 1e-9  # of outputs, relative: between the traced graph and the module


class UnsupportedLayer(MissingCapability):
    """A network with an operation that no bound is known for; ``argument`` names it."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(
            layer,
            "linear, convolution, pooling, normalisation, ReLU, LeakyReLU, PReLU, erf, tanh, sigmoid and sums",
            reason,
            "a weaker bound is used, or none",
        )


@final
@dataclass(frozen=True)
class LayerGraph:
    """Nodes in topological order, each reading earlier ones; node 0 is the input, the last the outputs ``(K,)``.

    ``nodes[k]`` is node k + 1. ``shape`` is that of a point.
    """

    shape: tuple[int, ...]
    nodes: tuple[Node, ...]

    def node(self, index: int) -> Node:
        """Node ``index`` >= 1."""
        return self.nodes[index - 1]

    @property
    def n_nodes(self) -> int:
        """The input included."""
        return len(self.nodes) + 1

    @property
    def n_outputs(self) -> int:
        """K."""
        return self.nodes[-1].size

    @property
    def activations(self) -> tuple[int, ...]:
        """Indices of the nodes that are no affine map."""
        return tuple(k for k, node in enumerate(self.nodes, 1) if isinstance(node, Activation))

    def size(self, index: int) -> int:
        """Numbers of the value of a node."""
        return self.node(index).size if index else torch.Size(self.shape).numel()

    def values(self, x: Tensor) -> list[Tensor]:
        """Values of all nodes, each ``(batch, *shape)`` float64, at points ``(batch, *shape)`` or ``(batch, n)``."""
        found = [x.double().reshape(len(x), *self.shape)]
        for node in self.nodes:
            found.append(node.apply([found[k] for k in node.inputs]))
        return found

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, K)`` of points."""
        return self.values(x)[-1]


def layer_graph(network: Network, *, classify: bool = True, curves: bool = False) -> LayerGraph:
    """The graph of a network's outputs over its points in input units; of one output z, the classes (0, z).

    ``curves``: with activations of which only slopes are known (`activation_slopes`); else these are refused.

    Raises UnsupportedLayer, naming it, for an operation outside the known ones, for code that cannot be traced, and
    where the traced graph does not give the module's own outputs; MissingCapability for an embedding without a
    continuous form.
    """
    whole = WholeNetwork(network).double().eval()
    graph = _Tracing(whole, network, curves=curves).run(binary=classify and network.n_outputs == 1)
    _compare(graph, network, classify=classify)
    return graph


class WholeNetwork(nn.Module):
    """Embedding, preprocessing and module as one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network_module = copy.deepcopy(network.module)
        self.embedding = network.embedding
        self.preprocess = network.preprocess

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding.continuous(x)
        if self.preprocess is not None:
            x = self.preprocess(x)
        return self.network_module(x)


@dataclass(frozen=True)
class _Value:
    """A node's value while tracing."""

    index: int
    shape: tuple[int, ...]

    def example(self) -> Tensor:
        """Where every number of a batch comes from."""
        count = torch.Size(self.shape).numel()
        return torch.arange(count).reshape(1, *self.shape).repeat(_BATCH, *[1] * len(self.shape))


class _Tracing:
    """Turns the traced code into nodes, one operation after the other."""

    def __init__(self, whole: WholeNetwork, network: Network, *, curves: bool) -> None:
        self.whole, self.curves = whole, curves
        self.shape = tuple(network.space.shape)
        self.nodes: list[Node] = []
        try:
            traced = fx.Tracer().trace(whole)
        except MissingCapability:
            raise
        except Exception as error:  # noqa: BLE001 - fx raises whatever the traced code raises
            raise UnsupportedLayer(network.name, f"code that cannot be traced ({_first_line(error)})") from error
        self.traced = traced

    def run(self, *, binary: bool) -> LayerGraph:
        environment: dict[fx.Node, Any] = {}
        output: Any = None
        for node in self.traced.nodes:
            arguments = fx.map_arg(node.args, lambda n: environment[n])
            keywords = fx.map_arg(node.kwargs, lambda n: environment[n])
            if node.op == "placeholder":
                environment[node] = _Value(0, self.shape)
            elif node.op == "get_attr":
                environment[node] = _attribute(self.whole, str(node.target))
            elif node.op == "call_module":
                layer = self.whole.get_submodule(str(node.target))
                environment[node] = self._module(str(node.target), layer, arguments)
            elif node.op == "output":
                output = arguments[0]  # type: ignore[index]
            else:
                environment[node] = self._call(node, arguments, keywords)  # type: ignore[arg-type]
        if not isinstance(output, _Value):
            raise UnsupportedLayer("output", "outputs that do not depend on the input")
        if len(output.shape) != 1:
            output = self._rearrange("output", output, lambda x: x.reshape(len(x), -1))
        if binary:
            weight = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
            output = self._add(linear("classes", output.index, output.shape, weight, None))
        return LayerGraph(self.shape, _needed(self.nodes, output.index))

    # ------------------------------------------------------------------ layers

    def _module(self, name: str, layer: nn.Module, arguments: Sequence[Any]) -> Any:
        name = name.removeprefix("network_module.")
        x = arguments[0]
        if not isinstance(x, _Value) or len(arguments) != 1:
            raise UnsupportedLayer(name, type(layer).__name__)
        if isinstance(layer, nn.Linear):
            return self._add(linear(name, x.index, x.shape, layer.weight.detach(), _detached(layer.bias)))
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            return self._convolution(name, x, layer)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_var is not None:
            return self._normalisation(name, x, layer)
        if isinstance(layer, nn.ReLU):
            return self._activation(name, x, "piecewise")
        if isinstance(layer, nn.LeakyReLU):
            return self._activation(name, x, "piecewise", torch.tensor(layer.negative_slope, dtype=torch.float64))
        if isinstance(layer, nn.PReLU):
            return self._slopes(name, x, layer.weight.detach())
        if isinstance(layer, nn.Tanh):
            return self._activation(name, x, "tanh")
        if isinstance(layer, nn.Sigmoid):
            return self._activation(name, x, "sigmoid")
        if isinstance(layer, nn.MaxPool2d) and not layer.return_indices:
            return self._maximum(name, x, layer, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            return self._add(averaged(name, x.index, x.shape, layer))
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            return self._rearrange(name, x, layer)
        if isinstance(layer, nn.Identity | nn.Dropout | nn.Dropout2d):
            return x
        return self._curve(name, x, curve_of(layer), type(layer).__name__)

    def _convolution(self, name: str, x: _Value, layer: nn.Conv2d) -> _Value:
        padding = layer.padding
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            if padding == "same" and any(r % 2 for r in reach):
                raise UnsupportedLayer(name, "a convolution padded more on one side")
            padding = tuple(r // 2 for r in reach) if padding == "same" else (0, 0)
        bias = _detached(layer.bias)
        return self._add(
            convolution(
                name, x.index, x.shape, layer.weight.detach(), bias, layer.stride, padding, layer.dilation, layer.groups
            )
        )

    def _normalisation(self, name: str, x: _Value, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> _Value:
        mean, variance = layer.running_mean, layer.running_var
        if mean is None or variance is None:
            raise UnsupportedLayer(name, "a normalisation without running statistics")
        factor = torch.rsqrt(variance.double() + layer.eps)
        if layer.weight is not None:
            factor = factor * layer.weight.detach().double()
        shift = mean.double() * factor
        added_bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().double()
        channels = (-1, *[1] * (len(x.shape) - 1))
        magnitude = (shift.abs() + added_bias.abs()).reshape(channels)
        return self._scale(name, x, factor.reshape(channels), (added_bias - shift).reshape(channels), magnitude)

    def _slopes(self, name: str, x: _Value, weight: Tensor) -> _Value:
        shape = (-1, *[1] * (len(x.shape) - 1)) if weight.numel() > 1 else ()
        return self._activation(name, x, "piecewise", weight.reshape(shape))

    def _activation(self, name: str, x: _Value, kind: ActivationKind, slope: Tensor | None = None) -> _Value:
        slope = torch.zeros(()) if slope is None else slope
        flat = slope.double().expand(x.shape).reshape(-1).contiguous()
        return self._add(Activation(name, kind, (x.index,), x.shape, flat))

    def _curve(self, name: str, x: _Value, curve: Curve | None, refusal: str) -> _Value:
        if curve is None or not self.curves:
            raise UnsupportedLayer(name, refusal)
        return self._add(Activation(name, "curve", (x.index,), x.shape, torch.zeros(()), curve))

    def _maximum(self, name: str, x: _Value, layer: Callable, kernel: Any, stride: Any, padding: Any, dilation: Any):
        """max(a, b) = a + relu(b - a), in a tree over the window: a ReLU is what every method here can bound."""
        channels, rows, columns = x.shape
        place = torch.arange(1, rows * columns + 1, dtype=torch.float64).reshape(1, 1, rows, columns)
        window = F.unfold(place, kernel, dilation, padding, stride)[0].long() - 1  # -1: the padding
        window = torch.where(window < 0, window.amax(0), window)
        expected = layer(torch.zeros((1, *x.shape), dtype=torch.float64)).shape
        if expected[2] * expected[3] != window.shape[1]:
            raise UnsupportedLayer(name, "a maximum pool with ceil_mode")
        order = (torch.arange(channels) * rows * columns)[:, None, None] + window
        value = self._add(rearranged(name, x.index, x.shape, order))
        while value.shape[1] > 1:
            half = value.shape[1] // 2
            first = self._rearrange(name, value, lambda v, h=half: v[:, :, :h])
            second = self._rearrange(name, value, lambda v, h=half: v[:, :, h : 2 * h])
            excess = self._sum(name, (second, first), (1.0, -1.0))
            larger = self._sum(name, (first, self._activation(name, excess, "piecewise")), (1.0, 1.0))
            if value.shape[1] % 2:
                last = self._rearrange(name, value, lambda v, h=half: v[:, :, 2 * h :])
                larger = self._join(name, (larger, last), 1)
            value = larger
        return self._rearrange(name, value, lambda v: v.reshape(len(v), *expected[1:]))

    # ------------------------------------------------------------------ functions and methods

    def _call(self, node: fx.Node, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        everything = [*arguments, *keywords.values()]
        values = [a for a in everything if isinstance(a, _Value)]
        nested = [v for a in everything if isinstance(a, tuple | list) for v in a if isinstance(v, _Value)]
        if not values and not nested:
            function = getattr(arguments[0], name) if node.op == "call_method" else node.target
            return function(*(arguments[1:] if node.op == "call_method" else arguments), **keywords)  # type: ignore
        if name == "getattr" and arguments[1] in ("shape", "ndim"):
            return getattr(arguments[0].example(), arguments[1])
        if name in ("size", "dim", "ndimension"):
            return getattr(arguments[0].example(), name)(*arguments[1:], **keywords)
        if name in ("cat", "concat", "concatenate") and nested:
            axis = keywords.get("dim", arguments[1] if len(arguments) > 1 else 0)
            return self._join(name, tuple(nested), (axis - 1) if axis > 0 else axis + len(nested[0].shape))
        if name in _ARITHMETIC and len(everything) == 2:
            return self._arithmetic(_ARITHMETIC[name], arguments[0], [*arguments, *keywords.values()][1])
        if not isinstance(arguments[0], _Value) or len(values) != 1:
            raise UnsupportedLayer(name, "an operation of several values")
        return self._function(name, node, arguments, keywords)

    def _function(self, name: str, node: fx.Node, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        x = arguments[0]
        function = (lambda v: getattr(v, name)(*arguments[1:], **keywords)) if node.op == "call_method" else None
        if function is None:
            target: Any = node.target
            function = lambda v: target(v, *arguments[1:], **keywords)  # noqa: E731
        if name in ("relu", "relu_"):
            return self._activation(name, x, "piecewise")
        if name in ("erf", "tanh", "sigmoid"):
            return self._activation(name, x, name)  # type: ignore[arg-type]
        if name == "leaky_relu":
            slope = [*arguments[1:2], keywords.get("negative_slope", 0.01)][0]
            return self._activation(name, x, "piecewise", torch.tensor(float(slope), dtype=torch.float64))
        if name == "prelu":
            return self._slopes(name, x, torch.as_tensor([*arguments, *keywords.values()][1]).detach())
        if name == "neg":
            return self._scale(name, x, torch.tensor(-1.0), torch.tensor(0.0))
        if name == "linear":
            weight, bias = [*arguments[1:], *keywords.values(), None][:2]
            return self._add(linear(name, x.index, x.shape, weight.detach(), _detached(bias)))
        if name in ("avg_pool2d", "adaptive_avg_pool2d", "mean", "sum"):
            self._refuse_batch_axis(name, function, x)
            return self._add(averaged(name, x.index, x.shape, function))
        if name in ("max_pool2d", "boolean_dispatch"):
            return self._maximum_function(name, x, function, arguments, keywords)
        if name == "dropout" and not keywords.get("training", True):
            return x
        if name in ("contiguous", "double", "clone", "detach"):
            return x
        if name in _REARRANGING:
            return self._rearrange(name, x, function)
        return self._curve(name, x, curve_of_function(name, arguments[1:], keywords), f"the function {name}")

    def _maximum_function(
        self, name: str, x: _Value, function: Callable, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> _Value:
        names = ("kernel_size", "stride", "padding", "dilation")
        given = dict(zip(names, arguments[1:], strict=False)) | {k: v for k, v in keywords.items() if k in names}
        if "kernel_size" not in given:
            raise UnsupportedLayer(name, f"the function {name}")
        kernel = given["kernel_size"]
        return self._maximum(
            name, x, function, kernel, given.get("stride") or kernel, given.get("padding", 0), given.get("dilation", 1)
        )

    def _arithmetic(self, operation: str, first: Any, second: Any) -> _Value:
        if isinstance(first, _Value) and isinstance(second, _Value):
            if operation in ("add", "sub") and first.shape == second.shape:
                return self._sum(operation, (first, second), (1.0, 1.0 if operation == "add" else -1.0))
            raise UnsupportedLayer(operation, "a product or a broadcast sum of two values")
        x, constant = (first, second) if isinstance(first, _Value) else (second, first)
        number = torch.as_tensor(constant, dtype=torch.float64).detach()
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        if operation == "matmul" and x is first and number.ndim == 2:
            return self._add(linear(operation, x.index, x.shape, number.T, None))
        if number.ndim > len(x.shape):
            if number.shape[0] != 1:
                raise UnsupportedLayer(operation, "a constant with a batch axis")
            number = number.reshape(number.shape[1:])
        if operation == "add":
            return self._scale(operation, x, one, number)
        if operation == "sub":
            return self._scale(operation, x, one if x is first else -one, -number if x is first else number)
        if operation == "mul":
            return self._scale(operation, x, number, zero)
        if operation == "truediv" and x is first:
            return self._scale(operation, x, 1 / number, zero)
        raise UnsupportedLayer(operation, "a division by a value")

    # ------------------------------------------------------------------ nodes

    def _scale(self, name: str, x: _Value, factor: Tensor, offset: Tensor, magnitude: Tensor | None = None) -> _Value:
        """Folded into the affine map before it, where that is simple; a map that nothing else reads is left out."""
        if torch.broadcast_shapes(factor.shape, offset.shape, x.shape) != torch.Size(x.shape):
            raise UnsupportedLayer(name, "a constant larger than the value")
        before = self.nodes[x.index - 1] if x.index else None
        magnitude = offset.abs() if magnitude is None else magnitude
        factor, offset, magnitude = (part.double().expand(x.shape) for part in (factor, offset, magnitude))
        if bool((factor == 1).all()) and bool((magnitude == 0).all()):
            return x
        if not isinstance(before, Affine) or before.weight is None:
            return self._add(scaled(name, x.index, x.shape, factor, offset, magnitude))
        if before.kind == "scale" and before.bias is not None and before.bias_magnitude is not None:
            offset, magnitude = before.bias * factor + offset, before.bias_magnitude * factor.abs() + magnitude
            return self._add(scaled(name, before.inputs[0], x.shape, before.weight * factor, offset, magnitude))
        by_channel = [part.flatten(1) if len(x.shape) > 1 else part[:, None] for part in (factor, offset, magnitude)]
        foldable = len(x.shape) == 1 or before.kind == "convolution"
        if not foldable or not all(bool((part == part[:, :1]).all()) for part in by_channel):
            return self._add(scaled(name, x.index, x.shape, factor, offset, magnitude))
        factor, offset, magnitude = (part[:, 0] for part in by_channel)
        if before.bias is not None and before.bias_magnitude is not None:
            offset = before.bias * factor + offset
            magnitude = before.bias_magnitude * factor.abs() + magnitude
        weight = before.weight * factor.reshape(-1, *[1] * (before.weight.ndim - 1))
        start = before.name, before.inputs[0], before.input_shapes[0], weight, offset
        if before.kind == "linear":
            return self._add(linear(*start, magnitude))
        return self._add(convolution(*start, before.stride, before.padding, before.dilation, before.groups, magnitude))

    def _rearrange(self, name: str, x: _Value, function: Callable[[Tensor], Tensor]) -> _Value:
        self._refuse_batch_axis(name, function, x)
        order = function(x.example())
        return self._add(rearranged(name, x.index, x.shape, order[0]))

    def _refuse_batch_axis(self, name: str, function: Callable[[Tensor], Tensor], x: _Value) -> None:
        try:
            found = function(x.example().double())
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise UnsupportedLayer(name, _first_line(error)) from error
        if found.ndim < 1 or len(found) != _BATCH or not bool((found == found[:1]).all()):
            raise UnsupportedLayer(name, "an operation across the batch")

    def _sum(self, name: str, values: tuple[_Value, ...], factors: tuple[float, ...]) -> _Value:
        return self._add(added(name, tuple(v.index for v in values), values[0].shape, factors))

    def _join(self, name: str, values: tuple[_Value, ...], axis: int) -> _Value:
        return self._add(joined(name, tuple(v.index for v in values), tuple(v.shape for v in values), axis))

    def _add(self, node: Node) -> _Value:
        self.nodes.append(node)
        return _Value(len(self.nodes), node.shape)


_ARITHMETIC = {
    **{f"{prefix}{name}": name for name in ("add", "sub", "mul", "truediv", "matmul") for prefix in ("", "i")},
    **{f"{name}_": name for name in ("add", "sub", "mul")},
    **{"div": "truediv", "div_": "truediv", "mm": "matmul"},
}
_REARRANGING = (
    "flatten", "reshape", "view", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "getitem", "unflatten",
    "swapaxes", "narrow", "select", "flip", "t",
)  # fmt: skip


def _needed(nodes: Sequence[Node], output: int) -> tuple[Node, ...]:
    """The nodes that the output depends on, renumbered."""
    keep, waiting = {output}, [output]
    while waiting:
        index = waiting.pop()
        if index:
            new = set(nodes[index - 1].inputs) - keep
            keep |= new
            waiting += new
    order = sorted(keep - {0})
    number = {0: 0} | {old: new for new, old in enumerate(order, 1)}
    return tuple(dataclasses.replace(nodes[k - 1], inputs=tuple(number[i] for i in nodes[k - 1].inputs)) for k in order)


def _compare(graph: LayerGraph, network: Network, *, classify: bool) -> None:
    """Tracing follows one branch of the code: the wrong one where code asks for the values of its input."""
    x = network.space.draw(_BATCH, torch.Generator().manual_seed(0)).double().flatten(1)
    truth = network.all_outputs(torch.float64, classify=classify).value(x)
    found = graph.outputs(x)
    scale = truth.abs().nan_to_num(0.0, 0.0, 0.0).amax() + 1e-300
    if not torch.allclose(found / scale, truth / scale, rtol=0.0, atol=_AGREEMENT, equal_nan=True):
        raise UnsupportedLayer(network.name, "code that takes another path than its trace")


def _attribute(root: nn.Module, target: str) -> Any:
    found: Any = root
    for part in target.split("."):
        found = getattr(found, part)
    return found.detach() if isinstance(found, Tensor) else found


def _detached(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
