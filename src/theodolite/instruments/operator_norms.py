"""Proven upper bounds of operator norms of affine maps: matrices, zero-padded convolutions, pools.

A power iteration reaches a norm from below and proves nothing, and the norm of a kernel laid out as a matrix belongs to
no convolution. What is proven here: singular values of the whole matrix where it is small; for a convolution, the norm
on a torus that is large enough for no window to wrap around onto the input (Sedghi, Gupta and Long 2019, 'The Singular
Values of Convolutional Layers', with strides by aliasing), of which the zero-padded one is a part; for anything,
|A|_2^2 <= |A|_1 |A|_inf.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.layer_nodes import Affine

Norm = Literal["L2", "L1", "Linf"]
NORMS = ("L2", "L1", "Linf")
_LARGEST_SIDE = 1024  # of a matrix whose singular values are worth computing: about half a second
_LARGEST_MATRIX = 2**22
_UNIT_ROUNDING = 2.0**-53


def checked_norm(norm: str) -> Norm:
    """The norm itself. Raises UserError for an unknown one."""
    if norm not in NORMS:
        raise UserError("norm", "L2, L1 or Linf", repr(norm), "choose the norm that distances are measured in")
    return norm  # type: ignore[return-value]


def affine_norm(node: Affine, norm: Norm, source: int = 0) -> float:
    """The largest factor by which the map stretches a change of its input number ``source``, proven.

    From changes and to changes measured in ``norm``; infinite where a weight is not finite. Moved up by what rounding
    may have changed (see `spectral_norm`; sums of k terms by 2 k u).
    """
    if node.kind == "rearrange" and len(node.inputs) > 1:
        return 1.0
    columns, rows = _sums(node, source)
    outward = 1 + 4 * (node.n_terms + math.prod(node.input_shapes[source]) + 8) * _UNIT_ROUNDING
    largest_column, largest_row = float(columns.max()) * outward, float(rows.max()) * outward
    if not math.isfinite(largest_column) or not math.isfinite(largest_row):
        return math.inf
    if norm == "L1":
        return largest_column
    if norm == "Linf":
        return largest_row
    # Equal for maps that only move numbers or scale them all alike.
    found = math.sqrt(largest_column * largest_row) * (1 + 4 * _UNIT_ROUNDING)
    if node.kind in ("rearrange", "scale", "sum"):
        return found
    n_in, n_out = math.prod(node.input_shapes[source]), node.size
    if min(n_in, n_out) <= _LARGEST_SIDE and n_in * n_out <= _LARGEST_MATRIX:
        return min(found, spectral_norm(matrix_of(node, source)))
    if node.kind == "convolution" and node.weight is not None:
        found = min(
            found,
            torus_norm(
                node.weight, node.input_shapes[0][1:], node.stride, node.padding, node.dilation, groups=node.groups
            ),
        )
    return found


def matrix_of(node: Affine, source: int = 0) -> Tensor:
    """``(out, in)`` float64: the linear part of an affine node."""
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
    largest = float(torch.linalg.svdvals(matrix.double())[0])
    return largest * (1 + 10 * sum(matrix.shape) * _UNIT_ROUNDING)


def torus_norm(
    weight: Tensor,
    size: tuple[int, ...],
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    *,
    groups: int = 1,
) -> float:
    """The norm of a convolution ``weight (out, in / groups, k, l)`` on a torus of at least ``size`` + padding: no less
    than that of the zero-padded one on ``(rows, columns)``.

    The torus has sides that the stride divides and that no window wraps around. Each of its frequencies is a matrix;
    a stride joins the frequencies that it folds onto each other. Moved up by the rounding of the transform.
    """
    kernel = weight.double()
    if not bool(kernel.isfinite().all()):
        return math.inf
    sides = []
    for axis in range(2):
        reach = dilation[axis] * (kernel.shape[2 + axis] - 1) + 1
        side = max(size[axis] + padding[axis], reach)
        sides.append(-(-side // stride[axis]) * stride[axis])
    placed = torch.zeros((*kernel.shape[:2], *sides), dtype=torch.float64)
    rows, columns = (torch.arange(kernel.shape[2 + axis]) * dilation[axis] for axis in range(2))
    placed[:, :, rows[:, None], columns[None, :]] = kernel
    frequency = torch.fft.fft2(placed)
    n_out, n_in = kernel.shape[0] // groups, kernel.shape[1]
    folds = [side // step for side, step in zip(sides, stride, strict=True)]
    # Frequencies a whole number of folds apart are one and the same after the stride.
    block = frequency.reshape(groups, n_out, n_in, stride[0], folds[0], stride[1], folds[1])
    block = block.permute(0, 4, 6, 1, 2, 3, 5).reshape(-1, n_out, n_in * stride[0] * stride[1])
    block = block / math.sqrt(stride[0] * stride[1])
    gram = block @ block.mH if block.shape[1] <= block.shape[2] else block.mH @ block
    largest = float(torch.linalg.eigvalsh(gram)[:, -1].max().clamp(min=0))
    total = float(block.abs().square().sum((1, 2)).max())
    n_terms = sum(block.shape[1:]) + 10 * math.ceil(math.log2(math.prod(sides) + 1)) + 20
    return math.sqrt(largest + 10 * n_terms * _UNIT_ROUNDING * total)


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
    return columns.reshape(-1), rows.reshape(-1) + 4 * _UNIT_ROUNDING * nothing.reshape(-1).abs()
