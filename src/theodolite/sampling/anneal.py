"""A pilot: anneal a few particles from the reference measure to ever larger |lambda|, to find the range.

Annealed sequential Monte Carlo (Neal 2001; Del Moral et al. 2006) lags behind equilibrium, so that it is used to
place rungs and never as an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from theodolite.sampling.ensembles import Canonical
from theodolite.sampling.metropolis import Mover, Tuning, Walkers, take_walkers

_STEP = 0.7  # of the outputs' standard deviation: how far the mean moves at one temperature
_STILL = 0.001  # of the range found so far: a smaller move of the mean counts as none
_RENEWED = 0.8  # of a point: more sweeps at one temperature would gain nothing
_PATIENCE = 8  # temperatures without a move that end the pilot


@dataclass(frozen=True)
class AnnealState:
    """``rung_lambda``, ``mean`` and ``deviation`` record the path; ``reach`` and
    ``share`` the tuning that went with it; ``sign`` is the direction in lambda."""

    walkers: Walkers
    tuning: Tuning
    sign: float
    rung_lambda: list[float]
    mean: list[float]
    deviation: list[float]
    reach: list[float]
    share: list[float]
    still: int
    ended: str


def init(mover: Mover, point: Tensor, sign: float) -> AnnealState:
    """Particles at ``point``, drawn from the reference measure (lambda = 0)."""
    walkers = mover.start(point)
    value, tuning = walkers.value, mover.initial_tuning(len(walkers.value))
    return AnnealState(
        walkers,
        tuning,
        sign,
        [0.0],
        [float(value.mean())],
        [float(value.std())],
        [float(tuning.reach.mean())],
        [float(tuning.share.mean())],
        0,
        "",
    )


def step(
    state: AnnealState, mover: Mover, sweeps: int, target: float | None, generator: torch.Generator
) -> tuple[AnnealState, dict[str, float | str]]:
    """One temperature: advance lambda, resample, move. ``ended`` says why when the range is found."""
    spread = max(state.deviation[-1], 1e-12)
    # where the last particles freeze the spread vanishes: lambda grows by half at most
    change = state.sign * min(_STEP / spread, max(0.5 * abs(state.rung_lambda[-1]), _STEP / state.deviation[0]))
    rung_lambda = state.rung_lambda[-1] + change
    chosen = _resample(change * state.walkers.value, generator)
    walkers = take_walkers(state.walkers, chosen)
    n = len(chosen)
    ensemble = Canonical(torch.full((n,), rung_lambda, dtype=torch.float64))
    tuning, renewed = state.tuning, 0.0
    for _ in range(sweeps):
        walkers, accepted = mover.step(walkers, ensemble, tuning, 1, generator)
        renewed += float(mover.renewal(tuning, accepted).mean())
        tuning = mover.adapt(tuning, accepted, 0.2)
        tuning = Tuning(tuning.reach.mean().expand(n).clone(), tuning.share.mean().expand(n).clone())
        if renewed > _RENEWED:
            break
    mean = float(walkers.value.mean())
    measured = max(float(walkers.value.std()), 0.05 * spread)
    deviation = spread**0.7 * measured**0.3
    extent = abs(mean - state.mean[0])
    # compared with a few temperatures ago, since a handful of particles is noisy
    before = state.mean[-min(4, len(state.mean))]
    moved = state.sign * (mean - before)
    still = state.still + 1 if moved < 4 * _STILL * max(extent, 1e-12) else 0
    ended = ""
    if target is not None and state.sign * (mean - target) > 0:
        ended = "the requested level is passed"
    elif still >= _PATIENCE:
        ended = "nothing moves any more"
    if ended:
        return _without_standstill(replace(state, walkers=walkers, tuning=tuning, ended=ended), mean), {
            "lambda": rung_lambda,
            "output": mean,
        }
    result = replace(
        state,
        walkers=walkers,
        tuning=tuning,
        rung_lambda=[*state.rung_lambda, rung_lambda],
        mean=[*state.mean, mean],
        deviation=[*state.deviation, deviation],
        reach=[*state.reach, float(tuning.reach[0])],
        share=[*state.share, float(tuning.share[0])],
        still=still,
    )
    return result, {"lambda": rung_lambda, "output": mean}


def _without_standstill(state: AnnealState, last: float) -> AnnealState:
    """The path up to where the mean had come within a few steps of where it ended."""
    close = 2 * _STILL * abs(last - state.mean[0])
    arrived = next((i for i, mean in enumerate(state.mean) if abs(mean - last) <= close), len(state.mean) - 1)
    keep = max(arrived + 1, 2)
    return replace(
        state,
        rung_lambda=state.rung_lambda[:keep],
        mean=state.mean[:keep],
        deviation=state.deviation[:keep],
        reach=state.reach[:keep],
        share=state.share[:keep],
    )


def _resample(log_weight: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: indices ``(walker,)``."""
    weight = torch.softmax(log_weight, 0)
    n = len(weight)
    position = (torch.rand(1, generator=generator, dtype=torch.float64) + torch.arange(n)) / n
    return torch.searchsorted(weight.cumsum(0), position).clamp(max=n - 1)
