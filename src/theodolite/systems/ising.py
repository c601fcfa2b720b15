"""The two-dimensional Ising model on a periodic square lattice, as a field with a known density of states.

Source: Onsager, Phys. Rev. 65, 117 (1944); the exact counts are in `ising_exact.py`.
"""

import math

import numba
import numpy as np
import torch

from theodolite.errors import UserError
from theodolite.field import Field, FlipCosts, LevelDifferences, SingleSite
from theodolite.space import Spins

__all__ = ["ising"]

_LARGEST_DENSE = 32  # sides up to which a dense matrix of couplings is worth its memory (8 MiB)


def ising(side: int, external: float = 0.0) -> Field:
    """Energy E = -sum over bonds of s s' - external * sum of s on a periodic side x side square lattice, in units
    of the coupling.

    A point is `(side * side,)` spins of -1 or +1, row by row; every spin has a bond to its right and to its
    lower neighbour, so there are always 2 * side * side bonds (on side 2 each pair is joined twice).

    `level_spacing` is 4 for an even side >= 4 (a flip changes E by a multiple of 4, from -2 * side^2), 8 for
    side 2 (every bond is double) and 2 for an odd side (there all energies are odd multiples of 2); None in an
    external field. The minima are the two mirror states all +1 and all -1 (E = -2 side^2 -+ external * side^2);
    a periodic band of one sign is a minimum too, as wide as two rows or more.

    Raises:
        UserError: side is not a whole number of at least 2, or external is not finite.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 2:
        raise UserError("side", "a whole number >= 2", repr(side), "for example theodolite.systems.ising(16)")
    if not math.isfinite(external):
        raise UserError("external", "a finite number", repr(external), "0 is the Ising model without a field")
    return Field(
        Spins(side * side),
        lambda x: _energy(x, side, external),
        name=f"Ising {side}x{side}" + (f" in a field of {external:g}" if external else ""),
        level_spacing=None if external else 8.0 if side == 2 else 4.0 if side % 2 == 0 else 2.0,
        level_differences=LevelDifferences(
            table=torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
            function=lambda embedded: _energy(embedded, side, external),
        ),
        single_site=SingleSite(change=_flip_change, data=(_neighbours(side), float(external))),
        flip_costs=_flip_costs(side, external) if side <= _LARGEST_DENSE else None,
    )


def _energy(x: torch.Tensor, side: int, external: float) -> torch.Tensor:
    spins = x.to(torch.float64).reshape(-1, side, side)
    forward = spins.roll(-1, 1) + spins.roll(-1, 2)
    return -(spins * (forward + external)).sum((1, 2))


def _flip_costs(side: int, external: float) -> FlipCosts:
    couplings = np.zeros((side * side, side * side))
    for site, around in enumerate(_neighbours(side)):
        np.add.at(couplings[site], around, 1.0)
    return FlipCosts(couplings, np.full(side * side, float(external)))


def _neighbours(side: int) -> np.ndarray:
    """The four neighbours of each site, `(side * side, 4)`; a neighbour joined twice is named twice."""
    sites = np.arange(side * side).reshape(side, side)
    shifted = [np.roll(sites, shift, axis).ravel() for axis in (0, 1) for shift in (1, -1)]
    return np.stack(shifted, axis=1).astype(np.int32)


@numba.njit
def _flip_change(levels, site, new_level, data):
    around, external = data
    up = (
        np.int64(levels[around[site, 0]])
        + np.int64(levels[around[site, 1]])
        + np.int64(levels[around[site, 2]])
        + np.int64(levels[around[site, 3]])
    )
    return -4.0 * (np.int64(new_level) - np.int64(levels[site])) * (up - 2 + 0.5 * external)
