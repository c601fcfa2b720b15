"""Multicanonical sampling: walkers that weigh every level by a fixed inverse density of states.

Source: Berg & Neuhaus, Phys. Rev. Lett. 68, 9 (1992). The estimate uses every trial, accepted or not, through
the infinite-temperature transition matrix (Wang & Swendsen, J. Stat. Phys. 106, 245 (2002)), which is more
precise than the visits alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import site_kernels
from theodolite.space import DiscreteSpace

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FlatHistogramEstimate:
    """The density of states in the bins between ``level_edges`` (n + 1,), in the field's unit.

    ``log_density_of_states`` (n,): ln of the number of inputs (or volume), NaN where not reached, -inf where
    proven empty; ``log_density_error`` (n,): 95% half-width / 1.96 in nats, infinite where unknown, 0 where
    exact; ``visited`` (n,) bool; ``n_samples`` (n,); ``absolute``: the bins hold the whole space as far as
    the run could see, no trial was refused for its output.
    """

    level_edges: Floats
    log_density_of_states: Floats
    log_density_error: Floats
    visited: NDArray[np.bool_]
    n_samples: NDArray[np.int64]
    absolute: bool


@dataclass
class WalkState:
    """Walkers, their histograms and the weights; the arrays are those of ``site_kernels.advance``.

    ``first_bin`` numbers the first bin: bin k spans (k - half) to (k + 1 - half) bin widths, half = 1/2 where
    outputs are multiples of the width, else 0.  ``evaluations`` counts starts and trials. ``learning``,
    ``increment`` (ln f) and ``n_halvings`` are Wang-Landau's; ``settling`` trials of a production are still
    to be discarded.
    """

    levels: NDArray[Any]
    values: Floats
    bins: NDArray[np.int64]
    words: NDArray[np.uint64]
    entropy: Floats
    seen: NDArray[np.bool_]
    visits: NDArray[np.int64]
    moves: NDArray[np.int64]
    first_bin: int
    evaluations: int
    learning: bool
    increment: float
    n_halvings: int
    settling: int


@final
@dataclass(frozen=True)
class Multicanonical:
    """Production at fixed weights: ``log_density_of_states`` (n,) between ``level_edges`` (n + 1,), NaN where
    unknown.

    The estimate stays right whatever the weights are; good ones make it precise. The edges must be the
    multiples of the width that Wang-Landau uses. ``settling`` trials are discarded first. Raises UserError
    for a space that is not discrete, or edges that are not such multiples.
    """

    field: Field
    level_edges: Floats
    log_density_of_states: Floats
    n_walkers: int = 16
    settling: int = 10_000

    def init(self, generator: torch.Generator, start: Tensor | None = None) -> WalkState:
        """Walkers at ``start`` (n_walkers, *shape), or at points drawn from the space."""
        width = self._bin_width()
        state = start_walk(self.field, width, self.n_walkers, generator, start)
        first = round(float(self.level_edges[0]) / width + half(self.field, width))
        if not np.allclose(
            (first + np.arange(len(self.level_edges)) - half(self.field, width)) * width, self.level_edges
        ):
            raise UserError(
                "level_edges",
                "equally spaced multiples of the bin width",
                "others",
                "take them from a Wang-Landau run",
            )
        for end in (first, first + len(self.log_density_of_states) - 1):
            make_room(state, end - state.first_bin, end - state.first_bin)
        known = np.flatnonzero(np.isfinite(self.log_density_of_states))
        if len(known) == 0:
            raise UserError(
                "log_density_of_states",
                "at least one finite level",
                "none",
                "run Wang-Landau first to learn weights",
            )
        index = np.arange(len(state.entropy)) + state.first_bin - first
        entropy = np.interp(index, known, self.log_density_of_states[known])
        return replace(state, entropy=entropy, learning=False, increment=0.0, settling=self.settling)

    def step(self, state: WalkState, generator: torch.Generator) -> tuple[WalkState, dict[str, float | str]]:
        """Some more trials, a twentieth of those made so far; the walkers carry their own generators."""
        state = produce(self.field, self._bin_width(), state)
        return state, {
            "phase": "settling" if state.settling else "production",
            "levels": int(state.seen.sum()),
        }

    def estimate(self, state: WalkState) -> FlatHistogramEstimate:
        """The absolute density of states with its calibrated error."""
        return estimate_production(self.field, self._bin_width(), state)

    def _bin_width(self) -> float:
        return resolved_bin_width(self.field, float(self.level_edges[1] - self.level_edges[0]))


# ---------------------------------------------------------------------- bins


def resolved_bin_width(field: Field, bin_width: float | None) -> float:
    """``bin_width``, or the field's level spacing; UserError where there is neither, or it is not
    positive."""
    width = field.level_spacing if bin_width is None else bin_width
    if width is None or not np.isfinite(width) or width <= 0:
        raise UserError("bin_width", "a positive width in the observable's unit", str(bin_width), "for example 1.0")
    spacing = field.level_spacing
    return float(spacing) if spacing is not None and np.isclose(width, spacing, rtol=1e-9) else float(width)


def half(field: Field, bin_width: float) -> float:
    """1/2 where the field's outputs are multiples of ``bin_width``, so that rounding never moves one over an
    edge."""
    return 0.5 if field.level_spacing is not None and field.level_spacing == bin_width else 0.0


def discrete_space(field: Field) -> DiscreteSpace:
    """The field's space; raises UserError where it is not discrete."""
    if isinstance(field.space, DiscreteSpace):
        return field.space
    raise UserError(
        "field",
        "a discrete space (Grid or Spins)",
        field.space.describe(),
        "use method='ladder' on continuous spaces",
    )


def make_room(state: WalkState, there: int, here: int) -> None:
    """Widen the arrays of ``state`` in place so that they hold bin ``there`` and a trial from ``here`` to
    it."""
    n_bins = len(state.entropy)
    reach = (state.moves.shape[2] - 1) // 2
    wider = max(0, abs(there - here) - reach)
    if wider:
        wider += reach // 2
    spare = max(8, n_bins // 4)
    below = spare - there if there < 0 else 0
    above = there + 1 - n_bins + spare if there >= n_bins else 0
    state.entropy = np.pad(state.entropy, (below, above), mode="edge")
    state.seen = np.pad(state.seen, (below, above))
    state.visits = np.pad(state.visits, ((0, 0), (below, above)))
    state.moves = np.pad(state.moves, ((0, 0), (below, above), (wider, wider)))
    state.bins = state.bins + below
    state.first_bin -= below


# ---------------------------------------------------------------------- walking


def start_walk(
    field: Field, bin_width: float, n_walkers: int, generator: torch.Generator, start: Tensor | None
) -> WalkState:
    """Walkers at ``start`` (n_walkers, *shape), or at points drawn from the space. Raises UserError."""
    space = discrete_space(field)
    if n_walkers < 1:
        raise UserError("n_walkers", "at least 1", str(n_walkers), "16 give errors with 15 degrees of freedom")
    x = space.draw(n_walkers, generator) if start is None else start
    if len(x) != n_walkers:
        raise UserError("start", f"{n_walkers} points", str(len(x)), "give one start a walker")
    values = field.value(x).numpy().copy()
    bins = np.floor(values / bin_width + half(field, bin_width)).astype(np.int64)
    first_bin = int(bins.min()) - 8
    n_bins = int(bins.max()) - first_bin + 9
    seen = np.zeros(n_bins, bool)
    seen[bins - first_bin] = True
    return WalkState(
        levels=space.to_levels(x).numpy().astype(np.uint8 if space.levels <= 256 else np.int64),
        values=values,
        bins=bins - first_bin,
        words=site_kernels.seed_generators(n_walkers, generator),
        entropy=np.zeros(n_bins),
        seen=seen,
        visits=np.zeros((n_walkers, n_bins), np.int64),
        moves=np.zeros((n_walkers, n_bins, 5), np.int64),
        first_bin=first_bin,
        evaluations=n_walkers,
        learning=True,
        increment=1.0,
        n_halvings=0,
        settling=0,
    )


def walk(field: Field, bin_width: float, state: WalkState, n_trials: int, inverse_time: float = 0.0) -> WalkState:
    """A copy of ``state`` after ``n_trials`` more trials; bins are added where the walkers find them.

    Compiled where the field offers ``single_site`` or ``table`` (values are then brought up to date by exact
    changes); else one batch of all walkers a trial. ``n_trials`` is rounded up to a multiple of the walkers.
    """
    state = copy.deepcopy(state)
    if field.single_site is None and field.table is None:
        _walk_batched(field, bin_width, state, n_trials, inverse_time)
    else:
        _walk_compiled(field, bin_width, state, n_trials, inverse_time)
    return state


def produce(field: Field, bin_width: float, state: WalkState) -> WalkState:
    """A copy of ``state`` after some more production, or after its settling, which is discarded."""
    share = int(np.clip(state.evaluations // 20, 500, 2_000_000))
    if state.settling == 0:
        return walk(field, bin_width, state, share)
    made = min(share, state.settling)
    moved = walk(field, bin_width, state, made)
    return replace(
        moved,
        settling=state.settling - made,
        visits=np.zeros_like(moved.visits),
        moves=np.zeros_like(moved.moves),
    )


def _walk_compiled(field: Field, bin_width: float, state: WalkState, n_trials: int, inverse_time: float) -> None:
    single_site = site_kernels.single_site_of(field)
    n_walkers = len(state.levels)
    each = -(-n_trials // n_walkers)
    left = np.full(n_walkers, each)
    made = 0
    while made < each * n_walkers:
        walker, there = site_kernels.advance(
            single_site.change,
            single_site.data,
            discrete_space(field).levels,
            state.levels,
            state.values,
            state.bins,
            state.words,
            (state.first_bin - half(field, bin_width)) * bin_width,
            bin_width,
            state.entropy,
            state.seen,
            state.visits,
            state.moves,
            left,
            state.learning,
            state.increment,
            inverse_time,
            state.evaluations + made,
        )
        made = each * n_walkers - int(left.sum())
        if walker >= 0:
            make_room(state, there, int(state.bins[walker]))
    state.evaluations += made
    field.evaluations += made


def _walk_batched(field: Field, bin_width: float, state: WalkState, n_trials: int, inverse_time: float) -> None:
    space = discrete_space(field)
    n_walkers = len(state.levels)
    everyone = np.arange(n_walkers)
    for _ in range(-(-n_trials // n_walkers)):
        sites, new_levels = site_kernels.draw_moves(state.levels, space.levels, state.words)
        proposed = state.levels.astype(np.int64)
        proposed[everyone, sites] = new_levels
        new_values = field.value(space.from_levels(torch.from_numpy(proposed))).numpy()
        numbers = np.floor(new_values / bin_width + half(field, bin_width)).astype(np.int64)
        for walker in everyone:
            make_room(state, int(numbers[walker]) - state.first_bin, int(state.bins[walker]))
        site_kernels.decide_moves(
            sites,
            new_levels,
            new_values,
            numbers - state.first_bin,
            state.levels,
            state.values,
            state.bins,
            state.words,
            state.entropy,
            state.seen,
            state.visits,
            state.moves,
            state.learning,
            state.increment,
            inverse_time,
            state.evaluations,
        )
        state.evaluations += n_walkers


# ---------------------------------------------------------------------- estimates


def estimate_production(field: Field, bin_width: float, state: WalkState) -> FlatHistogramEstimate:
    """The absolute density of states from a production of independent walkers, with its error.

    The sum over all bins is the number of inputs. The error is the jackknife over walkers, normalisation
    included, times the Student quantile over 1.96 with the degrees of freedom of the walkers that share the
    bin's visits; it is infinite where fewer than two do.
    """

    def normalised(moves: NDArray[np.int64]) -> Floats:
        return normalised_to(field.space.log_volume, site_kernels.log_stationary(moves))

    total = state.moves.sum(0)
    left_out = np.array([normalised(total - moves) for moves in state.moves])
    error = jackknife_error(left_out, state.visits)
    return _estimate(field, bin_width, state, normalised(total), error)


def jackknife_error(left_out: Floats, weights: NDArray[Any]) -> Floats:
    """95% half-width / 1.96 from ``left_out`` (unit, bin), the estimates without each unit; ``weights``
    (unit, bin).

    A bin that few units reach has few degrees of freedom: the effective number of units, (sum w)^2 / sum w^2,
    less one.
    """
    n_units = len(left_out)
    variance = (n_units - 1) / n_units * ((left_out - left_out.mean(0)) ** 2).sum(0)
    total = weights.sum(0).astype(float)
    effective = total**2 / np.maximum((weights.astype(float) ** 2).sum(0), 1.0)
    freedom = np.clip(effective - 1.0, 0.05, max(n_units - 1, 0.05))
    error = np.sqrt(variance) * stdtrit(freedom, 0.975) / 1.96
    return np.where(np.isfinite(error) & (n_units > 1) & (effective > 1.0), error, np.inf)


def estimate_weights(field: Field, bin_width: float, state: WalkState) -> FlatHistogramEstimate:
    """The weights themselves as an estimate, as the flat-histogram papers use them: no error is known."""
    log_density = normalised_to(field.space.log_volume, np.where(state.seen, state.entropy, np.nan))
    return _estimate(field, bin_width, state, log_density, np.full(len(log_density), np.inf))


def normalised_to(log_volume: float, log_density: Floats) -> Floats:
    """``log_density`` shifted so that its finite bins sum to the whole space."""
    return log_density - np.logaddexp.reduce(log_density[np.isfinite(log_density)]) + log_volume


def _estimate(
    field: Field, bin_width: float, state: WalkState, log_density: Floats, error: Floats
) -> FlatHistogramEstimate:
    reached = np.flatnonzero(np.isfinite(log_density))
    kept = slice(reached[0], reached[-1] + 1)
    visits = state.visits.sum(0)[kept]
    first = state.first_bin + int(reached[0]) - half(field, bin_width)
    return FlatHistogramEstimate(
        level_edges=(first + np.arange(len(visits) + 1)) * bin_width,
        log_density_of_states=log_density[kept],
        log_density_error=np.where(np.isfinite(log_density[kept]), error[kept], np.inf),
        visited=visits > 0,
        n_samples=visits,
        absolute=True,
    )
