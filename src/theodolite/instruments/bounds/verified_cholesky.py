"""Proofs about the largest and smallest singular value of matrices, by a Cholesky factorisation in floating point.

Where the factorisation of a symmetric M, n x n, runs to its end in floating point, the least eigenvalue of M is at
least -g / (1 - g) trace(M) with g = (n + 1) u / (1 - (n + 1) u) (Demmel 1989, LAPACK working note 14; Rump 2006,
'Verification of Positive Definiteness', BIT 46, 433-452; Higham 2002, 'Accuracy and Stability of Numerical
Algorithms', theorems 10.3 and 10.7). With M = t I - A'A it follows that no singular value of A exceeds the root of
t plus this margin, plus what rounding changed in A'A itself: at most g_m |A|_F^2 for columns of m numbers (ibid., eq.
3.13). All multiples of u are taken 8 times as large: complex numbers, blocked factorisations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

UNIT_ROUNDING = 2.0**-53
_CAUTION = 8.0
_BLOCK = 512  # rows of a product at a time
_FIRST_STEP = 1e-11  # relative, above the estimate: where the first proof is tried
_STEPS = 60


def gram(matrix: Tensor) -> Tensor:
    """``(..., n, n)``: A'A or, where that is smaller, AA', of ``matrix (..., rows, columns)``; of single large
    matrices only one triangle is multiplied out."""
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mH
    n = tall.shape[-1]
    if matrix.ndim > 2 or n <= 2 * _BLOCK:
        return tall.mH @ tall
    product = tall.new_empty((n, n))
    for start in range(0, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        product[start:stop, :stop] = tall[:, start:stop].mH @ tall[:, :stop]
        product[:start, start:stop] = product[start:stop, :start].mH
    return product


def gram_margin(rows: int, columns: int, total: float) -> float:
    """By how much an eigenvalue of the computed Gram matrix may lie off that of the true one, for a matrix whose
    squares sum up to ``total``."""
    return _CAUTION * (max(rows, columns) + 4) * UNIT_ROUNDING * total


def largest_proven(
    product: Tensor, estimate: float, margin: float, closer: Callable[[Tensor], float] | None = None
) -> float:
    """A number that no eigenvalue of the true matrices A'A exceeds, of ``product (..., n, n)``, each computed with
    an error of at most ``margin`` in its eigenvalues, which is no less than ``margin`` even where all are 0.

    ``estimate`` is where the largest eigenvalue is thought to lie; a wrong one costs time or sharpness, no truth.
    ``closer``: gives a better one from the places of those matrices that go beyond it.
    """
    n = product.shape[-1]
    batch = product.reshape(-1, n, n)
    diagonal = batch.diagonal(dim1=1, dim2=2).real
    highest = float(diagonal.sum(1).max())
    if not math.isfinite(highest):
        return math.inf
    step, left = _FIRST_STEP, torch.arange(len(batch))
    level = max(estimate, float(diagonal.max()))
    for _ in range(_STEPS):
        tried = level * (1 + step)
        if tried >= highest or tried == 0:
            # The trace is no less than any eigenvalue.
            tried, left = highest * (1 + _CAUTION * (n + 1) * UNIT_ROUNDING), left[:0]
        left = left[~_positive(-batch[left], tried)] if len(left) else left
        if not len(left):
            rest = float((n * tried - diagonal.sum(1)).clamp(min=0).max())
            factored = _CAUTION * (n + 2) * UNIT_ROUNDING * rest
            return (tried * (1 + 4 * UNIT_ROUNDING) + factored + margin) * (1 + 8 * UNIT_ROUNDING)
        if closer is not None:
            level, closer = max(level, closer(left)), None
        else:
            step *= 10 if step < 1e-3 else 2
    return highest * (1 + _CAUTION * (n + 1) * UNIT_ROUNDING) + margin


def smallest_proven(product: Tensor, estimate: float, margin: float) -> float:
    """A number of at least 0 that no eigenvalue of the true matrix is below, of one ``product (n, n)``; 0 where
    nothing is proven. See `largest_proven`."""
    n = len(product)
    trace = float(product.diagonal().real.sum())
    if not math.isfinite(trace) or not estimate > 0:
        return 0.0
    lost = _CAUTION * (n + 2) * UNIT_ROUNDING * trace + margin
    for share in (1 - 1e-9, 1 - 1e-6, 1 - 1e-3, 0.9, 0.5):
        tried = share * estimate
        if tried <= lost:
            return 0.0
        if bool(_positive(product[None], -tried)):
            return max(0.0, (tried * (1 - 4 * UNIT_ROUNDING) - lost) * (1 - 8 * UNIT_ROUNDING))
    return 0.0


def _positive(batch: Tensor, shift: float) -> Tensor:
    """``(batch,)`` bool: whether the factorisation of matrix + shift I runs to its end."""
    shifted = batch.clone()
    shifted.diagonal(dim1=1, dim2=2).add_(shift)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    return (failed == 0) & factor.diagonal(dim1=1, dim2=2).real.isfinite().all(1)
