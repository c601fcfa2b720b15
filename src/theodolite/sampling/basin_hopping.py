"""Basin hopping: a Metropolis walk over minima by random kicks and descents, many walkers at once.

Source: Wales and Doye, J. Phys. Chem. A 101, 5111 (1997); Li and Scheraga, Proc. Natl. Acad. Sci. 84, 6611 (1987).
A proposer of minima for the mappings of Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional
Image Spaces", Algorithm 3.
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
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import scaled_spins
from theodolite.sampling.lowest_minima import FoundMinima, MinimaTable, empty_table, listed, offer
from theodolite.sampling.site_kernels import next_word, seed_generators, to_uniform
from theodolite.space import Box, DiscreteSpace

# Points (batch, *shape) -> minima (batch, *shape) and energies (batch,).
Descend = Callable[[Tensor], tuple[Tensor, Tensor]]

_KICKS_A_STEP = 400_000


@final
@dataclass
class SpinHoppingState:
    """Walkers at minima: ``spins``, ``costs`` (walker, n) int32 and ``energy`` (walker,) int64 in quanta
    (`scaled_spins.py`), the generators ``words`` (walker, 4), and the minima met."""

    spins: np.ndarray
    costs: np.ndarray
    energy: np.ndarray
    words: np.ndarray
    n_kicks: int
    n_accepted: int
    minima: MinimaTable


@final
@dataclass(frozen=True)
class SpinHopping:
    """Basin hopping of pair spins: ``kick`` spins or fewer, their number and places uniform, are flipped, then the
    steepest descent; compiled.

    A new minimum is accepted with exp(-(E' - E) / ``temperature``), in units of the energy. ``n_walkers`` are
    independent. The ``n_lowest`` lowest distinct minima met are kept, and their mirror images where the energy has
    that symmetry. Follows `run.drive`: ``init``, ``step``, ``stop``; a step makes 400,000 kicks, about 0.4 s.
    Raises MissingCapability: a field without ``flip_costs``. UserError: settings out of range.
    """

    field: Field
    n_lowest: int = 500
    n_walkers: int = 16
    kick: int = 10
    temperature: float = 0.5

    def __post_init__(self) -> None:
        self.field.require("flip_costs")
        _refuse_settings(self)
        if self.kick != int(self.kick):
            raise UserError("kick", "a whole number of spins", str(self.kick), "a tenth of the spins is a good number")

    def init(self, generator: torch.Generator) -> SpinHoppingState:
        """Walkers at the minima below points drawn from the space."""
        costs = self.field.require("flip_costs")
        scaled = scaled_spins.scaled_costs(costs)
        spins = self.field.space.draw(self.n_walkers, generator).numpy().astype(np.int32)
        cost = np.zeros_like(spins)
        for row in range(self.n_walkers):
            scaled_spins.fill_costs(scaled.pair, scaled.along, spins[row], cost[row])
            scaled_spins.quench(scaled.pair, spins[row], cost[row], scaled.place_mask)
        energy = scaled_spins.scaled_energies(scaled, spins)
        minima = empty_table(spins.shape[1], self.n_lowest, np.int8, costs.mirrored)
        for row in range(self.n_walkers):
            offer(spins[row], costs.constant + scaled.quantum * energy[row], 0, *minima.arrays())
        return SpinHoppingState(spins, cost, energy, seed_generators(self.n_walkers, generator), 0, 0, minima)

    def step(
        self, state: SpinHoppingState, generator: torch.Generator
    ) -> tuple[SpinHoppingState, dict[str, float | str]]:
        """Some kicks of every walker; the walkers carry their own generators."""
        costs = self.field.require("flip_costs")
        scaled = scaled_spins.scaled_costs(costs)
        state = copy.deepcopy(state)
        each = max(1, _KICKS_A_STEP // self.n_walkers)
        n_accepted = _hop(
            scaled.pair,
            scaled.place_mask,
            scaled.quantum,
            costs.constant,
            int(self.kick),
            scaled.quantum / self.temperature,
            state.spins,
            state.costs,
            state.energy,
            state.words,
            state.n_kicks // self.n_walkers,
            each,
            state.minima.arrays(),
        )
        state = replace(state, n_kicks=state.n_kicks + each * self.n_walkers, n_accepted=state.n_accepted + n_accepted)
        return state, {"kicks": state.n_kicks, "acceptance": state.n_accepted / state.n_kicks}

    def stop(self, state: SpinHoppingState, info: Mapping[str, Any]) -> str | None:
        """A sentence once none of the lowest minima was met in the last half of the kicks; else None."""
        found = self.found(state)
        if 2 * self.n_walkers * int(found.found_at.max()) > state.n_kicks:
            return None
        return f"None of the {len(found.energy)} lowest minima is new in the last half of {state.n_kicks} kicks."

    def found(self, state: SpinHoppingState) -> FoundMinima:
        """The lowest minima met so far, exact, with the kick of its walker at which each was first met."""
        return listed(self.field, state.minima, self.n_lowest)


@final
@dataclass
class HoppingState:
    """Walkers at minima ``point`` (walker, *shape) of ``energy`` (walker,) float64, and the distinct minima met:
    ``known`` (minimum, *shape), ``known_energy`` and ``found_at`` (minimum,), rising in energy."""

    point: Tensor
    energy: Tensor
    known: Tensor
    known_energy: Tensor
    found_at: Tensor
    n_kicks: int
    n_accepted: int


@final
@dataclass(frozen=True)
class Hopping:
    """Basin hopping of any field, all walkers' descents in one batch.

    ``descend`` maps points (batch, *shape) to minima and energies (batch,). A kick adds normal noise of standard
    deviation ``kick`` to every coordinate of a real point (input units; clamped to a box), or draws ``kick``
    coordinates of a discrete point anew. A new minimum is accepted with exp(-(E' - E) / ``temperature``). Minima
    closer than ``resolution`` (largest difference of a coordinate) are one; the ``n_lowest`` lowest are kept.
    Follows `run.drive`; a step is one kick of every walker. Raises UserError: settings out of range.
    """

    field: Field
    descend: Descend
    kick: float
    temperature: float
    n_lowest: int = 500
    n_walkers: int = 64
    resolution: float = 1e-3

    def __post_init__(self) -> None:
        _refuse_settings(self)
        if not 0.0 <= self.resolution < math.inf:
            raise UserError("resolution", "a distance of at least 0", str(self.resolution), "in input units")

    def init(self, generator: torch.Generator) -> HoppingState:
        """Walkers at the minima below points drawn from the space."""
        point, energy = self.descend(self.field.space.draw(self.n_walkers, generator))
        empty = torch.empty(0, dtype=torch.float64)
        state = HoppingState(point, energy.double(), point[:0], empty, empty.long(), 0, 0)
        return self._with_new(state, point, state.energy)

    def step(self, state: HoppingState, generator: torch.Generator) -> tuple[HoppingState, dict[str, float | str]]:
        """One kick of every walker."""
        trial, energy = self.descend(self._kicked(state.point, generator))
        energy = energy.double()
        uniform = torch.rand(len(energy), generator=generator, dtype=torch.float64)
        accepted = uniform < torch.exp((state.energy - energy) / self.temperature)
        column = accepted.reshape(-1, *[1] * (trial.ndim - 1))
        state = replace(
            state,
            point=torch.where(column, trial, state.point),
            energy=torch.where(accepted, energy, state.energy),
            n_kicks=state.n_kicks + self.n_walkers,
            n_accepted=state.n_accepted + int(accepted.sum()),
        )
        state = self._with_new(state, trial, energy)
        return state, {
            "kicks": state.n_kicks,
            "minima": len(state.known),
            "acceptance": state.n_accepted / state.n_kicks,
        }

    def found(self, state: HoppingState) -> FoundMinima:
        """The lowest minima met so far, with the number of kicks when each was first met."""
        return FoundMinima(state.known, state.known_energy, state.found_at)

    def _kicked(self, point: Tensor, generator: torch.Generator) -> Tensor:
        space = self.field.space
        if isinstance(space, DiscreteSpace):
            rank = torch.rand((len(point), space.n_coordinates), generator=generator).argsort(1)
            fresh = space.draw(len(point), generator)
            return torch.where((rank < self.kick).reshape(point.shape), fresh, point)
        moved = point + self.kick * torch.randn(point.shape, generator=generator, dtype=point.dtype)
        return moved.clamp(space.low, space.high) if isinstance(space, Box) else moved

    def _with_new(self, state: HoppingState, point: Tensor, energy: Tensor) -> HoppingState:
        """The state with ``point`` (batch, *shape) merged into the minima known: of close ones the first met stays."""
        points = torch.cat([state.known, point])
        energies = torch.cat([state.known_energy, energy])
        found_at = torch.cat([state.found_at, torch.full((len(point),), state.n_kicks)])
        flat = points.flatten(1).double()
        kept = list(range(len(state.known)))
        for row in range(len(state.known), len(points)):
            apart = (
                (flat[kept] - flat[row]).abs().amax(1) > self.resolution if kept else torch.ones(1, dtype=torch.bool)
            )
            if bool(apart.all()):
                kept.append(row)
        rows = torch.tensor(kept)
        rows = rows[energies[rows].argsort(stable=True)][: self.n_lowest]
        return replace(state, known=points[rows], known_energy=energies[rows], found_at=found_at[rows])


def _refuse_settings(settings: SpinHopping | Hopping) -> None:
    for name in ("n_lowest", "n_walkers"):
        if getattr(settings, name) < 1:
            raise UserError(name, "at least 1", str(getattr(settings, name)), "leave it out to have a good number")
    for name in ("kick", "temperature"):
        if not 0.0 < getattr(settings, name) < math.inf:
            raise UserError(name, "a positive number", str(getattr(settings, name)), "see the class for its unit")


@njit(nogil=True)
def _hop(
    pair: np.ndarray,
    place_mask: Any,
    quantum: float,
    constant: float,
    kick: int,
    beta: float,
    spins: np.ndarray,
    costs: np.ndarray,
    energy: np.ndarray,
    words: np.ndarray,
    start: int,
    each: int,
    minima: Any,
) -> int:
    n = spins.shape[1]
    trial, trial_costs = np.empty_like(spins[0]), np.empty_like(costs[0])
    n_accepted = 0
    for time in range(start + 1, start + each + 1):
        for walker in range(len(spins)):
            s0, s1, s2, s3 = words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3]
            trial[:] = spins[walker]
            trial_costs[:] = costs[walker]
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            value = energy[walker]
            for _ in range(1 + np.int64(to_uniform(word) * kick)):
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                site = np.int64(to_uniform(word) * n)
                value += trial_costs[site]
                scaled_spins.flip(pair, trial, trial_costs, site)
            value += scaled_spins.quench(pair, trial, trial_costs, place_mask)[0]
            offer(trial, constant + quantum * value, time, *minima)
            word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            if value <= energy[walker] or to_uniform(word) < np.exp(beta * (energy[walker] - value)):
                spins[walker] = trial
                costs[walker] = trial_costs
                energy[walker] = value
                n_accepted += 1
            words[walker, 0], words[walker, 1], words[walker, 2], words[walker, 3] = s0, s1, s2, s3
    return n_accepted
