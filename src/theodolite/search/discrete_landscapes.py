"""What heuristic paths need of a discrete landscape: energies, quenches and beams of paths, for spins with flip costs
and for fields that give values.

The beam widens the greedy interpolation of Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.1, which is the beam of width 1.
"""

from __future__ import annotations

from typing import Any, Protocol, final

import numpy as np
import torch
from numba import njit
from scipy.spatial.distance import cdist

from theodolite import spin_kernels
from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field, FlipCosts
from theodolite.search.descent import Neighbourhood, descend, is_minimum
from theodolite.site_changes import spin_rounding
from theodolite.space import DiscreteSpace


class Ground(Protocol):
    """What paths need of a landscape; points are rows ``(batch, n)`` of ``dtype``."""

    n: int
    dtype: Any
    mirrored: bool

    def read(self, name: str, points: np.ndarray) -> np.ndarray: ...

    def write(self, points: np.ndarray) -> np.ndarray: ...

    def energies(self, points: np.ndarray) -> np.ndarray: ...

    def quench(self, points: np.ndarray) -> np.ndarray: ...

    def paths(self, first: np.ndarray, second: np.ndarray, width: int) -> list[np.ndarray]: ...

    def distances(self, points: np.ndarray, others: np.ndarray) -> np.ndarray: ...

    def refuse_unless_minima(self, name: str, points: np.ndarray) -> None: ...


def ground_of(landscape: FlipCosts | Field, neighbourhood: Neighbourhood = "any") -> Ground:
    """The landscape of spins with flip costs, or of a discrete field."""
    if isinstance(landscape, FlipCosts):
        return SpinGround(landscape)
    if landscape.flip_costs is not None:
        return SpinGround(landscape.flip_costs)
    return LevelGround(landscape, neighbourhood)


def _refuse_others(name: str, minimum: np.ndarray) -> None:
    if not minimum.all():
        raise UserError(
            name,
            "local minima",
            f"{int((~minimum).sum())} of {len(minimum)} that are not, the first at row {int(minimum.argmin())}",
            "descend them first: theodolite.search.descent.descend",
        )


@final
class SpinGround:
    """Spins of -1 and +1 (int8) with pair couplings."""

    def __init__(self, costs: FlipCosts) -> None:
        self.costs = costs
        self.n = len(costs.couplings)
        self.dtype = np.int8
        self.mirrored = costs.mirrored

    def read(self, name: str, points: np.ndarray) -> np.ndarray:
        spins = np.asarray(points)
        if spins.ndim != 2 or spins.shape[1] != self.n or not np.isin(spins, (-1, 1)).all():
            raise UserError(name, f"spins of -1 and +1, (batch, {self.n})", f"shape {spins.shape}", "batch on axis 0")
        return spins.astype(np.int8)

    def write(self, points: np.ndarray) -> np.ndarray:
        return points

    def local_fields(self, points: np.ndarray) -> np.ndarray:
        return points @ self.costs.couplings + self.costs.external

    def energies(self, points: np.ndarray) -> np.ndarray:
        fields = self.local_fields(points) + self.costs.external
        return self.costs.constant - 0.5 * (points * fields).sum(1)

    def quench(self, points: np.ndarray) -> np.ndarray:
        spins = points.astype(np.float64)
        _quench_all(self.costs.couplings, spins, self.local_fields(spins), spin_rounding(self.costs))
        return spins.astype(np.int8)

    def distances(self, points: np.ndarray, others: np.ndarray) -> np.ndarray:
        return 0.5 * (self.n - points.astype(np.float32) @ others.astype(np.float32).T)

    def paths(self, first: np.ndarray, second: np.ndarray, width: int) -> list[np.ndarray]:
        differing = first != second
        lengths = differing.sum(1)
        states = np.repeat(first, lengths + 1, axis=0)
        starts = np.concatenate([[0], np.cumsum(lengths + 1)])
        keys = spin_kernels.zobrist_keys(self.n)
        _fill_paths(
            self.costs.couplings,
            keys,
            first,
            differing,
            self.local_fields(first),
            self.energies(first),
            width,
            starts,
            states,
        )
        return np.split(states, starts[1:-1])

    def refuse_unless_minima(self, name: str, points: np.ndarray) -> None:
        costs = 2.0 * points * self.local_fields(points)
        _refuse_others(name, costs.min(1) >= -spin_rounding(self.costs))


@njit(nogil=True)
def _quench_all(couplings: np.ndarray, spins: np.ndarray, fields: np.ndarray, tolerance: float) -> None:
    for row in range(len(spins)):
        spin_kernels.steepest_descent(couplings, spins[row], fields[row], tolerance)


@njit(nogil=True)
def _fill_paths(
    couplings: np.ndarray,
    keys: np.ndarray,
    first: np.ndarray,
    differing: np.ndarray,
    fields: np.ndarray,
    energies: np.ndarray,
    width: int,
    starts: np.ndarray,
    states: np.ndarray,
) -> None:
    """Write the beam's path of each pair into its rows of ``states``, which hold copies of the first."""
    for pair in range(len(first)):
        site = np.flatnonzero(differing[pair])
        n_steps = len(site)
        spins = first[pair, site].astype(np.float64)
        costs = 2.0 * spins * fields[pair, site]
        gains = np.empty((n_steps, n_steps))
        for a in range(n_steps):
            for b in range(n_steps):
                gains[a, b] = 4.0 * couplings[site[a], site[b]] * spins[a] * spins[b]
        order = _beam(costs, gains, keys, energies[pair], width)
        for step in range(n_steps):
            flipped = site[order[step]]
            for row in range(starts[pair] + step + 1, starts[pair + 1]):
                states[row, flipped] = -states[row, flipped]


@njit(nogil=True)
def _beam(costs: np.ndarray, gains: np.ndarray, keys: np.ndarray, energy: float, width: int) -> np.ndarray:
    """The order ``(n,)`` in which to flip n spins that all have to be flipped once.

    ``costs`` (n,) of flipping each from the start; flipping a makes flipping b cheaper by ``gains[a, b]``. A beam's
    states are ranked by the highest energy so far, then the energy; a state reached twice counts once.
    """
    n = len(costs)
    cost, new_cost = np.empty((width, n)), np.empty((width, n))
    value, new_value = np.empty(width), np.empty(width)
    peak, new_peak = np.empty(width), np.empty(width)
    key, new_key = np.zeros(width, np.uint64), np.zeros(width, np.uint64)
    parent, flipped = np.zeros((n, width), np.int32), np.zeros((n, width), np.int32)
    cost[0] = costs
    value[0] = peak[0] = energy
    n_states = 1
    for step in range(n):
        filled = 0
        for w in range(n_states):
            for k in range(n):
                lower = value[w] + cost[w, k]
                top = max(peak[w], lower)
                if filled == width and not _before(top, lower, new_peak[width - 1], new_value[width - 1]):
                    continue
                if lower == np.inf:  # flipped already
                    continue
                name = key[w] ^ keys[k]
                same = filled
                for other in range(filled):
                    if new_key[other] == name:
                        same = other
                        break
                if same < filled and not _before(top, lower, new_peak[same], new_value[same]):
                    continue
                place = min(same, width - 1)
                while place > 0 and _before(top, lower, new_peak[place - 1], new_value[place - 1]):
                    new_value[place], new_peak[place] = new_value[place - 1], new_peak[place - 1]
                    new_key[place] = new_key[place - 1]
                    parent[step, place], flipped[step, place] = parent[step, place - 1], flipped[step, place - 1]
                    place -= 1
                new_value[place], new_peak[place], new_key[place] = lower, top, name
                parent[step, place], flipped[step, place] = w, k
                if same == filled and filled < width:
                    filled += 1
        for place in range(filled):
            w, k = parent[step, place], flipped[step, place]
            for b in range(n):
                new_cost[place, b] = cost[w, b] - gains[k, b]
            new_cost[place, k] = np.inf
        cost, new_cost = new_cost, cost
        value, new_value = new_value, value
        peak, new_peak = new_peak, peak
        key, new_key = new_key, key
        n_states = filled
    order = np.empty(n, np.int64)
    place = 0
    for step in range(n - 1, -1, -1):
        order[step] = flipped[step, place]
        place = parent[step, place]
    return order


@njit
def _before(peak: float, value: float, other_peak: float, other_value: float) -> bool:
    return peak < other_peak or (peak == other_peak and value < other_value)


@final
class LevelGround:
    """Levels (int64) of a discrete field that gives values."""

    def __init__(self, field: Field, neighbourhood: Neighbourhood) -> None:
        if not isinstance(field.space, DiscreteSpace):
            raise MissingCapability(
                "landscape", "a discrete field", field.space.describe(), "use paths of real points on real spaces"
            )
        self.field = field
        self.space = field.space
        self.n = field.space.n_coordinates
        self.dtype = np.int64
        self.mirrored = False
        self.neighbourhood: Neighbourhood = neighbourhood

    def read(self, name: str, points: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(np.asarray(points))
        if tuple(x.shape[1:]) != self.space.shape or not bool(self.space.contains(x).all()):
            raise UserError(name, f"points of {self.space.describe()}", f"shape {tuple(x.shape)}", "batch on axis 0")
        return self.space.to_levels(x).numpy()

    def write(self, points: np.ndarray) -> np.ndarray:
        return self.space.from_levels(torch.from_numpy(points)).numpy()

    def energies(self, points: np.ndarray) -> np.ndarray:
        return self.field.value(torch.from_numpy(self.write(points))).numpy()

    def quench(self, points: np.ndarray) -> np.ndarray:
        return self.space.to_levels(
            descend(self.field, torch.from_numpy(self.write(points)), neighbourhood=self.neighbourhood).point
        ).numpy()

    def distances(self, points: np.ndarray, others: np.ndarray) -> np.ndarray:
        if self.neighbourhood == "adjacent":
            return cdist(points, others, "cityblock")
        return self.n * cdist(points, others, "hamming")

    def paths(self, first: np.ndarray, second: np.ndarray, width: int) -> list[np.ndarray]:
        return [self._path(start, end, width) for start, end in zip(first, second, strict=True)]

    def refuse_unless_minima(self, name: str, points: np.ndarray) -> None:
        x = torch.from_numpy(self.write(points))
        _refuse_others(name, is_minimum(self.field, x, neighbourhood=self.neighbourhood).numpy())

    def _path(self, first: np.ndarray, second: np.ndarray, width: int) -> np.ndarray:
        """The beam of ``_beam``, all candidates of a step evaluated together."""
        states, peak = first[None], self.energies(first[None])
        layers = [states]
        parents = []
        while (states[0] != second).any():
            parent, site = np.nonzero(states != second)
            candidates = states[parent]
            row = np.arange(len(site))
            step = second[site] - candidates[row, site]
            candidates[row, site] += np.sign(step) if self.neighbourhood == "adjacent" else step
            value = self.energies(candidates)
            top = np.maximum(peak[parent], value)
            order = np.lexsort((value, top))
            _, best = np.unique(candidates[order], axis=0, return_index=True)
            kept = order[np.sort(best)[:width]]
            states, peak = candidates[kept], top[kept]
            layers.append(states)
            parents.append(parent[kept])
        place = 0
        path = [layers[-1][place]]
        for layer, parent in zip(layers[-2::-1], parents[::-1], strict=True):
            place = parent[place]
            path.append(layer[place])
        return np.array(path[::-1])
