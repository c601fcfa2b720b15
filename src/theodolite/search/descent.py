"""Descent of a discrete field by changes of one coordinate at a time, to a local minimum.

The steepest rule defines the basins of every exact method here; both rules are those of step 2 of the mapping in
Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from theodolite import spin_kernels
from theodolite.errors import FieldError, MissingCapability, UserError
from theodolite.field import Field, FlipCosts, SingleSite
from theodolite.site_changes import ROUNDING, compiled_change, spin_rounding
from theodolite.space import DiscreteSpace

Rule = Literal["steepest", "greedy"]
Neighbourhood = Literal["any", "adjacent"]

_BATCH_ROUNDING = 1e-6  # relative, of a float32 network in batches of different sizes
_LARGEST_BLOCK = 2**24  # numbers held at once
_GREEDY_BATCH = 32  # neighbours of one point evaluated before the first improving one is taken


@final
@dataclass(frozen=True)
class Descended:
    """Minima ``point`` (batch, *shape), ``energy`` (batch,) float64 and the changes made, ``flips`` (batch,) int64."""

    point: Tensor
    energy: Tensor
    flips: Tensor


def descend(
    field: Field,
    points: Tensor,
    *,
    rule: Rule = "steepest",
    neighbourhood: Neighbourhood = "any",
    generator: torch.Generator | None = None,
) -> Descended:
    """Change one coordinate at a time until no change lowers the energy.

    ``points`` (batch, *shape). "steepest" makes the change that lowers the energy most, the first of equals in the
    order of coordinates and levels; "greedy" the first that lowers it, in a random order drawn for each point from
    ``generator``. ``neighbourhood``: a coordinate may go to "any" other level, or to an "adjacent" one. Compiled for
    fields with ``flip_costs``, ``single_site`` or ``table``; others evaluate all neighbours in batches (steepest), or
    a few at a time (greedy). A state on a plateau counts as a minimum.

    Raises UserError: a space without neighbours, points outside it, an unknown rule, greedy without a generator.
    FieldError: an energy that is not finite.
    """
    space = _checked_space(field, neighbourhood)
    if rule not in ("steepest", "greedy"):
        raise UserError("rule", "'steepest' or 'greedy'", repr(rule), "'steepest' is what basins are defined by")
    if rule == "greedy" and generator is None:
        raise UserError("generator", "a torch.Generator for the greedy order", "None", "seed one and pass it")
    shuffle = generator if rule == "greedy" else None
    energy = field.value(points)
    levels = space.to_levels(points)
    site = compiled_change(field)
    if field.flip_costs is not None:
        levels, flips = _descend_spins(field.flip_costs, levels, shuffle)
    elif site is not None:
        any_level = neighbourhood == "any"
        levels, flips = _descend_levels(site, space.levels, levels, any_level, _rounding(energy), shuffle)
    else:
        neighbours = _Neighbours(field, space, neighbourhood == "any")
        if shuffle is None:
            levels, energy, flips = neighbours.steepest(levels, energy)
        else:
            levels, energy, flips = neighbours.greedy(levels, energy, shuffle)
        return Descended(space.from_levels(levels), energy, flips)
    point = space.from_levels(levels)
    return Descended(point, field.value(point), flips)


def is_minimum(
    field: Field, points: Tensor, *, neighbourhood: Neighbourhood = "any", tolerance: float | None = None
) -> Tensor:
    """Whether no change of one coordinate lowers the energy of ``points`` (batch, *shape) by more than ``tolerance``.

    ``(batch,)`` bool. ``tolerance``, in units of the energy: None allows for rounding, relative 1e-12 for compiled
    fields and 1e-6 for others. Raises as ``descend``.
    """
    space = _checked_space(field, neighbourhood)
    energy = field.value(points)
    levels = space.to_levels(points)
    site = compiled_change(field)
    if field.flip_costs is not None:
        spins = _spins(levels)
        local = spins @ field.flip_costs.couplings + field.flip_costs.external
        least, rounding = torch.from_numpy((2.0 * spins * local).min(1)), spin_rounding(field.flip_costs)
    elif site is not None:
        changes, finite = _least_changes(site.change, site.data, space.levels, levels.numpy(), neighbourhood == "any")
        _refuse_non_finite(finite, levels)
        least, rounding = torch.from_numpy(changes), _rounding(energy)
    else:
        neighbours = _Neighbours(field, space, neighbourhood == "any")
        parts = [neighbours.best(levels[a:b])[1] for a, b in neighbours.groups(len(levels))]
        least = torch.cat(parts) - energy if parts else energy
        rounding = _BATCH_ROUNDING * energy.abs().clamp(min=1.0)
    return least >= -(rounding if tolerance is None else tolerance)


def steepest_change_of(field: Field, point: Tensor, neighbourhood: Neighbourhood = "any") -> Tensor | None:
    """The point ``(1, *shape)`` that the steepest single change makes of ``point`` (1, *shape), None at a minimum.

    The change that ``descend`` would make. Raises as ``descend``.
    """
    space = _checked_space(field, neighbourhood)
    levels = space.to_levels(point).clone()
    site = compiled_change(field)
    if field.flip_costs is not None:
        spins = _spins(levels)
        half_cost = (spins * (spins @ field.flip_costs.couplings + field.flip_costs.external))[0]
        first = int(half_cost.argmin())
        if 2.0 * half_cost[first] >= -spin_rounding(field.flip_costs):
            return None
        levels[0, first] = 1 - levels[0, first]
    elif site is not None:
        any_level = neighbourhood == "any"
        row = levels[0].numpy()
        where, option, least = _steepest_change(site.change, site.data, space.levels, row, any_level)
        if least >= -_rounding(field.value(point)):
            return None
        levels[0, where] = int(_new_level(int(row[where]), option, space.levels, any_level))
    else:
        levels, least = _Neighbours(field, space, neighbourhood == "any").best(levels)
        if not bool(least < field.value(point)):
            return None
    return space.from_levels(levels)


def _rounding(energy: Tensor) -> float:
    return ROUNDING * max(1.0, float(energy.abs().max())) if len(energy) else ROUNDING


def _checked_space(field: Field, neighbourhood: Neighbourhood) -> DiscreteSpace:
    if not isinstance(field.space, DiscreteSpace):
        raise MissingCapability(
            "field", "a discrete space with neighbours", field.space.describe(), "minimise real spaces by gradient"
        )
    if neighbourhood not in ("any", "adjacent"):
        raise UserError("neighbourhood", "'any' or 'adjacent'", repr(neighbourhood), "'any' is the wider one")
    return field.space


def _refuse_non_finite(finite: np.ndarray, levels: Tensor) -> None:
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise FieldError(
            "field",
            "finite energies",
            f"a change of energy that is not, next to the point at index {row}",
            "look at that point's levels (the error's .example)",
            example=levels[row],
        )


def _blocks(n_rows: int, row_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold at most ``_LARGEST_BLOCK`` numbers together."""
    size = max(1, _LARGEST_BLOCK // max(1, row_size))
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)


def _orders(n_rows: int, n_changes: int, generator: torch.Generator | None) -> np.ndarray:
    """A random order of the changes for each row ``(n_rows, n_changes)``; no columns without a generator."""
    if generator is None:
        return np.zeros((n_rows, 0), np.int64)
    return torch.rand((n_rows, n_changes), generator=generator).argsort(1).numpy()


# ------------------------------------------------------------------ pair spins


def _spins(levels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(2.0 * levels.numpy().astype(np.float64) - 1.0)


def _descend_spins(costs: FlipCosts, levels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    spins = _spins(levels)
    flips = np.zeros(len(spins), np.int64)
    for start, stop in _blocks(*spins.shape):
        order = _orders(stop - start, spins.shape[1], generator)
        rows = spins[start:stop]
        flips[start:stop] = quench_spins(costs.couplings, costs.external, rows, order, spin_rounding(costs))
    return torch.from_numpy((spins > 0).astype(np.int64)), torch.from_numpy(flips)


@njit(nogil=True)
def quench_spins(
    couplings: np.ndarray, external: np.ndarray, spins: np.ndarray, order: np.ndarray, tolerance: float
) -> np.ndarray:
    """Descend all rows of ``spins`` (batch, n) float64 in place; the flips made, ``(batch,)``.

    Steepest where ``order`` has no columns; else the first improving flip in each row's ``order`` (batch, n).
    """
    flips = np.zeros(len(spins), np.int64)
    for row in range(len(spins)):
        state = spins[row]
        fields = spin_kernels.local_fields(couplings, external, state)
        if order.shape[1] == 0:
            flips[row] = spin_kernels.steepest_descent(couplings, state, fields, tolerance)
        else:
            flips[row] = _greedy_descent(couplings, state, fields, order[row], tolerance)
    return flips


@njit(nogil=True)
def _greedy_descent(
    couplings: np.ndarray, spins: np.ndarray, fields: np.ndarray, order: np.ndarray, tolerance: float
) -> int:
    n_flips, turn, refused = 0, 0, 0
    while refused < len(order):
        site = order[turn]
        if 2.0 * spins[site] * fields[site] < -tolerance:
            spin_kernels.flip(couplings, spins, fields, site)
            n_flips += 1
            refused = 0
        else:
            refused += 1
        turn = turn + 1 if turn + 1 < len(order) else 0
    return n_flips


# ------------------------------------------------------------------ compiled changes of one coordinate


@njit
def _n_changes(n: int, n_levels: int, any_level: bool) -> int:
    return n * (n_levels - 1 if any_level else min(2, n_levels - 1))


@njit
def _new_level(old: Any, option: Any, n_levels: int, any_level: bool) -> Any:
    """The level that an option of a coordinate leads to, rising; -1 where it leads outside."""
    if any_level or n_levels == 2:
        return option + 1 if option >= old else option
    new = old - 1 if option == 0 else old + 1
    return new if new < n_levels else -1


def _descend_levels(
    site: SingleSite,
    n_levels: int,
    levels: Tensor,
    any_level: bool,
    tolerance: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    end = levels.numpy().copy()
    flips = np.zeros(len(end), np.int64)
    n_changes = int(_n_changes(end.shape[1], n_levels, any_level))
    for start, stop in _blocks(len(end), n_changes):
        order = _orders(stop - start, n_changes, generator)
        flips[start:stop] = _quench_rows(site.change, site.data, n_levels, end[start:stop], any_level, order, tolerance)
    _refuse_non_finite(flips >= 0, levels)
    return torch.from_numpy(end), torch.from_numpy(flips)


@njit(nogil=True)
def _quench_rows(
    change: Any, data: Any, n_levels: int, levels: np.ndarray, any_level: bool, order: np.ndarray, tolerance: float
) -> np.ndarray:
    flips = np.zeros(len(levels), np.int64)
    for row in range(len(levels)):
        if order.shape[1] == 0:
            flips[row] = quench_levels(change, data, n_levels, levels[row], any_level, tolerance)[1]
        else:
            flips[row] = _greedy_levels(change, data, n_levels, levels[row], any_level, order[row], tolerance)
    return flips


@njit(nogil=True)
def quench_levels(
    change: Any, data: Any, n_levels: int, levels: np.ndarray, any_level: bool, tolerance: float
) -> tuple[float, int]:
    """Steepest descent of one point ``levels`` (n,) in place: the change of energy and the changes made.

    -1 changes: a change of energy was not finite.
    """
    total, n_flips = 0.0, 0
    while True:
        site, option, least = _steepest_change(change, data, n_levels, levels, any_level)
        if not np.isfinite(least):
            return least, -1
        if least >= -tolerance:
            return total, n_flips
        levels[site] = _new_level(np.int64(levels[site]), option, n_levels, any_level)
        total += least
        n_flips += 1


@njit(nogil=True)
def _steepest_change(
    change: Any, data: Any, n_levels: int, levels: np.ndarray, any_level: bool
) -> tuple[int, int, float]:
    """Coordinate, option and change of energy of the steepest change; NaN where a change is not finite."""
    options = _n_changes(1, n_levels, any_level)
    best, best_option, least = -1, -1, np.inf
    for site in range(len(levels)):
        for option in range(options):
            new = _new_level(np.int64(levels[site]), option, n_levels, any_level)
            if new < 0:
                continue
            gain = change(levels, site, new, data)
            if not np.isfinite(gain):
                return site, option, np.nan
            if gain < least:
                best, best_option, least = site, option, gain
    return best, best_option, least


@njit(nogil=True)
def _least_changes(
    change: Any, data: Any, n_levels: int, levels: np.ndarray, any_level: bool
) -> tuple[np.ndarray, np.ndarray]:
    least = np.empty(len(levels))
    for row in range(len(levels)):
        least[row] = _steepest_change(change, data, n_levels, levels[row], any_level)[2]
    return least, np.isfinite(least)


@njit(nogil=True)
def _greedy_levels(
    change: Any, data: Any, n_levels: int, levels: np.ndarray, any_level: bool, order: np.ndarray, tolerance: float
) -> int:
    options = _n_changes(1, n_levels, any_level)
    n_flips, turn, refused = 0, 0, 0
    while refused < len(order):
        site = order[turn] // options
        new = _new_level(np.int64(levels[site]), order[turn] % options, n_levels, any_level)
        gain = change(levels, site, new, data) if new >= 0 else 0.0
        if not np.isfinite(gain):
            return -1
        if gain < -tolerance:
            levels[site] = new
            n_flips += 1
            refused = 0
        else:
            refused += 1
        turn = turn + 1 if turn + 1 < len(order) else 0
    return n_flips


# ------------------------------------------------------------------ fields that only give values


@final
class _Neighbours:
    """All states one change away, evaluated in batches of the field."""

    def __init__(self, field: Field, space: DiscreteSpace, any_level: bool) -> None:
        self.field = field
        self.space = space
        self.adjacent = not any_level and space.levels > 2
        self.options = 2 if self.adjacent else space.levels - 1
        self.n_changes = space.n_coordinates * self.options

    def groups(self, n_rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of points whose neighbours' energies are held together."""
        return _blocks(n_rows, self.n_changes)

    def values(self, levels: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
        """Energies and new levels, both shaped as ``changes`` (batch, k), inf where a change leads outside."""
        site, option = changes // self.options, changes % self.options
        old = levels.gather(1, site)
        new = old + 2 * option - 1 if self.adjacent else option + (option >= old).long()
        row, column = ((new >= 0) & (new < self.space.levels)).nonzero(as_tuple=True)
        energy = torch.full(changes.shape, torch.inf, dtype=torch.float64)
        for start, stop in _blocks(len(row), levels.shape[1]):
            at, k = row[start:stop], column[start:stop]
            moved = levels[at].scatter(1, site[at, k][:, None], new[at, k][:, None])
            energy[at, k] = self.field.value(self.space.from_levels(moved))
        return energy, new

    def best(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest neighbours ``(batch, n)``, the first of equals, and their energies ``(batch,)``."""
        changes = torch.arange(self.n_changes).expand(len(levels), -1)
        energy, new = self.values(levels, changes)
        first = torch.from_numpy(energy.numpy().argmin(1))[:, None]
        return levels.scatter(1, first // self.options, new.gather(1, first)), energy.gather(1, first)[:, 0]

    def steepest(self, levels: Tensor, energy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Descend by the steepest changes: levels, energies, changes made."""
        levels, energy = levels.clone(), energy.clone()
        flips = torch.zeros(len(levels), dtype=torch.int64)
        for start, stop in self.groups(len(levels)):
            active = torch.arange(start, stop)
            while len(active):
                lower, least = self.best(levels[active])
                improving = least < energy[active]
                active, lower, least = active[improving], lower[improving], least[improving]
                levels[active], energy[active] = lower, least
                flips[active] += 1
        return levels, energy, flips

    def greedy(self, levels: Tensor, energy: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Descend by the first improving changes in a random order: levels, energies, changes made."""
        levels, energy = levels.clone(), energy.clone()
        flips = torch.zeros(len(levels), dtype=torch.int64)
        width = min(_GREEDY_BATCH, self.n_changes)
        for start, stop in self.groups(len(levels)):
            order = torch.from_numpy(_orders(stop - start, self.n_changes, generator))
            active = torch.arange(start, stop)
            turn, refused = torch.zeros(stop - start, dtype=torch.int64), torch.zeros(stop - start, dtype=torch.int64)
            while len(active):
                here = active - start
                places = (turn[here][:, None] + torch.arange(width)) % self.n_changes
                changes = order[here].gather(1, places)
                values, new = self.values(levels[active], changes)
                improving = values < energy[active][:, None]
                found = improving.any(1)
                first = torch.where(found, improving.int().argmax(1), width - 1)[:, None]
                turn[here] = (turn[here] + first[:, 0] + 1) % self.n_changes
                refused[here] = torch.where(found, 0, refused[here] + width)
                row, k = active[found], first[found]
                levels[row] = levels[row].scatter(
                    1, changes[found].gather(1, k) // self.options, new[found].gather(1, k)
                )
                energy[row] = values[found].gather(1, k)[:, 0]
                flips[row] += 1
                active = active[refused[here] < self.n_changes]
        return levels, energy, flips
