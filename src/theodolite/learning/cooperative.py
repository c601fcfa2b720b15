"""Cooperative learning: an energy and a generator teach each other, update by update.

The generator's points, moved by the energy's chains, are what the energy is told apart from the data; and they are what
the generator, its latent vectors revised by chains of its own, learns to make. It is maximum likelihood whose chains
start from a `Partner`. Sources: Hill 2020 (PhD thesis, UCLA), appendix A, Algorithm 4; Hill, Nijkamp and Zhu 2019,
Algorithm 2; Xie, Lu, Gao and Wu 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning import optimiser
from theodolite.learning.bank import ChainStarts, NoisyData
from theodolite.learning.energy import Energy
from theodolite.learning.generator_fit import checked_points
from theodolite.learning.generators import GeneratorNetwork
from theodolite.learning.langevin import adapted
from theodolite.learning.maximum_likelihood import LangevinDynamics, LearnerState, Limits, MaximumLikelihood
from theodolite.learning.partner import Partner
from theodolite.learning.schedule import Schedule

_FIRST_STEP = 0.3  # of the least deviation of the noisy data: where an adapted step begins
_ADAPTATION = 0.02


@final
@dataclass(frozen=True)
class CooperativeSettings:
    """One update of Algorithm 4: ``batch`` m; ``steps`` K of the chains of points and of latent vectors alike.

    ``step_size`` epsilon of the points' chains, in input units; None: adapted to acceptance .6, which needs
    ``metropolis`` (the algorithm as printed has no correction; the latent chains are always corrected). ``deviation``:
    tau of eq. A.1. ``schedule`` of the energy's weights, ``generator_schedule`` of the generator's. ``average``: decay
    of the running average of the energy's weights; 0: none. Raises UserError for anything else.
    """

    updates: int = 2000
    batch: int = 256
    steps: int = 20
    step_size: float | None = None
    metropolis: bool = True
    deviation: float = 0.3
    schedule: str = "adam:1e-3:1e-5"
    generator_schedule: str = "adam:1e-3:1e-4"
    average: float = 0.999

    def __post_init__(self) -> None:
        Schedule.parse(self.schedule)
        Schedule.parse(self.generator_schedule, "generator_schedule")
        for name in ("updates", "batch", "steps"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UserError(name, "a whole number, 1 or more", repr(number), "leave it out")
        for name in ("step_size", "deviation"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UserError(name, "a finite number above 0", repr(number), "leave it out")
        if self.step_size is None and not self.metropolis:
            raise UserError("step_size", "a number without Metropolis correction", "None", "give one, such as 0.05")
        if not 0 <= self.average < 1:
            raise UserError("average", "at least 0, less than 1", repr(self.average), "0.999 is usual")


class Cooperated(NamedTuple):
    """``energy`` and ``network`` in eval mode; ``state``: all that was learned, its traces as in
    `maximum_likelihood.TRACES` and, of ``state.partner``, in `partner.TRACES`; ``outcome`` in words."""

    energy: Energy
    network: GeneratorNetwork
    state: LearnerState
    outcome: str


def cooperative_learner(
    energy: Energy, network: GeneratorNetwork, data: NoisyData, settings: CooperativeSettings
) -> MaximumLikelihood:
    """Algorithm 4 as a learner: ``step(state, generator, n)`` is a pure function of a state that can be kept.

    ``energy`` and ``network`` are workspaces. Raises UserError where the generator's shape is not the energy's, naming
    both, or the data's is another.
    """
    partner = Partner(network, settings.deviation, settings.steps, settings.updates, settings.generator_schedule)
    partner.check(energy.shape)
    checked_points(network, data.point)
    step_size = settings.step_size or _FIRST_STEP * float(data.deviation.min()) or _FIRST_STEP * data.spread
    return MaximumLikelihood(
        energy=energy,
        data=data,
        starts=ChainStarts("data"),  # not drawn from: the partner's points are
        dynamics=LangevinDynamics(settings.steps, settings.metropolis, adapts=settings.step_size is None),
        schedule=Schedule.parse(settings.schedule),
        limits=Limits.of(data, step_size),
        step_size=step_size,
        updates=settings.updates,
        batch=settings.batch,
        average=settings.average,
        partner=partner,
    )


def cooperate(
    energy: Energy,
    network: GeneratorNetwork,
    data: NoisyData,
    settings: CooperativeSettings,
    generator: torch.Generator,
) -> Cooperated:
    """Both networks learned from ``data``, in place, for ``settings.updates`` or until they diverge (then with the last
    good weights). Raises UserError as `cooperative_learner` does."""
    learner = cooperative_learner(energy, network, data, settings)
    state = learner.init(generator)
    while state.updates < settings.updates and not state.diverged:
        state = learner.step(state, generator, 20)
    optimiser.put(energy, state.good[1] if state.diverged else state.average)
    if state.partner is not None:
        optimiser.put(network, state.partner.weights)
    outcome = f"diverged: {state.diverged}" if state.diverged else f"all {settings.updates:,} updates are made"
    return Cooperated(energy.eval(), network.eval(), state, outcome)


class Taught(NamedTuple):
    """``network`` in eval mode, ``traces (update, 3)`` as in `partner.TRACES`, ``outcome`` "taught" or "diverged"."""

    network: GeneratorNetwork
    traces: Tensor
    outcome: str


def teach_generator(
    energy: Energy,
    network: GeneratorNetwork,
    settings: CooperativeSettings,
    generator: torch.Generator,
) -> Taught:
    """``network`` taught in place by a frozen ``energy``: Algorithm 4 without its step 4.

    The chains must carry the generator's points to the energy's law within ``settings.steps``; where they do not, fit
    the generator to long-run samples instead (`generator_fit.fit_generator`). Raises UserError where shapes differ.
    """
    partner = Partner(network, settings.deviation, settings.steps, settings.updates, settings.generator_schedule)
    partner.check(energy.shape)
    state = partner.init()
    step_size = settings.step_size or _FIRST_STEP
    for _ in range(settings.updates):
        points, latent = partner.draw(state, settings.batch, generator)
        dynamics = LangevinDynamics(settings.steps, settings.metropolis)
        points, moves = dynamics.moved(energy, points, step_size, generator)
        after = partner.taught(state, latent, points, generator)
        if not after.sane:
            optimiser.put(network, state.weights)
            return Taught(network.eval(), state.traces, "diverged")
        state = after
        if settings.step_size is None:
            step_size = adapted(step_size, moves.acceptance, _ADAPTATION)
    optimiser.put(network, state.weights)
    return Taught(network.eval(), state.traces, "taught")
