"""The operations a layer graph is made of: affine maps, which bounds pass through exactly, and activations.

Every affine map knows its transpose, its map of absolute values and how many terms its sums have: what linear bounds
and their rounding errors need. Values are batches ``(batch, *shape)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from theodolite.instruments.bounds.activation_slopes import Curve

ActivationKind = Literal["piecewise", "erf", "tanh", "sigmoid", "curve"]


@final
@dataclass(frozen=True)
class Affine:
    """``apply(inputs)`` is affine in all its inputs, the values of the nodes ``inputs``, of shapes ``input_shapes``.

    ``apply_absolute`` is the same with every weight and offset replaced by its absolute value; ``transpose(rows)``
    maps rows ``(batch, *shape)`` over the output to rows over each input. ``n_terms``: the most numbers that are added
    for one number of ``apply`` or ``transpose``; 0 where numbers only move. ``kind`` is "linear", "convolution",
    "scale", "rearrange", "average" or "sum"; ``weight`` ``(out, in)`` or a kernel, or factors that broadcast to the
    shape; ``bias_magnitude``: the absolute values that were added to make ``bias``; ``stride``, ``padding``,
    ``dilation``, ``groups`` belong to convolutions.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    n_terms: int
    apply: Callable[[Sequence[Tensor]], Tensor]
    apply_absolute: Callable[[Sequence[Tensor]], Tensor]
    transpose: Callable[[Tensor], list[Tensor]]
    weight: Tensor | None = None
    bias: Tensor | None = None
    bias_magnitude: Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def size(self) -> int:
        """Numbers of one value."""
        return math.prod(self.shape)

    def offset(self) -> Tensor:
        """``(size,)``: the value at zero."""
        return self.apply([torch.zeros((1, *shape), dtype=torch.float64) for shape in self.input_shapes]).reshape(-1)


@final
@dataclass(frozen=True)
class Activation:
    """A function of every number alone. "piecewise" is x for x > 0 and ``slope`` x below (a number of each
    coordinate: 0 for ReLU); "curve" is ``curve``, of which slopes are known and no lines."""

    name: str
    kind: ActivationKind
    inputs: tuple[int]
    shape: tuple[int, ...]
    slope: Tensor
    curve: Curve | None = None

    @property
    def size(self) -> int:
        """Numbers of one value."""
        return math.prod(self.shape)

    def apply(self, inputs: Sequence[Tensor]) -> Tensor:
        """Values ``(batch, *shape)``."""
        x = inputs[0]
        if self.curve is not None:
            return self.curve.value(x)
        if self.kind == "piecewise":
            return torch.where(x > 0, x, self.slope.reshape(self.shape) * x)
        return {"erf": torch.erf, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[self.kind](x)


Node = Affine | Activation


def linear(
    name: str,
    source: int,
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    bias_magnitude: Tensor | None = None,
) -> Affine:
    """The last axis times ``weight (out, in)``, plus ``bias``."""
    weight, bias = weight.double(), None if bias is None else bias.double()
    absolute = bias.abs() if bias_magnitude is None and bias is not None else bias_magnitude
    return Affine(
        name,
        "linear",
        (source,),
        (shape,),
        (*shape[:-1], len(weight)),
        max(weight.shape) + 1,
        lambda x: F.linear(x[0], weight, bias),
        lambda x: F.linear(x[0], weight.abs(), absolute),
        lambda rows: [rows @ weight],
        weight=weight,
        bias=bias,
        bias_magnitude=absolute,
    )


def convolution(
    name: str,
    source: int,
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    bias_magnitude: Tensor | None = None,
) -> Affine:
    """A zero-padded two-dimensional convolution of ``(channels, rows, columns)``."""
    weight, bias = weight.double(), None if bias is None else bias.double()

    def apply(x: Sequence[Tensor], kernel: Tensor, constant: Tensor | None) -> Tensor:
        return F.conv2d(x[0], kernel, constant, stride, padding, dilation, groups)

    def transpose(rows: Tensor) -> list[Tensor]:
        size = (len(rows), *shape)
        return [conv2d_input(size, weight, rows, stride, padding, dilation, groups)]  # type: ignore[arg-type]

    absolute = bias.abs() if bias_magnitude is None and bias is not None else bias_magnitude
    example = apply([torch.zeros((1, *shape), dtype=torch.float64)], weight, bias)
    kernel_size = math.prod(weight.shape[2:])
    return Affine(
        name,
        "convolution",
        (source,),
        (shape,),
        tuple(example.shape[1:]),
        max(weight.shape[1], len(weight) // groups) * kernel_size + 1,
        lambda x: apply(x, weight, bias),
        lambda x: apply(x, weight.abs(), absolute),
        transpose,
        weight=weight,
        bias=bias,
        bias_magnitude=absolute,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def scaled(
    name: str, source: int, shape: tuple[int, ...], factor: Tensor, offset: Tensor, offset_magnitude: Tensor
) -> Affine:
    """Every number times ``factor`` plus ``offset``, both of ``shape``."""
    return Affine(
        name,
        "scale",
        (source,),
        (shape,),
        shape,
        2,
        lambda x: x[0] * factor + offset,
        lambda x: x[0] * factor.abs() + offset_magnitude,
        lambda rows: [rows * factor],
        weight=factor,
        bias=offset,
        bias_magnitude=offset_magnitude,
    )


def rearranged(name: str, source: int, shape: tuple[int, ...], order: Tensor) -> Affine:
    """Numbers moved, left out or repeated: ``order`` (of the new shape) holds where each comes from."""
    index = order.reshape(-1)
    size = math.prod(shape)
    new_shape = tuple(order.shape)
    moves = not torch.equal(index, torch.arange(size))
    repeats = int(torch.bincount(index, minlength=size).max()) if len(index) else 0

    def apply(x: Sequence[Tensor]) -> Tensor:
        flat = x[0].reshape(len(x[0]), size)
        return (flat[:, index] if moves else flat).reshape(len(flat), *new_shape)

    def transpose(rows: Tensor) -> list[Tensor]:
        flat = rows.reshape(len(rows), len(index))
        if moves:
            flat = torch.zeros((len(rows), size), dtype=rows.dtype).index_add_(1, index, flat)
        return [flat.reshape(len(rows), *shape)]

    terms = repeats if repeats > 1 else 0
    return Affine(name, "rearrange", (source,), (shape,), new_shape, terms, apply, apply, transpose)


def averaged(name: str, source: int, shape: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> Affine:
    """A linear map without negative weights, given as a function: average pools and means."""
    example = function(torch.zeros((1, *shape), dtype=torch.float64))

    def transpose(rows: Tensor) -> list[Tensor]:
        leaf = torch.zeros((len(rows), *shape), dtype=rows.dtype, requires_grad=True)
        with torch.enable_grad():
            value = function(leaf)
        return [torch.autograd.grad(value, leaf, rows)[0]]

    return Affine(
        name,
        "average",
        (source,),
        (shape,),
        tuple(example.shape[1:]),
        math.prod(shape),
        lambda x: function(x[0]),
        lambda x: function(x[0]),
        transpose,
    )


def added(name: str, sources: tuple[int, ...], shape: tuple[int, ...], factors: tuple[float, ...]) -> Affine:
    """Nodes of one shape, each times its factor, added: residual connections."""
    pairs = tuple(factors)
    return Affine(
        name,
        "sum",
        sources,
        (shape,) * len(sources),
        shape,
        len(sources),
        lambda x: torch.stack([f * part for f, part in zip(pairs, x, strict=True)]).sum(0),
        lambda x: torch.stack([abs(f) * part for f, part in zip(pairs, x, strict=True)]).sum(0),
        lambda rows: [f * rows for f in pairs],
    )


def joined(name: str, sources: tuple[int, ...], shapes: tuple[tuple[int, ...], ...], axis: int) -> Affine:
    """Nodes concatenated along ``axis`` of a point (0: the first after the batch)."""
    lengths = [shape[axis] for shape in shapes]
    shape = (*shapes[0][:axis], sum(lengths), *shapes[0][axis + 1 :])

    def apply(x: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(x), axis + 1)

    return Affine(
        name,
        "rearrange",
        sources,
        shapes,
        shape,
        0,
        apply,
        apply,
        lambda rows: list(rows.split(lengths, axis + 1)),
    )
