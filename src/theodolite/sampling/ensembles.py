"""How to weigh: an ensemble is a log weight of the value, nothing more.

Canonical, tethered, Wang-Landau and multicanonical sampling differ only in ``log_weight`` and its slope; a
proposal informed by the gradient takes its drift from the same slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor


class Ensemble(Protocol):
    """A weight for each walker. ``linear``: the weight is linear in the value, so that independent parts of a
    point may be accepted apart from each other."""

    @property
    def linear(self) -> bool: ...

    def log_weight(self, value: Tensor) -> Tensor:
        """ln of the weight ``(walker,)`` at values ``(walker,)``."""
        ...

    def inverse_temperature(self, value: Tensor) -> Tensor:
        """- d log_weight / d value, ``(walker,)``."""
        ...


@final
@dataclass(frozen=True)
class Canonical:
    """Weight exp(lambda y): ``inverse_temperature`` is - lambda; ``rung_lambda`` is ``(walker,)`` float64."""

    rung_lambda: Tensor
    linear: bool = True

    def log_weight(self, value: Tensor) -> Tensor:
        return self.rung_lambda * value

    def inverse_temperature(self, value: Tensor) -> Tensor:
        return -self.rung_lambda.expand_as(value)


@final
@dataclass(frozen=True)
class Tabulated:
    """Weight exp(-S(y)) from a table of S at equally spaced levels, linearly interpolated between their centres
    (Liu et al. 2023, section 3.4: the interpolated entropy); constant slope zero beyond the ends."""

    first_level: float
    level_width: float
    entropy: Tensor
    linear: bool = False

    def log_weight(self, value: Tensor) -> Tensor:
        position, index = self._locate(value)
        left, right = self.entropy[index], self.entropy[index + 1]
        return -(left + (right - left) * position)

    def inverse_temperature(self, value: Tensor) -> Tensor:
        place = (value - self.first_level) / self.level_width
        _, index = self._locate(value)
        slope = (self.entropy[index + 1] - self.entropy[index]) / self.level_width
        inside = (place > 0) & (place < len(self.entropy) - 1)
        return torch.where(inside, slope, torch.zeros_like(slope))

    def _locate(self, value: Tensor) -> tuple[Tensor, Tensor]:
        place = ((value - self.first_level) / self.level_width).clamp(0, len(self.entropy) - 1)
        index = place.long().clamp(max=len(self.entropy) - 2)
        return place - index, index
