"""Linear equalities that a changed point must keep: rows of matrix . x = offset for points of a given shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError

ITU_601_LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue: ITU-R BT.601, section 2.5.1


@final
@dataclass(frozen=True, eq=False)
class Equalities:
    """``matrix (m, n)`` (or ``(m, *shape)``) . x = ``offset (m,)``; without an offset each input keeps its own values.

    Raises UserError for numbers that are not finite, a row of zeros, or an offset of another length.
    """

    matrix: Tensor
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        matrix = torch.as_tensor(self.matrix, dtype=torch.float64)
        if matrix.ndim < 2 or not bool(matrix.isfinite().all()) or not bool(matrix.flatten(1).any(1).all()):
            raise UserError(
                "equalities", "a finite matrix (m, n) without rows of zeros", f"{tuple(matrix.shape)}", "one row a sum"
            )
        object.__setattr__(self, "matrix", matrix)
        if self.offset is None:
            return
        offset = torch.as_tensor(self.offset, dtype=torch.float64)
        if offset.shape != matrix.shape[:1] or not bool(offset.isfinite().all()):
            raise UserError("equalities", f"finite offsets ({len(matrix)},)", f"{tuple(offset.shape)}", "one a row")
        object.__setattr__(self, "offset", offset)

    def rows(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """``(m, n)`` and offsets ``(m,)``, NaN where the input's own value is kept."""
        matrix = self.matrix.flatten(1)
        if matrix.shape[1] != math.prod(shape):
            raise UserError("equalities", f"{math.prod(shape)} columns", f"{matrix.shape[1]}", "one a feature")
        return matrix, _own_values(matrix) if self.offset is None else self.offset

    def words(self) -> str:
        """For the report."""
        kept = "keeping the input's values" if self.offset is None else "with given values"
        return f"{len(self.matrix)} linear equalities {kept}"


@final
@dataclass(frozen=True)
class Sum:
    """The sum of ``features`` (indices of the flat point) equals ``value``, or stays what it is in each input."""

    features: Sequence[int]
    value: float | None = None

    def __post_init__(self) -> None:
        if not len(self.features) or (self.value is not None and not math.isfinite(self.value)):
            raise UserError(
                "equalities", "features and a finite sum", f"{self.features}, {self.value}", "name what is summed"
            )

    def rows(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """``(1, n)`` and its offset ``(1,)``."""
        n = math.prod(shape)
        wrong = [feature for feature in self.features if not 0 <= feature < n]
        if wrong:
            raise UserError("equalities", f"features 0 to {n - 1}", f"{wrong[0]}", "count in the flat point, from 0")
        matrix = torch.zeros((1, n), dtype=torch.float64)
        matrix[0, list(self.features)] = 1.0
        offset = _own_values(matrix) if self.value is None else torch.tensor([self.value], dtype=torch.float64)
        return matrix, offset

    def words(self) -> str:
        """For the report."""
        which = f"sum of {len(set(self.features))} features"
        return f"{which} kept" if self.value is None else f"{which} = {self.value:g}"


@final
@dataclass(frozen=True)
class LuminanceKept:
    """Every pixel of an RGB image ``(3, rows, columns)`` keeps its luminance: only its colour may change."""

    weights: tuple[float, float, float] = ITU_601_LUMA

    def rows(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """``(pixels, n)`` and offsets ``(pixels,)``."""
        if len(shape) != 3 or shape[0] != 3:
            raise UserError("equalities", "colour images (3, rows, columns)", f"points {shape}", "leave luminance out")
        pixel = torch.eye(shape[1] * shape[2], dtype=torch.float64)
        matrix = torch.cat([weight * pixel for weight in self.weights], 1)
        return matrix, _own_values(matrix)

    def words(self) -> str:
        """For the report."""
        return "luminance of every pixel kept"


LinearEquality = Equalities | Sum | LuminanceKept


def _own_values(matrix: Tensor) -> Tensor:
    return torch.full((len(matrix),), torch.nan, dtype=torch.float64)
