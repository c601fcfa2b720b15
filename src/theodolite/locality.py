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
        """Embedded pixels ``(batch, rows * columns, m)`` -> the convolution's output ``(batch, out, rows, columns)``."""
        planes = F.fold(embedded.transpose(1, 2), size, self.kernel, padding=self.padding)
        return planes + self.bias.reshape(1, -1, 1, 1)


@dataclass(frozen=True)
class LocalSum:
    """Outputs = ``bias`` + mean over positions of ``weight @ features``: features ``(batch, c, rows, columns)``."""

    features: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor
    radius: int


def trace(module: nn.Module) -> fx.GraphModule | None:
    """The module's graph, or None where it cannot be traced (data-dependent control flow)."""
    try:
        return fx.symbolic_trace(module)
    except Exception:  # noqa: BLE001 - fx raises whatever the traced code raises
        return None


def fold_first_convolution(graph: fx.GraphModule, levels: int) -> FoldedConvolution | None:
    """Folds a 'same' convolution that alone reads ``levels`` one-hot planes; None where there is none."""
    placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
    users = list(placeholder.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    layer = graph.get_submodule(str(users[0].target))
    if not _same_convolution(layer) or layer.in_channels != levels or layer.dilation != (1, 1):
        return None
    weight = layer.weight.detach()
    # fold adds table entry k of pixel p to position p + k - padding, the convolution reads pixel q + k - padding
    table = weight.flip(2, 3).permute(1, 0, 2, 3).reshape(levels, -1).contiguous()
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().clone()
    tail = fx.GraphModule(graph, _copy_graph(graph))
    first = next(node for node in tail.graph.nodes if node.op == "placeholder")
    convolution = next(iter(first.users))
    convolution.replace_all_uses_with(first)
    tail.graph.erase_node(convolution)
    tail.recompile()
    return FoldedConvolution(table, bias, layer.kernel_size[0], layer.padding[0], tail)


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
            if _is_global_average(graph, node) and node.args[0] in radius:
                pool = node
                continue
            reach = _local_radius(graph, node, radius)
            if reach is None:
                return None
            radius[node] = reach
    if pool is None or not _affine_after(graph, pool):
        return None
    features = _features_graph(graph, pool)
    source = pool.args[0]
    head = _head_graph(graph, pool)
    with torch.no_grad():
        channels = features(sample).shape[1]
        bias = head(torch.zeros(1, channels, 1, 1)).reshape(-1)
        weight = head(torch.eye(channels).reshape(channels, channels, 1, 1)).reshape(channels, -1).T - bias[:, None]
    return LocalSum(features, weight, bias, radius[source])


def _same_convolution(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.stride == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.kernel_size[0] % 2 == 1
        and layer.dilation[0] == layer.dilation[1]
        and layer.padding == tuple(d * (k // 2) for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    )


def _local_radius(graph: fx.GraphModule, node: fx.Node, radius: dict[fx.Node, int]) -> int | None:
    inputs = [argument for argument in node.args if isinstance(argument, fx.Node)]
    if not inputs or any(argument not in radius for argument in inputs):
        return None
    reach = max(radius[argument] for argument in inputs)
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        if isinstance(layer, _POINTWISE_MODULES):
            return reach
        if _same_convolution(layer):
            return reach + layer.dilation[0] * (layer.kernel_size[0] // 2)
        return None
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
        return sorted(axes) in ([2, 3], [-2, -1]) if isinstance(axes, list | tuple) else False
    return False


def _affine_after(graph: fx.GraphModule, pool: fx.Node) -> bool:
    """Everything after the average is affine and reads nothing else."""
    known = {pool}
    after = False
    for node in graph.graph.nodes:
        if node is pool:
            after = True
            continue
        if not after or node.op == "output":
            continue
        if any(isinstance(argument, fx.Node) and argument not in known for argument in node.args):
            return False
        affine_module = node.op == "call_module" and isinstance(
            graph.get_submodule(str(node.target)), _AFFINE_MODULES
        )
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


def _features_graph(graph: fx.GraphModule, pool: fx.Node) -> fx.GraphModule:
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node is pool:
            break
        mapping[node] = copied.node_copy(node, lambda n: mapping[n])
    copied.output(mapping[pool.args[0]])  # type: ignore[index]
    return fx.GraphModule(graph, copied)


def _head_graph(graph: fx.GraphModule, pool: fx.Node) -> fx.GraphModule:
    """From the averaged features ``(batch, c, 1, 1)`` (or ``(batch, c)`` for a mean) to the outputs."""
    copied = fx.Graph()
    averaged = copied.placeholder("averaged")
    flat = pool.op != "call_module" and pool.target is not F.adaptive_avg_pool2d
    keeps = bool(pool.kwargs.get("keepdim", False)) or len(pool.args) > 2
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
