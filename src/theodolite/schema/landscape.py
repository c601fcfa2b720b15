"""The rows of the schema for landscapes."""

from __future__ import annotations

from theodolite.schema.variable import Rows, judged

_row = Rows("landscape")

LANDSCAPE = (
    _row("minimum_point", "minimum point_*", "space", "the lowest known state of each basin, rising in energy", True),
    _row("minimum_picture", "minimum picture_*", "image", "what the minima look like, where points are no images"),
    _row("energy", "minimum", "observable", "its energy", True),
    _row("member_count", "minimum", "-", "minima (or states, where exact) sorted into the basin"),
    _row("minimum_label", "minimum", "-", "the class or name the field's network gives it, where it gives one"),
    _row(
        "barrier_upper_bound",
        "minimum other_minimum",
        "observable",
        "highest energy of the best path known; the minimum's own energy on the diagonal; inf: no path known",
        True,
    ),
    _row(
        "barrier_lower_bound",
        "minimum other_minimum",
        "observable",
        "energy that every path is proven to reach; equal to the upper bound where the barrier is exact",
        True,
    ),
    _row(
        "disconnectivity",
        "merge merge_part",
        "-",
        "the tree: at each merge its two children (minimum k, or number of minima + merge), upper and lower bound "
        "of its energy, and number of minima below it; merges rise in energy",
        True,
    ),
    _row("merge_part", "merge_part", "-", '"first", "second", "upper_bound", "lower_bound", "size"', True),
    _row("path_minimum", "path path_end", "-", "the two minima a path joins; the paths span the tree"),
    _row("path_length", "path", "-", "number of its points"),
    _row("path_point", "path path_step point_*", "space", "the points of each path, padded with the last one"),
    _row("path_picture", "path path_step picture_*", "image", "what the points of each path look like"),
    _row("path_energy", "path path_step", "observable", "the energies along it; NaN where padded"),
    _row("member_point", "member point_*", "space", "minima found on the way, some of each basin"),
    _row("member_picture", "member picture_*", "image", "what they look like"),
    _row("member_energy", "member", "observable", "their energies"),
    _row("basin", "member", "-", "the minimum whose basin a member belongs to"),
    _row("member_label", "member", "-", "the class or name the field's network gives it"),
    _row("member_embedding", "member axis", "-", "the members in the plane, by t-SNE"),
    _row("member_latent", "member axis", "latent", "first two latent coordinates a member was proposed from"),
    _row("discovered", "proposal", "-", "number of basins (or minima) known after each proposal"),
    _row("basins_before_consolidation", "", "-", "basins at the end of the burn-in or mapping"),
    _row("basins_after_consolidation", "", "-", "basins left after trials between all representatives"),
    _row("leakage", "", "-", "share of proposals that reached more than one basin; 0 is ideal"),
    _row("tune_temperature", "tune_temperature", "observable", "temperatures tried"),
    _row("tune_energy", "tune_temperature tune_step", "observable", "energy along unmagnetised chains, mean"),
    _row("tune_alpha", "tune_alpha", "1/distance", "magnetisations tried"),
    _row("tune_basins", "tune_alpha", "-", "basins found in a short mapping at each magnetisation"),
    _row("phase_temperature", "phase_temperature", "observable", "temperatures of the phase diagram"),
    _row(
        "phase_alpha",
        "phase_role phase_temperature",
        "1/distance",
        "least magnetisation that reaches the target, from each of the two minima; NaN: above the critical temperature",
    ),
    _row("phase_barrier", "phase_role phase_temperature", "observable", "lowest barrier seen on the way"),
    *judged("landscape", '"exact", "bracketed", "converged" or "not converged"'),
)
