"""Pools of adversarial examples, of the input and of each hidden layer, a part of which is replaced as one trains.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.2 (Komati 2022, review, section 5):
a pool of examples, a random subset of which is replaced by new ones all the time. An example of a hidden layer
is a minimal change of that layer's activations for which the rest of the network errs.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.boundary_starts import newton_starts, onto_boundary
from theodolite.search.margins import Margins, margins
from theodolite.search.regions import hull
from theodolite.zoo.flip_networks import TunableErf

# What a layer after this activation can be given; changes that leave it would be of no network's making.
ACTIVATION_RANGES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
    TunableErf: (-1.0, 1.0),
    nn.ReLU: (0.0, math.inf),
}
_FOLLOWS_THE_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_ROWS_AT_ONCE = 1000
_N_SECANT_STEPS = 4
_OVERSTEP = 0.02  # of the margin at the start: a linearised boundary is aimed at this far beyond


@final
@dataclass(frozen=True)
class Layers:
    """A network cut where its pools lie: ``blocks[k]`` leads from layer k to layer k + 1, the last one to the outputs.

    Layer 0 is the input, layer k the output of the k-th activation; ``ranges[k]`` are the least and greatest value of
    a coordinate there. The blocks share their weights with the network.
    """

    blocks: tuple[nn.Sequential, ...]
    ranges: tuple[tuple[float, float], ...]

    def activations(self, x: Tensor, layer: int) -> Tensor:
        """What inputs ``(n, ...)`` are at a layer, without gradients."""
        with torch.no_grad():
            for block in self.blocks[:layer]:
                x = block(x)
        return x

    def rest(self, layer: int, shape: tuple[int, ...], n_outputs: int, dtype: torch.dtype) -> Outputs:
        """The network from ``layer`` on, as it stands now: a copy, in ``dtype``."""
        function = nn.Sequential(*(copy.deepcopy(block) for block in self.blocks[layer:]))
        function.eval().requires_grad_(False).to(dtype)
        n = math.prod(shape)
        low, high = (torch.full((n,), end, dtype=torch.float64) for end in self.ranges[layer])
        return Outputs(function, shape, low, high, n_outputs, dtype=dtype, name=f"the network from layer {layer} on")


def cut_into_layers(module: nn.Module, low: float = 0.0, high: float = 1.0) -> Layers:
    """The layers of a chain of modules whose inputs lie in [``low``, ``high``].

    Raises UserError where the module is no ``nn.Sequential``, where it holds dropout (a setting of the training) or
    batch normalisation (an example in the batch would change what the network makes of the others), or where it ends
    with an activation.
    """
    if not isinstance(module, nn.Sequential):
        raise UserError("module", "an nn.Sequential, which can be cut", type(module).__name__, "make it a chain")
    for part in module.modules():
        if isinstance(part, _FOLLOWS_THE_BATCH):
            remedy = "leave it out; dropout is a setting of PoolTraining"
            raise UserError("module", "no dropout and no batch normalisation", str(part), remedy)
    if not low < high:
        raise UserError("low, high", "low below high", f"{low}, {high}", "inputs of images lie in [0, 1]")
    children = list(module.children())
    cuts, ranges = [0], [(low, high)]
    for position, child in enumerate(children, start=1):
        if type(child) in ACTIVATION_RANGES:
            cuts.append(position)
            ranges.append(ACTIVATION_RANGES[type(child)])
    if cuts[-1] == len(children):
        raise UserError("module", "logits at the end", f"{children[-1]}", "leave the last activation out")
    ends = [*cuts[1:], len(children)]
    return Layers(tuple(nn.Sequential(*children[a:b]) for a, b in zip(cuts, ends, strict=True)), tuple(ranges))


@final
@dataclass(frozen=True)
class Examples:
    """Minimal examples at a layer, before amplification: ``point (row, n)`` float64 flat, ``distance (row,)`` float64
    L2, ``found (row,)`` bool: the rest of the network, in float64, gives the point another class than its label."""

    point: Tensor
    distance: Tensor
    found: Tensor


def minimal_examples(outputs: Outputs, exact: Outputs, x: Tensor, labels: Tensor, n_newton_steps: int = 3) -> Examples:
    """For flat points ``(row, n)`` the network has right, a near point where it errs; not found where it has not.

    Newton's method towards the class whose linearised boundary is nearest, inside the box (Moosavi-Dezfooli et al.
    2016, "DeepFool"), then secants back onto the boundary, and once more from the boundary linearised there, in
    float64, with which success is judged. About 35 forward and backward passes and a thirtieth of the seconds of quick
    `closest_flips`; longer by 3% on N100-100-10 of ten digits, by 20% on one hardly trained, where the class that is
    nearest linearly is often not the nearest.
    """
    n = x.shape[1]
    parts = [Examples(x.new_zeros((0, n)).double(), *(x.new_zeros(0, dtype=t) for t in (torch.float64, torch.bool)))]
    for part, label in zip(x.split(_ROWS_AT_ONCE), labels.split(_ROWS_AT_ONCE), strict=True):
        region = hull(outputs, len(part)).to(outputs.dtype)
        origin = region.nearest(part.to(outputs.dtype), part.to(outputs.dtype))
        search = margins(outputs, label)
        search.target = _nearest_class(outputs, origin, label)
        anywhere = origin.new_full((len(part),), torch.inf)
        reached = newton_starts(search, region, origin, anywhere, n_newton_steps).double()
        judge, start = margins(exact, label), part.double()
        right = judge.value(start) > 0
        point = onto_boundary(judge, start, reached, _N_SECANT_STEPS)
        nearer = _projected_again(judge, start, point, right)
        point = torch.where(nearer.isfinite(), nearer, point)
        found = right & (judge.value(point) <= 0)
        parts.append(Examples(point, (point - start).norm(dim=1), found))
    point, distance, found = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("point", "distance", "found")
    )
    return Examples(point, distance, found)


def _projected_again(judge: Margins, start: Tensor, point: Tensor, right: Tensor) -> Tensor:
    """Where the boundary linearised at ``point`` comes nearest to ``start``, brought onto the boundary; NaN where that
    is no nearer."""
    margin, slope = judge.value_and_gradient(point)
    cut = (slope * point).sum(1) - margin - _OVERSTEP * judge.value(start)
    there = hull(judge.outputs, len(start)).project(start, slope[:, None], cut[:, None])
    there = onto_boundary(judge, start, there, _N_SECANT_STEPS)
    better = right & (judge.value(there) <= 0) & ((there - start).norm(dim=1) < (point - start).norm(dim=1))
    return there.masked_fill(~better[:, None], torch.nan)


def _nearest_class(outputs: Outputs, x: Tensor, own: Tensor) -> Tensor:
    """``(row,)`` the class whose linearised boundary is nearest along the coordinates that are free to move."""
    identity = torch.eye(outputs.n_outputs, dtype=outputs.dtype)
    output, slope = outputs.rows(x, lambda z, _: identity.expand(len(z), -1, -1))
    row = torch.arange(len(x))
    normal = slope[row, own][:, None] - slope
    low, high = outputs.low.to(x.dtype), outputs.high.to(x.dtype)
    blocked = ((x <= low)[:, None] & (normal > 0)) | ((x >= high)[:, None] & (normal < 0))
    distance = (output[row, own][:, None] - output) / normal.masked_fill_(blocked, 0.0).norm(dim=2)
    return distance.nan_to_num(torch.inf).scatter(1, own[:, None], torch.inf).argmin(1)


def amplified(x: Tensor, point: Tensor, factor: float, low: float, high: float) -> Tensor:
    """``x + factor (point - x)``, moved back into the range where it leaves it."""
    return (x + factor * (point - x)).clamp(low, high)


@final
@dataclass
class Pool:
    """``point (slot, *shape)`` at ``layer`` with the labels of the images they were made from, ``label (slot,)``;
    ``born (slot,)`` int64: the epoch each was made in."""

    layer: int
    point: Tensor
    label: Tensor
    born: Tensor


@final
@dataclass(frozen=True)
class PoolRecord:
    """One refreshing: how many of the ``n_tried`` images gave an example, their mean distortion sqrt(mean squared
    change) before amplification, in the units of the layer (NaN: none), and forward and backward passes spent."""

    epoch: int
    layer: int
    n_tried: int
    n_replaced: int
    distortion: float
    units: int


def empty_pool(layers: Layers, layer: int, x: Tensor) -> Pool:
    """A pool without examples for the network of inputs like ``x (n, ...)``."""
    shape = layers.activations(x[:1], layer).shape[1:]
    nothing = torch.zeros(0, dtype=torch.int64)
    return Pool(layer, x.new_zeros((0, *shape)), nothing, nothing.clone())


def refresh(
    pool: Pool,
    layers: Layers,
    x: Tensor,
    labels: Tensor,
    *,
    size: int,
    part: float,
    amplification: float,
    n_newton_steps: int,
    n_outputs: int,
    epoch: int,
    generator: torch.Generator,
) -> tuple[Pool, PoolRecord]:
    """Replace a random ``part`` of the pool's ``size`` slots by examples against the network as it stands.

    As many images of ``x (n, ...)`` are drawn as slots are free or to be replaced; where the network errs on one
    already, or no example is found, a slot keeps what it has, or stays free.
    """
    n_kept = len(pool.label)
    wanted = min(len(x), max(round(part * size), size - n_kept))
    rows = torch.randperm(len(x), generator=generator)[:wanted]
    here = layers.activations(x[rows], pool.layer)
    shape = tuple(here.shape[1:])
    outputs = layers.rest(pool.layer, shape, n_outputs, x.dtype)
    exact = layers.rest(pool.layer, shape, n_outputs, torch.float64)
    flat = here.reshape(len(rows), -1)
    examples = minimal_examples(outputs, exact, flat, labels[rows], n_newton_steps)
    found = examples.found.nonzero()[:, 0]
    low, high = layers.ranges[pool.layer]
    new = amplified(flat[found].double(), examples.point[found], amplification, low, high).to(x.dtype)
    n_kept = min(n_kept, size - len(found))
    survivors = torch.randperm(len(pool.label), generator=generator)[:n_kept].sort().values
    replaced = Pool(
        pool.layer,
        torch.cat((pool.point[survivors], new.reshape(-1, *shape))),
        torch.cat((pool.label[survivors], labels[rows][found])),
        torch.cat((pool.born[survivors], torch.full((len(found),), epoch))),
    )
    distortion = float((examples.distance[found] / math.sqrt(flat.shape[1])).mean())
    units = outputs.n_units + exact.n_units
    return replaced, PoolRecord(epoch, pool.layer, len(rows), len(found), distortion, units)
