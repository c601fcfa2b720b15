"""The short-run generator M(z): a fixed number of steps of descent from noise, used as a generator network is.

It makes realistic images of energies that are far from converged, and says nothing of their density. Source: Hill 2020
(PhD thesis, UCLA), section 3.3 (M, interpolation, reconstruction) and eq. 3.6, Figure 3.8 (other noise scales).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy
from theodolite.learning.langevin import LangevinSettings, langevin, start
from theodolite.learning.schedule import Schedule


@final
@dataclass(frozen=True)
class ShortRun:
    """M(z) = x_L with x_0 = z and x' = x - step_size^2 / 2 dU/dx, ``steps`` L times; ``step_size`` in input units.

    Raises UserError for no steps or a step size that is not above 0.
    """

    energy: Energy
    step_size: float
    steps: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise UserError("steps", "a whole number, 1 or more", repr(self.steps), "100, as in training")
        LangevinSettings(self.step_size, metropolis=False)

    def generate(self, z: Tensor) -> Tensor:
        """M(z) ``(batch, *shape)`` of ``z (batch, *shape)``, without a graph."""
        return self.path(z)[-1]

    def sample(self, z: Tensor, generator: torch.Generator, noise: float = 1.0) -> Tensor:
        """The same with ``noise`` times Langevin's own, as in training: ``(batch, *shape)``."""
        settings = LangevinSettings(self.step_size, metropolis=False, noise=noise)
        return langevin(self.energy, start(self.energy, z), settings, self.steps, generator)[0].point

    def path(self, z: Tensor) -> list[Tensor]:
        """x_0 ... x_L, ``steps`` + 1 tensors ``(batch, *shape)``."""
        points = [z.detach()]
        for _ in range(self.steps):
            slope = self.energy.value_and_gradient(points[-1])[1]
            points.append(points[-1] - self._drift * slope)
        return points

    def pulled_back(self, path: Sequence[Tensor], cotangent: Tensor) -> Tensor:
        """J(z)^T ``cotangent`` ``(batch, *shape)`` of M at the start of ``path``.

        A step's Jacobian is I - step_size^2 / 2 times the energy's Hessian, which is symmetric: only the points of the
        path are kept, not the graphs of its steps.
        """
        for point in reversed(path[:-1]):
            cotangent = cotangent - self._drift * hessian_product(self.energy, point, cotangent)
        return cotangent

    @property
    def _drift(self) -> float:
        return self.step_size**2 / 2


def hessian_product(energy: Energy, point: Tensor, direction: Tensor) -> Tensor:
    """d2U/dx2 ``direction`` ``(batch, *shape)`` at ``point (batch, *shape)``, each row by itself."""
    leaf = point.detach().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(point)
        (product,) = torch.autograd.grad((slope * direction).sum(), leaf, materialize_grads=True)
    return product


def interpolation(first: Tensor, second: Tensor, n: int) -> Tensor:
    """``n`` latent points ``(n, *shape)`` on the straight line from ``first (*shape)`` to ``second``, ends included.

    Raises UserError for fewer than two, or ends of different shapes.
    """
    if n < 2 or first.shape != second.shape:
        got = f"{n} between {tuple(first.shape)} and {tuple(second.shape)}"
        raise UserError("first, second, n", "two ends of one shape, and at least 2 points", got, "give both ends")
    share = torch.linspace(0, 1, n, dtype=first.dtype).reshape(-1, *[1] * first.ndim)
    return torch.lerp(first.expand(n, *first.shape), second.expand(n, *second.shape), share)


@final
@dataclass(frozen=True)
class ReconstructionSettings:
    """How z* = argmin |M(z) - x|^2 is searched: ``updates`` of Adam with rates of ``schedule`` in input units, from
    each of ``restarts`` draws of N(0, ``deviation``^2 I); the best of all points seen is kept."""

    updates: int = 200
    schedule: str = "adam:0.1:0.005"
    restarts: int = 1
    deviation: float = 1.0

    def __post_init__(self) -> None:
        Schedule.parse(self.schedule)
        if self.updates < 1 or self.restarts < 1:
            raise UserError("updates, restarts", "at least 1", f"{self.updates}, {self.restarts}", "leave them out")
        if not (math.isfinite(self.deviation) and self.deviation > 0):
            raise UserError("deviation", "a finite number above 0", repr(self.deviation), "that of M's starts")


class Reconstruction(NamedTuple):
    """``latent`` z* and ``point`` M(z*), both ``(row, *shape)``; ``error (row,)``: mean square of M(z*) - x over
    coordinates, infinite where no finite M(z) was met."""

    latent: Tensor
    point: Tensor
    error: Tensor


def reconstruct(
    short_run: ShortRun, points: Tensor, settings: ReconstructionSettings, generator: torch.Generator
) -> Reconstruction:
    """Latent points whose M comes nearest to ``points (row, *shape)``, which need not have been learned from.

    Raises UserError for points that are not of the energy's shape or not finite.
    """
    if tuple(points.shape[1:]) != short_run.energy.shape or not bool(points.isfinite().all()):
        expected = f"finite points of the energy's shape {short_run.energy.shape}"
        raise UserError("points", expected, f"shape {tuple(points.shape)}", "give points, not images of another frame")
    schedule = Schedule.parse(settings.schedule)
    best = Reconstruction(
        torch.zeros_like(points), torch.full_like(points, math.nan), points.new_full((len(points),), math.inf)
    )
    for _ in range(settings.restarts):
        z = settings.deviation * torch.randn(points.shape, generator=generator, dtype=points.dtype)
        optimiser = torch.optim.Adam([z])
        for update in range(settings.updates + 1):
            path = short_run.path(z)
            misfit = path[-1] - points
            best = _better(best, z, path[-1], misfit.square().flatten(1).mean(1))
            if update == settings.updates:
                break
            z.grad = short_run.pulled_back(path, misfit)
            optimiser.param_groups[0]["lr"] = schedule.at(update / settings.updates)[1]
            optimiser.step()
    return best


def _better(best: Reconstruction, latent: Tensor, point: Tensor, error: Tensor) -> Reconstruction:
    won = error < best.error  # never where it is NaN
    rows = won.reshape(-1, *[1] * (point.ndim - 1))
    return Reconstruction(
        torch.where(rows, latent, best.latent),
        torch.where(rows, point, best.point),
        torch.where(won, error, best.error),
    )


def temperature_sweep(
    energy: Energy,
    starts: Tensor,
    noise_scales: Sequence[float],
    step_size: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Where ``steps`` of eq. 3.6 lead from ``starts (n, *shape)`` at each gamma of ``noise_scales``.

    ``(noise_scale, n, *shape)``; not Metropolis-corrected, since gamma 0 cannot be. The same noise at every gamma.
    Raises UserError for noise scales below 0.
    """
    state = generator.get_state()
    found = []
    for scale in noise_scales:
        generator.set_state(state)
        settings = LangevinSettings(step_size, metropolis=False, noise=scale)
        found.append(langevin(energy, start(energy, starts), settings, steps, generator)[0].point)
    return torch.stack(found)
