"""The density section of the page: everything its template shows, as plain strings and numbers."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import density, figures, images, words
from theodolite.report.ladder_figure import agreement_figure, ladder_names
from theodolite.report.parts import checks, figure_pair, plain
from theodolite.report.themes import DARK, LIGHT, set_styles


def density_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark) and pictures; `key` makes its ids unique."""
    line = density.curve(dataset)
    found = density.findings(dataset)
    pictures = images.gallery(dataset)
    drawn = {"density": figure_pair(figures.density_figure, dataset, found.figure, curve_columns(dataset, line))}
    agreement = agreement_figure(dataset)
    if agreement is not None:
        drawn["agreement"] = figure_pair(agreement_figure, dataset, _agreement_words(dataset), rung_columns(dataset))
    gallery = _gallery(dataset, line, pictures)
    return {
        "key": key,
        "instrument": "density",
        "question": "How many inputs give which answer",
        "template": "density.html.j2",
        "scripts": ["density.js"],
        "styles": [],
        "findings": found,
        "verdict": density.verdict(dataset),
        "verdict_sentence": str(dataset["verdict_sentence"].values) if "verdict_sentence" in dataset else "",
        "unconverged": density.where_unconverged(line),
        "exact": density.verdict(dataset) == "exact",
        "ceiling": line.everything,
        "what": "the number of inputs" if line.discrete else "the volume of inputs",
        "method": str(dataset.attrs.get("method", "")),
        "starts": ladder_names(dataset) if "ladder" in dataset.sizes else [],
        "n_rungs": int(dataset.sizes.get("rung", 0)),
        "observable": str(dataset.attrs.get("observable_sentence") or dataset.attrs.get("observable", "the output")),
        "odds": str(dataset.attrs.get("probability", "")) == "sigmoid",
        "drawn": drawn,
        "sets": _sets(dataset, line),
        "many_sets": figures.many_sets(dataset),
        "checks": checks(dataset),
        "gallery": gallery,
        "script": {"gallery": gallery},
        "level_table": curve_columns(dataset, line),
        "level_rows": _rows(_level_cells(dataset, line)),
        "level_heads": list(_level_cells(dataset, line)),
        "rung_rows": _rows(_rung_cells(dataset)),
        "rung_heads": list(_rung_cells(dataset)),
        "round_trips": _round_trips(dataset),
    }


def curve_columns(dataset: xr.Dataset, line: density.Curve) -> dict[str, list[Any]]:
    """The numbers of the density figure, a column a name, for a CSV file; empty where unknown."""
    columns: dict[str, list[Any]] = {
        "level": line.level.tolist(),
        "level_low": line.edges[:-1].tolist(),
        "level_high": line.edges[1:].tolist(),
        "log_density_of_states_nats": plain(line.log_count),
        "log_density_error_nats": plain(line.error),
        "log_density_of_states_per_unit_nats": plain(line.log_count_per_unit),
        "log10_fraction_of_all_inputs": plain(line.log_fraction / words.LN10),
        "level_converged": [int(value) for value in line.converged],
    }
    if "n_samples" in dataset:
        columns["n_samples"] = [int(value) for value in dataset["n_samples"].values]
    if "data_histogram" in dataset:
        for name in dataset["data_set"].values:
            counts = dataset["data_histogram"].sel(data_set=name).values
            columns[f"inputs of {name}"] = [int(value) for value in counts]
    return columns


def rung_columns(dataset: xr.Dataset) -> dict[str, list[Any]]:
    """The numbers of the rungs, a column a name, for a CSV file."""
    columns: dict[str, list[Any]] = {}
    for name in (
        "rung_lambda",
        "rung_log_partition",
        "swap_rate",
        "acceptance",
        "autocorrelation_time",
        "fluctuation_ratio",
    ):
        if name in dataset and dataset[name].dims == ("rung",):
            columns[name] = plain(np.asarray(dataset[name].values, float))
    for name in ("rung_mean", "rung_variance"):
        if name in dataset:
            rows = np.asarray(dataset[name].transpose("ladder", "rung").values, float)
            for start, row in zip(ladder_names(dataset), rows, strict=True):
                columns[f"{name} from {start}"] = plain(row)
    return columns


def _level_cells(dataset: xr.Dataset, line: density.Curve) -> dict[str, list[str]]:
    decimals = words.decimals_for(float(np.median(np.diff(line.edges))))
    cells = {
        "output": [
            f"{words.fixed(low, decimals)} to {words.fixed(high, decimals)}"
            for low, high in zip(line.edges[:-1], line.edges[1:], strict=True)
        ],
        "ln count (nats)": [words.fixed(value, 2) for value in line.log_count],
        "standard error (nats)": [
            words.fixed(value, 2) if finite else words.fixed(math.nan, 2)
            for value, finite in zip(line.error, line.finite, strict=True)
        ],
        "log₁₀ share of all inputs": [words.fixed(value / words.LN10, 2) for value in line.log_fraction],
    }
    if "n_samples" in dataset:
        cells["samples"] = [f"{int(value):,}" for value in dataset["n_samples"].values]
    cells["converged"] = [
        "not reached" if np.isnan(count) else "empty" if np.isneginf(count) else "yes" if good else "no"
        for count, good in zip(line.log_count, line.converged, strict=True)
    ]
    return cells


def _rung_cells(dataset: xr.Dataset) -> dict[str, list[str]]:
    if "rung_lambda" not in dataset:
        return {}
    cells = {"λ (1 / output)": [words.number(float(value), 4) for value in dataset["rung_lambda"].values]}
    if "rung_mean" in dataset:
        mean = np.nanmean(np.asarray(dataset["rung_mean"].transpose("ladder", "rung").values, float), axis=0)
        cells["mean output"] = [words.fixed(value, 2) for value in mean]
    for name, head, decimals in (
        ("swap_rate", "exchanges accepted", 2),
        ("acceptance", "proposals accepted", 2),
        ("autocorrelation_time", "autocorrelation time (steps)", 1),
        ("fluctuation_ratio", "variance / slope", 2),
    ):
        if name in dataset and dataset[name].dims == ("rung",):
            cells[head] = [words.fixed(value, decimals) for value in np.asarray(dataset[name].values, float)]
    return cells


def _rows(cells: dict[str, list[str]]) -> list[tuple[str, ...]]:
    return list(zip(*cells.values(), strict=True))


def _round_trips(dataset: xr.Dataset) -> str:
    if "round_trips" not in dataset:
        return ""
    trips = [int(value) for value in np.atleast_1d(dataset["round_trips"].values)]
    starts = ladder_names(dataset)
    return words.listing([f"{count} from {start}" for count, start in zip(trips, starts, strict=True)])


def _sets(dataset: xr.Dataset, line: density.Curve) -> list[dict[str, str]]:
    if "data_set" not in dataset.coords:
        return []
    names = [str(name) for name in dataset["data_set"].values]
    histogram = np.asarray(dataset["data_histogram"].transpose("data_set", "level").values, float)

    def column(name: str) -> np.ndarray:
        return np.asarray(dataset[name].values, float) if name in dataset else np.full(len(names), math.nan)

    rarity, distance, squared = (
        column("data_rarity"),
        column("noise_distance"),
        column("noise_squared_distance"),
    )
    rows = []
    for index, (name, light, dark) in enumerate(
        zip(names, set_styles(names, LIGHT), set_styles(names, DARK), strict=True)
    ):
        counts = histogram[index]
        total = counts.sum()
        middle = line.level[np.searchsorted(np.cumsum(counts), total / 2)] if total else math.nan
        rows.append(
            {
                "name": name,
                "light": light.colour,
                "dark": dark.colour,
                "dash": light.dash,
                "count": f"{int(total):,}",
                "median": words.number(float(middle)),
                "rarity": words.number(float(rarity[index]), 4),
                "odds": f"{words.size(float(rarity[index]))} to 1" if math.isfinite(rarity[index]) else "–",
                "distance": words.number(float(distance[index]), 3),
                "squared": words.number(float(squared[index]), 3),
            }
        )
    return rows


def _gallery(dataset: xr.Dataset, line: density.Curve, pictures: images.Gallery | None) -> dict[str, Any]:
    decimals = words.decimals_for(float(np.median(np.diff(line.edges))))
    odds = str(dataset.attrs.get("probability", "")) == "sigmoid"
    names = density.class_names(dataset)
    readouts = []
    for index in range(len(line.level)):
        count, error = float(line.log_count[index]), float(line.error[index])
        rows = []
        if math.isnan(count):
            rows.append(("inputs", "not reached"))
        elif count == -math.inf:
            rows.append(("inputs", "none: proven empty"))
        else:
            amount = _count_words(count) if line.discrete else words.number(count, 4)
            rows.append(("inputs here" if line.discrete else "ln volume", amount))
            rows.append(("error (95%)", f"± {words.number(1.96 * error, 2)} nats" if error > 0 else "exact"))
            rows.append(("of all inputs", words.share(count - line.log_volume)))
            if odds and names:
                rows.append((f"probability of {names[0]}", words.probability(float(line.level[index]))))
            rows.append(("converged", "yes" if line.converged[index] else "no"))
        low, high = (words.fixed(float(edge), decimals) for edge in line.edges[index : index + 2])
        readouts.append({"title": f"output {low} to {high}", "rows": rows})
    shown = pictures.outputs if pictures else [[] for _ in line.level]
    return {
        "levels": line.level.tolist(),
        "finite": [bool(value) for value in line.finite],
        "start": int(np.argmax(np.where(line.finite, line.log_count, -np.inf))),
        "sprites": pictures.sprites if pictures else [],
        "outputs": [[words.fixed(value, decimals + 1) for value in row] for row in shown],
        "tile": [pictures.tile_width, pictures.tile_height] if pictures else [1, 1],
        "caption": pictures.caption if pictures else "",
        "readouts": readouts,
    }


def _count_words(log_count: float) -> str:
    if log_count < math.log(1e6):
        return words.size(log_count)
    return f"{words.power('e', round(log_count))} = {words.size(log_count)}"


def _agreement_words(dataset: xr.Dataset) -> str:
    mean = np.asarray(dataset["rung_mean"].transpose("ladder", "rung").values, float)
    variance = np.asarray(dataset["rung_variance"].transpose("ladder", "rung").values, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (np.nanmax(mean, axis=0) - np.nanmin(mean, axis=0)) / np.sqrt(np.nanmean(variance, axis=0))
    starts = words.listing(ladder_names(dataset))
    largest, median = (words.number(float(value), 2) for value in (np.nanmax(gap), np.nanmedian(gap)))
    return (
        f"Mean outputs of the ladders started from {starts}, rung by rung: the largest difference between "
        f"two of them is {largest} standard deviations of the output, the median one {median}."
    )
