"""The Sherrington-Kirkpatrick spin glass: every pair of spins coupled at random.

Source: Sherrington and Kirkpatrick, Phys. Rev. Lett. 35, 1792 (1975); as mapped in Hill, Nijkamp and Zhu 2019,
section 5.1, and Zhou, Phys. Rev. Lett. 106, 180602 (2011).
"""

import numpy as np
import torch
from numba import njit

from theodolite.errors import UserError
from theodolite.field import Field, FlipCosts, LevelDifferences, SingleSite
from theodolite.space import Spins

__all__ = ["pair_spin_field", "spin_glass"]


def spin_glass(n: int, seed: int = 0) -> Field:
    """Energy H = -sum over pairs i < k of J_ik s_i s_k of ``n`` spins, in units of the coupling scale.

    The couplings are independent normal numbers of mean 0 and variance 1/n (float64), the upper triangle filled
    row by row from ``numpy.random.default_rng(seed)``, so that the lowest energy is about -0.76 n and the critical
    temperature 1. H(s) = H(-s): every minimum has a mirror image.

    Raises UserError: n is not a whole number of at least 2.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise UserError("n", "a whole number of at least 2 spins", repr(n), "for example spin_glass(100, seed=0)")
    upper = np.triu_indices(n, 1)
    couplings = np.zeros((n, n))
    couplings[upper] = np.random.default_rng(seed).normal(0.0, 1.0 / np.sqrt(n), len(upper[0]))
    return pair_spin_field(couplings + couplings.T, name=f"spin glass {n} (seed {seed})")


def pair_spin_field(
    couplings: np.ndarray, external: np.ndarray | None = None, constant: float = 0.0, name: str = "energy"
) -> Field:
    """Energy constant - 1/2 s.J s - h.s of spins s with couplings J ``(n, n)`` and external field h ``(n,)``.

    Raises UserError: J is not a symmetric, finite square matrix with a zero diagonal, or h does not fit it.
    """
    matrix = np.ascontiguousarray(couplings, dtype=np.float64)
    n = len(matrix)
    if matrix.shape != (n, n) or n < 1 or not np.isfinite(matrix).all():
        raise UserError("couplings", "a finite square matrix", f"shape {matrix.shape}", "give J as (n, n)")
    if not np.array_equal(matrix, matrix.T) or matrix.diagonal().any():
        raise UserError("couplings", "a symmetric matrix with a zero diagonal", "another", "use (J + J.T) / 2")
    along = np.zeros(n) if external is None else np.ascontiguousarray(external, dtype=np.float64)
    if along.shape != (n,) or not np.isfinite(along).all():
        raise UserError("external", f"{n} finite numbers", f"shape {along.shape}", "give one number a spin")
    j, h = torch.from_numpy(matrix), torch.from_numpy(along)

    def value(x: torch.Tensor) -> torch.Tensor:
        spins = x.to(torch.float64).reshape(len(x), n)
        return constant - 0.5 * ((spins @ j) * spins).sum(1) - spins @ h

    return Field(
        Spins(n),
        value,
        name=name,
        level_differences=LevelDifferences(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), value),
        single_site=SingleSite(change=_flip_change, data=(matrix, along)),
        flip_costs=FlipCosts(matrix, along, constant),
    )


@njit
def _flip_change(levels, site, new_level, data):
    couplings, external = data
    local = external[site]
    row = couplings[site]
    for k in range(len(levels)):
        local += row[k] * (2.0 * levels[k] - 1.0)
    return -2.0 * (np.float64(new_level) - np.float64(levels[site])) * local
