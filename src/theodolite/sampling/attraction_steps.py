"""The steps of Attraction-Diffusion in torch: heat bath, Metropolis and Langevin, each row in its own ensemble.

Sources: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", section 3;
Roberts and Tweedie 1996 for Langevin moves with a Metropolis decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.space import Box, DiscreteSpace, Spins

Norm = Literal["L1", "L2"]
Method = Literal["gibbs", "component", "metropolis", "langevin"]

_PATH_BYTES = 2**31


@final
@dataclass(frozen=True)
class Magnetised:
    """The canonical ensemble of a field plus a magnetisation, one for each row: the density is
    exp{-(field / T + alpha |X - X*|)} with respect to counting or Lebesgue measure (equation 3.1).

    ``target`` X* is ``(row, coordinate)``, ``temperature`` T ``(row,)`` in units of the field, ``alpha`` ``(row,)``
    in 1 / distance. The norm is "L1" (on spins twice the number that differ: a uniform pull on every coordinate) or
    "L2" (a pull of the same length everywhere).
    """

    target: Tensor
    temperature: Tensor
    alpha: Tensor
    norm: Norm

    def distance(self, point: Tensor) -> Tensor:
        """|X - X*| of points ``(row, coordinate)``: ``(row,)`` float64."""
        return measure(point - self.target, self.norm)

    def energy(self, value: Tensor, distance: Tensor) -> Tensor:
        """field / T + alpha |X - X*|, ``(row,)`` float64, from the field's values and the distances."""
        return value / self.temperature + self.alpha * distance

    def select(self, rows: Tensor) -> Magnetised:
        return Magnetised(self.target[rows], self.temperature[rows], self.alpha[rows], self.norm)


@final
@dataclass(frozen=True)
class Walkers:
    """The trials under way: points ``(row, coordinate)``, values, distances and energies of the ensemble; highest
    value so far, number of accepted moves; ``within`` is the distance at which rows have arrived.

    Of Langevin moves: the ``drift`` in units of the ``step`` h ``(row, 1)``, which is slope * (gradient of the field)
    + pull * (gradient of the distance), with ``slope`` -h / (2 T) and ``pull`` -h alpha / 2, both ``(row, 1)``.
    """

    point: Tensor
    value: Tensor
    distance: Tensor
    energy: Tensor
    drift: Tensor
    highest: Tensor
    accepted: Tensor
    step: Tensor
    slope: Tensor
    pull: Tensor
    ensemble: Magnetised
    within: float

    @property
    def arrived(self) -> Tensor:
        return self.distance <= self.within

    def moved(
        self,
        accept: Tensor,
        point: Tensor,
        value: Tensor,
        distance: Tensor,
        energy: Tensor,
        drift: Tensor,
        paths: Paths,
        ids: Tensor,
    ) -> Walkers:
        column = accept[:, None]
        value = torch.where(accept, value, self.value)
        point = torch.where(column, point, self.point)
        paths.add(ids, accept, point)
        return Walkers(
            point,
            value,
            torch.where(accept, distance, self.distance),
            torch.where(accept, energy, self.energy),
            torch.where(column, drift, self.drift),
            torch.maximum(self.highest, value),
            self.accepted + accept,
            self.step,
            self.slope,
            self.pull,
            self.ensemble,
            self.within,
        )

    def select(self, rows: Tensor) -> Walkers:
        tensors = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name not in ("ensemble", "within")
        }
        return Walkers(**tensors, ensemble=self.ensemble.select(rows), within=self.within)


@final
@dataclass(frozen=True)
class Steps:
    """One method's iterations on a field; ``step`` is a length in input units (None on discrete spaces), the drift of
    the magnetisation in a Langevin step at most ``largest_drift``."""

    field: Field
    method: Method
    norm: Norm
    step: float | None
    largest_drift: float

    @property
    def moves(self) -> int:
        """Moves in one iteration."""
        return self.field.space.n_coordinates if self.method in ("gibbs", "component") else 1

    def start(self, start: Tensor, ensemble: Magnetised, within: float) -> Walkers:
        point = start.flatten(1)
        n, empty = len(point), torch.empty(len(point), 0)
        step, drift, slope, pull = empty, empty, empty, empty
        apart = point - ensemble.target
        distance = measure(apart, ensemble.norm)
        if self.step is not None:
            step = torch.full((n, 1), float(self.step), dtype=point.dtype)
        if self.method == "langevin":
            bound = (2.0 * self.largest_drift / ensemble.alpha.clamp(min=1e-300)).sqrt().to(point.dtype)[:, None]
            step = torch.minimum(step, bound)
            slope = (-0.5 * step / ensemble.temperature[:, None]).to(point.dtype)
            pull = (-0.5 * step * ensemble.alpha[:, None]).to(point.dtype)
            value, gradient = self.field.value_and_gradient(start)
            drift = self._drift(gradient.flatten(1), apart, distance, slope, pull)
        else:
            value = self.field.value(start)
        zeros, energy = torch.zeros(n, dtype=torch.float64), ensemble.energy(value, distance)
        return Walkers(point, value, distance, energy, drift, value.clone(), zeros, step, slope, pull, ensemble, within)

    def iterate(self, walkers: Walkers, generator: torch.Generator, paths: Paths, ids: Tensor) -> Walkers:
        if self.method == "langevin":
            return self._langevin(walkers, generator, paths, ids)
        if self.method == "metropolis":
            return self._random_walk(walkers, generator, paths, ids)
        for site in range(self.field.space.n_coordinates):
            if self.method == "gibbs":
                walkers = self._heat_bath(walkers, site, generator, paths, ids)
            else:
                walkers = self._component(walkers, site, generator, paths, ids)
        return walkers

    def _langevin(self, walkers: Walkers, generator: torch.Generator, paths: Paths, ids: Tensor) -> Walkers:
        """MALA on the magnetised energy (Roberts and Tweedie 1996). On a box the chain lives on the box unfolded into
        copies mirrored at its walls, on which density and proposal are symmetric: folding it back is exact."""
        ensemble = walkers.ensemble
        noise = torch.randn(walkers.point.shape, generator=generator, dtype=walkers.point.dtype)
        point, sign = self._folded(torch.addcmul(walkers.point, walkers.step, noise + walkers.drift))
        value, gradient = self.field.value_and_gradient(self._shaped(point))
        apart = point - ensemble.target
        distance = measure(apart, ensemble.norm)
        energy = ensemble.energy(value, distance)
        drift = self._drift(gradient.flatten(1), apart, distance, walkers.slope, walkers.pull)
        # The way back needs the noise -(noise + both): the ratio of the two densities in few operations.
        both = walkers.drift + (drift if sign is None else sign * drift)
        gain = walkers.energy - energy - 0.5 * (both * torch.add(both, noise, alpha=2.0)).sum(1)
        accept = torch.rand(len(gain), generator=generator, dtype=torch.float64).log() < gain
        return walkers.moved(accept, point, value, distance, energy, drift, paths, ids)

    def _drift(self, gradient: Tensor, apart: Tensor, distance: Tensor, slope: Tensor, pull: Tensor) -> Tensor:
        """Langevin drift in steps ``(row, coordinate)``; no pull at the target itself."""
        length = distance.clamp(min=1e-12).to(apart.dtype)[:, None]
        direction = apart / length if self.norm == "L2" else apart.sign()
        return torch.addcmul(gradient.to(apart.dtype) * slope, direction, pull)

    def _random_walk(self, walkers: Walkers, generator: torch.Generator, paths: Paths, ids: Tensor) -> Walkers:
        noise = torch.randn(walkers.point.shape, generator=generator, dtype=walkers.point.dtype)
        point, _ = self._folded(walkers.point + walkers.step * noise)
        return self._metropolis(walkers, point, generator, paths, ids)

    def _component(self, walkers: Walkers, site: int, generator: torch.Generator, paths: Paths, ids: Tensor) -> Walkers:
        point, n, space = walkers.point.clone(), len(walkers.point), self.field.space
        if isinstance(space, DiscreteSpace):
            jump = torch.randint(1, space.levels, (n,), generator=generator)
            unit, low = (2, -1) if isinstance(space, Spins) else (1, 0)
            point[:, site] = ((point[:, site] - low) // unit + jump) % space.levels * unit + low
        else:
            point[:, site] += walkers.step[:, 0] * torch.randn(n, generator=generator, dtype=point.dtype)
            point, _ = self._folded(point)
        return self._metropolis(walkers, point, generator, paths, ids)

    def _metropolis(
        self, walkers: Walkers, point: Tensor, generator: torch.Generator, paths: Paths, ids: Tensor
    ) -> Walkers:
        """Decide a symmetric proposal."""
        ensemble = walkers.ensemble
        value, distance = self.field.value(self._shaped(point)), ensemble.distance(point)
        energy = ensemble.energy(value, distance)
        accept = torch.rand(len(energy), generator=generator, dtype=torch.float64).log() < walkers.energy - energy
        return walkers.moved(accept & ~walkers.arrived, point, value, distance, energy, walkers.drift, paths, ids)

    def _heat_bath(self, walkers: Walkers, site: int, generator: torch.Generator, paths: Paths, ids: Tensor) -> Walkers:
        """Draw one coordinate from its distribution given the others: the values of all its other levels."""
        space, ensemble, n = self.field.space, walkers.ensemble, len(walkers.point)
        levels: int = space.levels  # type: ignore[attr-defined]
        unit, low = (2, -1) if isinstance(space, Spins) else (1, 0)
        now = (walkers.point[:, site] - low) // unit
        others = (now[:, None] + torch.arange(1, levels)) % levels
        points = walkers.point[:, None, :].repeat(1, levels, 1)
        points[:, 1:, site] = others * unit + low
        value = torch.cat(
            [walkers.value[:, None], self.field.value(self._shaped(points[:, 1:].flatten(0, 1))).reshape(n, -1)], 1
        )
        distance = measure(points - ensemble.target[:, None], ensemble.norm)
        energy = value / ensemble.temperature[:, None] + ensemble.alpha[:, None] * distance
        chance = (-energy).softmax(1)
        uniform = torch.rand((n, 1), generator=generator, dtype=torch.float64)
        drawn = (chance.cumsum(1) < uniform).sum(1).clamp(max=levels - 1)
        rows = torch.arange(n)
        changed = (drawn > 0) & ~walkers.arrived
        return walkers.moved(
            changed,
            points[rows, drawn],
            value[rows, drawn],
            distance[rows, drawn],
            energy[rows, drawn],
            walkers.drift,
            paths,
            ids,
        )

    def _folded(self, unfolded: Tensor) -> tuple[Tensor, Tensor | None]:
        """The points inside the box, and -1 where an odd number of walls was met (None: nowhere)."""
        space = self.field.space
        if not isinstance(space, Box) or not bool(((unfolded < space.low) | (unfolded > space.high)).any()):
            return unfolded, None
        span = space.high - space.low
        place = (unfolded - space.low).remainder(2.0 * span)
        odd = place > span
        point = (space.low + torch.where(odd, 2.0 * span - place, place)).clamp(space.low, space.high)
        return point, torch.where(odd, -1.0, 1.0).to(unfolded.dtype)

    def _shaped(self, point: Tensor) -> Tensor:
        return point.reshape(len(point), *self.field.space.shape)


class Paths:
    """The accepted points of trials, where they are kept."""

    def __init__(self, kept: bool, n: int, start: Tensor) -> None:
        self.kept = kept
        self._ids = [torch.arange(n)] if kept else []
        self._points = [start] if kept else []
        self._bytes = 0

    def add(self, ids: Tensor, accept: Tensor, point: Tensor) -> None:
        if not self.kept:
            return
        self._ids.append(ids[accept])
        self._points.append(point[accept])
        self._bytes += self._points[-1].numel() * point.element_size()
        refuse_large_paths(self._bytes)

    def collect(self, success: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """The points of each trial that succeeded, in order; none for the others."""
        if not self.kept:
            return ()
        ids, points = torch.cat(self._ids), torch.cat(self._points)
        order = ids.sort(stable=True).indices
        counts = torch.bincount(ids, minlength=len(success)).tolist()
        parts = points[order].reshape(-1, *shape).split(counts)
        return tuple(part if good else part[:0] for part, good in zip(parts, success.tolist(), strict=True))


def measure(apart: Tensor, norm: Norm) -> Tensor:
    """Length of differences ``(..., coordinate)`` in a norm, ``(...)`` float64."""
    if norm == "L1":
        return apart.abs().sum(-1).double()
    if not apart.is_floating_point():
        return apart.square().sum(-1).double().sqrt()
    return torch.linalg.vector_norm(apart, dim=-1).double()


def refuse_large_paths(n_bytes: int) -> None:
    if n_bytes > _PATH_BYTES:
        raise UserError(
            "keep_paths", "paths of at most 2 GB", f"{n_bytes / 1e9:.1f} GB", "keep the paths of fewer trials at once"
        )
