"""The landscape section of the page: everything its template and its script show, as plain strings and numbers."""

import math
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import landscape, landscape_figures, words
from theodolite.report.disconnectivity_figure import (
    colour_groups,
    disconnectivity_figure,
    sorted_labels,
)
from theodolite.report.landscape import Basins
from theodolite.report.landscape_script import landscape_script
from theodolite.report.parts import checks, figure_pair, plain
from theodolite.report.themes import DARK, LIGHT

_MOST_ROWS = 500

_OF_MAP = {
    "member_latent": "the first two latent coordinates it was proposed from",
    "member_embedding": "t-SNE, which keeps near what is near and says nothing of far distances",
}


def landscape_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark), pictures and paths; `key` makes its ids unique."""
    if not dataset.sizes["minimum"]:
        return _empty(dataset, key)
    found = landscape.basins(dataset)
    said = landscape.findings(dataset, found)
    maps = [name for name in _OF_MAP if name in dataset and dataset.sizes.get("member", 0)]
    return {
        "key": key,
        "instrument": "landscape",
        "question": "What it remembers",
        "template": "landscape.html.j2",
        "scripts": ["tiles.js", "tree.js", "player.js", "landscape.js"],
        "styles": ["landscape.css"],
        "findings": said,
        "verdict": landscape.verdict(dataset),
        "verdict_sentence": str(dataset["verdict_sentence"].values),
        "unconverged": "",
        "method": str(dataset.attrs.get("method", "")),
        "observable": str(dataset.attrs.get("observable_sentence") or dataset.attrs.get("observable", "the energy")),
        "n": len(found.energy),
        "kind": found.kind,
        "image": found.image,
        "labels": _legend(found),
        "exact": bool(found.exact.any()),
        "intervals": bool((found.proven & ~found.exact).any()),
        "unproven": bool((np.isfinite(found.trunks.upper) & ~found.proven & ~found.exact).any()),
        "open": bool((found.trunks.joins < 0).sum() > 1),
        "counted": found.count is not None,
        "has_paths": "path_minimum" in dataset and dataset.sizes.get("path", 0) > 0,
        "drawn": _figures(dataset, found, said, maps),
        "maps": [{"name": name, "words": _OF_MAP[name]} for name in maps],
        "checks": checks(dataset),
        "rows": _basin_rows(found),
        "row_heads": ["basin", *(["label"] if found.label else []), *_heads(found)],
        "left_out": max(len(found.energy) - _MOST_ROWS, 0),
        "sets": [],
        "script": landscape_script(dataset, found),
    }


def _empty(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "instrument": "landscape",
        "question": "What it remembers",
        "template": "landscape_empty.html.j2",
        "scripts": [],
        "styles": [],
        "findings": landscape.LandscapeFindings(
            "No basin was found", ["No basin was found."], landscape.verdict_heading(dataset, 0, 0), ""
        ),
        "verdict": landscape.verdict(dataset),
        "verdict_sentence": str(dataset["verdict_sentence"].values),
        "unconverged": "",
        "observable": str(dataset.attrs.get("observable_sentence") or dataset.attrs.get("observable", "the energy")),
        "checks": checks(dataset),
        "drawn": {},
        "sets": [],
        "script": {},
    }


def _figures(
    dataset: xr.Dataset, found: Basins, said: landscape.LandscapeFindings, maps: list[str]
) -> dict[str, dict[str, Any]]:
    drawn = {"tree": figure_pair(disconnectivity_figure, dataset, said.figure, basin_columns(found))}
    # The script draws the numbers of the tree anew; the first sight of it is made by the same code.
    for theme in ("light", "dark"):
        for trace in drawn["tree"][theme]["data"]:
            if trace["name"] in ("bands", "stubs") or trace["name"].startswith("lines"):
                trace["x"], trace["y"] = [], []
    if "path_minimum" in dataset and dataset.sizes.get("path", 0):
        drawn["path"] = figure_pair(
            landscape_figures.path_figure, dataset, "Energy along the path between the two chosen basins.", {}
        )
    if found.kind in ("plane", "line"):
        alt = "Inputs in the plane: members, minima and the path between the two chosen basins."
        drawn["plane"] = figure_pair(landscape_figures.plane_figure, dataset, alt, {})
    for name in maps:
        alt = f"{int(dataset.sizes['member']):,} members in the plane, coloured as in the graph: by {_OF_MAP[name]}."
        draw = partial(_drawn_map, name=name)
        drawn[name] = figure_pair(draw, dataset, alt, _map_columns(dataset, name))
    if "discovered" in dataset:
        known = np.asarray(dataset["discovered"].values, float)
        drawn["discovery"] = figure_pair(
            landscape_figures.discovery_figure, dataset, _discovery_words(known), {"basins_known": plain(known)}
        )
    if "tune_energy" in dataset:
        drawn["tuning"] = figure_pair(
            landscape_figures.tuning_figure,
            dataset,
            "Energy along chains without magnetisation, a curve a temperature: too cold, and it falls and stays; "
            "too hot, and it leaves the low energies.",
            {
                f"T {temperature:.6g}": plain(row)
                for temperature, row in zip(
                    dataset["tune_temperature"].values,
                    np.asarray(dataset["tune_energy"].transpose("tune_temperature", "tune_step").values, float),
                    strict=True,
                )
            },
        )
    if "tune_basins" in dataset:
        columns = {"alpha": plain(dataset["tune_alpha"].values), "basins": plain(dataset["tune_basins"].values)}
        alt = (
            "Basins found in a short mapping against the magnetisation: few where it is strong, many where it is weak."
        )
        drawn["alpha"] = figure_pair(landscape_figures.alpha_figure, dataset, alt, columns)
    if "phase_alpha" in dataset:
        drawn["phase"] = figure_pair(landscape_figures.phase_figure, dataset, _phase_words(dataset), _phase(dataset))
    return drawn


def _drawn_map(dataset: xr.Dataset, theme: Any, name: str) -> Any:
    return landscape_figures.map_figure(dataset, name, theme)


def basin_columns(found: Basins) -> dict[str, list[Any]]:
    """The numbers of the graph, a row a basin, for a CSV file; empty where there is none."""
    ends = found.trunks
    columns: dict[str, list[Any]] = {
        "basin": [minimum + 1 for minimum in range(len(found.energy))],
        "energy": found.energy.tolist(),
    }
    if found.label is not None:
        columns["label"] = list(found.label)
    if found.count is not None:
        columns["members"] = [int(value) for value in found.count]
    nearest = found.nearest
    row = np.arange(len(nearest))
    known = nearest >= 0
    return columns | {
        "joins_basin": [int(value) + 1 if value >= 0 else None for value in ends.joins],
        "joins_at_lower_bound": plain(ends.lower),
        "joins_at_upper_bound": plain(ends.upper),
        "nearest_basin": [int(value) + 1 if value >= 0 else None for value in nearest],
        "barrier_lower_bound": plain(np.where(known, found.lower[row, nearest], np.nan)),
        "barrier_upper_bound": plain(np.where(known, found.upper[row, nearest], np.nan)),
    }


def _heads(found: Basins) -> list[str]:
    return ["energy", *(["members"] if found.count is not None else []), "depth", "nearest", "barrier", "above it"]


def _basin_rows(found: Basins) -> list[list[str]]:
    nearest, rows = found.nearest, []
    for minimum in range(min(len(found.energy), _MOST_ROWS)):
        near = int(nearest[minimum])
        depth = float(found.trunks.depth[minimum])
        energy = float(found.energy[minimum])
        row = [str(minimum + 1), *([found.label[minimum]] if found.label else []), found.written(energy)]
        row += [f"{int(found.count[minimum]):,}"] if found.count is not None else []
        row += [found.written(depth) if math.isfinite(depth) else "–", str(near + 1) if near >= 0 else "–"]
        levels = (
            [found.level(minimum, near), found.level(minimum, near, energy)] if near >= 0 else ["no path known", "–"]
        )
        rows.append(row + levels)
    return rows


def _legend(found: Basins) -> list[dict[str, str]]:
    if found.label is None:
        return []
    light, dark = (colour_groups(found, theme)[1] for theme in (LIGHT, DARK))
    return [
        {"name": name, "light": one, "dark": other, "count": str(found.label.count(name))}
        for name, one, other in zip(sorted_labels(found), light, dark, strict=True)
    ]


def _map_columns(dataset: xr.Dataset, name: str) -> dict[str, list[Any]]:
    plane = np.asarray(dataset[name].values, float)
    columns: dict[str, list[Any]] = {"first": plain(plane[:, 0]), "second": plain(plane[:, 1])}
    columns["basin"] = [int(value) + 1 for value in dataset["basin"].values]
    if "member_energy" in dataset:
        columns["energy"] = plain(np.asarray(dataset["member_energy"].values, float))
    return columns


def _discovery_words(known: np.ndarray) -> str:
    last = int(np.argmax(known >= known[-1])) + 1
    text = f"{int(known[-1]):,} basins are known after {len(known):,} proposals"
    return f"{text}; the last new one came at proposal {last:,}."


def _phase_words(dataset: xr.Dataset) -> str:
    border = np.asarray(dataset["phase_alpha"].transpose("phase_role", "phase_temperature").values, float)
    temperature = np.asarray(dataset["phase_temperature"].values, float)
    cold = np.isfinite(border).all(axis=0)
    text = "Least magnetisation that carries a chain from one minimum to the other, both ways, against the temperature"
    if cold.any() and not cold.all():
        top = words.number(float(temperature[cold].max()), 3)
        return f"{text}. Above the temperature {top} the two are not held apart: a chain reaches the other unaided."
    return text + "."


def _phase(dataset: xr.Dataset) -> dict[str, list[Any]]:
    border = np.asarray(dataset["phase_alpha"].transpose("phase_role", "phase_temperature").values, float)
    columns = {"temperature": plain(dataset["phase_temperature"].values)}
    return columns | {
        f"alpha {name}": plain(row) for name, row in zip(("from the lower", "from the higher"), border, strict=False)
    }
