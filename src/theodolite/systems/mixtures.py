"""Energies of Gaussian mixtures, -ln density, with the critical points that can be found for certain.

Source: every critical point of a mixture of round Gaussians lies in the convex hull of the centres (Carreira-Perpinan
and Williams, Lecture Notes in Computer Science 2695, 625, 2003). In the plane the saddles are enumerated, and
counted: minima - saddles + maxima = 1 for a surface that rises in every direction (Morse).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.space import Box
from theodolite.systems.surfaces import KnownMinima, KnownSaddles, Surface

__all__ = ["Mixture", "gaussian_mixture", "mixture_surface", "seeded_mixture"]

_N_COMPONENTS = 9
_EXTENT = 2.5  # centres are drawn from [-2.5, 2.5]^dim
_SEPARATION = 1.2
_WIDTHS = (0.3, 0.5)
_PLACINGS = 30  # a crowded placing starts over


def gaussian_mixture(dim: int, seed: int = 0, n_components: int | None = None) -> Surface:
    """A mixture of ``n_components`` round Gaussians over [-4, 4]^dim, seeded; energies in nats.

    Centres uniform in [-2.5, 2.5]^dim at least 1.2 apart, widths uniform in [.3, .5], weights proportional to uniform
    numbers of [.3, 1]: every centre has a minimum of its own. Nine components, or three on a line.

    Raises UserError: dim or n_components below 1, or more components than find room.
    """
    mixture = seeded_mixture(dim, seed, n_components)
    return _surface(mixture, f"Gaussian mixture {dim}d (seed {seed})")


def mixture_surface(
    centres: np.ndarray, widths: np.ndarray, weights: np.ndarray, name: str = "Gaussian mixture"
) -> Surface:
    """-ln of sum_k weights_k N(x; centres_k, widths_k^2) over a box 1.5 beyond the outermost centre, in nats.

    ``centres`` ``(k, dim)``, ``widths`` and ``weights`` ``(k,)``, positive. `known_minima` follows the centres
    downhill; `known_saddles` and `known_barriers` are known in one and two dimensions and for up to two components,
    and raise UserError elsewhere.

    Raises UserError: shapes that do not fit, or a width or weight that is not positive and finite.
    """
    mixture = Mixture(np.asarray(centres, np.float64), np.asarray(widths, np.float64), np.asarray(weights, np.float64))
    return _surface(mixture, name)


def seeded_mixture(dim: int, seed: int = 0, n_components: int | None = None) -> Mixture:
    """The Gaussians of `gaussian_mixture`."""
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise UserError("dim", "at least one dimension", repr(dim), "for example mixture:2")
    n = n_components if n_components is not None else (3 if dim == 1 else _N_COMPONENTS)
    if n < 1:
        raise UserError("n_components", "at least 1", str(n), "give the number of Gaussians")
    random = np.random.default_rng(seed)
    centres = _apart(random, n, dim)
    widths = random.uniform(*_WIDTHS, n)
    weights = random.uniform(0.3, 1.0, n)
    return Mixture(centres, widths, weights / weights.sum())


def _surface(mixture: Mixture, name: str) -> Surface:
    reach = math.ceil(2.0 * (float(np.abs(mixture.centres).max()) + 1.5)) / 2.0
    box = Box((mixture.centres.shape[1],), -reach, reach)
    return Surface(Field(box, mixture.energy, name=name), lambda: mixture.known_minima, lambda: mixture.known_saddles)


def _apart(random: np.random.Generator, n: int, dim: int) -> np.ndarray:
    for _ in range(_PLACINGS):
        centres = np.empty((0, dim))
        for _ in range(100 * n):
            candidate = random.uniform(-_EXTENT, _EXTENT, dim)
            if len(centres) < n and (np.linalg.norm(centres - candidate, axis=1) >= _SEPARATION).all():
                centres = np.vstack([centres, candidate])
        if len(centres) == n:
            return centres
    raise UserError("n_components", f"centres {_SEPARATION} apart in [-2.5, 2.5]^{dim}", str(n), "ask for fewer")


@final
@dataclass(frozen=True)
class Mixture:
    """Weights and round Gaussians: ``centres`` ``(k, dim)``, ``widths`` and ``weights`` ``(k,)``."""

    centres: np.ndarray
    widths: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.centres)
        if self.centres.ndim != 2 or self.widths.shape != (n,) or self.weights.shape != (n,) or n < 1:
            raise UserError(
                "centres, widths, weights",
                "(k, dim), (k,), (k,)",
                f"{self.centres.shape}, {self.widths.shape}, {self.weights.shape}",
                "one row a Gaussian",
            )
        positive = np.concatenate([self.widths, self.weights])
        if not (np.isfinite(positive).all() and (positive > 0).all() and np.isfinite(self.centres).all()):
            raise UserError("widths, weights", "positive finite numbers", "another", "leave components of weight 0 out")

    @cached_property
    def _log_factor(self) -> np.ndarray:
        return np.log(self.weights) - self.centres.shape[1] * np.log(self.widths * math.sqrt(2.0 * math.pi))

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.from_numpy(self.centres),
            torch.from_numpy(0.5 / self.widths**2),
            torch.from_numpy(self._log_factor),
        )

    def energy(self, x: Tensor) -> Tensor:
        centres, half_precision, log_factor = self._tensors
        # The expanded square: one matrix product, an order of magnitude faster than (batch, k, dim) in many dimensions.
        square = x.double().square().sum(1, keepdim=True) - 2.0 * (x.double() @ centres.T) + centres.square().sum(1)
        return -torch.logsumexp(log_factor - half_precision * square, 1)

    def derivatives(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energy ``(n,)``, gradient ``(n, dim)`` and Hessian ``(n, dim, dim)`` at ``x`` ``(n, dim)``."""
        offset = x[:, None] - self.centres
        precision = 1.0 / self.widths**2
        log_density = self._log_factor - 0.5 * precision * (offset**2).sum(2)
        top = log_density.max(1, keepdims=True)
        share = np.exp(log_density - top)
        total = share.sum(1, keepdims=True)
        share /= total
        slope = precision[:, None] * offset
        gradient = (share[..., None] * slope).sum(1)
        spread = np.einsum("nk,nki,nkj->nij", share, slope, slope) - gradient[:, :, None] * gradient[:, None, :]
        hessian = (share * precision).sum(1)[:, None, None] * np.eye(x.shape[1]) - spread
        return -(top[:, 0] + np.log(total[:, 0])), gradient, hessian

    @cached_property
    def known_minima(self) -> KnownMinima:
        point = _distinct(self._descend(self.centres))
        energy = self.derivatives(point)[0]
        order = np.argsort(energy, kind="stable")
        return KnownMinima(point[order], energy[order])

    @cached_property
    def known_saddles(self) -> KnownSaddles:
        n, dim = self.centres.shape
        point, negative = self._critical_points()
        n_minima, n_saddles = int((negative == 0).sum()), int((negative == 1).sum())
        euler = n_minima - n_saddles + int((negative == 2).sum())
        if n_minima != len(self.known_minima.point) or euler != 1:
            raise UserError(
                "mixture", "every critical point found", f"{n_minima} minima and {n_saddles} saddles", "change the seed"
            )
        saddle = point[negative == 1]
        energy, _, hessian = self.derivatives(saddle)
        along = np.linalg.eigh(hessian)[1][:, :, 0]
        ends = [self._descend(saddle + sign * 1e-3 * along) for sign in (-1.0, 1.0)]
        gap = [np.linalg.norm(end[:, None] - self.known_minima.point, axis=2) for end in ends]
        return KnownSaddles(saddle, energy, np.stack([distance.argmin(1) for distance in gap], 1))

    def _critical_points(self) -> tuple[np.ndarray, np.ndarray]:
        """Points and their numbers of negative curvatures, by Newton's method from everywhere they can be."""
        n, dim = self.centres.shape
        if n <= 2:  # the hull is a segment
            start = self.centres[0] + np.linspace(0.0, 1.0, 401)[:, None] * (self.centres[-1] - self.centres[0])
        elif dim <= 2:
            sides = [np.linspace(low, high, 81) for low, high in zip(*self._hull(), strict=True)]
            start = np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], 1)
        else:
            raise UserError(
                "mixture",
                "one or two dimensions, or two components",
                f"{n} components in {dim} dimensions",
                "its saddles are not known exactly; use quartic-8 for a surface of many dimensions",
            )
        x = start.copy()
        for _ in range(60):
            _, gradient, hessian = self.derivatives(x)
            step = np.linalg.solve(hessian + 1e-12 * np.eye(dim), gradient[..., None])[..., 0]
            length = np.linalg.norm(step, axis=1, keepdims=True)
            x -= step * np.minimum(1.0, 0.05 / np.maximum(length, 1e-300))
        _, gradient, hessian = self.derivatives(x)
        low, high = self._hull()
        inside = ((x >= low - 1e-6) & (x <= high + 1e-6)).all(1)
        point = _distinct(x[inside & (np.abs(gradient).max(1) < 1e-9)])
        return point, (np.linalg.eigvalsh(self.derivatives(point)[2]) < 0.0).sum(1)

    def _hull(self) -> tuple[np.ndarray, np.ndarray]:
        return self.centres.min(0), self.centres.max(0)

    def _descend(self, x: np.ndarray) -> np.ndarray:
        """Short steps downhill, then Newton's method near the bottom."""
        for _ in range(2000):
            _, gradient, hessian = self.derivatives(x)
            curved = np.linalg.eigvalsh(hessian)[:, 0] > 0.0
            newton = np.linalg.solve(hessian + 1e-12 * np.eye(x.shape[1]), gradient[..., None])[..., 0]
            plain = gradient * float(self.widths.min()) ** 2 * 0.5
            step = np.where((curved & (np.linalg.norm(newton, axis=1) < 0.05))[:, None], newton, plain)
            length = np.linalg.norm(step, axis=1, keepdims=True)
            x = x - step * np.minimum(1.0, 0.02 / np.maximum(length, 1e-300))
            if np.abs(gradient).max() < 1e-12:
                break
        return x


def _distinct(points: np.ndarray) -> np.ndarray:
    kept = points[:0]
    for point in points:
        if not len(kept) or np.linalg.norm(kept - point, axis=1).min() > 1e-5:
            kept = np.vstack([kept, point])
    return kept
