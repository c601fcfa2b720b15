"""A network as steps, each of which stretches a change by a known factor: layers, activations, maximum pools, sums.

The factors multiply along the network (Szegedy et al. 2013, 'Intriguing properties of neural networks', section 4.3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.operator_norms import Norm, affine_norm

OUTWARD = 1 + 2.0**-44  # a product of hundreds of factors
POWER = {"L2": 2.0, "L1": 1.0, "Linf": math.inf}
_GREATEST_SLOPE = {"erf": 2 / math.sqrt(math.pi), "tanh": 1.0, "sigmoid": 0.25}
_STRETCHING = ("linear", "convolution", "scale", "average")


@final
@dataclass(frozen=True)
class Step:
    """Nodes ``first`` to ``index`` of the graph as one: ``factors``, one for each of ``inputs``; ``power``: how several
    inputs add up (1: a sum, 2: by their squares, inf: the larger). ``name`` is empty for what only moves numbers.
    ``kind``: "maximum pool" or that of the node; ``repeats``: the most windows of a maximum pool that hold an
    input."""

    index: int
    first: int
    kind: str
    inputs: tuple[int, ...]
    factors: tuple[float, ...]
    power: float
    name: str
    repeats: int = 0

    def combined(self, reach: list[Tensor]) -> Tensor:
        """``(image,)``: the bound of the node from those of its inputs."""
        parts = torch.stack([factor * part for factor, part in zip(self.factors, reach, strict=True)])
        found = torch.linalg.vector_norm(parts, self.power, dim=0) * OUTWARD
        # 0 times infinity.
        return found.nan_to_num(torch.inf, posinf=torch.inf)


def steps_of(graph: LayerGraph, norm: Norm) -> list[Step]:
    """The steps in order, with their proven factors."""
    return [dataclasses.replace(step, factors=factors_of(graph, step, norm)) for step in plain_steps(graph, norm)]


def plain_steps(graph: LayerGraph, norm: Norm) -> list[Step]:
    """The steps in order, their factors not yet known."""
    steps, index = [], 1
    while index < graph.n_nodes:
        node = graph.node(index)
        n_nodes, repeats = _maximum_pool(graph, index)
        if n_nodes:
            last = index + n_nodes - 1
            steps.append(Step(last, index, "maximum pool", node.inputs, (), 1.0, node.name, repeats))
            index += n_nodes
            continue
        stretching = isinstance(node, Activation) or node.kind in (*_STRETCHING, "sum")
        power = POWER[norm] if node.kind == "rearrange" else 1.0
        steps.append(Step(index, index, node.kind, node.inputs, (), power, node.name if stretching else ""))
        index += 1
    return steps


def factors_of(graph: LayerGraph, step: Step, norm: Norm) -> tuple[float, ...]:
    """The factor of each input of a step, proven."""
    node = graph.node(step.index)
    if step.kind == "maximum pool":
        return (pool_factor(step.repeats, norm),)
    if isinstance(node, Activation):
        return (float(greatest_slopes(node).max()) * OUTWARD,)
    return tuple(affine_norm(node, norm, source) for source in range(len(node.inputs)))


def pool_factor(repeats: int, norm: Norm) -> float:
    """Of a maximum pool: |max a - max b| is at most the largest |a - b| of the window, and an input lies in at most
    ``repeats`` windows. Reached where one input is the largest of all of these."""
    return {"L2": math.sqrt(repeats) * OUTWARD, "L1": float(repeats), "Linf": 1.0}[norm]


def greatest_slopes(node: Activation) -> Tensor:
    """Of each unit, or of all: ``(unit,)`` or ``()``."""
    if node.curve is not None:
        return torch.tensor(node.curve.greatest, dtype=torch.float64)
    if node.kind == "piecewise":
        return node.slope.abs().clamp(min=1)
    return torch.tensor(_GREATEST_SLOPE[node.kind], dtype=torch.float64)


def product(steps: list[Step], n_nodes: int) -> float:
    """The bound of the whole network from those of its steps."""
    reach = {0: torch.ones(1, dtype=torch.float64)}
    for step in steps:
        reach[step.index] = step.combined([reach[k] for k in step.inputs])
    return float(reach[n_nodes - 1])


def erf_bound(steps: Sequence[Step], rows: Mapping[int, float]) -> float:
    """The bound of a chain of linear layers and error functions by Yousefzadeh and O'Leary 2019, 'Deep Learning
    Interpretation: Flip Points and Homotopy Methods', equation 15: 2^(m-1) / (pi^((m-1)/2) prod sigma) prod |W|_inf;
    NaN for another network.

    ``rows``: the norms in Linf of the affine nodes, by index. Divisions by sigma are part of the layers here. Their
    softmax, which stretches by no more than 1, is left out.
    """
    if not is_erf_chain(steps):
        return math.nan
    found = 1.0
    for step in steps:
        found *= _GREATEST_SLOPE["erf"] if step.kind == "erf" else rows.get(step.index, 1.0)
    return found * OUTWARD


def is_erf_chain(steps: Sequence[Step]) -> bool:
    """Whether a network is linear layers and error functions, one after the other."""
    kinds = {step.kind for step in steps}
    chain = all(step.inputs == (step.first - 1,) for step in steps)
    return chain and "erf" in kinds and kinds <= {"erf", "linear", "scale", "rearrange"}


def _maximum_pool(graph: LayerGraph, index: int) -> tuple[int, int]:
    """How many nodes from ``index`` on are a maximum pool (0: none is), and in how many windows an input lies at most.

    The graph writes max(a, b) = a + relu(b - a) in a tree, which alone would stretch more than the maximum does.
    """
    first = graph.node(index)
    if not isinstance(first, Affine) or first.kind != "rearrange" or len(first.inputs) != 1 or len(first.shape) != 3:
        return 0, 0
    window, kinds = first.shape[1], ["rearrange"]
    while window > 1:
        kinds += ["rearrange", "rearrange", "sum", "piecewise", "sum"] + ["rearrange", "rearrange"] * (window % 2)
        window = window // 2 + window % 2
    kinds.append("rearrange")
    nodes = graph.nodes[index - 1 : index - 1 + len(kinds)]
    alike = len(kinds) > 2 and len(nodes) == len(kinds)
    if not alike or any(n.name != first.name or n.kind != kind for n, kind in zip(nodes, kinds, strict=True)):
        return 0, 0
    size = math.prod(first.input_shapes[0])
    place = torch.arange(size).reshape(1, *first.input_shapes[0])
    window = first.apply([place])[0].sort(1).values
    # The padding of a window stands as one of its own inputs again.
    again = torch.zeros_like(window, dtype=torch.bool)
    again[:, 1:] = window[:, 1:] == window[:, :-1]
    return len(kinds), int(torch.bincount(window[~again], minlength=size).max())
