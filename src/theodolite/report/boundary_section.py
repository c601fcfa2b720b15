"""The boundary section of the page: everything its template and its script show, as plain strings and numbers."""

from typing import Any

import numpy as np
import plotly.colors
import xarray as xr

from theodolite.report import boundary as numbers
from theodolite.report import boundary_figures, images, words
from theodolite.report.boundary import Boundary
from theodolite.report.boundary_script import boundary_script, direction_rows, points
from theodolite.report.boundary_tables import certificates, image_columns, image_table, next_door, not_found, trust
from theodolite.report.parts import common, figure_pair, plain

_QUESTION = "How close the answer is to changing"
_NEVER = (138, 143, 148)


def boundary_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark) and pictures; `key` makes its ids unique."""
    if not dataset.sizes["image"]:
        return _empty(dataset, key)
    found = numbers.boundary(dataset)
    said = numbers.findings(dataset, found)
    trusted = trust(dataset, found)
    heads, rows = image_table(dataset, found)
    script = boundary_script(dataset, found)
    near = found.distance[found.found]
    return common(dataset, key, _QUESTION) | {
        "template": "boundary.html.j2",
        "scripts": ["tiles.js", "changes.js", "boundary.js"],
        "styles": ["boundary.css"],
        "findings": said,
        "kind": found.kind,
        "coloured": script["coloured"],
        "n": len(found.own),
        "measure": numbers.distance_words(found),
        "spread": numbers.spread_evenly(found, float(np.median(near))) if len(near) else "",
        "constraints": str(dataset.attrs.get("constraints", "")).removeprefix("none"),
        "reference": str(dataset.attrs.get("reference", "")),
        "certificates": certificates(dataset, found),
        "units": f"{int(np.median(np.asarray(dataset['units'].values))):,}",
        "has_others": any(call["others"] for call in script["calls"]),
        "colours": {"light": script["colours"]["light"], "dark": script["colours"]["dark"]},
        "caption": _picture_caption(dataset, found),
        "trust": trusted,
        "next_door": next_door(dataset, found),
        "directions": direction_rows(dataset, found),
        "features": _features(dataset, found),
        "ambiguity": numbers.ambiguity(dataset, found) if "ambiguous" in dataset else "",
        "suspects": script["suspects"],
        "n_suspects": int(dataset.sizes.get("suspect", 0)),
        "not_found": not_found(dataset, found),
        "n_missing": int((~found.found).sum()),
        "drawn": _figures(dataset, found, said, trusted.heading),
        "row_heads": heads,
        "rows": rows,
        "script": script,
    }


def _empty(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    said = numbers.BoundaryFindings("No input was given", ["No input was given."], "", "No input was given")
    parts: dict[str, Any] = {"template": "boundary_empty.html.j2", "scripts": [], "styles": [], "findings": said}
    return common(dataset, key, _QUESTION) | parts | {"drawn": {}, "script": {}}


def _figures(
    dataset: xr.Dataset, found: Boundary, said: numbers.BoundaryFindings, trusted: str
) -> dict[str, dict[str, Any]]:
    columns = image_columns(dataset, found)
    drawn = {}
    if found.found.any():
        drawn["brackets"] = figure_pair(
            boundary_figures.bracket_figure, dataset, f"{said.proof}. {said.headline}.", columns
        )
    if boundary_figures.comparable(found).any():
        drawn["trust"] = figure_pair(boundary_figures.trust_figure, dataset, f"{trusted}.", columns)
        # Its ticks are words, wider than numbers.
        drawn["trust"]["narrow"]["margin"]["l"] = 74
    if "feature_changed" in dataset and found.kind == "vector" and found.found.any():
        share = plain(np.asarray(dataset["feature_changed"].values, float).ravel())
        alt = f"{_features(dataset, found)['heading']}."
        numbered = {"feature": list(range(len(share))), "share_of_images": share}
        drawn["features"] = figure_pair(boundary_figures.features_figure, dataset, alt, numbered)
    return drawn


def _picture_caption(dataset: xr.Dataset, found: Boundary) -> str:
    values = points(dataset, "input")
    if found.kind != "picture":
        return ""
    low, high = images.value_range(str(dataset.attrs.get("space", "")), values)
    return images.picture(values[0], low, high)[1]


def _features(dataset: xr.Dataset, found: Boundary) -> dict[str, Any]:
    """Which features never change: a heading, and for pictures a map of the share of images in which each changes."""
    if "feature_changed" not in dataset or not found.found.any():
        return {}
    share = points(dataset, "feature_changed")
    never = int((share == 0).sum())
    threshold = float(dataset.attrs.get("change_threshold", 0.0))
    by_more = f" by more than {words.tidy(threshold)}" if threshold > 0 else ""
    noun = f"{found.noun}s"
    heading = f"Every {found.noun} changes on the way to some flip"
    if never:
        part = f"{words.tidy(100 * never / share.size, 2)}% of the {noun}"
        heading = f"{part} never change on the way to a flip"
    found_words = {"heading": heading, "by_more": by_more, "never": f"{never:,}", "n": f"{share.size:,}", "noun": noun}
    if found.kind != "picture":
        return found_words
    if share.ndim == 3 and share.shape[0] == 3:
        # Where a coloured picture changes is a place, whatever the colour.
        share = share.max(axis=0)
    drawn, _ = images.picture(share, 0.0, 1.0)
    moved, _ = images.picture(share > 0, 0.0, 1.0)
    ramp = plotly.colors.sample_colorscale("Viridis", list(np.linspace(0, 1, 256)))
    table = np.array([plotly.colors.unlabel_rgb(colour) for colour in ramp]).round().astype(np.uint8)
    colours = table[drawn]
    colours[moved == 0] = _NEVER
    return found_words | {"picture": images.data_uri(colours), "width": colours.shape[1], "height": colours.shape[0]}
