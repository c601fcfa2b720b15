"""Densities over a line or a plane that are known exactly: what a learned energy is compared with, point by point.

Source: the Gaussian mixture and the concentric rings of Hill 2020 (PhD thesis, UCLA), Figure 3.1, both with a standard
deviation of .15 along their most constrained direction. The thesis gives neither centres nor radii: ours are the
defaults below.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.systems.mixtures import Mixture

__all__ = ["ConcentricRings", "KnownDensity", "MixtureDensity", "concentric_rings", "gaussian_line", "gaussian_ring"]

WIDTH = 0.15
_TAIL = 8.0  # standard deviations beyond which a Gaussian holds less than a float64 resolves (1e-15)


class KnownDensity(abc.ABC):
    """Abstract: a normalised density over R^dim, dim 1 or 2, of ``mode_mass (mode,)`` separate parts.

    ``reach``: half the side of a box about 0 that holds all but 1e-14 of the density.
    """

    name: str
    dim: int
    reach: float
    mode_mass: np.ndarray

    @abc.abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """ln q ``(batch,)`` float64, in nats, of ``x (batch, dim)``; differentiable."""

    @abc.abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """``(n, dim)`` float32, independent. Raises UserError for fewer than one point."""

    @abc.abstractmethod
    def mode(self, x: Tensor) -> Tensor:
        """``(batch,)`` int64: the part that most likely made each row of ``x (batch, dim)``."""


@final
class MixtureDensity(KnownDensity):
    """The density of a `Mixture` of round Gaussians, one mode a Gaussian. Raises UserError in three dimensions."""

    def __init__(self, mixture: Mixture, name: str) -> None:
        self.dim = mixture.centres.shape[1]
        if self.dim > 2:
            raise UserError("mixture", "one or two dimensions", str(self.dim), "use systems.gaussian_mixture")
        self.name = name
        self.mixture = mixture
        self.mode_mass = mixture.weights / mixture.weights.sum()
        self._log_total = math.log(float(mixture.weights.sum()))
        self.reach = float(np.abs(mixture.centres).max() + _TAIL * mixture.widths.max())

    def log_density(self, x: Tensor) -> Tensor:
        return -self.mixture.energy(x) - self._log_total

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        _check_number(n)
        part = torch.multinomial(torch.from_numpy(self.mode_mass), n, replacement=True, generator=generator)
        centre, width = torch.from_numpy(self.mixture.centres)[part], torch.from_numpy(self.mixture.widths)[part]
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return (centre + width[:, None] * noise).float()

    def mode(self, x: Tensor) -> Tensor:
        offset = x.double()[:, None] - torch.from_numpy(self.mixture.centres)
        width = torch.from_numpy(self.mixture.widths)
        log_part = torch.from_numpy(self.mode_mass).log() - self.dim * width.log()
        return (log_part - 0.5 * offset.square().sum(2) / width**2).argmax(1)


@final
class ConcentricRings(KnownDensity):
    """Rings about 0 in the plane: sum over k of mass_k exp(-(|x| - radius_k)^2 / (2 width^2)) / c_k, one mode a ring.

    c_k = 2 pi (width^2 exp(-a^2) + radius_k width sqrt(pi / 2) (1 + erf(a))), where a = radius_k / (width sqrt 2).
    """

    dim = 2

    def __init__(self, radii: Sequence[float], width: float, masses: Sequence[float] | None = None) -> None:
        self.radii = torch.tensor([float(radius) for radius in radii], dtype=torch.float64)
        self.width = float(width)
        weights = np.ones(len(self.radii)) if masses is None else np.asarray(masses, np.float64)
        _check_positive("radii, width, masses", [*self.radii.tolist(), self.width, *weights.tolist()])
        if len(self.radii) < 1 or weights.shape != (len(self.radii),):
            raise UserError("masses", f"{len(self.radii)} numbers, one a ring", str(weights.shape), "one a radius")
        self.name = f"{len(self.radii)} concentric rings"
        self.mode_mass = weights / weights.sum()
        self.reach = float(self.radii.max()) + _TAIL * self.width
        a = self.radii / (self.width * math.sqrt(2.0))
        tail = self.width**2 * torch.exp(-a.square())
        body = self.radii * self.width * math.sqrt(math.pi / 2.0) * (1.0 + torch.erf(a))
        self._log_factor = torch.from_numpy(np.log(self.mode_mass)) - torch.log(2.0 * math.pi * (tail + body))

    def log_density(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self._log_parts(x), 1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        _check_number(n)
        part = torch.multinomial(torch.from_numpy(self.mode_mass), n, replacement=True, generator=generator)
        centre, radius = self.radii[part], torch.empty(n, dtype=torch.float64)
        missing = torch.arange(n)
        while len(missing):
            # The density of the radius is proportional to r exp(-(r - radius_k)^2 / (2 width^2)): a Gaussian, and a
            # share r / (radius_k + 8 width) of its draws kept.
            noise = torch.randn(len(missing), generator=generator, dtype=torch.float64)
            trial = centre[missing] + self.width * noise
            limit = centre[missing] + _TAIL * self.width
            kept = torch.rand(len(missing), generator=generator, dtype=torch.float64) * limit < trial
            radius[missing[kept]] = trial[kept]
            missing = missing[~kept]
        angle = 2.0 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).float()

    def mode(self, x: Tensor) -> Tensor:
        return self._log_parts(x).argmax(1)

    def _log_parts(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x.double(), dim=1)
        return self._log_factor - 0.5 * ((length[:, None] - self.radii) / self.width).square()


def gaussian_ring(
    n_modes: int = 8, radius: float = 1.0, width: float = WIDTH, masses: Sequence[float] | None = None
) -> MixtureDensity:
    """``n_modes`` round Gaussians of standard deviation ``width``, evenly on a circle; equal masses unless given.

    Raises UserError: no mode, a radius, width or mass that is not positive, or other than one mass a mode.
    """
    if n_modes < 1:
        raise UserError("n_modes", "at least 1", str(n_modes), "give the number of Gaussians")
    angle = 2.0 * math.pi * np.arange(n_modes) / n_modes
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _mixture(centres, radius, width, masses, f"ring of {n_modes} Gaussians")


def gaussian_line(
    n_modes: int = 3, spacing: float = 1.0, width: float = WIDTH, masses: Sequence[float] | None = None
) -> MixtureDensity:
    """``n_modes`` Gaussians on a line, ``spacing`` apart about 0: one coordinate. Raises as `gaussian_ring`."""
    if n_modes < 1:
        raise UserError("n_modes", "at least 1", str(n_modes), "give the number of Gaussians")
    centres = spacing * (np.arange(n_modes) - 0.5 * (n_modes - 1))[:, None]
    return _mixture(centres, spacing, width, masses, f"{n_modes} Gaussians on a line")


def concentric_rings(
    n_rings: int = 3, spacing: float = 1.0, width: float = WIDTH, masses: Sequence[float] | None = None
) -> ConcentricRings:
    """``n_rings`` rings of radii spacing, 2 spacing, ...; equal masses unless given. Raises as `ConcentricRings`."""
    if n_rings < 1:
        raise UserError("n_rings", "at least 1", str(n_rings), "give the number of rings")
    return ConcentricRings([spacing * (k + 1) for k in range(n_rings)], width, masses)


def _mixture(
    centres: np.ndarray, spacing: float, width: float, masses: Sequence[float] | None, name: str
) -> MixtureDensity:
    weights = np.full(len(centres), 1.0 / len(centres)) if masses is None else np.asarray(masses, np.float64)
    _check_positive("radius or spacing, width, masses", [spacing, width, *weights.tolist()])
    return MixtureDensity(Mixture(centres, np.full(len(centres), float(width)), weights), name)


def _check_positive(argument: str, numbers: Sequence[float]) -> None:
    if not all(math.isfinite(number) and number > 0.0 for number in numbers):
        raise UserError(argument, "finite numbers above 0", str(list(numbers)), "leave parts of mass 0 out")


def _check_number(n: int) -> None:
    if n < 1:
        raise UserError("n", "at least one point", str(n), "ask for more points")
