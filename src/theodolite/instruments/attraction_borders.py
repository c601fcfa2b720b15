"""The metastable border of Attraction-Diffusion: the least magnetisation that reaches a target, and barriers there.

Source: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", sections 3.3,
3.4 and 4.3: the paths found just above the border climb least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.sampling.attraction_diffusion import AttractionDiffusion, Trials, checked_temperature
from theodolite.sampling.attraction_spins import drawn_keys
from theodolite.space import DiscreteSpace

Search = Literal["paper", "bisection"]

_RATIO = 0.97
_BRACKET = 4.0
_WIDEST = 2.0**40  # a border outside this factor of 1 / distance is taken as none
_PATH_NUMBERS = 2**17  # coordinates of the trials whose paths are kept at once


@final
@dataclass(frozen=True)
class Borders:
    """Of each search: ``alpha``, the least magnetisation at which a trial succeeded (0 where none is needed, NaN where
    none sufficed), ``level``, the highest energy of the lowest path seen (inf: none), that path ``paths`` (point,
    *shape), and the number of ``trials`` of all."""

    alpha: Tensor
    level: Tensor
    paths: tuple[Tensor, ...]
    trials: int


@final
@dataclass(frozen=True)
class AttractionBarriers:
    """Of each pair: ``level``, the highest energy of the best path found in either direction, an upper bound of the
    barrier (inf: no path); the path from the first to the second point, ``paths`` (point, *shape), with its
    ``energies`` (point,); and the border ``alpha`` (pair, 2), from the first and from the second."""

    level: Tensor
    paths: tuple[Tensor, ...]
    energies: tuple[Tensor, ...]
    alpha: Tensor


def metastable_borders(
    diffusion: AttractionDiffusion,
    start: Tensor,
    target: Tensor,
    temperature: Tensor | float,
    generator: torch.Generator,
    *,
    search: Search = "bisection",
    n_trials: int = 20,
) -> Borders:
    """Search for the border from each ``start`` to its ``target`` (search, *shape), all searches at once.

    Both searches begin at alpha = 1 / distance and go up or down by factors of 4 until one alpha succeeds (at least
    one of ``n_trials`` trials) and the next lower one fails. "paper": from the alpha that succeeds down by 3% at a
    time until none of the trials succeeds. "bisection": halve the bracket, in ln(alpha), until it is 3% wide: about
    eight times fewer trials; it may stop higher where success is rare.

    Raises UserError: an unknown search, no trials, and what `AttractionDiffusion.run_trials` raises.
    """
    if search not in ("paper", "bisection"):
        raise UserError("search", "'paper' or 'bisection'", repr(search), "'bisection' needs fewer trials")
    if n_trials < 1:
        raise UserError("n_trials", "at least 1", str(n_trials), "20 are the papers' number")
    n = len(start)
    searches = _Searches(diffusion, start, target, checked_temperature(temperature).expand(n), n_trials, generator)
    scale = 1.0 / diffusion.distance(start, target).clamp(min=1e-12)
    high, low = torch.full((n,), math.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    alpha = scale.clone()
    bracketing = torch.ones(n, dtype=torch.bool)
    while bool(bracketing.any()):
        rows = bracketing.nonzero()[:, 0]
        success = searches.attempt(rows, alpha[rows])
        high[rows] = torch.where(success, alpha[rows], high[rows])
        low[rows] = torch.where(success, low[rows], alpha[rows])
        bracketing = torch.isinf(high) | (low == 0)
        alpha = torch.where(torch.isinf(high), low * _BRACKET, high / _BRACKET)
        bracketing &= (alpha / scale <= _WIDEST) & (alpha / scale >= 1.0 / _WIDEST)
    narrowing = torch.isfinite(high) & (low > 0)
    while bool(narrowing.any()):
        rows = narrowing.nonzero()[:, 0]
        alpha = high[rows] * _RATIO if search == "paper" else (high[rows] * low[rows]).sqrt()
        success = searches.attempt(rows, alpha)
        high[rows] = torch.where(success, alpha, high[rows])
        low[rows] = torch.where(success, low[rows], alpha)
        narrowing[rows] = success if search == "paper" else low[rows] < _RATIO * high[rows]
    border = torch.where(torch.isinf(high), math.nan, torch.where(low == 0, 0.0, high))
    return Borders(border, searches.level, tuple(searches.paths), searches.trials)


def attraction_barriers(
    diffusion: AttractionDiffusion,
    first: Tensor,
    second: Tensor,
    temperature: float,
    generator: torch.Generator,
    *,
    search: Search = "bisection",
    n_trials: int = 20,
    points_between: int = 8,
) -> AttractionBarriers:
    """Barriers between points ``first`` and ``second`` (pair, *shape) by trials at the metastable border, from both.

    The last leg, from where a trial stopped within the resolution to the target, is part of the path: on discrete
    spaces by changing the remaining coordinates, the cheapest first; on real ones straight, in pieces no longer than
    the longest step. On real spaces each segment is evaluated at ``points_between`` points more, and the level is the
    highest of all: a path whose steps are seen at their ends only is no upper bound. (It stays as dense as that: a
    bound up to the roughness of the field between points evaluated.)

    Raises UserError as `metastable_borders`.
    """
    n = len(first)
    start, target = torch.cat([first, second]), torch.cat([second, first])
    borders = metastable_borders(diffusion, start, target, temperature, generator, search=search, n_trials=n_trials)
    levels, paths, energies = torch.full((n,), math.inf, dtype=torch.float64), [], []
    for pair in range(n):
        best, best_energy = first[pair][None][:0], torch.empty(0, dtype=torch.float64)
        for role in (pair, n + pair):
            path = borders.paths[role]
            if not len(path):
                continue
            path, energy, highest = _completed(diffusion, path, target[role], points_between)
            if highest < levels[pair]:
                levels[pair] = highest
                best, best_energy = (path, energy) if role == pair else (path.flip(0), energy.flip(0))
        paths.append(best)
        energies.append(best_energy)
    return AttractionBarriers(levels, tuple(paths), tuple(energies), borders.alpha.reshape(2, n).T.contiguous())


class _Searches:
    """Batches of trials, and the lowest path of each search so far."""

    def __init__(
        self,
        diffusion: AttractionDiffusion,
        start: Tensor,
        target: Tensor,
        temperature: Tensor,
        n_trials: int,
        generator: torch.Generator,
    ) -> None:
        self.diffusion, self.start, self.target, self.temperature = diffusion, start, target, temperature
        self.n_trials, self.generator, self.trials = n_trials, generator, 0
        self.level = torch.full((len(start),), math.inf, dtype=torch.float64)
        self.paths = [start[:0]] * len(start)

    def attempt(self, rows: Tensor, alpha: Tensor) -> Tensor:
        """Whether any of ``n_trials`` trials of each row succeeds at its alpha, (row,) bool."""
        at_once = len(rows)
        if not self.diffusion.compiled:
            at_once = max(1, _PATH_NUMBERS // (self.n_trials * self.diffusion.field.space.n_coordinates))
        parts = zip(rows.split(at_once), alpha.split(at_once), strict=True)
        return torch.cat([self._attempt(part, strength) for part, strength in parts])

    def _attempt(self, rows: Tensor, alpha: Tensor) -> Tensor:
        each = rows.repeat_interleave(self.n_trials)
        strength = alpha.repeat_interleave(self.n_trials)
        keys = drawn_keys(len(each), self.generator) if self.diffusion.compiled else None
        trials = self._run(each, strength, keys, keep_paths=keys is None)
        self.trials += len(each)
        level = torch.where(trials.success, trials.highest, math.inf).reshape(-1, self.n_trials)
        lowest, which = level.min(1)
        better = (lowest < self.level[rows]).nonzero()[:, 0]
        chosen = better * self.n_trials + which[better]
        if len(chosen):
            paths = [trials.paths[k] for k in chosen.tolist()] if trials.paths else None
            if keys is not None:  # a compiled trial is its key: the best ones are made again, with their paths
                again = self._run(each[chosen], strength[chosen], keys[chosen.numpy()], keep_paths=True)
                paths = list(again.paths)
            for k, row in enumerate(rows[better].tolist()):
                self.level[row] = lowest[better[k]]
                self.paths[row] = paths[k] if paths else self.paths[row]
        return torch.isfinite(lowest)

    def _run(self, rows: Tensor, alpha: Tensor, keys: object, keep_paths: bool) -> Trials:
        return self.diffusion.run_trials(
            self.start[rows],
            self.target[rows],
            self.temperature[rows],
            alpha,
            self.generator,
            keep_paths=keep_paths,
            keys=keys,  # type: ignore[arg-type]
        )


def _completed(
    diffusion: AttractionDiffusion, path: Tensor, target: Tensor, points_between: int
) -> tuple[Tensor, Tensor, float]:
    """The path carried on to the target, its energies, and the highest energy on it."""
    field = diffusion.field
    if isinstance(field.space, DiscreteSpace):
        path = _carried_on(diffusion, path, target)
        energy = field.value(path)
        return path, energy, float(energy.max())
    longest = (path[1:] - path[:-1]).flatten(1).norm(dim=1).max() if len(path) > 1 else torch.tensor(math.inf)
    pieces = max(1, math.ceil(float((target - path[-1]).norm() / longest)))
    along = torch.linspace(0.0, 1.0, pieces + 1, dtype=path.dtype)[1:].reshape(-1, *[1] * target.ndim)
    path = torch.cat([path, path[-1] + along * (target - path[-1])])
    path[-1] = target
    energy = field.value(path)
    share = torch.linspace(0.0, 1.0, points_between + 2, dtype=path.dtype)[1:-1]
    share = share.reshape(-1, *[1] * path.ndim)
    between = (path[:-1] + share * (path[1:] - path[:-1])).flatten(0, 1)
    highest = float(energy.max())
    if len(between):
        highest = max(highest, float(field.value(between).max()))
    return path, energy, highest


def _carried_on(diffusion: AttractionDiffusion, path: Tensor, target: Tensor) -> Tensor:
    """The path followed by changes of single coordinates to the target's, the cheapest first."""
    steps, now, aim = [path], path[-1].flatten().clone(), target.flatten()
    while bool((left := (now != aim).nonzero()[:, 0]).numel()):
        options = now.repeat(len(left), 1)
        options[torch.arange(len(left)), left] = aim[left]
        shaped = options.reshape(-1, *target.shape)
        cheapest = int(diffusion.field.value(shaped).argmin())
        now = options[cheapest].clone()
        steps.append(shaped[[cheapest]])
    return torch.cat(steps)
