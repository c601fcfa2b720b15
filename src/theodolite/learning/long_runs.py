"""Long runs of a learned energy at T = 1, by which it is judged: from data, and from noise that was cooled.

Chains from data show whether the data stay where they are; chains from noise, cooled from a high temperature, show
where the energy itself leads. In a converged model both end in one law, that of the noisy data. The chains are
Metropolis-corrected, or make Gibbs sweeps where the energy is over grey levels, so that no error of the sampler is
taken for one of the energy.
Source: Hill 2020 (PhD thesis, UCLA), sections 3.1 and 3.2 (long-run samples as the test of convergence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy
from theodolite.learning.gibbs import LevelEnergy, gibbs_sweep
from theodolite.learning.langevin import Chains, LangevinSettings, adapted, langevin, start

STARTS = ("data", "noise")
_BURST = 5  # steps between two adaptations of the step size
_RATE = 0.5  # of the first adaptations; it falls with their number
_ADAPTING_SHARE = 0.1  # of the steps of a run from data; the step size is frozen afterwards
_NOISE_WIDTH = 1.5  # standard deviations of the data that noise starts are wide
_FIRST_STATE = 0.6  # share of the steps after which the first states are kept


@final
@dataclass(frozen=True)
class LongRuns:
    """``steps`` of each of ``chains`` chains from each start, made in blocks of ``block``.

    Runs from noise spend ``cooling_share`` of their steps between the temperature ``hottest`` and 1 (geometric).
    ``n_states``: times, spread over the last two fifths of the steps, whose points are kept. Raises UserError for
    numbers that make no run.
    """

    steps: int = 10_000
    chains: int = 400
    hottest: float = 30.0
    cooling_share: float = 0.4
    n_states: int = 5
    block: int = 50

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("chains", 2), ("n_states", 1), ("block", 1)):
            if getattr(self, name) < least:
                raise UserError(f"long {name}", f"{least} or more", str(getattr(self, name)), "raise it")
        if not self.hottest >= 1:
            raise UserError("hottest", "1 or more", str(self.hottest), "30 is a good temperature")
        if not 0 <= self.cooling_share < _FIRST_STATE:
            got = str(self.cooling_share)
            raise UserError("cooling_share", f"at least 0, less than {_FIRST_STATE}", got, "choose 0.4")

    @property
    def n_blocks(self) -> int:
        return math.ceil(self.steps / self.block)

    def state_blocks(self) -> tuple[int, ...]:
        """Blocks after which points are kept, ascending; the last of all is among them."""
        shares = torch.linspace(_FIRST_STATE if self.n_states > 1 else 1.0, 1.0, self.n_states).tolist()
        return tuple(sorted({max(1, round(share * self.n_blocks)) for share in shares}))

    def temperature(self, block: int) -> float:
        """Of block ``block`` (from 0) of a run from noise; 1 from the end of the cooling on."""
        n_cooling = round(self.cooling_share * self.n_blocks)
        return 1.0 if block >= n_cooling else self.hottest ** (1 - block / n_cooling)


@final
@dataclass(frozen=True)
class LongRun:
    """Chains from one start: ``point (chain, *shape)``, ``value (chain,)``, ``gradient``; ``energies`` ``(chain,)`` and
    ``acceptance`` after each block; ``first``: where they began; ``states (chain, *shape)``, the points that were kept.
    ``step_size`` and ``acceptance`` are NaN where chains make Gibbs sweeps.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    first: Tensor
    step_size: float
    n_adapted: int = 0
    energies: tuple[Tensor, ...] = ()
    acceptance: tuple[float, ...] = ()
    states: tuple[Tensor, ...] = ()

    @property
    def finite(self) -> bool:
        return bool(self.value.isfinite().all()) and bool(self.gradient.isfinite().all())

    def trace(self) -> Tensor:
        """Energies ``(chain, block)``, in nats."""
        return torch.stack(self.energies, 1) if self.energies else self.value.new_zeros((len(self.value), 0))

    def kept(self) -> Tensor:
        """Points ``(chain, time, *shape)`` at the times that were kept; where there was none yet, those at the end."""
        return torch.stack(self.states or (self.point,), 1)


@final
@dataclass(frozen=True)
class LongRunState:
    """The runs from data and from noise, after ``done`` blocks; ``diverged``: numbers that are not finite turned up."""

    data: LongRun
    noise: LongRun
    done: int = 0
    diverged: bool = False
    evaluations: int = 0


def init(
    energy: Energy,
    points: Tensor,
    settings: LongRuns,
    generator: torch.Generator,
    step_size: float | None = None,
) -> LongRunState:
    """Runs that begin at noisy data ``points (n, *shape)``, the first ``settings.chains`` of them, and at as many
    points of isotropic Gaussian noise around their mean, or of uniform levels where the energy is over grey levels.

    ``step_size``: where the adaptation begins; None: a guess from the slope. Raises UserError for too few points.
    """
    if len(points) < settings.chains:
        remedy = "give more data, or ask for fewer long chains"
        raise UserError("points", f"{settings.chains} or more, one a chain", str(len(points)), remedy)
    data = points[: settings.chains].clone()
    if isinstance(energy, LevelEnergy):
        noise = torch.randint(energy.levels, data.shape, generator=generator).to(data.dtype)
        step_size = math.nan
    else:
        width = _NOISE_WIDTH * points.flatten(1).var(0).mean().sqrt()
        noise = torch.randn(data.shape, generator=generator, dtype=data.dtype) * width + points.mean(0)
    from_data, from_noise = (_begun(energy, first, step_size) for first in (data, noise))
    diverged = not (from_data.finite and from_noise.finite)
    return LongRunState(from_data, from_noise, diverged=diverged, evaluations=2 * len(data))


def step(energy: Energy, settings: LongRuns, state: LongRunState, generator: torch.Generator) -> LongRunState:
    """One more block of both runs; ``state`` itself where they are done or have diverged."""
    if finished(settings, state):
        return state
    n = min(settings.block, settings.steps - state.done * settings.block)
    adapting = state.done < max(1, round(_ADAPTING_SHARE * settings.n_blocks))
    keep = state.done + 1 in settings.state_blocks()
    temperature = settings.temperature(state.done)
    rows = n
    if isinstance(energy, LevelEnergy):
        data = _swept(energy, state.data, n, 1.0, keep, generator)
        noise = _swept(energy, state.noise, n, temperature, keep, generator)
        rows = n * energy.rows_a_sweep + 1
    else:
        data = _block(energy, state.data, n, 1.0, adapting, keep, generator)
        noise = _block(energy, state.noise, n, temperature, adapting or temperature > 1, keep, generator)
    return LongRunState(
        data,
        noise,
        state.done + 1,
        not (data.finite and noise.finite),
        state.evaluations + rows * (len(data.value) + len(noise.value)),
    )


def finished(settings: LongRuns, state: LongRunState) -> bool:
    """Whether every step was made, or the runs diverged."""
    return state.diverged or state.done >= settings.n_blocks


def _begun(energy: Energy, points: Tensor, step_size: float | None) -> LongRun:
    chains, size = start(energy, points), step_size
    if size is None:
        # A Gaussian of deviation s in n dimensions has slopes of length sqrt(n) / s, and wants steps near s n^(-1/6).
        n = math.prod(points.shape[1:])
        slope = float(chains.gradient.flatten(1).norm(dim=1).median())
        size = math.sqrt(n) / slope * n ** (-1 / 6) if math.isfinite(slope) and slope > 0 else 1.0
    return LongRun(chains.point, chains.value, chains.gradient, points, size)


def _swept(
    energy: LevelEnergy, run: LongRun, n: int, temperature: float, keep: bool, generator: torch.Generator
) -> LongRun:
    level = run.point.long()
    for _ in range(n):
        level, _ = gibbs_sweep(energy, level, generator, temperature)
    chains = start(energy, level.to(run.point.dtype))
    return replace(
        run,
        point=chains.point,
        value=chains.value,
        gradient=chains.gradient,
        energies=(*run.energies, chains.value),
        acceptance=(*run.acceptance, math.nan),
        states=(*run.states, chains.point) if keep else run.states,
    )


def _block(
    energy: Energy, run: LongRun, n: int, temperature: float, adapting: bool, keep: bool, generator: torch.Generator
) -> LongRun:
    chains, size, n_adapted = Chains(run.point, run.value, run.gradient), run.step_size, run.n_adapted
    accepted, made = 0.0, 0
    while made < n:
        burst = min(_BURST, n - made) if adapting else n
        chains, moves = langevin(energy, chains, LangevinSettings(size, temperature=temperature), burst, generator)
        accepted, made = accepted + burst * moves.acceptance, made + burst
        if adapting:
            n_adapted += 1
            size = adapted(size, moves.acceptance, max(_RATE / math.sqrt(1 + n_adapted / 10), 0.1))
    return replace(
        run,
        point=chains.point,
        value=chains.value,
        gradient=chains.gradient,
        step_size=size,
        n_adapted=n_adapted,
        energies=(*run.energies, chains.value),
        acceptance=(*run.acceptance, accepted / n),
        states=(*run.states, chains.point) if keep else run.states,
    )
