"""A start near the data's density: the energy's slope is made the direction that takes noise off noisy data.

For x' = x + sigma e, the loss is the mean over coordinates of (sigma dU/dx(x') - e)^2; its minimum is the energy of the
density of noisy data, up to a constant. Alone it leaves the depths of separate modes open, which no slope between them
tells; maximum likelihood then mends them. Source: Vincent 2011, "A connection between score matching and denoising
autoencoders", Neural Computation 23, eq. 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from theodolite.learning import optimiser
from theodolite.learning.bank import NoisyData
from theodolite.learning.energy import Energy
from theodolite.learning.maximum_likelihood import LearnerState, unfit
from theodolite.learning.optimiser import Optimiser
from theodolite.learning.schedule import Schedule

SCHEDULE = "adam:2e-3:4e-5"
_LARGEST_LOSS = 1e4  # 1 is that of a flat energy


@final
@dataclass(frozen=True)
class ScoreMatching:
    """Learns ``energy`` (a workspace) from ``data``, whose noise is above 0, in ``updates`` of ``batch`` points.

    A weight beyond ``largest_weight`` is taken for divergence, as in `maximum_likelihood.Limits`.
    """

    energy: Energy
    data: NoisyData
    updates: int
    batch: int = 256
    schedule: Schedule = Schedule.parse(SCHEDULE)
    largest_weight: float = 1e3

    def step(self, state: LearnerState, generator: torch.Generator, n_updates: int) -> LearnerState:
        """Up to ``n_updates`` updates; the state's ``average`` follows its weights, and its ``good`` copy too."""
        if state.diverged:
            return state
        optimiser.put(self.energy, state.weights)
        learner: Optimiser | None = None
        moments, phase = state.moments, state.phase
        losses: list[float] = []
        for update in range(state.warm_updates, min(self.updates, state.warm_updates + n_updates)):
            place, rate = self.schedule.at(update / max(1, self.updates - 1))
            if learner is None or place != phase:
                kind = self.schedule.phases[place].optimiser
                learner = Optimiser(kind, self.energy, moments if place == phase else ())
                phase = place
            loss, gradients = self._gradient(generator)
            losses.append(loss)
            if not loss < _LARGEST_LOSS:
                break
            learner.step(gradients, rate)
        weights = optimiser.weights_of(self.energy)
        traces = torch.cat((state.warm_traces, torch.tensor(losses, dtype=torch.float64)))
        state = replace(state, warm_traces=traces, phase=phase)
        reason = self._failed(losses, weights)
        if reason:
            return replace(state, diverged=f"{reason} at update {state.warm_updates:,} of score matching")
        if state.warm_updates == self.updates:
            # Maximum likelihood begins an optimiser of its own.
            phase, moments = -1, ()
        else:
            moments = learner.moments() if learner is not None else moments
        return replace(state, weights=weights, average=weights, moments=moments, phase=phase, good=(weights, weights))

    def evaluations(self, n_updates: int) -> int:
        """Rows of the energy that so many updates evaluate."""
        return n_updates * self.batch

    def _gradient(self, generator: torch.Generator) -> tuple[float, tuple[Tensor, ...]]:
        row = torch.randint(len(self.data.point), (self.batch,), generator=generator)
        clean = self.data.point[row]
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        point = (clean + self.data.noise * noise).requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.energy(point).sum(), point, create_graph=True)
            loss = (self.data.noise * slope - noise).square().mean()
            # The last bias is in no slope.
            gradients = torch.autograd.grad(
                loss, optimiser.trainable(self.energy), allow_unused=True, materialize_grads=True
            )
        return float(loss.detach()), gradients

    def _failed(self, losses: list[float], weights: tuple[Tensor, ...]) -> str:
        if losses and not math.isfinite(losses[-1]):
            return "The loss was not a finite number"
        if losses and losses[-1] >= _LARGEST_LOSS:
            return f"The loss was {losses[-1]:.3g}"
        return unfit(weights, self.largest_weight)
