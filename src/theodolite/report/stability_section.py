"""The stability section of the page: everything its template and its script show, as plain strings and numbers."""

from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import images, sheets, stability_figures, words
from theodolite.report import stability as numbers
from theodolite.report.boundary_script import points
from theodolite.report.changes import bars, change_sheet
from theodolite.report.parts import common, figure_pair, plain
from theodolite.report.stability import Stability, between, percent
from theodolite.report.themes import DARK, LIGHT

_MOST_PAIRS = 6
_MOST_BARS = 6
_FULL_TINT = 46
_MOST_FAILED = 200


def stability_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark) and pictures; `key` makes its ids unique."""
    found = numbers.stability(dataset)
    said = numbers.findings(dataset, found)
    pairs = example_pairs(dataset, found)
    return common(dataset, key, "How little fools each network, and whether it fools the others") | {
        "template": "stability.html.j2",
        "scripts": ["tiles.js", "changes.js", "stability.js"],
        "styles": ["stability.css"],
        "findings": said,
        "walked": str(dataset.attrs.get("method", "")).startswith("boundary walk"),
        "names": found.names,
        "groups": transfer_groups(found),
        "networks": network_rows(dataset, found),
        "pairs": pairs["rows"],
        "kind": found.shape_kind,
        "caption": pairs["caption"],
        "colours": pairs["script"]["colours"],
        "failed": failed_rows(dataset, found),
        "interval_rows": interval_rows(found),
        "drawn": _figures(dataset, found, said),
        "script": pairs["script"],
    }


def transfer_groups(found: Stability) -> list[dict[str, Any]]:
    """The heat map: rows in groups of a kind and strength, cells of percent, count, interval and tint."""
    groups: list[dict[str, Any]] = []
    for row in range(len(found.kind)):
        kind, stated = str(found.kind[row]), float(found.stated[row])
        title = {
            "minimal": "examples as made, just enough to fool their network",
            "amplified": f"the same amplified to a distortion of {words.tidy(stated)}",
            "noise": "Gaussian noise",
        }[kind]
        if not groups or groups[-1]["title"] != title:
            groups.append({"title": title, "rows": []})
        name = f"standard deviation {words.tidy(stated)}" if kind == "noise" else found.names[found.made_for[row]]
        groups[-1]["rows"].append(
            {
                "name": name if kind == "noise" else f"made for {name}",
                "distortion": words.number(float(found.spread[row, 0])),
                "distortion_interval": between(found.spread[row]),
                "cells": [_cell(found, row, k) for k in range(len(found.names))],
            }
        )
    return groups


def _cell(found: Stability, row: int, network: int) -> dict[str, Any]:
    share, count = float(found.share[row, network]), int(found.count[row, network])
    interval = np.array([share, found.low[row, network], found.high[row, network]])
    told = f"{found.row_words(row)}, tested on {found.names[network]}: {percent(share)} of {count:,} inputs"
    return {
        "text": percent(share),
        "count": f"of {count:,}",
        "own": int(found.made_for[row]) == network,
        "tint": 0 if np.isnan(share) else round(_FULL_TINT * share),
        "title": f"{told}; 95% interval {between(interval, 'percent')}" if count else f"{told}: none counted",
    }


def network_rows(dataset: xr.Dataset, found: Stability) -> list[dict[str, str]]:
    """A row a network: test error and mean distortion with their intervals, attacks, and what they cost."""
    units = np.asarray(dataset["units"].transpose("network", "image").values, float)
    rows = []
    for k, name in enumerate(found.names):
        tried = ~np.isnan(found.distortion[k])
        rows.append(
            {
                "name": name,
                "error": percent(float(found.error[k, 0])),
                "error_interval": between(found.error[k], "percent"),
                "found": f"{int(found.found[k].sum()):,} of {int(tried.sum()):,}",
                "mean": words.number(float(found.mean[k, 0])),
                "mean_interval": between(found.mean[k]),
                "median": words.number(float(np.median(found.distortion[k][tried])) if tried.any() else np.nan),
                "units": f"{int(np.median(units[k][tried])):,}" if tried.any() else "–",
            }
        )
    return rows


def interval_rows(found: Stability) -> list[list[str]]:
    """Every entry of the matrix in full."""
    return [
        [
            found.row_words(row),
            found.names[k],
            percent(float(found.share[row, k])),
            between(np.array([found.share[row, k], found.low[row, k], found.high[row, k]]), "percent"),
            f"{int(found.count[row, k]):,}",
        ]
        for row in range(len(found.kind))
        for k in range(len(found.names))
    ]


def failed_rows(dataset: xr.Dataset, found: Stability) -> list[tuple[str, str, str]]:
    """Attacks that found nothing: network, image, and what came of it in words."""
    outcome = dataset["outcome"].transpose("network", "image").values.astype(str)
    lost = np.argwhere(np.char.startswith(outcome, "not found"))[:_MOST_FAILED]
    return [(found.names[k], str(image), str(outcome[k, image])) for k, image in lost.tolist()]


def example_pairs(dataset: xr.Dataset, found: Stability) -> dict[str, Any]:
    """A few inputs, spread evenly over the mean distortion, and for every network the example made of each."""
    values = np.nan_to_num(points(dataset, "input"))
    example = points(dataset, "example")
    low, high = images.value_range(str(dataset.attrs.get("space", "")), values)
    spread = high - low if high > low else 1.0
    shown = shown_images(found)
    label = np.asarray(dataset["label"].values, int)
    reached = np.asarray(dataset["example_class"].transpose("network", "image").values, int)
    changes, rows = [], []
    for place, image in enumerate(map(int, shown)):
        cells: list[dict[str, Any]] = []
        for k, name in enumerate(found.names):
            if not found.found[k, image]:
                cells.append({"network": name, "change": None})
                continue
            changes.append(example[k, image] - values[image])
            cells.append(
                {
                    "network": name,
                    "change": len(changes) - 1,
                    "flip": f"→ {found.name_of_class(int(reached[k, image]))}",
                    "distortion": words.number(float(found.distortion[k, image])),
                    "bars": [] if found.shape_kind == "picture" else bars(changes[-1], values[image], _MOST_BARS),
                }
            )
        rows.append({"image": image, "place": place, "label": found.name_of_class(int(label[image])), "cells": cells})
    picture = found.shape_kind == "picture" and bool(changes)
    inputs = sheets.sheet(values[shown], low, high) if picture else None
    drawn = change_sheet(np.array(changes), spread) if picture else None
    script = {
        "pairs": rows,
        "inputs": inputs.plain() if inputs else None,
        "changes": drawn.plain() if drawn else None,
        "spread": spread,
        "coloured": picture and values.ndim == 4 and values.shape[1] == 3,
        "colours": {
            "light": [LIGHT.paper, *LIGHT.categories],
            "dark": [DARK.paper, *DARK.categories],
        },
    }
    return {"rows": rows, "caption": inputs.caption if inputs else "", "script": script}


def shown_images(found: Stability) -> np.ndarray:
    """Images with an example for most networks, spread evenly from the nearest to the farthest."""
    known = found.found.sum(axis=0)
    candidates = np.flatnonzero(known == known.max(initial=0)) if known.any() else np.empty(0, int)
    if not len(candidates):
        return candidates
    mean = np.where(found.found, found.distortion, 0.0)[:, candidates].sum(axis=0)
    order = candidates[np.argsort(mean, kind="stable")]
    return order[np.unique(np.linspace(0, len(order) - 1, min(_MOST_PAIRS, len(order))).astype(int))]


def _figures(dataset: xr.Dataset, found: Stability, said: numbers.StabilityFindings) -> dict[str, dict[str, Any]]:
    if not found.found.any():
        return {}
    order = [(k, image) for k in range(len(found.names)) for image in np.argsort(found.distortion[k], kind="stable")]
    known = [(k, image) for k, image in order if not np.isnan(found.distortion[k, image])]
    columns: dict[str, list[Any]] = {
        "network": [found.names[k] for k, _ in known],
        "image": [int(image) for _, image in known],
        "distortion": plain(np.array([found.distortion[k, image] for k, image in known])),
        "outcome": [str(dataset["outcome"].values[k, image]) for k, image in known],
    }
    drawn = {
        "distortions": figure_pair(stability_figures.distortion_figure, dataset, f"{said.headline}.", columns),
    }
    if stability_figures.noise_panels(found):
        drawn["noise"] = figure_pair(
            stability_figures.noise_figure, dataset, f"{said.transfer}. {said.noise}.", matrix_columns(found)
        )
        # Its ticks are names, wider than numbers.
        drawn["noise"]["narrow"]["margin"]["l"] = drawn["noise"]["light"]["layout"]["margin"]["l"] // 2 + 40
    return drawn


def matrix_columns(found: Stability) -> dict[str, list[Any]]:
    """The transfer matrix, an entry a line, for a CSV file."""
    pairs = [(row, k) for row in range(len(found.kind)) for k in range(len(found.names))]
    at = tuple(np.array(part) for part in zip(*pairs, strict=True))
    return {
        "row": [found.row_words(row) for row, _ in pairs],
        "row_distortion": plain(found.spread[at[0], 0]),
        "tested_on": [found.names[k] for _, k in pairs],
        "share_fooled": plain(found.share[at]),
        "low": plain(found.low[at]),
        "high": plain(found.high[at]),
        "inputs_counted": found.count[at].tolist(),
    }
