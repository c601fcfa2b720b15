"""The units section of the page: everything its template shows, as plain strings and numbers; it needs no script."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import images, units_figures, words
from theodolite.report import units as numbers
from theodolite.report.boundary import point_kind
from theodolite.report.parts import common, figure_pair, plain
from theodolite.report.units import UnitFindings, percent

_ROWS = 10  # directions shown of each kind, evenly spread from the purest to the least pure
_PICTURES = 10
_MOST_UNITS = 500  # rows of the table
_KINDS = (("unit", "Units"), ("random", "Random directions"), ("principal", "Principal directions"))


def units_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark) and pictures; `key` makes its ids unique."""
    said = numbers.findings(dataset)
    kind = point_kind(np.asarray(dataset["shown_input"].values, float))
    columns = unit_columns(dataset)
    return common(dataset, key, f"What units mean (layer {dataset.attrs.get('layer', '')})") | {
        "template": "units.html.j2",
        "scripts": [],
        "styles": ["units.css"],
        "findings": said,
        "script": {},
        "drawn": _figures(dataset, said, columns),
        "kind": kind,
        "layer": str(dataset.attrs.get("layer", "")),
        "k": numbers.first_top(dataset),
        "n_images": f"{dataset.sizes['image']:,}",
        "n_units": f"{dataset.sizes['unit']:,}",
        "n_bases": f"{dataset.sizes['basis']:,}",
        "n_flips": f"{dataset.sizes['flip']:,}",
        "labels": numbers.labels_sentence(dataset),
        "positions": numbers.positions_sentence(dataset),
        "galleries": galleries(dataset, kind),
        "caption": _caption(dataset) if kind == "picture" else "",
        "comparisons": [_comparison(row) for row in numbers.comparisons(dataset)],
        "unit_heads": list(columns),
        "unit_rows": _unit_rows(columns),
    }


def galleries(dataset: xr.Dataset, kind: str) -> list[dict[str, Any]]:
    """The kinds of direction, each with rows of its most exciting inputs, the purest first."""
    place = {int(image): row for row, image in enumerate(dataset["shown_image"].values)}
    points = np.asarray(dataset["shown_input"].values, float)
    low, high = images.value_range(str(dataset.attrs.get("space", "")), points)
    label = np.asarray(dataset["label"].values, int)
    names = [str(name) for name in dataset["class_name"].values]
    found = []
    for name, heading in _KINDS:
        purity = np.asarray(dataset[f"{name}_purity"].values[:, 0], float)
        rows = []
        for direction in _spread(purity):
            image = [int(one) for one in dataset[f"{name}_image"].values[direction][:_PICTURES]]
            answers = [names[label[one]] for one in image]
            commonest = int(dataset[f"{name}_class"].values[direction, 0])
            row = {
                "name": _name(dataset, name, direction),
                "purity": f"{words.tidy(100 * float(purity[direction]))}%",
                "bar": f"{100 * float(np.nan_to_num(purity[direction])):.0f}",
                "class": names[commonest] if commonest >= 0 else "–",
                "answers": answers,
                "words": f"most exciting inputs, of the classes {', '.join(answers)}",
            }
            if kind == "picture":
                row |= _strip(points[[place[one] for one in image]], low, high)
            rows.append(row)
        n, mean = len(purity), float(np.nanmean(purity)) if np.isfinite(purity).any() else math.nan
        found.append({"heading": heading, "rows": rows, "mean": percent(mean), "n": f"{n:,}", "kind": name})
    return found


def unit_columns(dataset: xr.Dataset) -> dict[str, list[Any]]:
    """The numbers of every unit, a column a name, for the table and for a CSV file."""
    names = [str(name) for name in dataset["class_name"].values]
    columns: dict[str, list[Any]] = {"unit": list(range(dataset.sizes["unit"]))}
    for column, k in enumerate(dataset["top"].values):
        columns[f"purity of {k}"] = plain(np.asarray(dataset["unit_purity"].values[:, column], float))
        columns[f"entropy of {k} (nats)"] = plain(np.asarray(dataset["unit_entropy"].values[:, column], float))
    classes = np.asarray(dataset["unit_class"].values[:, 0], int)
    columns["commonest class"] = [names[one] if one >= 0 else "" for one in classes]
    columns["spread"] = plain(np.asarray(dataset["unit_spread"].values, float))
    if dataset.sizes["flip"]:
        columns["flip change / spread"] = plain(np.asarray(dataset["unit_change"].values, float))
        columns["noise change / spread"] = plain(np.asarray(dataset["unit_noise_change"].values, float))
        columns["share leaving"] = plain(np.asarray(dataset["unit_leaving"].values, float))
        columns["share leaving, low"] = plain(np.asarray(dataset["unit_leaving_low"].values, float))
        columns["share leaving, high"] = plain(np.asarray(dataset["unit_leaving_high"].values, float))
    return columns


def _figures(dataset: xr.Dataset, said: UnitFindings, columns: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    drawn = {}
    k = numbers.first_top(dataset)
    if units_figures.purity_figure(dataset) is not None:
        share = np.asarray(dataset["random_size_share"].values[:, 0, : k + 1], float)
        table: dict[str, list[Any]] = {"purity": [size / k for size in range(k + 1)]}
        for row, scaling in enumerate(dataset["scaling"].values):
            table[f"share of random directions, {scaling} units"] = plain(share[row])
        drawn["purity"] = figure_pair(units_figures.purity_figure, dataset, f"{said.headline}.", table)
    if units_figures.basis_figure(dataset) is not None:
        means = np.asarray(dataset["basis_mean"].values[:, :, 0, 0], float)
        table = {
            f"mean purity, {name} units": plain(means[:, row]) for row, name in enumerate(dataset["scaling"].values)
        }
        drawn["bases"] = figure_pair(units_figures.basis_figure, dataset, said.test, table)
    if units_figures.steadiness_figure(dataset) is not None:
        drawn["steadiness"] = figure_pair(units_figures.steadiness_figure, dataset, said.steadiness, columns)
    return drawn


def _comparison(row: numbers.Against) -> dict[str, str]:
    kind, _, scaling = row.other.partition(", ")
    value, low, high = (words.fixed(part, 2) for part in row.standardised)
    share, least, most = (percent(part) for part in row.exceeds)
    return {
        "other": f"{kind} directions, {scaling} units",
        "k": str(row.k),
        "units": percent(row.units),
        "others": percent(row.others),
        "p": words.number(row.p_value, 2),
        "effect": f"{value} ({low} to {high})",
        "exceeds": f"{share} ({least} to {most})",
    }


def _unit_rows(columns: dict[str, list[Any]]) -> list[list[str]]:
    rows = list(zip(*columns.values(), strict=True))[:_MOST_UNITS]
    return [[_cell(value) for value in row] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return words.number(value, 3) if isinstance(value, float) else str(value)


def _spread(purity: np.ndarray) -> list[int]:
    """Directions from the purest to the least pure, evenly spread; those without a top set are left out."""
    order = [
        int(one) for one in np.argsort(-np.nan_to_num(purity, nan=-1.0), kind="stable") if np.isfinite(purity[one])
    ]
    if len(order) <= _ROWS:
        return order
    return [order[round(place)] for place in np.linspace(0, len(order) - 1, _ROWS)]


def _name(dataset: xr.Dataset, kind: str, direction: int) -> str:
    if kind == "principal":
        explained = float(dataset["principal_explained"].values[direction])
        return f"{'−' if direction % 2 else '+'}{direction // 2 + 1} ({words.number(100 * explained, 2)}%)"
    return f"{kind} {direction}"


def _strip(points: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """The inputs side by side as one picture, a pixel of ground between them."""
    pixels = images.strip(points, low, high, len(points))
    return {"picture": images.data_uri(pixels), "width": pixels.shape[1], "height": pixels.shape[0]}


def _caption(dataset: xr.Dataset) -> str:
    points = np.asarray(dataset["shown_input"].values, float)
    low, high = images.value_range(str(dataset.attrs.get("space", "")), points)
    return images.picture(points[0], low, high)[1]
