"""Annealed importance sampling: ln of the integral of exp(lambda y) over a space, from particles that are annealed.

A particle starts at the reference measure (lambda = 0), moves at each lambda of a fixed path by a Metropolis step that
leaves exp(lambda y) invariant, and carries the weight exp(sum of (change of lambda) y): the mean weight is exactly
Z(lambda) / Z(0), however far the particles are from equilibrium. The path and the proposals are placed by a pilot of
particles of its own, since a path that listened to the particles it moves would bias the mean.

Source: Neal 2001, "Annealed importance sampling", Statistics and Computing 11, eqs. 3-11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import anneal
from theodolite.sampling.ensembles import Canonical
from theodolite.sampling.metropolis import Mover, Tuning, Walkers, as_sampled, choose_mover

_PILOT = 32  # particles
_PILOT_SWEEPS = 8
_MOST_TEMPERATURES = 2000  # of a pilot
_LEAST_EFFECTIVE = 30.0  # particles: below it the mean weight hangs on a few, and its error is not to be trusted
_NORMAL_95 = 1.96
_TRIAL_SEED = 20_001  # of the points that tell whether there is a gradient


@dataclass(frozen=True)
class AnnealingState:
    """``walkers`` stand at place ``at`` of the path ``rung_lambda`` ``(rung,)``, with ``reach`` and ``share``
    ``(rung,)`` of the proposal; ``log_weight`` ``(particle,)`` float64; ``acceptance``: sum over the rungs done."""

    walkers: Walkers
    rung_lambda: Tensor
    reach: Tensor
    share: Tensor
    log_weight: Tensor
    at: int
    acceptance: float


@dataclass(frozen=True)
class Partition:
    """ln Z of ``rung_lambda``, absolute: the integral of exp(lambda y) over the space, counting inputs or volume (under
    a probability as reference, its mean). ``error``: standard error; ``low``, ``high``: 95% interval;
    ``mean_log_weight``: the mean of ln weight plus ln volume, below ln Z in expectation (Jensen); ``effective``:
    particles that the weights amount to; ``trusted``: these are enough for the error to mean something."""

    rung_lambda: float
    log_partition: float
    error: float
    low: float
    high: float
    mean_log_weight: float
    effective: float
    trusted: bool


@final
@dataclass(frozen=True)
class AnnealedImportance:
    """Anneal ``n_particles`` to ``rung_lambda`` (-1 / T for an energy in nats at temperature T, +1 for a logit whose
    exponential is the density), with ``per_temperature`` equal parts of each temperature of the pilot's path and
    ``sweeps`` Metropolis steps at each.

    Raises UserError for a lambda that is 0 or not finite, and for fewer than 2 particles, 1 part or 1 sweep.
    """

    field: Field
    rung_lambda: float
    n_particles: int = 256
    per_temperature: int = 4
    sweeps: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rung_lambda) and self.rung_lambda != 0):
            raise UserError("rung_lambda", "a finite number other than 0", repr(self.rung_lambda), "-1 for an energy")
        for name, least in (("n_particles", 2), ("per_temperature", 1), ("sweeps", 1)):
            if getattr(self, name) < least:
                raise UserError(name, f"at least {least}", str(getattr(self, name)), "leave it out for the default")

    def init(self, generator: torch.Generator) -> AnnealingState:
        """Run the pilot, then draw the particles from the reference measure."""
        rungs, reach, share = self._path(generator)
        walkers = self._mover.start(self._draw(self.n_particles, generator))
        nothing = torch.zeros(self.n_particles, dtype=torch.float64)
        return AnnealingState(walkers, rungs, reach, share, nothing, 0, 0.0)

    def step(
        self, state: AnnealingState, generator: torch.Generator
    ) -> tuple[AnnealingState, dict[str, float | int | str]]:
        """One more lambda: weigh the particles, then move them."""
        at = state.at + 1
        rung = float(state.rung_lambda[at])
        change = rung - float(state.rung_lambda[at - 1])
        log_weight = state.log_weight + change * state.walkers.value
        n = self.n_particles
        tuning = Tuning(state.reach[at].expand(n).clone(), state.share[at].expand(n).clone())
        ensemble = Canonical(torch.full((n,), rung, dtype=torch.float64))
        walkers, accepted = self._mover.step(state.walkers, ensemble, tuning, self.sweeps, generator)
        after = replace(
            state,
            walkers=walkers,
            log_weight=log_weight,
            at=at,
            acceptance=state.acceptance + float(accepted.mean()),
        )
        return after, {"lambda": rung, "output": float(walkers.value.mean()), "effective": effective(log_weight)}

    def stop(self, state: AnnealingState, info: object = None) -> str | None:
        """A sentence once the particles have arrived."""
        return "Every particle is annealed." if state.at == len(state.rung_lambda) - 1 else None

    def estimate(self, state: AnnealingState) -> Partition:
        """ln Z at the lambda that the particles have reached."""
        return partition(state.log_weight, float(state.rung_lambda[state.at]), self.field.space.log_volume)

    def run(self, generator: torch.Generator) -> Partition:
        """`init`, every `step`, `estimate`."""
        state = self.init(generator)
        while self.stop(state) is None:
            state, _ = self.step(state, generator)
        return self.estimate(state)

    @cached_property
    def _mover(self) -> Mover:
        return choose_mover(self.field, torch.Generator().manual_seed(_TRIAL_SEED))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return as_sampled(self.field.space, self.field.space.draw(n, generator))

    def _path(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        sign = math.copysign(1.0, self.rung_lambda)
        pilot = anneal.init(self._mover, self._draw(_PILOT, generator), sign)
        while abs(pilot.rung_lambda[-1]) < abs(self.rung_lambda) and not pilot.ended:
            if len(pilot.rung_lambda) >= _MOST_TEMPERATURES:
                got = f"lambda {pilot.rung_lambda[-1]:.3g} after {_MOST_TEMPERATURES:,} temperatures"
                raise UserError("rung_lambda", "a lambda that annealing can reach", got, "ask for a smaller one")
            pilot, _ = anneal.step(pilot, self._mover, _PILOT_SWEEPS, None, generator)
        place = np.abs(np.array(pilot.rung_lambda))
        ends = np.append(place[place < abs(self.rung_lambda)], abs(self.rung_lambda))
        parts = np.arange(len(ends) - 1, dtype=np.float64)[:, None] + np.arange(self.per_temperature)
        parts = parts - (np.arange(self.per_temperature) * (1 - 1 / self.per_temperature))
        rungs = np.append(np.interp(parts.reshape(-1), np.arange(len(ends)), ends), ends[-1])
        reach, share = (np.interp(rungs, place, np.array(values)) for values in (pilot.reach, pilot.share))
        return torch.from_numpy(sign * rungs), torch.from_numpy(reach).float(), torch.from_numpy(share).float()


def effective(log_weight: Tensor) -> float:
    """(sum of weights)^2 / sum of squared weights, of ln weights ``(particle,)``."""
    return float(torch.exp(2 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2 * log_weight, 0)))


def partition(log_weight: Tensor, rung_lambda: float, log_volume: float) -> Partition:
    """ln of the mean weight plus ``log_volume``, from independent particles' ln weights ``(particle,)``.

    The error is that of a ratio's logarithm, sd(w) / (mean(w) sqrt(n)) (Neal 2001, eq. 11).
    """
    n = len(log_weight)
    share = torch.softmax(log_weight, 0) * n  # weights over their mean
    value = float(torch.logsumexp(log_weight, 0)) - math.log(n) + log_volume
    error = float(share.std()) / math.sqrt(n)
    size = effective(log_weight)
    return Partition(
        rung_lambda,
        value,
        error,
        value - _NORMAL_95 * error,
        value + _NORMAL_95 * error,
        float(log_weight.mean()) + log_volume,
        size,
        size >= _LEAST_EFFECTIVE,
    )
