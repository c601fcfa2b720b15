"""Where the points of an update come from: noisy data, and the chains that learning keeps from update to update.

A bank holds one slot an image, and an update writes its chains back into the very slots it drew them from, so that a
slot is one long chain of the slowly changing energy. Sources: Hill 2020 (PhD thesis, UCLA), eq. 3.1 and section 3.1.1
("MCMC Initialization"); Tieleman 2008 (persistent contrastive divergence).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

INITIALISATIONS = ("persistent", "data", "noise")  # beside these, a generator: `partner.Partner`
BANK_STARTS = ("data", "noise")


def on_levels(point: Tensor, levels: int | None) -> Tensor:
    """``point`` rounded to the nearest of the whole numbers 0..levels-1; as it is where ``levels`` is None."""
    return point if levels is None else point.round().clamp(0, levels - 1)


@final
@dataclass(frozen=True)
class NoisyData:
    """Data ``point (n, *shape)`` without noise, and the standard deviation ``noise`` of what is added (eq. 3.1).

    ``levels``: noisy data are rounded to the nearest of the grey levels 0..levels-1, in which units ``point`` is; None:
    they are real numbers.
    """

    point: Tensor
    noise: float
    levels: int | None = None

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, *shape)``: points drawn with replacement, each with noise of its own."""
        row = torch.randint(len(self.point), (n,), generator=generator)
        return self.noisy(self.point[row], generator)

    def noisy(self, point: Tensor, generator: torch.Generator) -> Tensor:
        """``point`` with noise added, on the levels where there are any."""
        if self.noise == 0:
            return point.clone()
        away = self.noise * torch.randn(point.shape, generator=generator, dtype=point.dtype)
        return on_levels(point + away, self.levels)

    def blank(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, *shape)`` of noise alone: normal, about the mean of the data, as wide as the noisy data are on average
        over the coordinates; uniform on levels."""
        if self.levels is not None:
            drawn = torch.randint(self.levels, (n, *self.point.shape[1:]), generator=generator)
            return drawn.to(self.point.dtype)
        normal = torch.randn((n, *self.point.shape[1:]), generator=generator, dtype=self.point.dtype)
        return self.mean + self.spread * normal

    @cached_property
    def mean(self) -> Tensor:
        """``(*shape)``, of the data."""
        return self.point.mean(0)

    @cached_property
    def deviation(self) -> Tensor:
        """``(*shape)``: standard deviation of the noisy data in each coordinate, before any rounding."""
        return (self.point.var(0, unbiased=False) + self.noise**2).sqrt()

    @cached_property
    def spread(self) -> float:
        """Root mean square of the deviations over the coordinates."""
        return float(self.deviation.square().mean().sqrt())


@final
@dataclass(frozen=True)
class ChainStarts:
    """Where an update's chains start.

    ``initialisation``: "persistent" (in the bank), "data" or "noise" (anew each update); ``bank_start``: what the bank
    begins with, "data" or "noise"; ``rejuvenation``: probability that a slot is drawn anew from noise when it is used.
    """

    initialisation: str = "persistent"
    bank_start: str = "data"
    rejuvenation: float = 0.0

    def bank(self, data: NoisyData, generator: torch.Generator) -> Tensor:
        """One slot an image, ``(n, *shape)``; no slots where chains are not kept."""
        if self.initialisation != "persistent":
            return data.point[:0].clone()
        if self.bank_start == "noise":
            return data.blank(len(data.point), generator)
        return data.noisy(data.point, generator)

    def draw(self, data: NoisyData, bank: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``n`` starting points ``(n, *shape)``, and their slots ``(n,)``, none twice; no slots where nothing is kept.

        Of a bank of fewer than ``n`` slots, all are drawn.
        """
        if self.initialisation == "noise":
            return data.blank(n, generator), torch.empty(0, dtype=torch.int64)
        if self.initialisation == "data":
            return data.draw(n, generator), torch.empty(0, dtype=torch.int64)
        slot = torch.randperm(len(bank), generator=generator)[:n]
        point = bank[slot]
        if self.rejuvenation > 0:
            anew = torch.rand(len(slot), generator=generator) < self.rejuvenation
            fresh = data.blank(len(slot), generator)
            point = torch.where(anew.reshape(-1, *[1] * (point.ndim - 1)), fresh, point)
        return point, slot
