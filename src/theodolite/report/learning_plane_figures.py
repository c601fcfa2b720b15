"""The figures of what was learned in the plane: points of each row, and true and learned density side by side."""

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import learning
from theodolite.report.figures import finish
from theodolite.report.learning import LONG
from theodolite.report.learning_figures import styles
from theodolite.report.parts import add_key
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 78, "r": 24, "t": 44, "b": 58}
_MOST_GRID = 128
_MOST_POINTS = 400
_FAINTEST = 0.01  # of the highest density; what is lower is left blank


def points_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Points of two coordinates, a panel a row, all at one scale."""
    rows = [(run, learning.points(dataset, run)[:_MOST_POINTS]) for run in learning.run_names(dataset)]
    rows = [(run, points) for run, points in rows if len(points)]
    if not rows or rows[0][1].shape[1:] != (2,):
        return None
    everything = np.concatenate([points for _, points in rows])
    low, high = np.quantile(everything, 0.005, axis=0), np.quantile(everything, 0.995, axis=0)
    pad = 0.08 * (high - low) + 1e-12
    figure, width = go.Figure(), 1 / len(rows)
    for k, ((run, points), style) in enumerate(zip(rows, styles([run for run, _ in rows], theme), strict=True)):
        end = "" if k == 0 else str(k + 1)
        figure.add_scatter(
            x=points[:, 0].tolist(),
            y=points[:, 1].tolist(),
            xaxis=f"x{end}",
            yaxis=f"y{end}",
            name=run,
            mode="markers",
            marker={"size": 3.5, "color": style.colour, "opacity": 0.75},
            hovertemplate="%{x:.3g}, %{y:.3g}<extra>" + run + "</extra>",
        )
        _panel(figure, k, end, [k * width, (k + 1) * width - (0.015 if k + 1 < len(rows) else 0)], run, theme)
        figure.update_layout(
            {
                f"xaxis{end}": {"range": [float(low[0] - pad[0]), float(high[0] + pad[0])], "nticks": 4},
                f"yaxis{end}": {"range": [float(low[1] - pad[1]), float(high[1] + pad[1])]},
            }
        )
    finish(figure, theme)
    figure.update_layout(height=320, margin=_MARGIN | {"t": 32}, hovermode="closest")
    return figure


def _panel(figure: go.Figure, k: int, end: str, domain: list[float], title: str, theme: Theme) -> None:
    figure.update_layout(
        {
            f"xaxis{end}": {"domain": domain, "anchor": f"y{end}", "title": {"text": "first coordinate"}},
            f"yaxis{end}": {"anchor": f"x{end}", "showticklabels": k == 0}
            | ({"title": {"text": "second coordinate"}} if k == 0 else {}),
        }
    )
    figure.add_annotation(
        text=title,
        xref=f"x{end} domain",
        yref="paper",
        x=0,
        y=1,
        yshift=4,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"color": theme.muted},
    )


def density_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """The true and the learned density of a problem of one or two coordinates, with points of the long runs."""
    if "log_density" not in dataset:
        return None
    return _curves(dataset, theme) if dataset.sizes["axis_1"] == 1 else _heat_maps(dataset, theme)


def _densities(dataset: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    known = [("the data's density", "true_log_density"), ("the learned density", "log_density")]
    return [
        (title, np.exp(np.asarray(dataset[name].transpose("axis_0", "axis_1").values, float)))
        for title, name in known
        if name in dataset
    ]


def _curves(dataset: xr.Dataset, theme: Theme) -> go.Figure:
    figure, marks = go.Figure(), []
    place = np.asarray(dataset["plane_0"].values, float)
    for title, density in _densities(dataset):
        own = title == "the learned density"
        colour, dash = (theme.categories[0], "solid") if own else (theme.ink, "dash")
        figure.add_scatter(
            x=place.tolist(),
            y=density[:, 0].tolist(),
            name=title,
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{y:.3g} at %{x:.3g}<extra>" + title + "</extra>",
        )
        marks.append(("━" if own else "╌╌", colour, title))
    points = np.concatenate([learning.points(dataset, run)[:_MOST_POINTS].ravel() for run in LONG])
    if len(points):
        figure.add_scatter(
            x=points.tolist(),
            y=[0.0] * len(points),
            name="long runs",
            mode="markers",
            marker={"size": 9, "color": theme.categories[1], "symbol": "line-ns-open"},
            hovertemplate="%{x:.3g}<extra>long runs</extra>",
        )
        marks.append(("|", theme.categories[1], "points of long runs"))
    finish(figure, theme)
    figure.update_layout(
        height=340,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": "coordinate (input units)"}},
        yaxis={"title": {"text": "probability per input unit"}, "rangemode": "tozero"},
    )
    add_key(figure, marks)
    return figure


def _heat_maps(dataset: xr.Dataset, theme: Theme) -> go.Figure:
    """Both maps at one scale, that of the true density where it is known."""
    panels = _densities(dataset)
    first, second = (np.asarray(dataset[f"plane_{axis}"].values, float) for axis in (0, 1))
    stride = [max(1, math.ceil(len(axis) / _MOST_GRID)) for axis in (first, second)]
    most = float(np.nanmax(panels[0][1]))
    ranges = _shown(panels, (first, second), _FAINTEST * most)
    figure, width = go.Figure(), 1 / len(panels)
    for k, (title, density) in enumerate(panels):
        end = "" if k == 0 else str(k + 1)
        kept = density[:: stride[0], :: stride[1]].T
        figure.add_heatmap(
            x=first[:: stride[0]],
            y=second[:: stride[1]],
            z=np.where(kept >= _FAINTEST * most, kept, np.nan).astype(np.float32),
            xaxis=f"x{end}",
            yaxis=f"y{end}",
            zmin=0,
            zmax=most,
            colorscale="Viridis",
            reversescale=theme == LIGHT,
            showscale=k + 1 == len(panels),
            colorbar={
                "title": {"text": "per unit²", "font": {"size": 12}},
                "thickness": 12,
                "outlinewidth": 0,
                "nticks": 5,
            },
            hovertemplate="%{x:.3g}, %{y:.3g}: %{z:.3g}<extra>" + title + "</extra>",
        )
        if title == "the learned density":
            _add_long_runs(figure, dataset, end, theme)
        _panel(figure, k, end, [k * width, (k + 1) * width - (0.03 if k + 1 < len(panels) else 0)], title, theme)
        figure.update_layout(
            {
                f"xaxis{end}": {"range": ranges[0], "constrain": "domain"},
                f"yaxis{end}": {"range": ranges[1], "constrain": "domain", "scaleanchor": f"x{end}"},
            }
        )
    finish(figure, theme)
    height = 420 if len(panels) == 2 else 520
    figure.update_layout(height=height, margin=_MARGIN | {"t": 32, "r": 96}, hovermode="closest")
    return figure


def _shown(panels: list[tuple[str, np.ndarray]], axes: tuple[np.ndarray, ...], least: float) -> list[list[float]]:
    """The part of each axis where any of the densities is drawn, and a little more."""
    drawn = np.any([density >= least for _, density in panels], axis=0)
    ranges = []
    for side, axis in enumerate(axes):
        kept = axis[drawn.any(axis=1 - side)]
        pad = 0.15 * float(np.ptp(kept)) + float(np.abs(np.diff(axis)).max())
        ranges.append(
            [max(float(axis.min()), float(kept.min()) - pad), min(float(axis.max()), float(kept.max()) + pad)]
        )
    return ranges


def _add_long_runs(figure: go.Figure, dataset: xr.Dataset, end: str, theme: Theme) -> None:
    for run, symbol in zip(LONG, ("circle", "x-thin"), strict=True):
        points = learning.points(dataset, run)[:_MOST_POINTS]
        if len(points):
            figure.add_scatter(
                x=points[:, 0].tolist(),
                y=points[:, 1].tolist(),
                xaxis=f"x{end}",
                yaxis=f"y{end}",
                name=run,
                mode="markers",
                marker={
                    "size": 3.5,
                    "opacity": 0.7,
                    "color": theme.categories[1],
                    "symbol": symbol,
                    "line": {"width": 1 if symbol == "x-thin" else 0.4, "color": theme.categories[1]},
                },
                hovertemplate="%{x:.3g}, %{y:.3g}<extra>" + run + "</extra>",
            )
