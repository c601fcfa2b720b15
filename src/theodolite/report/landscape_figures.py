"""The figures beside the graph: path, members in the plane, discovery, tuning and the phase diagram."""

from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import landscape
from theodolite.report.disconnectivity_figure import colour_groups, energy_title, marker_colours
from theodolite.report.figures import finish
from theodolite.report.landscape import Basins
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 78, "r": 24, "t": 20, "b": 56}
_MOST_POINTS = 4000


def path_figure(_: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """Energy along a path; empty traces that the page's script fills with the path between two chosen basins."""
    figure = go.Figure()
    figure.add_scatter(
        x=[], y=[], name="interval", mode="lines", fill="toself", fillcolor=theme.hatch, line={"width": 0}
    )
    figure.add_scatter(
        x=[], y=[], name="barrier", mode="lines", line={"color": theme.warning, "width": 1.4, "dash": "dash"}
    )
    figure.add_scatter(x=[], y=[], name="energy", mode="lines", line={"color": theme.accent, "width": 2})
    figure.add_scatter(
        x=[],
        y=[],
        name="minima",
        mode="markers+text",
        textposition="bottom center",
        textfont={"size": 12, "color": theme.muted},
        marker={"size": 8, "color": theme.paper, "line": {"color": theme.accent, "width": 2}},
    )
    figure.add_scatter(
        x=[],
        y=[],
        name="here",
        mode="markers",
        marker={"size": 12, "color": theme.warning, "line": {"color": theme.paper, "width": 1.5}},
    )
    figure.update_traces(hoverinfo="skip")
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "step of the path"}},
        yaxis={"title": {"text": "energy"}, "nticks": 6},
        margin=_MARGIN,
        height=290,
        hovermode=False,
    )
    return figure


def plane_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """Inputs of two numbers, or of one against the energy: members, minima and the path between two of them."""
    found = landscape.basins(dataset)
    figure = go.Figure()
    if "member_point" in dataset and dataset.sizes.get("member", 0):
        rows = some_members(dataset)
        x, y = _coordinates(dataset["member_point"].values[rows], dataset["member_energy"].values[rows])
        figure.add_scatter(
            x=x,
            y=y,
            name="members",
            mode="markers",
            marker={"size": 4, "opacity": 0.55, "color": _member_colours(dataset, found, rows, theme)},
            hoverinfo="skip",
        )
    figure.add_scatter(x=[], y=[], name="path", mode="lines", line={"color": theme.warning, "width": 2.4})
    groups, colours = colour_groups(found, theme)
    x, y = _coordinates(dataset["minimum_point"].values, found.energy)
    figure.add_scatter(
        x=x,
        y=y,
        name="minima",
        mode="markers+text" if len(found.energy) <= 40 else "markers",
        text=[str(minimum + 1) for minimum in range(len(found.energy))],
        textposition="top center",
        textfont={"size": 12, "color": theme.ink},
        customdata=list(range(len(found.energy))),
        marker={"size": 11, "line": {"color": theme.paper, "width": 1.5}}
        | marker_colours(found, groups, colours, theme),
        hovertemplate="basin %{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[],
        y=[],
        name="here",
        mode="markers",
        marker={"size": 14, "color": theme.warning, "symbol": "diamond", "line": {"color": theme.paper, "width": 1.5}},
        hoverinfo="skip",
    )
    finish(figure, theme)
    second = "second coordinate" if found.kind == "plane" else energy_title(dataset)
    figure.update_layout(
        xaxis={"title": {"text": "first coordinate" if found.kind == "plane" else "coordinate"}},
        yaxis={"title": {"text": second}},
        margin=_MARGIN,
        height=420,
        hovermode="closest",
    )
    return figure


def map_figure(dataset: xr.Dataset, name: str, theme: Theme = LIGHT) -> go.Figure:
    """The members in a plane, `name` being `member_embedding` or `member_latent`, coloured as the graph."""
    found = landscape.basins(dataset)
    rows = some_members(dataset)
    plane = np.asarray(dataset[name].values, float)[rows, :2]
    figure = go.Figure(
        go.Scatter(
            x=plane[:, 0].tolist(),
            y=plane[:, 1].tolist(),
            name="members",
            mode="markers",
            customdata=[int(k) for k in dataset["basin"].values[rows]],
            text=[found.name(int(k)).replace("<", "‹") for k in dataset["basin"].values[rows]],
            hovertemplate="%{text}<extra></extra>",
            marker={"size": 7, "opacity": 0.85, "color": _member_colours(dataset, found, rows, theme)},
        )
    )
    finish(figure, theme)
    latent = name == "member_latent"
    figure.update_layout(
        xaxis={"title": {"text": "first latent coordinate" if latent else "t-SNE, first axis (no unit)"}},
        yaxis={"title": {"text": "second latent coordinate" if latent else "t-SNE, second axis (no unit)"}},
        margin=_MARGIN,
        height=420,
        hovermode="closest",
    )
    return figure


def some_members(dataset: xr.Dataset) -> np.ndarray:
    """Members to draw: all, or 4,000 spread evenly over them."""
    n = int(dataset.sizes["member"])
    return np.arange(n) if n <= _MOST_POINTS else np.unique(np.linspace(0, n - 1, _MOST_POINTS).astype(int))


def _member_colours(dataset: xr.Dataset, found: Basins, rows: np.ndarray, theme: Theme) -> list[str]:
    groups, colours = colour_groups(found, theme)
    of_basin = marker_colours(found, groups, colours, theme)["color"]
    return [of_basin[int(k)] for k in dataset["basin"].values[rows]]


def _coordinates(points: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.asarray(points, float).reshape(len(points), -1)
    return flat[:, 0], flat[:, 1] if flat.shape[1] > 1 else np.asarray(energy, float)


def discovery_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """How many basins were known after each proposal: a curve that has gone flat has found what its method can."""
    known = np.asarray(dataset["discovered"].values, float)
    figure = go.Figure()
    figure.add_scatter(
        x=np.arange(1, len(known) + 1),
        y=known,
        mode="lines",
        line={"color": theme.accent, "width": 2, "shape": "hv"},
        hovertemplate="%{y:,.0f} known after %{x:,}<extra></extra>",
    )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "proposals"}},
        yaxis={"title": {"text": "basins known"}, "rangemode": "tozero"},
        margin=_MARGIN,
        height=300,
    )
    return figure


def tuning_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """What the settings were chosen from: energy along free chains at each temperature, basins found at each alpha."""
    figure = go.Figure()
    temperature = np.asarray(dataset["tune_temperature"].values, float)
    energy = np.asarray(dataset["tune_energy"].transpose("tune_temperature", "tune_step").values, float)
    for row, colour in zip(energy, _ramp(len(temperature), theme), strict=True):
        figure.add_scatter(
            x=np.arange(1, energy.shape[1] + 1),
            y=row,
            mode="lines",
            line={"color": colour, "width": 1.6},
            hoverinfo="skip",
        )
    for index in _labelled(energy[:, -1]):
        figure.add_annotation(
            x=energy.shape[1],
            y=energy[index, -1],
            text=f"T {temperature[index]:.3g}",
            showarrow=False,
            xanchor="left",
            font={"size": 11, "color": theme.muted},
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "step of a chain without magnetisation"}},
        yaxis={"title": {"text": "energy"}},
        margin={**_MARGIN, "r": 70},
        height=320,
        hovermode=False,
    )
    return figure


def alpha_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """How many basins a short mapping finds at each magnetisation alpha."""
    figure = go.Figure()
    figure.add_scatter(
        x=np.asarray(dataset["tune_alpha"].values, float),
        y=np.asarray(dataset["tune_basins"].values, float),
        mode="lines+markers",
        line={"color": theme.accent, "width": 2},
        marker={"size": 7},
        hovertemplate="%{y:,.0f} basins at α %{x:.3g}<extra></extra>",
    )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "magnetisation α (1 / distance)"}, "type": _axis_type(dataset["tune_alpha"].values)},
        yaxis={"title": {"text": "basins found"}, "rangemode": "tozero"},
        margin=_MARGIN,
        height=300,
    )
    return figure


def phase_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """The metastable border: the least alpha that reaches the other minimum, both ways, at each temperature."""
    temperature = np.asarray(dataset["phase_temperature"].values, float)
    border = np.asarray(dataset["phase_alpha"].transpose("phase_role", "phase_temperature").values, float)
    figure = go.Figure()
    for row, name, colour, symbol in zip(
        border, ("from the lower minimum", "from the higher"), theme.categories, ("circle", "square-open"), strict=False
    ):
        figure.add_scatter(
            x=temperature,
            y=row,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 7, "symbol": symbol},
            hovertemplate="α %{y:.3g} at T %{x:.3g}<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "temperature (units of the energy)"}, "type": _axis_type(temperature)},
        yaxis={"title": {"text": "least α that reaches the target"}},
        margin={**_MARGIN, "t": 40},
        height=340,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    )
    return figure


def _axis_type(values: np.ndarray) -> str:
    values = np.asarray(values, float)
    return "log" if len(values) > 2 and values.min() > 0 and values.max() > 30 * values.min() else "linear"


def _ramp(n: int, theme: Theme) -> list[Any]:
    return list(plotly.colors.sample_colorscale("Viridis", list(np.linspace(*theme.sequential, max(n, 2)))))[:n]


def _labelled(ends: np.ndarray) -> list[int]:
    """Curves whose ends lie far enough apart for their names to be read."""
    span = float(np.nanmax(ends) - np.nanmin(ends)) or 1.0
    kept: list[int] = []
    for index in np.argsort(ends):
        if np.isfinite(ends[index]) and (not kept or ends[index] - ends[kept[-1]] > 0.06 * span):
            kept.append(int(index))
    return kept
