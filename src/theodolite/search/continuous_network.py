"""The network of minima and passes of a field on a real space, grown from both ends and from saddles.

Minima by batched descents; saddles of index 1 from random starts and from the tops of doubly nudged bands between
near minima; every saddle joined to the minima below it; and the min-max closure over all of it. The scheme is
discrete path sampling's (Wales, Mol. Phys. 100, 3285, 2002); every level is that of a path that is kept, hence an
upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.elastic_band import ElasticBand, relax_band
from theodolite.search.minimise import bounds, distinct, minimise
from theodolite.search.pass_paths import Crossings, band_points, cross_bands, cross_saddles
from theodolite.search.passes import bottlenecks, minimum_spanning_passes
from theodolite.search.real_paths import linear_path, pin_barrier, stack_paths, subdivide
from theodolite.search.string import String, refine
from theodolite.search.transition_states import MOST_COORDINATES, TransitionStates, curvatures, transition_states

__all__ = ["ContinuousNetwork", "ContinuousSearch", "NetworkState", "find_network"]

_ROWS_PER_STEP = 1024
_OPTIMISM = 0.1  # share of the known passes that rise less than is guessed for the unknown ones
_CLIMBS = 30  # steps of a saddle search; the rows that need more find nothing in a hundred either
_LOOSE = 1e3  # saddles this many gradient tolerances away still show where a pass is; the path has the level


@final
@dataclass(frozen=True)
class ContinuousNetwork:
    """Minima in rising energy, ``point`` ``(n, *shape)`` and ``energy`` ``(n,)``, and the passes between them.

    Pass p joins minima ``ends[p]`` (``(m, 2)``) along ``path[p]`` ``(points, *shape)``, whose highest energy, its
    pinned maximum, is ``level[p]``. ``verified[p]``: its top is a saddle with one negative curvature, ``saddle[p]``;
    otherwise that is merely the path's highest point. ``spanning``: the passes of the minimum spanning forest, rising
    in level; ``barrier`` ``(n, n)``: the upper bounds they give, inf where unconnected, energies on the diagonal.
    """

    point: Tensor
    energy: Tensor
    ends: Tensor
    level: Tensor
    saddle: Tensor
    verified: Tensor
    path: list[Tensor]
    spanning: Tensor
    barrier: Tensor


@dataclass
class NetworkState:
    """Between two steps: the network so far, the starts that wait, and the pairs that were tried."""

    stage: str  # "minima", "pairs" or "done"
    starts: Tensor
    saddle_starts: Tensor
    point: Tensor
    energy: Tensor
    ends: Tensor
    level: Tensor
    saddle: Tensor
    verified: Tensor
    path: list[Tensor]
    known_saddle: Tensor  # those that join nothing too, so that none is followed twice
    tried: Tensor  # (k, 2)


@final
@dataclass(frozen=True)
class ContinuousSearch:
    """How the network is grown; `init`, `step` and `network` follow the state machine of the library.

    ``n_starts`` descents and ``n_saddle_starts`` saddle searches begin at random points; then bands of ``n_images``
    join each minimum with its ``neighbours`` nearest, unconnected parts with each other, and over each merge of the
    tree the ``across`` most promising pairs and all that promise a lower level, ``pairs_per_step`` at a time, until
    no untried pair is left. Pairs are sought among the ``most_minima`` lowest. Minima closer than ``same_distance``
    (input units; None: a thousandth of the box's diagonal, or of the normal law's) are one. A field in float32 needs
    a ``gradient_tolerance`` near 1e-3.

    Raises UserError: a discrete space, or a number out of range.
    """

    field: Field
    n_starts: int = 256
    n_saddle_starts: int = 64
    neighbours: int = 4
    across: int = 2
    n_images: int = 14
    band: ElasticBand = ElasticBand(iterations=25, check_every=25)
    string: String = String()
    pairs_per_step: int = 128
    most_minima: int = 1000
    same_distance: float | None = None
    gradient_tolerance: float = 1e-6

    def __post_init__(self) -> None:
        bounds(self.field)
        for name, least in (
            ("n_starts", 1),
            ("n_saddle_starts", 0),
            ("neighbours", 1),
            ("across", 0),
            ("n_images", 3),
            ("pairs_per_step", 1),
            ("most_minima", 2),
        ):
            if getattr(self, name) < least:
                raise UserError(name, f"at least {least}", repr(getattr(self, name)), "leave it out for the default")
        if not self.gradient_tolerance > 0 or not (self.same_distance is None or self.same_distance > 0):
            raise UserError("gradient_tolerance, same_distance", "positive", "0 or less", "leave them out")

    def init(
        self,
        generator: torch.Generator,
        starts: Tensor | None = None,
        propose: Callable[[int, torch.Generator], Tensor] | None = None,
    ) -> NetworkState:
        """Nothing found yet. Starts: ``starts`` ``(k, *shape)``, and else what ``propose(n, generator)`` gives
        (default: draws from the space). Raises UserError for starts outside the space."""
        draw = propose or self.field.space.draw
        starts = draw(self.n_starts, generator) if starts is None else starts
        if len(starts) == 0 or not bool(self.field.space.contains(starts).all()):
            raise UserError("starts", f"points of {self.field.space.describe()}", "others, or none", "draw them")
        possible = self.field.space.n_coordinates <= MOST_COORDINATES
        saddle_starts = draw(self.n_saddle_starts if possible else 0, generator).double()
        shape = self.field.space.shape
        return NetworkState(
            "minima",
            starts.double(),
            saddle_starts,
            torch.empty(0, *shape, dtype=torch.float64),
            torch.empty(0, dtype=torch.float64),
            torch.empty(0, 2, dtype=torch.long),
            torch.empty(0, dtype=torch.float64),
            torch.empty(0, *shape, dtype=torch.float64),
            torch.empty(0, dtype=torch.bool),
            [],
            torch.empty(0, *shape, dtype=torch.float64),
            torch.empty(0, 2, dtype=torch.long),
        )

    def step(self, state: NetworkState, generator: torch.Generator) -> tuple[NetworkState, dict[str, float | str]]:
        """One batch of descents, or of pairs and saddle searches; ``stage`` becomes "done" when none is left.

        ``generator`` is not used: all chance is in `init`."""
        state = replace(state, path=list(state.path))
        n_pairs = 0
        if state.stage == "minima":
            rows, state.starts = state.starts[:_ROWS_PER_STEP], state.starts[_ROWS_PER_STEP:]
            self._quench(state, rows)
            state.stage = "pairs" if len(state.starts) == 0 else "minima"
        elif state.stage == "pairs":
            pairs = self._pairs(state)
            n_pairs = len(pairs)
            if n_pairs or len(state.saddle_starts):
                self._connect(state, pairs)
            else:
                state.stage = "done"
        return state, {
            "stage": state.stage,
            "minima": len(state.point),
            "passes": len(state.path),
            "pairs": n_pairs,
        }

    def network(self, state: NetworkState) -> ContinuousNetwork:
        """What is known so far, minima in rising energy."""
        order = torch.argsort(state.energy, stable=True)
        rank = torch.argsort(order)
        ends, energy = rank[state.ends], state.energy[order]
        arguments = (len(energy), ends[:, 0].numpy(), ends[:, 1].numpy(), state.level.numpy())
        return ContinuousNetwork(
            state.point[order],
            energy,
            ends,
            state.level.clone(),
            state.saddle.clone(),
            state.verified.clone(),
            list(state.path),
            torch.from_numpy(minimum_spanning_passes(*arguments)),
            torch.from_numpy(bottlenecks(*arguments, energy.numpy())),
        )

    def quench(self, state: NetworkState, points: Tensor) -> tuple[NetworkState, Tensor]:
        """Descend from more ``points`` ``(k, *shape)``: the state with any new minima, and each row's minimum by its
        place in the state ``(k,)``, -1 where the energy was not finite. New minima wait for their passes: set the
        stage to "pairs" to seek them."""
        state = replace(state, path=list(state.path))
        end = minimise(self.field, points, gradient_tolerance=self.gradient_tolerance)
        settled = end.energy.isfinite()
        place = torch.full((len(points),), -1, dtype=torch.long)
        place[settled] = self._absorb(state, end.point[settled], end.energy[settled])
        return state, place

    # ------------------------------------------------------------------ minima and passes found

    def _quench(self, state: NetworkState, points: Tensor) -> None:
        """Minima below ``points`` enter the network; what merely balances on a ridge is pushed off it first."""
        if len(points) == 0:
            return
        end = minimise(self.field, points, gradient_tolerance=self.gradient_tolerance)
        settled = end.energy.isfinite() & (end.iterations < 500)
        self._absorb(state, end.point[settled], end.energy[settled])

    def _absorb(self, state: NetworkState, points: Tensor, energy: Tensor) -> Tensor:
        """Index in the network of each minimum ``points`` ``(k, *shape)``; those not known yet are added."""
        index = self._known(state.point, points)
        new = (index < 0).nonzero()[:, 0]
        if len(new) == 0:
            return index
        kept, label = distinct(points[new], energy[new], self._same())
        found, levels = points[new[kept]], energy[new[kept]]
        found, levels = self._off_ridges(found, levels)
        # Pushed off a ridge, a point may have reached a minimum that is known, or that another row reached too.
        place = self._known(state.point, found)
        for row in range(len(found)):
            if place[row] < 0:
                place[row] = self._known(state.point, found[row : row + 1])[0]
            if place[row] < 0:
                place[row] = len(state.point)
                state.point = torch.cat((state.point, found[row : row + 1]))
                state.energy = torch.cat((state.energy, levels[row : row + 1]))
        index[new] = place[label]
        return index

    def _off_ridges(self, points: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        if self.field.space.n_coordinates > MOST_COORDINATES:
            return points, energy
        value, mode = torch.linalg.eigh(curvatures(self.field, points).nan_to_num())
        at_edge = torch.zeros(len(points), dtype=torch.bool)
        low, high = bounds(self.field)
        if math.isfinite(low):
            at_edge = ((points <= low) | (points >= high)).flatten(1).any(1)
        ridge = (value[:, 0] < -1e-6 * value.abs().amax(1)) & ~at_edge
        if not bool(ridge.any()):
            return points, energy
        pushed = points[ridge].flatten(1) + self._same() * mode[ridge, :, 0]
        end = minimise(
            self.field, pushed.reshape(-1, *points.shape[1:]).clamp(low, high),
            gradient_tolerance=self.gradient_tolerance,
        )  # fmt: skip
        points, energy = points.clone(), energy.clone()
        points[ridge], energy[ridge] = end.point, end.energy
        return points, energy

    def _climb(self, state: NetworkState, points: Tensor) -> None:
        """Saddles near ``points`` and the passes over them enter the network."""
        if len(points) == 0 or self.field.space.n_coordinates > MOST_COORDINATES:
            return
        found = transition_states(
            self.field,
            points,
            max_iterations=_CLIMBS,
            gradient_tolerance=self.gradient_tolerance,
            largest_step=self._reach(state),
        )
        use = (found.order == 1) & (found.gradient_norm <= _LOOSE * self.gradient_tolerance)
        use &= self._known(state.known_saddle, found.point) < 0
        rows = use.nonzero()[:, 0]
        if len(rows) == 0:
            return
        rows = rows[distinct(found.point[rows], found.gradient_norm[rows], self._same())[0]]
        new = TransitionStates(*(getattr(found, name)[rows] for name in TransitionStates.__dataclass_fields__))
        state.known_saddle = torch.cat((state.known_saddle, new.point))
        crossings = cross_saddles(self.field, new, self._reach(state), self.gradient_tolerance)
        self._join(state, crossings, new.point, new.converged)

    def _join(self, state: NetworkState, crossings: Crossings, tops: Tensor, verified: Tensor) -> None:
        if not crossings.path:
            return
        first = self._absorb(state, torch.stack([path[0] for path in crossings.path]), crossings.start_energy)
        second = self._absorb(state, torch.stack([path[-1] for path in crossings.path]), crossings.end_energy)
        joins = (first != second).nonzero()[:, 0]
        if len(joins) == 0:
            return
        a, b = first[joins], second[joins]
        level = crossings.level[joins]
        moved: list[int] = []
        paths: list[Tensor] = []
        for k, row in enumerate(joins.tolist()):
            # The network's own minimum at the end, which the descent met up to its tolerance.
            way = crossings.path[row]
            paths.append(torch.cat((state.point[a[k]][None], way, state.point[b[k]][None])))
            gap = torch.stack((state.point[a[k]] - way[0], state.point[b[k]] - way[-1])).flatten(1).norm(dim=1)
            if float(gap.max()) > 0.1 * self._same():
                # It stopped on a ridge, from which the minimum was reached by a push: the way there counts too.
                paths[k] = subdivide(paths[k], 0.25 * self._reach(state))
                moved.append(k)
        if moved:
            tops_moved = pin_barrier(self.field, stack_paths([paths[k] for k in moved])).energy
            verified = verified.clone()
            verified[joins[moved]] &= tops_moved <= level[moved] + 1e-6
            level[moved] = torch.maximum(level[moved], tops_moved)
        state.path += paths
        state.ends = torch.cat((state.ends, torch.stack((a, b), 1)))
        state.level = torch.cat((state.level, level))
        state.saddle = torch.cat((state.saddle, tops[joins]))
        state.verified = torch.cat((state.verified, verified[joins]))

    # ------------------------------------------------------------------ pairs

    def _connect(self, state: NetworkState, pairs: Tensor) -> None:
        state.tried = torch.cat((state.tried, pairs))
        line = linear_path(state.point[pairs[:, 0]], state.point[pairs[:, 1]], self.n_images)
        bands = relax_band(self.field, line, self.band)
        peaks, valleys = band_points(self.field, bands)
        starts, state.saddle_starts = state.saddle_starts[:_ROWS_PER_STEP], state.saddle_starts[_ROWS_PER_STEP:]
        self._climb(state, torch.cat((peaks, starts)))
        self._quench(state, valleys)
        # Where the band itself is lower than what the saddles gave, or they gave nothing, the band is the pass.
        if len(pairs) == 0:
            return
        known = self._barrier(state)[pairs[:, 0], pairs[:, 1]]
        top = pin_barrier(self.field, bands).energy
        lower = (top < known - 1e-6 * top.abs().clamp(min=1.0)).nonzero()[:, 0]
        if len(lower) == 0:
            return
        crossings = cross_bands(
            self.field, refine(self.field, bands[lower], self.string), self._reach(state), self.gradient_tolerance
        )
        tops = torch.cat([pin_barrier(self.field, path[None]).point for path in crossings.path])
        self._join(state, crossings, tops, torch.zeros(len(tops), dtype=torch.bool))

    def _pairs(self, state: NetworkState) -> Tensor:
        """Untried pairs ``(k, 2)``: near neighbours first, then unconnected parts, then the merges of the tree."""
        n = len(state.point)
        if n < 2:
            return torch.empty(0, 2, dtype=torch.long)
        low = torch.argsort(state.energy, stable=True)[: self.most_minima].numpy()
        flat = state.point.flatten(1)
        distance = torch.cdist(flat[low], flat[low]).numpy()
        np.fill_diagonal(distance, np.inf)
        place = np.full(n, -1)
        place[low] = np.arange(len(low))
        tried = np.zeros(distance.shape, bool)
        joined = place[torch.cat((state.tried, state.ends[state.verified])).numpy()]
        joined = joined[(joined >= 0).all(1)]
        tried[joined[:, 0], joined[:, 1]] = tried[joined[:, 1], joined[:, 0]] = True
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.neighbours]
        candidates = [(i, j) for i in range(len(low)) for j in nearest[i] if i != j]
        chosen = _untried(candidates, tried, self.pairs_per_step)
        if not chosen:
            expected = self._expected_levels(state, low, distance)
            floor = np.maximum(state.energy[low].numpy()[:, None], state.energy[low].numpy())
            for level, left, right in _merges(self._barrier(state).numpy()[np.ix_(low, low)]):
                guess = expected[np.ix_(left, right)]
                order = np.argsort(guess, axis=None, kind="stable")
                # Unconnected parts must be tried by some pair; elsewhere those that may find a lower way.
                most = max(1, self.across) if math.isinf(level) else self.across
                n_lower = 0 if math.isinf(level) else int((guess < level).sum())
                rows, columns = np.unravel_index(order[: max(most, n_lower)], guess.shape)
                pairs = list(zip(left[rows], right[columns], strict=True))
                chosen += _untried([pair for pair in pairs if floor[pair] < level], tried, self.pairs_per_step)
                if len(chosen) >= self.pairs_per_step:
                    break
        chosen = list(dict.fromkeys(chosen))[: self.pairs_per_step]
        return torch.from_numpy(low[np.array(chosen, dtype=np.int64).reshape(-1, 2)])

    def _expected_levels(self, state: NetworkState, low: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Guessed levels of direct passes: the higher end, and a rise with the square of the distance as it is for
        the flattest of the passes known."""
        energy, point = state.energy, state.point.flatten(1)
        rise = 1.0
        if len(state.ends):
            a, b = state.ends.T
            square = (point[a] - point[b]).square().sum(1)
            rise = float(((state.level - torch.maximum(energy[a], energy[b])) / square).quantile(_OPTIMISM))
        ends = energy[low].numpy()
        square = np.where(np.isfinite(distance), distance, 0.0) ** 2
        return np.maximum(ends[:, None], ends) + rise * square

    def _barrier(self, state: NetworkState) -> Tensor:
        ends = state.ends.numpy()
        barrier = bottlenecks(len(state.point), ends[:, 0], ends[:, 1], state.level.numpy(), state.energy.numpy())
        return torch.from_numpy(barrier)

    # ------------------------------------------------------------------ lengths

    def _same(self) -> float:
        return 1e-3 * self._diagonal() if self.same_distance is None else self.same_distance

    def _diagonal(self) -> float:
        low, high = bounds(self.field)
        return (high - low if math.isfinite(low) else 2.0) * math.sqrt(self.field.space.n_coordinates)

    def _reach(self, state: NetworkState) -> float:
        """A length over which the landscape is simple: a fifth of the distance between near minima."""
        if len(state.point) < 2:
            return 0.02 * self._diagonal()
        flat = state.point[:500].flatten(1)
        gap = torch.cdist(flat, flat)
        gap.fill_diagonal_(math.inf)
        return 0.2 * float(gap.amin(1).median())

    def _known(self, known: Tensor, points: Tensor) -> Tensor:
        """Index of the known point nearest to each of ``points`` where it is the same one, else -1."""
        if len(known) == 0 or len(points) == 0:
            return torch.full((len(points),), -1, dtype=torch.long)
        gap, index = torch.cdist(points.flatten(1), known.flatten(1)).min(1)
        return torch.where(gap <= self._same(), index, -1)


def find_network(
    field: Field,
    generator: torch.Generator,
    starts: Tensor | None = None,
    propose: Callable[[int, torch.Generator], Tensor] | None = None,
    search: ContinuousSearch | None = None,
) -> ContinuousNetwork:
    """The network of ``field`` from ``starts`` ``(k, *shape)``, ``propose(n, generator)`` or draws from its space.

    Runs `ContinuousSearch` (of default settings, or ``search``) to its end; for a budget, drive its steps instead.

    Raises UserError: see `ContinuousSearch`.
    """
    search = search or ContinuousSearch(field)
    state = search.init(generator, starts, propose)
    while state.stage != "done":
        state, _ = search.step(state, generator)
    return search.network(state)


def _untried(candidates: list[tuple[int, int]], tried: np.ndarray, most: int) -> list[tuple[int, int]]:
    chosen: dict[tuple[int, int], None] = {}
    for i, j in candidates:
        if not tried[i, j] and len(chosen) < most:
            chosen[min(int(i), int(j)), max(int(i), int(j))] = None
    return list(chosen)


def _merges(barrier: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Merges of the tree, highest first: the level and the members of both sides; inf between unconnected parts."""
    n = len(barrier)
    first, second = np.triu_indices(n, 1)
    # Joined by very high levels instead of none, so that the forest is one tree.
    level = np.nan_to_num(barrier[first, second], posinf=np.finfo(np.float64).max)
    side = {i: np.array([i]) for i in range(n)}
    owner = np.arange(n)
    merges: list[tuple[float, np.ndarray, np.ndarray]] = []
    for k in minimum_spanning_passes(n, first, second, level):
        a, b = int(owner[first[k]]), int(owner[second[k]])
        left, right = side[a], side.pop(b)
        merges.append((float(barrier[first[k], second[k]]), left, right))
        side[a] = np.concatenate([left, right])
        owner[right] = a
    return merges[::-1]
