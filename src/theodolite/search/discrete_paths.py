"""Heuristic paths between minima of a discrete field, one coordinate a step: every path bounds a barrier from above.

Sources: the greedy interpolation of Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional
Image Spaces", section 5.1; a beam keeps the ``width`` best states of each step instead of one. Quenching every state
of a path turns it into passes between neighbouring minima, whose min-max closure (`passes.py`) gains most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from theodolite.errors import UserError
from theodolite.field import Field, FlipCosts
from theodolite.search.descent import Neighbourhood
from theodolite.search.discrete_landscapes import Ground, ground_of
from theodolite.search.passes import bottlenecks, minimum_spanning_passes

_STATES_AT_ONCE = 32_768  # states of paths quenched together
_PAIR_SCALE = 5.0  # coordinates: pairs that much further apart are e times rarer
_IDLE_ROUNDS = 5  # rounds without a lower bound before the search ends
_LARGEST_SIDE = 2_000  # minima of a component looked at for near pairs


@final
@dataclass(frozen=True)
class Passes:
    """Single changes that lead from one basin of steepest descent into another.

    Minima are the rows of ``point`` (minimum, n) and have the energies ``energy`` (minimum,). Pass k leads from the
    basin of minimum ``first[k]`` to that of ``second[k]``, (pass,) both: coordinate ``coordinate[k]`` of ``state[k]``
    (pass, n) goes to ``new_value[k]``; ``level[k]`` is the higher energy of the two states. Points are spins of -1
    and +1 (int8) where the field has flip costs, else levels (int64).
    """

    point: np.ndarray
    energy: np.ndarray
    first: np.ndarray
    second: np.ndarray
    level: np.ndarray
    state: np.ndarray
    coordinate: np.ndarray
    new_value: np.ndarray


@final
@dataclass(frozen=True)
class HeuristicBarriers:
    """``upper_bound`` (K, K) of the barriers between K minima, their own energies on the diagonal, and ``passes``: a
    spanning forest that proves it, between the K minima (its first K points) and those met on the way."""

    upper_bound: np.ndarray
    passes: Passes


def greedy_path(
    landscape: FlipCosts | Field, first: np.ndarray, second: np.ndarray, *, neighbourhood: Neighbourhood = "any"
) -> np.ndarray:
    """States ``(step, *shape)`` from ``first`` to ``second``, both included, by the cheapest change at each step
    towards the second (Hill, Nijkamp and Zhu 2019, section 5.1). Not symmetric. Raises as ``beam_paths``."""
    return beam_path(landscape, first, second, 1, neighbourhood=neighbourhood)


def greedy_barrier(
    landscape: FlipCosts | Field, first: np.ndarray, second: np.ndarray, *, neighbourhood: Neighbourhood = "any"
) -> float:
    """The lower of the highest energies on the greedy paths from first to second and back, as in the paper."""
    paths = (
        greedy_path(landscape, first, second, neighbourhood=neighbourhood),
        greedy_path(landscape, second, first, neighbourhood=neighbourhood),
    )
    return min(float(path_energies(landscape, path).max()) for path in paths)


def beam_path(
    landscape: FlipCosts | Field,
    first: np.ndarray,
    second: np.ndarray,
    width: int = 10,
    *,
    neighbourhood: Neighbourhood = "any",
) -> np.ndarray:
    """States ``(step, *shape)`` from ``first`` to ``second`` (*shape), both included. Raises as ``beam_paths``."""
    return beam_paths(landscape, np.asarray(first)[None], np.asarray(second)[None], width, neighbourhood=neighbourhood)[
        0
    ]


def beam_paths(
    landscape: FlipCosts | Field,
    firsts: np.ndarray,
    seconds: np.ndarray,
    width: int = 10,
    *,
    neighbourhood: Neighbourhood = "any",
) -> list[np.ndarray]:
    """A path ``(step, *shape)`` from each of ``firsts`` to that of ``seconds``, ``(batch, *shape)`` both.

    Every step sets one more coordinate to its value in the second, or, where only "adjacent" levels are neighbours,
    takes one coordinate one level nearer to it; of the states reached after a step the ``width``
    ones with the least highest energy so far, then the least energy, are kept. Points are spins for ``FlipCosts``,
    else of the field's space. Compiled for spins with flip costs; other fields are evaluated in batches.

    Raises UserError: points that are not of the landscape, or a width below 1.
    """
    ground = ground_of(landscape, neighbourhood)
    first, second = ground.read("firsts", firsts), ground.read("seconds", seconds)
    if first.shape != second.shape:
        raise UserError("seconds", f"one for each of {len(first)} firsts", str(len(second)), "give pairs of points")
    _refuse_width(width)
    return [ground.write(path) for path in ground.paths(first, second, width)]


def path_energies(landscape: FlipCosts | Field, path: np.ndarray) -> np.ndarray:
    """Energies ``(step,)`` float64 of the states of a path ``(step, *shape)``."""
    ground = ground_of(landscape)
    return ground.energies(ground.read("path", path))


def path_passes(landscape: FlipCosts | Field, path: np.ndarray, *, neighbourhood: Neighbourhood = "any") -> Passes:
    """The passes that a path ``(step, *shape)`` crosses, one for each two basins it joins, in the order of the path.

    Its states are quenched by steepest descent; wherever two consecutive ones end in different minima, the step
    between them is a pass. Minima are numbered as they are met.

    Raises UserError where consecutive states do not differ in exactly one coordinate.
    """
    ground = ground_of(landscape, neighbourhood)
    states = ground.read("path", path)
    if len(states) == 0 or ((states[1:] != states[:-1]).sum(1) != 1).any():
        raise UserError("path", "states that differ in one coordinate from the one before", "others", "give every step")
    network = _Network(ground, mirrored=False)
    network.cross([states])
    numbers = np.arange(network.n_minima)
    return network.passes(numbers)


def heuristic_barriers(
    landscape: FlipCosts | Field,
    minima: np.ndarray,
    *,
    neighbours: int = 6,
    width: int = 10,
    rounds: int = 20,
    pairs_per_round: int = 300,
    generator: torch.Generator | None = None,
    stepping_stones: np.ndarray | None = None,
    neighbourhood: Neighbourhood = "any",
) -> HeuristicBarriers:
    """Upper bounds of the barriers between ``minima`` (K, *shape), from beams between nearest neighbours.

    Each minimum is joined to its ``neighbours`` nearest ones (by the number of coordinates that differ); all states
    of the paths are quenched, and the bounds are closed under min-max over all minima met. Then, at most ``rounds``
    times and while bounds fall, pairs of minima across every merge of the tree are joined too, near pairs drawn from
    ``generator`` more often (None: no rounds): one pair a merge, and ``pairs_per_round`` more shared out by the number
    of barriers that a merge decides. Components that no path joins yet are joined last, so that all bounds are finite.
    Where the energy has a mirror symmetry, every pass counts for its mirror image. ``stepping_stones`` (m, *shape):
    more minima to lead paths through; those next above the listed ones are good ones. ``neighbourhood``: as in
    ``descend``. On the 500 lowest minima of spin glasses of 100 spins the rounds take the mean excess over the truth
    from more than the depth of the minima to about a hundredth of it, with stepping stones.

    Raises UserError: points that are not minima or that repeat, fewer than one neighbour, a width below 1.
    """
    ground = ground_of(landscape, neighbourhood)
    listed = ground.read("minima", minima)
    stones = listed[:0] if stepping_stones is None else ground.read("stepping_stones", stepping_stones)
    _refuse_width(width)
    if neighbours < 1:
        raise UserError("neighbours", "at least 1", str(neighbours), "6 is a good number")
    ground.refuse_unless_minima("minima", listed)
    ground.refuse_unless_minima("stepping_stones", stones)
    network = _Network(ground, ground.mirrored)
    wanted = network.add(listed)
    if len(np.unique(wanted)) < len(wanted):
        raise UserError("minima", "each minimum once", f"{len(wanted) - len(np.unique(wanted))} repeated", "drop them")
    network.add(stones)
    network.explore(network.nearest(neighbours), width)
    found = network.barriers(wanted)
    best, idle = _looseness(found.upper_bound), 0
    for _ in range(rounds if generator is not None else 0):
        if idle > _IDLE_ROUNDS or not network.explore(network.across(wanted, pairs_per_round, generator), width):
            break
        found = network.barriers(wanted)
        now = _looseness(found.upper_bound)
        best, idle = (now, 0) if now < best else (best, idle + 1)
    while not np.isfinite(found.upper_bound).all():
        network.explore(network.across(wanted, 0, generator), width)
        found = network.barriers(wanted)
    return found


def _looseness(bounds: np.ndarray) -> tuple[int, float]:
    """How many bounds are infinite, and the sum of the others."""
    finite = np.isfinite(bounds)
    return int((~finite).sum()), float(bounds[finite].sum())


def _refuse_width(width: int) -> None:
    if width < 1:
        raise UserError("width", "at least 1", str(width), "10 is a good width")


# ------------------------------------------------------------------ a network of minima and passes


@final
class _Network:
    """Minima met so far, without repetition, and the lowest pass known between any two of their basins.

    In a mirrored landscape minima k and k ^ 1 are mirror images, and every pass stands for its mirror image too.
    """

    def __init__(self, ground: Ground, mirrored: bool) -> None:
        self.ground = ground
        self.mirrored = mirrored
        self.words = np.random.default_rng(20_260_101).integers(1, 2**63, ground.n, dtype=np.uint64) | np.uint64(1)
        self.number: dict[int, int] = {}
        self.upright = np.empty((0, ground.n), ground.dtype)
        self.tried: set[tuple[int, int]] = set()
        self.ends = np.empty((0, 2), np.int64)
        self.level = np.empty(0)
        self.state = np.empty((0, ground.n), ground.dtype)
        self.coordinate = np.empty(0, np.int64)
        self.new_value = np.empty(0, ground.dtype)

    @property
    def n_minima(self) -> int:
        return len(self.number) * (2 if self.mirrored else 1)

    def add(self, points: np.ndarray) -> np.ndarray:
        """Numbers ``(m,)`` of the minima ``points`` (m, n); new ones are taken in, in the order given."""
        turned = (points[:, 0] < 0) if self.mirrored else np.zeros(len(points), bool)
        upright = np.where(turned[:, None], -points, points)
        # A sum of random words tells points apart, but for the chance of 64 equal random bits.
        keys = (upright.astype(np.uint64) * self.words).sum(1, dtype=np.uint64)
        before = len(self.number)
        numbers = np.array([self.number.setdefault(key, len(self.number)) for key in keys.tolist()], np.int64)
        rows = np.flatnonzero(numbers >= before)
        fresh = rows[np.unique(numbers[rows], return_index=True)[1]]
        self.upright = np.concatenate([self.upright, upright[fresh]])
        return 2 * numbers + turned if self.mirrored else numbers

    def points(self, numbers: np.ndarray) -> np.ndarray:
        """The minima of those numbers ``(m, n)``."""
        if not self.mirrored:
            return self.upright[numbers]
        upright = self.upright[numbers // 2]
        return np.where((numbers % 2 == 1)[:, None], -upright, upright)

    def nearest(self, neighbours: int) -> Iterator[tuple[int, int]]:
        """Pairs of each minimum with its nearest ones."""
        points = self.points(np.arange(self.n_minima))
        for number in range(0, len(points), 2 if self.mirrored else 1):
            distance = self.ground.distances(points[number : number + 1], points)[0]
            distance[number] = np.inf
            for other in np.argsort(distance, kind="stable")[: min(neighbours, len(points) - 1)].tolist():
                yield number, other

    def across(self, listed: np.ndarray, budget: int, generator: torch.Generator | None) -> list[tuple[int, int]]:
        """Untried pairs of minima on the two sides of each merge of the tree of the listed ones.

        A merge has one pair, and a share of ``budget`` more in proportion to the barriers between listed minima that
        it decides. What no chain of passes joins yet merges last, at infinity.
        """
        n = self.n_minima
        points = self.points(np.arange(n))
        members = [[number] for number in range(n)]
        n_listed = np.bincount(listed, minlength=n)
        n_barriers = len(listed) * (len(listed) - 1) / 2
        component = np.arange(n)
        pairs: list[tuple[int, int]] = []

        def merge(a: int, b: int) -> None:
            if n_listed[a] and n_listed[b]:
                n_pairs = 1 + math.ceil(budget * n_listed[a] * n_listed[b] / n_barriers)
                pairs.extend(self._near_pairs(points, members[a], members[b], n_pairs, generator))
            a, b = (a, b) if len(members[a]) >= len(members[b]) else (b, a)
            component[b] = a
            members[a].extend(members[b])
            members[b] = []
            n_listed[a] += n_listed[b]

        ends, level = self.lifted()
        for k in minimum_spanning_passes(n, ends[:, 0], ends[:, 1], level):
            merge(*(_root(component, end) for end in ends[k]))
        apart = [number for number in np.argsort(-n_listed) if component[number] == number and n_listed[number]]
        for other in apart[1:]:
            merge(_root(component, apart[0]), other)
        return pairs

    def _near_pairs(
        self, points: np.ndarray, here: list[int], there: list[int], n_pairs: int, generator: torch.Generator | None
    ) -> Iterator[tuple[int, int]]:
        """Untried pairs of two sets of minima, drawn in favour of near ones."""
        one, other = (np.array(side)[_some(len(side), generator)] for side in (here, there))
        distance = self.ground.distances(points[one], points[other]).ravel()
        score = distance
        if generator is not None:
            # The least of distance + Gumbel noise is a draw in proportion to exp(-distance / scale).
            uniform = torch.rand(len(distance), generator=generator, dtype=torch.float64).clamp(min=1e-300).numpy()
            score = distance + _PAIR_SCALE * np.log(-np.log(uniform))
        n_candidates = min(8 * n_pairs, len(score))
        best = np.argpartition(score, n_candidates - 1)[:n_candidates]
        n_found = 0
        for flat in best[np.argsort(score[best])].tolist():
            pair = int(one[flat // len(other)]), int(other[flat % len(other)])
            if n_found < n_pairs and self._name(*pair) not in self.tried:
                n_found += 1
                yield pair

    def _name(self, first: int, second: int) -> tuple[int, int]:
        """One name for a pair, its reverse and, where mirrored, its mirror image."""
        pair = min((first, second), (second, first))
        return min(pair, (first ^ 1, second ^ 1), (second ^ 1, first ^ 1)) if self.mirrored else pair

    def explore(self, pairs: Iterable[tuple[int, int]], width: int) -> bool:
        """Paths between the pairs that were not tried before, and the passes on them; whether there were any."""
        fresh = []
        for first, second in pairs:
            name = self._name(first, second)
            if name not in self.tried:
                self.tried.add(name)
                fresh.append((first, second))
        if not fresh:
            return False
        numbers = np.array(fresh)
        first, second = self.points(numbers[:, 0]), self.points(numbers[:, 1])
        states_before = np.cumsum((first != second).sum(1) + 1)
        for block in np.split(np.arange(len(first)), np.flatnonzero(np.diff(states_before // _STATES_AT_ONCE)) + 1):
            self.cross(self.ground.paths(first[block], second[block], width))
        return True

    def cross(self, paths: Sequence[np.ndarray]) -> None:
        """Quench every state of the paths, and take in the passes between consecutive ones."""
        states = np.concatenate(paths)
        energy = self.ground.energies(states)
        label = self.add(self.ground.quench(states))
        crossing = label[1:] != label[:-1]
        crossing[np.cumsum([len(path) for path in paths])[:-1] - 1] = False
        step = np.flatnonzero(crossing)
        coordinate = (states[step + 1] != states[step]).argmax(1)
        self.ends = np.concatenate([self.ends, np.stack([label[step], label[step + 1]], 1)])
        self.level = np.concatenate([self.level, np.maximum(energy[step], energy[step + 1])])
        self.state = np.concatenate([self.state, states[step]])
        self.coordinate = np.concatenate([self.coordinate, coordinate])
        self.new_value = np.concatenate([self.new_value, states[step + 1, coordinate]])
        self._keep_lowest()

    def _keep_lowest(self) -> None:
        """One pass between any two basins; a pass and its mirror image are one."""
        names = np.sort(self.ends, 1)
        if self.mirrored:
            images = np.sort(self.ends ^ 1, 1)
            names = np.where((images < names).any(1) & (images[:, :1] <= names[:, :1]).all(1), images.T, names.T).T
        order = np.lexsort((self.level, names[:, 1], names[:, 0]))
        _, lowest = np.unique(names[order], axis=0, return_index=True)
        kept = np.sort(order[lowest])
        self.ends, self.level, self.state = self.ends[kept], self.level[kept], self.state[kept]
        self.coordinate, self.new_value = self.coordinate[kept], self.new_value[kept]

    def lifted(self) -> tuple[np.ndarray, np.ndarray]:
        """The two minima ``(pass, 2)`` and the level ``(pass,)`` of all passes, mirror images after the others."""
        if not self.mirrored:
            return self.ends, self.level
        return np.concatenate([self.ends, self.ends ^ 1]), np.concatenate([self.level, self.level])

    def passes(self, numbers: np.ndarray) -> Passes:
        """All passes, the minima renumbered so that ``numbers`` come first and the others follow."""
        rest = np.setdiff1d(np.arange(self.n_minima), numbers)
        order = np.concatenate([numbers, rest])
        place = np.empty(self.n_minima, np.int64)
        place[order] = np.arange(len(order))
        ends, level = self.lifted()
        state, new_value = self.state, self.new_value
        if self.mirrored:
            state, new_value = np.concatenate([state, -state]), np.concatenate([new_value, -new_value])
        point = self.points(order)
        return Passes(
            point=point,
            energy=self.ground.energies(point),
            first=place[ends[:, 0]],
            second=place[ends[:, 1]],
            level=level,
            state=state,
            coordinate=np.tile(self.coordinate, 2) if self.mirrored else self.coordinate,
            new_value=new_value,
        )

    def barriers(self, listed: np.ndarray) -> HeuristicBarriers:
        """The closure between the listed minima over all passes."""
        every = self.passes(listed)
        spanning = minimum_spanning_passes(len(every.energy), every.first, every.second, every.level)
        upper = bottlenecks(len(every.energy), every.first, every.second, every.level, every.energy, len(listed))
        return HeuristicBarriers(
            upper,
            Passes(
                every.point,
                every.energy,
                every.first[spanning],
                every.second[spanning],
                every.level[spanning],
                every.state[spanning],
                every.coordinate[spanning],
                every.new_value[spanning],
            ),
        )


def _root(component: np.ndarray, i: int) -> int:
    while component[i] != i:
        component[i] = component[component[i]]
        i = component[i]
    return i


def _some(n: int, generator: torch.Generator | None) -> np.ndarray:
    """All of n places, or as many of them, drawn without replacement, as are looked at."""
    if n <= _LARGEST_SIDE or generator is None:
        return np.arange(min(n, _LARGEST_SIDE))
    return torch.randperm(n, generator=generator)[:_LARGEST_SIDE].numpy()
