"""Energy surfaces over a box whose minima and barriers are known: what searches of real spaces are tested against.

Sources: Mueller and Brown, Theor. Chim. Acta 53, 75 (1979); the rough two-basin landscape after Fig. 7 of Hill,
Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.space import Box

__all__ = ["KnownMinima", "KnownSaddles", "Surface", "mueller_brown", "quartic_wells", "rough_basins", "surface"]


@final
@dataclass(frozen=True)
class KnownMinima:
    """Minima in rising energy: ``point`` ``(n, *shape)`` and ``energy`` ``(n,)``, float64."""

    point: np.ndarray
    energy: np.ndarray


@final
@dataclass(frozen=True)
class KnownSaddles:
    """Index-1 saddles: ``point`` ``(m, *shape)``, ``energy`` ``(m,)`` and ``minimum`` ``(m, 2)``, the indices of the
    two minima that the descents from each lead to."""

    point: np.ndarray
    energy: np.ndarray
    minimum: np.ndarray


@final
@dataclass(frozen=True)
class Surface:
    """A field together with the truth about its landscape, computed when first asked for."""

    field: Field
    _minima: Callable[[], KnownMinima]
    _saddles: Callable[[], KnownSaddles]

    def known_minima(self) -> KnownMinima:
        """Every minimum of the field."""
        return self._minima()

    def known_saddles(self) -> KnownSaddles:
        """Saddles enough to span all barriers (every one of them, unless the maker's docstring says otherwise)."""
        return self._saddles()

    def known_barriers(self) -> np.ndarray:
        """Barriers ``(n, n)`` between the known minima, float64: the least over all paths of the highest energy;
        the minimum's own energy on the diagonal."""
        return lowest_barriers(self.known_minima().energy, self.known_saddles())


def lowest_barriers(energy: np.ndarray, saddles: KnownSaddles) -> np.ndarray:
    """Min-max closure ``(n, n)`` by relaxing through every minimum in turn (Floyd and Warshall)."""
    n = len(energy)
    barrier = np.full((n, n), np.inf)
    for (a, b), level in zip(saddles.minimum, saddles.energy, strict=True):
        barrier[a, b] = barrier[b, a] = min(barrier[a, b], level)
    np.fill_diagonal(barrier, energy)
    for k in range(n):
        np.minimum(barrier, np.maximum(barrier[:, k, None], barrier[None, k, :]), out=barrier)
    return barrier


def surface(name: str) -> Surface:
    """The surface of that name: "mueller-brown", "rough" or "quartic-K" (K wells, so 2^K minima).

    Raises UserError for another name.
    """
    kind, _, number = name.partition("-")
    if name == "mueller-brown":
        return mueller_brown()
    if name == "rough":
        return rough_basins()
    if kind == "quartic" and number.isdecimal():
        return quartic_wells(int(number))
    raise UserError("surface", "mueller-brown, rough or quartic-K", repr(name), "for example quartic-8")


# ---------------------------------------------------------------------- Mueller and Brown

_AMPLITUDE = (-200.0, -100.0, -170.0, 15.0)
_XX = (-1.0, -1.0, -6.5, 0.7)
_XY = (0.0, 0.0, 11.0, 0.6)
_YY = (-10.0, -10.0, -6.5, 0.7)
_CENTRE = ((1.0, 0.0), (0.0, 0.5), (-0.5, 1.5), (-1.0, 1.0))

# Newton's method in float64, gradients below 1e-12.
_MUELLER_BROWN_MINIMA = KnownMinima(
    np.array(
        [
            [-0.5582236346330243, 1.4417258418046686],
            [0.6234994049308764, 0.028037758528685675],
            [-0.05001082299820609, 0.4666941048719721],
        ]
    ),
    np.array([-146.69951720995397, -108.16672411685236, -80.76781812965903]),
)
_MUELLER_BROWN_SADDLES = KnownSaddles(
    np.array([[0.21248658200066198, 0.2929883251073678], [-0.8220015587327322, 0.6243128028148713]]),
    np.array([-72.24894011232522, -40.6648435086574]),
    np.array([[1, 2], [0, 2]]),
)


def mueller_brown() -> Surface:
    """The Mueller-Brown surface over [-1.6, 2.1]^2, energies in its own units (about -147 to 2e5 in a corner).

    Three minima and two saddles, to rounding.
    """
    centre = torch.tensor(_CENTRE, dtype=torch.float64)
    amplitude, xx, xy, yy = (torch.tensor(row, dtype=torch.float64) for row in (_AMPLITUDE, _XX, _XY, _YY))

    def energy(x: Tensor) -> Tensor:
        across, along = (x.double()[:, None] - centre).unbind(2)
        return torch.exp(xx * across**2 + xy * across * along + yy * along**2) @ amplitude

    return Surface(
        Field(Box((2,), -1.6, 2.1), energy, name="Mueller-Brown surface"),
        lambda: _MUELLER_BROWN_MINIMA,
        lambda: _MUELLER_BROWN_SADDLES,
    )


# ---------------------------------------------------------------------- two flat, noisy basins in one dimension

_RIPPLES = ((0.12, 7.3, 0.4), (0.09, 16.1, 1.3), (0.05, 31.7, 2.1))  # amplitude, wave number, phase
_RIDGE = (2.0, 4.0, 0.35)  # height, place, width
_WALL = (3.0, 6.0, 20)  # height at the ends, half the range, power


def rough_basins() -> Surface:
    """Two flat basins full of ripples on [0, 12], a ridge of height 2 at 4 between them and walls at the ends.

    The points 5.1 and 10 lie in one basin though far apart, as in Fig. 7 of Hill, Nijkamp and Zhu 2019. Minima and
    barriers are the roots of the slope between the points of a dense grid.
    """

    def energy(x: Tensor) -> Tensor:
        place = x.double()[:, 0]
        value = _RIDGE[0] * torch.exp(-0.5 * ((place - _RIDGE[1]) / _RIDGE[2]) ** 2)
        value = value + _WALL[0] * ((place - _WALL[1]) / _WALL[1]) ** _WALL[2]
        for amplitude, wave_number, phase in _RIPPLES:
            value = value + amplitude * torch.sin(wave_number * place + phase)
        return value

    def minima() -> KnownMinima:
        order, place = _rough_extrema(energy)[:2]
        return KnownMinima(place[order, None], _rough_energy(energy, place[order]))

    def saddles() -> KnownSaddles:
        order, place, tops = _rough_extrema(energy)
        rank = np.argsort(order)
        return KnownSaddles(tops[:, None], _rough_energy(energy, tops), np.stack([rank[:-1], rank[1:]], 1))

    return Surface(Field(Box((1,), 0.0, 12.0), energy, name="two rough basins"), minima, saddles)


def _rough_energy(energy: Callable[[Tensor], Tensor], place: np.ndarray) -> np.ndarray:
    return energy(torch.from_numpy(place)[:, None]).numpy()


def _rough_slope(place: float) -> float:
    height, middle, width = _RIDGE
    slope = -height * (place - middle) / width**2 * math.exp(-0.5 * ((place - middle) / width) ** 2)
    top, half, power = _WALL
    slope += top * power / half * ((place - half) / half) ** (power - 1)
    return slope + sum(a * k * math.cos(k * place + phase) for a, k, phase in _RIPPLES)


def _rough_extrema(energy: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the minima by energy, the minima from left to right and the maxima between them."""
    grid = np.linspace(0.0, 12.0, 12001)
    slope = np.array([_rough_slope(place) for place in grid])
    turning = np.flatnonzero(slope[:-1] * slope[1:] < 0)
    roots = np.array([brentq(_rough_slope, grid[i], grid[i + 1], xtol=1e-13) for i in turning])
    minima, tops = roots[slope[turning] < 0], roots[slope[turning] > 0]
    return np.argsort(_rough_energy(energy, minima), kind="stable"), minima, tops


# ---------------------------------------------------------------------- rotated quartic wells

_MOST_WELLS = 12  # 4096 minima


def wells(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation R ``(dim, dim)``, curvatures a and tilts b ``(dim,)`` of `quartic_wells`."""
    gaussian = np.random.default_rng(8).normal(size=(dim, dim))
    return np.linalg.qr(gaussian)[0], np.linspace(1.0, 2.0, dim), np.linspace(0.1, 0.5, dim)


def quartic_wells(dim: int = 8) -> Surface:
    """Sum over i of a_i (y_i^2 - 1)^2 + b_i y_i of rotated coordinates y = R x in [-4, 4]^dim.

    Curvatures a_i rise from 1 to 2 and tilts b_i from 0.1 to 0.5; R is a fixed rotation. A critical point of a
    separable sum is one of every part: 2^dim minima, and dim * 2^(dim - 1) saddles of index 1, where one part is at
    its top and the others in a well. By Morse theory these saddles alone join the sublevel sets, so the barriers are
    the min-max closure over the hypercube's edges.

    Raises UserError: dim is not between 1 and 12.
    """
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= _MOST_WELLS:
        raise UserError("dim", f"1 to {_MOST_WELLS} wells", repr(dim), "for example quartic-8")
    rotation, curvature, tilt = wells(dim)
    turn, scale, slope = (torch.from_numpy(array) for array in (rotation, curvature, tilt))

    def energy(x: Tensor) -> Tensor:
        y = x.double() @ turn.T
        return ((y.square() - 1.0).square() * scale + slope * y).sum(1)

    # Extrema of each part, rising: left well, top, right well: roots of 4 a y^3 - 4 a y + b.
    extrema = np.array(
        [np.sort(np.roots([4.0 * a, 0.0, -4.0 * a, b]).real) for a, b in zip(curvature, tilt, strict=True)]
    )
    heights = curvature[:, None] * (extrema**2 - 1.0) ** 2 + tilt[:, None] * extrema
    sides = (np.arange(2**dim)[:, None] >> np.arange(dim)) & 1
    parts = np.arange(dim)
    unsorted = heights[parts, 2 * sides].sum(1)
    order = np.argsort(unsorted, kind="stable")

    def minima() -> KnownMinima:
        return KnownMinima(extrema[parts, 2 * sides[order]] @ rotation, unsorted[order])

    def saddles() -> KnownSaddles:
        rank = np.argsort(order)
        left, part = (column.ravel() for column in np.meshgrid(np.arange(2**dim), parts, indexing="ij"))
        left, part = left[sides[left, part] == 0], part[sides[left, part] == 0]
        place = 2 * sides[left]
        place[np.arange(len(left)), part] = 1
        joined = np.stack([rank[left], rank[left + (1 << part)]], 1)
        return KnownSaddles(extrema[parts, place] @ rotation, heights[parts, place].sum(1), joined)

    return Surface(Field(Box((dim,), -4.0, 4.0), energy, name=f"{dim} rotated quartic wells"), minima, saddles)
