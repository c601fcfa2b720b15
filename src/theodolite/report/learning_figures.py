"""The figures of what was learned: energies of each row, long runs step by step, shares of the classes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import learning, words
from theodolite.report.figures import finish
from theodolite.report.learning import DATA, LONG
from theodolite.report.parts import add_key, error_bars
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 78, "r": 24, "t": 44, "b": 58}
_MOST_BINS = 80
_LATE = 0.6  # of the steps of a long run
_MOST_STEPS = 400
_GAP = 0.08


@dataclass(frozen=True)
class Style:
    """How a row is drawn wherever it appears."""

    colour: str
    dash: str
    sign: str
    symbol: str


def styles(runs: list[str], theme: Theme) -> list[Style]:
    """The data in the ink of the page, long runs in blue, what is no long run in orange; dashes tell the rest."""
    blue, orange = theme.categories
    known = {
        DATA: Style(theme.ink, "solid", "━", "circle"),
        "held out": Style(theme.muted, "dash", "╌╌", "circle-open"),
        "short run": Style(orange, "dot", "•••", "x"),
        LONG[0]: Style(blue, "solid", "━", "square"),
        LONG[1]: Style(blue, "dash", "╌╌", "diamond-open"),
    }
    return [known.get(run, Style(orange, "dashdot", "╌·", "triangle-up")) for run in runs]


def energy_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Above: the share of each row's points in bins of energy; below: the share at or under each energy."""
    rows = [(run, learning.energies(dataset, run)) for run in learning.run_names(dataset)]
    rows = [(run, values) for run, values in rows if len(values)]
    if not rows:
        return None
    low = min(float(np.quantile(values, 0.002)) for _, values in rows)
    high = max(float(np.quantile(values, 0.998)) for _, values in rows)
    pad = 0.03 * (high - low) or 1.0
    low, high = low - pad, high + pad
    edges = np.linspace(low, high, _bins(rows[0][1], high - low) + 1)
    figure, top = go.Figure(), 0.0
    for (run, values), style in zip(rows, styles([run for run, _ in rows], theme), strict=True):
        share = 100 * np.histogram(values, edges)[0] / len(values)
        top = max(top, float(share.max()))
        line = {"color": style.colour, "width": 2, "dash": style.dash}
        figure.add_scatter(
            x=edges.tolist(),
            y=[*share.tolist(), 0.0],
            name=run,
            mode="lines",
            line=line | {"shape": "hv"},
            fill="tozeroy" if run == DATA else "none",
            fillcolor=theme.grid,
            hovertemplate="%{y:.1f}% from %{x:.4g}<extra>" + run + "</extra>",
        )
        ordered = np.sort(values)
        kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST_STEPS)).astype(int))
        figure.add_scatter(
            x=[low, *ordered[kept].tolist(), high],
            y=[0.0, *(100 * (kept + 1) / len(ordered)).tolist(), 100.0],
            yaxis="y2",
            name=run,
            mode="lines",
            line=line | {"shape": "hv"},
            hovertemplate="%{y:.1f}% up to %{x:.4g}<extra>" + run + "</extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": "energy (nats)"}, "range": [low, high], "anchor": "y2"},
        yaxis={"title": {"text": "points (%)"}, "domain": [0.5 + _GAP / 2, 1], "range": [0, 1.06 * top]},
        yaxis2={"title": {"text": "at or below (%)"}, "domain": [0, 0.5 - _GAP / 2], "range": [0, 103], "nticks": 6},
    )
    finish(figure, theme)
    figure.update_layout(height=460, margin=_MARGIN, hovermode="closest")
    keyed(figure, [run for run, _ in rows], theme)
    return figure


def _bins(values: np.ndarray, length: float) -> int:
    """How many bins of the width that suits `values` (Freedman and Diaconis 1981) cover a length."""
    spread = float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    width = 2 * spread / len(values) ** (1 / 3)
    return int(np.clip(math.ceil(length / width), 10, _MOST_BINS)) if width > 0 else 10


def keyed(figure: go.Figure, runs: list[str], theme: Theme, sign: str = "") -> None:
    """The key of the rows above the axes, and room for it."""
    marks = [(sign or style.sign, style.colour, run) for run, style in zip(runs, styles(runs, theme), strict=True)]
    n_lines = add_key(figure, marks, a_line=3)
    figure.update_layout(margin={"t": 26 + 18 * n_lines})


def long_run_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Energy of the long runs against their steps: mean and the middle 80% of chains, over the data's mean +- 1 sd."""
    if "trace_energy" not in dataset or not dataset.sizes.get("step", 0):
        return None
    step = np.asarray(dataset["trace_step"].values, float)
    names = learning.run_names(dataset)
    mean, low, high = (
        np.asarray(dataset[f"trace_energy{end}"].transpose("run", "step").values, float)
        if f"trace_energy{end}" in dataset
        else np.full((len(names), len(step)), np.nan)
        for end in ("", "_low", "_high")
    )
    shown = [k for k in range(len(names)) if np.isfinite(mean[k]).any()]
    if not shown:
        return None
    figure = go.Figure()
    data = learning.energies(dataset, DATA)
    bounds: list[float] = []
    if len(data) > 1:
        centre, spread = float(data.mean()), float(data.std(ddof=1))
        bounds = [centre - 3 * spread, centre + 3 * spread]
        ends = [float(step.min()), float(step.max())]
        _band(figure, ends, [centre - spread] * 2, [centre + spread] * 2, theme.grid)
        figure.add_scatter(
            x=ends,
            y=[centre] * 2,
            name=DATA,
            mode="lines",
            line={"color": theme.ink, "width": 1.6},
            hovertemplate=f"data: {words.number(centre, 4)} ± {words.number(spread, 2)} nats<extra></extra>",
        )
    # Runs from noise come down from far above: what they end with decides what is shown.
    late = step >= _LATE * step.max()
    tints = ("0.26", "0.14")
    for rank, (k, style) in enumerate(zip(shown, styles([names[k] for k in shown], theme), strict=True)):
        kept = _thinned(len(step))
        if np.isfinite(low[k]).any():
            _band(figure, step[kept], low[k][kept], high[k][kept], _faint(style.colour, tints[rank % 2]))
        figure.add_scatter(
            x=step[kept].tolist(),
            y=mean[k][kept].tolist(),
            name=names[k],
            mode="lines",
            line={"color": style.colour, "width": 2, "dash": style.dash},
            hovertemplate="%{y:.4g} nats at step %{x}<extra>" + names[k] + "</extra>",
        )
        bounds += [float(value) for part in (mean[k], low[k], high[k]) for value in part[late] if math.isfinite(value)]
    pad = 0.05 * (max(bounds) - min(bounds)) or 1.0
    finish(figure, theme)
    figure.update_layout(
        height=360,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={"title": {"text": "step of the long run"}, "range": [float(step.min()), float(step.max())]},
        yaxis={"title": {"text": "energy (nats)"}, "range": [min(bounds) - pad, max(bounds) + pad]},
    )
    keyed(figure, ([DATA] if len(data) > 1 else []) + [names[k] for k in shown], theme)
    return figure


def _band(figure: go.Figure, x: Any, low: Any, high: Any, colour: str) -> None:
    figure.add_scatter(
        x=[*np.asarray(x, float).tolist(), *np.asarray(x, float)[::-1].tolist()],
        y=[*np.asarray(high, float).tolist(), *np.asarray(low, float)[::-1].tolist()],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=colour,
        hoverinfo="skip",
    )


def _faint(colour: str, strength: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{strength})"


def _thinned(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_STEPS)).astype(int))


def class_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """The share of each row's points that are of each class, bars with their exact 95% intervals."""
    if "run_class_share" not in dataset or not dataset.sizes.get("class", 0):
        return None
    runs = learning.run_names(dataset)
    classes = [str(name) for name in dataset["class_name"].values]
    share = {end: class_shares(dataset, end) for end in ("", "_low", "_high")}
    figure = go.Figure()
    shown = [k for k in range(len(runs)) if np.isfinite(share[""][k]).any()]
    for k, style in zip(shown, styles([runs[k] for k in shown], theme), strict=True):
        value, low, high = (100 * share[end][k] for end in ("", "_low", "_high"))
        open_ = style.dash != "solid"
        figure.add_bar(
            x=classes,
            y=value.tolist(),
            name=runs[k],
            marker={
                "color": _faint(style.colour, "0.35") if open_ else style.colour,
                "line": {"color": style.colour, "width": 1.2},
            },
            error_y=error_bars(value, low, high, theme.muted, 1.1, 0),
            hovertemplate="%{x}: %{y:.1f}%<extra>" + runs[k] + "</extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        height=340,
        barmode="group",
        bargap=0.25,
        bargroupgap=0.08,
        margin=_MARGIN,
        hovermode="closest",
        xaxis={
            "title": {"text": learning.class_noun(dataset)},
            "type": "category",
            # There may be forty clusters: the axis says what they are.
            "tickvals": classes,
            "ticktext": [name.removeprefix("cluster ") for name in classes],
        },
        yaxis={"title": {"text": "share of the points (%)"}, "rangemode": "tozero"},
    )
    marks = [
        ("■" if style.dash == "solid" else "□", style.colour, runs[k])
        for k, style in zip(shown, styles([runs[k] for k in shown], theme), strict=True)
    ]
    figure.update_layout(margin={"t": 26 + 18 * add_key(figure, marks, a_line=3)})
    return figure


def class_shares(dataset: xr.Dataset, end: str = "") -> np.ndarray:
    """Shares ``(run, class)``, or an end of their intervals; NaN where unknown."""
    name = f"run_class_share{end}"
    if name not in dataset:
        return np.full((dataset.sizes["run"], dataset.sizes["class"]), np.nan)
    return np.asarray(dataset[name].transpose("run", "class").values, float)
