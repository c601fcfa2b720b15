"""The rows of the schema for Lipschitz bounds."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("lipschitz")

LIPSCHITZ = (
    _row("layer", "layer", "-", "names of the layers, in the order of the network", True),
    _row("kind", "layer", "-", "what the layer is, in words", True),
    _row("shape", "layer", "-", "input channels x window x output channels, or inputs x outputs", True),
    _row(
        "lipschitz_upper_bound",
        "layer",
        "-",
        "no change of the layer's input is stretched more: proven; inf: nothing is known of the layer",
        True,
    ),
    _row("proof", "layer", "-", "what proves the bound, or why there is none", True),
    _row("operator_norm", "layer", "-", "the layer's own norm as it is applied: an estimate, no bound", True),
    _row("operator_norm_residual", "layer", "-", "|A'A v - s^2 v| / s^2 of the estimate s; 0: exact"),
    _row(
        "measured_slope",
        "layer",
        "-",
        "largest slope of the layer between the values that two inputs reach there, less all rounding",
    ),
    _row("frame_lower_bound", "layer", "-", "no change is shrunk more: proven; 0 where some is lost", True),
    _row("frame_proof", "layer", "-", "what proves the frame bound, or why it is 0", True),
    _row("smallest_singular_value", "layer", "-", "of the min(in, out) singular values: an estimate"),
    _row(
        "network_upper_bound",
        "",
        "outputs/input units",
        "no two inputs have a larger slope of all outputs: proven",
        True,
    ),
    _row("network_slope", "", "outputs/input units", "the slope of network_pair, less all rounding", True),
    _row("network_pair", "pair_side point_*", "space", "the steepest pair of inputs found"),
    _row(
        "erf_upper_bound",
        "",
        "outputs/input units",
        "equation 15 of Yousefzadeh and O'Leary 2019, in the infinity norm; NaN: no chain of error functions",
    ),
    _row("input", "image point_*", "space", "the inputs around which slopes are bounded"),
    _row("radius", "radius", "input units", "of the balls around them"),
    _row(
        "local_upper_bound",
        "image radius",
        "outputs/input units",
        "no two points of the ball have a larger slope: proven; NaN: not reached",
    ),
    _row("local_slope", "image radius", "outputs/input units", "largest slope found between points of the ball"),
    *judged("lipschitz", '"proven" or "in part"'),
)
