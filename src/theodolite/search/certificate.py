"""Disconnectivity trees of spins with proof: every barrier an interval, and most of them exact.

Steepest-descent trees are enumerated below ceilings (`reverse_search`); the passes found make a network of minima
(`spin_network`) whose spanning forest gives the upper bounds, and the ceilings the lower ones (`mirror_spanning`).
Ceilings rise only where a merge still needs it. The tree is that of Hill, Nijkamp and Zhu 2019, "Building a Telescope
to Look Into High-Dimensional Image Spaces", section 3; reverse search is Avis and Fukuda, Discrete Appl. Math. 65, 21
(1996).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from numba import njit

from theodolite.errors import UserError
from theodolite.field import FlipCosts
from theodolite.search.exact_costs import ExactCosts, costs_of, exact_costs, pass_path
from theodolite.search.mirror_spanning import proven_merges, route, span
from theodolite.search.passes import bottlenecks
from theodolite.search.reverse_search import DEEPER, FoundPasses, Walk, deepened, enumerate_trees, new_found, new_walk
from theodolite.search.spin_network import (
    ALWAYS,
    NEVER,
    SpinNetwork,
    absorb,
    add_minima,
    add_path,
    compact,
    make_room,
    new_network,
    node_spins,
)

_TOP = 1 << 61  # above every energy
_MINIMUM_COST = 16  # of spanning a network, for each minimum
_BUFFER = 1 << 15  # passes a walker can find before they are absorbed
_SLOTS = 2  # walkers side by side, whatever the number of threads: the results don't depend on it


@final
@dataclass(frozen=True)
class CertifiedEstimate:
    """Barriers between the K listed minima, in the order listed; all energies in the unit of the couplings.

    ``energy`` (K,); ``lower`` and ``upper`` (K, K): every path between i and j reaches ``lower[i, j]``, and one is
    known whose highest energy is ``upper[i, j]`` (inf where none is); symmetric, the energies on the diagonal, no
    detour through a third minimum lower. ``first``, ``second`` (K-1,), ``upper_level``, ``lower_level``: the merges of
    the tree, rising, each between the lowest minima of its two sides. ``n_exact`` merges have bounds within 1e-9.
    ``states`` were examined, ``n_minima`` are known (mirror images counted). Bounds are
    those of couplings rounded to multiples of a tiny unit, and hold for the couplings given to within ``rounding``
    (1e-12 for 100 spins of the Sherrington-Kirkpatrick glass); all arithmetic after that is exact.
    """

    energy: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    first: np.ndarray
    second: np.ndarray
    upper_level: np.ndarray
    lower_level: np.ndarray
    n_exact: int
    states: int
    n_minima: int
    rounding: float


@final
@dataclass
class CertifiedState:
    """A run between two steps; energies in units of the exact costs.

    ``nodes`` (K,) are the listed minima in the network. ``level`` caps all ceilings and rises by ``rise`` when no
    tree below needs more; ``level_states`` were examined at this level, ``last_states`` at the one before.
    ``flooding`` says that the local flood is going on. ``walks`` are trees half enumerated. ``required`` (minimum,)
    are the ceilings that would prove all merges; ``n_exact`` of the K - 1 merges are proven. ``full``: the memory
    limit was reached.
    """

    network: SpinNetwork
    nodes: np.ndarray
    level: int
    rise: int
    states: int
    level_states: int
    last_states: int
    flooding: bool
    flood_round: int
    walks: list[tuple[np.ndarray, ...]]
    walking: np.ndarray
    required: np.ndarray
    highest: int
    n_exact: int
    full: bool


@final
@dataclass(frozen=True)
class CertifiedTree:
    """The disconnectivity tree of ``seeds`` (K, n), minima of +-1 under single flips, with a proof of every barrier.

    ``paths``: known paths between minima, each ``(steps, n)`` of +-1 with one flip a step; they give upper bounds,
    and the better these are the fewer states must be enumerated. ``memory_limit`` in bytes: a run that reaches it
    stops with intervals. All trees are enumerated below ``first_ceiling`` first, then ever higher by ``rise`` or what
    about triples the states (energies; None: the median least flip cost of the seeds, above the highest seed).
    ``flood_depth`` > 0: before that, every minimum below the highest upper bound is enumerated to ``flood_depth``
    above its own energy, at most ``flood_states`` states: a local flood that improves upper bounds.

    ``step_states``: examined in a step, about (fewer where spanning a large network takes the time).
    Deterministic: steps draw no random numbers, and ``n_threads`` changes no result.
    Written as ``init() -> state``, ``step(state, generator) -> (state, info)``, `finished` and `estimate`, which
    gives valid intervals at any time. A state's arrays are updated in place where copying them would double the
    memory: keep the state a step returns, not the one it was given.

    Raises UserError: seeds of another shape, not of +-1, not distinct, or not minima (the first is named; a flip that
    costs exactly nothing counts, for its plateau is one minimum that this method would split), fewer than one; a
    memory limit too small for the seeds; ceilings or rises that are not finite and positive.
    """

    flip_costs: FlipCosts
    seeds: np.ndarray
    paths: tuple[np.ndarray, ...] = ()
    memory_limit: int = 1 << 30
    first_ceiling: float | None = None
    rise: float | None = None
    flood_depth: float = 0.0
    flood_states: int = 20_000_000
    step_states: int = 6_000_000
    n_threads: int = 2

    def __post_init__(self) -> None:
        n = len(self.flip_costs.couplings)
        seeds = np.asarray(self.seeds)
        if seeds.ndim != 2 or len(seeds) < 1 or seeds.shape[1] != n:
            raise UserError("seeds", f"minima of shape (K, {n})", f"shape {seeds.shape}", "give one row a minimum")
        if not np.isin(seeds, (-1, 1)).all():
            raise UserError("seeds", "spins of -1 and +1", "other values", "use space.from_levels")
        for name in ("first_ceiling", "rise"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and (name == "first_ceiling" or value > 0)):
                raise UserError(
                    name, "a finite energy" + ", above 0" * (name == "rise"), f"{value:g}", "or leave it out"
                )
        if not (np.isfinite(self.flood_depth) and self.flood_depth >= 0):
            raise UserError("flood_depth", "an energy of at least 0", f"{self.flood_depth:g}", "0 is no flood")
        costs = _least_costs(self._exact, np.where(seeds > 0, 0, -1).astype(np.int64))
        if (costs <= 0).any():
            worst = int(np.argmax(costs <= 0))
            words = "lies on a plateau" if costs[worst] == 0 else "can descend"
            raise UserError(
                "seeds",
                f"{len(seeds)} strict minima under single flips",
                f"{int((costs <= 0).sum())} minima that aren't minima, the first at index {worst}, which {words}",
                "descend first; where equal energies are joined use the watershed",
            )
        if len(np.unique(seeds, axis=0)) < len(seeds):
            raise UserError("seeds", "distinct minima", "the same twice", "use np.unique(seeds, axis=0)")
        if not make_room(new_network(n, self.flip_costs.mirrored), len(seeds), self.memory_limit):
            raise UserError("memory_limit", "room for the seeds", f"{self.memory_limit:,} bytes", "allow more")

    @cached_property
    def _exact(self) -> ExactCosts:
        return exact_costs(self.flip_costs)

    def init(self) -> CertifiedState:
        """The listed minima and the known paths, nothing enumerated."""
        seeds = np.asarray(self.seeds)
        n = seeds.shape[1]
        network = new_network(n, self.flip_costs.mirrored)
        make_room(network, len(seeds), self.memory_limit)
        nodes = add_minima(network, self._exact, seeds)
        least = np.median(_least_costs(self._exact, np.where(seeds > 0, 0, -1).astype(np.int64)))
        rise = int(least) if self.rise is None else self._to_integer(self.rise)
        highest = int(network.energy[: network.n_minima].max())
        level = highest + rise
        if self.first_ceiling is not None:
            level = self._to_integer(self.first_ceiling - self.flip_costs.constant)
        state = CertifiedState(
            network=network,
            nodes=nodes,
            level=level,
            rise=max(rise, 1),
            states=0,
            level_states=0,
            last_states=0,
            flooding=self.flood_depth > 0,
            flood_round=0,
            walks=[tuple(new_walk(n, 64)) for _ in range(_SLOTS)],
            walking=np.full(_SLOTS, -1, np.int64),
            required=np.empty(0, np.int64),
            highest=ALWAYS,
            n_exact=0,
            full=False,
        )
        return self.with_upper_bounds(state, self.paths)

    def with_upper_bounds(self, state: CertifiedState, paths: Iterable[np.ndarray]) -> CertifiedState:
        """Learn from known paths, each ``(steps, n)`` of +-1 between any two states, one flip a step.

        Every state of a path is quenched: minima and passes on the way are added. A pass is a path of two states.
        Raises UserError for a path whose consecutive states do not differ in one spin.
        """
        checked = []
        for number, path in enumerate(paths):
            path = np.asarray(path)
            if path.ndim != 2 or path.shape[1] != state.network.n_spins or not np.isin(path, (-1, 1)).all():
                raise UserError("paths", f"spins (steps, {state.network.n_spins})", f"path {number}", "use -1 and +1")
            if ((path[1:] != path[:-1]).sum(1) != 1).any():
                raise UserError("paths", "one flip a step", f"path {number} with another step", "drop repeated states")
            checked.append(path)
        found = new_found(state.network.n_spins, 1 << max(map(len, checked), default=1).bit_length())
        for path in checked:
            if not add_path(state.network, self._exact, path, found, self.memory_limit):
                state = replace(state, full=True)
                break
        return self._spanned(state)

    def step(
        self, state: CertifiedState, generator: torch.Generator | None = None
    ) -> tuple[CertifiedState, dict[str, float | int | str]]:
        """Examine some million states where a merge still needs proof."""
        network = state.network
        quota = max(self.step_states, _MINIMUM_COST * network.n_minima)
        found = [new_found(network.n_spins, _BUFFER) for _ in range(_SLOTS)]
        with ThreadPoolExecutor(max(1, self.n_threads)) as pool:
            while quota > 0 and not self.finished(state):
                state = self._raise_level(state)
                before = state.states
                state = self._enumerate(state, found, pool, quota)
                quota -= state.states - before + _MINIMUM_COST * network.n_minima
        return state, {
            "states": state.states,
            "minima": network.n_minima * network.sheets,
            "merges exact": f"{state.n_exact} of {len(state.nodes) - 1}",
            "level": self._exact.unit * state.level + self.flip_costs.constant,
            "phase": "flood" if state.flooding else "proof",
        }

    def finished(self, state: CertifiedState, info: object = None) -> str | None:
        """Why there is nothing more to do, in a sentence, or None."""
        if self._proven(state):
            return "Every barrier is exact."
        if state.full:
            limit = f"{self.memory_limit / 2**20:,.0f} MiB"
            return (
                f"The memory limit of {limit} is reached: {state.n_exact} of {len(state.nodes) - 1} merges are exact."
            )
        return None

    def estimate(self, state: CertifiedState) -> CertifiedEstimate:
        """What is known and proven so far."""
        network, exact = state.network, self._exact
        n_minima, listed = network.n_minima, self._listed(state)
        energy, columns = network.energy[:n_minima], network.node_arrays()
        order = np.argsort(columns[3], kind="stable")
        forest = span(network.sheets, energy, network.ceiling[:n_minima], *columns, order, listed)
        height = np.concatenate([columns[3], np.maximum(energy, network.ceiling[:n_minima])])
        rising = np.argsort(height, kind="stable")
        proven = proven_merges(network.sheets, n_minima, *columns[:3], rising, height, listed)
        listed_energy = self._to_energies(energy[state.nodes // network.sheets])
        rank = np.argsort(energy[state.nodes // network.sheets], kind="stable")
        upper, lower = (
            bottlenecks(len(rank), rank[first], rank[second], self._to_energies(level), listed_energy)
            for first, second, level in (forest[1:4], proven)
        )
        first, second = rank[forest[1]], rank[forest[2]]
        # Sides no pass is known between are joined, at infinity, to the lowest minimum.
        apart = rank[np.unique(np.isfinite(upper[np.ix_(rank, rank)]).argmax(1))[1:]]
        first, second = np.append(first, np.full(len(apart), rank[0])), np.append(second, apart)
        upper_level, lower_level = upper[first, second], lower[first, second]
        return CertifiedEstimate(
            energy=listed_energy,
            lower=lower,
            upper=upper,
            first=first,
            second=second,
            upper_level=upper_level,
            lower_level=lower_level,
            n_exact=int((upper_level - lower_level <= 1e-9).sum()),
            states=state.states,
            n_minima=n_minima * network.sheets,
            rounding=exact.rounding,
        )

    def path(self, state: CertifiedState, i: int, j: int) -> np.ndarray:
        """Spins ``(steps, n)`` int8 from listed minimum i to j, one flip a step; the highest energy is ``upper[i, j]``.

        Raises UserError where no path is known yet.
        """
        return self.paths_between(state, [(i, j)])[0]

    def paths_between(self, state: CertifiedState, pairs: Iterable[tuple[int, int]]) -> list[np.ndarray]:
        """`path` of each of ``pairs``, for the price of one spanning forest."""
        network = state.network
        n_minima, columns = network.n_minima, network.node_arrays()
        order = np.argsort(columns[3], kind="stable")
        energy, ceiling = network.energy[:n_minima], network.ceiling[:n_minima]
        used = span(network.sheets, energy, ceiling, *columns, order, self._listed(state))[0]
        found = []
        for i, j in pairs:
            start, goal = int(state.nodes[i]), int(state.nodes[j])
            rows = route(network.sheets, n_minima, *columns[:3], used, start, goal)
            if len(rows) == 0 and start != goal:
                got = f"{i} and {j}, not yet joined"
                raise UserError("i, j", "minima joined by a known path", got, "run more steps")
            parts = [node_spins(network, start)[None]]
            for number, sheet, backwards in rows:
                part = pass_path(self._exact, network.state[number], int(network.coordinate[number]))
                part = -part if sheet else part
                parts.append((part[::-1] if backwards else part)[1:])
            found.append(np.concatenate(parts))
        return found

    # ------------------------------------------------------------------ steps

    def _proven(self, state: CertifiedState) -> bool:
        return state.n_exact == len(state.nodes) - 1

    def _targets(self, state: CertifiedState) -> np.ndarray:
        """The ceiling wanted for each minimum now, (minimum,)."""
        energy = state.network.energy[: state.network.n_minima]
        if state.flooding:
            depth = self._to_integer(self.flood_depth)
            return np.where(energy < state.highest, np.minimum(energy + depth, state.highest), NEVER)
        return np.minimum(state.required, state.level)

    def _wanting(self, state: CertifiedState) -> np.ndarray:
        """Minima to enumerate, the lowest first."""
        network, target = state.network, self._targets(state)
        energy = network.energy[: network.n_minima]
        todo = np.flatnonzero((network.ceiling[: network.n_minima] < target) & (energy < target))
        return todo[np.argsort(energy[todo], kind="stable")]

    def _raise_level(self, state: CertifiedState) -> CertifiedState:
        """End the flood, or raise the level, where nothing is left to do below."""
        flooded = state.states >= self.flood_states
        if state.flooding and (flooded or len(self._wanting(state)) == 0):
            state = replace(state, flooding=False, walking=np.full(_SLOTS, -1, np.int64))
        while not state.flooding and state.level < _TOP and len(self._wanting(state)) == 0:
            rise = state.rise
            if state.last_states > 100_000 and state.level_states > state.last_states:
                # The number of states grows exponentially with the level: aim at three times as many.
                growth = np.log(state.level_states / state.last_states) / rise
                rise = int(np.clip(np.log(3.0) / growth, 0.5 * rise, 2.0 * rise))
            level = min(state.level + rise, _TOP)
            state = replace(state, level=level, rise=rise, last_states=state.level_states, level_states=0)
        return state

    def _enumerate(
        self, state: CertifiedState, found: list[FoundPasses], pool: ThreadPoolExecutor, quota: int
    ) -> CertifiedState:
        """One round: the walkers side by side, then what they found."""
        network, target = state.network, self._targets(state)
        walking = state.walking.copy()
        walking[target[walking] <= network.ceiling[walking]] = -1
        todo = self._wanting(state)
        todo = todo[~np.isin(todo, walking)]
        if state.flooding and state.flood_round % 2:
            todo = todo[::-1]
        slots = [_Slot(Walk(*state.walks[s]), int(walking[s]), todo[s::_SLOTS], found[s]) for s in range(_SLOTS)]
        share = quota // _SLOTS + 1
        list(pool.map(lambda slot: slot.work(self._exact, network, target, share), slots))
        states = sum(slot.states for slot in slots)
        state = replace(
            state,
            states=state.states + states,
            level_states=state.level_states + states,
            flood_round=state.flood_round + 1,
            walks=[tuple(slot.walk) for slot in slots],
            walking=np.array([slot.walking for slot in slots]),
        )
        if not make_room(network, sum(int(slot.found.count[0]) for slot in slots), self.memory_limit):
            # What was found is dropped, and the ceilings stay: bounds hold as they are.
            return replace(state, full=True)
        for slot in slots:
            absorb(network, self._exact, slot.found)
            network.ceiling[slot.sources] = np.maximum(network.ceiling[slot.sources], slot.ceilings)
        return self._spanned(state)

    def _spanned(self, state: CertifiedState) -> CertifiedState:
        """Forget passes outside the spanning forest, and find what is required now."""
        network = state.network
        n_minima, columns = network.n_minima, network.node_arrays()
        order = np.argsort(columns[3], kind="stable")
        energy, ceiling = network.energy[:n_minima], network.ceiling[:n_minima]
        used, _, _, level, required, n_exact = span(
            network.sheets, energy, ceiling, *columns, order, self._listed(state)
        )
        compact(network, order[used[order].any(1)])
        connected = len(level) == len(state.nodes) - 1 and len(level) > 0
        highest = int(level[-1]) if connected else ALWAYS
        return replace(state, required=required, highest=highest, n_exact=int(n_exact))

    # ------------------------------------------------------------------ units

    def _listed(self, state: CertifiedState) -> np.ndarray:
        """For each node the rank of its listed minimum by energy, or -1."""
        network = state.network
        listed = np.full(network.sheets * network.n_minima, -1, np.int32)
        order = np.argsort(network.energy[state.nodes // network.sheets], kind="stable")
        listed[state.nodes[order]] = np.arange(len(order))
        return listed

    def _to_energies(self, levels: np.ndarray) -> np.ndarray:
        return self._exact.unit * levels.astype(np.float64) + self.flip_costs.constant

    def _to_integer(self, difference: float) -> int:
        return int(np.clip(difference / self._exact.unit, -float(_TOP), float(_TOP)))


class _Slot:
    """One walker in one round: what it works through, and what it found.

    ``sources`` starts with the tree it is on its way in (-1: none).
    """

    def __init__(self, walk: Walk, walking: int, todo: np.ndarray, found: FoundPasses) -> None:
        self.walk, self.walking, self.found = walk, walking, found
        self.sources = np.concatenate([[walking], todo])
        self.ceilings = np.full(len(self.sources), NEVER, np.int64)
        self.states = 0

    def work(self, exact: ExactCosts, network: SpinNetwork, target: np.ndarray, quota: int) -> None:
        """Enumerate trees until the quota of states, a full buffer or the end."""
        on_the_way = self.walking >= 0
        at = 0 if on_the_way else 1
        while True:
            ended, at, on_the_way, states = enumerate_trees(
                exact,
                self.walk,
                self.found,
                network.words,
                self.sources,
                target,
                self.ceilings,
                at,
                on_the_way,
                quota - self.states,
            )
            self.states += states
            if ended != DEEPER:
                break
            self.walk = deepened(self.walk)
        self.walking = int(self.sources[at]) if on_the_way else -1
        done = self.ceilings > NEVER
        self.sources, self.ceilings = self.sources[done], self.ceilings[done]


@njit
def _least_costs(exact: ExactCosts, masks: np.ndarray) -> np.ndarray:
    """The least flip cost of each state, (m,) int64."""
    costs = np.empty(masks.shape[1], np.int64)
    least = np.empty(len(masks), np.int64)
    for m in range(len(masks)):
        costs_of(exact.quadruple, exact.external, masks[m], costs)
        least[m] = costs.min()
    return least
