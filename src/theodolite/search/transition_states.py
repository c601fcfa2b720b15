"""Transition states of a field on a real space: points without gradient and with one negative curvature.

Sources: eigenvector following, Cerjan and Miller, J. Chem. Phys. 75, 2800 (1981), and Wales, J. Chem. Phys. 101, 3750
(1994): uphill along the softest mode, downhill along all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.minimise import bounds, evaluate, projected

__all__ = ["MOST_COORDINATES", "TransitionStates", "curvatures", "transition_states"]

MOST_COORDINATES = 128  # a Hessian takes two gradients a coordinate
_DIFFERENCE = 1e-4  # central differences: error 1e-8 of the third derivative, rounding 1e-12 of the gradient
_FLAT = 1e-12


@final
@dataclass(frozen=True)
class TransitionStates:
    """Where each row ended: ``point`` ``(batch, *shape)``, ``energy``, ``gradient_norm`` (projected), the lowest
    ``curvature`` and its unit ``direction`` ``(batch, *shape)``, the number of negative curvatures ``order``;
    ``converged`` ``(batch,)`` bool: no gradient, and order 1."""

    point: Tensor
    energy: Tensor
    gradient_norm: Tensor
    curvature: Tensor
    direction: Tensor
    order: Tensor
    converged: Tensor


def curvatures(field: Field, points: Tensor, difference: float = _DIFFERENCE) -> Tensor:
    """Hessians ``(batch, d, d)`` by central differences of the gradient, ``d`` the number of coordinates.

    ``difference`` is in input units; inside a Box the differences are one-sided at the walls. Not finite energies
    give NaN rows. Raises UserError for a discrete space, and for more than 128 coordinates.
    """
    return _models(field, points.double().flatten(1), points.shape[1:], difference)[2]


def _models(
    field: Field, flat: Tensor, shape: torch.Size, difference: float = _DIFFERENCE
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy ``(batch,)``, gradient ``(batch, d)`` and Hessian ``(batch, d, d)`` , in one call of the field."""
    low, high = bounds(field)
    n, dim = flat.shape
    if dim > MOST_COORDINATES:
        raise UserError("field", f"at most {MOST_COORDINATES} coordinates", str(dim), "use the path's own top")
    shift = difference * torch.eye(dim, dtype=torch.float64)
    ahead = (flat[:, None] + shift).clamp(low, high)
    behind = (flat[:, None] - shift).clamp(low, high)
    points = torch.cat((flat, ahead.reshape(-1, dim), behind.reshape(-1, dim)))
    energy, gradient = evaluate(field, points.reshape(-1, *shape))
    gradient = torch.where(energy.isfinite()[:, None], gradient.flatten(1), math.nan)
    both = gradient[n:].reshape(2, n, dim, dim)
    width = (ahead - behind).diagonal(dim1=1, dim2=2)
    hessian = (both[0] - both[1]) / width[:, :, None]
    return energy[:n], gradient[:n].nan_to_num(), 0.5 * (hessian + hessian.transpose(1, 2))


def transition_states(
    field: Field,
    points: Tensor,
    *,
    max_iterations: int = 50,
    gradient_tolerance: float = 1e-6,
    largest_step: float = 0.1,
) -> TransitionStates:
    """Saddles of index 1 near ``points`` ``(batch, *shape)``, in float64, rows on their own.

    Each step goes uphill by Newton's formula along the lowest mode and downhill along the others, no longer than
    ``largest_step`` (Euclidean, input units), and shorter where the energy model failed. Coordinates pressed against
    a wall of a Box stay there. A row that leaves the finite region, or is not done after ``max_iterations``, is
    reported as not converged.

    Raises UserError: a discrete space, more than 128 coordinates, or settings out of range.
    """
    if not (max_iterations > 0 and gradient_tolerance > 0 and largest_step > 0):
        raise UserError("settings", "positive numbers", "0 or less", "leave them out for the defaults")
    low, high = bounds(field)
    shape = points.shape[1:]
    n = len(points)
    end = TransitionStates(
        points.detach().double().clone(),
        torch.full((n,), math.inf, dtype=torch.float64),
        torch.full((n,), math.inf, dtype=torch.float64),
        torch.full((n,), math.nan, dtype=torch.float64),
        torch.zeros((n, *shape), dtype=torch.float64),
        torch.full((n,), -1, dtype=torch.long),
        torch.zeros(n, dtype=torch.bool),
    )
    if n == 0:
        return end
    row = torch.arange(n)
    x = end.point.flatten(1).clone()
    reach = torch.full((n,), float(largest_step), dtype=torch.float64)
    energy, gradient, hessian = _models(field, x, shape)
    for iteration in range(max_iterations + 1):
        free = projected(gradient, x, low, high)
        norm = free.norm(dim=1)
        good = energy.isfinite() & hessian.flatten(1).isfinite().all(1)
        sound = torch.where(good[:, None, None], hessian, torch.eye(x.shape[1], dtype=torch.float64))
        value, mode = torch.linalg.eigh(_on_free_coordinates(sound, free != gradient))
        done = ~good | (norm <= gradient_tolerance) | (iteration == max_iterations)
        if bool(done.any()):
            where = row[done]
            end.point[where] = x[done].reshape(-1, *shape)
            end.energy[where] = energy[done]
            end.gradient_norm[where] = torch.where(good, norm, math.inf)[done]
            end.curvature[where] = value[done, 0]
            end.direction[where] = mode[done, :, 0].reshape(-1, *shape)
            end.order[where] = torch.where(good, (value < 0).sum(1), -1)[done]
            end.converged[where] = (good & (norm <= gradient_tolerance) & ((value < 0).sum(1) == 1))[done]
            kept = ~done
            row, x, reach, energy = row[kept], x[kept], reach[kept], energy[kept]
            gradient, free, hessian, value, mode = (
                gradient[kept], free[kept], hessian[kept], value[kept], mode[kept]
            )  # fmt: skip
        if len(row) == 0:
            return end
        slope = (mode.transpose(1, 2) @ free[..., None])[..., 0]
        step = -slope / value.abs().clamp(min=_FLAT)
        step[:, 0] = -step[:, 0]
        length = step.norm(dim=1)
        step *= torch.minimum(torch.ones_like(length), reach / length.clamp(min=1e-300))[:, None]
        trial = (x + (mode @ step[..., None])[..., 0]).clamp(low, high)
        move = trial - x
        predicted = (free * move).sum(1) + 0.5 * (move * (hessian @ move[..., None])[..., 0]).sum(1)
        new_energy, new_gradient, new_hessian = _models(field, trial, shape)
        # The model's own error says how far to trust it; near rounding it says nothing.
        wrong = (new_energy - energy - predicted).abs()
        scale = predicted.abs() + 1e-10 * energy.abs().clamp(min=1.0)
        failed = ~new_energy.isfinite() | (wrong > 2.0 * scale)
        taken = new_energy.isfinite() & (~failed | (reach <= 1e-3 * largest_step))
        reach = torch.where(failed, 0.4 * torch.minimum(reach, length), reach)
        reach = torch.where(~failed & (wrong < 0.3 * scale), (1.5 * reach).clamp(max=largest_step), reach)
        x = torch.where(taken[:, None], trial, x)
        energy = torch.where(taken, new_energy, energy)
        gradient = torch.where(taken[:, None], new_gradient, gradient)
        hessian = torch.where(taken[:, None, None], new_hessian, hessian)
    return end


def _on_free_coordinates(hessian: Tensor, blocked: Tensor) -> Tensor:
    """The Hessian with blocked coordinates ``(batch, d)`` taken out: stiff, and coupled to nothing."""
    if not bool(blocked.any()):
        return hessian
    either = blocked[:, :, None] | blocked[:, None, :]
    stiff = 1.0 + hessian.abs().sum((1, 2))
    return hessian.masked_fill(either, 0.0) + torch.diag_embed(blocked * stiff[:, None])
