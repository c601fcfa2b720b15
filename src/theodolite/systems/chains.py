"""Independent rows of chains: an exactly solved stand-in for a small convolutional classifier.

Every row of an image is a chain, y = unit * sum over rows and sites of a(x_i) + b(x_i, x_(i+1)), with
a(x) = sum_k A_k f_k(x), b(x, x') = sum_kl B_kl f_k(x) f_l(x') and the cosines
f_k(x) = sqrt(2) cos(pi k (x + 1/2) / levels), k = 1, 2, .... These are orthonormal under uniform levels (the
type-II discrete cosine transform), so over all inputs y has mean 0 and standard deviation `scale` exactly.

The transfer matrix (Kramers and Wannier, Phys. Rev. 60, 252, 1941) solves it: `chains_exact.py`.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
import torch

from theodolite.errors import UserError
from theodolite.field import Field, LevelDifferences, SingleSite, Terms
from theodolite.space import Grid

__all__ = ["Chains", "rough_chains", "rough_settings", "smooth_chains", "smooth_settings"]


@dataclass(frozen=True)
class Chains:
    """What defines a field of chains.

    Args:
        rows, sites: a point has shape `(1, rows, sites)`; rows do not interact.
        levels: number of values of a site, more than the number of cosines.
        single: the coefficients A_k, `(cosine,)`.
        pair: the coefficients B_kl, `(cosine, cosine)`.
        scale: standard deviation of y over all inputs, in output units.
        name: name of the field.

    Raises:
        UserError: sizes that do not fit, or coefficients that are all zero.
    """

    rows: int
    sites: int
    levels: int
    single: tuple[float, ...]
    pair: tuple[tuple[float, ...], ...]
    scale: float
    name: str = "chains"

    def __post_init__(self) -> None:
        cosines = len(self.single)
        if self.rows < 1 or self.sites < 1:
            raise UserError("rows, sites", "at least 1 each", f"{self.rows}, {self.sites}", "for example 28, 28")
        if not 1 <= cosines < self.levels:
            raise UserError("levels", f"more than the {cosines} cosines", str(self.levels), "add levels")
        if len(self.pair) != cosines or any(len(row) != cosines for row in self.pair):
            raise UserError("pair", f"{cosines} x {cosines} coefficients", f"{len(self.pair)} rows", "see single")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError("scale", "a finite number > 0", repr(self.scale), "give y's standard deviation")
        if not self._variance() > 0:
            raise UserError("single, pair", "coefficients that are not all zero", "a constant", "set one")

    def _variance(self) -> float:
        single, pair = np.array(self.single), np.array(self.pair)
        return self.rows * float(self.sites * (single**2).sum() + (self.sites - 1) * (pair**2).sum())

    @property
    def unit(self) -> float:
        """Factor in front of the sum, in output units."""
        return self.scale / math.sqrt(self._variance())

    def cosines(self) -> np.ndarray:
        """f_k of every level, `(levels, cosine)` float64."""
        return _cosines(torch.arange(self.levels), self.levels, len(self.single)).numpy()

    def site_table(self) -> np.ndarray:
        """unit * a(x), `(levels,)`, in output units."""
        return self.unit * self.cosines() @ np.array(self.single)

    def bond_table(self) -> np.ndarray:
        """unit * b(x, x'), `(levels, levels)`, in output units."""
        cosines = self.cosines()
        return self.unit * cosines @ np.array(self.pair) @ cosines.T

    def field(self) -> Field:
        """The field on Grid((1, rows, sites), levels), in output units, with the cosines as its embedding.

        The term of a site holds the bond to its right, so a site changes its own and the one to its left.
        """
        single = self.unit * torch.tensor(self.single, dtype=torch.float64)
        pair = self.unit * torch.tensor(self.pair, dtype=torch.float64)

        def terms(embedded: torch.Tensor) -> torch.Tensor:
            rows = embedded.reshape(-1, self.rows, self.sites, len(single))
            bonds = ((rows[:, :, :-1] @ pair) * rows[:, :, 1:]).sum(-1)
            return (rows @ single + torch.nn.functional.pad(bonds, (0, 1))).flatten(1)

        def value(x: torch.Tensor) -> torch.Tensor:
            return terms(_cosines(x, self.levels, len(single))).sum(1)

        return Field(
            Grid((1, self.rows, self.sites), self.levels),
            value,
            name=self.name,
            level_differences=LevelDifferences(
                table=torch.from_numpy(self.cosines()), function=lambda embedded: terms(embedded).sum(1)
            ),
            terms=Terms(grid=(self.rows, self.sites), radius=1, constant=0.0, function=terms),
            single_site=SingleSite(change=_change, data=(self.site_table(), self.bond_table(), np.array([self.sites]))),
        )


def smooth_settings(
    rows: int = 28,
    sites: int = 28,
    levels: int = 256,
    roughness: float = 0.1,
    scale: float = 10.0,
    seed: int = 0,
) -> Chains:
    """Chains that a ladder of local samplers can solve: one broad slope and a weak pull between neighbours.

    roughness is the deviation of random coefficients on the first four cosines. Units as in `Chains`.
    """
    generator = np.random.default_rng(seed)
    single, pair = roughness * generator.normal(size=4), roughness * generator.normal(size=(4, 4))
    single[0] += 1.0
    pair[0, 0] += 0.3
    return _settings(rows, sites, levels, single, pair, scale, "smooth chains")


def rough_settings(
    rows: int = 28, sites: int = 28, levels: int = 256, roughness: float = 2.0, scale: float = 10.0
) -> Chains:
    """Chains that freeze local samplers: every row can turn as a whole into a phase that nothing leads to.

    With g a peak of height 1 at level 0, about levels / 8 wide: a = -roughness g, b = (roughness + 1) g g'.
    A row all on the peak gains 1 a site, but the first site to go there loses roughness, with no neighbour to
    win it back. At the defaults the peak phase takes over at the weight exp(9.5 y), where the mean of y jumps
    from 119 to 360; chains from noise stay below far beyond that, chains from zeros above from exp(8 y) on.
    Units as in `Chains`.
    """
    peak = 1.0 - np.arange(1, 9) / 9.0
    peak /= math.sqrt(2.0) * peak.sum()
    pair = (roughness + 1.0) * np.outer(peak, peak)
    return _settings(rows, sites, levels, -roughness * peak, pair, scale, "rough chains")


def smooth_chains(
    rows: int = 28,
    sites: int = 28,
    levels: int = 256,
    roughness: float = 0.1,
    scale: float = 10.0,
    seed: int = 0,
) -> Field:
    """The field of `smooth_settings` with the same arguments."""
    return smooth_settings(rows, sites, levels, roughness, scale, seed).field()


def rough_chains(
    rows: int = 28, sites: int = 28, levels: int = 256, roughness: float = 2.0, scale: float = 10.0
) -> Field:
    """The field of `rough_settings` with the same arguments."""
    return rough_settings(rows, sites, levels, roughness, scale).field()


def _settings(
    rows: int, sites: int, levels: int, single: np.ndarray, pair: np.ndarray, scale: float, name: str
) -> Chains:
    return Chains(rows, sites, levels, tuple(single.tolist()), tuple(map(tuple, pair.tolist())), scale, name)


def _cosines(x: torch.Tensor, levels: int, number: int) -> torch.Tensor:
    """f_k(x) on a new last axis, float64; x may be relaxed to reals."""
    angle = (x.to(torch.float64) + 0.5) * (math.pi / levels)
    return math.sqrt(2.0) * torch.cos(angle.unsqueeze(-1) * torch.arange(1, number + 1, dtype=torch.float64))


@numba.njit
def _change(levels, site, new_level, data):
    single, pair, sites = data
    column, old = site % sites[0], levels[site]
    change = single[new_level] - single[old]
    if column > 0:
        left = levels[site - 1]
        change += pair[left, new_level] - pair[left, old]
    if column < sites[0] - 1:
        right = levels[site + 1]
        change += pair[new_level, right] - pair[old, right]
    return change
