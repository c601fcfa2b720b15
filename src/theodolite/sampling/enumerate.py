"""Exact density of states by evaluating every input of a discrete space, streamed in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.multicanonical import (
    FlatHistogramEstimate,
    Floats,
    discrete_space,
    half,
    resolved_bin_width,
)

LARGEST_COUNT = 2**40


@dataclass
class EnumerationState:
    """Inputs counted so far: ``counts`` (bin,) from bin number ``first_bin`` on, and the index of the next
    input."""

    counts: NDArray[np.int64]
    first_bin: int
    next_index: int


@final
@dataclass(frozen=True)
class Enumeration:
    """Count the inputs in each bin of width ``bin_width``; None takes the field's level spacing.

    ``batch``: inputs evaluated at once. A batch whose activations stay in the processor's cache is about
    twice as fast on a small CNN as one of many thousands. ``batches_per_step``: batches between two looks at
    the clock. Raises UserError where the space is not discrete or has more than 2^40 inputs.
    """

    field: Field
    bin_width: float | None = None
    batch: int = 1024
    batches_per_step: int = 16

    def __post_init__(self) -> None:
        resolved_bin_width(self.field, self.bin_width)
        n_inputs(self.field)
        if self.batch < 1 or self.batches_per_step < 1:
            raise UserError(
                "batch", "at least 1", str(min(self.batch, self.batches_per_step)), "1024 is a good size"
            )

    def init(self, generator: torch.Generator) -> EnumerationState:
        """Nothing counted yet; the generator is not used."""
        return EnumerationState(np.zeros(0, np.int64), 0, 0)

    def step(
        self, state: EnumerationState, generator: torch.Generator
    ) -> tuple[EnumerationState, dict[str, float | str]]:
        """Count the next batches; does nothing once every input was counted."""
        counts, first_bin, index = state.counts, state.first_bin, state.next_index
        total = n_inputs(self.field)
        width = resolved_bin_width(self.field, self.bin_width)
        for _ in range(self.batches_per_step):
            stop = min(index + self.batch, total)
            if stop == index:
                break
            values = values_by_index(self.field, index, stop).numpy()
            counts, first_bin = add_counts(counts, first_bin, bin_numbers(self.field, width, values))
            index = stop
        return EnumerationState(counts, first_bin, index), {"enumerated": index / total}

    def finished(self, state: EnumerationState) -> bool:
        """Every input was counted."""
        return state.next_index == n_inputs(self.field)

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
    table = torch.empty(total, dtype=torch.float64)
    for index in range(0, total, batch):
        stop = min(index + batch, total)
        table[index:stop] = values_by_index(field, index, stop)
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


def values_by_index(field: Field, start: int, stop: int) -> Tensor:
    """Values ``(stop - start,)`` float64 of consecutive inputs: looked up where the field is tabulated, else
    evaluated."""
    if field.table is not None:
        return field.table[start:stop].double()
    space = discrete_space(field)
    strides = space.levels ** torch.arange(space.n_coordinates)
    levels = (torch.arange(start, stop)[:, None] // strides) % space.levels
    return field.value(space.from_levels(levels))


# ---------------------------------------------------------------------- histograms that grow


def bin_numbers(field: Field, bin_width: float, values: Floats) -> NDArray[np.int64]:
    """Numbers of the bins of ``values`` (batch,)."""
    return np.floor(values / bin_width + half(field, bin_width)).astype(np.int64)


def bin_edges(field: Field, bin_width: float, first_bin: int, n_bins: int) -> Floats:
    """Edges ``(n_bins + 1,)`` of consecutive bins from number ``first_bin`` on."""
    return (first_bin + np.arange(n_bins + 1) - half(field, bin_width)) * bin_width


def add_counts(
    counts: NDArray[Any], first_bin: int, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """A histogram ``counts`` from bin ``first_bin`` on with ``numbers`` counted in, and its new first bin."""
    low, high = int(numbers.min()), int(numbers.max())
    if len(counts):
        low, high = min(low, first_bin), max(high, first_bin + len(counts) - 1)
    wider = np.bincount(numbers - low, minlength=high - low + 1)
    wider[first_bin - low : first_bin - low + len(counts)] += counts
    return wider, low
