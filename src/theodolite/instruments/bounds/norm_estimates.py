"""The operator norm of a layer as it is applied, zero padding included: estimates with their residual, never bounds.

Small matrices by their singular values; large maps without their matrix, by implicitly restarted Lanczos iterations on
A'A (Lehoucq, Sorensen and Yang 1998, 'ARPACK Users' Guide') in double precision. What an iteration reaches lies at or
below the norm; how far it is from an eigenvalue, its residual tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.operator_norms import Norm, balanced, can_be_whole, matrix_of, sums_norms, unbalanced

_TOLERANCE = 1e-11  # of the eigenvalue of A'A, relative; its error is about the square of the residual
_BASIS = 32  # vectors that an iteration keeps
_RESTARTS = 30
_SMALL = 40  # side from which an iteration is worth it


@final
@dataclass(frozen=True)
class NormEstimate:
    """``value``: the norm; ``residual``: |A'A v - value^2 v| / value^2 for the unit vector v that reaches it, 0 for
    sums that are exact; ``direction`` v, flat, or None where it was not needed."""

    value: float
    residual: float
    direction: Tensor | None


def operator_norm(node: Affine, norm: Norm, source: int = 0, *, whole: bool | None = None) -> NormEstimate:
    """The norm of the linear part of an affine map with respect to its input number ``source``.

    ``whole``: from the matrix (True) or without it (False); as its size demands when left out.
    """
    largest_column, largest_row = sums_norms(node, source)
    if not math.isfinite(largest_column) or not math.isfinite(largest_row):
        return NormEstimate(math.inf, 0.0, None)
    if norm != "L2":
        return NormEstimate(largest_column if norm == "L1" else largest_row, 0.0, None)
    if node.kind == "rearrange" and len(node.inputs) > 1:
        return NormEstimate(1.0, 0.0, None)
    n_in, n_out = math.prod(node.input_shapes[source]), node.size
    exact = node.kind in ("rearrange", "scale", "sum")
    if exact or largest_column == 0:
        return NormEstimate(math.sqrt(largest_column) * math.sqrt(largest_row), 0.0, None)
    whole = can_be_whole(node, source) if whole is None else whole
    if whole or min(n_in, n_out) < _SMALL:
        return _dense(matrix_of(node, source))
    forward, backward, exponent = linear_map(node, source)
    return _iterated(forward, backward, n_in, n_out, exponent)


def linear_map(node: Affine, source: int = 0) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]:
    """The linear part and its transpose on flat float64 vectors, both divided by a power of two, and its exponent."""
    shapes, shape = node.input_shapes, node.shape
    if node.weight is not None and node.kind == "linear" and len(shape) == 1:
        scaled, exponent = balanced(node.weight)
        return (lambda x: scaled @ x), (lambda y: scaled.T @ y), exponent
    if node.weight is not None and node.kind == "convolution":
        scaled, exponent = balanced(node.weight)
        settings = node.stride, node.padding, node.dilation, node.groups
        size = (1, *shapes[0])

        def forward(x: Tensor) -> Tensor:
            return F.conv2d(x.reshape(size), scaled, None, *settings).reshape(-1)

        def backward(y: Tensor) -> Tensor:
            rows = y.reshape(1, *shape)
            return torch.nn.grad.conv2d_input(size, scaled, rows, *settings).reshape(-1)  # type: ignore[arg-type]

        return forward, backward, exponent
    leaves = [torch.zeros((1, *part), dtype=torch.float64) for part in shapes]
    offset = node.apply(leaves)

    def apply(x: Tensor) -> Tensor:
        given = [x.reshape(1, *shapes[source]) if k == source else leaf for k, leaf in enumerate(leaves)]
        return (node.apply(given) - offset).reshape(-1)

    return apply, (lambda y: node.transpose(y.reshape(1, *shape))[source].reshape(-1)), 0


def _dense(matrix: Tensor) -> NormEstimate:
    scaled, exponent = balanced(matrix)
    left, values, right = torch.linalg.svd(scaled, full_matrices=False)
    value, vector = float(values[0]), right[0]
    residual = float(torch.linalg.vector_norm(scaled.T @ (scaled @ vector) - value**2 * vector)) / value**2
    return NormEstimate(_scaled(value, exponent), residual, vector)


def _iterated(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor], n_in: int, n_out: int, exponent: int
) -> NormEstimate:
    wide = n_out < n_in  # the shorter side is the one that vectors are kept of

    def product(x: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(np.ascontiguousarray(x.reshape(-1)))
        return (forward(backward(vector)) if wide else backward(forward(vector))).numpy()

    n = min(n_in, n_out)
    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    try:
        _, vectors = eigsh(
            operator,
            k=1,
            which="LA",
            v0=product(start),
            ncv=min(_BASIS, n - 1),
            tol=_TOLERANCE,  # type: ignore[arg-type]
            maxiter=_RESTARTS,
        )
        vector = torch.from_numpy(np.ascontiguousarray(vectors[:, 0]))
    except ArpackNoConvergence:
        vector = _powers(product, start)
    direction = backward(vector) if wide else vector
    direction = direction / torch.linalg.vector_norm(direction)
    image = forward(direction)
    value = float(torch.linalg.vector_norm(image))
    residual = float(torch.linalg.vector_norm(backward(image) - value**2 * direction)) / value**2
    return NormEstimate(_scaled(value, exponent), residual, direction)


def _powers(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> Tensor:
    """What a power iteration reaches: a direction with its residual, where Lanczos iterations did not settle."""
    for _ in range(_BASIS):
        start = product(start)
        start = start / np.linalg.norm(start)
    return torch.from_numpy(start)


def _scaled(value: float, exponent: int) -> float:
    return unbalanced(value, exponent) if exponent >= -900 else value * 2.0 ** max(exponent, -1074)
