"""Two landscapes of one field in one drawing: where their trees agree and where they do not."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.disconnectivity import compare
from theodolite.report import landscape
from theodolite.report.disconnectivity_figure import TREE_MARGIN, energy_range, energy_title
from theodolite.report.figures import finish
from theodolite.report.themes import LIGHT, Theme
from theodolite.report.tree_layout import trunks
from theodolite.report.tree_lines import crossbar_lines, trunk_lines, upright_lines


def overlay_figure(dataset_a: xr.Dataset, dataset_b: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """Two trees in one drawing: merges both make in one colour, merges that differ in another.

    After Hill, Nijkamp and Zhu 2019, Figure 15: solid the tree of ``dataset_a``, dotted behind it that of
    ``dataset_b`` over the minima they share (`matching`); grey where the other survey lacks one side.
    """
    one, other = landscape.basins(dataset_a), landscape.basins(dataset_b)
    pairs = matching(dataset_a, dataset_b)
    agrees = compare(one.tree, other.tree, pairs)
    ends, n = one.trunks, len(one.energy)
    place = np.empty(n)
    place[ends.order] = np.arange(n)
    figure = go.Figure()
    shared = np.zeros(len(other.energy), bool)
    shared[pairs[:, 1]] = True
    theirs = trunks(other.tree, other.energy, shared)
    their_place = np.full(len(other.energy), np.nan)
    their_place[pairs[:, 1]] = place[pairs[:, 0]]
    x, y = trunk_lines(theirs, their_place, np.flatnonzero(shared & (theirs.joins >= 0)))
    figure.add_scatter(
        x=x,
        y=y,
        name="the other survey",
        mode="lines",
        line={"color": theme.muted, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    x, y = upright_lines(ends, place)
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": theme.muted, "width": 1.2}, hoverinfo="skip", showlegend=False
    )
    answers = np.where(ends.merge >= 0, agrees[ends.merge] if len(agrees) else -1, -2)
    for answer, name, colour, width in (
        (-1, "not in both surveys", theme.muted, 1.4),
        (1, "both join the same basins", theme.categories[0], 3.0),
        (0, "they join in another order", theme.categories[1], 3.0),
    ):
        x, y = crossbar_lines(ends, place, np.flatnonzero(answers == answer))
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip")
    matched = np.isin(np.arange(n), pairs[:, 0])
    figure.add_scatter(
        x=place,
        y=one.energy,
        mode="markers",
        showlegend=False,
        marker={
            "size": 8 if n <= 60 else 5,
            "color": [theme.accent if found else theme.paper for found in matched],
            "line": {"color": theme.accent, "width": 1.2},
        },
        text=[one.name(k).replace("<", "‹") + ("" if matched[k] else ", only here") for k in range(n)],
        hovertemplate="%{text}<br>energy %{y:,.4g}<extra></extra>",
    )
    low, high = energy_range(one)
    finish(figure, theme)
    figure.update_layout(
        xaxis={"range": [-0.7, n - 0.3], "visible": False},
        yaxis={"range": [low, high], "title": {"text": energy_title(dataset_a)}, "nticks": 9},
        margin={**TREE_MARGIN, "t": 62},
        height=500,
        hovermode="closest",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    )
    return figure


def matching(dataset_a: xr.Dataset, dataset_b: xr.Dataset) -> np.ndarray:
    """Minima that two surveys of one space share, ``(m, 2)``.

    Equal states on a discrete space; on a continuous one each other's nearest, and nearer than a quarter of the
    least distance between two minima of one survey.
    """
    one, other = (
        np.asarray(data["minimum_point"].values, float).reshape(data.sizes["minimum"], -1)
        for data in (dataset_a, dataset_b)
    )
    if one.shape[1] != other.shape[1]:
        return np.empty((0, 2), int)
    if not str(dataset_a.attrs.get("space", "")).startswith(("box", "latent")):
        places = {point.tobytes(): index for index, point in enumerate(other)}
        pairs = [(index, places[point.tobytes()]) for index, point in enumerate(one) if point.tobytes() in places]
        return np.array(pairs, int).reshape(-1, 2)
    between = _distances(one, other)
    least = min((_least_distance(points) for points in (one, other)), default=np.inf)
    nearest, back = between.argmin(axis=1), between.argmin(axis=0)
    rows = np.arange(len(one))
    same = (back[nearest] == rows) & (between[rows, nearest] < 0.25 * least)
    return np.stack([rows[same], nearest[same]], axis=1)


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2 * one @ other.T
    return np.sqrt(np.maximum(squared, 0.0))


def _least_distance(points: np.ndarray) -> float:
    between = _distances(points, points)
    np.fill_diagonal(between, np.inf)
    return float(between.min())
