"""Where searches for minima begin (random points, data, a generator) and how they end (descent, cold chains)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.learning.energy import GaussianEnergy
from theodolite.learning.model import EnergyModel
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.search.descent import descend
from theodolite.search.minimise import minimise
from theodolite.space import Box, DiscreteSpace, Space

# n, generator -> points (n, *shape), and the latent vectors (n, axis) they were made from, or None
Propose = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]


def from_space_and_data(field: Field, data: Tensor | None) -> Propose:
    """Draws from the space; with ``data`` ``(m, *shape)`` every other proposal is one of these instead."""

    def propose(n: int, generator: torch.Generator) -> tuple[Tensor, None]:
        points = field.space.draw(n, generator)
        if data is not None:
            chosen = data[torch.randint(0, len(data), (n,), generator=generator)].to(points)
            from_data = torch.rand(n, generator=generator) < 0.5
            points = torch.where(from_data.reshape(-1, *[1] * (points.ndim - 1)), chosen, points)
        return points, None

    return propose


def from_generator(field: Field, to_point: Callable[[Tensor], Tensor], dimensions: int) -> Propose:
    """Draws of a generator: ``to_point`` maps latent vectors ``(n, dimensions)``, normal draws, to points.

    Points are clipped to a Box, and rounded and clipped to the levels of a discrete space (Hill, Nijkamp and Zhu
    2019, section 5.3). Raises UserError where their shape is not that of the space.
    """

    def propose(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        latent = torch.randn((n, dimensions), generator=generator)
        with torch.no_grad():
            points = to_point(latent)
        space = field.space
        if tuple(points.shape[1:]) != space.shape:
            got = str(tuple(points.shape))
            raise UserError("propose", f"points of shape (n, {', '.join(map(str, space.shape))})", got, "reshape them")
        points = _inside(points, space)
        if isinstance(space, DiscreteSpace):
            points = space.from_levels(space.to_levels(points.round()).clamp(0, space.levels - 1))
        return points, latent

    return propose


def _inside(points: Tensor, space: Space) -> Tensor:
    return points.clamp(space.low, space.high) if isinstance(space, Box) else points


def from_reference(model: EnergyModel, data: Tensor | None = None) -> Propose:
    """Draws of the Gaussian that a learned energy is a tilt of; with ``data`` ``(m, *shape)`` every other proposal is
    one of these instead, with the noise of the data that it was learned from.

    Without a Gaussian in the energy: draws of its space. Noise far outside the density, as a wide box gives it, ends
    in fewer minima (Hill, Nijkamp and Zhu 2019, eq. 5.3, for the reference density).
    """
    space = model.space
    reference = next((part for part in model.energy.modules() if isinstance(part, GaussianEnergy)), None)

    def noise(n: int, generator: torch.Generator) -> Tensor:
        if reference is None:
            return space.draw(n, generator)
        drawn = torch.randn((n, *space.shape), generator=generator) / reference.precision.sqrt().cpu()
        point = reference.mean.cpu() + drawn
        # On grey levels the Gaussian is one of grey values, which are the frame's images.
        return model.points(point) if isinstance(space, DiscreteSpace) else _inside(point, space)

    def propose(n: int, generator: torch.Generator) -> tuple[Tensor, None]:
        points = noise(n, generator)
        if data is not None:
            chosen = data[torch.randint(0, len(data), (n,), generator=generator)].to(points)
            noisy = _inside(chosen + model.data_noise * torch.randn(chosen.shape, generator=generator), space)
            if isinstance(space, DiscreteSpace):
                noisy = noisy.round().clamp(0, space.levels - 1).to(points)
            from_data = torch.rand(n, generator=generator) < 0.5
            points = torch.where(from_data.reshape(-1, *[1] * (points.ndim - 1)), noisy, points)
        return points, None

    return propose


@final
@dataclass(frozen=True)
class Descent:
    """The local minimum below each point: single-site descent on discrete spaces, batched L-BFGS on real ones."""

    field: Field
    neighbourhood: str = "any"
    gradient_tolerance: float = 1e-6

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.field.space, DiscreteSpace):
            found = descend(self.field, points, neighbourhood=self.neighbourhood)  # type: ignore[arg-type]
            return found.point, found.energy
        end = minimise(self.field, points, gradient_tolerance=self.gradient_tolerance)
        # A row that starts where the energy is not finite has no minimum to give.
        return end.point[end.energy.isfinite()], end.energy[end.energy.isfinite()]


@final
@dataclass(frozen=True)
class ColdChains:
    """Where an unmagnetised chain at the temperature stands after ``n_iterations`` from each point.

    For energies whose minima are not typical of what they were learned from: there the states of a metastable chain,
    not the minima below them, belong to the basins (Hill 2020, section 5.2.3).
    """

    diffusion: AttractionDiffusion
    temperature: float
    generator: torch.Generator
    n_iterations: int = 200

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        chains = self.diffusion.run_chains(points, points, self.temperature, 0.0, self.n_iterations, self.generator)
        return chains.point, chains.energy[:, -1]
