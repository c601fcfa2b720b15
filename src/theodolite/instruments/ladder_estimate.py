"""From a measured ladder to findings: density of states, calibrated errors, verdict, representatives.

The error is the larger of what the run's own blocks and the disagreement of the ladders say, times a factor that
makes 95% intervals cover 95% on exactly solved chains (benchmarks/error_calibration.py).
"""

from __future__ import annotations

import numpy as np
import torch

from theodolite.field import Field
from theodolite.instruments import levels, verdict
from theodolite.instruments.findings import N_REPRESENTATIVES, Findings, choose_representatives
from theodolite.instruments.ladder import LadderSampler, LadderSurvey, enough, kept_values
from theodolite.instruments.verdict import Verdict
from theodolite.sampling import diagnostics, reweighting
from theodolite.sampling.metropolis import as_points
from theodolite.sampling.reweighting import Reweighted
from theodolite.space import DiscreteSpace

MANY_LADDERS = 8  # from here on ladders alone are the independent units
_BLOCKS = 8  # of each ladder, where there are few
CALIBRATION = 1.3  # few ladders: benchmarks/error_calibration.py
_LEAST_SAMPLES = 10  # a level with fewer, or missed by most ladders, counts as not reached
_MISSING = 4.0  # nats below the estimate at which a leaf without samples is put
_LOOKS = (0.5, 0.75)  # shares of the budget at which the stop rule looks
_CITATIONS = (
    "Liu, You, Li, Shang (2023). Gradient-based Wang-Landau Algorithm: A Novel Sampler for Output Distribution of "
    "Neural Networks over the Input Space. ICML, PMLR 202.",
    "Shirts, Chodera (2008). Statistically optimal analysis of samples from multiple equilibrium states. "
    "J. Chem. Phys. 129, 124105.",
    "Swendsen, Wang (1986). Replica Monte Carlo simulation of spin-glasses. Phys. Rev. Lett. 57, 2607.",
    "Neal (2001). Annealed importance sampling. Statistics and Computing 11, 125-139.",
)


def standard_error(estimate: Reweighted) -> np.ndarray:
    """Calibrated standard errors ``(level,)``: 95% half-widths / 1.96; NaN where nothing was sampled."""
    n_ladders, n_blocks, _ = estimate.leaf_log_density.shape
    reached = np.isfinite(estimate.log_density)
    floor = np.where(reached, estimate.log_density, 0.0) - _MISSING
    leaves = np.maximum(estimate.leaf_log_density.reshape(n_ladders * n_blocks, -1), floor)
    within = reweighting.jackknife_error(estimate.log_density, leaves)
    if n_ladders >= MANY_LADDERS:
        share = estimate.ladder_share
        effective = share.sum(0) ** 2 / np.maximum((share**2).sum(0), 1e-300)
        degrees = np.clip(effective - 1.0, 1.0, n_ladders - 1.0)
        factor = np.array([reweighting.student_factor(d) for d in degrees])
        return np.where(reached, within * factor, np.nan)
    between = np.zeros_like(within)
    if n_ladders > 1:
        by_ladder = np.maximum(estimate.ladder_log_density, floor)
        variance = np.var(by_ladder, axis=0, ddof=1) / n_ladders
        # two or three ladders tell little at one level: neighbours within a twentieth of the range help
        width = max(1, len(variance) // 10)
        kernel = np.ones(width)
        count = np.convolve(reached.astype(float), kernel, mode="same")
        pooled = np.convolve(np.where(reached, variance, 0.0), kernel, mode="same") / np.maximum(count, 1.0)
        between = np.sqrt(pooled)
    return np.where(reached, CALIBRATION * np.maximum(within, between), np.nan)


def estimate(
    field: Field, value: np.ndarray, rung_lambda: np.ndarray, edges: np.ndarray
) -> tuple[Reweighted, np.ndarray]:
    """Density of states from outputs ``(ladder, step, rung)`` and its standard errors ``(level,)``."""
    n_blocks = 1 if len(value) >= MANY_LADDERS else min(_BLOCKS, value.shape[1])
    found = reweighting.reweight(value, rung_lambda, edges, field.space.log_volume, n_blocks)
    return found, standard_error(found)


def findings(
    sampler: LadderSampler,
    state: LadderSurvey,
    outputs: dict[str, np.ndarray],
    level_width: float | None,
    generator: torch.Generator,
) -> Findings:
    """Everything the dataset needs. ``outputs`` of the data extend the levels so that no data point falls off."""
    field = sampler.field
    if not enough(state) or state.ladder is None:
        return _nothing(sampler, state, outputs, level_width)
    ladder = state.ladder
    value, rung_lambda = kept_values(state), ladder.rung_lambda.numpy()
    edges = covering_edges(value, outputs, field, level_width)
    found, error = estimate(field, value, rung_lambda, edges)
    by_place = (len(value), len(rung_lambda))
    acceptance = (ladder.accepted / ladder.step_count).reshape(by_place).numpy()
    small = sampler.mover.small(ladder.tuning).reshape(by_place).numpy()
    swap_rate = (ladder.swap_probability / ladder.step_count).mean(0).numpy()
    n_units = found.leaf_log_partition.shape[0] * found.leaf_log_partition.shape[1]
    partition_error = reweighting.jackknife_error(found.log_partition, found.leaf_log_partition.reshape(n_units, -1))
    judged = verdict.judge(
        verdict.Evidence(
            value,
            rung_lambda,
            swap_rate,
            acceptance,
            small,
            found.log_partition,
            partition_error,
            0.5 * (edges[1:] + edges[:-1]),
            found.log_density,
            error,
            field.space.log_volume,
            isinstance(field.space, DiscreteSpace),
        )
    )
    mean = value.mean((0, 1))
    by_ladder = np.array([np.histogram(outputs_of_ladder, edges)[0] for outputs_of_ladder in value])
    n_samples = by_ladder.sum(0)
    reached = (n_samples >= _LEAST_SAMPLES) & ((by_ladder > 0).mean(0) > 0.5) & np.isfinite(found.log_density)
    log_density = np.where(reached, found.log_density, np.nan)
    correlation = diagnostics.autocorrelation_time(value)
    representative, representative_output = _representatives(sampler, state, found, edges, correlation, generator)
    return Findings(
        method="ladder",
        edges=edges,
        log_density=log_density,
        error=np.where(reached, error, np.nan),
        converged=reached & _trusted_levels(judged, mean, edges),
        n_samples=n_samples,
        representative=representative,
        representative_output=representative_output,
        word=judged.word,
        sentence=f"{judged.sentence} {_reached(state, mean)}",
        checks=judged.checks,
        citations=_CITATIONS,
        variables={
            "rung_lambda": (("rung",), rung_lambda),
            "rung_log_partition": (("rung",), found.log_partition),
            "rung_mean": (("ladder", "rung"), value.mean(1)),
            "rung_variance": (("ladder", "rung"), value.var(1)),
            "swap_rate": (("rung",), np.append(swap_rate, np.nan)),
            "acceptance": (("rung",), acceptance.mean(0)),
            "autocorrelation_time": (("rung",), correlation),
            "fluctuation_ratio": (("rung",), diagnostics.fluctuation_ratio(value, rung_lambda)[0]),
            "round_trips": (("ladder",), (ladder.half_trips // 2).numpy()),
            "ladder_start": (("ladder",), np.array(sampler.ladder_starts(len(value)))),
        },
    )


class StopRule:
    """Ends a run whose standard error meets the target and whose verdict is "converged"; looks at a few marks of the
    budget only, since a look costs as much as many steps."""

    def __init__(self, sampler: LadderSampler, level_width: float | None, target_error: float) -> None:
        self._sampler = sampler
        self._level_width = level_width
        self._target_error = target_error
        self._looked = sum(mark <= sampler.meter.fraction for mark in _LOOKS)

    def __call__(self, state: LadderSurvey, info: object) -> str | None:
        if self._looked >= len(_LOOKS) or self._sampler.meter.fraction < _LOOKS[self._looked] or not enough(state):
            return None
        self._looked = sum(mark <= self._sampler.meter.fraction for mark in _LOOKS)
        scratch = torch.Generator().manual_seed(0)
        found = findings(self._sampler, state, {}, self._level_width, scratch)
        error = found.error[np.isfinite(found.error)]
        if found.word == "converged" and len(error) and error.max() <= self._target_error:
            return f"Every check holds and every error is at most {self._target_error:g} nats."
        return None


def covering_edges(
    value: np.ndarray, outputs: dict[str, np.ndarray], field: Field, level_width: float | None
) -> np.ndarray:
    """Edges over everything sampled and everything the data give; the width is chosen from the samples."""
    low, high = float(value.min()), float(value.max())
    edges = levels.level_edges(low, high, level_width, field.level_spacing)
    width = edges[1] - edges[0]
    everything = np.concatenate([[low, high], *outputs.values()])
    return levels.level_edges(float(everything.min()), float(everything.max()), width, field.level_spacing)


def _trusted_levels(judged: Verdict, mean: np.ndarray, edges: np.ndarray) -> np.ndarray:
    centre = 0.5 * (edges[1:] + edges[:-1])
    if judged.trusted.all():
        return np.ones(len(centre), dtype=bool)
    if not judged.trusted.any():
        return np.zeros(len(centre), dtype=bool)
    trusted = mean[judged.trusted]
    low = -np.inf if judged.trusted[mean.argmin()] else trusted.min()
    high = np.inf if judged.trusted[mean.argmax()] else trusted.max()
    return (centre >= low) & (centre <= high)


def _reached(state: LadderSurvey, mean: np.ndarray) -> str:
    why = "; ".join(f"{side}: {reason}" for side, reason in state.ended.items())
    return f"Reached from {mean.min():.4g} to {mean.max():.4g} ({why}); this is not a proof that nothing lies beyond."


def _representatives(
    sampler: LadderSampler,
    state: LadderSurvey,
    found: Reweighted,
    edges: np.ndarray,
    correlation: np.ndarray,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """From snapshots of one rung at least two autocorrelation times apart."""
    space = sampler.field.space
    points, outputs, weights = [], [], []
    value = kept_values(state)
    spaced = np.maximum(1, np.ceil(2 * correlation / state.snapshot_interval)).astype(int)
    for index, (step, snapshot) in enumerate(zip(state.snapshot_step, state.snapshots, strict=True)):
        rungs = np.flatnonzero(index % spaced == 0)
        points.append(snapshot[:, rungs].flatten(0, 1).numpy())
        outputs.append(value[:, step, rungs].reshape(-1))
        weights.append(found.sample_log_weight[:, step, rungs].reshape(-1))
    candidates = np.concatenate(points)
    chosen, chosen_output = choose_representatives(
        candidates, np.concatenate(outputs), np.concatenate(weights), edges, N_REPRESENTATIVES, generator
    )
    flat = as_points(space, torch.as_tensor(chosen).flatten(0, 1)).numpy()
    return flat.reshape(*chosen.shape[:2], *space.shape), chosen_output


def _nothing(
    sampler: LadderSampler, state: LadderSurvey, outputs: dict[str, np.ndarray], level_width: float | None
) -> Findings:
    """The budget ended before the frozen ladders had measured anything: say so and give no numbers."""
    field = sampler.field
    seen = state.pilot.mean if state.pilot is not None else [0.0, 1.0]
    if state.n_kept:
        seen = [float(state.value[: state.n_kept].min()), float(state.value[: state.n_kept].max())]
    edges = covering_edges(np.array(seen), outputs, field, level_width)
    n = len(edges) - 1
    empty = np.full(n, np.nan)
    kind = np.dtype("uint8") if isinstance(field.space, DiscreteSpace) else np.dtype("float32")
    return Findings(
        method="ladder",
        edges=edges,
        log_density=empty,
        error=empty,
        converged=np.zeros(n, dtype=bool),
        n_samples=np.zeros(n, dtype=np.int64),
        representative=np.zeros((n, 1, *field.space.shape), dtype=kind),
        representative_output=np.full((n, 1), np.nan),
        word="not converged",
        sentence=f"Not converged: the budget ended in the stage '{state.stage}', before anything was measured.",
        checks=(),
        citations=_CITATIONS,
    )
