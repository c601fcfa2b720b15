"""Nudged elastic bands between minima of a real space, plain and doubly nudged, many bands at once.

Sources: Henkelman and Jonsson, J. Chem. Phys. 113, 9978 (2000) for the band and its tangents; Trygubenko and Wales,
J. Chem. Phys. 120, 2082 (2004) for the second nudge; FIRE, Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.minimise import bounds, evaluate
from theodolite.search.real_paths import path_barrier, path_length

__all__ = ["ElasticBand", "relax_band", "tangents"]

_TINY = 1e-300


@final
@dataclass(frozen=True)
class ElasticBand:
    """How bands relax. ``spring``: energy per squared input unit; None sets it on each band to its own typical
    gradient over its spacing. ``doubly_nudged``: keep the part of the springs across the path that the gradient does
    not oppose (in two dimensions there is none). Every ``check_every`` iterations the barrier is sampled at
    ``samples`` places a segment, and the best band so far is the one returned.

    Raises UserError: a number that is not positive.
    """

    iterations: int = 100
    doubly_nudged: bool = True
    spring: float | None = None
    check_every: int = 20
    samples: int = 4

    def __post_init__(self) -> None:
        for name in ("iterations", "check_every", "samples", "spring"):
            number = getattr(self, name)
            if number is not None and not number > 0:
                raise UserError(name, "a positive number", repr(number), "leave it out for the default")


def relax_band(field: Field, path: Tensor, settings: ElasticBand | None = None) -> Tensor:
    """Bands ``(pair, point, *shape)`` relaxed with fixed ends, in float64: of each pair the one of lowest barrier.

    The result's sampled barrier is never above that of ``path`` itself. Images move at most half the band's spacing
    an iteration, and stay in the box.

    Raises UserError: a discrete space, or fewer than 3 points.
    """
    settings = settings or ElasticBand()
    low, high = bounds(field)
    n, n_points = path.shape[:2]
    if n_points < 3:
        raise UserError("path", "at least 3 points", str(n_points), "linear_path makes one of any number")
    shape = path.shape[2:]
    images = path.detach().double().flatten(2).clone()
    best, best_barrier = images.clone(), path_barrier(field, path, settings.samples)
    if n == 0:
        return best.reshape(path.shape)
    energy, gradient = _evaluate_images(field, images, shape)
    spacing = path_length(images) / (n_points - 1)
    spring = _springs(settings, gradient, spacing)
    mover = _Fire(images, 0.5 * spacing)
    for iteration in range(1, settings.iterations + 1):
        force = _forces(images, energy, gradient, spring, settings.doubly_nudged)
        moved = (images[:, 1:-1] + mover.displacement(force)).clamp(low, high)
        images = torch.cat((images[:, :1], moved, images[:, -1:]), 1)
        energy, gradient = _evaluate_images(field, images, shape)
        if iteration % settings.check_every == 0 or iteration == settings.iterations:
            finite = energy.isfinite().all(1)
            barrier = torch.full_like(best_barrier, torch.inf)
            barrier[finite] = path_barrier(field, images[finite].reshape(-1, n_points, *shape), settings.samples)
            better = barrier < best_barrier
            best[better], best_barrier[better] = images[better], barrier[better]
    return best.reshape(path.shape)


def tangents(images: Tensor, energy: Tensor) -> Tensor:
    """Unit tangents ``(pair, point - 2, dim)`` at the inner images, towards the higher neighbour (upwinding).

    Henkelman and Jonsson 2000, eqs. 8-11: at an extremum both sides are mixed by their energy differences.
    """
    ahead, behind = images[:, 2:] - images[:, 1:-1], images[:, 1:-1] - images[:, :-2]
    rise = energy[:, 2:] - energy[:, 1:-1]
    fall = energy[:, :-2] - energy[:, 1:-1]
    larger = torch.maximum(rise.abs(), fall.abs())
    smaller = torch.minimum(rise.abs(), fall.abs())
    uphill_ahead = energy[:, 2:] > energy[:, :-2]
    weight_ahead = torch.where(uphill_ahead, larger, smaller)
    weight_behind = torch.where(uphill_ahead, smaller, larger)
    climbing = (rise > 0) & (fall < 0)
    falling = (rise < 0) & (fall > 0)
    weight_ahead = torch.where(climbing, 1.0, torch.where(falling, 0.0, weight_ahead))
    weight_behind = torch.where(climbing, 0.0, torch.where(falling, 1.0, weight_behind))
    # Two equal energies leave no weight at all; infinite ones no number.
    flat = ~((weight_ahead + weight_behind > 0) & (weight_ahead + weight_behind).isfinite())
    weight_ahead = torch.where(flat, 1.0, weight_ahead)
    weight_behind = torch.where(flat, 1.0, weight_behind)
    tangent = weight_ahead[..., None] * ahead + weight_behind[..., None] * behind
    return tangent / tangent.norm(dim=2, keepdim=True).clamp(min=_TINY)


def _evaluate_images(field: Field, images: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    energy, gradient = evaluate(field, images.reshape(-1, *shape))
    return energy.reshape(images.shape[:2]), gradient.reshape(images.shape)


def _springs(settings: ElasticBand, gradient: Tensor, spacing: Tensor) -> Tensor:
    if settings.spring is not None:
        return torch.full_like(spacing, settings.spring)
    return gradient[:, 1:-1].norm(dim=2).median(1).values / spacing.clamp(min=_TINY)


def _forces(images: Tensor, energy: Tensor, gradient: Tensor, spring: Tensor, doubly_nudged: bool) -> Tensor:
    """Forces ``(pair, point - 2, dim)`` on the inner images.

    Trygubenko and Wales 2004, eqs. 5-13: the gradient across the path, the springs along it, and of the springs across
    it the part orthogonal to that gradient.
    """
    tangent = tangents(images, energy)
    ahead, behind = images[:, 2:] - images[:, 1:-1], images[:, 1:-1] - images[:, :-2]
    along = (ahead.norm(dim=2) - behind.norm(dim=2))[..., None] * tangent * spring[:, None, None]
    inner = gradient[:, 1:-1]
    across = inner - (inner * tangent).sum(2, keepdim=True) * tangent
    force = along - across
    if doubly_nudged:
        pull = spring[:, None, None] * (ahead - behind)
        pull = pull - (pull * tangent).sum(2, keepdim=True) * tangent
        opposing = across / across.norm(dim=2, keepdim=True).clamp(min=_TINY)
        force = force + pull - (pull * opposing).sum(2, keepdim=True) * opposing
    return force


class _Fire:
    """Damped dynamics of each band on its own: velocities turn into the force, and stop when they go uphill."""

    def __init__(self, images: Tensor, largest: Tensor) -> None:
        self.velocity = torch.zeros_like(images[:, 1:-1])
        self.largest = largest[:, None, None]
        self.time_step: Tensor | None = None
        self.mixing = torch.full((len(images), 1, 1), 0.1, dtype=images.dtype)
        self.downhill = torch.zeros(len(images), 1, 1, dtype=torch.long)

    def displacement(self, force: Tensor) -> Tensor:
        if self.time_step is None:
            strongest = force.norm(dim=2).amax(1)[:, None, None]
            self.time_step = (0.2 * self.largest / strongest.clamp(min=_TINY)).sqrt()
            self.longest_time = 20.0 * self.time_step
        power = (force * self.velocity).sum((1, 2), keepdim=True)
        good = power > 0
        speed = self.velocity.norm(dim=(1, 2), keepdim=True)
        size = force.norm(dim=(1, 2), keepdim=True).clamp(min=_TINY)
        turned = (1.0 - self.mixing) * self.velocity + self.mixing * speed * force / size
        self.velocity = torch.where(good, turned, torch.zeros_like(turned))
        self.downhill = torch.where(good, self.downhill + 1, 0)
        faster = self.downhill > 5
        stopped = ~good & (speed > 0)
        grown = torch.minimum(1.1 * self.time_step, self.longest_time)
        self.time_step = torch.where(faster, grown, torch.where(stopped, 0.5 * self.time_step, self.time_step))
        self.mixing = torch.where(faster, 0.99 * self.mixing, torch.where(good, self.mixing, 0.1))
        self.velocity = self.velocity + self.time_step * force
        move = self.time_step * self.velocity
        length = move.norm(dim=2, keepdim=True)
        return move * torch.minimum(torch.ones_like(length), self.largest / length.clamp(min=_TINY))
