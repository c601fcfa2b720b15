"""Many local minima of a field at once, by the batched L-BFGS of `box_lbfgs` inside the field's space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import FieldError, UserError
from theodolite.field import Field
from theodolite.search.box_lbfgs import BoxSettings, box_minimise, projected
from theodolite.space import Box, DiscreteSpace

__all__ = ["Descents", "Minimised", "bounds", "distinct", "evaluate", "minimise", "projected", "trace_descents"]


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


def _descend(
    field: Field,
    points: Tensor,
    max_iterations: int,
    gradient_tolerance: float,
    history: int,
    largest_step: float,
    trace: list[list[Tensor]] | None,
) -> Minimised:
    settings = BoxSettings(max_iterations, gradient_tolerance, history, largest_step)
    low, high = bounds(field)
    inside = field.space.contains(points)
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        raise UserError("points", field.space.describe(), f"row {row} outside", "draw starts from the space")
    start = points.detach().double()
    shape = start.shape[1:]

    def function(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        energy, gradient = evaluate(field, x.reshape(-1, *shape))
        return energy, gradient.flatten(1)

    def visit(x: Tensor, rows: Tensor) -> None:
        for row, point in zip(rows.tolist(), x, strict=True):
            trace[row].append(point.reshape(shape).clone())  # type: ignore[index]

    found = box_minimise(function, start.flatten(1), low, high, settings, visit=None if trace is None else visit)
    point = found.point.reshape(start.shape)
    return Minimised(point, found.value, found.gradient_norm, found.converged, found.iterations)
