"""Proven lower frame bounds: A with |W x| >= A |x| for all x, the counterpart of the operator norm.

Szegedy et al. 2013, 'Intriguing properties of neural networks', section 4.3 and Table 5 of the review of Komati 2022:
the smallest singular value of a layer. A layer that gives fewer numbers than it takes sends some change to 0; one that
gives as many or more is proven by its singular values or by a Cholesky factorisation of A'A - t I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.instruments.bounds.layer_nodes import Activation, Node
from theodolite.instruments.bounds.operator_norms import (
    CHOLESKY,
    NOT_FINITE,
    SINGULAR,
    Norm,
    balanced,
    can_be_whole,
    matrix_of,
)
from theodolite.instruments.bounds.verified_cholesky import UNIT_ROUNDING, gram, gram_margin, smallest_proven

KERNEL = "0: fewer outputs than inputs"
FLAT = "0: flat somewhere"
EXACT = "exact"
TOO_LARGE = "0: not proven, the layer is too large"
NOT_L2 = "0: not proven, only in L2"
SINGULAR_MATRIX = "0: not proven, the matrix is singular to rounding"
_LARGEST_GRAM = 4096
_LARGEST_FACTORED = 2**26
_SOLVES = 40


@final
@dataclass(frozen=True)
class FrameBound:
    """``value``: |W x| >= value |x| for every change x, proven; ``proof`` in words, or why it is 0. ``smallest``: of
    the min(in, out) singular values, an estimate; NaN where it was not computed."""

    value: float
    proof: str
    smallest: float


def frame_bound(node: Node, norm: Norm) -> FrameBound:
    """Of a layer with one input, changes measured in ``norm`` on both sides."""
    if isinstance(node, Activation):
        return _activation(node)
    if len(node.inputs) > 1:
        return FrameBound(0.0, KERNEL, math.nan)
    if node.weight is not None and not bool(node.weight.isfinite().all()):
        return FrameBound(0.0, NOT_FINITE, math.nan)
    n_in, n_out = math.prod(node.input_shapes[0]), node.size
    if node.kind == "scale" and node.weight is not None:
        least = float(node.weight.abs().min())
        return FrameBound(least, EXACT, least)
    if norm != "L2":
        return FrameBound(0.0, KERNEL if n_out < n_in else NOT_L2, math.nan)
    if can_be_whole(node):
        return _whole(matrix_of(node))
    if n_out < n_in:
        return FrameBound(0.0, KERNEL, math.nan)
    if n_in > _LARGEST_GRAM or n_in * n_out > _LARGEST_FACTORED:
        return FrameBound(0.0, TOO_LARGE, math.nan)
    return _factored(matrix_of(node))


def _activation(node: Activation) -> FrameBound:
    """The least slope of a monotone function; 0 for one that is flat somewhere, folds, or flattens out."""
    least = float(node.slope.clamp(max=1).min()) if node.kind == "piecewise" else 0.0
    return FrameBound(max(0.0, least), EXACT if least > 0 else FLAT, math.nan)


def _whole(matrix: Tensor) -> FrameBound:
    scaled, exponent = balanced(matrix)
    values = torch.linalg.svdvals(scaled)
    smallest = math.ldexp(float(values[-1]), exponent)
    if matrix.shape[0] < matrix.shape[1]:
        return FrameBound(0.0, KERNEL, smallest)
    # See `operator_norms.spectral_norm` for the multiple.
    value = float(values[-1]) - 10 * sum(matrix.shape) * UNIT_ROUNDING * float(values[0])
    return _found(_lowered(value, exponent), SINGULAR, smallest)


def _factored(matrix: Tensor) -> FrameBound:
    scaled, exponent = balanced(matrix)
    product = gram(scaled)
    estimate = _smallest_eigenvalue(product)
    margin = gram_margin(scaled.shape[0], scaled.shape[1], float(product.diagonal().sum()))
    value = math.sqrt(smallest_proven(product, estimate, margin))
    smallest = math.ldexp(math.sqrt(max(0.0, estimate)), exponent)
    return _found(_lowered(value * (1 - 4 * UNIT_ROUNDING), exponent), CHOLESKY, smallest)


def _found(value: float, proof: str, smallest: float) -> FrameBound:
    return FrameBound(value, proof, smallest) if value > 0 else FrameBound(0.0, SINGULAR_MATRIX, smallest)


def _lowered(value: float, exponent: int) -> float:
    if not value > 0:
        return 0.0
    found = math.ldexp(value * (1 - 4 * UNIT_ROUNDING), exponent)
    return found if found >= 2.0**-1000 else max(0.0, math.nextafter(found, -math.inf))


def _smallest_eigenvalue(product: Tensor) -> float:
    """By powers of the inverse on one Cholesky factor; 0 where there is none."""
    factor, failed = torch.linalg.cholesky_ex(product)
    if int(failed):
        return 0.0
    vector = torch.randn((len(product), 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(_SOLVES):
        vector = torch.cholesky_solve(vector, factor)
        vector = vector / torch.linalg.vector_norm(vector)
    return float((vector.T @ (product @ vector)).item())
