"""The disconnectivity graph as a plotly figure: energy upward, a trunk a basin, intervals as bands."""

from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import landscape
from theodolite.report.figures import finish
from theodolite.report.landscape import Basins
from theodolite.report.themes import LIGHT, Theme, set_styles
from theodolite.report.tree_lines import band_lines, stub_lines, trunk_lines

TREE_MARGIN = {"l": 78, "r": 24, "t": 16, "b": 18}
# The page's script draws circles by the same rule when basins are left out.
_MANY = 60
_LONGEST_TITLE = 64
_SMALLEST, _LARGEST = (5.0, 3.0), (30.0, 11.0)


def disconnectivity_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """Which basins are joined below each energy.

    y is the energy in the unit of the observable. A trunk rises from each minimum to the level where it meets a lower
    one; a band spans the proven lower and the found upper bound where they differ, and a triangle points down from a
    barrier that is only bounded from above. Circles grow in area with the
    number of members. Colours are the labels, or the energy where there are none.
    """
    return tree_figure(landscape.basins(dataset), energy_title(dataset), theme)


def energy_title(dataset: xr.Dataset) -> str:
    """The observable in words, for an axis: its name alone where the words are too long for one."""
    sentence = str(dataset.attrs.get("observable_sentence", "") or "energy")
    title = sentence if sentence.startswith("energy") else f"energy: {sentence}"
    if len(title) <= _LONGEST_TITLE:
        return title
    name = str(dataset.attrs.get("observable", "energy"))
    return name if name.startswith("energy") else f"energy: {name}"


def tree_figure(found: Basins, title: str, theme: Theme) -> go.Figure:
    """The graph of basins already read; the page's script redraws its traces by their names."""
    ends, n = found.trunks, len(found.energy)
    place = np.empty(n)
    place[ends.order] = np.arange(n)
    low, high = energy_range(found)
    figure = go.Figure()
    x, y = band_lines(ends, place, np.flatnonzero(found.proven & ~found.exact))
    figure.add_scatter(
        x=x,
        y=y,
        name="bands",
        mode="lines",
        fill="toself",
        fillcolor=theme.hatch,
        opacity=0.55,
        line={"width": 0},
        hoverinfo="skip",
    )
    figure.add_scatter(x=[], y=[], name="faded", mode="lines", line={"color": theme.grid, "width": 1}, hoverinfo="skip")
    groups, colours = colour_groups(found, theme)
    for group, colour in enumerate(colours):
        x, y = trunk_lines(ends, place, np.flatnonzero(groups == group))
        figure.add_scatter(
            x=x,
            y=y,
            name=f"lines {group}",
            mode="lines",
            line={"color": colour, "width": 0.6 if n > _MANY else 1.8},
            opacity=0.6 if n > _MANY else 1.0,
            hoverinfo="skip",
        )
    x, y = stub_lines(ends, place, high)
    dash = "dot" if int((ends.joins < 0).sum()) > 1 else "solid"
    figure.add_scatter(
        x=x, y=y, name="stubs", mode="lines", line={"color": theme.muted, "width": 1.2, "dash": dash}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=[], y=[], name="chosen", mode="lines", line={"color": theme.warning, "width": 2.6}, hoverinfo="skip"
    )
    open_below = np.flatnonzero(np.isfinite(ends.upper) & ~found.proven & ~found.exact)
    figure.add_scatter(
        x=place[open_below],
        y=ends.upper[open_below],
        name="limits",
        mode="markers",
        marker={"symbol": "triangle-down", "size": 9 if n <= _MANY else 4, "color": theme.muted},
        hoverinfo="skip",
    )
    marker: dict[str, Any] = {
        "size": circle_sizes(found),
        "opacity": 0.9,
        "line": {"width": 1, "color": theme.paper},
    }
    figure.add_scatter(
        x=place,
        y=found.energy,
        name="minima",
        mode="markers",
        marker=marker | marker_colours(found, groups, colours, theme),
        customdata=list(range(n)),
        text=[found.name(minimum).replace("<", "‹") for minimum in range(n)],
        hovertemplate="%{text}<br>energy %{y:,.4g}<extra></extra>",
    )
    figure.add_scatter(
        x=[],
        y=[],
        name="ends",
        mode="markers",
        marker={"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": theme.warning, "width": 2.6}},
        hoverinfo="skip",
    )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"range": [-0.7, n - 0.3], "visible": False},
        yaxis={"range": [low, high], "title": {"text": title}, "nticks": 9},
        margin=TREE_MARGIN,
        height=470,
        hovermode="closest",
    )
    return figure


def energy_range(found: Basins) -> tuple[float, float]:
    """The range of the energy axis: from below the lowest minimum to above the highest merge."""
    finite = found.trunks.upper[np.isfinite(found.trunks.upper)]
    low, high = float(found.energy.min()), float(max(found.energy.max(), finite.max(initial=-np.inf)))
    span = high - low or max(abs(low), 1.0)
    return low - 0.09 * span, high + 0.07 * span


def circle_sizes(found: Basins) -> list[float]:
    """Diameters of the leaves' circles, pixels: area in proportion to the members."""
    many = len(found.energy) > _MANY
    if found.count is None:
        return [4.0 if many else 9.0] * len(found.energy)
    share = np.asarray(found.count, float) / max(float(found.count.max()), 1.0)
    return np.maximum(_SMALLEST[many], _LARGEST[many] * np.sqrt(share)).tolist()


def colour_groups(found: Basins, theme: Theme) -> tuple[np.ndarray, list[str]]:
    """The colour group of each basin and the colour of each group: a group a label, or one for all."""
    if found.label is None:
        return np.zeros(len(found.energy), int), [theme.muted]
    names = sorted_labels(found)
    return (
        np.array([names.index(label) for label in found.label]),
        [style.colour for style in set_styles([name.replace(":", " ") for name in names], theme)],
    )


def sorted_labels(found: Basins) -> list[str]:
    """The labels, numbers in the order of numbers."""
    return sorted(
        set(found.label or []), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )


def marker_colours(found: Basins, groups: np.ndarray, colours: list[str], theme: Theme) -> dict[str, Any]:
    """Colours of the leaves: those of the lines, or a scale of the energy where there is no label."""
    if found.label is not None:
        return {"color": [colours[group] for group in groups]}
    low, high = theme.sequential
    scale = plotly.colors.sample_colorscale("Viridis", list(np.linspace(low, high, 9)))
    span = float(np.ptp(found.energy)) or 1.0
    sampled = plotly.colors.sample_colorscale(scale, list((found.energy - found.energy.min()) / span))
    return {"color": sampled}
