"""Proven upper bounds of operator norms of affine maps: matrices, zero-padded convolutions, pools.

A power iteration reaches a norm from below and proves nothing, and the norm of a kernel laid out as a matrix belongs to
no convolution. What is proven here, the least of: all singular values of the whole matrix where it is small; a
Cholesky factorisation of t I - A'A where it is larger (`verified_cholesky`); for a convolution, its norm on a torus
that no window wraps around (`torus_norms`); for a map without negative weights, the ratios of Collatz and Wielandt;
for anything, |A|_2^2 <= |A|_1 |A|_inf and |A|_2 <= |A|_F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.torus_norms import proven_torus_norm, torus
from theodolite.instruments.bounds.verified_cholesky import UNIT_ROUNDING, gram, gram_margin, largest_proven

Norm = Literal["L2", "L1", "Linf"]
NORMS = ("L2", "L1", "Linf")
SUMS, SINGULAR, CHOLESKY = "sums of absolute weights", "singular values of the whole matrix", "Cholesky factorisation"
TORUS, POSITIVE, SQUARES = "norm on a torus", "ratios of Collatz and Wielandt", "sum of squares"
NOT_FINITE = "a weight is not finite"
_LARGEST_SIDE = 1024  # of a matrix whose singular values are worth computing: about half a second
_LARGEST_MATRIX = 2**22
_LARGEST_GRAM = 4096  # side of a matrix that is worth a Cholesky factorisation: some seconds
_LARGEST_FACTORED = 2**26
_LARGEST_UNROLLED = 2**23  # numbers of the matrix of a convolution worth it: on a torus it costs less
_POWER_STEPS = 30


@final
@dataclass(frozen=True)
class ProvenNorm:
    """``value`` no operator norm exceeds, and in words what proves it."""

    value: float
    proof: str


def checked_norm(norm: str) -> Norm:
    """The norm itself. Raises UserError for an unknown one."""
    if norm not in NORMS:
        raise UserError("norm", "L2, L1 or Linf", repr(norm), "choose the norm that distances are measured in")
    return norm  # type: ignore[return-value]


def affine_norm(node: Affine, norm: Norm, source: int = 0) -> float:
    """The largest factor by which the map stretches a change of its input number ``source``, proven.

    From changes and to changes measured in ``norm``; infinite where a weight is not finite. Moved up by what rounding
    may have changed.
    """
    return proven_norm(node, norm, source).value


def proven_norm(node: Affine, norm: Norm, source: int = 0, *, quick: bool = False) -> ProvenNorm:
    """`affine_norm` with what proves it; ``quick``: by sums alone."""
    if node.kind == "rearrange" and len(node.inputs) > 1:
        return ProvenNorm(1.0, SUMS)
    largest_column, largest_row = sums_norms(node, source)
    if not math.isfinite(largest_column) or not math.isfinite(largest_row):
        return ProvenNorm(math.inf, NOT_FINITE)
    if norm != "L2":
        return ProvenNorm(largest_column if norm == "L1" else largest_row, SUMS)
    # Equal for maps that only move numbers or scale them all alike; the roots apart, so that nothing underflows.
    found = [ProvenNorm(_up(math.sqrt(largest_column) * math.sqrt(largest_row), 4), SUMS)]
    if quick or node.kind in ("rearrange", "scale", "sum") or found[0].value == 0:
        return found[0]
    if can_be_whole(node, source):
        found.append(ProvenNorm(spectral_norm(matrix_of(node, source)), SINGULAR))
    elif node.kind == "average":
        found.append(ProvenNorm(positive_norm(node, source), POSITIVE))
    else:
        found += _large(node, source)
    return min(found, key=lambda norm: norm.value)


def _large(node: Affine, source: int) -> list[ProvenNorm]:
    """Bounds of a linear layer or convolution whose singular values would take too long."""
    found, weight = [], node.weight
    n_in, n_out = math.prod(node.input_shapes[source]), node.size
    if node.kind == "convolution" and weight is not None:
        size = node.input_shapes[0][1:]
        value = torus_norm(weight, size, node.stride, node.padding, node.dilation, groups=node.groups)
        found.append(ProvenNorm(value, TORUS))
    elif weight is not None:
        scaled, exponent = balanced(weight)
        total = float(scaled.square().sum()) * (1 + 2 * (scaled.numel() + 2) * UNIT_ROUNDING)
        found.append(ProvenNorm(unbalanced(_up(math.sqrt(total), 4), exponent), SQUARES))
    largest = _LARGEST_FACTORED if node.kind == "linear" else _LARGEST_UNROLLED
    if min(n_in, n_out) <= _LARGEST_GRAM and n_in * n_out <= largest:
        found.append(ProvenNorm(cholesky_norm(matrix_of(node, source)), CHOLESKY))
    return found


def can_be_whole(node: Affine, source: int = 0) -> bool:
    """Whether all singular values of the node's matrix are worth computing."""
    n_in, n_out = math.prod(node.input_shapes[source]), node.size
    return min(n_in, n_out) <= _LARGEST_SIDE and n_in * n_out <= _LARGEST_MATRIX


def matrix_of(node: Affine, source: int = 0) -> Tensor:
    """``(out, in)`` float64: the linear part of an affine node."""
    if node.kind == "linear" and node.weight is not None and len(node.shape) == 1:
        return node.weight
    identity = torch.eye(node.size, dtype=torch.float64).reshape(node.size, *node.shape)
    return node.transpose(identity)[source].reshape(node.size, -1)


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value of ``(rows, columns)``, moved up.

    LAPACK's singular values are those of a matrix that differs by a small multiple of u times the norm (Anderson et al.
    1999, 'LAPACK Users' Guide', section 4.9); the multiple is taken as 10 (rows + columns).
    """
    if not bool(matrix.isfinite().all()):
        return math.inf
    if not matrix.numel():
        return 0.0
    scaled, exponent = balanced(matrix)
    return unbalanced(_up(float(torch.linalg.svdvals(scaled)[0]), 10 * sum(matrix.shape)), exponent)


def cholesky_norm(matrix: Tensor) -> float:
    """The norm of ``(rows, columns)``, moved up by about its smaller side times 1e-12, proven by a factorisation of
    t I - A'A (`verified_cholesky`)."""
    if not bool(matrix.isfinite().all()):
        return math.inf
    if not matrix.numel():
        return 0.0
    scaled, exponent = balanced(matrix)
    product = gram(scaled)
    total = float(product.diagonal().sum())
    margin = gram_margin(scaled.shape[0], scaled.shape[1], total)
    value = math.sqrt(largest_proven(product, largest_eigenvalue(product), margin))
    return unbalanced(_up(value, 4), exponent)


def largest_eigenvalue(product: Tensor, n_steps: int = 150) -> float:
    """The largest of ``(n, n)`` symmetric by Lanczos' method: an estimate from below."""
    n = len(product)
    generator = torch.Generator().manual_seed(0)
    vector = product @ torch.randn(n, generator=generator, dtype=torch.float64)
    basis = torch.zeros((n, min(n, n_steps)), dtype=torch.float64)
    diagonal, beside, value = [], [], 0.0
    for step in range(basis.shape[1]):
        length = float(torch.linalg.vector_norm(vector))
        if length <= 1e-13 * value or length == 0:
            break
        if step:
            beside.append(length)
        basis[:, step] = vector / length
        image = product @ basis[:, step]
        diagonal.append(float(image @ basis[:, step]))
        vector = image
        for _ in range(2):
            vector = vector - basis[:, : step + 1] @ (basis[:, : step + 1].T @ vector)
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            rest = torch.tensor(beside, dtype=torch.float64)
            small += torch.diag(rest, 1) + torch.diag(rest, -1)
        new = float(torch.linalg.eigvalsh(small)[-1])
        if step > 20 and new - value <= 1e-14 * new:
            return new
        value = new
    return value


def torus_norm(
    weight: Tensor,
    size: tuple[int, ...],
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    *,
    groups: int = 1,
) -> float:
    """No less than the norm of the zero-padded convolution ``weight (out, in / groups, k, l)`` on ``(rows, columns)``;
    see `torus_norms`."""
    if not bool(weight.isfinite().all()):
        return math.inf
    scaled, exponent = balanced(weight)
    return unbalanced(proven_torus_norm(torus(scaled, size, stride, padding, dilation, groups)), exponent)


def positive_norm(node: Affine, source: int = 0) -> float:
    """No less than the norm of a map whose weights are not negative: max over i of (A'A v)_i / v_i, for any v > 0
    (Collatz 1942, Wielandt 1950; Horn and Johnson 2013, 'Matrix Analysis', theorem 8.1.26)."""
    shapes = node.input_shapes
    leaves = [torch.zeros((1, *shape), dtype=torch.float64) for shape in shapes]
    vector, found = torch.ones((1, *shapes[source]), dtype=torch.float64), math.inf
    for _ in range(_POWER_STEPS):
        leaves[source] = vector
        image = node.transpose(node.apply_absolute(leaves))[source]
        found = min(found, float((image / vector).max()))
        vector = torch.maximum(image / image.max(), 1e-6 * torch.ones_like(image))
    return _up(math.sqrt(found), 4 * (node.n_terms + 4))


def sums_norms(node: Affine, source: int = 0) -> tuple[float, float]:
    """The largest sum of absolute weights of a column and of a row, moved up: the norms in L1 and Linf."""
    columns, rows = _sums(node, source)
    n_terms = 4 * (node.n_terms + math.prod(node.input_shapes[source]) + 8)
    return _up(float(columns.max()), n_terms), _up(float(rows.max()), n_terms)


def balanced(matrix: Tensor) -> tuple[Tensor, int]:
    """The matrix in float64 times a power of two that brings its largest number to [1, 2), so that squares neither
    overflow nor vanish, and the exponent that takes it back."""
    double = matrix.double()
    largest = float(double.abs().max()) if matrix.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return double, 0
    exponent = math.frexp(largest)[1] - 1
    # In two steps: the factor itself may not be a float.
    half = exponent // 2
    return double * 2.0**-half * 2.0 ** -(exponent - half), exponent


def unbalanced(value: float, exponent: int) -> float:
    """``value`` times 2 to the exponent, rounded up."""
    try:
        found = math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
    # What was rounded to a denormal number may have been larger.
    return found if value == 0 or found >= 2.0**-1000 else math.nextafter(found, math.inf)


def _up(value: float, n_roundings: float) -> float:
    moved = value * (1 + n_roundings * UNIT_ROUNDING)
    return moved if value == 0 or value >= 2.0**-960 else moved + 2.0**-1040


def _sums(node: Affine, source: int) -> tuple[Tensor, Tensor]:
    """Sums of absolute weights: of each column ``(in,)`` and of each row ``(out,)``."""
    leaves = [torch.zeros((1, *shape), dtype=torch.float64) for shape in node.input_shapes]
    nothing = node.apply_absolute(leaves)
    leaves[source] = torch.ones_like(leaves[source]).requires_grad_(True)
    with torch.enable_grad():
        everything = node.apply_absolute(leaves)
        (columns,) = torch.autograd.grad(everything.sum(), leaves[source])
    rows = everything.detach() - nothing
    # The offset was added and taken away again.
    return columns.reshape(-1), rows.reshape(-1) + 4 * UNIT_ROUNDING * nothing.reshape(-1).abs()
