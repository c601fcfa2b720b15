"""What a pair of points proves: its slope in double precision, lowered by all that rounding may have added to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from theodolite.instruments.bounds.layer_graph import LayerGraph
from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.layer_steps import POWER, Step
from theodolite.instruments.bounds.lipschitz_bounds import rounding_errors
from theodolite.instruments.bounds.operator_norms import Norm
from theodolite.instruments.bounds.slope_search import Pairs, Segment, node_values
from theodolite.instruments.bounds.verified_cholesky import UNIT_ROUNDING

_ROUNDINGS = 64  # of a function of every number alone


def attained(graph: LayerGraph, steps: Sequence[Step], segment: Segment, pairs: Pairs, norm: Norm) -> Tensor:
    """``(pair,)``: no more than the true slope of the segment between the values that the pairs have before it, 0
    where nothing is left of it. ``steps`` of the whole network with their factors, where the segment is all of it.

    Of a layer, the values before it count as they were computed: points of that layer's own input. Of an unknown
    network, a sum of its squares' roundings is taken, as of one long sum.
    """
    both = [node_values(graph, points, segment.output) for points in (pairs.first, pairs.second)]
    before, after = (
        torch.cat([(second[k] - first[k]).flatten(1) for k in nodes], 1)
        for nodes in (segment.inputs, (segment.output,))
        for first, second in [both]
    )
    low, high = (torch.linalg.vector_norm(change, POWER[norm], dim=1) for change in (before, after))
    error = sum(_error(graph, steps, segment, values, norm) for values in both)
    sums = 1 + 4 * (before.shape[1] + after.shape[1] + 8) * UNIT_ROUNDING
    slope = (high - error) / (low * sums * sums)
    return slope.nan_to_num(0.0, 0.0, 0.0).clamp(min=0.0)


def _error(graph: LayerGraph, steps: Sequence[Step], segment: Segment, values: Sequence[Tensor], norm: Norm) -> Tensor:
    node = graph.node(segment.output)
    if segment.inputs == (0,) and segment.output == graph.n_nodes - 1 and steps:
        return rounding_errors(graph, steps, values, norm)[segment.output]
    if isinstance(node, Affine) and node.kind != "unknown" and segment.inputs == node.inputs:
        size, share = node.apply_absolute([values[k].abs() for k in node.inputs]), 2 * (node.n_terms + 8)
    else:
        size, share = values[segment.output], 2 * max(_ROUNDINGS, getattr(node, "n_terms", 0))
    return share * UNIT_ROUNDING * torch.linalg.vector_norm(size.flatten(1), POWER[norm], dim=1)
