"""How levels become what a module sees: the only home of the table ``T[level] -> R^m``.

An embedding turns a point into the module's input. On discrete spaces it does so through its table, so that one
gradient with respect to the embedded point tells the linearised change of setting any coordinate to any level.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import MissingCapability
from theodolite.space import DiscreteSpace, Space


class Embedding(abc.ABC):
    """Abstract: levels to vectors of ``m`` numbers, and vectors to the module's input."""

    @abc.abstractmethod
    def table(self, space: DiscreteSpace) -> Tensor:
        """``(levels, m)`` float32: what each level becomes."""

    @abc.abstractmethod
    def assemble(self, embedded: Tensor, space: Space) -> Tensor:
        """Embedded points ``(batch, n_coordinates, m)`` -> the module's input."""

    @abc.abstractmethod
    def continuous(self, x: Tensor) -> Tensor:
        """Real points ``(batch, *shape)`` -> the module's input. Raises MissingCapability where no such map is."""


@final
@dataclass(frozen=True)
class Scale(Embedding):
    """A coordinate's value v becomes ``v * factor + offset``: ``Scale(1 / 255)`` for 8-bit pixels."""

    factor: float = 1.0
    offset: float = 0.0

    def table(self, space: DiscreteSpace) -> Tensor:
        level = torch.arange(space.levels)[:, None].expand(-1, space.n_coordinates)
        value = space.from_levels(level).reshape(space.levels, -1)[:, :1]
        return self.continuous(value.float())

    def assemble(self, embedded: Tensor, space: Space) -> Tensor:
        return embedded.reshape(len(embedded), *space.shape)

    def continuous(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


@final
@dataclass(frozen=True)
class OneHot(Embedding):
    """A level becomes a unit vector, as in Liu et al. 2023, section 5.1.

    The module sees ``(channels * levels, rows, columns)`` for points of shape (channels, rows, columns),
    ``(levels, rows, columns)`` for (rows, columns) and ``(n, levels)`` for (n,).
    """

    def table(self, space: DiscreteSpace) -> Tensor:
        return torch.eye(space.levels)

    def assemble(self, embedded: Tensor, space: Space) -> Tensor:
        batch, levels = len(embedded), embedded.shape[-1]
        if len(space.shape) == 1:
            return embedded
        *channels, rows, columns = space.shape
        planes = embedded.reshape(batch, *channels, rows, columns, levels).movedim(-1, -3)
        return planes.reshape(batch, math.prod(channels) * levels, rows, columns)

    def continuous(self, x: Tensor) -> Tensor:
        raise MissingCapability(
            "embedding", "a continuous embedding", "OneHot()", "use Scale(...), or whole levels on a Grid or Spins"
        )
