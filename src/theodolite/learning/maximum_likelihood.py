"""Maximum likelihood by chains: the energy of data is lowered and that of the chains raised, update by update.

The gradient of the log-likelihood is E_p[dU/dtheta] - E_q[dU/dtheta]; the chains stand for p. One update draws noisy
data and chains, moves the chains, and steps against dU/dtheta(data) - dU/dtheta(chains). Sources: Hill 2020 (PhD
thesis, UCLA), Algorithm 1, eqs. 2.8 and 3.1-3.5; a running average of the weights as in Du and Mordatch 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, final

import torch
from torch import Tensor

from theodolite.learning import optimiser
from theodolite.learning.bank import ChainStarts, NoisyData
from theodolite.learning.energy import Energy
from theodolite.learning.langevin import LangevinSettings, Moves, adapted, langevin, start
from theodolite.learning.optimiser import Moments, Optimiser, Tensors
from theodolite.learning.partner import Partner, PartnerState
from theodolite.learning.schedule import Schedule

UPDATES_KEPT = ("all", "expansion", "contraction")
TRACES = ("energy_difference", "langevin_gradient", "acceptance", "step_size", "learning_rate", "optimiser")
_ADAPTATION = 0.02  # of ln step_size, per update and unit of acceptance
_FIRST_ADAPTATION, _ADAPTATION_SPAN = 0.5, 5.0  # more of it at first, halved after so many updates
_LEAST_ACCEPTANCE = 0.005  # of a whole block of updates: with less, chains stand still
_LEAST_BLOCK = 10  # updates
_GOOD = 0.1  # of a limit: weights are kept as good while nothing is nearer to it


@final
@dataclass(frozen=True)
class LearnerState:
    """What the next update needs.

    ``weights`` and their running ``average``; ``moments`` of the optimiser of the schedule's ``phase`` (-1: not begun);
    ``bank (slot, *shape)``; ``good``: the last weights and average that were sane, of update ``good_at``; ``traces
    (update, 6)`` float64, columns as in TRACES; ``warm_traces (warm update,)``: loss of score matching; ``diverged``:
    why learning ended before its time, in words, or empty; ``partner``: the generator that is taught along, or None.
    """

    weights: Tensors
    average: Tensors
    moments: Moments
    phase: int
    bank: Tensor
    step_size: float
    good: tuple[Tensors, Tensors]
    good_at: int = 0
    traces: Tensor = field(default_factory=lambda: torch.empty((0, len(TRACES)), dtype=torch.float64))
    warm_traces: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    diverged: str = ""
    partner: PartnerState | None = None

    @property
    def updates(self) -> int:
        """Updates of maximum likelihood so far."""
        return len(self.traces)

    @property
    def warm_updates(self) -> int:
        """Updates of score matching so far."""
        return len(self.warm_traces)


class Dynamics(Protocol):
    """How chains move: ``moved(energy, point, step_size, generator)`` gives their new points and what happened."""

    @property
    def steps(self) -> int: ...

    @property
    def adapts(self) -> bool: ...

    @property
    def rows(self) -> int:
        """Rows of the energy that a move evaluates, a chain."""
        ...

    def moved(
        self, energy: Energy, point: Tensor, step_size: float, generator: torch.Generator
    ) -> tuple[Tensor, Moves]: ...


@final
@dataclass(frozen=True)
class LangevinDynamics:
    """``steps`` of Langevin dynamics, with ``metropolis`` correction or with ``noise`` tau of Algorithm 1; ``adapts``:
    the step follows the acceptance."""

    steps: int
    metropolis: bool
    noise: float = 1.0
    adapts: bool = False

    @property
    def rows(self) -> int:
        return self.steps + 1

    def moved(
        self, energy: Energy, point: Tensor, step_size: float, generator: torch.Generator
    ) -> tuple[Tensor, Moves]:
        settings = LangevinSettings(step_size, self.metropolis, self.noise)
        chains, moves = langevin(energy, start(energy, point), settings, self.steps, generator)
        return chains.point, moves


@dataclass(frozen=True)
class Limits:
    """Beyond which learning has diverged: ``energy_difference`` |d_s| in nats, ``gradient`` r_t in nats / input unit,
    ``weight``: the largest absolute value of a weight, ``away``: of a chain's coordinate less the data's mean."""

    energy_difference: float
    gradient: float
    weight: float
    away: float

    @classmethod
    def of(cls, data: NoisyData, step_size: float, scale: float = 1.0, weights: Tensors = ()) -> Limits:
        """Limits far beyond what learning that goes well meets, and soon met by learning that explodes.

        Energies of n Gaussian coordinates spread by sqrt(n / 2) nats, so that 100 n + 1,000 are hundreds of
        deviations; a slope whose drift, step_size^2 / 2 of it, exceeds a hundred times the data's whole spread throws
        chains out in one step. ``scale``: of eq. 3.2, the factor between the network's output and the energy;
        ``weights``: the first.
        """
        n = data.mean.numel()
        spread = max(data.spread, step_size)
        return cls(
            energy_difference=(1000.0 + 100.0 * n) * max(1.0, scale / 100),
            gradient=200 * spread * math.sqrt(n) / step_size**2,
            weight=1e3 * max(1.0, optimiser.largest(weights)),
            away=100 * spread * math.sqrt(n),
        )


@final
@dataclass(frozen=True)
class MaximumLikelihood:
    """Learns ``energy`` (a workspace: its weights are those of the state that an update is working on) from ``data``.

    ``scale`` (eq. 3.4): the weights' gradient is divided by it, 2 / step_size^2 of the scaled energy, else 1;
    ``average``: decay of the running average of the weights; ``updates_kept``: "expansion", "contraction" or "all"
    (section 3.5); ``step_size``: the first; ``partner``: a generator whose points chains start from and which learns
    from where they end (cooperative learning), in place of ``starts``.
    """

    energy: Energy
    data: NoisyData
    starts: ChainStarts
    dynamics: Dynamics
    schedule: Schedule
    limits: Limits
    step_size: float
    updates: int
    batch: int = 256
    betas: tuple[float, float] = (0.5, 0.99)
    average: float = 0.999
    updates_kept: str = "all"
    scale: float = 1.0
    partner: Partner | None = None

    def init(self, generator: torch.Generator) -> LearnerState:
        """Before the first update, from the energy's present weights; fills the bank."""
        weights = optimiser.weights_of(self.energy)
        return LearnerState(
            weights=weights,
            average=weights,
            moments=(),
            phase=-1,
            bank=self.starts.bank(self.data, generator),
            step_size=self.step_size,
            good=(weights, weights),
            partner=None if self.partner is None else self.partner.init(),
        )

    def step(self, state: LearnerState, generator: torch.Generator, n_updates: int) -> LearnerState:
        """Up to ``n_updates`` updates, fewer where that is all that are left, or where learning diverges.

        A state that has diverged ends with the last good weights in ``good``, and is returned as it is ever after.
        """
        if state.diverged:
            return state
        optimiser.put(self.energy, state.weights)
        average = [tensor.clone() for tensor in state.average]
        bank, step_size, phase, moments = state.bank.clone(), state.step_size, state.phase, state.moments
        partner = state.partner
        rows: list[list[float]] = []
        learner: Optimiser | None = None
        reason = ""
        for update in range(state.updates, min(self.updates, state.updates + n_updates)):
            place, rate = self.schedule.at(update / max(1, self.updates - 1))
            kind = self.schedule.phases[place].optimiser
            if learner is None or place != phase:
                # Moments of another phase belong to another optimiser.
                learner = Optimiser(kind, self.energy, moments if place == phase else (), self.betas)
                phase = place
            latent = None
            if self.partner is not None and partner is not None:
                point, latent = self.partner.draw(partner, self.batch, generator)
                slot = torch.empty(0, dtype=torch.int64)
            else:
                point, slot = self.starts.draw(self.data, bank, self.batch, generator)
            point, moves = self.dynamics.moved(self.energy, point, step_size, generator)
            data = self.data.draw(len(point), generator)
            difference, gradients = self._gradient(data, point)
            rows.append(
                [difference, moves.gradient_norm, moves.acceptance, step_size, rate, float(kind == "sgd")],
            )
            reason = self._exploded(difference, moves, point)
            if reason:
                break
            if self.partner is not None and partner is not None and latent is not None:
                partner = self.partner.taught(partner, latent, point, generator)
                if not partner.sane:
                    reason = "The generator's weights were not finite numbers"
                    break
            if len(slot):
                bank[slot] = point
            if self._kept(difference):
                learner.step(gradients, rate)
            self._averaged(average)
            if self.dynamics.adapts:
                haste = _FIRST_ADAPTATION / (1 + update / _ADAPTATION_SPAN)
                step_size = adapted(step_size, moves.acceptance, _ADAPTATION + haste)
        weights = optimiser.weights_of(self.energy)
        reason = reason or unfit(weights, self.limits.weight) or _stuck(rows)
        state = replace(state, traces=torch.cat((state.traces, _table(rows))), phase=phase, step_size=step_size)
        if reason:
            return replace(state, diverged=f"{reason} at update {state.updates:,}")
        state = replace(
            state,
            weights=weights,
            average=tuple(average) if self.average > 0 else weights,
            moments=learner.moments() if learner is not None else moments,
            bank=bank,
            partner=partner,
        )
        return self._remembered(state)

    def evaluations(self, n_updates: int) -> int:
        """Rows of the energy that so many updates evaluate."""
        chains = min(self.batch, len(self.data.point)) if self.starts.initialisation == "persistent" else self.batch
        return n_updates * chains * (self.dynamics.rows + 2)

    def short_run(self, state: LearnerState, n: int, generator: torch.Generator) -> Tensor:
        """``n`` points ``(n, *shape)`` as an update's chains end, of the energy's present weights; from a bank, of
        which no slot is used twice, at most one a slot."""
        if self.partner is not None and state.partner is not None:
            point, _ = self.partner.draw(state.partner, n, generator)
        else:
            point, _ = self.starts.draw(self.data, state.bank, n, generator)
        return self.dynamics.moved(self.energy, point, state.step_size, generator)[0]

    def _gradient(self, data: Tensor, chains: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        """d_s and the weights' gradient of it, divided by the scale of eq. 3.4."""
        with torch.enable_grad():
            value = self.energy(torch.cat((data, chains)))
            difference = value[: len(data)].mean() - value[len(data) :].mean()
            gradients = torch.autograd.grad(difference, optimiser.trainable(self.energy), materialize_grads=True)
        if self.scale != 1:
            gradients = tuple(gradient / self.scale for gradient in gradients)
        return float(difference.detach()), gradients

    def _kept(self, difference: float) -> bool:
        if self.updates_kept == "all":
            return True
        return difference < 0 if self.updates_kept == "expansion" else difference > 0

    @torch.no_grad()
    def _averaged(self, average: list[Tensor]) -> None:
        if self.average > 0:
            for mean, parameter in zip(average, optimiser.trainable(self.energy), strict=True):
                mean.lerp_(parameter, 1 - self.average)

    def _exploded(self, difference: float, moves: Moves, point: Tensor) -> str:
        limits = self.limits
        if not math.isfinite(difference):
            return "The energy was not a finite number"
        if not (math.isfinite(moves.gradient_norm) and bool(torch.isfinite(point).all())):
            return "The chains left for infinity"
        if abs(difference) > limits.energy_difference:
            return f"The energy difference was {difference:.3g} nats"
        if moves.gradient_norm > limits.gradient:
            return f"The Langevin gradient was {moves.gradient_norm:.3g} nats an input unit"
        away = float((point - self.data.mean).abs().max())
        return f"A chain was {away:.3g} input units from the data" if away > limits.away else ""

    def _remembered(self, state: LearnerState) -> LearnerState:
        """With a copy of the weights, where all that was measured since the last copy is far from the limits."""
        recent = state.traces[state.good_at :]
        near = (
            recent[:, 0].abs().max() > _GOOD * self.limits.energy_difference
            or recent[:, 1].max() > _GOOD * self.limits.gradient
            if len(recent)
            else False
        )
        if near:
            return state
        return replace(state, good=(state.weights, state.average), good_at=state.updates)


def unfit(weights: Tensors, limit: float) -> str:
    """Why ``weights`` are those of learning that diverged, in words; empty where they are not."""
    if not optimiser.all_finite(weights):
        return "The weights were not finite numbers"
    largest = optimiser.largest(weights)
    return f"A weight was {largest:.3g}" if largest > limit else ""


def _stuck(rows: list[list[float]]) -> str:
    accepted = [row[TRACES.index("acceptance")] for row in rows]
    # NaN, without correction, is no little acceptance.
    if len(accepted) < _LEAST_BLOCK or not max(accepted) < _LEAST_ACCEPTANCE:
        return ""
    return f"The chains no longer moved ({max(accepted):.1%} of their steps were accepted)"


def _table(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(TRACES))
