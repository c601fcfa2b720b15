"""The numbers behind the figures of what was learned, as columns of CSV files; `runs` are the rows of the Dataset."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import learning, learning_figures
from theodolite.report.parts import plain

_MOST_ROWS = 10_000  # lines of a file of the traces


def _padded(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    longest = max((len(values) for values in columns.values()), default=0)
    return {name: [*values, *[None] * (longest - len(values))] for name, values in columns.items()}


def energy_columns(dataset: xr.Dataset, runs: list[str]) -> dict[str, list[Any]]:
    """Energies of the points, a column a row of the Dataset."""
    return _padded({f"{run} (nats)": plain(learning.energies(dataset, run)) for run in runs})


def point_columns(dataset: xr.Dataset, runs: list[str]) -> dict[str, list[Any]]:
    """Points of two coordinates."""
    pairs = {run: learning.points(dataset, run) for run in runs}
    return _padded(
        {f"{run}, coordinate {axis + 1}": plain(points[:, axis]) for run, points in pairs.items() for axis in (0, 1)}
    )


def long_run_columns(dataset: xr.Dataset, runs: list[str]) -> dict[str, list[Any]]:
    """Energies along the long runs."""
    columns = {"step": plain(np.asarray(dataset["trace_step"].values, float))}
    for place, run in enumerate(runs):
        for name, head in (("", "mean"), ("_low", "10% quantile"), ("_high", "90% quantile")):
            if f"trace_energy{name}" in dataset:
                values = dataset[f"trace_energy{name}"].transpose("run", "step").values[place]
                columns[f"{run}, {head}"] = plain(np.asarray(values, float))
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def class_columns(dataset: xr.Dataset, runs: list[str]) -> dict[str, list[Any]]:
    """Shares of the classes and their intervals."""
    columns: dict[str, list[Any]] = {"class": [str(name) for name in dataset["class_name"].values]}
    for name, head in (("", "share"), ("_low", "low"), ("_high", "high")):
        shares = learning_figures.class_shares(dataset, name)
        columns |= {f"{run}, {head}": plain(shares[place]) for place, run in enumerate(runs)}
    return columns


def density_columns(dataset: xr.Dataset, _runs: list[str]) -> dict[str, list[Any]]:
    """Both densities on a coarser grid, a line a point."""
    first, second = (np.asarray(dataset[f"plane_{axis}"].values, float) for axis in (0, 1))
    stride = [max(1, math.ceil(len(axis) / 100)) for axis in (first, second)]
    grid = np.meshgrid(first[:: stride[0]], second[:: stride[1]], indexing="ij")
    columns = {"coordinate 1": plain(grid[0].ravel()), "coordinate 2": plain(grid[1].ravel())}
    for name, head in (("log_density", "ln learned density"), ("true_log_density", "ln true density")):
        if name in dataset:
            values = np.asarray(dataset[name].transpose("axis_0", "axis_1").values, float)
            columns[head] = plain(values[:: stride[0], :: stride[1]].ravel())
    return columns


def trace_columns(dataset: xr.Dataset, _runs: list[str]) -> dict[str, list[Any]]:
    """The traces of the training; of many updates every few."""
    n = dataset.sizes["update"]
    kept = np.arange(0, n, max(1, math.ceil(n / _MOST_ROWS)))
    names = ("energy_difference", "langevin_gradient", "acceptance", "step_size", "learning_rate", "optimiser")
    columns: dict[str, list[Any]] = {"update": kept.tolist()}
    return columns | {name: plain(np.asarray(dataset[name].values, float)[kept]) for name in names if name in dataset}


def correlation_columns(dataset: xr.Dataset, _runs: list[str]) -> dict[str, list[Any]]:
    """The correlations of the traces."""
    columns: dict[str, list[Any]] = {"lag": list(range(dataset.sizes["lag"]))}
    for name, head in (("energy_difference_correlation", "d"), ("langevin_gradient_correlation", "r")):
        if name in dataset:
            columns[f"{head} with itself"] = plain(np.asarray(dataset[name].values, float))
    if "cross_correlation" in dataset:
        columns["lag of r behind d"] = plain(np.asarray(dataset["signed_lag"].values, float))
        columns["d with r"] = plain(np.asarray(dataset["cross_correlation"].values, float))
    return _padded(columns)


def lyapunov_columns(dataset: xr.Dataset, _runs: list[str]) -> dict[str, list[Any]]:
    """Exponents and their intervals."""
    values = [learning.exponent(dataset, place) for place in range(dataset.sizes["noise_scale"])]
    return {
        "noise_scale": plain(np.asarray(dataset["noise_scale"].values, float)),
        "exponent": plain(np.array([one.value for one in values])),
        "low": plain(np.array([one.low for one in values])),
        "high": plain(np.array([one.high for one in values])),
    }
