"""The rows of the schema for densities of states."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("density")

DENSITY = (
    _row("level", "level", "observable", "centre of the bin", True),
    _row("level_edges", "level_edge", "observable", "edges of the bins", True),
    _row(
        "log_density_of_states",
        "level",
        "nats",
        "ln of the number of inputs (or volume) in the bin; NaN: not reached; -inf: proven empty",
        True,
    ),
    _row("log_density_error", "level", "nats", "calibrated 95% half-width / 1.96; 0 where exact", True),
    _row("level_converged", "level", "-", "the verdict's checks hold at this level", True),
    _row("n_samples", "level", "-", "samples in the bin"),
    _row(
        "representative",
        "level sample point_*",
        "space",
        "inputs drawn in proportion to the density of states within the level",
    ),
    _row("representative_output", "level sample", "observable", "their outputs; NaN: no sample there"),
    _row("data_set", "data_set", "-", 'names such as "test: 1"'),
    _row("data_histogram", "data_set level", "-", "inputs of the named set in the bin"),
    _row(
        "data_rarity",
        "data_set",
        "nats",
        "median over the set's inputs of ln(inputs in the level) - ln(inputs of the set in the level)",
    ),
    _row(
        "noise_distance",
        "data_set",
        "input units",
        "mean over pairs of sqrt(mean squared difference) between uniform noise and the set",
    ),
    _row(
        "noise_squared_distance",
        "data_set",
        "input units^2",
        "mean squared difference between uniform noise and the set (Liu et al. 2023, appendix D)",
    ),
    _row("rung_lambda", "rung", "1/observable", "weight exp(lambda y); the free rung has 0"),
    _row("rung_log_partition", "rung", "nats", "ln Z of the rung relative to the free rung"),
    _row("rung_mean", "ladder rung", "observable", "mean of the output on each rung"),
    _row("rung_variance", "ladder rung", "observable^2", "variance of the output on each rung"),
    _row("swap_rate", "rung", "-", "accepted swaps between a rung and the next; NaN on the last"),
    _row("acceptance", "rung", "-", "accepted share of proposals"),
    _row("autocorrelation_time", "rung", "steps", "integrated autocorrelation time of the output"),
    _row("fluctuation_ratio", "rung", "-", "variance / (d mean / d lambda); 1 in equilibrium"),
    _row("round_trips", "ladder", "-", "replicas that went free rung -> end -> free rung"),
    _row("ladder_start", "ladder", "-", '"noise", "zeros", "data", ...'),
    *judged("density", '"exact", "converged" or "not converged"'),
)
