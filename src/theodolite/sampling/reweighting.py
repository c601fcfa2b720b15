"""From samples on rungs to the density of states: MBAR, anchored at the free rung.

Solved on bins of nearly equal outputs that hold equal numbers of samples, so that a jackknife of many leaves costs
little; the final sum runs over the samples themselves, so that a steep slope inside a level's bin makes no bias.
Source: Shirts and Chodera 2008 (MBAR); S(bin) = log_volume + ln sum_n 1 / sum_k N_k exp(lambda_k y_n - f_k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

_COMPRESSED = 3000
_TOLERANCE = 1e-8
_MOST_ITERATIONS = 40  # far fewer are needed where rungs overlap; where they do not, the verdict says so
_LEAF_TOLERANCE = 1e-5  # of leave-one-out solutions, whose differences are a thousand times larger


@dataclass(frozen=True)
class Reweighted:
    """``log_partition`` ``(rung,)`` relative to the free rung; ``log_density`` ``(level,)``: ln of the number of
    inputs in the bin; ``sample_log_weight`` ``(ladder, step, rung)``: ln of each sample's share of all inputs;
    ``leaf_log_density`` ``(ladder, block, level)`` and ``leaf_log_partition`` ``(ladder, block, rung)``: the same
    without one block of one ladder; ``ladder_log_density`` ``(ladder, level)``: from one ladder alone;
    ``ladder_share`` ``(ladder, level)``: each ladder's part of a level's weight, adding up to 1."""

    log_partition: np.ndarray
    log_density: np.ndarray
    sample_log_weight: np.ndarray
    leaf_log_density: np.ndarray
    leaf_log_partition: np.ndarray
    ladder_log_density: np.ndarray
    ladder_share: np.ndarray


def reweight(
    value: np.ndarray, rung_lambda: np.ndarray, edges: np.ndarray, log_volume: float, n_blocks: int
) -> Reweighted:
    """``value`` ``(ladder, step, rung)`` outputs in equilibrium, ``edges`` of the levels' bins."""
    n_ladders, n_steps, n_rungs = value.shape
    free = int(np.flatnonzero(rung_lambda == 0)[0])
    order = np.argsort(value, axis=None, kind="stable")
    flat = value.reshape(-1)
    n_bins = min(_COMPRESSED, len(flat))
    bin_of = np.empty(len(flat), dtype=np.int64)
    bin_of[order] = np.arange(len(flat)) * n_bins // len(flat)
    centre = np.bincount(bin_of, flat, n_bins) / np.bincount(bin_of, minlength=n_bins)
    block = np.minimum(np.arange(n_steps) * n_blocks // n_steps, n_blocks - 1)
    unit = (np.arange(n_ladders)[:, None] * n_blocks + block[None]).repeat(n_rungs, axis=1).reshape(-1)
    counts = np.zeros((n_ladders * n_blocks, n_bins))
    np.add.at(counts, (unit, bin_of), 1.0)
    steps = np.bincount(unit, minlength=n_ladders * n_blocks) / n_rungs

    exponent = centre[:, None] * rung_lambda[None]
    start = _trapezoid(value.mean((0, 1)), rung_lambda, free)
    log_partition = solve(exponent, counts.sum(0), np.full(n_rungs, steps.sum()), free, start)
    denominator = np.empty(len(flat))
    offset = np.log(steps.sum()) - log_partition
    for part in np.array_split(np.arange(len(flat)), max(1, len(flat) * n_rungs // 2_000_000)):
        denominator[part] = logsumexp(flat[part, None] * rung_lambda[None] + offset[None])
    centre_denominator = logsumexp(exponent + offset[None])
    level = np.digitize(flat, edges) - 1

    def density(keep: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
        return log_volume + _log_sum_by(level, np.where(keep, log_weight, -np.inf), len(edges) - 1)

    def without(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = np.ones(len(steps), dtype=bool)
        kept[units] = False
        n_kept = steps[kept].sum()
        each = np.full(n_rungs, n_kept)
        solution = solve(exponent, counts[kept].sum(0), each, free, log_partition, _LEAF_TOLERANCE, 6)
        shifted = logsumexp(exponent + (np.log(n_kept) - solution)[None]) - centre_denominator
        return solution, density(kept[unit], -(denominator + shifted[bin_of]))

    leaves = [without(np.array([u])) for u in range(len(steps))]
    shape = (n_ladders, n_blocks, -1)
    ladders = []
    for ladder in range(n_ladders):
        others = np.array([u for u in range(len(steps)) if u // n_blocks != ladder], dtype=np.int64)
        ladders.append(without(others)[1])
    whole = density(np.ones(len(flat), dtype=bool), -denominator)
    ladder_of = unit // n_blocks
    parts = np.array([density(ladder_of == ladder, -denominator) for ladder in range(n_ladders)])
    return Reweighted(
        log_partition,
        whole,
        -denominator.reshape(value.shape),
        np.array([leaf[1] for leaf in leaves]).reshape(shape),
        np.array([leaf[0] for leaf in leaves]).reshape(shape),
        np.array(ladders),
        np.exp(parts - np.where(np.isfinite(whole), whole, 0.0)),
    )


def solve(
    exponent: np.ndarray,
    count: np.ndarray,
    n_rung: np.ndarray,
    free: int,
    start: np.ndarray,
    tolerance: float = _TOLERANCE,
    most_iterations: int = _MOST_ITERATIONS,
) -> np.ndarray:
    """Free energies f_k with f_free = 0 by Newton's method on the convex MBAR objective.

    ``exponent`` ``(bin, rung)`` = lambda_k y_b, ``count`` ``(bin,)`` samples in each bin, ``n_rung`` samples drawn
    on each rung. The longest step grows while the objective falls and shrinks when it would rise.
    """
    filled = count > 0
    exponent, count = exponent[filled], count[filled]

    def evaluate(log_partition: np.ndarray) -> tuple[float, np.ndarray]:
        score = exponent + (np.log(n_rung) - log_partition)[None]
        total = logsumexp(score)
        score -= total[:, None]
        return float(count @ total + n_rung @ log_partition), np.exp(score, out=score)

    log_partition = start - start[free]
    objective, probability = evaluate(log_partition)
    longest = 5.0
    for _ in range(most_iterations):
        weighted = probability * count[:, None]
        gradient = weighted.sum(0) - n_rung
        curvature = np.diag(weighted.sum(0)) - probability.T @ weighted
        curvature[free], curvature[:, free] = 0.0, 0.0
        curvature[free, free], gradient[free] = 1.0, 0.0
        move = np.linalg.solve(curvature + 1e-10 * count.sum() * np.eye(len(start)), gradient)
        largest = np.abs(move).max()
        proposed = log_partition + move * min(1.0, longest / max(largest, 1e-300))
        new_objective, new_probability = evaluate(proposed)
        if new_objective > objective + 1e-9 * abs(objective):
            longest = 0.25 * min(longest, largest)
            continue
        log_partition, objective, probability = proposed, new_objective, new_probability
        longest *= 3.0
        if largest < tolerance:
            break
    return log_partition


def logsumexp(score: np.ndarray) -> np.ndarray:
    """ln of the sum of exp over the last axis of ``(row, column)`` finite numbers."""
    largest = score.max(1)
    return largest + np.log(np.exp(score - largest[:, None]).sum(1))


def jackknife_error(estimate: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Standard error from leave-one-out estimates ``(leaf, ...)``."""
    n = len(leaves)
    with np.errstate(invalid="ignore"):
        centred = leaves - leaves.mean(0)
    return np.sqrt((n - 1) / n * (centred**2).sum(0))


def student_factor(degrees: float) -> float:
    """Half-width of a 95% interval in standard errors, over 1.96, with few degrees of freedom."""
    return float(student_t.ppf(0.975, max(degrees, 1.0)) / 1.959963984540054)


def thermodynamic_integration(mean: np.ndarray, rung_lambda: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """ln Z by the corrected trapezoid rule: the means at the rungs and their slopes (the variances)."""
    step = np.diff(rung_lambda)
    area = step * 0.5 * (mean[1:] + mean[:-1]) - step**2 / 12 * (variance[1:] - variance[:-1])
    total = np.concatenate([[0.0], np.cumsum(area)])
    return total - total[np.flatnonzero(rung_lambda == 0)[0]]


def _trapezoid(mean: np.ndarray, rung_lambda: np.ndarray, free: int) -> np.ndarray:
    area = np.concatenate([[0.0], np.cumsum(np.diff(rung_lambda) * 0.5 * (mean[1:] + mean[:-1]))])
    return area - area[free]


def _log_sum_by(index: np.ndarray, log_weight: np.ndarray, n: int) -> np.ndarray:
    """ln of the sum of exp(log_weight) by index in 0..n-1; -inf where there is none."""
    inside = (index >= 0) & (index < n) & np.isfinite(log_weight)
    index, log_weight = index[inside], log_weight[inside]
    largest = np.full(n, -np.inf)
    np.maximum.at(largest, index, log_weight)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    total = np.bincount(index, np.exp(log_weight - safe[index]), n)
    with np.errstate(divide="ignore"):
        return np.where(total > 0, safe + np.log(total), -np.inf)
