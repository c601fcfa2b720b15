"""The maximal Lyapunov exponent of dX = -dU/dx dt + gamma sqrt(2) dB over noise scales gamma: order or chaos.

Pairs of states a small distance apart follow the same noise; again and again the distance is measured and the second
state pulled back along the line between them. The mean growth of its logarithm is the exponent.
Sources: Benettin, Galgani and Strelcyn, Phys. Rev. A 14, 2338 (1976); Hill 2020 (PhD thesis, UCLA), eqs. 3.6-3.8,
Figure 3.8.

What is known exactly: -k at every gamma for a quadratic U of least curvature k; -E[U''] on a line, which is never
positive, since E[U''] = E[(U')^2] / gamma^2. On networks of rectified units the curvature sits in kinks that few pairs
straddle, and the intervals are wide: use smooth units.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy

Outcome = Literal["measured", "step too long", "diverged"]

NOISE_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
_SAFE_DRIFT = 0.1  # time step times the largest curvature, where the step is chosen here
_POWER_STEPS = 20
_MOST_CHANGE = 0.1  # of the exponent: what extrapolation leaves is of the order of this squared


@final
@dataclass(frozen=True)
class LyapunovSettings:
    """``noise_scales`` gamma; ``time`` over which growth is averaged, after ``settling``, in units of the equation's t
    (epsilon^2 / 2 of it is one Langevin step of size epsilon).

    ``step``: of time; None: a tenth of the inverse of the largest curvature at the starts, at most what one pulling
    back allows. ``separation``: distance of
    a pair, input units; ``renormalised``: steps between pullings back. Raises UserError for numbers out of range, or so
    few steps that no pulling back happens.
    """

    noise_scales: tuple[float, ...] = NOISE_SCALES
    time: float = 25.0
    settling: float = 5.0
    step: float | None = None
    separation: float = 1e-6
    renormalised: int = 10

    def __post_init__(self) -> None:
        scales = self.noise_scales
        if not scales or not all(math.isfinite(scale) and scale >= 0 for scale in scales):
            raise UserError("noise_scales", "finite numbers, 0 or more", str(scales), "1 is the training temperature")
        for name in ("time", "separation", *(["step"] if self.step is not None else [])):
            number = getattr(self, name)
            if not (math.isfinite(number) and number > 0):
                raise UserError(name, "a finite number above 0", repr(number), "choose a positive one")
        if not (math.isfinite(self.settling) and self.settling >= 0) or self.renormalised < 1:
            got = f"{self.settling}, {self.renormalised}"
            raise UserError("settling, renormalised", "0 or more, 1 or more", got, "the defaults suit most energies")


@final
@dataclass(frozen=True)
class LyapunovExponents:
    """For each ``noise_scale (scale,)``: ``exponent``, 1 / time, the mean over chains.

    It is extrapolated to steps of no length, from ``step`` and its half on one Brownian path; ``low`` and ``high``: 95%
    interval over chains (Student), widened by what the step may have left. ``step_change``: the exponent less that at
    half the step. ``outcome (scale,)``:
    "measured"; "step too long" where that change is above a tenth of the exponent and the interval's half; "diverged"
    where numbers overflowed (the exponent is NaN). ``state (scale, chain, *shape)``: the chains at the end.
    """

    noise_scale: np.ndarray
    exponent: np.ndarray
    low: np.ndarray
    high: np.ndarray
    step_change: np.ndarray
    step: float
    outcome: tuple[Outcome, ...]
    state: Tensor


def lyapunov_exponents(
    energy: Energy, start: Tensor, settings: LyapunovSettings, generator: torch.Generator
) -> LyapunovExponents:
    """Exponents from chains at ``start (chain, *shape)``, the same at every noise scale, in float64.

    6 (time + settling) / step evaluations a chain and noise scale. Raises UserError: starts of another shape, fewer
    than two chains (no interval), or a time shorter than one pulling back.
    """
    if tuple(start.shape[1:]) != energy.shape or len(start) < 2:
        raise UserError("start", f"(2 or more, *{energy.shape})", str(tuple(start.shape)), "start at long-run states")
    precise = copy.deepcopy(energy).double()
    origin = start.detach().double()
    step = settings.step if settings.step is not None else _safe_step(precise, origin, settings, generator)
    if settings.step is not None and settings.time < step * settings.renormalised:
        raise UserError("time", f"{settings.renormalised} steps of {step:.3g}", str(settings.time), "lengthen it")
    whole, halved, state = _growth(precise, origin, step, settings, generator)
    exponent, half = _interval(2.0 * halved - whole)
    change = exponent - halved.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # What extrapolation leaves where the curvature is constant, k^3 step^2 / 6, by the change k^2 step / 4.
        left = np.where(change == 0.0, 0.0, (8.0 / 3.0) * change**2 / np.abs(exponent))
    outcome: tuple[Outcome, ...] = tuple(_outcome(*numbers) for numbers in zip(exponent, half, change, strict=True))
    half = half + np.minimum(left, np.abs(change))
    return LyapunovExponents(
        np.array(settings.noise_scales), exponent, exponent - half, exponent + half, change, step, outcome, state
    )


@final
@dataclass
class _Pairs:
    """One state of each pair ``(pair, *shape)``, the way from it to the other, and the summed logarithm of growth."""

    energy: Energy
    point: Tensor
    away: Tensor
    total: Tensor

    def move(self, step: float, noise: Tensor) -> None:
        near, far = self.energy.value_and_gradient(torch.cat([self.point, self.point + self.away]))[1].chunk(2)
        self.point = self.point - step * near + noise
        # The noise is common: the difference of a pair is moved without it, so that it is never rounded to the size
        # of the states themselves.
        self.away = self.away - step * (far - near)

    def pull_back(self, separation: float, count: bool) -> None:
        length = _length(self.away)
        if count:
            self.total += (length / separation).log()
        self.away = separation * self.away / _rows(length, self.away)


def _growth(
    energy: Energy, start: Tensor, step: float, settings: LyapunovSettings, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Mean growth rates of ln distance ``(scale, chain)`` at the step and half of it, driven by one Brownian path, and
    the states ``(scale, chain, *shape)`` that the halved steps end at."""
    n_scales, n_chains = len(settings.noise_scales), len(start)
    point = start.repeat(n_scales, *[1] * (start.ndim - 1))
    direction = torch.randn(point.shape, generator=generator, dtype=point.dtype)
    away = settings.separation * direction / _rows(_length(direction), point)
    whole = _Pairs(energy, point, away, torch.zeros(len(point), dtype=point.dtype))
    halved = _Pairs(energy, point, away, torch.zeros(len(point), dtype=point.dtype))
    scale = torch.tensor(settings.noise_scales, dtype=point.dtype).repeat_interleave(n_chains)
    spread = _rows(scale * math.sqrt(step), point)
    every = settings.renormalised
    n_settling, n_rounds = math.ceil(settings.settling / (step * every)), round(settings.time / (step * every))
    for round_ in range(n_settling + n_rounds):
        for _ in range(every):
            first, second = spread * torch.randn(2, *point.shape, generator=generator, dtype=point.dtype)
            halved.move(0.5 * step, first)
            halved.move(0.5 * step, second)
            whole.move(step, first + second)
        for pairs in (whole, halved):
            pairs.pull_back(settings.separation, count=round_ >= n_settling)
    rates = [(pairs.total / (n_rounds * every * step)).reshape(n_scales, n_chains).numpy() for pairs in (whole, halved)]
    return rates[0], rates[1], halved.point.reshape(n_scales, n_chains, *start.shape[1:])


def _interval(growth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = growth.shape[1]
    error = growth.std(1, ddof=1) / math.sqrt(n)
    return growth.mean(1), stats.t.ppf(0.975, n - 1) * error


def _outcome(exponent: float, half: float, change: float) -> Outcome:
    if not math.isfinite(exponent):
        return "diverged"
    return "step too long" if abs(change) > max(half, _MOST_CHANGE * abs(exponent)) else "measured"


def _safe_step(energy: Energy, start: Tensor, settings: LyapunovSettings, generator: torch.Generator) -> float:
    """A tenth of 1 / the largest curvature at the starts, by power iteration on differences of slopes."""
    away = torch.randn(start.shape, generator=generator, dtype=start.dtype)
    gradient = energy.value_and_gradient(start)[1]
    largest = 0.0
    for _ in range(_POWER_STEPS):
        away = settings.separation * away / _rows(_length(away), away)
        away = energy.value_and_gradient(start + away)[1] - gradient
        largest = float(_length(away).max()) / settings.separation
    longest = settings.time / settings.renormalised
    # A curvature that is not finite shows as an exponent that is not, whatever the step.
    return min(_SAFE_DRIFT / largest, longest) if math.isfinite(largest) and largest > 0 else longest


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _rows(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(-1, *[1] * (like.ndim - 1))
