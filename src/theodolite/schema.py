"""What a result may hold: a row a variable, with its dims, unit and meaning. Checks, documentation and captions come
from these rows; a variable enters a result only with a row here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A row of the schema. Dim ``point_*`` stands for ``point_0``, ``point_1``, ...: the axes of a point."""

    instrument: str
    name: str
    dims: tuple[str, ...]
    unit: str
    meaning: str
    required: bool = False


def _density(name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
    return Variable("density", name, tuple(dims.split()), unit, meaning, required)


def _landscape(name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
    return Variable("landscape", name, tuple(dims.split()), unit, meaning, required)


def _boundary(name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
    return Variable("boundary", name, tuple(dims.split()), unit, meaning, required)


def _judged(instrument: str, words: str) -> tuple[Variable, ...]:
    """The checks and the verdict of an instrument whose verdicts are these ``words``."""
    return (
        Variable(instrument, "check_name", ("check",), "-", "a check of the verdict"),
        Variable(instrument, "check_value", ("check",), "-", "what was measured"),
        Variable(instrument, "check_limit", ("check",), "-", "what was asked for"),
        Variable(instrument, "check_passed", ("check",), "-", "1 yes, 0 no, -1 not tested"),
        Variable(instrument, "check_sentence", ("check",), "-", "the check in words"),
        Variable(instrument, "verdict", (), "-", words, True),
        Variable(instrument, "verdict_sentence", (), "-", "the verdict in words, naming what failed and where", True),
    )


_DENSITY = (
    _density("level", "level", "observable", "centre of the bin", True),
    _density("level_edges", "level_edge", "observable", "edges of the bins", True),
    _density(
        "log_density_of_states",
        "level",
        "nats",
        "ln of the number of inputs (or volume) in the bin; NaN: not reached; -inf: proven empty",
        True,
    ),
    _density("log_density_error", "level", "nats", "calibrated 95% half-width / 1.96; 0 where exact", True),
    _density("level_converged", "level", "-", "the verdict's checks hold at this level", True),
    _density("n_samples", "level", "-", "samples in the bin"),
    _density(
        "representative",
        "level sample point_*",
        "space",
        "inputs drawn in proportion to the density of states within the level",
    ),
    _density("representative_output", "level sample", "observable", "their outputs; NaN: no sample there"),
    _density("data_set", "data_set", "-", 'names such as "test: 1"'),
    _density("data_histogram", "data_set level", "-", "inputs of the named set in the bin"),
    _density(
        "data_rarity",
        "data_set",
        "nats",
        "median over the set's inputs of ln(inputs in the level) - ln(inputs of the set in the level)",
    ),
    _density(
        "noise_distance",
        "data_set",
        "input units",
        "mean over pairs of sqrt(mean squared difference) between uniform noise and the set",
    ),
    _density(
        "noise_squared_distance",
        "data_set",
        "input units^2",
        "mean squared difference between uniform noise and the set (Liu et al. 2023, appendix D)",
    ),
    _density("rung_lambda", "rung", "1/observable", "weight exp(lambda y); the free rung has 0"),
    _density("rung_log_partition", "rung", "nats", "ln Z of the rung relative to the free rung"),
    _density("rung_mean", "ladder rung", "observable", "mean of the output on each rung"),
    _density("rung_variance", "ladder rung", "observable^2", "variance of the output on each rung"),
    _density("swap_rate", "rung", "-", "accepted swaps between a rung and the next; NaN on the last"),
    _density("acceptance", "rung", "-", "accepted share of proposals"),
    _density("autocorrelation_time", "rung", "steps", "integrated autocorrelation time of the output"),
    _density("fluctuation_ratio", "rung", "-", "variance / (d mean / d lambda); 1 in equilibrium"),
    _density("round_trips", "ladder", "-", "replicas that went free rung -> end -> free rung"),
    _density("ladder_start", "ladder", "-", '"noise", "zeros", "data", ...'),
    *_judged("density", '"exact", "converged" or "not converged"'),
)

_LANDSCAPE = (
    _landscape(
        "minimum_point", "minimum point_*", "space", "the lowest known state of each basin, rising in energy", True
    ),
    _landscape("energy", "minimum", "observable", "its energy", True),
    _landscape("member_count", "minimum", "-", "minima (or states, where exact) sorted into the basin"),
    _landscape("minimum_label", "minimum", "-", "the class or name the field's network gives it, where it gives one"),
    _landscape(
        "barrier_upper_bound",
        "minimum other_minimum",
        "observable",
        "highest energy of the best path known; the minimum's own energy on the diagonal; inf: no path known",
        True,
    ),
    _landscape(
        "barrier_lower_bound",
        "minimum other_minimum",
        "observable",
        "energy that every path is proven to reach; equal to the upper bound where the barrier is exact",
        True,
    ),
    _landscape(
        "disconnectivity",
        "merge merge_part",
        "-",
        "the tree: at each merge its two children (minimum k, or number of minima + merge), upper and lower bound "
        "of its energy, and number of minima below it; merges rise in energy",
        True,
    ),
    _landscape("merge_part", "merge_part", "-", '"first", "second", "upper_bound", "lower_bound", "size"', True),
    _landscape("path_minimum", "path path_end", "-", "the two minima a path joins; the paths span the tree"),
    _landscape("path_length", "path", "-", "number of its points"),
    _landscape("path_point", "path path_step point_*", "space", "the points of each path, padded with the last one"),
    _landscape("path_energy", "path path_step", "observable", "the energies along it; NaN where padded"),
    _landscape("member_point", "member point_*", "space", "minima found on the way, some of each basin"),
    _landscape("member_energy", "member", "observable", "their energies"),
    _landscape("basin", "member", "-", "the minimum whose basin a member belongs to"),
    _landscape("member_label", "member", "-", "the class or name the field's network gives it"),
    _landscape("member_embedding", "member axis", "-", "the members in the plane, by t-SNE"),
    _landscape("member_latent", "member axis", "latent", "first two latent coordinates a member was proposed from"),
    _landscape("discovered", "proposal", "-", "number of basins (or minima) known after each proposal"),
    _landscape("basins_before_consolidation", "", "-", "basins at the end of the burn-in or mapping"),
    _landscape("basins_after_consolidation", "", "-", "basins left after trials between all representatives"),
    _landscape("leakage", "", "-", "share of proposals that reached more than one basin; 0 is ideal"),
    _landscape("tune_temperature", "tune_temperature", "observable", "temperatures tried"),
    _landscape("tune_energy", "tune_temperature tune_step", "observable", "energy along unmagnetised chains, mean"),
    _landscape("tune_alpha", "tune_alpha", "1/distance", "magnetisations tried"),
    _landscape("tune_basins", "tune_alpha", "-", "basins found in a short mapping at each magnetisation"),
    _landscape("phase_temperature", "phase_temperature", "observable", "temperatures of the phase diagram"),
    _landscape(
        "phase_alpha",
        "phase_role phase_temperature",
        "1/distance",
        "least magnetisation that reaches the target, from each of the two minima; NaN: above the critical temperature",
    ),
    _landscape("phase_barrier", "phase_role phase_temperature", "observable", "lowest barrier seen on the way"),
    *_judged("landscape", '"exact", "bracketed", "converged" or "not converged"'),
)

_BOUNDARY = (
    _boundary("input", "image point_*", "space", "the inputs", True),
    _boundary("label", "image", "-", "their true classes; -1: not given"),
    _boundary("class_name", "class", "-", "names of the classes"),
    _boundary("output", "image class", "logit", "outputs at the input"),
    _boundary("predicted_class", "image", "-", "the class the network gives the input", True),
    _boundary("probability", "image", "-", "softmax of the predicted class"),
    _boundary(
        "flip_point",
        "image point_*",
        "space",
        "the closest point found where the answer flips, on the far side; NaN: none found; where violation > 0, the "
        "one of least violation",
        True,
    ),
    _boundary("distance", "image", "input units", "from the input to the flip point; inf: none found", True),
    _boundary(
        "distance_lower_bound", "image", "input units", "no flip point is nearer: proven; 0 where nothing is", True
    ),
    _boundary("certificate", "image", "-", "what proves the lower bound", True),
    _boundary("target_class", "image", "-", "the class on the far side; -1: none found", True),
    _boundary(
        "residual",
        "image",
        "logit",
        "output of the target class minus that of the predicted class at the flip point, in [0, 1e-9]",
        True,
    ),
    _boundary("units", "image", "-", "forward and backward passes spent on the image's search", True),
    _boundary("outcome", "image", "-", '"found", or why not, in words', True),
    _boundary(
        "violation",
        "image",
        "-",
        "largest violated constraint of the best point, where none is feasible; 0: none violated",
    ),
    _boundary(
        "pair_flip_point",
        "image class point_*",
        "space",
        "closest point found where the predicted class and this one tie and all others are below",
    ),
    _boundary(
        "pair_distance", "image class", "input units", "its distance; inf: none found, NaN for the predicted class"
    ),
    _boundary("pair_residual", "image class", "logit", "output of this class minus that of the predicted class there"),
    _boundary("pair_lower_bound", "image class", "input units", "proven for this class alone"),
    _boundary("meeting_point", "image point_*", "space", "closest point found where several classes tie"),
    _boundary("meeting_distance", "image", "input units", "its distance; inf: none found"),
    _boundary("meeting_class", "image rank", "-", "the classes that tie"),
    _boundary("score", "score", "-", '"distance", "softmax", "margin"'),
    _boundary("auroc", "score", "-", "probability that a mistake has a lower score than a correct answer"),
    _boundary("auroc_low", "score", "-", "lower end of the 95% bootstrap interval"),
    _boundary("auroc_high", "score", "-", "upper end"),
    _boundary("ambiguous", "image", "-", "1: the flip point lies within the stated measurement uncertainty"),
    _boundary(
        "direction_mean",
        "class point_*",
        "input units",
        "mean change from input to flip point over the inputs of the predicted class",
    ),
    _boundary(
        "direction_component", "class component point_*", "-", "principal directions of these changes, unit length"
    ),
    _boundary(
        "direction_explained", "class component", "-", "share of their squared length in each principal direction"
    ),
    _boundary(
        "feature_changed",
        "point_*",
        "-",
        "share of the images in which this feature changes by more than the attribute change_threshold",
    ),
    _boundary(
        "true_class_rank",
        "image",
        "-",
        "of mistakes: the true class's place among the other classes by pair_distance, 1: nearest; 0: no mistake, "
        "or not known",
    ),
    _boundary("suspicious_image", "suspect", "-", "images whose label the network contradicts, nearest flip first"),
    *_judged("boundary", '"exact", "bracketed", "converged" or "not converged"'),
)

SCHEMA: tuple[Variable, ...] = _DENSITY + _LANDSCAPE + _BOUNDARY

ATTRIBUTES: dict[str, str] = {
    "instrument": 'the question asked: "density", "landscape" or "boundary"',
    "observable": 'the number surveyed, such as "logit:1"',
    "observable_sentence": "the observable in words",
    "space": 'the input space, such as "grid:1x28x28:256"',
    "space_sentence": "the space in words",
    "log_volume": "ln of the number of inputs, or of the volume",
    "method": "how it was sampled or enumerated",
    "seed": "the seed of every random number",
    "settings": "the resolved settings, TOML",
    "evaluations": "rows the field evaluated",
    "seconds": "wall time",
    "model_name": "the network",
    "model_hash": "sha256 of its weights and structure",
    "versions": "of python and the packages, JSON",
    "machine": "the machine in words",
    "date": "when the result was made, ISO 8601, UTC",
    "command": "the command line, if there was one",
    "citations": "the sources of the methods used, a JSON list of strings",
    "probability": '"sigmoid" where the observable is a binary log-odds, else ""',
    "version": "of theodolite",
    "norm": 'of boundary distances: "L2", "L1" or "Linf"',
    "constraints": "what flip points may change, in words",
    "uncertainty": "of the measured inputs, in input units: flip points nearer than this make an answer ambiguous",
    "change_threshold": "a feature that changes by less counts as unchanged, in input units",
    "reference": "number of reference points from which searches could start",
}
REQUIRED_ATTRIBUTES = ("instrument", "observable", "space", "log_volume", "method", "seed")
