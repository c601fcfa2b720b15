"""A user's constraints worked out for points of one shape in one box: which points are allowed, and by how much the
others break a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.linalg import qr
from scipy.optimize import linprog
from torch import Tensor

from theodolite.search.regions import Region

EQUALITY_TOLERANCE = 1e-9  # relative to the sum of the sizes of the terms


@final
@dataclass(frozen=True, eq=False)
class Rules:
    """``movable``, ``increasing``, ``decreasing``, ``whole`` ``(n,)`` bool; ``low``, ``high`` ``(n,)`` float64;
    ``groups``: the features of each one-hot group, which are whole and within [0, 1]; ``matrix (m, n)``,
    ``offset (m,)`` with NaN where an input keeps its own value, the groups' sums of 1 among them.
    """

    movable: Tensor
    low: Tensor
    high: Tensor
    increasing: Tensor
    decreasing: Tensor
    whole: Tensor
    groups: tuple[Tensor, ...]
    matrix: Tensor | None
    offset: Tensor | None

    @property
    def discrete(self) -> bool:
        """Some feature takes whole numbers only."""
        return bool(self.whole.any())

    def box(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``low``, ``high`` ``(image, n)`` float64 of what each input may become; crossed where that is nothing."""
        x = inputs.double()
        still = ~self.movable
        low = torch.where(self.increasing | still, torch.maximum(self.low, x), self.low)
        high = torch.where(self.decreasing | still, torch.minimum(self.high, x), self.high)
        return torch.where(self.whole, low.ceil(), low), torch.where(self.whole, high.floor(), high)

    def region(self, inputs: Tensor, norm: str = "L2") -> Region:
        """The convex hull of the rules: whole features may take any value within their bounds.

        Where a feature's bounds contradict each other for an image they are replaced by their middle: `possible`
        says which images to leave out.
        """
        low, high = self.box(inputs)
        middle = 0.5 * (low + high)
        crossed = low > high
        low, high = torch.where(crossed, middle, low), torch.where(crossed, middle, high)
        if self.matrix is None:
            return Region(low, high, norm)
        independent = self._independent_rows()
        if not len(independent):
            return Region(low, high, norm)
        return Region(low, high, norm, self.matrix[independent], self.offsets(inputs)[:, independent])

    def offsets(self, inputs: Tensor) -> Tensor:
        """``(image, m)``: what the equalities must come to. Only where there are equalities."""
        matrix, offset = self._equalities()
        own = inputs.double() @ matrix.T
        return torch.where(offset.isnan(), own, offset)

    def possible(self, inputs: Tensor) -> Tensor:
        """``(image,)`` bool: some point keeps the bounds and the equalities of this image (whole numbers aside)."""
        low, high = self.box(inputs)
        possible = (low <= high).all(1) & inputs.isfinite().all(1)
        if self.matrix is None:
            return possible
        inside = (self.violation(inputs, inputs) == 0) if not self.discrete else torch.zeros_like(possible)
        offsets = self.offsets(inputs)
        for image in (possible & ~inside).nonzero()[:, 0].tolist():
            possible[image] = self.reachable(low[image], high[image], offsets[image])
        return possible

    def reachable(self, low: Tensor, high: Tensor, offset: Tensor) -> bool:
        """Some point of the box ``low``, ``high`` ``(n,)`` has matrix . y = ``offset (m,)`` (linear program)."""
        matrix, _ = self._equalities()
        held = low == high
        fixed_part = matrix[:, held] @ low[held]
        free, wanted = matrix[:, ~held], offset - fixed_part
        scale = matrix.abs() @ torch.where(held, low.abs(), 0.0) + offset.abs()
        idle = ~free.any(1)
        if bool((wanted.abs() > EQUALITY_TOLERANCE * scale)[idle].any()):
            return False
        if bool(idle.all()):
            return True
        bounds = [(_or_none(one), _or_none(other)) for one, other in zip(low[~held], high[~held], strict=True)]
        found = linprog(
            np.zeros(free.shape[1]), A_eq=free[~idle].numpy(), b_eq=wanted[~idle].numpy(), bounds=bounds, method="highs"
        )
        return found.status == 0

    def violation(self, inputs: Tensor, points: Tensor) -> Tensor:
        """``(image,)`` float64: the largest violated rule of ``points (image, n)``, in input units; 0: all are kept.

        Bounds and whole numbers are kept exactly or count as violated; an equality counts by the distance to its
        plane once it is off by more than 1e-9 of the sum of its terms' sizes.
        """
        low, high = self.box(inputs)
        x = points.double()
        worst = torch.maximum(low - x, x - high)
        worst = torch.where(self.whole, torch.maximum(worst, (x - x.round()).abs()), worst)
        worst = worst.amax(1).clamp(min=0.0)
        if self.matrix is None:
            return worst
        offset = self.offsets(inputs)
        excess = (x @ self.matrix.T - offset).abs()
        broken = excess > EQUALITY_TOLERANCE * (x.abs() @ self.matrix.abs().T + offset.abs())
        return torch.maximum(worst, (broken * excess / self.matrix.norm(dim=1)).amax(1))

    def _equalities(self) -> tuple[Tensor, Tensor]:
        if self.matrix is None or self.offset is None:
            n = len(self.low)
            return torch.zeros((0, n), dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        return self.matrix, self.offset

    def _independent_rows(self) -> Tensor:
        """Rows that say something new about the features that may move: the rest hold or fail with the input."""
        matrix, _ = self._equalities()
        free = matrix[:, self.movable & (self.low < self.high)].numpy()
        if not free.size:
            return torch.zeros(0, dtype=torch.long)
        factors = qr(free.T, mode="r", pivoting=True)
        size, order = np.abs(np.diag(np.asarray(factors[0]))), np.asarray(factors[-1])
        rank = int((size > 1e-12 * max(size.max(), 1e-300)).sum())
        return torch.from_numpy(np.sort(order[:rank]).astype(np.int64))


def _or_none(bound: Tensor) -> float | None:
    return float(bound) if bool(bound.isfinite()) else None
