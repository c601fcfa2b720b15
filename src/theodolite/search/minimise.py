"""Many local minima at once: batched L-BFGS inside a box, every row with its own line search and history.

Sources: the two-loop recursion of Nocedal, Math. Comp. 35, 773 (1980); the projected line search of Bertsekas, SIAM
J. Control Optim. 20, 221 (1982); the approximate decrease near rounding of Hager and Zhang, SIAM J. Optim. 16, 170
(2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import FieldError, UserError
from theodolite.field import Field
from theodolite.space import Box, DiscreteSpace

__all__ = ["Descents", "Minimised", "bounds", "distinct", "evaluate", "minimise", "projected", "trace_descents"]

_SUFFICIENT = 1e-4  # share of the predicted decrease a step must bring (Armijo)
_ROUNDING = 1e-13  # relative; energies closer than this are equal, and the gradient decides
_SMALLEST_STEP = 1e-14
_RETRIES = 2  # steepest descents after a failed quasi-Newton step before a row gives up


@final
@dataclass(frozen=True)
class Minimised:
    """Where each row ended: ``point`` ``(batch, *shape)`` float64, ``energy`` ``(batch,)``.

    ``gradient_norm`` ``(batch,)``: the Euclidean norm of the gradient without what pushes out of the box.
    ``converged`` ``(batch,)`` bool: it is below the tolerance. ``iterations`` ``(batch,)``: steps taken. A row that
    starts where the energy is not finite has energy and gradient_norm inf, converged False and iterations 0.
    """

    point: Tensor
    energy: Tensor
    gradient_norm: Tensor
    converged: Tensor
    iterations: Tensor


@final
@dataclass(frozen=True)
class Descents:
    """What `minimise` found, and the way each row took: ``path[i]`` ``(steps + 1, *shape)``, falling in energy."""

    end: Minimised
    path: list[Tensor]


def minimise(
    field: Field,
    points: Tensor,
    *,
    max_iterations: int = 500,
    gradient_tolerance: float = 1e-6,
    history: int = 10,
    largest_step: float = math.inf,
) -> Minimised:
    """Local minima of the field downhill from ``points`` ``(batch, *shape)``, in float64 on a Box or a Latent.

    Bounds are those of a Box; a Latent has none, and the energy is the field's alone (add |z|^2/2 to the field where
    it is wanted). ``largest_step``: no step is longer (Euclidean, input units), so that a row follows its valley. A
    step to where the energy or its gradient is not finite counts as too long and is halved. Rows never influence each
    other, and those that are done leave the batch.

    Raises:
        UserError: a discrete space, points outside the space, a setting out of range.
        FieldError: the field does not return one number a point.
    """
    return _descend(field, points, max_iterations, gradient_tolerance, history, largest_step, None)


def trace_descents(
    field: Field,
    points: Tensor,
    *,
    max_iterations: int = 500,
    gradient_tolerance: float = 1e-6,
    history: int = 10,
    largest_step: float = math.inf,
) -> Descents:
    """`minimise` with every point on the way: the lower halves of paths over a pass.

    The energy falls from each point to the next; between them it is only as smooth as ``largest_step`` is short.
    """
    trace: list[list[Tensor]] = [[] for _ in range(len(points))]
    end = _descend(field, points, max_iterations, gradient_tolerance, history, largest_step, trace)
    return Descents(end, [torch.stack(steps) for steps in trace])


def distinct(
    points: Tensor, energies: Tensor, distance: float, energy_tolerance: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Which of ``points`` ``(n, *shape)`` are the same: representatives ``(k,)`` and each row's one ``(n,)``.

    Rows within ``distance`` (Euclidean) and ``energy_tolerance`` of a representative are counted as it. Representatives
    are indices of rows, rising in energy, and the lowest row of each group; labels count the representatives from 0.
    """
    flat = points.double().flatten(1)
    order = torch.argsort(energies, stable=True)
    label = torch.full((len(flat),), -1)
    kept: list[int] = []
    for row in order.tolist():
        if label[row] >= 0:
            continue
        near = (flat - flat[row]).norm(dim=1) <= distance
        near &= (energies - energies[row]).abs() <= energy_tolerance
        near[row] = True  # an infinite energy differs from itself
        label[near & (label < 0)] = len(kept)
        kept.append(row)
    return torch.tensor(kept, dtype=torch.long), label


def bounds(field: Field) -> tuple[float, float]:
    """Least and greatest value of a coordinate of the field's real space. Raises UserError for a discrete space."""
    if isinstance(field.space, DiscreteSpace):
        raise UserError("field", "real inputs", field.space.describe(), "use search.descent for discrete spaces")
    if isinstance(field.space, Box):
        return field.space.low, field.space.high
    return -math.inf, math.inf


def projected(gradient: Tensor, point: Tensor, low: float, high: float) -> Tensor:
    """``gradient`` without the coordinates in which going downhill would leave [low, high]."""
    blocked = ((point <= low) & (gradient > 0)) | ((point >= high) & (gradient < 0))
    return gradient.masked_fill(blocked, 0.0)


def evaluate(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``(batch,)`` and gradients ``(batch, *shape)`` float64; energy inf, gradient 0 where not finite."""
    energy, gradient = _finite_parts(field, points)
    gradient = gradient.double()
    good = energy.isfinite() & gradient.flatten(1).isfinite().all(1)
    if bool(good.all()):
        return energy, gradient
    spread = good.reshape(-1, *[1] * (points.ndim - 1))
    return energy.masked_fill(~good, math.inf), gradient.masked_fill(~spread, 0.0)


def _finite_parts(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(points.isfinite().all()):
        good = points.flatten(1).isfinite().all(1)
        energy = torch.full((len(points),), math.inf, dtype=torch.float64)
        gradient = torch.zeros_like(points)
        if bool(good.any()):
            energy[good], gradient[good] = _finite_parts(field, points[good])
        return energy, gradient
    try:
        return field.value_and_gradient(points)
    except FieldError as error:
        if error.expected != "finite values":
            raise
    if len(points) == 1:
        return torch.full((1,), math.inf, dtype=torch.float64), torch.zeros_like(points)
    # The field refuses a whole batch for one row: halve it until the row stands alone.
    half = len(points) // 2
    parts = [_finite_parts(field, part) for part in (points[:half], points[half:])]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1].to(points) for part in parts])


def _checked(field: Field, points: Tensor, numbers: dict[str, float]) -> Tensor:
    for argument, number in numbers.items():
        if not number > 0:
            raise UserError(argument, "a positive number", repr(number), "leave it out for the default")
    bounds(field)
    inside = field.space.contains(points)
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        raise UserError("points", field.space.describe(), f"row {row} outside", "draw starts from the space")
    return points.detach().double()


def _descend(
    field: Field,
    points: Tensor,
    max_iterations: int,
    gradient_tolerance: float,
    history: int,
    largest_step: float,
    trace: list[list[Tensor]] | None,
) -> Minimised:
    numbers = {
        "max_iterations": max_iterations,
        "gradient_tolerance": gradient_tolerance,
        "history": history,
        "largest_step": largest_step,
    }
    start = _checked(field, points, numbers)
    shape = start.shape[1:]
    low, high = bounds(field)
    rows = _Rows(start.flatten(1).clone(), history, low, high, largest_step)
    n = len(start)
    end = Minimised(
        start.clone(),
        torch.full((n,), math.inf, dtype=torch.float64),
        torch.full((n,), math.inf, dtype=torch.float64),
        torch.zeros(n, dtype=torch.bool),
        torch.zeros(n, dtype=torch.long),
    )
    if n == 0:
        return end
    energy, gradient = evaluate(field, start)
    rows.begin(energy, gradient.flatten(1))
    if trace is not None:
        for row in range(n):
            trace[row].append(start[row].clone())
    while True:
        norm = rows.gradient_norm
        done = (norm <= gradient_tolerance) | rows.stuck | (rows.iterations >= max_iterations)
        if bool(done.any()):
            finished = rows.row[done]
            end.point[finished] = rows.point[done].reshape(-1, *shape)
            end.energy[finished] = rows.energy[done]
            end.gradient_norm[finished] = torch.where(rows.energy.isfinite(), norm, math.inf)[done]
            end.converged[finished] = (norm <= gradient_tolerance)[done] & rows.energy[done].isfinite()
            end.iterations[finished] = rows.iterations[done]
            rows.keep(~done)
        if len(rows.row) == 0:
            return end
        trial = rows.trial()
        energy, gradient = evaluate(field, trial.reshape(-1, *shape))
        accepted = rows.judge(trial, energy, gradient.flatten(1))
        if trace is not None:
            for row, point in zip(rows.row[accepted].tolist(), trial[accepted], strict=True):
                trace[row].append(point.reshape(shape))


class _Rows:
    """Rows still on their way, one line search each: every attribute has the row as axis 0."""

    def __init__(self, point: Tensor, history: int, low: float, high: float, largest_step: float) -> None:
        n, dim = point.shape
        self.low, self.high, self.largest_step = low, high, largest_step
        self.row = torch.arange(n)
        self.point = point
        self.moves = point.new_zeros(n, history, dim)  # newest last; an empty slot has inverse 0
        self.changes = point.new_zeros(n, history, dim)
        self.inverse = point.new_zeros(n, history)
        self.iterations = torch.zeros(n, dtype=torch.long)
        self.retries = torch.zeros(n, dtype=torch.long)
        self.stuck = torch.zeros(n, dtype=torch.bool)
        self.step = point.new_ones(n)

    def begin(self, energy: Tensor, gradient: Tensor) -> None:
        self.energy, self.gradient = energy, gradient
        self.stuck = ~energy.isfinite()
        self.free_gradient = projected(gradient, self.point, self.low, self.high)
        self.gradient_norm = self.free_gradient.norm(dim=1)
        self.direction = torch.zeros_like(gradient)
        self._aim(torch.arange(len(self.row)))

    def keep(self, which: Tensor) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value[which])

    def trial(self) -> Tensor:
        return (self.point + self.step[:, None] * self.direction).clamp(self.low, self.high)

    def judge(self, trial: Tensor, energy: Tensor, gradient: Tensor) -> Tensor:
        """Accept or shorten each row's step; returns the rows that moved."""
        move = trial - self.point
        predicted = (self.free_gradient * move).sum(1)
        change = energy - self.energy
        free = projected(gradient, trial, self.low, self.high)
        norm = free.norm(dim=1)
        level = change.abs() <= _ROUNDING * self.energy.abs().clamp(min=1.0)
        accepted = energy.isfinite() & (
            ((change <= _SUFFICIENT * predicted) & (predicted < 0) & ~level) | (level & (norm < self.gradient_norm))
        )
        moved = accepted.nonzero()[:, 0]
        if len(moved):
            self._remember(moved, move[moved], (gradient - self.gradient)[moved])
            self.point[moved] = trial[moved]
            self.energy[moved] = energy[moved]
            self.gradient[moved] = gradient[moved]
            self.free_gradient[moved] = free[moved]
            self.gradient_norm[moved] = norm[moved]
            self.iterations[moved] += 1
            self.retries[moved] = 0
            self._aim(moved)
        failed = (~accepted).nonzero()[:, 0]
        if len(failed):
            # The parabola through both energies and the slope, kept between a tenth and a half.
            parabola = -0.5 * predicted / (change - predicted)
            parabola = torch.where(parabola.isfinite(), parabola, 0.1).clamp(0.1, 0.5)
            self.step[failed] *= parabola[failed]
            length = self.step * self.direction.abs().amax(1)
            short = ~accepted & (length <= _SMALLEST_STEP * self.point.abs().amax(1).clamp(min=1.0))
            lost = short.nonzero()[:, 0]
            if len(lost):
                self.retries[lost] += 1
                self.stuck[lost] = self.retries[lost] > _RETRIES
                self.inverse[lost] = 0.0
                self._aim(lost)
        return accepted

    def _remember(self, rows: Tensor, move: Tensor, change: Tensor) -> None:
        curvature = (move * change).sum(1)
        # A pair without positive curvature would turn the model of the valley upside down.
        use = curvature > 1e-10 * move.norm(dim=1) * change.norm(dim=1)
        rows, move, change, curvature = rows[use], move[use], change[use], curvature[use]
        for kept, new in (
            (self.moves, move[:, None]),
            (self.changes, change[:, None]),
            (self.inverse, 1.0 / curvature[:, None]),
        ):
            kept[rows] = torch.cat((kept[rows, 1:], new), 1)

    def _aim(self, rows: Tensor) -> None:
        """Direction and first step of a new line search (Nocedal's two loops; empty slots add nothing)."""
        # Slots fill from the end: those before the longest history of these rows are empty in all of them.
        n_filled = max(1, int((self.inverse[rows] > 0).any(0).sum()))
        moves, changes, inverse = (kept[rows, -n_filled:] for kept in (self.moves, self.changes, self.inverse))
        free = self.free_gradient[rows]
        blocked = free != self.gradient[rows]
        direction = free.clone()
        weight = torch.zeros_like(inverse)
        for slot in range(inverse.shape[1] - 1, -1, -1):
            weight[:, slot] = inverse[:, slot] * (moves[:, slot] * direction).sum(1)
            direction -= weight[:, slot, None] * changes[:, slot]
        known = inverse[:, -1] > 0
        scale = 1.0 / (inverse[:, -1] * changes[:, -1].square().sum(1))
        direction *= torch.where(known, scale, 1.0)[:, None]
        for slot in range(inverse.shape[1]):
            correction = weight[:, slot] - inverse[:, slot] * (changes[:, slot] * direction).sum(1)
            direction += correction[:, None] * moves[:, slot]
        direction = -direction.masked_fill(blocked, 0.0)
        norm = free.norm(dim=1)
        downhill = (direction * free).sum(1) < -1e-10 * direction.norm(dim=1) * norm
        plain = ~(downhill & known)
        direction = torch.where(plain[:, None], -free, direction)
        # Without a model the first step is a short one: a unit, or a tenth of the gradient's own length if less.
        first = torch.where(norm > 0, torch.clamp(1.0 / norm, max=1.0), 1.0) * 0.1
        step = torch.where(plain, first, 1.0)
        if math.isfinite(self.largest_step):
            length = direction.norm(dim=1)
            step = torch.minimum(step, self.largest_step / length.clamp(min=np.finfo(np.float64).tiny))
        self.direction[rows] = direction
        self.step[rows] = step
        self.inverse[rows[plain]] = 0.0
