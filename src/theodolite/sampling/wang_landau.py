"""Wang-Landau sampling: learn the density of states by flattening its own histogram, then produce at fixed
weights.

Sources: Wang & Landau, Phys. Rev. Lett. 86, 2050 (2001); the schedule 1/t of Belardinelli & Pereyra, Phys.
Rev. E 75, 046701 (2007); flatness as in Liu et al. 2023, "Gradient-based Wang-Landau Algorithm", ICML,
appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import site_kernels
from theodolite.sampling.multicanonical import (
    FlatHistogramEstimate,
    Floats,
    WalkState,
    discrete_space,
    estimate_production,
    estimate_weights,
    produce,
    resolved_bin_width,
    start_walk,
    walk,
)


@final
@dataclass(frozen=True)
class WangLandau:
    """Random single-site Wang-Landau on a discrete space, followed by multicanonical production.

    After ``learning_evaluations`` (starts and trials) the weights are frozen and independent walkers produce
    the estimate; None learns for ever, as the papers do, and gives no errors. ``bin_width``: None takes the
    field's level spacing, one output value a bin. All ``n_walkers`` share the weights while learning; one is
    the papers' algorithm. ``schedule``: "1/t" halves ln f whenever every seen bin was visited again, until it
    meets bins / trials, and starts over when a new bin turns up; "flatness" halves it when max - min < mean
    over the seen bins. ``settling_share``: trials discarded before production, as a share of the learning.

    Bins are found on the way; a new one starts at the least entropy seen so far. Compiled for fields with
    ``single_site`` or ``table``, one batch a trial for others. Raises UserError for other spaces, no bin
    width, fewer than one walker.
    """

    field: Field
    learning_evaluations: int | None
    bin_width: float | None = None
    n_walkers: int = 16
    schedule: Literal["1/t", "flatness"] = "1/t"
    settling_share: float = 0.1

    def __post_init__(self) -> None:
        discrete_space(self.field)
        resolved_bin_width(self.field, self.bin_width)
        if self.schedule not in ("1/t", "flatness"):
            raise UserError("schedule", "'1/t' or 'flatness'", repr(self.schedule), "'1/t' converges")
        if self.learning_evaluations is not None and self.learning_evaluations < 1:
            raise UserError(
                "learning_evaluations",
                "at least 1",
                str(self.learning_evaluations),
                "a sixth of the budget is a good share",
            )

    def init(self, generator: torch.Generator, start: Tensor | None = None) -> WalkState:
        """Walkers at ``start`` (n_walkers, *shape), or at points drawn from the space."""
        return start_walk(self.field, self._bin_width(), self.n_walkers, generator, start)

    def step(self, state: WalkState, generator: torch.Generator) -> tuple[WalkState, dict[str, float | str]]:
        """Some more trials: a check interval of learning, or a twentieth of the run in production."""
        limit = self.learning_evaluations
        if state.learning and limit is not None and state.evaluations >= limit:
            state = freeze(state, int(self.settling_share * state.evaluations))
        state = self._learn(state) if state.learning else produce(self.field, self._bin_width(), state)
        phase = "learning" if state.learning else "settling" if state.settling else "production"
        return state, {"phase": phase, "levels": int(state.seen.sum()), "ln f": state.increment}

    def estimate(self, state: WalkState) -> FlatHistogramEstimate:
        """Absolute density of states; from the weights alone, without errors, while there is no
        production."""
        if state.learning or not state.moves.any():
            return estimate_weights(self.field, self._bin_width(), state)
        return estimate_production(self.field, self._bin_width(), state)

    def _learn(self, state: WalkState) -> WalkState:
        n_seen = int(state.seen.sum())
        inverse_time = 0.0
        if self.schedule == "1/t" and state.increment <= n_seen / state.evaluations:
            inverse_time = float(n_seen)
        n_trials = int(np.clip(100 * n_seen, 1000, 1_000_000))
        if self.learning_evaluations is not None:
            n_trials = min(n_trials, self.learning_evaluations - state.evaluations)
        state = walk(self.field, self._bin_width(), state, n_trials, inverse_time)
        if int(state.seen.sum()) > n_seen and self.schedule == "1/t":
            # Small increments cannot lift a late bin to its place, nor push walkers on to bins behind it.
            return replace(state, increment=1.0, visits=np.zeros_like(state.visits))
        visits = state.visits.sum(0)[state.seen]
        flat = visits.min() > 0 if self.schedule == "1/t" else visits.max() - visits.min() < visits.mean()
        if not flat or inverse_time > 0.0:
            return state
        return replace(
            state,
            increment=state.increment / 2.0,
            n_halvings=state.n_halvings + 1,
            visits=np.zeros_like(state.visits),
        )

    def _bin_width(self) -> float:
        return resolved_bin_width(self.field, self.bin_width)


def freeze(state: WalkState, settling: int) -> WalkState:
    """End learning: fixed weights, empty histograms, ``settling`` trials to discard."""
    return replace(
        state,
        entropy=refined_entropy(state),
        visits=np.zeros_like(state.visits),
        moves=np.zeros_like(state.moves),
        learning=False,
        increment=0.0,
        settling=settling,
    )


def refined_entropy(state: WalkState) -> Floats:
    """Weights for production: the learning's own transition matrix, far less noisy than the learnt entropy.

    Bins it cannot link keep the learnt entropy; unseen bins continue their neighbours.
    """
    matrix = site_kernels.log_stationary(state.moves.sum(0))
    linked = np.isfinite(matrix) & state.seen
    shift = float(np.mean((state.entropy - matrix)[linked]))
    entropy = np.where(linked, matrix + shift, state.entropy)
    index = np.arange(len(entropy))
    return np.interp(index, index[state.seen], entropy[state.seen])
