"""The figures of a training: its traces update by update, their correlations, and chaos against the noise scale."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import words
from theodolite.report.figures import finish
from theodolite.report.learning import OPTIMISERS
from theodolite.report.parts import add_key, error_bars
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 78, "r": 24, "t": 44, "b": 58}
_BLOCKS = 400
_SMOOTHED = 25
_WIDE_RANGE = 8.0


def trace_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """d_s, r_t and the learning rate over one axis of updates; bands hold every update, lines are running means."""
    n = dataset.sizes.get("update", 0)
    if not n:
        return None
    blue, orange = theme.categories
    panels = [
        (name, title, colour)
        for name, title, colour in (
            ("energy_difference", "d: energy of data<br>less chains (nats)", blue),
            ("langevin_gradient", "r: slope along the<br>chains (nats/unit)", orange),
            ("learning_rate", "learning<br>rate", theme.muted),
        )
        if name in dataset and np.isfinite(np.asarray(dataset[name].values, float)).any()
    ]
    if not panels:
        return None
    heights = [70 if name == "learning_rate" else 150 for name, _, _ in panels]
    gap = 26
    total = sum(heights) + gap * (len(heights) - 1)
    figure, top = go.Figure(), total
    last = "y" if len(panels) == 1 else f"y{len(panels)}"
    for k, ((name, title, colour), height) in enumerate(zip(panels, heights, strict=True)):
        axis = "y" if k == 0 else f"y{k + 1}"
        values = np.asarray(dataset[name].values, float)
        if name == "learning_rate":
            figure.add_scatter(
                x=_kept(n).tolist(),
                y=values[_kept(n)].tolist(),
                yaxis=axis,
                name=name,
                mode="lines",
                line={"color": colour, "width": 2},
                hovertemplate="%{y:.2g} at update %{x}<extra></extra>",
            )
        else:
            _add_trace(figure, values, axis, colour, _raw(theme, colour), name)
        figure.update_layout(
            {
                "yaxis" + axis[1:]: {
                    "domain": [max(top - height, 0) / total, top / total],
                    "title": {"text": title},
                    "nticks": 4,
                    "range": _range(values, name),
                }
                | (_decades(values) if name == "learning_rate" else {})
            }
        )
        top -= height + gap
    title = {"text": "update"}
    figure.update_layout(xaxis={"title": title, "anchor": last, "range": [-0.5, n - 0.5]})
    finish(figure, theme)
    figure.add_hline(y=0, line={"width": 1, "dash": "dot", "color": theme.muted}, yref="y")
    margin = _MARGIN | {"l": 92, "t": 40}
    figure.update_layout(
        height=total + margin["t"] + margin["b"],
        margin=margin,
        hovermode="closest",
    )
    _add_phases(figure, dataset, theme)
    return figure


def _decades(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic axis with powers of ten as its ticks."""
    low, high = (math.floor(end) for end in _range(values, "learning_rate"))
    ticks = range(low, high + 2)
    return {
        "type": "log",
        "tickvals": [10.0**tick for tick in ticks],
        "ticktext": [words.power("10", tick) for tick in ticks],
    }


def _raw(theme: Theme, colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{0.3 if theme == LIGHT else 0.35})"


def _add_trace(figure: go.Figure, values: np.ndarray, axis: str, colour: str, faint: str, name: str) -> None:
    """The values themselves, or where they are many the range of each block of them, under their running mean."""
    size = max(1, math.ceil(len(values) / _BLOCKS)) if len(values) > 3 * _BLOCKS else 1
    starts = np.arange(0, len(values), size)
    if size == 1:
        figure.add_scatter(
            x=starts.tolist(),
            y=values.tolist(),
            yaxis=axis,
            name=name,
            mode="lines",
            line={"color": faint, "width": 1},
            hovertemplate="%{y:.3g} at update %{x}<extra></extra>",
        )
    else:
        low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        ends = np.minimum(starts + size, len(values)) - 1
        x = np.stack([starts, ends], axis=1).ravel()
        figure.add_scatter(
            x=[*x.tolist(), *x[::-1].tolist()],
            y=[*np.repeat(high, 2).tolist(), *np.repeat(low, 2)[::-1].tolist()],
            yaxis=axis,
            name=name,
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=faint,
            hoverinfo="skip",
        )
    smooth = running_mean(values, max(len(values) // _SMOOTHED, 1))
    kept = _kept(len(values))
    figure.add_scatter(
        x=kept.tolist(),
        y=smooth[kept].tolist(),
        yaxis=axis,
        name=f"{name}, smoothed",
        mode="lines",
        line={"color": colour, "width": 2.2},
        hovertemplate="running mean %{y:.3g} at update %{x}<extra></extra>",
    )


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of up to `width` updates around each, those without a number left out."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    low, high = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    return (total[high] - total[low]) / np.where(count[high] > count[low], count[high] - count[low], np.nan)


def _kept(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, _BLOCKS)).astype(int))


def _range(values: np.ndarray, name: str) -> list[float]:
    """Nearly all updates: the first few of a training may lie far off."""
    known = values[np.isfinite(values)]
    if name == "learning_rate":
        known = np.log10(known[known > 0]) if (known > 0).any() else np.zeros(1)
        return [float(known.min()) - 0.3, float(known.max()) + 0.3]
    low, high = np.quantile(known, [0.005, 0.995])
    pad = 0.08 * (high - low) or 1.0
    if name == "langevin_gradient":
        # A slope that hardly changes shall look like one.
        pad = max(pad, 0.1 * float(np.abs(known).mean()))
        return [float(low - pad), float(high + pad)]
    return [min(float(low - pad), 0.0), max(float(high + pad), 0.0)]


def phases(dataset: xr.Dataset) -> list[tuple[int, str]]:
    """First update and optimiser of each phase of the training."""
    if "optimiser" not in dataset or not dataset.sizes.get("update", 0):
        return []
    kind = np.asarray(dataset["optimiser"].values, int)
    starts = [0, *(np.flatnonzero(np.diff(kind)) + 1).tolist()]
    return [(start, OPTIMISERS.get(int(kind[start]), "another optimiser")) for start in starts]


def _add_phases(figure: go.Figure, dataset: xr.Dataset, theme: Theme) -> None:
    found = phases(dataset)
    for place, (start, name) in enumerate(found):
        if place:
            figure.add_shape(
                type="line",
                x0=start,
                x1=start,
                y0=0,
                y1=1,
                yref="paper",
                line={"width": 1.2, "dash": "dash", "color": theme.muted},
            )
        figure.add_annotation(
            text=name,
            x=start,
            y=1,
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"color": theme.muted},
        )


def correlation_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Left the autocorrelations of d and r, right d with later r; the band is what chance alone allows."""
    own = [
        (name, sign, colour, symbol)
        for name, sign, colour, symbol in (
            ("energy_difference_correlation", "d", theme.categories[0], "circle"),
            ("langevin_gradient_correlation", "r", theme.categories[1], "diamond-open"),
        )
        if name in dataset and dataset.sizes.get("lag", 0) > 1
    ]
    if not own:
        return None
    crossed = "cross_correlation" in dataset and dataset.sizes.get("signed_lag", 0) > 0
    figure = go.Figure()
    error = float(dataset["correlation_error"].values) if "correlation_error" in dataset else math.nan
    drawn: list[np.ndarray] = []
    for name, sign, colour, symbol in own:
        # At lag 0 each correlation is 1 and would hide the others.
        values = np.asarray(dataset[name].values, float)[1:]
        drawn.append(values)
        _add_correlation(figure, np.arange(1, len(values) + 1), values, "", f"{sign} with itself", colour, symbol)
    lags = [(0.5, len(drawn[0]) + 0.5)]
    if crossed:
        lag = np.asarray(dataset["signed_lag"].values, float)
        values = np.asarray(dataset["cross_correlation"].values, float)
        drawn.append(values)
        _add_correlation(figure, lag, values, "2", "d with later r", theme.ink, "square")
        lags.append((float(lag.min()) - 0.5, float(lag.max()) + 0.5))
    everything = np.concatenate(drawn)
    largest = float(np.nanmax(np.abs(everything), initial=2.5 * error if math.isfinite(error) else 0.1))
    for k, (low, high) in enumerate(lags):
        end = "" if k == 0 else "2"
        if math.isfinite(error):
            figure.add_shape(
                type="rect",
                x0=low,
                x1=high,
                y0=-2 * error,
                y1=2 * error,
                xref=f"x{end}",
                yref="y",
                line={"width": 0},
                fillcolor=theme.grid,
                layer="below",
            )
        figure.add_shape(
            type="line",
            x0=low,
            x1=high,
            y0=0,
            y1=0,
            xref=f"x{end}",
            yref="y",
            line={"width": 1, "color": theme.muted},
        )
    share = [0, 0.46] if crossed else [0, 1]
    figure.update_layout(
        xaxis={"domain": share, "title": {"text": "lag (updates)"}, "range": list(lags[0])},
        yaxis={"title": {"text": "correlation"}, "range": [-min(1.05, 1.15 * largest), min(1.05, 1.15 * largest)]},
    )
    if crossed:
        title = {"text": "updates by which r comes later"}
        figure.update_layout(xaxis2={"domain": [0.5, 1], "title": title, "range": list(lags[1])})
    finish(figure, theme)
    figure.update_layout(height=340, margin=_MARGIN, hovermode="closest")
    marks = [("●" if sign == "d" else "◇", colour, f"{sign} with itself") for _, sign, colour, _ in own]
    add_key(figure, marks + ([("■", theme.ink, "d with later r")] if crossed else []))
    return figure


def _add_correlation(
    figure: go.Figure, lag: np.ndarray, values: np.ndarray, end: str, name: str, colour: str, symbol: str
) -> None:
    figure.add_scatter(
        x=lag.tolist(),
        y=values.tolist(),
        xaxis=f"x{end}",
        yaxis="y",
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 1.2},
        marker={"size": 5, "color": colour, "symbol": symbol},
        hovertemplate=name + ": %{y:.2f} at lag %{x}<extra></extra>",
    )


def lyapunov_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Maximal Lyapunov exponent against the noise scale; above 0 two chains under one noise drift apart."""
    if "lyapunov_exponent" not in dataset or not dataset.sizes.get("noise_scale", 0):
        return None
    scale = np.asarray(dataset["noise_scale"].values, float)
    order = np.argsort(scale)
    value, low, high = (
        np.asarray(dataset[f"lyapunov_exponent{end}"].values, float)[order]
        if f"lyapunov_exponent{end}" in dataset
        else np.full(len(scale), math.nan)
        for end in ("", "_low", "_high")
    )
    scale = scale[order]
    figure = go.Figure()
    figure.add_scatter(
        x=scale.tolist(),
        y=value.tolist(),
        mode="lines+markers",
        line={"color": theme.accent, "width": 1.6},
        marker={"size": 8, "color": theme.accent},
        error_y=error_bars(value, low, high, theme.accent, 1.4, 4),
        hovertemplate="%{y:.3g} at noise scale %{x:.3g}<extra></extra>",
    )
    finish(figure, theme)
    figure.add_hline(y=0, line={"width": 1.2, "dash": "dash", "color": theme.muted})
    wide = bool(scale.min() > 0 and scale.max() / scale.min() >= _WIDE_RANGE)
    figure.add_vline(x=1.0, line={"width": 1, "dash": "dot", "color": theme.warning})
    figure.add_annotation(
        text="as learned",
        x=0.0 if wide else 1.0,
        y=1,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        font={"color": theme.warning, "size": 12},
    )
    ticks = {"type": "log", "tickvals": scale.tolist(), "ticktext": [f"{one:g}" for one in scale]} if wide else {}
    figure.update_layout(
        height=320,
        margin=_MARGIN | {"t": 30},
        hovermode="closest",
        xaxis={"title": {"text": "noise scale γ (1: as learned)"}} | ticks,
        yaxis={"title": {"text": "Lyapunov exponent (1/time)"}},
    )
    return figure
