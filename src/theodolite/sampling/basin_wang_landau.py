"""Generalised Wang-Landau over basins and energies: a walk that is pushed out of every basin at every height.

Sources: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", equation 2.15
and section 5.1; Zhou, Phys. Rev. Lett. 106, 180602 (2011), who mapped spin glasses of 100 spins this way; the
decreasing increment is that of Belardinelli and Pereyra, Phys. Rev. E 75, 046701 (2007).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numba import njit

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import scaled_spins
from theodolite.sampling.lowest_minima import (
    FoundMinima,
    MinimaTable,
    descend_exactly,
    empty_table,
    find,
    listed,
    point_key,
)
from theodolite.sampling.multicanonical import discrete_space
from theodolite.sampling.site_kernels import next_word, seed_generators, to_uniform

_STEPS_A_STEP = 200_000
_ROOM = 4096  # passes that the record first has room for


@final
@dataclass
class BasinWalkState:
    """One walker, its bins and the passes it has seen.

    ``spins``, ``costs`` (n,) int32; ``energy`` (1,) int64 in quanta (`scaled_spins.py`); ``here`` (3,): the row of
    its basin (the last row: none of the list), its energy bin, and whether it lies on the mirror image's side.
    ``penalty`` (basin + 1, bin): gamma N of equation 2.15. ``crossing`` (basin, basin, 2): the row of the lowest pass
    seen between two basins (1: to the mirror image of the second), -1 for none. Pass rows hold ``level`` (pass,) in
    quanta, ``state`` (pass, n) int8 and ``coordinate`` (pass,); ``n_passes`` (1,) of them are filled.
    """

    spins: np.ndarray
    costs: np.ndarray
    energy: np.ndarray
    here: np.ndarray
    words: np.ndarray
    penalty: np.ndarray
    crossing: np.ndarray
    level: np.ndarray
    state: np.ndarray
    coordinate: np.ndarray
    n_passes: np.ndarray
    minima: MinimaTable
    n_steps: int
    n_accepted: int


@final
@dataclass(frozen=True)
class SeenPasses:
    """Passes between listed basins: flipping spin ``coordinate[k]`` of ``state[k]`` (pass, n) int8 leads from the
    basin of the minimum ``first[k]`` (pass, n) to that of ``second[k]``; ``level`` (pass,) is the higher energy."""

    level: np.ndarray
    state: np.ndarray
    coordinate: np.ndarray
    first: np.ndarray
    second: np.ndarray


@final
@dataclass(frozen=True)
class BasinWangLandau:
    """Single flips of one walker, accepted with exp(gamma (N_here - N_there)); N counts the visits to a bin.

    The bin of a state is its basin (by steepest descent) and its energy, in ``n_bins`` between ``low`` and ``high``
    per spin; states above are refused, states below fall into the first bin. The ``n_lowest`` lowest minima met have
    bins of their own; all basins above them share one bin an energy, and a basin that is pushed off the list by a
    lower one joins these. A new basin starts at the least N of the listed ones at each energy, so that the walk does
    not stay until it caught up. ``reduce``: gamma falls as (bins in use) / steps once that is less, so that N converges
    to a constant plus ln of the number of states in the bin. ``mirror``: where E(s) = E(-s), a basin and its mirror
    image share their bins and are found together; False treats them as two basins, as in the papers.

    The default energy range is that of the papers for the spin glass. Follows `run.drive`; a step makes 200,000 flips.
    Raises MissingCapability: a field without ``flip_costs``; UserError: settings out of range.
    """

    field: Field
    n_lowest: int = 500
    gamma: float = 0.1
    low: float = -0.8
    high: float = -0.35
    n_bins: int = 20
    reduce: bool = False
    mirror: bool = True

    def __post_init__(self) -> None:
        self.field.require("flip_costs")
        for name in ("n_lowest", "n_bins"):
            if getattr(self, name) < 1:
                raise UserError(name, "at least 1", str(getattr(self, name)), "leave it out to have a good number")
        if not 0.0 < self.gamma < math.inf:
            raise UserError("gamma", "a positive number", str(self.gamma), "0.1 maps a spin glass of 100 spins")
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError("low, high", "low < high, finite", f"{self.low}, {self.high}", "in energy per spin")

    @property
    def _mirrored(self) -> bool:
        return self.mirror and self.field.require("flip_costs").mirrored

    def init(self, generator: torch.Generator) -> BasinWalkState:
        """The walker at a minimum below a point drawn from the space.

        Raises UserError where that lies above ``high``.
        """
        costs = self.field.require("flip_costs")
        scaled = scaled_spins.scaled_costs(costs)
        spins = discrete_space(self.field).draw(1, generator).numpy()[0].astype(np.int32)
        n = len(spins)
        cost = np.zeros(n, np.int32)
        scaled_spins.fill_costs(scaled.pair, scaled.along, spins, cost)
        scaled_spins.quench(scaled.pair, spins, cost, scaled.place_mask)
        energy = scaled_spins.scaled_energies(scaled, spins[None])
        if energy[0] * scaled.quantum + costs.constant >= self.high * n:
            raise UserError(
                "high",
                "an energy per spin above that of typical minima",
                f"{self.high:g}, below {(energy[0] * scaled.quantum + costs.constant) / n:g}",
                "raise it",
            )
        minima = empty_table(n, self.n_lowest, np.int8, self._mirrored, spare=False)
        n_basins = len(minima.energy)
        return BasinWalkState(
            spins=spins,
            costs=cost,
            energy=energy,
            here=np.array([n_basins, 0, 0]),
            words=seed_generators(1, generator)[0],
            penalty=np.zeros((n_basins + 1, self.n_bins)),
            crossing=np.full((n_basins, n_basins, 2), -1, np.int32),
            level=np.zeros(_ROOM, np.int64),
            state=np.zeros((_ROOM, n), np.int8),
            coordinate=np.zeros(_ROOM, np.int64),
            n_passes=np.zeros(1, np.int64),
            minima=minima,
            n_steps=0,
            n_accepted=0,
        )

    def step(self, state: BasinWalkState, generator: torch.Generator) -> tuple[BasinWalkState, dict[str, float | str]]:
        """200,000 trial flips; the walker carries its own generator."""
        return self.walk(state, _STEPS_A_STEP)

    def walk(self, state: BasinWalkState, n_steps: int) -> tuple[BasinWalkState, dict[str, float | str]]:
        """A copy of ``state`` after ``n_steps`` more trial flips."""
        state = copy.deepcopy(state)
        costs = self.field.require("flip_costs")
        scaled = scaled_spins.scaled_costs(costs)
        n = len(state.spins)
        bottom = (self.low * n - costs.constant) / scaled.quantum
        per_bin = self.n_bins * scaled.quantum / ((self.high - self.low) * n)
        until = state.n_steps + n_steps
        while state.n_steps < until:
            made, accepted = _walk(
                scaled.pair,
                scaled.place_mask,
                bottom,
                per_bin,
                self.gamma,
                self.reduce,
                state.spins,
                state.costs,
                state.energy,
                state.here,
                state.words,
                state.penalty,
                state.crossing,
                state.level,
                state.state,
                state.coordinate,
                state.n_passes,
                state.minima.arrays(),
                state.n_steps,
                until,
            )
            state = replace(state, n_steps=state.n_steps + made, n_accepted=state.n_accepted + accepted)
            if state.n_steps < until:
                state = replace(
                    state,
                    level=np.concatenate([state.level, np.zeros_like(state.level)]),
                    state=np.concatenate([state.state, np.zeros_like(state.state)]),
                    coordinate=np.concatenate([state.coordinate, np.zeros_like(state.coordinate)]),
                )
        found = int(state.minima.count[0]) * (2 if state.minima.mirrored else 1)
        return state, {"steps": state.n_steps, "minima": found, "acceptance": state.n_accepted / state.n_steps}

    def stop(self, state: BasinWalkState, info: Mapping[str, Any]) -> str | None:
        """A sentence once none of the lowest minima was met in the last half of the steps; else None."""
        found = self.found(state)
        if len(found.energy) == 0 or 2 * int(found.found_at.max()) > state.n_steps:
            return None
        return f"None of the {len(found.energy)} lowest minima is new in the last half of {state.n_steps} steps."

    def found(self, state: BasinWalkState) -> FoundMinima:
        """The ``n_lowest`` lowest minima met so far, exact, with the step at which each was first met."""
        return listed(self.field, state.minima, self.n_lowest)

    def passes(self, state: BasinWalkState) -> SeenPasses:
        """The lowest pass seen between any two listed basins; a pass stands for its mirror image too (``mirror``)."""
        costs = self.field.require("flip_costs")
        rows = np.unique(state.crossing[state.crossing >= 0])
        before = state.state[rows].astype(np.int64)
        after = before.copy()
        after[np.arange(len(rows)), state.coordinate[rows]] *= -1
        energies = [self.field.value(torch.from_numpy(states)).numpy() for states in (before, after) if len(states)]
        first, second = (descend_exactly(costs, states).astype(np.int8) for states in (before, after))
        level = np.maximum(*energies) if energies else np.zeros(0)
        return SeenPasses(level, state.state[rows], state.coordinate[rows], first, second)


@njit(nogil=True)
def _walk(
    pair: np.ndarray,
    place_mask: Any,
    bottom: float,
    per_bin: float,
    gamma: float,
    reduce: bool,
    spins: np.ndarray,
    costs: np.ndarray,
    energy: np.ndarray,
    here: np.ndarray,
    words: np.ndarray,
    penalty: np.ndarray,
    crossing: np.ndarray,
    level: np.ndarray,
    state: np.ndarray,
    coordinate: np.ndarray,
    n_passes: np.ndarray,
    minima: Any,
    start: int,
    until: int,
) -> tuple[int, int]:
    """Trial flips until ``until``, or until the record of passes is full: the trials made, and those accepted."""
    n_basins, n_bins = penalty.shape[0] - 1, penalty.shape[1]
    _, _, _, _, _, count, _, _, mirrored = minima
    trial, trial_costs = np.empty_like(spins), np.empty_like(costs)
    end, end_costs = np.empty_like(spins), np.empty_like(costs)
    s0, s1, s2, s3 = words[0], words[1], words[2], words[3]
    n_accepted, step = 0, start
    while step < until and n_passes[0] < len(level):
        word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
        site = np.int64(((word >> np.uint64(32)) * np.uint64(len(spins))) >> np.uint64(32))
        value = energy[0] + costs[site]
        height = max(0, np.int64(np.floor((value - bottom) * per_bin)))
        if height < n_bins:
            trial[:] = spins
            trial_costs[:] = costs
            scaled_spins.flip(pair, trial, trial_costs, site)
            end[:] = trial
            end_costs[:] = trial_costs
            lowest = value + scaled_spins.quench(pair, end, end_costs, place_mask)[0]
            basin = _basin(end, lowest, step, penalty, here, crossing, minima)
            turned = 1 if end[0] < 0 else 0
            if basin < n_basins and here[0] < n_basins:
                parity = here[2] ^ turned if mirrored else 0
                if basin != here[0] or parity == 1:
                    top = max(energy[0], value)
                    _record(spins, site, top, here[0], basin, parity, crossing, level, state, coordinate, n_passes)
            gain = penalty[here[0], here[1]] - penalty[basin, height]
            accepted = gain >= 0.0
            if not accepted:
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                accepted = to_uniform(word) < np.exp(gain)
            if accepted:
                spins[:] = trial
                costs[:] = trial_costs
                energy[0] = value
                here[0], here[1], here[2] = basin, height, turned
                n_accepted += 1
        step += 1
        bins_in_use = (count[0] + 1) * n_bins
        penalty[here[0], here[1]] += min(gamma, bins_in_use / step) if reduce else gamma
    words[0], words[1], words[2], words[3] = s0, s1, s2, s3
    return step - start, n_accepted


@njit(nogil=True)
def _basin(
    end: np.ndarray,
    value: int,
    step: int,
    penalty: np.ndarray,
    here: np.ndarray,
    crossing: np.ndarray,
    minima: Any,
) -> Any:
    """The row of a minimum, taken into the list where it belongs there; the last row of ``penalty`` where not."""
    point, energy, key, found_at, slot, count, ceiling, words, mirrored = minima
    if value >= ceiling[0]:
        return len(energy)
    name = point_key(end, words, mirrored)
    place = find(name, key, slot)
    if slot[place] >= 0:
        return slot[place]
    row = count[0]
    if row < len(energy):
        count[0] += 1
    else:
        row = np.argmax(energy)
        crossing[row] = -1
        crossing[:, row] = -1
        if here[0] == row:
            here[0] = len(energy)
    turn = -1 if mirrored and end[0] < 0 else 1
    for k in range(len(end)):
        point[row, k] = turn * end[k]
    energy[row], key[row], found_at[row] = value, name, step
    for height in range(penalty.shape[1]):
        least = np.inf
        for other in range(count[0]):
            if other != row:
                least = min(least, penalty[other, height])
        penalty[row, height] = least if np.isfinite(least) else 0.0
    slot[:] = -1
    for other in range(count[0]):
        slot[find(key[other], key, slot)] = other
    if count[0] == len(energy):
        ceiling[0] = energy.max()
    return row


@njit(nogil=True)
def _record(
    spins: np.ndarray,
    site: Any,
    top: int,
    first: int,
    second: int,
    parity: int,
    crossing: np.ndarray,
    level: np.ndarray,
    state: np.ndarray,
    coordinate: np.ndarray,
    n_passes: np.ndarray,
) -> None:
    """Keep a pass if it is the lowest between its basins."""
    low, high = min(first, second), max(first, second)
    row = crossing[low, high, parity]
    if row < 0:
        row = n_passes[0]
        n_passes[0] += 1
        crossing[low, high, parity] = row
    elif top >= level[row]:
        return
    level[row] = top
    coordinate[row] = site
    for k in range(len(spins)):
        state[row, k] = spins[k]
