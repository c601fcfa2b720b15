"""By how much one class leads: the function whose zeros are the boundary, for many rows at once, with its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.outputs import Outputs


@final
@dataclass
class Margins:
    """Rows of searches: ``image (row,)`` int64 the image a row works for, ``own (row,)`` its class, ``target (row,)``
    the class it must flip to, -1 for any. ``units (image,)`` int64 counts forward and backward passes an image.

    The margin is z_own - z_target, or z_own minus the largest other output: positive before the flip. ``handicap
    (row,)`` is taken from it (homotopies move a boundary so); None: nothing.
    """

    outputs: Outputs
    image: Tensor
    own: Tensor
    target: Tensor
    units: Tensor
    handicap: Tensor | None = None

    def value(self, x: Tensor) -> Tensor:
        """Margins ``(row,)`` of points ``(row, n)``; one unit each."""
        self._count(1)
        return self.of(self.outputs.value(x))

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Margins ``(row,)`` and gradients ``(row, n)``; two units each."""
        self._count(2)
        output, gradient = self.outputs.gradient(x, self._weight)
        return self.of(output), gradient

    def rows(self, x: Tensor, weights: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs ``(row, n_outputs)`` and Jacobian rows ``(row, r, n)`` as `Outputs.rows` gives them; 1 + r units."""
        output, rows = self.outputs.rows(x, weights)
        self._count(1 + rows.shape[1])
        return output, rows

    def of(self, output: Tensor) -> Tensor:
        """Margins ``(row,)`` from outputs ``(row, n_outputs)``."""
        margin = (output.gather(1, self.own[:, None]) - output.gather(1, self.other(output)[:, None]))[:, 0]
        return margin if self.handicap is None else margin - self.handicap

    def target_at(self, x: Tensor) -> Tensor:
        """``(row,)`` the class each row is compared with at points ``(row, n)``; one unit each."""
        self._count(1)
        return self.other(self.outputs.value(x))

    def other(self, output: Tensor) -> Tensor:
        """``(row,)`` the class each row is compared with."""
        largest = output.scatter(1, self.own[:, None], -torch.inf).argmax(1)
        return torch.where(self.target >= 0, self.target, largest)

    def select(self, index: Tensor) -> Margins:
        """The rows of ``index``; their cost goes to the same images."""
        handicap = None if self.handicap is None else self.handicap[index]
        return Margins(self.outputs, self.image[index], self.own[index], self.target[index], self.units, handicap)

    def _weight(self, output: Tensor, index: Tensor) -> Tensor:
        own, target = self.own[index, None], self.target[index, None]
        largest = output.scatter(1, own, -torch.inf).argmax(1, keepdim=True)
        other = torch.where(target >= 0, target, largest)
        weight = torch.zeros_like(output)
        return weight.scatter(1, own, 1.0).scatter(1, other, -1.0)

    def _count(self, n_passes: int) -> None:
        self.units.index_add_(0, self.image, torch.full_like(self.image, n_passes))


def margins(outputs: Outputs, own: Tensor, target: Tensor | None = None) -> Margins:
    """One row an image."""
    image = torch.arange(len(own))
    return Margins(outputs, image, own, torch.full_like(own, -1) if target is None else target, torch.zeros_like(image))
