"""Moves on real spaces: a random walk, and Langevin with a truncated drift.

The target is the space's reference measure times the ensemble's weight; proposals outside a box are rejected.
Source: Roberts and Tweedie 1996 (MALA and its truncated form).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.sampling.ensembles import Ensemble
from theodolite.sampling.metropolis import Tuning, Walkers, select_walkers
from theodolite.space import Latent

_LANGEVIN_ACCEPTANCE = 0.57  # Roberts and Rosenthal 1998
_RANDOM_WALK_ACCEPTANCE = 0.3
_LARGEST_DRIFT = 1.0  # in steps: the drift never exceeds the noise's own length


def _start(field: Field, point: Tensor, with_gradient: bool) -> Walkers:
    empty = torch.empty(len(point), 0)
    if with_gradient:
        value, gradient = field.value_and_gradient(point)
        return Walkers(point, value, empty, gradient)
    return Walkers(point, field.value(point), empty, empty)


def _inside(field: Field, proposed: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    """Membership, and points that may be evaluated (the current ones where the proposal left the space)."""
    inside = field.space.contains(proposed)
    return inside, torch.where(inside.reshape(-1, *[1] * (proposed.ndim - 1)), proposed, current)


def _scale(field: Field) -> float:
    return 1.0 if isinstance(field.space, Latent) else float(field.space.high - field.space.low)  # type: ignore[attr-defined]


@final
@dataclass(frozen=True)
class RandomWalkMover:
    """A Gaussian step of all coordinates; ``reach`` is its standard deviation in input units."""

    field: Field
    wanted_renewal: float = 0.1

    def initial_tuning(self, n: int) -> Tuning:
        return Tuning(torch.full((n,), 0.1 * _scale(self.field)), torch.ones(n))

    def start(self, point: Tensor) -> Walkers:
        return _start(self.field, point, with_gradient=False)

    def step(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, substeps: int, generator: torch.Generator
    ) -> tuple[Walkers, Tensor]:
        accepted = torch.zeros(len(walkers.value))
        reach = tuning.reach.reshape(-1, *[1] * (walkers.point.ndim - 1))
        space = self.field.space
        for _ in range(substeps):
            noise = torch.randn(walkers.point.shape, generator=generator)
            inside, point = _inside(self.field, walkers.point + reach * noise, walkers.point)
            proposed = self.start(point)
            change = ensemble.log_weight(proposed.value) - ensemble.log_weight(walkers.value)
            change = change + space.log_reference(point) - space.log_reference(walkers.point)
            accept = (torch.rand(len(change), generator=generator, dtype=torch.float64).log() < change) & inside
            accepted += accept / substeps
            walkers = select_walkers(walkers, proposed, accept)
        return walkers, accepted

    def adapt(self, tuning: Tuning, accepted: Tensor, rate: float) -> Tuning:
        factor = torch.exp(rate * (accepted - _RANDOM_WALK_ACCEPTANCE))
        return Tuning((tuning.reach * factor).clamp(1e-6 * _scale(self.field), _scale(self.field)), tuning.share)

    def small(self, tuning: Tuning) -> Tensor:
        return tuning.reach <= 1e-3 * _scale(self.field)

    def renewal(self, tuning: Tuning, accepted: Tensor) -> Tensor:
        return (tuning.reach / _scale(self.field)).clamp(max=1.0) * accepted


@final
@dataclass(frozen=True)
class LangevinMover:
    """A drift along the slope of the log target, its length truncated to the noise's, plus a Gaussian step.

    ``reach`` is the noise's standard deviation h in input units; the drift is h^2/2 times the slope.
    """

    field: Field
    wanted_renewal: float = 0.1

    def initial_tuning(self, n: int) -> Tuning:
        return Tuning(torch.full((n,), 0.1 * _scale(self.field)), torch.ones(n))

    def start(self, point: Tensor) -> Walkers:
        return _start(self.field, point, with_gradient=True)

    def step(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, substeps: int, generator: torch.Generator
    ) -> tuple[Walkers, Tensor]:
        accepted = torch.zeros(len(walkers.value))
        reach = tuning.reach.reshape(-1, *[1] * (walkers.point.ndim - 1))
        space = self.field.space
        for _ in range(substeps):
            noise = torch.randn(walkers.point.shape, generator=generator)
            forward = self._drift(walkers, ensemble, reach)
            inside, point = _inside(self.field, walkers.point + forward + reach * noise, walkers.point)
            proposed = self.start(point)
            backward = self._drift(proposed, ensemble, reach)
            change = ensemble.log_weight(proposed.value) - ensemble.log_weight(walkers.value)
            change = change + space.log_reference(point) - space.log_reference(walkers.point)
            there = _squared((point - walkers.point - forward) / reach)
            back = _squared((walkers.point - point - backward) / reach)
            change = change + 0.5 * (there - back)
            accept = (torch.rand(len(change), generator=generator, dtype=torch.float64).log() < change) & inside
            accepted += accept / substeps
            walkers = select_walkers(walkers, proposed, accept)
        return walkers, accepted

    def _drift(self, walkers: Walkers, ensemble: Ensemble, reach: Tensor) -> Tensor:
        slope = -ensemble.inverse_temperature(walkers.value).float()
        total = slope.reshape(reach.shape) * walkers.gradient
        if isinstance(self.field.space, Latent):
            total = total - walkers.point
        drift = 0.5 * reach.square() * total
        length = _squared(drift).sqrt().reshape(reach.shape).float()
        longest = _LARGEST_DRIFT * reach * drift[0].numel() ** 0.5
        return drift * (longest / length.clamp(min=1e-30)).clamp(max=1.0)

    def adapt(self, tuning: Tuning, accepted: Tensor, rate: float) -> Tuning:
        factor = torch.exp(rate * (accepted - _LANGEVIN_ACCEPTANCE))
        return Tuning((tuning.reach * factor).clamp(1e-6 * _scale(self.field), _scale(self.field)), tuning.share)

    def small(self, tuning: Tuning) -> Tensor:
        return tuning.reach <= 1e-3 * _scale(self.field)

    def renewal(self, tuning: Tuning, accepted: Tensor) -> Tensor:
        return (tuning.reach / _scale(self.field)).clamp(max=1.0) * accepted


def _squared(x: Tensor) -> Tensor:
    return x.double().square().flatten(1).sum(1)
