"""The figures of units: how pure they are beside random directions and bases, and how far flips move each."""

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report.figures import finish
from theodolite.report.parts import add_key, error_bars
from theodolite.report.themes import LIGHT, Theme
from theodolite.report.units import first_top

_MARGIN = {"l": 74, "r": 24, "t": 44, "b": 58}
_MOST_BINS = 40


def purity_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Share of units, and of random directions (raw), by the purity of their first top set."""
    k = first_top(dataset)
    purity = np.asarray(dataset["unit_purity"].values[:, 0], float)
    purity = purity[np.isfinite(purity)]
    if not len(purity) or not dataset.sizes["basis"]:
        return None
    sizes = np.arange(k + 1)
    random = 100 * np.asarray(dataset["random_size_share"].values[0, 0, : k + 1], float)
    units = 100 * np.bincount(np.round(k * purity).astype(int), minlength=k + 1)[: k + 1] / len(purity)
    shown = (random > 0) | (units > 0)
    low = int(np.flatnonzero(shown)[0])
    figure = go.Figure()
    for name, share, colour in (
        ("units", units, theme.categories[0]),
        ("random directions", random, theme.categories[1]),
    ):
        figure.add_bar(
            x=(100 * sizes[low:] / k).tolist(),
            y=share[low:].tolist(),
            name=name,
            marker={"color": colour},
            hovertemplate="%{x:.0f}% pure: %{y:.1f}% of the " + name + "<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        barmode="group",
        bargap=0.25,
        bargroupgap=0.05,
        height=340,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": f"purity: commonest class among the {k} most exciting inputs (%)"}, "nticks": 11},
        yaxis={"title": {"text": "share (%)"}, "rangemode": "tozero"},
    )
    add_key(figure, [("■", theme.categories[0], "units"), ("■", theme.categories[1], "random directions")])
    return figure


def basis_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Mean purity of every random basis, raw and with standardised units, and that of the units' own."""
    means = np.asarray(dataset["basis_mean"].values[:, :, 0, 0], float)
    purity = np.asarray(dataset["unit_purity"].values[:, 0], float)
    if not len(means) or not np.isfinite(purity).any():
        return None
    own = 100 * float(np.nanmean(purity))
    values = 100 * means
    low, high = min(values.min(), own), max(values.max(), own)
    pad = 0.04 * max(high - low, 1.0)
    edges = np.linspace(low - pad, high + pad, _MOST_BINS + 1)
    figure = go.Figure()
    symbols = []
    for column, (name, colour) in enumerate(zip(dataset["scaling"].values, theme.categories, strict=True)):
        count = np.histogram(values[:, column], edges)[0]
        figure.add_scatter(
            x=((edges[1:] + edges[:-1]) / 2).tolist(),
            y=count.tolist(),
            name=str(name),
            mode="lines",
            line={"color": colour, "width": 2, "shape": "hvh", "dash": "solid" if column == 0 else "dot"},
            fill="tozeroy" if column == 0 else "none",
            fillcolor=theme.band,
            hovertemplate="%{y} bases near %{x:.1f}%<extra>" + str(name) + "</extra>",
        )
        symbols.append(("━" if column == 0 else "┅", colour, f"random bases, {name} units"))
    figure.add_vline(x=own, line={"color": theme.warning, "width": 2.5})
    finish(figure, theme)
    figure.update_layout(
        height=300,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": "mean purity over the directions of a basis (%)"}, "range": [edges[0], edges[-1]]},
        yaxis={"title": {"text": "random bases"}, "rangemode": "tozero"},
    )
    add_key(figure, [*symbols, ("┃", theme.warning, "the units")])
    return figure


def steadiness_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Mean change of every unit at the closest flip points, in its spread over the inputs, units in rising order."""
    change = np.asarray(dataset["unit_change"].values, float)
    known = np.flatnonzero(np.isfinite(change))
    if not len(known):
        return None
    order = known[np.argsort(change[known], kind="stable")]
    low, high = (np.asarray(dataset[f"unit_change_{end}"].values, float)[order] for end in ("low", "high"))
    place = list(range(1, len(order) + 1))
    figure = go.Figure()
    figure.add_scatter(
        x=place,
        y=change[order].tolist(),
        customdata=order.tolist(),
        name="flip points",
        mode="markers",
        marker={"size": 7 if len(order) <= 150 else 4, "color": theme.categories[0]},
        error_y=error_bars(change[order], low, high, theme.categories[0], 1, 0),
        hovertemplate="unit %{customdata}: %{y:.2f} of its spread<extra></extra>",
    )
    figure.add_scatter(
        x=place,
        y=np.asarray(dataset["unit_noise_change"].values, float)[order].tolist(),
        customdata=order.tolist(),
        name="noise",
        mode="markers",
        marker={
            "size": 7 if len(order) <= 150 else 4,
            "symbol": "x-thin",
            "line": {"width": 1.6, "color": theme.categories[1]},
        },
        hovertemplate="unit %{customdata}: %{y:.2f} of its spread under noise<extra></extra>",
    )
    finish(figure, theme)
    figure.update_layout(
        height=340,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": "units, least moved first"}, "range": [0, math.ceil(1.02 * len(order)) + 1]},
        yaxis={"title": {"text": "change / spread over the inputs"}, "rangemode": "tozero"},
    )
    marks = [("●", theme.categories[0], "flip points (95%)"), ("✕", theme.categories[1], "noise of the same length")]
    add_key(figure, marks)
    return figure
