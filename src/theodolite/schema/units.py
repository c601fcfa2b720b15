"""The rows of the schema for units."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("units")

UNITS = (
    _row("top", "top", "-", "sizes k of the sets of most exciting inputs; the first decides the claim", True),
    _row("label", "image", "-", "classes of the inputs, places in class_name", True),
    _row("given_image", "image", "-", "their places among the inputs given; those without a label are left out"),
    _row("class_name", "class", "-", "names of the classes met", True),
    _row("class_count", "class", "-", "inputs of each", True),
    _row("shown_image", "shown", "-", "inputs among the first dozen of any unit or direction listed", True),
    _row("shown_input", "shown point_*", "space", "these inputs", True),
    _row("unit_image", "unit rank", "-", "the inputs that most excite each unit, largest activation first", True),
    _row("unit_value", "unit rank", "activation", "their activations", True),
    _row("unit_spread", "unit", "activation", "standard deviation over the inputs", True),
    _row("unit_living", "unit", "-", "1: varies over the inputs; 0: says the same of every one", True),
    _row(
        "unit_purity",
        "unit top",
        "-",
        "share of the commonest class in the k most exciting inputs; NaN: ties leave no set of k",
        True,
    ),
    _row("unit_entropy", "unit top", "nats", "entropy of their classes, corrected after Miller and Madow", True),
    _row("unit_class", "unit top", "-", "the commonest class; -1: no set of k", True),
    *(
        row
        for name, words in (("random", "random directions"), ("principal", "leading principal directions, both signs"))
        for row in (
            _row(f"{name}_direction", f"{name} unit", "-", f"{words}, unit length", True),
            _row(f"{name}_image", f"{name} rank", "-", f"the inputs that most excite the {words}", True),
            _row(f"{name}_value", f"{name} rank", "activation", "their projections", True),
            _row(f"{name}_purity", f"{name} top", "-", "as unit_purity", True),
            _row(f"{name}_entropy", f"{name} top", "nats", "as unit_entropy", True),
            _row(f"{name}_class", f"{name} top", "-", "as unit_class", True),
        )
    ),
    _row("principal_explained", "principal", "-", "share of the activations' variance along it", True),
    _row("against", "against", "-", "what units are compared with: kind of direction, scaling of the units", True),
    _row("measure", "measure", "-", '"purity", "entropy"', True),
    _row("scaling", "scaling", "-", '"raw", or "standardised": every unit divided by its spread before turning', True),
    _row("basis_mean", "basis scaling measure top", "measure", "mean over the directions of each random basis", True),
    _row(
        "random_size_share",
        "scaling top size",
        "-",
        "share of random directions whose commonest class has this many of the k inputs",
        True,
    ),
    _row("p_value", "against measure top", "-", "of no difference, two-sided; (1 + b) / (1 + n) a side", True),
    _row("p_value_more", "against measure top", "-", "of a mean of the units at least as large", True),
    _row("p_value_less", "against measure top", "-", "of one at most as large", True),
    _row("difference", "against measure top", "measure", "mean of the units minus that of the others", True),
    _row(
        "standardised_difference",
        "against measure top",
        "standard deviations",
        "the difference in standard deviations of the other directions",
        True,
    ),
    _row("standardised_difference_low", "against measure top", "standard deviations", "its 95% interval, over units"),
    _row("standardised_difference_high", "against measure top", "standard deviations", "upper end"),
    _row(
        "exceeds",
        "against top",
        "-",
        "probability that a unit's purity exceeds that of another direction, equals counted half",
        True,
    ),
    _row("exceeds_low", "against top", "-", "lower end of its 95% bootstrap interval, over units"),
    _row("exceeds_high", "against top", "-", "upper end"),
    _row("flip_image", "flip", "-", "the inputs whose closest flip points were searched", True),
    _row("flip_point", "flip point_*", "space", "the closest points found where the network's answer flips"),
    _row("flip_distance", "flip", "input units", "their distances (L2); inf: none found", True),
    _row(
        "unit_change",
        "unit",
        "spreads",
        "mean over the flip points of |change of the activation| / unit_spread; NaN: none",
        True,
    ),
    _row("unit_change_low", "unit", "spreads", "lower end of its 95% bootstrap interval, over flip points"),
    _row("unit_change_high", "unit", "spreads", "upper end"),
    _row("unit_noise_change", "unit", "spreads", "the same for changes of equal length in random directions", True),
    _row("unit_noise_change_low", "unit", "spreads", "lower end of its 95% bootstrap interval"),
    _row("unit_noise_change_high", "unit", "spreads", "upper end"),
    _row(
        "unit_leaving",
        "unit",
        "-",
        "share of the unit's first top set, among inputs with a flip point, that leaves the set when replaced by it",
        True,
    ),
    _row("unit_leaving_low", "unit", "-", "lower end of its 95% interval (Wilson)"),
    _row("unit_leaving_high", "unit", "-", "upper end"),
    _row("unit_leaving_count", "unit", "-", "inputs counted", True),
    _row("claim", "", "-", '"units mean more", "no difference seen", "units mean less" or "undecided"', True),
    *judged("units", '"complete" or "incomplete"'),
)
