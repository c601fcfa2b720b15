"""Datasets as plotly figures: one function a figure, colours from a theme, sizes for a page or a phone."""

from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import density, words
from theodolite.report.themes import FONT, LIGHT, Theme, set_styles

_MOST_CURVES = 4
_GAP = 34

# The page draws its slider and its film strip to these margins, so that they lie under the axis.
DENSITY_MARGIN = {"l": 78, "r": 78, "t": 58, "b": 62}
NARROW_MARGIN = {"l": 52, "r": 46, "t": 54, "b": 56}


def density_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """S, its error, and the data's own outputs above one axis.

    y is ln of the number of inputs per unit of output (nats), with the share of all inputs per unit on the
    right; the band is two standard errors either way. Levels that have not converged are hatched.
    """
    line = density.curve(dataset)
    figure = go.Figure()
    has_data = "data_histogram" in dataset and float(dataset["data_histogram"].sum()) > 0
    has_error = bool(np.nanmax(np.where(line.finite, line.error, 0.0), initial=0.0) > 0)
    domains, total = _panels(dataset, has_error, has_data)
    x_range, y_range = _x_range(dataset, line), _y_range(line)
    last_axis = "y" if len(domains) == 1 else f"y{len(domains) + 1}"
    _add_hatch(figure, line, y_range, theme)
    _add_curve(figure, line, x_range, theme)
    figure.update_layout(
        yaxis={
            "domain": domains["curve"],
            "range": y_range,
            "title": {"text": f"ln ({'inputs' if line.discrete else 'volume'} per unit of output)"},
        },
        yaxis2=_share_axis(line, y_range),
    )
    # An overlaid axis is drawn only where a trace uses it.
    figure.add_scatter(x=[None], y=[None], yaxis="y2", hoverinfo="skip", showlegend=False)
    if has_error:
        _add_error(figure, line, domains["error"], theme)
    if has_data:
        axis = "y4" if has_error else "y3"
        if many_sets(dataset):
            _add_set_rows(figure, dataset, line, domains["data"], axis, theme)
        else:
            _add_set_curves(figure, dataset, line, domains["data"], x_range, axis, theme)
    odds = str(dataset.attrs.get("probability", "")) == "sigmoid"
    margin = DENSITY_MARGIN if odds else {**DENSITY_MARGIN, "t": 20}
    title = {"text": x_title(dataset), "standoff": 8}
    figure.update_layout(xaxis={"anchor": last_axis, "range": x_range, "title": title})
    if odds:
        _add_probability(figure, x_range)
    finish(figure, theme)
    figure.update_layout(margin=margin, height=total + margin["t"] + margin["b"])
    return figure


def x_title(dataset: xr.Dataset) -> str:
    """The observable in words, with the flag it was asked for by."""
    sentence = str(dataset.attrs.get("observable_sentence", "") or "output")
    name = str(dataset.attrs.get("observable", ""))
    return f"output: {sentence}" + (f" ({name})" if name and name not in sentence else "")


def many_sets(dataset: xr.Dataset) -> bool:
    """Whether there are too many data sets for curves that can be told apart."""
    return dataset.sizes.get("data_set", 0) > _MOST_CURVES


def _panels(dataset: xr.Dataset, has_error: bool, has_data: bool) -> tuple[dict[str, list[float]], int]:
    """The panels, top to bottom, as shares of the height between the margins, and that height (pixels)."""
    heights = {"curve": 350}
    if has_error:
        heights["error"] = 82
    if has_data:
        heights["data"] = 20 + 17 * dataset.sizes["data_set"] if many_sets(dataset) else 138
    total = sum(heights.values()) + _GAP * (len(heights) - 1)
    domains, top = {}, float(total)
    for name, height in heights.items():
        domains[name] = [max(top - height, 0.0) / total, top / total]
        top -= height + _GAP
    return domains, total


def _x_range(dataset: xr.Dataset, line: density.Curve) -> list[float]:
    shown = line.finite.copy()
    if "data_histogram" in dataset:
        shown |= np.asarray(dataset["data_histogram"].sum("data_set").values) > 0
    rows = np.flatnonzero(shown)
    if not len(rows):
        return [float(line.edges[0]), float(line.edges[-1])]
    low, high = float(line.edges[rows[0]]), float(line.edges[rows[-1] + 1])
    pad = 0.015 * (high - low)
    return [low - pad, high + pad]


def _y_range(line: density.Curve) -> list[float]:
    rows = line.finite
    tops = line.log_count_per_unit[rows] + 2 * line.error[rows]
    bottoms = line.log_count_per_unit[rows] - 2 * line.error[rows]
    top = float(np.nanmax(np.append(tops, line.log_volume if np.isfinite(line.log_volume) else -np.inf), initial=1.0))
    bottom = float(min(bottoms)) if len(bottoms) else 0.0
    pad = 0.05 * max(top - bottom, 1.0)
    return [bottom - pad, top + 1.6 * pad]


def _share_axis(line: density.Curve, y_range: list[float]) -> dict[str, Any]:
    low, high = ((value - line.log_volume) / words.LN10 for value in y_range)
    step = _nice_step((high - low) / 7)
    exponents = np.arange(np.ceil(low / step) * step, min(high, step / 2), step) if np.isfinite(low) else np.empty(0)
    return {
        "overlaying": "y",
        "side": "right",
        "range": y_range,
        "showgrid": False,
        "tickvals": [line.log_volume + words.LN10 * value for value in exponents],
        "ticktext": ["all" if value == 0 else words.power("10", round(value)) for value in exponents],
        "title": {"text": "share of all inputs, per unit"},
    }


def _nice_step(rough: float) -> int:
    size = 10 ** np.floor(np.log10(max(rough, 1.0)))
    return int(next(size * part for part in (1, 2, 5, 10) if size * part >= max(rough, 1.0)))


def _add_curve(figure: go.Figure, line: density.Curve, x_range: list[float], theme: Theme) -> None:
    def masked(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.where(rows, values, np.nan)

    for low, high in _runs(line.finite):
        x, y, error = (part[low:high] for part in (line.level, line.log_count_per_unit, line.error))
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([y + 2 * error, (y - 2 * error)[::-1]]),
            fill="toself",
            fillcolor=theme.band,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
    hover = "output %{x}<br>ln per unit %{y:,.1f}<br>standard error %{customdata:.2g} nats<extra></extra>"
    # A level that has not converged keeps its place in the line but is dotted, up to its neighbours.
    doubtful = line.finite & ~line.converged
    touching = doubtful | (line.finite & (np.roll(doubtful, 1) | np.roll(doubtful, -1)))
    for rows, dash in ((line.finite & line.converged, "solid"), (touching, "dot")):
        if rows.any():
            figure.add_scatter(
                x=line.level,
                y=masked(line.log_count_per_unit, rows),
                customdata=line.error,
                mode="lines+markers" if line.finite.sum() <= 40 else "lines",
                marker={"size": 6, "color": theme.accent},
                line={"color": theme.accent, "width": 2.2, "dash": dash},
                hovertemplate=hover,
            )
    if np.isfinite(line.log_volume):
        figure.add_scatter(
            x=x_range,
            y=[line.log_volume] * 2,
            mode="lines",
            line={"color": theme.muted, "width": 1.2, "dash": "dash"},
            hoverinfo="skip",
        )
        figure.add_annotation(
            x=0.006,
            xref="x domain",
            xanchor="left",
            y=line.log_volume,
            yanchor="bottom",
            showarrow=False,
            name="ceiling",
            text=f"all inputs: {line.everything}" if line.everything else "all inputs",
            font={"color": theme.muted, "size": 12},
        )


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    steps = np.flatnonzero(np.diff(np.concatenate([[0], rows.astype(int), [0]])))
    return [(int(low), int(high)) for low, high in zip(steps[::2], steps[1::2], strict=True)]


def _add_hatch(figure: go.Figure, line: density.Curve, y_range: list[float], theme: Theme) -> None:
    for index, (low, high) in enumerate(_runs(line.finite & ~line.converged)):
        left, right = float(line.edges[low]), float(line.edges[high])
        figure.add_scatter(
            x=[left, right, right, left, left],
            y=[y_range[0], y_range[0], y_range[1], y_range[1], y_range[0]],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillpattern={
                "shape": "/",
                "fgcolor": theme.hatch,
                "bgcolor": "rgba(0,0,0,0)",
                "size": 10,
                "solidity": 0.12,
            },
            hoverinfo="skip",
        )
        if index == 0:
            at_edge = high == len(line.level) and right - left < 0.3 * (right - line.edges[0])
            figure.add_annotation(
                x=right if at_edge else (left + right) / 2,
                xanchor="right" if at_edge else "center",
                y=0.02,
                yref="y domain",
                yanchor="bottom",
                showarrow=False,
                text="not converged",
                bgcolor=theme.paper,
                font={"color": theme.warning, "size": 12},
            )


def _add_error(figure: go.Figure, line: density.Curve, domain: list[float], theme: Theme) -> None:
    figure.add_scatter(
        x=line.level,
        y=np.where(line.finite, line.error, np.nan),
        yaxis="y3",
        mode="lines",
        line={"color": theme.accent, "width": 1.6, "shape": "hvh"},
        fill="tozeroy",
        fillcolor=theme.band,
        hovertemplate="standard error %{y:.2g} nats<extra></extra>",
    )
    figure.update_layout(
        yaxis3={
            "domain": domain,
            "rangemode": "tozero",
            "nticks": 4,
            "title": {"text": "error<br>(nats)"},
        }
    )


def _add_set_rows(
    figure: go.Figure,
    dataset: xr.Dataset,
    line: density.Curve,
    domain: list[float],
    axis: str,
    theme: Theme,
) -> None:
    histogram = np.asarray(dataset["data_histogram"].transpose("data_set", "level").values, float)
    percent = 100 * histogram / np.maximum(histogram.sum(axis=1, keepdims=True), 1.0)
    names = [str(name).replace("<", "‹") for name in dataset["data_set"].values]
    figure.add_heatmap(
        x=line.edges,
        y=names,
        z=np.where(percent > 0, percent, np.nan),
        yaxis=axis,
        colorscale="Viridis",
        reversescale=theme == LIGHT,
        showscale=False,
        hovertemplate="%{z:.1f}% of “%{y}”<extra></extra>",
    )
    figure.update_layout({f"yaxis{axis[1:]}": {"domain": domain, "type": "category", "autorange": "reversed"}})


def _add_set_curves(
    figure: go.Figure,
    dataset: xr.Dataset,
    line: density.Curve,
    domain: list[float],
    x_range: list[float],
    axis: str,
    theme: Theme,
) -> None:
    histogram = np.asarray(dataset["data_histogram"].transpose("data_set", "level").values, float)
    names = [str(name) for name in dataset["data_set"].values]
    top, labels = 0.0, []
    for row, name, style in zip(histogram, names, set_styles(names, theme), strict=True):
        percent = 100 * row / max(row.sum(), 1.0)
        top = max(top, float(percent.max()))
        used = np.flatnonzero(row)
        if not len(used):
            continue
        part = slice(max(used[0] - 1, 0), used[-1] + 2)
        figure.add_scatter(
            x=line.level[part],
            y=percent[part],
            yaxis=axis,
            name=name,
            mode="lines",
            line={"color": style.colour, "width": 1.8, "shape": "hvh", "dash": style.dash},
            fill="tozeroy",
            fillcolor=_faint(style.colour),
            hovertemplate="%{y:.1f}% of “" + name.replace("<", "‹") + "”<extra></extra>",
        )
        labels.append((float(line.level[int(np.argmax(row))]), name.replace("<", "‹"), style.colour))
    for height, (x, name, colour) in _staggered(labels, x_range):
        figure.add_annotation(
            x=x,
            y=top * (1.06 + 0.2 * height),
            yref=axis,
            yanchor="bottom",
            showarrow=False,
            name="data set",
            text=name,
            font={"color": theme.ink, "size": 12},
            bordercolor=colour,
            borderwidth=1,
            bgcolor=theme.paper,
            borderpad=1,
        )
    rows = 1 + max((height for height, _ in _staggered(labels, x_range)), default=0)
    figure.update_layout(
        {
            f"yaxis{axis[1:]}": {
                "domain": domain,
                "range": [0, top * (1.12 + 0.22 * rows)],
                "nticks": 4,
                "ticksuffix": "%",
                "title": {"text": "share of<br>each set"},
            }
        }
    )


def _staggered(labels: list[tuple[float, str, str]], x_range: list[float]) -> list[tuple[int, tuple[float, str, str]]]:
    placed: list[tuple[int, tuple[float, str, str]]] = []
    ends: list[float] = []
    per_character = 0.011 * (x_range[1] - x_range[0])
    for label in sorted(labels):
        half = per_character * (len(label[1]) + 2) / 2
        height = next((row for row, end in enumerate(ends) if end < label[0] - half), len(ends))
        ends[height : height + 1] = [label[0] + half]
        placed.append((height, label))
    return placed


def _faint(colour: str) -> str:
    red, green, blue = plotly.colors.hex_to_rgb(colour) if colour.startswith("#") else plotly.colors.unlabel_rgb(colour)
    return f"rgba({int(red)},{int(green)},{int(blue)},0.25)"


def _add_probability(figure: go.Figure, x_range: list[float]) -> None:
    reach = max(abs(x_range[0]), abs(x_range[1]))
    step = _nice_step(max(0.085 * (x_range[1] - x_range[0]) / words.LN10, 1.0))
    marks = np.arange(step, reach / words.LN10 + step, step) * words.LN10
    values = [value for value in np.concatenate([-marks[::-1], [0.0], marks]) if x_range[0] <= value <= x_range[1]]
    figure.add_scatter(x=[None], y=[None], xaxis="x2", hoverinfo="skip", showlegend=False)
    figure.update_layout(
        xaxis2={
            "overlaying": "x",
            "anchor": "y",
            "side": "top",
            "range": x_range,
            "showgrid": False,
            "tickvals": values,
            "ticktext": ["0.5" if value == 0 else words.probability(float(value)) for value in values],
            "title": {"text": "probability this output stands for", "standoff": 6},
        }
    )
    figure.add_vline(x=0, line={"width": 1, "dash": "dot", "color": "rgba(128,128,128,0.7)"})


def narrow_layout(figure: go.Figure) -> dict[str, Any]:
    """Changes of the layout for a phone, as plotly paths: smaller words, fewer ticks, no side titles."""
    layout: dict[str, Any] = figure.to_dict()["layout"]
    margin = {side: min(space, layout["margin"][side]) for side, space in NARROW_MARGIN.items()}
    changes: dict[str, Any] = {"margin": margin, "font.size": 11, "xaxis.nticks": 5}
    for name in (name for name in layout if name.startswith("yaxis")):
        title = str(layout[name].get("title", {}).get("text", ""))
        if layout[name].get("side") == "right":
            changes[f"{name}.title.text"] = ""
            for part in ("tickvals", "ticktext"):
                changes[f"{name}.{part}"] = list(layout[name][part])[::-2][::-1]
        elif "<br>" in title:
            changes[f"{name}.title.text"] = title.replace("<br>", " ")
    if "tickvals" in layout.get("xaxis2", {}):
        values = [float(value) for value in layout["xaxis2"]["tickvals"]]
        middle = values.index(0.0) if 0.0 in values else 0
        kept = [index for index in range(len(values)) if (index - middle) % 3 == 0]
        changes["xaxis2.tickvals"] = [values[index] for index in kept]
        changes["xaxis2.ticktext"] = [layout["xaxis2"]["ticktext"][index] for index in kept]
    return changes


def finish(figure: go.Figure, theme: Theme) -> None:
    """Give a figure the page's font, colours and axes, without a network or a template."""
    figure.update_layout(
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"family": FONT, "size": 13, "color": theme.ink},
        margin=DENSITY_MARGIN,
        showlegend=False,
        dragmode=False,
        hovermode="x",
        hoversubplots="axis",
        template="none",
        hoverlabel={"bgcolor": theme.paper, "font": {"color": theme.ink, "family": FONT}},
    )
    common = {
        "gridcolor": theme.grid,
        "linecolor": theme.muted,
        "tickcolor": theme.muted,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "fixedrange": True,
        "automargin": False,
        "title_font": {"size": 13, "color": theme.muted},
    }
    figure.update_xaxes(showspikes=False, separatethousands=True, **common)
    figure.update_yaxes(separatethousands=True, **common)
