"""The rows of the schema for boundaries."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("boundary")

BOUNDARY = (
    _row("input", "image point_*", "space", "the inputs", True),
    _row("label", "image", "-", "their true classes; -1: not given"),
    _row("class_name", "class", "-", "names of the classes"),
    _row("output", "image class", "logit", "outputs at the input"),
    _row("predicted_class", "image", "-", "the class the network gives the input", True),
    _row("probability", "image", "-", "softmax of the predicted class"),
    _row(
        "flip_point",
        "image point_*",
        "space",
        "the closest point found where the answer flips, on the far side; NaN: none found; where violation > 0, the "
        "one of least violation",
        True,
    ),
    _row("distance", "image", "input units", "from the input to the flip point; inf: none found", True),
    _row("distance_lower_bound", "image", "input units", "no flip point is nearer: proven; 0 where nothing is", True),
    _row("certificate", "image", "-", "what proves the lower bound", True),
    _row("target_class", "image", "-", "the class on the far side; -1: none found", True),
    _row(
        "residual",
        "image",
        "logit",
        "output of the target class minus that of the predicted class at the flip point, in [0, 1e-9]",
        True,
    ),
    _row("units", "image", "-", "forward and backward passes spent on the image's search", True),
    _row("outcome", "image", "-", '"found", or why not, in words', True),
    _row(
        "violation",
        "image",
        "-",
        "largest violated constraint of the best point, where none is feasible; 0: none violated",
    ),
    _row(
        "pair_flip_point",
        "image class point_*",
        "space",
        "closest point found where the predicted class and this one tie and all others are below",
    ),
    _row("pair_distance", "image class", "input units", "its distance; inf: none found, NaN for the predicted class"),
    _row("pair_residual", "image class", "logit", "output of this class minus that of the predicted class there"),
    _row("pair_lower_bound", "image class", "input units", "proven for this class alone"),
    _row("meeting_point", "image point_*", "space", "closest point found where several classes tie"),
    _row("meeting_distance", "image", "input units", "its distance; inf: none found"),
    _row("meeting_class", "image rank", "-", "the classes that tie"),
    _row("score", "score", "-", '"distance", "softmax", "margin"'),
    _row("auroc", "score", "-", "probability that a mistake has a lower score than a correct answer"),
    _row("auroc_low", "score", "-", "lower end of the 95% bootstrap interval"),
    _row("auroc_high", "score", "-", "upper end"),
    _row("auroc_lead", "score", "-", "auroc of the distance minus that of this score"),
    _row("auroc_lead_low", "score", "-", "lower end of its 95% interval, a bootstrap of both scores together"),
    _row("auroc_lead_high", "score", "-", "upper end"),
    _row("ambiguous", "image", "-", "1: the flip point lies within the stated measurement uncertainty"),
    _row(
        "direction_mean",
        "class point_*",
        "input units",
        "mean change from input to flip point over the inputs of the predicted class",
    ),
    _row("direction_component", "class component point_*", "-", "principal directions of these changes, unit length"),
    _row("direction_explained", "class component", "-", "share of their squared length in each principal direction"),
    _row(
        "feature_changed",
        "point_*",
        "-",
        "share of the images in which this feature changes by more than the attribute change_threshold",
    ),
    _row(
        "true_class_rank",
        "image",
        "-",
        "of mistakes: the true class's place among the other classes by pair_distance, 1: nearest; 0: no mistake, "
        "or not known",
    ),
    _row("suspicious_image", "suspect", "-", "images whose label the network contradicts, nearest flip first"),
    *judged("boundary", '"exact", "bracketed", "converged" or "not converged"'),
)
