"""Finds, in a traced module, what a sampler can use: a first convolution to fold into a table, and a value that
is a sum of local terms.

A network whose positions only meet in one global average (the convolutional networks of Liu et al. 2023) is
``constant + sum over positions of a local term``; changes far enough apart do not feel each other. Only what the
graph proves is used: an unknown operation ends the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_POINTWISE_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d,
)  # fmt: skip
_POINTWISE_FUNCTIONS: tuple[Any, ...] = (
    F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid,
)  # fmt: skip
_AFFINE_MODULES = (nn.Linear, nn.Flatten, nn.Identity, nn.Dropout)
_SUMS: tuple[Any, ...] = (torch.add,)


@dataclass(frozen=True)
class FoldedConvolution:
    """A first convolution over one-hot planes as a table: ``table[level]`` is ``(out_channels * kernel^2,)``."""

    table: Tensor
    bias: Tensor
    kernel: int
    padding: int
    tail: fx.GraphModule

    def assemble(self, embedded: Tensor, size: tuple[int, int]) -> Tensor:
        """Embedded pixels ``(batch, rows * columns, m)`` -> the convolution's ``(batch, out, rows, columns)``."""
        planes = F.fold(embedded.transpose(1, 2), size, self.kernel, padding=self.padding)
        return planes + self.bias.reshape(1, -1, 1, 1)


@dataclass(frozen=True)
class FeatureWindow:
    """Features of a rectangle of positions alone, for a graph that ends in a wide convolution and pointwise layers.

    ``affine`` is the graph up to its first nonlinearity, ``middle`` from there to the last wide convolution, ``tail``
    what follows this.
    """

    affine: fx.GraphModule
    middle: fx.GraphModule
    convolution: nn.Conv2d
    tail: fx.GraphModule

    def features(self, affine: Tensor, rows: slice, columns: slice) -> Tensor:
        """What ``affine`` gave, ``(batch, ...)`` -> features ``(batch, c, n_rows, n_columns)``."""
        # Channels last: a wide convolution over a rectangle of a few positions is then nearly a matrix product.
        affine = affine.contiguous(memory_format=torch.channels_last)
        return self.tail(_convolve_rectangle(self.convolution, self.middle(affine), rows, columns))


@dataclass(frozen=True)
class LocalSum:
    """Outputs = ``bias`` + mean over positions of ``weight @ features``: features ``(batch, c, rows, columns)``.

    ``window`` gives the features of a rectangle; None where the graph has no such end.
    """

    features: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor
    radius: int
    window: FeatureWindow | None = None


def trace(module: nn.Module) -> fx.GraphModule | None:
    """The module's graph of one input, or None where it cannot be traced (data-dependent control flow)."""
    try:
        graph = fx.symbolic_trace(module)
    except Exception:  # noqa: BLE001 - fx raises whatever the traced code raises
        return None
    # An optional argument is never None while tracing, so that its branches cannot be trusted.
    inputs = sum(node.op == "placeholder" for node in graph.graph.nodes)
    return graph if inputs == 1 else None


def fold_first_convolution(graph: fx.GraphModule, levels: int) -> FoldedConvolution | None:
    """Folds a 'same' convolution that alone reads ``levels`` one-hot planes; None where there is none."""
    placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
    users = list(placeholder.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    layer = _same_convolution(graph.get_submodule(str(users[0].target)))
    if layer is None or layer.in_channels != levels or layer.dilation != (1, 1):
        return None
    weight, kernel = layer.weight.detach(), layer.kernel_size[0]
    # fold adds table entry k of pixel p to position p + k - padding, the convolution reads pixel q + k - padding
    table = weight.flip(2, 3).permute(1, 0, 2, 3).reshape(levels, -1).contiguous()
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().clone()
    tail = fx.GraphModule(graph, _copy_graph(graph))
    first = next(node for node in tail.graph.nodes if node.op == "placeholder")
    convolution = next(iter(first.users))
    convolution.replace_all_uses_with(first)
    tail.graph.erase_node(convolution)
    tail.recompile()
    return FoldedConvolution(table, bias, kernel, kernel // 2, tail)


def split_local_sum(graph: fx.GraphModule, sample: Tensor, extra_radius: int = 0) -> LocalSum | None:
    """The network as an affine map of one global average of local features; None where the graph is not that.

    ``sample`` is one input of the graph; ``extra_radius`` is what came before it.
    """
    radius: dict[fx.Node, int] = {}
    pool: fx.Node | None = None
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            radius[node] = extra_radius
        elif pool is None:
            if _is_global_average(graph, node):
                pool = node
                continue
            reach = _local_radius(graph, node, radius)
            if reach is None:
                return None
            radius[node] = reach
    if pool is None or not _affine_after(graph, pool):
        return None
    (source,) = pool.all_input_nodes
    features = _features_graph(graph, source)
    head = _head_graph(graph, pool)
    with torch.no_grad():
        channels = features(sample).shape[1]
        bias = head(torch.zeros(1, channels, 1, 1)).reshape(-1)
        weight = head(torch.eye(channels).reshape(channels, channels, 1, 1)).reshape(channels, -1).T - bias[:, None]
    return LocalSum(features, weight, bias, radius[source], _split_window(features))


def _same_convolution(layer: nn.Module) -> nn.Conv2d | None:
    """The layer where it is a square convolution that keeps the grid and pads it with zeros."""
    if not isinstance(layer, nn.Conv2d):
        return None
    padding = tuple(d * (k // 2) for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    fits = (
        layer.stride == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.kernel_size[0] % 2 == 1
        and layer.dilation[0] == layer.dilation[1]
        and layer.padding in ("same", padding)
    )
    return layer if fits else None


def _local_radius(graph: fx.GraphModule, node: fx.Node, radius: dict[fx.Node, int]) -> int | None:
    inputs = node.all_input_nodes
    if not inputs or any(argument not in radius for argument in inputs):
        return None
    reach = max(radius[argument] for argument in inputs)
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None:
            return None  # statistics of the batch, even in eval mode
        if isinstance(layer, _POINTWISE_MODULES):
            return reach
        convolution = _same_convolution(layer)
        if convolution is None:
            return None
        return reach + convolution.dilation[0] * (convolution.kernel_size[0] // 2)
    if node.op == "call_function" and (node.target in _POINTWISE_FUNCTIONS or _is_sum(node)):
        return reach
    if node.op == "call_method" and node.target in ("relu", "tanh", "sigmoid", "add"):
        return reach
    return None


def _is_sum(node: fx.Node) -> bool:
    return node.target in _SUMS or getattr(node.target, "__name__", "") in ("add", "iadd")


def _is_global_average(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
    if node.op == "call_function" and node.target is F.adaptive_avg_pool2d:
        return len(node.args) > 1 and node.args[1] in (1, (1, 1))
    if node.target == "mean" or node.target is torch.mean:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(axes, list | tuple) and set(axes) in ({2, 3}, {-2, -1})
    return False


def _affine_after(graph: fx.GraphModule, pool: fx.Node) -> bool:
    """Everything after the average is affine and reads nothing else."""
    known = {pool}
    after = False
    for node in graph.graph.nodes:
        if node is pool:
            after = True
            continue
        if not after:
            continue
        if any(argument not in known for argument in node.all_input_nodes):
            return False
        if node.op == "output":
            continue
        affine_module = node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), _AFFINE_MODULES)
        affine_function = node.op == "call_function" and node.target in (torch.flatten, torch.squeeze)
        affine_method = node.op == "call_method" and node.target in ("flatten", "squeeze")
        if not (affine_module or affine_function or affine_method):
            return False
        known.add(node)
    return True


def _copy_graph(graph: fx.GraphModule) -> fx.Graph:
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph.graph, {}))
    return copied


def _features_graph(graph: fx.GraphModule, source: fx.Node) -> fx.GraphModule:
    """From the graph's input to ``source``, what the average reads."""
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        mapping[node] = copied.node_copy(node, lambda n: mapping[n])
        if node is source:
            break
    copied.output(mapping[source])
    return fx.GraphModule(graph, copied)


def _head_graph(graph: fx.GraphModule, pool: fx.Node) -> fx.GraphModule:
    """From the averaged features ``(batch, c, 1, 1)`` (or ``(batch, c)`` for a mean) to the outputs."""
    copied = fx.Graph()
    averaged = copied.placeholder("averaged")
    flat = pool.op != "call_module" and pool.target is not F.adaptive_avg_pool2d
    keeps = bool(pool.args[2] if len(pool.args) > 2 else pool.kwargs.get("keepdim", False))
    start = copied.call_method("flatten", (averaged, 1)) if flat and not keeps else averaged
    mapping: dict[fx.Node, fx.Node] = {pool: start}
    after = False
    for node in graph.graph.nodes:
        if node is pool:
            after = True
        elif after and node.op == "output":
            copied.output(mapping[node.args[0]])
        elif after:
            mapping[node] = copied.node_copy(node, lambda n: mapping[n])
    return fx.GraphModule(graph, copied)


def _split_window(features: fx.GraphModule) -> FeatureWindow | None:
    """The features cut before and after the affine start and the last wide convolution; None where there is none."""
    nodes = list(features.graph.nodes)
    end = nodes[-1].args[0]
    last = end
    while not _is_wide_convolution(features, last):
        if last.op == "placeholder" or len(last.all_input_nodes) != 1:
            return None
        last = last.all_input_nodes[0]
        if len(last.users) != 1:
            return None
    source = last.all_input_nodes[0]
    start = nodes[0]
    while len(start.users) == 1 and start is not source and _is_affine(features, next(iter(start.users))):
        start = next(iter(start.users))
    layer = features.get_submodule(str(last.target))
    if not isinstance(layer, nn.Conv2d):
        return None
    return FeatureWindow(
        _between(features, nodes[0], start), _between(features, start, source), layer, _between(features, last, end)
    )


def _is_wide_convolution(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    layer = graph.get_submodule(str(node.target))
    return isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1


def _is_affine(graph: fx.GraphModule, node: fx.Node) -> bool:
    affine = (nn.Conv2d, nn.BatchNorm2d, nn.Identity, nn.Dropout, nn.Dropout2d)
    return node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), affine)


def _between(graph: fx.GraphModule, start: fx.Node, end: fx.Node) -> fx.GraphModule:
    """The map from the value of ``start`` to that of ``end``; nothing in between reads anything else."""
    copied = fx.Graph()
    mapping = {start: copied.placeholder("inner")}
    nodes = list(graph.graph.nodes)
    for node in nodes[nodes.index(start) + 1 : nodes.index(end) + 1]:
        mapping[node] = copied.node_copy(node, mapping.__getitem__)
    copied.output(mapping[end])
    return fx.GraphModule(graph, copied)


def _convolve_rectangle(layer: nn.Conv2d, planes: Tensor, rows: slice, columns: slice) -> Tensor:
    """The 'same' convolution at some rows and columns: ``(batch, c, rows, columns)`` -> ``(batch, out, n, n)``."""
    reach = layer.dilation[0] * (layer.kernel_size[0] // 2)
    height, width = planes.shape[2:]
    top, bottom, left, right = rows.start - reach, rows.stop + reach, columns.start - reach, columns.stop + reach
    inner = planes[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    missing = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
    if any(missing):
        inner = F.pad(inner, missing)
    return F.conv2d(inner, layer.weight, layer.bias, dilation=layer.dilation)
