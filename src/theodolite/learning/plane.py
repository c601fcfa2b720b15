"""The exact density of an energy of one or two coordinates: its constant ln Z, and how far it is from a known density.

Sums over cells, finer where the energy is steep and the density lies. The box grows until the shell around it holds no
more than the tolerance; then the cells are split that hold much and across which U changes, then all that hold
anything, until ln Z settles. Errors are what the last splitting of all cells changed; that of ln Z has the mass outside
added.
Source: Hill 2020 (PhD thesis, UCLA), section 3.2.1.1: Z by discretising the plane; density, not samples, is compared,
since a bank of chains that started at data hides wrong masses of the modes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, by_autograd
from theodolite.learning.plane_modes import modes_of

LogDensity = Callable[[Tensor], Tensor]
Outcome = Literal["resolved", "coarse", "not normalisable"]
# x (batch, dim) -> one number a row and its slope (batch, dim), float64
_Slope = Callable[[Tensor], tuple[Tensor, Tensor]]

_BATCH = 1 << 16
_STEEP = 0.1  # of the integral: what cells may be off by, errors of one sign, before all are split to see
_SCOUT = {1: 2048, 2: 96}  # cells a side while the box is sought


@final
@dataclass(frozen=True)
class PlaneSettings:
    """``tolerance`` of ln Z in nats, and of the mass outside the box; ``resolution``: cells a side of the grid shown.

    ``n_cells``: no more are made; ``n_doublings``: of the box, at most. Raises UserError for numbers out of range.
    """

    tolerance: float = 1e-3
    resolution: int = 192
    n_cells: int = 2_000_000
    n_doublings: int = 8

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 0.1:
            raise UserError("tolerance", "between 0 and .1 nats", repr(self.tolerance), "1e-3 is a good choice")
        if self.resolution < 8 or self.n_cells < self.resolution**2 or self.n_doublings < 0:
            got = f"{self.resolution}, {self.n_cells}, {self.n_doublings}"
            raise UserError(
                "resolution, n_cells, n_doublings", "8 or more, its square or more, 0 or more", got, "raise them"
            )


@final
@dataclass(frozen=True)
class PlaneDensity:
    """``log_density (axis_0, axis_1)`` at the grid of ``axis_0`` and ``axis_1`` (which is 0 for one coordinate), nats.

    ``log_normalisation`` ln Z with ``log_normalisation_error``, in nats; ``mass_outside``: the share of the density in
    the shell about the box, as wide as the box's half. ``outcome``: "resolved" within the tolerance, "coarse" where the
    cells ran out before, "not normalisable" where the shell went on holding mass as the box was doubled: ln Z and the
    density are then those of the first box alone.
    """

    axis_0: np.ndarray
    axis_1: np.ndarray
    log_density: np.ndarray
    log_normalisation: float
    log_normalisation_error: float
    mass_outside: float
    outcome: Outcome


@final
@dataclass(frozen=True)
class PlaneComparison:
    """A learned density p beside the true q on one grid: ``true_log_density (axis_0, axis_1)``, nats.

    ``divergence`` KL(q to p) and ``reverse_divergence`` KL(p to q), nats, good to their errors; ``mode_mass`` and
    ``true_mode_mass (mode,)``: the probability of each mode of q, the points from where q rises to it, under p and q.
    Modes less than half a nat above a pass to a higher one are one with it. In the order of their first coordinates.
    """

    density: PlaneDensity
    true_log_density: np.ndarray
    divergence: float
    divergence_error: float
    reverse_divergence: float
    reverse_divergence_error: float
    mode_mass: np.ndarray
    true_mode_mass: np.ndarray


def box_of(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half sides ``(dim,)`` of the box about ``points (n, dim)``, a quarter wider than they reach."""
    values = points.detach().double().flatten(1).numpy()
    centre = 0.5 * (values.min(0) + values.max(0))
    half = 1.25 * 0.5 * (values.max(0) - values.min(0))
    return centre, np.where(half > 0, half, 1.0)


def plane_density(
    energy: Energy, centre: np.ndarray, half: np.ndarray, settings: PlaneSettings | None = None
) -> PlaneDensity:
    """Density of exp(-U) from a first box of ``centre`` and ``half`` sides ``(dim,)``, in input units.

    Works on a float64 copy of the energy. Raises UserError for other than one or two coordinates.
    """
    settings = settings or PlaneSettings()
    dim = _dimensions(energy)
    return _survey([_precise(energy)], *_box(centre, half, dim), settings).density()


def compare(
    energy: Energy, truth: LogDensity, centre: np.ndarray, half: np.ndarray, settings: PlaneSettings | None = None
) -> PlaneComparison:
    """`plane_density` beside ``truth``: ln q ``(batch,)`` of float64 points ``(batch, *shape)`` of the energy's shape,
    of a normalised density, differentiable by torch.

    Raises UserError for other than one or two coordinates, or a truth that torch cannot differentiate, gives another
    shape, or whose integral is not 1 within one percent.
    """
    settings = settings or PlaneSettings()
    dim = _dimensions(energy)
    box_centre, box_half = _box(centre, half, dim)
    survey = _survey([_precise(energy), _negative(truth, energy.shape)], box_centre, box_half, settings)
    log_total = survey.log_integral(1)
    if survey.outcome == "resolved" and abs(log_total) > 0.01:
        raise UserError("truth", "a normalised ln q", f"an integral of {math.exp(log_total):.3g}", "divide q by it")
    (forward, forward_error), (reverse, reverse_error) = survey.divergence(1, 0), survey.divergence(0, 1)
    true_log_density = survey.shown(1)
    label = modes_of(true_log_density)
    n_modes = int(label.max()) + 1
    mass = [
        np.bincount(label.ravel()[survey.fine.base], survey.fine.share(which), minlength=n_modes) for which in (0, 1)
    ]
    return PlaneComparison(
        survey.density(), true_log_density, forward, forward_error, reverse, reverse_error, mass[0], mass[1]
    )


@final
@dataclass(frozen=True)
class _Cells:
    """``centre (cell, dim)``, ``half (cell, dim)``, the cell of the first grid that holds it, and for each function its
    ``value`` and ``change``, the most it changes within the cell going by its slope, ``(function, cell)``."""

    centre: np.ndarray
    half: np.ndarray
    base: np.ndarray
    value: np.ndarray
    change: np.ndarray

    def log_mass(self, which: int) -> np.ndarray:
        return np.log(2.0 * self.half).sum(1) - self.value[which]

    def log_integral(self, which: int) -> float:
        return float(np.logaddexp.reduce(self.log_mass(which)))

    def share(self, which: int) -> np.ndarray:
        mass = self.log_mass(which)
        return np.exp(mass - np.logaddexp.reduce(mass))

    def divergence(self, of: int, to: int) -> float:
        share = self.share(of)
        held = share > 0.0
        difference = (self.value[to] - self.value[of])[held]
        return float(share[held] @ difference) + self.log_integral(to) - self.log_integral(of)


@final
@dataclass(frozen=True)
class _Survey:
    """The cells before and after all that hold anything were split, and the first grid they came from."""

    first: _Cells
    coarse: _Cells
    fine: _Cells
    axes: tuple[np.ndarray, ...]
    outside: np.ndarray  # per function
    outcome: Outcome

    def log_integral(self, which: int) -> float:
        return self.fine.log_integral(which)

    def divergence(self, of: int, to: int) -> tuple[float, float]:
        value = self.fine.divergence(of, to)
        before = self.coarse.divergence(of, to)
        return value, abs(value - before) if math.isfinite(value) and math.isfinite(before) else math.inf

    def shown(self, which: int) -> np.ndarray:
        return -self.first.value[which].reshape(len(self.axes[0]), -1)

    def density(self) -> PlaneDensity:
        log_total = self.log_integral(0)
        return PlaneDensity(
            self.axes[0],
            self.axes[1] if len(self.axes) == 2 else np.zeros(1),
            self.shown(0) - log_total,
            log_total,
            abs(log_total - self.coarse.log_integral(0)) + float(self.outside[0]),
            float(self.outside[0]),
            self.outcome,
        )


def _survey(functions: Sequence[_Slope], centre: np.ndarray, half: np.ndarray, settings: PlaneSettings) -> _Survey:
    half, outside = _grown(functions, centre, half, settings)
    dim = len(centre)
    n_side = settings.resolution if dim == 2 else settings.resolution * 16
    first, axes = _grid(functions, centre, half, n_side)
    coarse = _split_steep(functions, first, settings)
    fine = _split(functions, coarse, _held(coarse, settings.tolerance))
    while _difference(coarse, fine) > settings.tolerance:
        chosen = _held(fine, settings.tolerance)
        if len(fine.base) + int(chosen.sum()) * (2**dim - 1) > settings.n_cells:
            break
        coarse, fine = fine, _split(functions, fine, chosen)
    outcome: Outcome = "resolved" if _difference(coarse, fine) <= settings.tolerance else "coarse"
    if (outside > settings.tolerance).any():
        outcome = "not normalisable"
    return _Survey(first, coarse, fine, axes, outside, outcome)


def _grown(
    functions: Sequence[_Slope], centre: np.ndarray, half: np.ndarray, settings: PlaneSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The half sides of a box whose shell holds at most a tenth of the tolerance (else the first) and its share."""
    reach, outside = half, np.ones(len(functions))
    for _ in range(settings.n_doublings + 1):
        cells, _ = _grid(functions, centre, 2.0 * reach, _SCOUT[len(centre)])
        outer = (np.abs(cells.centre - centre) > reach).any(1)
        outside = np.array([_most(cells, which)[outer].sum() for which in range(len(functions))])
        if (outside <= 0.1 * settings.tolerance).all():
            return reach, outside
        reach = 2.0 * reach
    return half, outside


def _most(cells: _Cells, which: int) -> np.ndarray:
    """Shares of the cells if U fell within each as its slope says: what a peak between two centres could hold."""
    log_mass = cells.log_mass(which) + cells.change[which]
    return np.exp(log_mass - np.logaddexp.reduce(log_mass))


def _split_steep(functions: Sequence[_Slope], cells: _Cells, settings: PlaneSettings) -> _Cells:
    """Split the cells that could be furthest off until all together could be off by a share of `_STEEP`."""
    dim = cells.centre.shape[1]
    while True:
        room = (settings.n_cells // 4 - len(cells.base)) // (2**dim - 1)
        chosen = np.zeros(len(cells.base), dtype=bool)
        for which in range(len(functions)):
            doubt = _doubt(cells, which)
            order = np.argsort(-doubt)
            remaining = doubt.sum() - np.cumsum(doubt[order])
            if doubt.sum() > _STEEP:
                chosen[order[: int((remaining > 0.5 * _STEEP).sum()) + 1]] = True
        if not chosen.any() or int(chosen.sum()) > room:
            return cells
        cells = _split(functions, cells, chosen)


def _doubt(cells: _Cells, which: int) -> np.ndarray:
    """Shares by which cells are off if U changes within each as its slope says: (cosh(change) - 1) share."""
    change = cells.change[which]
    log_share = cells.log_mass(which) - cells.log_integral(which)
    steep = np.logaddexp(change, -change) - math.log(2.0)
    with np.errstate(divide="ignore"):
        return np.exp(np.minimum(log_share + steep + np.log(-np.expm1(-steep)), 700.0))


def _held(cells: _Cells, tolerance: float) -> np.ndarray:
    share = np.max([cells.share(which) for which in range(len(cells.value))], axis=0)
    return share > 1e-3 * tolerance / len(share)


def _difference(coarse: _Cells, fine: _Cells) -> float:
    return max(abs(coarse.log_integral(which) - fine.log_integral(which)) for which in range(len(fine.value)))


def _grid(
    functions: Sequence[_Slope], centre: np.ndarray, half: np.ndarray, n_side: int
) -> tuple[_Cells, tuple[np.ndarray, ...]]:
    places = (2.0 * np.arange(n_side) + 1.0) / n_side - 1.0
    axes = tuple(middle + reach * places for middle, reach in zip(centre, half, strict=True))
    points = np.stack([side.ravel() for side in np.meshgrid(*axes, indexing="ij")], 1)
    sides = np.broadcast_to(half / n_side, points.shape).copy()
    return _evaluated(functions, points, sides, np.arange(len(points))), axes


def _split(functions: Sequence[_Slope], cells: _Cells, chosen: np.ndarray) -> _Cells:
    """Each chosen cell in 2^dim."""
    dim = cells.centre.shape[1]
    sides = 0.5 * cells.half[chosen]
    signs = np.stack([side.ravel() for side in np.meshgrid(*[[-1.0, 1.0]] * dim, indexing="ij")], 1)
    points = (cells.centre[chosen][:, None] + signs * sides[:, None]).reshape(-1, dim)
    new = _evaluated(functions, points, np.repeat(sides, 2**dim, 0), np.repeat(cells.base[chosen], 2**dim))
    return _Cells(
        np.concatenate([cells.centre[~chosen], new.centre]),
        np.concatenate([cells.half[~chosen], new.half]),
        np.concatenate([cells.base[~chosen], new.base]),
        np.concatenate([cells.value[:, ~chosen], new.value], 1),
        np.concatenate([cells.change[:, ~chosen], new.change], 1),
    )


def _evaluated(functions: Sequence[_Slope], points: np.ndarray, sides: np.ndarray, base: np.ndarray) -> _Cells:
    value = np.empty((len(functions), len(points)))
    change = np.empty_like(value)
    for begin in range(0, len(points), _BATCH):
        rows = slice(begin, begin + _BATCH)
        batch = torch.from_numpy(points[rows])
        for which, function in enumerate(functions):
            values, slope = function(batch)
            steepness = np.nan_to_num(np.abs(slope.numpy()), posinf=0.0)
            numbers = values.numpy()
            value[which, rows] = np.where(np.isnan(numbers), np.inf, numbers)
            change[which, rows] = (steepness * sides[rows]).sum(1)
    return _Cells(points, sides, base, value, change)


def _precise(energy: Energy) -> _Slope:
    double = copy.deepcopy(energy).double()

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = double.value_and_gradient(x.reshape(-1, *energy.shape))
        return value, gradient.flatten(1)

    return slope


def _negative(truth: LogDensity, shape: tuple[int, ...]) -> _Slope:
    remedy = "write ln q with torch operations, one number a row"
    probe = torch.zeros(2, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        value = truth(probe)
    if not isinstance(value, Tensor) or value.shape != (2,) or not value.requires_grad:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError("truth", "a differentiable tensor (batch,)", got, remedy)

    class Negative(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -truth(x.reshape(-1, *shape)).double()

    module = Negative()
    return lambda x: by_autograd(module, x)


def _dimensions(energy: Energy) -> int:
    dim = int(torch.Size(energy.shape).numel())
    if dim not in (1, 2):
        raise UserError("energy", "one or two coordinates", str(energy.shape), "only there is a density exact")
    return dim


def _box(centre: np.ndarray, half: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    middle = np.broadcast_to(np.asarray(centre, np.float64), (dim,)).copy()
    reach = np.broadcast_to(np.asarray(half, np.float64), (dim,)).copy()
    if not (np.isfinite(middle).all() and np.isfinite(reach).all() and (reach > 0).all()):
        raise UserError("centre, half", "finite numbers, half above 0", f"{centre}, {half}", "use box_of(points)")
    return middle, reach
