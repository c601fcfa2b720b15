"""Exact density of states by evaluating every input of a discrete space, streamed in batches, with inputs of every
level drawn on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.level_reservoir import LevelReservoir, empty_reservoir, kept, offer
from theodolite.sampling.multicanonical import (
    FlatHistogramEstimate,
    Floats,
    discrete_space,
    half,
    resolved_bin_width,
)
from theodolite.sampling.term_tables import TermTables

LARGEST_COUNT = 2**40


@dataclass
class EnumerationState:
    """Inputs counted so far: ``counts`` (bin,) from bin number ``first_bin`` on, the index of the next input, and
    inputs of every level, uniformly at random among those seen."""

    counts: NDArray[np.int64]
    first_bin: int
    next_index: int
    reservoir: LevelReservoir


@final
@dataclass(frozen=True)
class Enumeration:
    """Count the inputs in each bin of width ``bin_width``; None takes the field's level spacing.

    ``batch``: inputs evaluated at once. A batch whose activations stay in the processor's cache is about
    twice as fast on a small CNN as one of many thousands. ``batches_per_step``: batches between two looks at
    the clock. ``n_representatives``: inputs kept for each level, or all where it has fewer. Where the field is a sum
    of local terms with a window, the first step fills tables (``term_tables``). Raises UserError where the space is
    not discrete or has more than 2^40 inputs.
    """

    field: Field
    bin_width: float | None = None
    batch: int = 1024
    batches_per_step: int = 16
    n_representatives: int = 24

    def __post_init__(self) -> None:
        resolved_bin_width(self.field, self.bin_width)
        n_inputs(self.field)
        for name in ("batch", "batches_per_step", "n_representatives"):
            if getattr(self, name) < 1:
                raise UserError(name, "at least 1", str(getattr(self, name)), "leave it out to have a good size")

    def init(self, generator: torch.Generator) -> EnumerationState:
        """Nothing counted yet; the generator is not used."""
        return EnumerationState(np.zeros(0, np.int64), 0, 0, empty_reservoir(self.n_representatives))

    def step(
        self, state: EnumerationState, generator: torch.Generator
    ) -> tuple[EnumerationState, dict[str, float | str]]:
        """Count the next batches; does nothing once every input was counted."""
        total = n_inputs(self.field)
        start = state.next_index
        stop = min(start + self.batch * self.batches_per_step, total)
        if stop == start:
            return state, {"enumerated": 1.0}
        values = self._values(start, stop).numpy()
        numbers = bin_numbers(self.field, resolved_bin_width(self.field, self.bin_width), values)
        counts, first_bin = add_counts(state.counts, state.first_bin, numbers)
        key = torch.rand(stop - start, generator=generator, dtype=torch.float64).numpy()
        reservoir = offer(state.reservoir, numbers, np.arange(start, stop), values, key)
        return EnumerationState(counts, first_bin, stop, reservoir), {"enumerated": stop / total}

    def finished(self, state: EnumerationState) -> bool:
        """Every input was counted."""
        return state.next_index == n_inputs(self.field)

    def representatives(self, state: EnumerationState) -> tuple[Tensor, Tensor]:
        """Inputs of every level, as levels ``(n, n_coordinates)`` int64, and their outputs ``(n,)`` float64.

        Uniformly at random, without replacement, among the inputs of a level that were seen.
        """
        index, output = kept(state.reservoir)
        return levels_by_index(self.field, torch.from_numpy(index)), torch.from_numpy(output)

    @cached_property
    def _values(self) -> Callable[[int, int], Tensor]:
        return fastest_values(self.field, self.batch)

    def estimate(self, state: EnumerationState) -> FlatHistogramEstimate:
        """ln of the counts: error 0 and -inf in empty bins once finished, errors infinite and NaN before."""
        finished = self.finished(state)
        width = resolved_bin_width(self.field, self.bin_width)
        visited = state.counts > 0
        empty = -np.inf if finished else np.nan
        return FlatHistogramEstimate(
            level_edges=bin_edges(self.field, width, state.first_bin, len(state.counts)),
            log_density_of_states=np.where(visited, np.log(np.maximum(state.counts, 1)), empty),
            log_density_error=np.full(len(state.counts), 0.0 if finished else np.inf),
            visited=visited,
            n_samples=state.counts.copy(),
            absolute=True,
        )


def tabulate(field: Field, batch: int = 1024) -> Tensor:
    """Values of all inputs by index (coordinate 0 the least significant digit), ``(levels **
    n_coordinates,)`` float64.

    What ``Field(table=...)`` takes. Raises UserError where the space is not discrete or too large to
    enumerate.
    """
    total = n_inputs(field)
    values = fastest_values(field, batch)
    table = torch.empty(total, dtype=torch.float64)
    for start in range(0, total, 16 * batch):
        stop = min(start + 16 * batch, total)
        table[start:stop] = values(start, stop)
    return table


def n_inputs(field: Field) -> int:
    """Number of inputs of the field's space; raises UserError where they are not countable in reasonable
    time."""
    space = discrete_space(field)
    total = space.levels**space.n_coordinates
    if total > LARGEST_COUNT:
        raise UserError(
            "method",
            "at most 2^40 inputs to enumerate",
            space.describe(),
            "use method='ladder' or 'wang-landau'",
        )
    return total


def fastest_values(field: Field, batch: int) -> Callable[[int, int], Tensor]:
    """A function of (start, stop) that gives the values ``(stop - start,)`` float64 of consecutive inputs.

    They are looked up where the field is tabulated, composed of local terms where it has terms with a window, and
    evaluated ``batch`` at a time elsewhere.
    """
    if field.table is None and field.terms is not None and field.terms.window is not None:
        return TermTables(field, batch).values
    return lambda start, stop: torch.cat(
        [values_by_index(field, index, min(index + batch, stop)) for index in range(start, stop, batch)]
    )


def values_by_index(field: Field, start: int, stop: int) -> Tensor:
    """Values ``(stop - start,)`` float64 of consecutive inputs: looked up where the field is tabulated, else
    evaluated."""
    if field.table is not None:
        return field.table[start:stop].double()
    space = discrete_space(field)
    return field.value(space.from_levels(levels_by_index(field, torch.arange(start, stop))))


def levels_by_index(field: Field, index: Tensor) -> Tensor:
    """Levels ``(batch, n_coordinates)`` int64 of the inputs ``index`` ``(batch,)``."""
    space = discrete_space(field)
    return index[:, None] // space.levels ** torch.arange(space.n_coordinates) % space.levels


# ---------------------------------------------------------------------- histograms that grow


def bin_numbers(field: Field, bin_width: float, values: Floats) -> NDArray[np.int64]:
    """Numbers of the bins of ``values`` (batch,)."""
    return np.floor(values / bin_width + half(field, bin_width)).astype(np.int64)


def bin_edges(field: Field, bin_width: float, first_bin: int, n_bins: int) -> Floats:
    """Edges ``(n_bins + 1,)`` of consecutive bins from number ``first_bin`` on."""
    return (first_bin + np.arange(n_bins + 1) - half(field, bin_width)) * bin_width


def add_counts(counts: NDArray[Any], first_bin: int, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """A histogram ``counts`` from bin ``first_bin`` on with ``numbers`` counted in, and its new first bin."""
    low, high = int(numbers.min()), int(numbers.max())
    if len(counts):
        low, high = min(low, first_bin), max(high, first_bin + len(counts) - 1)
    wider = np.bincount(numbers - low, minlength=high - low + 1)
    wider[first_bin - low : first_bin - low + len(counts)] += counts
    return wider, low
