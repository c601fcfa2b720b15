"""The lowest minima of a discrete field, by parallel tempering whose replicas are quenched after every sweep or few.

Sources: replica exchange of Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996). The minima below the states of
a chain in equilibrium are its inherent structures (Stillinger and Weber, Phys. Rev. A 25, 978 (1982)); those of all
temperatures together reach the low minima of every valley.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numba import njit

from theodolite.errors import MissingCapability, UserError
from theodolite.field import Field
from theodolite.sampling import scaled_spins
from theodolite.sampling.lowest_minima import FoundMinima, MinimaTable, empty_table, listed, offer
from theodolite.sampling.multicanonical import discrete_space
from theodolite.sampling.site_kernels import next_word, seed_generators, single_site_of, to_uniform

_FLIPS_A_STEP = 2e7  # trial flips of pair spins in one step: about 0.3 s
_TRIALS_A_STEP = 4e5  # trial changes and quench look-ups of other fields
_UNLIKELY = 30.0  # a chance of e^-30 is never drawn


@final
@dataclass
class TemperingState:
    """Replicas, coldest first, and the minima met.

    Pair spins: ``point`` (replica, n) int32 of -1 and +1, ``cost`` (replica, n) int32 and ``energy`` (replica,) int64
    in quanta (`scaled_spins.py`). Other fields: levels int64, no costs, energies float64 relative to the start.
    ``words`` (replica, 4) are the generators, ``n_sweeps`` and ``n_quenches`` count per replica and altogether,
    ``swaps`` (replica - 1,) the exchanges made with the next warmer.
    """

    point: np.ndarray
    cost: np.ndarray
    energy: np.ndarray
    words: np.ndarray
    swaps: np.ndarray
    n_sweeps: int
    n_quenches: int
    minima: MinimaTable


@final
@dataclass(frozen=True)
class ParallelTempering:
    """Metropolis sweeps at ``n_temperatures`` geometric temperatures from ``low`` to ``high`` (units of the field),
    swaps of neighbours after every sweep, and a quench of every replica each ``quench_every`` sweeps.

    The ``n_lowest`` lowest distinct minima, and as many more as ``margin`` says, are kept, with the sweep at which
    each was first met; mirror images are found together where the energy has that symmetry. Compiled for pair spins
    (``flip_costs``); other fields need ``single_site`` or ``table`` and a compiled ``quench(change, data, n_levels,
    levels, any_level, tolerance) -> (change of energy, changes made)`` such as ``search.descent.quench_levels``.
    Follows `run.drive`: ``init``, ``step`` and ``stop``; a step of pair spins takes about 0.3 s.

    Raises UserError: temperatures that do not rise from above 0, counts below 1. MissingCapability: another field.
    """

    field: Field
    n_lowest: int = 500
    n_temperatures: int = 16
    low: float = 0.15
    high: float = 1.3
    quench_every: int = 1
    margin: float = 1.0
    quench: Callable[..., tuple[float, int]] | None = None

    def __post_init__(self) -> None:
        discrete_space(self.field)
        for name in ("n_lowest", "n_temperatures", "quench_every"):
            if getattr(self, name) < 1:
                raise UserError(name, "at least 1", str(getattr(self, name)), "leave it out to have a good number")
        if not 0.0 < self.low <= self.high < math.inf:
            raise UserError(
                "low, high", "0 < low <= high, finite", f"{self.low}, {self.high}", "in units of the energy"
            )
        if not 0.0 <= self.margin < math.inf:
            raise UserError("margin", "a share of at least 0", str(self.margin), "1 keeps twice the minima asked for")
        if self.field.flip_costs is None:
            single_site_of(self.field)
            if self.quench is None:
                raise MissingCapability(
                    "quench", "a compiled descent", "None", "pass theodolite.search.descent.quench_levels"
                )

    @property
    def temperatures(self) -> np.ndarray:
        """``(n_temperatures,)``, rising."""
        return np.geomspace(self.low, self.high, self.n_temperatures)

    def init(self, generator: torch.Generator) -> TemperingState:
        """Replicas at points drawn from the space."""
        space = discrete_space(self.field)
        start = space.draw(self.n_temperatures, generator)
        words = seed_generators(self.n_temperatures, generator)
        n, n_kept = space.n_coordinates, math.ceil(self.n_lowest * (1.0 + self.margin))
        costs = self.field.flip_costs
        if costs is None:
            point, cost = space.to_levels(start).numpy().copy(), np.zeros((self.n_temperatures, 0), np.int32)
            energy = self.field.value(start).numpy().copy()
            minima = empty_table(n, n_kept, np.int64, mirrored=False)
        else:
            scaled = scaled_spins.scaled_costs(costs)
            point = start.numpy().astype(np.int32)
            cost = np.zeros_like(point)
            for row in range(self.n_temperatures):
                scaled_spins.fill_costs(scaled.pair, scaled.along, point[row], cost[row])
            energy = scaled_spins.scaled_energies(scaled, point)
            minima = empty_table(n, n_kept, np.int8, mirrored=costs.mirrored)
        swaps = np.zeros(self.n_temperatures - 1, np.int64)
        return TemperingState(point, cost, energy, words, swaps, 0, 0, minima)

    def step(self, state: TemperingState, generator: torch.Generator) -> tuple[TemperingState, dict[str, float | str]]:
        """Some thousand sweeps; the replicas carry their own generators."""
        state = copy.deepcopy(state)
        n_sweeps = self._sweeps_a_step()
        advance = self._advance_levels if self.field.flip_costs is None else self._advance_spins
        n_quenches = advance(state, state.n_sweeps + n_sweeps)
        state = replace(state, n_sweeps=state.n_sweeps + n_sweeps, n_quenches=state.n_quenches + n_quenches)
        found = int(state.minima.count[0])
        return state, {"sweeps": state.n_sweeps, "minima": 2 * found if state.minima.mirrored else found}

    def stop(self, state: TemperingState, info: Mapping[str, Any]) -> str | None:
        """A sentence once none of the lowest minima was met in the last half of the sweeps; else None."""
        found = self.found(state)
        if len(found.energy) == 0 or 2 * int(found.found_at.max()) > state.n_sweeps:
            return None
        return f"None of the {len(found.energy)} lowest minima is new in the last half of {state.n_sweeps} sweeps."

    def found(self, state: TemperingState, n_lowest: int | None = None) -> FoundMinima:
        """The lowest minima met so far, exact, ``n_lowest`` of them (None: as many as were asked for)."""
        return listed(self.field, state.minima, self.n_lowest if n_lowest is None else n_lowest)

    def _sweeps_a_step(self) -> int:
        space = discrete_space(self.field)
        sites = self.n_temperatures * space.n_coordinates
        if self.field.flip_costs is not None:
            return max(1, int(_FLIPS_A_STEP / sites))
        # A quench looks all changes up, some ten times.
        quench = 10 * space.n_coordinates * (space.levels - 1) * self.n_temperatures / self.quench_every
        return max(1, int(_TRIALS_A_STEP / (sites + quench)))

    def _advance_spins(self, state: TemperingState, until: int) -> int:
        costs = self.field.flip_costs
        scaled = scaled_spins.scaled_costs(costs)  # type: ignore[arg-type]
        return _temper_spins(
            scaled.pair,
            scaled.place_mask,
            scaled.quantum / self.temperatures,
            scaled.quantum,
            costs.constant,  # type: ignore[union-attr]
            state.point,
            state.cost,
            state.energy,
            state.words,
            state.swaps,
            state.n_sweeps,
            until,
            self.quench_every,
            state.minima.arrays(),
        )

    def _advance_levels(self, state: TemperingState, until: int) -> int:
        space = discrete_space(self.field)
        site = single_site_of(self.field)
        return _temper_levels(
            site.change,
            site.data,
            self.quench,
            space.levels,
            1.0 / self.temperatures,
            state.point,
            state.energy,
            state.words,
            state.swaps,
            state.n_sweeps,
            until,
            self.quench_every,
            state.minima.arrays(),
        )


@njit(nogil=True)
def _sweep_spins(pair: np.ndarray, spins: np.ndarray, costs: np.ndarray, beta: float, words: np.ndarray) -> int:
    """One Metropolis sweep over the sites in order; the change of energy in quanta."""
    s0, s1, s2, s3 = words[0], words[1], words[2], words[3]
    hopeless = _UNLIKELY / beta
    change = 0
    for site in range(len(spins)):
        cost = costs[site]
        if cost > 0:
            if cost > hopeless:
                continue
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            if to_uniform(word) >= np.exp(-beta * cost):
                continue
        change += cost
        scaled_spins.flip(pair, spins, costs, site)
    words[0], words[1], words[2], words[3] = s0, s1, s2, s3
    return change


@njit(nogil=True)
def _exchange(betas: np.ndarray, energy: np.ndarray, words: np.ndarray, order: np.ndarray, swaps: np.ndarray) -> None:
    """Swap neighbours: ``order`` (replica,) says which row of the arrays is at each temperature."""
    for r in range(len(betas) - 1):
        a, b = order[r], order[r + 1]
        gain = (betas[r] - betas[r + 1]) * (energy[a] - energy[b])
        accepted = gain >= 0.0
        if not accepted:
            word, words[r, 0], words[r, 1], words[r, 2], words[r, 3] = next_word(
                words[r, 0], words[r, 1], words[r, 2], words[r, 3]
            )
            accepted = to_uniform(word) < np.exp(gain)
        if accepted:
            order[r], order[r + 1] = b, a
            swaps[r] += 1


@njit(nogil=True)
def _sorted_by(order: np.ndarray, rows: np.ndarray) -> None:
    rows[:] = rows[order].copy()


@njit(nogil=True)
def _temper_spins(
    pair: np.ndarray,
    place_mask: Any,
    betas: np.ndarray,
    quantum: float,
    constant: float,
    spins: np.ndarray,
    costs: np.ndarray,
    energy: np.ndarray,
    words: np.ndarray,
    swaps: np.ndarray,
    start: int,
    until: int,
    quench_every: int,
    minima: Any,
) -> int:
    order = np.arange(len(betas))
    trial, trial_costs = np.empty_like(spins[0]), np.empty_like(costs[0])
    n_quenches = 0
    for sweep in range(start + 1, until + 1):
        for r in range(len(betas)):
            row = order[r]
            energy[row] += _sweep_spins(pair, spins[row], costs[row], betas[r], words[r])
        _exchange(betas, energy, words, order, swaps)
        if sweep % quench_every == 0:
            for row in range(len(betas)):
                trial[:] = spins[row]
                trial_costs[:] = costs[row]
                change = scaled_spins.quench(pair, trial, trial_costs, place_mask)[0]
                n_quenches += 1
                offer(trial, constant + quantum * (energy[row] + change), sweep, *minima)
    for rows in (spins, costs):
        _sorted_by(order, rows)
    _sorted_by(order, energy)
    return n_quenches


@njit(nogil=True)
def _temper_levels(
    change: Any,
    data: Any,
    quench: Any,
    n_levels: int,
    betas: np.ndarray,
    levels: np.ndarray,
    energy: np.ndarray,
    words: np.ndarray,
    swaps: np.ndarray,
    start: int,
    until: int,
    quench_every: int,
    minima: Any,
) -> int:
    order = np.arange(len(betas))
    trial = np.empty_like(levels[0])
    n_quenches = 0
    for sweep in range(start + 1, until + 1):
        for r in range(len(betas)):
            row = order[r]
            energy[row] += _sweep_levels(change, data, n_levels, levels[row], betas[r], words[r])
        _exchange(betas, energy, words, order, swaps)
        if sweep % quench_every == 0:
            for row in range(len(betas)):
                trial[:] = levels[row]
                fall = quench(change, data, n_levels, trial, True, 0.0)[0]
                n_quenches += 1
                offer(trial, energy[row] + fall, sweep, *minima)
    _sorted_by(order, levels)
    _sorted_by(order, energy)
    return n_quenches


@njit(nogil=True)
def _sweep_levels(change: Any, data: Any, n_levels: int, levels: np.ndarray, beta: float, words: np.ndarray) -> float:
    """One Metropolis sweep over the coordinates in order, each to another level drawn uniformly."""
    s0, s1, s2, s3 = words[0], words[1], words[2], words[3]
    total = 0.0
    for site in range(len(levels)):
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        jump = np.int64(((word >> np.uint64(32)) * np.uint64(n_levels - 1)) >> np.uint64(32))
        new_level = jump + 1 if jump >= levels[site] else jump
        cost = change(levels, site, new_level, data)
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        if cost <= 0.0 or to_uniform(word) < np.exp(-beta * cost):
            levels[site] = new_level
            total += cost
    words[0], words[1], words[2], words[3] = s0, s1, s2, s3
    return total
