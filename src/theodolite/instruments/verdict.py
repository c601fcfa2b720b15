"""Whether a ladder converged, check by check, and up to which level.

Every check can fail one rung at a time; since ln Z is built up from the free rung outwards, a level is trusted only
while every rung between the free one and it passes. Checks: docs/methods.md, "The verdict".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2 as chi2_distribution

from theodolite.sampling import diagnostics, reweighting

CHI2 = 1.5
DISAGREEMENT = 0.5
FLUCTUATION = (0.8, 1.25)
LEAST_SWAP = 0.2
DRIFT = 2.0
LEAST_ACCEPTANCE = 0.3
ENOUGH_SAMPLES = 200
INTEGRATION = 3.0
_FALSE_ALARM = 1e-5  # probability that ladders in equilibrium exceed the limit on agreement at one rung
_NEIGHBOURS = 16  # rungs judged together where one alone scatters too widely


@dataclass(frozen=True)
class Check:
    """``passed`` by rung ``(rung,)`` bool, or None where not tested."""

    name: str
    value: float
    limit: str
    sentence: str
    passed: np.ndarray | None


@dataclass(frozen=True)
class Judgement:
    """The checks of a survey as a whole, and the word and sentence of its verdict."""

    checks: Sequence[Check]
    word: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """``trusted`` ``(rung,)``: every check holds from the free rung to this one."""

    word: str
    sentence: str
    checks: tuple[Check, ...]
    trusted: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What a frozen ladder measured: ``value`` ``(ladder, step, rung)``, ``swap_rate`` ``(rung - 1,)``,
    ``acceptance`` and ``small`` (proposal at its least size) ``(ladder, rung)``, the estimate and its errors
    at the centres ``level``."""

    value: np.ndarray
    rung_lambda: np.ndarray
    swap_rate: np.ndarray
    acceptance: np.ndarray
    small: np.ndarray
    log_partition: np.ndarray
    log_partition_error: np.ndarray
    level: np.ndarray
    log_density: np.ndarray
    log_density_error: np.ndarray
    log_volume: float
    discrete: bool


def judge(evidence: Evidence) -> Verdict:
    """Run every check; the word is "converged" or "not converged"."""
    checks = (
        *_agreement(evidence),
        _fluctuations(evidence),
        _swaps(evidence),
        _drift(evidence),
        _acceptance(evidence),
        _integration(evidence),
        _counting(evidence),
        _closure(),
    )
    free = int(np.flatnonzero(evidence.rung_lambda == 0)[0])
    good = np.ones(len(evidence.rung_lambda), dtype=bool)
    for check in checks:
        if check.passed is not None:
            good &= check.passed
    trusted = good.copy()
    trusted[free:] = np.logical_and.accumulate(good[free:])
    trusted[: free + 1] = np.logical_and.accumulate(good[free::-1])[::-1]
    failed = [check for check in checks if check.passed is not None and not check.passed.all()]
    if not failed:
        return Verdict("converged", "Converged: every check that could be run holds.", checks, trusted)
    mean = evidence.value.mean((0, 1))
    where = _where(mean, trusted)
    names = ", ".join(check.name for check in failed)
    return Verdict("not converged", f"Not converged {where}: {names} failed.", checks, trusted)


def _where(mean: np.ndarray, trusted: np.ndarray) -> str:
    if not trusted.any():
        return "anywhere"
    low, high = mean[trusted].min(), mean[trusted].max()
    sides = []
    if not trusted[mean.argmax()]:
        sides.append(f"above {high:.3g}")
    if not trusted[mean.argmin()]:
        sides.append(f"below {low:.3g}")
    return " and ".join(sides)


def _agreement(evidence: Evidence) -> tuple[Check, Check]:
    n_ladders = len(evidence.value)
    if n_ladders < 2:
        sentence = "Only one ladder was run."
        return (
            Check("starts agree on the mean", np.nan, f"< {CHI2}", sentence, None),
            Check("starts agree within the spread", np.nan, f"< {DISAGREEMENT} sd", sentence, None),
        )
    chi2, spread = diagnostics.disagreement(evidence.value)
    # one rung's chi2 has n_ladders - 1 degrees of freedom and scatters widely: judge runs of neighbours
    width = max(1, round(_NEIGHBOURS / (n_ladders - 1)))
    smooth = _window_mean(chi2, width)
    degrees = (n_ladders - 1) * np.convolve(np.ones(len(chi2)), np.ones(min(width, len(chi2))), mode="same")
    # the range of several means grows with their number even when they agree: allow their own scatter
    error = diagnostics.mean_error(evidence.value)
    apart = np.abs(evidence.value.mean(1) - evidence.value.mean((0, 1))) - 3 * error
    deviation = np.sqrt(np.maximum(evidence.value.var(1).mean(0), 1e-300))
    close = 2 * apart.max(0) / deviation < DISAGREEMENT
    return (
        Check(
            "starts agree on the mean",
            float(chi2.mean()),
            f"< {CHI2}",
            "chi2 per degree of freedom of the rungs' mean outputs between ladders from different starts (mean shown; "
            "runs of neighbouring rungs are judged, within their scatter)",
            smooth < np.maximum(CHI2, chi2_distribution.isf(_FALSE_ALARM, degrees) / degrees),
        ),
        Check(
            "starts agree within the spread",
            float(spread.max()),
            f"< {DISAGREEMENT} sd",
            "largest difference of a rung's mean output between ladders, in standard deviations of that output",
            close,
        ),
    )


def _fluctuations(evidence: Evidence) -> Check:
    ratio, least, most = diagnostics.fluctuation_ratio(evidence.value, evidence.rung_lambda)
    low, high = FLUCTUATION
    with np.errstate(invalid="ignore"):
        passed = ~((most < low) | (least > high))
    inner = ratio[np.isfinite(ratio)]
    return Check(
        "fluctuations match the slope",
        float(np.median(inner)) if len(inner) else np.nan,
        f"{low} to {high}",
        "variance of the output over d(mean)/d(lambda), which equilibrium makes 1 (median over rungs shown)",
        passed,
    )


def _swaps(evidence: Evidence) -> Check:
    rate = evidence.swap_rate
    passed = np.ones(len(evidence.rung_lambda), dtype=bool)
    free = int(np.flatnonzero(evidence.rung_lambda == 0)[0])
    low = np.flatnonzero(rate < LEAST_SWAP)
    passed[np.where(low >= free, low + 1, low)] = False  # the rung farther from the free one loses its anchor
    return Check(
        "neighbours swap",
        float(rate.min()) if len(rate) else np.nan,
        f">= {LEAST_SWAP}",
        "smallest rate of swaps between neighbouring rungs",
        passed,
    )


def _drift(evidence: Evidence) -> Check:
    drift = diagnostics.half_run_drift(evidence.value)
    # many rungs are tested at once and swaps correlate neighbours: the limit holds for the root mean square of many
    smooth = np.sqrt(_window_mean(drift**2, _NEIGHBOURS))
    worst = float(smooth.max())
    return Check(
        "no drift",
        worst,
        f"< {DRIFT} errors",
        "change of the rungs' mean outputs between the halves of the run, in standard errors: largest root mean "
        f"square over {_NEIGHBOURS} neighbouring rungs",
        smooth < DRIFT,
    )


def _acceptance(evidence: Evidence) -> Check:
    size = diagnostics.effective_samples(evidence.value).sum(0)
    refused = ((evidence.acceptance < LEAST_ACCEPTANCE) & evidence.small).any(0)
    stuck = refused & (size < ENOUGH_SAMPLES)
    return Check(
        "proposals are accepted",
        float(evidence.acceptance.min()),
        f">= {LEAST_ACCEPTANCE}",
        "smallest accepted share of proposals; fewer will do where a proposal can still shrink, or where "
        f"{ENOUGH_SAMPLES} effective samples show that it moves all the same",
        ~stuck,
    )


def _integration(evidence: Evidence) -> Check:
    mean, variance = evidence.value.mean((0, 1)), evidence.value.var(1).mean(0)
    integral = reweighting.thermodynamic_integration(mean, evidence.rung_lambda, variance)
    # the rule's own error: what the correction by the variances changed, a tenth of it
    plain = reweighting.thermodynamic_integration(mean, evidence.rung_lambda, np.zeros_like(variance))
    allowed = INTEGRATION * evidence.log_partition_error + 0.1 * np.abs(integral - plain) + 0.5
    difference = np.abs(integral - evidence.log_partition)
    worst = int((difference / allowed).argmax())
    return Check(
        "two estimators agree",
        float(difference[worst]),
        f"<= {allowed[worst]:.2g} nats",
        "largest difference between MBAR and thermodynamic integration of the mean outputs",
        difference <= allowed,
    )


def _counting(evidence: Evidence) -> Check:
    """No level may hold more inputs than there are, and none fewer than one (discrete spaces); a level that does
    takes with it every rung from there outwards."""
    finite = np.isfinite(evidence.log_density)
    slack = 3 * evidence.log_density_error[finite] + 1e-6
    density, level = evidence.log_density[finite], evidence.level[finite]
    over = density - evidence.log_volume - slack
    under = -density - slack if evidence.discrete else np.full_like(density, -np.inf)
    excess = np.maximum(over, under)
    mean = evidence.value.mean((0, 1))
    free = mean[int(np.flatnonzero(evidence.rung_lambda == 0)[0])]
    impossible = level[excess > 0]
    highest = impossible[impossible >= free].min(initial=np.inf)
    lowest = impossible[impossible <= free].max(initial=-np.inf)
    passed = (mean < highest) & (mean > lowest)
    # a level beyond every rung's mean was reached from the outermost one
    passed[mean.argmax()] &= not np.isfinite(highest)
    passed[mean.argmin()] &= not np.isfinite(lowest)
    return Check(
        "counts are possible",
        float(excess.max()) if len(excess) else np.nan,
        "<= 0 nats",
        "nats by which a level exceeds the number of all inputs, or falls below a single input, beyond 3 errors",
        passed,
    )


def _closure() -> Check:
    return Check(
        "closed loop through a second field",
        np.nan,
        "<= 3 errors",
        "No second field was declared: not tested.",
        None,
    )


def _window_mean(value: np.ndarray, width: int) -> np.ndarray:
    """Mean over ``width`` neighbours, fewer at the ends."""
    kernel = np.ones(min(width, len(value)))
    return np.convolve(value, kernel, mode="same") / np.convolve(np.ones(len(value)), kernel, mode="same")
