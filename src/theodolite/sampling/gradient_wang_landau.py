"""Gradient Wang-Landau (GWL): Wang-Landau sampling with Gibbs-with-Gradients proposals.

Source: Liu et al. 2023, "Gradient-based Wang-Landau Algorithm: A Novel Sampler for Output Distribution of
Neural Networks over the Input Space", ICML, algorithm 1, section 3.4 and appendix C; proposals after
Grathwohl et al. 2021, arXiv:2102.04509. Where the article is silent: flatness is judged over the bins visited
since the run began (those never visited are left out, so a walker caught between few bins can pass), the
normalisers of the two proposal probabilities are kept (the printed ratio lacks them and would break detailed
balance), and moves to outputs outside the preset range are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

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
    normalised_to,
)


@dataclass
class GradientWangLandauState:
    """One walker and its histograms.

    ``level`` (1, coordinate), its ``value`` and ``gradient`` (coordinate, m) in the embedding; ``entropy``,
    ``histogram`` (of this iteration), ``visits`` (of the run) all (bin,); ``increment``: ln f; ``refused``:
    moves outside the preset range.
    """

    level: Tensor
    value: float
    gradient: Tensor
    entropy: Floats
    histogram: NDArray[np.int64]
    visits: NDArray[np.int64]
    increment: float
    iteration: int
    accepted: int
    refused: int


@final
@dataclass(frozen=True)
class GradientWangLandau:
    """The paper's algorithm 1 on a discrete field with ``level_differences``.

    ``starts`` (n, *shape): each iteration starts at one of them, drawn at random (the paper: test images);
    None draws from the space. Bins of ``bin_width`` are centred at ``lowest``, ``lowest + bin_width``, ...
    below ``highest``, so that the paper's defaults round an output to its bin. ``exponent``: the proposal is
    proportional to exp(exponent * d), d the linearised gain; the paper has 1, the original
    Gibbs-with-Gradients 1/2. ``first_increment``: ln f at the start (the paper: 1). At the paper's values the
    walker freezes where one coordinate moves the output by a sizeable part of a bin: a rejected move steepens
    the entropy, and a steeper entropy makes the reverse proposal rarer still. The histogram is tested for
    flatness (max - min < mean) every ``check_every`` steps. Raises UserError for a space that is not
    discrete, a range without bins, starts outside it, and MissingCapability for fields without
    ``level_differences``.
    """

    field: Field
    starts: Tensor | None = None
    lowest: float = -300.0
    highest: float = 100.0
    bin_width: float = 1.0
    exponent: float = 1.0
    first_increment: float = 1.0
    check_every: int = 1000
    steps_per_call: int = 10

    def __post_init__(self) -> None:
        discrete_space(self.field)
        self.field.require("level_differences")
        if not self.bin_width > 0 or round((self.highest - self.lowest) / self.bin_width) < 2:
            got = f"{self.lowest:g} to {self.highest:g} by {self.bin_width:g}"
            raise UserError("lowest, highest", "a range of at least 2 bins", got, "the paper's is -300 to 100 by 1")

    @property
    def centres(self) -> Floats:
        """Centres of the bins, ``(bin,)``."""
        return self.lowest + self.bin_width * np.arange(round((self.highest - self.lowest) / self.bin_width))

    def init(self, generator: torch.Generator) -> GradientWangLandauState:
        """A walker at a start, empty histograms."""
        level, value, gradient = self._start(generator)
        if not 0 <= self._bin(value) < len(self.centres):
            raise UserError(
                "lowest, highest", f"a range that holds the start's output {value:.4g}",
                f"{self.lowest:g} to {self.highest:g}", "widen the range",
            )  # fmt: skip
        empty = np.zeros(len(self.centres), np.int64)
        return GradientWangLandauState(
            level, value, gradient, np.zeros(len(empty)), empty, empty.copy(), self.first_increment, 0, 0, 0
        )

    def step(
        self, state: GradientWangLandauState, generator: torch.Generator
    ) -> tuple[GradientWangLandauState, dict[str, float | str]]:
        """``steps_per_call`` steps of algorithm 1."""
        state = replace(
            state, entropy=state.entropy.copy(), histogram=state.histogram.copy(), visits=state.visits.copy()
        )
        for _ in range(self.steps_per_call):
            self._move(state, generator)
            here = self._bin(state.value)
            state.entropy[here] += state.increment
            state.histogram[here] += 1
            state.visits[here] += 1
            if int(state.histogram.sum()) % self.check_every == 0 and self._flat(state):
                state.increment /= 2.0
                state.iteration += 1
                state.histogram[:] = 0
                level, value, gradient = self._start(generator)
                if 0 <= self._bin(value) < len(state.entropy):
                    state.level, state.value, state.gradient = level, value, gradient
        made = max(int(state.visits.sum()), 1)
        return state, {
            "iteration": state.iteration,
            "levels": int((state.visits > 0).sum()),
            "output": state.value,
            "acceptance": state.accepted / made,
        }

    def estimate(self, state: GradientWangLandauState) -> FlatHistogramEstimate:
        """The entropy over the visited bins, normalised to the whole space; the algorithm knows no error.

        Weights are interpolated between centres, so where the entropy rises by several nats a bin this
        differs from ln of the bin's inputs even after convergence, most of all at the ends of the range.
        """
        visited = state.visits > 0
        log_density = np.where(visited, state.entropy, np.nan)
        if visited.any():
            log_density = normalised_to(self.field.space.log_volume, log_density)
        n_bins = len(visited)
        return FlatHistogramEstimate(
            level_edges=self.lowest + self.bin_width * (np.arange(n_bins + 1) - 0.5),
            log_density_of_states=log_density,
            log_density_error=np.full(n_bins, np.inf),
            visited=visited,
            n_samples=state.visits.copy(),
            absolute=state.refused == 0,
        )

    def _start(self, generator: torch.Generator) -> tuple[Tensor, float, Tensor]:
        space = discrete_space(self.field)
        if self.starts is None:
            x = space.draw(1, generator)
        else:
            x = self.starts[torch.randint(len(self.starts), (1,), generator=generator)]
        level = space.to_levels(x).long()
        value, gradient = self.field.level_gradient(level)
        return level, float(value), gradient[0]

    def _move(self, state: GradientWangLandauState, generator: torch.Generator) -> None:
        table = self.field.require("level_differences").table
        forward = log_proposal(
            state.level[0],
            state.gradient,
            table,
            self.exponent * -entropy_slope(self.centres, state.entropy, state.value),
        )
        draw = torch.rand(1, generator=generator, dtype=torch.float64)
        cumulative = forward.exp().flatten().cumsum(0)
        chosen = min(int(torch.searchsorted(cumulative, draw * cumulative[-1])), cumulative.numel() - 1)
        site, new_level = divmod(chosen, len(table))
        level = state.level.clone()
        level[0, site] = new_level
        values, gradients = self.field.level_gradient(level)
        value, gradient = float(values), gradients[0]
        uniform = float(torch.rand(1, generator=generator, dtype=torch.float64))
        if not 0 <= self._bin(value) < len(state.entropy):
            state.refused += 1
            return
        backward = log_proposal(
            level[0], gradient, table, self.exponent * -entropy_slope(self.centres, state.entropy, value)
        )
        log_ratio = (
            interpolated_entropy(self.centres, state.entropy, state.value)
            - interpolated_entropy(self.centres, state.entropy, value)
            + float(backward[site, int(state.level[0, site])] - forward[site, new_level])
        )
        if log_ratio >= 0 or uniform < np.exp(log_ratio):
            state.level, state.value, state.gradient = level, value, gradient
            state.accepted += 1

    def _bin(self, value: float) -> int:
        return int(np.floor((value - self.lowest) / self.bin_width + 0.5))

    def _flat(self, state: GradientWangLandauState) -> bool:
        counts = state.histogram[state.visits > 0]
        return bool(counts.max() - counts.min() < counts.mean())


def log_proposal(level: Tensor, gradient: Tensor, table: Tensor, slope: float) -> Tensor:
    """ln q of setting each coordinate to each level, ``(coordinate, level)`` float64, -inf for staying.

    ``level`` (coordinate,), ``gradient`` (coordinate, m), ``table`` (level, m); d_ij of section 3.4 with
    ``slope`` = -dS/dy times the exponent.
    """
    everyone = torch.arange(len(level))
    change = gradient.double() @ table.double().T
    logits = slope * (change - change[everyone, level][:, None])
    logits[everyone, level] = -torch.inf
    return logits - logits.flatten().logsumexp(0)


def interpolated_entropy(centres: Floats, entropy: Floats, value: float) -> float:
    """Entropy between bin centres, linear; constant beyond the first and last."""
    return float(np.interp(value, centres, entropy))


def entropy_slope(centres: Floats, entropy: Floats, value: float) -> float:
    """dS/dy of ``interpolated_entropy``: the difference of the two bins around ``value``, in nats per
    unit."""
    width = centres[1] - centres[0]
    left = min(max(int(np.floor((value - centres[0]) / width)), 0), len(centres) - 2)
    return float((entropy[left + 1] - entropy[left]) / width)
