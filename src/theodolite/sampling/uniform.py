"""Plain Monte Carlo: draw inputs from the space itself and count outputs. What every other method is compared
with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.enumerate import add_counts, bin_edges, bin_numbers
from theodolite.sampling.multicanonical import FlatHistogramEstimate, resolved_bin_width


@dataclass
class UniformState:
    """``counts`` (bin,) of outputs from bin number ``first_bin`` on; ``evaluations`` draws."""

    counts: NDArray[np.int64]
    first_bin: int
    evaluations: int


@final
@dataclass(frozen=True)
class Uniform:
    """Independent draws from the space's reference measure, ``batch`` a step, in bins of ``bin_width``.

    None takes the field's level spacing. Raises UserError for no bin width or an empty batch.
    """

    field: Field
    bin_width: float | None = None
    batch: int = 1024

    def __post_init__(self) -> None:
        resolved_bin_width(self.field, self.bin_width)
        if self.batch < 1:
            raise UserError("batch", "at least 1", str(self.batch), "1024 is a good size")

    def init(self, generator: torch.Generator) -> UniformState:
        """Nothing drawn yet."""
        return UniformState(np.zeros(0, np.int64), 0, 0)

    def step(self, state: UniformState, generator: torch.Generator) -> tuple[UniformState, dict[str, float | str]]:
        """Draw and count one batch."""
        values = self.field.value(self.field.space.draw(self.batch, generator)).numpy()
        width = resolved_bin_width(self.field, self.bin_width)
        counts, first_bin = add_counts(state.counts, state.first_bin, bin_numbers(self.field, width, values))
        return UniformState(counts, first_bin, state.evaluations + self.batch), {"levels": int((counts > 0).sum())}

    def estimate(self, state: UniformState) -> FlatHistogramEstimate:
        """ln(volume * share of the draws), with the wider side of Wilson's 95% interval as the error."""
        width = resolved_bin_width(self.field, self.bin_width)
        visited = state.counts > 0
        share = np.where(visited, state.counts, np.nan) / max(state.evaluations, 1)
        return FlatHistogramEstimate(
            level_edges=bin_edges(self.field, width, state.first_bin, len(state.counts)),
            log_density_of_states=self.field.space.log_volume + np.log(share),
            log_density_error=np.where(visited, wilson_log_error(state.counts, state.evaluations), np.inf),
            visited=visited,
            n_samples=state.counts.copy(),
            absolute=True,
        )


def wilson_log_error(counts: NDArray[np.int64], n_draws: int) -> NDArray[np.float64]:
    """95% half-width / 1.96 of ln(count / n_draws), ``(bin,)``: the wider side of the score interval.

    Wilson, J. Am. Stat. Assoc. 22, 209 (1927). Infinite where nothing was counted.
    """
    z = 1.96
    with np.errstate(divide="ignore", invalid="ignore"):
        share = counts / n_draws
        centre = share + z**2 / (2 * n_draws)
        spread = z * np.sqrt(share * (1 - share) / n_draws + z**2 / (4 * n_draws**2))
        scale = 1 + z**2 / n_draws
        above = np.log((centre + spread) / scale) - np.log(share)
        below = np.log(share) - np.log(np.maximum(centre - spread, math.ulp(0.0)) / scale)
    error = np.maximum(above, below) / z
    return np.where(counts > 0, error, np.inf)
