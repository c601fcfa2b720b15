"""ln Z of an energy from the density of states: one survey gives it at every temperature.

Z(lambda) = sum over levels of the number of inputs there times exp(lambda y). Within a level's bin the number of inputs
per unit is taken as exponential, with the slope between the levels beside it, so that bins need not be narrow against
1 / lambda. Source: Wang and Landau 2001, "Efficient, multiple-range random walk algorithm to calculate the density of
states", Physical Review Letters 86, eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray

from theodolite.errors import UserError

_NORMAL_95 = 1.96
_UNSEEN = 1e-3  # of Z, in the outermost levels: more, and what lies beyond them may count too


@dataclass(frozen=True)
class SurveyedPartition:
    """ln Z at ``rung_lambda``, absolute, with its 95% interval; ``whole``: the levels that count are all converged and
    none of them is the outermost, beyond which nothing is known. ``low_level``, ``high_level``: the range of outputs
    that carries all but a thousandth of Z at either end."""

    rung_lambda: float
    log_partition: float
    low: float
    high: float
    whole: bool
    low_level: float
    high_level: float


def log_partition(survey: xarray.Dataset, rung_lambda: float) -> SurveyedPartition:
    """ln of the sum of exp(``rung_lambda`` y) over all inputs, from the density survey of y (-1 for an energy in nats,
    +1 for a logit whose exponential is the density).

    The interval takes the errors of the levels as fully correlated, the widest they can make it. Raises UserError for
    a result of another instrument and for a lambda that is not finite.
    """
    if survey.attrs.get("instrument") != "density":
        got = str(survey.attrs.get("instrument", "nothing"))
        raise UserError("survey", "a density survey", got, "give the result of Density().measure")
    if not np.isfinite(rung_lambda):
        raise UserError("rung_lambda", "a finite number", repr(rung_lambda), "-1 for an energy in nats")
    entropy = survey["log_density_of_states"].values.astype(np.float64)
    known = np.isfinite(entropy)
    if not known.any():
        raise UserError("survey", "levels that were reached", "none", "survey with a larger budget")
    edges = survey["level_edges"].values.astype(np.float64)
    centre, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    exact = str(survey["verdict"].item()) == "exact"
    term = entropy[known] + rung_lambda * centre[known]
    if not _one_output_a_level(survey, centre):
        term = term + _within(centre, width, entropy, known, rung_lambda)[known]
    total = np.logaddexp.reduce(term)
    share = np.exp(term - total)
    error = float(share @ np.nan_to_num(survey["log_density_error"].values[known], nan=np.inf))
    level = centre[known]
    order = np.argsort(level)
    cumulative = np.cumsum(share[order])
    first, last = np.searchsorted(cumulative, [_UNSEEN, 1 - _UNSEEN])
    low_level, high_level = level[order][[first, min(last, len(level) - 1)]]
    counts = (level >= low_level) & (level <= high_level)
    converged = (
        survey["level_converged"].values[known].astype(bool)[counts].all() if "level_converged" in survey else True
    )
    ends = share[order][[0, -1]]
    # An end of the survey that carries weight hides what lies beyond, unless the survey is exact.
    open_end = not exact and float(ends.max()) > _UNSEEN
    return SurveyedPartition(
        float(rung_lambda),
        float(total),
        float(total - _NORMAL_95 * error),
        float(total + _NORMAL_95 * error),
        bool(converged and not open_end),
        float(low_level),
        float(high_level),
    )


def _one_output_a_level(survey: xarray.Dataset, centre: np.ndarray) -> bool:
    """Whether all outputs seen lie on the centres of their bins: those of a field with a level spacing."""
    if "representative_output" not in survey:
        return False
    seen = np.abs(survey["representative_output"].values - centre[:, None])
    return bool(np.isfinite(seen).any() and np.nanmax(seen) < 1e-9)


def _within(
    centre: np.ndarray, width: np.ndarray, entropy: np.ndarray, known: np.ndarray, rung_lambda: float
) -> np.ndarray:
    """ln of the mean of exp(lambda (y - centre)) over each bin, the inputs in it exponential with the local slope."""
    slope = np.zeros_like(centre)
    if known.sum() > 1:
        slope[known] = np.gradient((entropy - np.log(width))[known], centre[known])
    tilted, plain = 0.5 * width * (slope + rung_lambda), 0.5 * width * slope
    return _log_sinhc(tilted) - _log_sinhc(plain)


def _log_sinhc(x: np.ndarray) -> np.ndarray:
    """ln(sinh(x) / x)."""
    size = np.abs(x)
    small = np.minimum(size, 1e-2)
    large = np.maximum(size, 1e-2)
    return np.where(size < 1e-2, small**2 / 6, large + np.log1p(-np.exp(-2 * large)) - np.log(2 * large))
