"""Barriers between given minima by the method of one's choice, closed under min-max.

Every method gives paths, and every path an upper bound. Sources: Hill, Nijkamp and Zhu 2019, sections 3 and 5.1, and
those named in the files of the methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.attraction_borders import attraction_barriers
from theodolite.instruments.landscape_findings import Barriers
from theodolite.instruments.tree_paths import barriers_of_passes
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.search.discrete_paths import beam_paths, path_energies
from theodolite.search.elastic_band import ElasticBand, relax_band
from theodolite.search.real_paths import linear_path, pin_barrier, stack_paths
from theodolite.search.string import refine
from theodolite.space import DiscreteSpace

DISCRETE = ("greedy", "beam", "attraction")
REAL = ("linear", "neb", "dneb", "string", "attraction", "attraction+string")
_IMAGES = 16
_BEAM = 10


@final
@dataclass(frozen=True)
class PairBarriers:
    """Between k minima: ``direct`` ``(k, k)``, the highest energy of each pair's own path, the energies on the
    diagonal; ``closed``: the barriers closed under min-max, with paths that span the tree."""

    direct: np.ndarray
    closed: Barriers


def pair_barriers(
    field: Field,
    minima: Tensor,
    method: str,
    generator: torch.Generator,
    *,
    temperature: float | None = None,
    diffusion: AttractionDiffusion | None = None,
    n_trials: int = 20,
) -> PairBarriers:
    """A path between every two of ``minima`` ``(k, *shape)`` by ``method``.

    On discrete spaces "greedy" (in both directions, the lower kept), "beam" or "attraction" (Attraction-Diffusion at
    the metastable border, from both ends); on real ones "linear", "neb", "dneb", "string", "attraction" or
    "attraction+string" (its path relaxed as a string, the better kept). Attraction-Diffusion needs a ``temperature``
    in units of the field, and its settings in ``diffusion``; ``n_trials`` are those of each attempt.

    Raises UserError: fewer than two minima, a method that does not fit the space, attraction without its settings.
    """
    discrete = isinstance(field.space, DiscreteSpace)
    fitting = DISCRETE if discrete else REAL
    if method not in fitting:
        raise UserError("method", f"one of {', '.join(fitting)} on this space", repr(method), "choose one")
    if len(minima) < 2:
        raise UserError("minima", "at least two minima", str(len(minima)), "search for more")
    if method.startswith("attraction") and (diffusion is None or temperature is None):
        raise UserError("diffusion", "the settings of the trials, and a temperature", "none", "tune() proposes both")
    first, second = torch.triu_indices(len(minima), len(minima), 1)
    starts, ends = minima[first], minima[second]
    if method.startswith("attraction") and diffusion is not None and temperature is not None:
        found = attraction_barriers(diffusion, starts, ends, temperature, generator, n_trials=n_trials)
        paths, level = list(found.paths), found.level
        if method == "attraction+string":
            paths, level = _refined(field, paths, level)
    elif discrete:
        paths, level = _changed_one_by_one(field, starts, ends, 1 if method == "greedy" else _BEAM)
    else:
        paths, level = _relaxed(field, linear_path(starts, ends, _IMAGES), method)
    return _closed(field, minima, first.numpy(), second.numpy(), level.numpy(), paths)


def _changed_one_by_one(field: Field, starts: Tensor, ends: Tensor, width: int) -> tuple[list[Tensor], Tensor]:
    there = beam_paths(field, starts.numpy(), ends.numpy(), width)
    back = beam_paths(field, ends.numpy(), starts.numpy(), width)
    landscape = field.flip_costs or field
    paths, level = [], []
    for one, other in zip(there, back, strict=True):
        heights = [float(path_energies(landscape, path).max()) for path in (one, other)]
        paths.append(torch.as_tensor(one if heights[0] <= heights[1] else other[::-1].copy()))
        level.append(min(heights))
    return paths, torch.tensor(level, dtype=torch.float64)


def _relaxed(field: Field, straight: Tensor, method: str) -> tuple[list[Tensor], Tensor]:
    relax: dict[str, Callable[[], Tensor]] = {
        "linear": lambda: straight,
        "neb": lambda: relax_band(field, straight, ElasticBand(doubly_nudged=False)),
        "dneb": lambda: relax_band(field, straight, ElasticBand(doubly_nudged=True)),
        "string": lambda: refine(field, straight),
    }
    path = relax[method]()
    return list(path), pin_barrier(field, path).energy


def _refined(field: Field, paths: list[Tensor], level: Tensor) -> tuple[list[Tensor], Tensor]:
    known = [row for row in range(len(paths)) if len(paths[row]) > 1]
    if not known:
        return paths, level
    better = refine(field, stack_paths([paths[row].double() for row in known]))
    top = pin_barrier(field, better).energy
    paths, level = list(paths), level.clone()
    for row, path, height in zip(known, better, top, strict=True):
        if height < level[row]:
            paths[row], level[row] = path, height
    return paths, level


def _closed(
    field: Field, minima: Tensor, first: np.ndarray, second: np.ndarray, level: np.ndarray, paths: list[Tensor]
) -> PairBarriers:
    n, energy = len(minima), field.value(minima).numpy()
    direct = np.full((n, n), np.inf)
    direct[first, second] = direct[second, first] = level
    np.fill_diagonal(direct, energy)
    closed = barriers_of_passes(
        energy,
        first,
        second,
        level,
        n,
        lambda index: paths[index].numpy(),
        lambda points: field.value(torch.as_tensor(points)).numpy(),
    )
    return PairBarriers(direct, closed)
