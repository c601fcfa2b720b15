"""Energies over grey levels, and Gibbs sampling of them: pixel after pixel from its exact conditional law.

A sweep costs (pixels x levels) evaluations of the network a chain. Where its first layer is affine, only what a changed
pixel changes there is added, and the rest of the network is evaluated for all chains and levels at once; a Gaussian
beside it adds a number for each level of a pixel.
Source: Geman and Geman 1984; Hill, Nijkamp and Zhu 2019, section 2.2 (Gibbs instead of Langevin during learning) and
section 5.3 (16 x 16 digits of 8 grey levels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import (
    ACTIVATIONS,
    Energy,
    GaussianEnergy,
    MLPEnergy,
    Spec,
    SumEnergy,
    build,
    register,
)
from theodolite.learning.frame import Frame, register_frame
from theodolite.learning.langevin import Moves

_MOST_ROWS = 2**16  # of the network at once


@final
class LevelFrame(Frame):
    """Levels 0..levels-1 for grey values from ``low`` to ``high``; an image's pixels are rounded to the nearest.

    Raises UserError for fewer than 2 levels and for low >= high.
    """

    def __init__(self, shape: Sequence[int], levels: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        _check(levels, low, high)
        self.shape = self.image_shape = tuple(int(n) for n in shape)
        self.levels, self.low, self.high = int(levels), float(low), float(high)

    def coordinates(self, images: Tensor) -> Tensor:
        share = (images - self.low) / (self.high - self.low)
        return (share * (self.levels - 1)).round().clamp(0, self.levels - 1).long()

    def images(self, coordinates: Tensor) -> Tensor:
        return self.low + (self.high - self.low) / (self.levels - 1) * coordinates

    def spec(self) -> dict[str, object]:
        described = {"shape": list(self.shape), "levels": self.levels, "low": self.low, "high": self.high}
        return {"kind": "levels", **described}


@final
class LevelEnergy(Energy):
    """``inner``, an energy over grey values, over the levels of a `LevelFrame`: whole numbers, or reals between."""

    def __init__(self, inner: Energy, levels: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        _check(levels, low, high)
        self.inner, self.shape, self.levels = inner, inner.shape, int(levels)
        self.low, self.high = float(low), float(high)

    @property
    def grey(self) -> Tensor:
        """The grey value of each level ``(levels,)``."""
        return torch.linspace(self.low, self.high, self.levels)

    @property
    def step(self) -> float:
        """Between the grey values of two levels."""
        return (self.high - self.low) / (self.levels - 1)

    @property
    def rows_a_sweep(self) -> int:
        """Energies that a Gibbs sweep asks for, a chain: of every level of every pixel."""
        return math.prod(self.shape) * self.levels

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self._grey_values(x))

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.inner.value_and_gradient(self._grey_values(x))
        return value, gradient * self.step

    def spec(self) -> Spec:
        inner = self.inner.spec()
        return {"kind": "levels", "inner": inner, "levels": self.levels, "low": self.low, "high": self.high}

    def _grey_values(self, x: Tensor) -> Tensor:
        # A Gaussian alone has no parameters, but buffers.
        real = x if x.is_floating_point() else x.to(next(chain(self.inner.parameters(), self.inner.buffers())).dtype)
        return self.low + self.step * real


@torch.no_grad()
def gibbs_sweep(
    energy: LevelEnergy, level: Tensor, generator: torch.Generator, temperature: float = 1.0
) -> tuple[Tensor, float]:
    """Every pixel of every chain once, in one random order for all chains, from its law given the others.

    ``level`` ``(chain, *shape)`` int64; returns the levels after the sweep and the share of pixels that changed. The
    law at ``temperature`` T is proportional to exp(-U / T). Draws a permutation of the pixels, then (chain, levels)
    numbers a pixel.
    """
    after = level.reshape(len(level), -1).clone()
    before = after.clone()
    order = torch.randperm(after.shape[1], generator=generator).tolist()
    conditional = _conditional(energy, after)
    for site in order:
        value = conditional.energies(site)
        uniform = torch.rand(value.shape, generator=generator).clamp_(min=1e-30)
        # The largest of ln weight plus Gumbel noise is a draw from the weights.
        chosen = (-value / temperature - torch.log(-torch.log(uniform))).argmax(1)
        conditional.choose(site, chosen)
    return after.reshape(level.shape), float((after != before).double().mean())


@final
@dataclass(frozen=True)
class GibbsDynamics:
    """How chains move in learning (`maximum_likelihood.Dynamics`): ``steps`` sweeps, of which none has a step size.

    ``sweep_rows``: `LevelEnergy.rows_a_sweep` of the energies that will be moved by.
    """

    steps: int
    sweep_rows: int
    adapts: bool = False

    @property
    def rows(self) -> int:
        return self.steps * self.sweep_rows + 1

    def moved(
        self, energy: Energy, point: Tensor, step_size: float, generator: torch.Generator
    ) -> tuple[Tensor, Moves]:
        """``point (chain, *shape)`` of whole numbers, swept; the slope, in nats a grey value, is that of the energy
        between the levels, where chains end. Raises UserError for an energy that is not over levels."""
        if not isinstance(energy, LevelEnergy):
            raise UserError("energy", "one over grey levels", type(energy).__name__, "wrap it in LevelEnergy")
        level = point.long()
        for _ in range(self.steps):
            level, _ = gibbs_sweep(energy, level, generator)
        after = level.to(point.dtype)
        _, slope = energy.value_and_gradient(after)
        return after, Moves(math.nan, float(slope.flatten(1).norm(dim=1).mean()) / energy.step)


class _Conditional:
    """What changes when one pixel takes each of the levels; ``level (chain, pixel)`` is kept up to date. Energies are
    up to a number of each chain, which no conditional law depends on."""

    def __init__(self, energies: Callable[[int], Tensor], choose: Callable[[int, Tensor], None]) -> None:
        self.energies, self.choose = energies, choose


def _conditional(energy: LevelEnergy, level: Tensor) -> _Conditional:
    parts = list(energy.inner.parts) if isinstance(energy.inner, SumEnergy) else [energy.inner]
    networks = [part for part in parts if isinstance(part, MLPEnergy)]
    gaussians = [part for part in parts if isinstance(part, GaussianEnergy)]
    if len(networks) != 1 or len(networks) + len(gaussians) < len(parts):
        return _whole(energy, level)
    return _affine_first(energy, networks[0], gaussians, level)


def _whole(energy: LevelEnergy, level: Tensor) -> _Conditional:
    """Any network: all of it, for every level of the pixel."""
    chains, levels = len(level), energy.levels

    def energies(site: int) -> Tensor:
        rows = level.repeat_interleave(levels, 0)
        rows[:, site] = torch.arange(levels).repeat(chains)
        parts = [energy(part.reshape(-1, *energy.shape)) for part in rows.split(_MOST_ROWS)]
        return torch.cat(parts).reshape(chains, levels)

    def choose(site: int, chosen: Tensor) -> None:
        level[:, site] = chosen

    return _Conditional(energies, choose)


def _affine_first(
    energy: LevelEnergy, network: MLPEnergy, gaussians: Sequence[GaussianEnergy], level: Tensor
) -> _Conditional:
    """A fully connected network: its first layer's sums, and what one pixel adds to them; ``gaussians`` beside it."""
    first, *rest = network.layers
    activate, _ = ACTIVATIONS[network.activation]
    column = (first.weight * network.scale).T.contiguous()  # type: ignore[operator]
    grey = energy.grey.to(column.dtype)
    sums = first((grey[level] - network.mean) * network.scale)  # type: ignore[operator]
    beside = torch.zeros(level.shape[1], len(grey), dtype=column.dtype)
    for part in gaussians:
        beside += 0.5 * part.precision.flatten()[:, None] * (grey - part.mean.flatten()[:, None]).square()
    rows = torch.arange(len(level))
    candidates = sums.new_empty(len(level), energy.levels, sums.shape[1])

    def energies(site: int) -> Tensor:
        change = grey - grey[level[:, site], None]
        torch.addcmul(sums[:, None], change[:, :, None], column[site], out=candidates)
        hidden = candidates.reshape(-1, candidates.shape[2])
        parts = []
        for part in hidden.split(_MOST_ROWS):
            value = activate(part)
            for layer in rest[:-1]:
                value = activate(layer(value))  # type: ignore[operator]
            parts.append(rest[-1](value)[:, 0])  # type: ignore[operator]
        return torch.cat(parts).reshape(candidates.shape[:2]) + beside[site]

    def choose(site: int, chosen: Tensor) -> None:
        sums.copy_(candidates[rows, chosen])
        level[:, site] = chosen

    return _Conditional(energies, choose)


def _check(levels: int, low: float, high: float) -> None:
    if levels < 2:
        raise UserError("levels", "at least 2 grey levels", str(levels), "8 is the paper's number")
    if not low < high:
        raise UserError("low, high", "low < high", f"{low}, {high}", "-1 and 1 are black and white")


register("levels", lambda inner, **settings: LevelEnergy(build(inner), **settings))
register_frame("levels", LevelFrame)
