"""Choosing the temperature and the magnetisation of Attraction-Diffusion, and the phase diagram of two minima.

Source: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", sections 3.3,
3.4 and 4.2, Figures 9, 10 and 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.adelm import Adelm
from theodolite.instruments.attraction_borders import Search, metastable_borders
from theodolite.sampling.attraction_diffusion import AttractionDiffusion, checked_alpha, checked_temperature
from theodolite.sampling.attraction_steps import Norm, measure
from theodolite.space import DiscreteSpace

_HIGH = 0.9  # quantile of the heights of straight paths: most may stay inside one basin
_CLIMB_SHARE = 1.0 / 80.0  # of that; straight paths overstate the barriers of rough landscapes by about ten
_ORDERED = 0.5
_STRAIGHT_POINTS = 64
_PAIRS = 20


@final
@dataclass(frozen=True)
class Tuned:
    """What tuning measured, and what it proposes.

    ``temperatures`` (temperature,) rising, in units of the field, with ``energies`` (temperature, iteration + 1): the
    mean over minima of the energy along unmagnetised chains, above that of their start, and ``climbs``
    (temperature,): the mean height of their highest points. ``alphas`` (alpha,) rising, in 1 / distance, with
    ``basins`` (alpha,): basins in a short mapping at the proposed temperature. ``temperature``, ``alpha``: the
    proposal; ``rule``: how it was made, in words; ``diffusion``: the settings with the step found at that temperature
    (the same where they had one, or need none).
    """

    temperatures: Tensor
    energies: Tensor
    climbs: Tensor
    alphas: Tensor
    basins: Tensor
    temperature: float
    alpha: float
    rule: str
    diffusion: AttractionDiffusion


@final
@dataclass(frozen=True)
class PhaseDiagram:
    """The metastable regions of two minima (Figures 9 and 10); role 0 starts from the first, role 1 from the second.

    ``temperature`` (temperature,) rising, in units of the field; ``border`` (role, temperature): the least alpha that
    reached the other minimum, in 1 / distance; ``alpha``: the same, NaN above the start's critical temperature, where
    nothing is metastable; ``barrier`` (role, temperature): the highest energy of the lowest path seen (inf: none);
    ``order`` (role, temperature): the order parameter of unmagnetised chains from the start, (d_other - d_start) /
    distance of the minima, 1 where they stay and 0 where they forget; ``critical_temperature`` (role,): where it
    falls under 1/2, inf or 0 where it does so above or below all temperatures tried.
    """

    temperature: Tensor
    border: Tensor
    alpha: Tensor
    barrier: Tensor
    order: Tensor
    critical_temperature: Tensor


def proposed_resolution(minima: Tensor, norm: Norm = "L2") -> float:
    """A quarter of the median distance between distinct minima (minimum, *shape): a resolution for real spaces.

    Raises UserError where there are not two distinct minima.
    """
    flat = minima.flatten(1).double()
    first, second = torch.triu_indices(len(flat), len(flat), 1)
    apart = measure(flat[first] - flat[second], norm)
    apart = apart[apart > 1e-3 * apart.max()] if len(apart) else apart
    if not len(apart):
        raise UserError("minima", "at least two distinct minima", f"{len(flat)} at one place", "propose more points")
    return 0.25 * float(apart.median())


def tune(
    diffusion: AttractionDiffusion,
    propose: Callable[[int, torch.Generator], Tensor],
    descend: Callable[[Tensor], tuple[Tensor, Tensor]],
    generator: torch.Generator,
    *,
    temperatures: Tensor | None = None,
    alphas: Tensor | None = None,
    n_proposals: int = 100,
    n_iterations: int = 200,
    n_minima: int = 40,
    climb: float | None = None,
) -> Tuned:
    """Tune temperature and magnetisation as the paper does (Figure 13), with a rule in place of the eye.

    Temperature: unmagnetised chains of ``n_iterations`` from up to ``n_minima`` minima; the highest temperature at
    which they climb, on average, at most ``climb`` above their start. None takes 1/80 of the 90th percentile of the
    heights of straight paths between minima, which in rough landscapes are far above the barriers. Magnetisation:
    mappings of the same ``n_proposals`` at each alpha; the least alpha that leaves no more basins than the geometric
    mean of 1 and the number of distinct minima. No labels are looked at.

    ``propose`` and ``descend`` as in `Adelm`. Temperatures and alphas: None takes geometric grids (12 and 13 values)
    around the scale of the straight paths. Where a real space's ``diffusion.step`` is None, a step is found at each
    temperature.

    Raises UserError: temperatures, alphas or a climb out of range; fewer than two distinct minima.
    """
    if n_proposals < 2 or n_iterations < 1 or n_minima < 1:
        got = f"{n_proposals}, {n_iterations}, {n_minima}"
        raise UserError("n_proposals, n_iterations, n_minima", "at least 2, 1 and 1", got, "leave them out")
    if climb is not None and not (math.isfinite(climb) and climb > 0):
        raise UserError("climb", "an energy above 0", f"{climb:g}", "leave it out")
    if temperatures is not None:
        temperatures = checked_temperature(temperatures).reshape(-1).sort().values
    if alphas is not None:
        alphas = checked_alpha(alphas).reshape(-1).sort().values
    points = propose(n_proposals, generator)
    minima, energy = descend(points)
    height, distance = _straight_paths(diffusion, points, minima, generator)
    largest = climb if climb is not None else _CLIMB_SHARE * height
    if temperatures is None:
        temperatures = height * torch.logspace(-4, -0.5, 12, dtype=torch.float64)
    some = minima[torch.randperm(len(minima), generator=generator)[:n_minima]]
    rises, climbs = [], []
    for temperature in temperatures.tolist():
        stepped = _with_step(diffusion, some, temperature, generator)
        chains = stepped.run_chains(some, some, temperature, 0.0, n_iterations, generator)
        rises.append((chains.energy - chains.energy[:, :1]).mean(0))
        climbs.append((chains.energy.amax(1) - chains.energy[:, 0]).mean())
    climbed = torch.stack(climbs)
    cold = (climbed <= largest).nonzero()[:, 0]
    chosen = int(cold.max()) if len(cold) else 0
    temperature = float(temperatures[chosen])
    stepped = _with_step(diffusion, some, temperature, generator)
    if alphas is None:
        alphas = height / (temperature * distance) * torch.logspace(-5, 3, 13, base=2.0, dtype=torch.float64)
    basins = torch.tensor(
        [_mapped_basins(stepped, temperature, alpha, points, minima, energy, generator) for alpha in alphas.tolist()]
    )
    n_distinct = _n_distinct(minima, energy, diffusion.resolution)
    few = (basins <= math.sqrt(n_distinct)).nonzero()[:, 0]
    alpha = float(alphas[int(few.min())]) if len(few) else float(alphas[-1])
    rule = (
        f"T = {temperature:.3g}: the highest tried at which unmagnetised chains climb at most {largest:.3g} on average"
        + ("" if len(cold) else " (none does: the lowest tried)")
        + f"; alpha = {alpha:.3g}: the least tried that leaves at most {math.sqrt(n_distinct):.1f} basins, the "
        + f"geometric mean of 1 and {n_distinct} minima"
        + ("" if len(few) else " (none does: the highest tried)")
    )
    return Tuned(temperatures, torch.stack(rises), climbed, alphas, basins, temperature, alpha, rule, stepped)


def phase_diagram(
    diffusion: AttractionDiffusion,
    first: Tensor,
    second: Tensor,
    temperatures: Tensor,
    generator: torch.Generator,
    *,
    search: Search = "paper",
    n_trials: int = 20,
    n_iterations: int | None = None,
) -> PhaseDiagram:
    """The metastable border between two minima ``first`` and ``second`` (*shape) in both roles, by temperature.

    ``search`` and ``n_trials`` as in `metastable_borders`. The order parameter is that of ``n_trials`` unmagnetised
    chains of ``n_iterations`` (None: ten times the improvement limit), over the second half of them.
    Where a real space's ``diffusion.step`` is None, a step is found at each temperature.

    Raises UserError: the same point twice, and what `metastable_borders` raises.
    """
    temperatures = checked_temperature(temperatures).reshape(-1).sort().values
    if not float(diffusion.distance(first[None], second[None])) > diffusion.resolution:
        raise UserError("first, second", "minima further apart than the resolution", "closer ones", "choose others")
    n, length = len(temperatures), n_iterations or 10 * diffusion.improvement_limit
    ends = torch.stack([first, second])
    start, target = ends.repeat_interleave(n, 0), ends.flip(0).repeat_interleave(n, 0)
    warmth = temperatures.repeat(2)
    border, barrier, order = torch.empty((3, 2 * n), dtype=torch.float64)
    # One step length serves all temperatures of a discrete space, or the one that was given.
    together = isinstance(diffusion.field.space, DiscreteSpace) or diffusion.step is not None
    for rows in [torch.arange(2 * n)] if together else torch.arange(2 * n).reshape(2, n).T:
        stepped = diffusion if together else _with_step(diffusion, ends, float(warmth[rows[0]]), generator)
        found = metastable_borders(
            stepped, start[rows], target[rows], warmth[rows], generator, search=search, n_trials=n_trials
        )
        border[rows], barrier[rows] = found.alpha, found.level
        order[rows] = _order(stepped, start[rows], target[rows], warmth[rows], n_trials, length, generator)
    border, order = border.reshape(2, n), order.reshape(2, n)
    return PhaseDiagram(
        temperatures,
        border,
        torch.where(order < _ORDERED, math.nan, border),
        barrier.reshape(2, n),
        order,
        torch.tensor([_critical(temperatures, row) for row in order], dtype=torch.float64),
    )


def _order(
    diffusion: AttractionDiffusion,
    start: Tensor,
    target: Tensor,
    temperature: Tensor,
    n_chains: int,
    n_iterations: int,
    generator: torch.Generator,
) -> Tensor:
    """Order parameter of unmagnetised chains from each start (row,), over points of their second halves."""
    each = torch.arange(len(start)).repeat_interleave(n_chains)
    origin, other, point = start[each], target[each], start[each]
    n_looks, total = 10, torch.zeros(len(each), dtype=torch.float64)
    for look in range(2 * n_looks):
        n_now = max(1, n_iterations // (2 * n_looks))
        point = diffusion.run_chains(point, other, temperature[each], 0.0, n_now, generator).point
        if look >= n_looks:
            total += diffusion.distance(point, other) - diffusion.distance(point, origin)
    return (total / (n_looks * diffusion.distance(origin, other))).reshape(len(start), n_chains).mean(1)


def _critical(temperatures: Tensor, order: Tensor) -> float:
    """Temperature at which the order parameter first falls under 1/2, between the temperatures tried in ln T."""
    fallen = (order < _ORDERED).nonzero()[:, 0]
    if not len(fallen):
        return math.inf
    k = int(fallen[0])
    if k == 0:
        return 0.0
    share = float((order[k - 1] - _ORDERED) / (order[k - 1] - order[k]))
    low, high = float(temperatures[k - 1]), float(temperatures[k])
    return low * (high / low) ** share


def _with_step(
    diffusion: AttractionDiffusion, points: Tensor, temperature: float, generator: torch.Generator
) -> AttractionDiffusion:
    if isinstance(diffusion.field.space, DiscreteSpace) or diffusion.step is not None:
        return diffusion
    return diffusion.with_tuned_step(points, temperature, generator)


def _straight_paths(
    diffusion: AttractionDiffusion, points: Tensor, minima: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """The 90th percentile of the heights above the higher end, and the median length, of straight paths between
    random distinct minima; on discrete spaces the coordinates change one after another in a random order."""
    order = torch.randperm(len(minima), generator=generator)
    first, second = minima[order], minima[order.roll(1)]
    apart = diffusion.distance(first, second)
    distinct = (apart > max(diffusion.resolution, 1e-3 * float(apart.max()))).nonzero()[:, 0][:_PAIRS]
    if not len(distinct):
        raise UserError(
            "propose", "proposals with at least two distinct minima", f"one of {len(minima)} proposals", "propose more"
        )
    first, second, field = first[distinct], second[distinct], diffusion.field
    heights = []
    for a, b in zip(first, second, strict=True):
        if isinstance(field.space, DiscreteSpace):
            n = a.numel()
            rank = torch.empty(n, dtype=torch.int64)
            rank[torch.randperm(n, generator=generator)] = torch.arange(n)
            changed = rank[None] < torch.arange(n + 1)[:, None]
            path = torch.where(changed, b.flatten(), a.flatten()).reshape(n + 1, *a.shape)
        else:
            share = torch.linspace(0.0, 1.0, _STRAIGHT_POINTS, dtype=a.dtype).reshape(-1, *[1] * a.ndim)
            path = a + share * (b - a)
        value = field.value(path)
        heights.append(float(value.max() - torch.maximum(value[0], value[-1])))
    height = float(torch.tensor(heights, dtype=torch.float64).quantile(_HIGH))
    if not height > 0:  # a funnel: straight paths run downhill
        height = max(max(heights), 1e-3 * float(field.value(points).std()))
    return height, float(apart[distinct].median())


def _mapped_basins(
    diffusion: AttractionDiffusion,
    temperature: float,
    alpha: float,
    points: Tensor,
    minima: Tensor,
    energy: Tensor,
    generator: torch.Generator,
) -> int:
    """Basins of a short mapping of known minima, before any consolidation."""
    mapping = Adelm(
        diffusion,
        temperature,
        alpha,
        propose=lambda n, generator: points,
        descend=lambda points: (minima, energy),
        burn_in=0,
        test=len(points),
        consolidate_last=False,
        batch=len(points),
    )
    state, _ = mapping.step(mapping.init(generator), generator)
    return state.n_basins


def _n_distinct(minima: Tensor, energy: Tensor, resolution: float) -> int:
    """Minima left when those within the resolution of a lower one are dropped."""
    flat = minima[energy.argsort()].flatten(1).double()
    near = torch.cdist(flat, flat) <= max(resolution, 1e-9)
    kept: list[int] = []
    for k in range(len(flat)):
        if not kept or not bool(near[k, kept].any()):
            kept.append(k)
    return len(kept)
