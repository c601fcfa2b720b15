"""The rows of the schema for stability."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("stability")

STABILITY = (
    _row("network", "network", "-", "names of the networks", True),
    _row("row", "row", "-", "rows of the transfer matrix, in words", True),
    _row("network_hash", "network", "-", "sha256 of the weights and structure of each"),
    _row("input", "image point_*", "space", "the inputs", True),
    _row("label", "image", "-", "their true classes; -1: not given", True),
    _row("class_name", "class", "-", "names of the classes"),
    _row("predicted_class", "network image", "-", "the class each network gives the input", True),
    _row(
        "example",
        "network image point_*",
        "space",
        "the closest adversarial example found for the network; where none was, the best point; NaN: not attacked",
        True,
    ),
    _row("example_class", "network image", "-", "the class there; -1: none found"),
    _row("asked_class", "network image", "-", "the class asked for; -1: any, -2: not attacked"),
    _row(
        "distortion",
        "network image",
        "input units",
        "sqrt of the mean squared change from input to example; inf: none found, NaN: not attacked",
        True,
    ),
    _row("distance", "network image", "input units", "L2 norm of the same change", True),
    _row(
        "residual",
        "network image",
        "logit",
        "at the example: output of the class asked for (any: the largest but the label's) minus the largest other; "
        "below 0: by how much the best point fails",
        True,
    ),
    _row("constant", "network image", "1/input units", "weight of the distance in L-BFGS; NaN in walks"),
    _row("units", "network image", "-", "forward and backward passes spent on the attack", True),
    _row("outcome", "network image", "-", '"found", or why not, in words', True),
    _row("test_error", "network", "-", "share of the labelled inputs that the network gets wrong", True),
    _row("test_error_low", "network", "-", "lower end of its exact 95% interval", True),
    _row("test_error_high", "network", "-", "upper end", True),
    _row("mean_distortion", "network", "input units", "mean distortion of the examples found", True),
    _row("mean_distortion_low", "network", "input units", "lower end of its 95% bootstrap interval", True),
    _row("mean_distortion_high", "network", "input units", "upper end", True),
    _row("row_kind", "row", "-", '"minimal", "amplified" or "noise"', True),
    _row("made_for", "row", "-", "place of the network the examples were made for; -1: noise", True),
    _row(
        "stated_distortion",
        "row",
        "input units",
        "distortion amplified to, or standard deviation of the noise; NaN: minimal",
        True,
    ),
    _row("row_distortion", "row", "input units", "mean distortion of the row, after clipping to the space", True),
    _row("row_distortion_low", "row", "input units", "lower end of its 95% bootstrap interval", True),
    _row("row_distortion_high", "row", "input units", "upper end", True),
    _row("row_count", "row", "-", "inputs that the row has an example of", True),
    _row("row_unreached", "row", "-", "examples left out: the space ends before the stated distortion", True),
    _row(
        "transfer",
        "row network",
        "-",
        "share of the row's examples that the network gets wrong, of the inputs that it has right",
        True,
    ),
    _row("transfer_low", "row network", "-", "lower end of its exact 95% interval", True),
    _row("transfer_high", "row network", "-", "upper end", True),
    _row("transfer_count", "row network", "-", "inputs counted", True),
    _row("fooled", "row network image", "-", "1: the network gets the row's example of the image wrong"),
    *judged("stability", '"complete" or "incomplete"'),
)
