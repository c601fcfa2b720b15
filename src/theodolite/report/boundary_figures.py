"""The figures of a boundary: distance against softmax, what is proven of each distance, features that change."""

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import words
from theodolite.report.boundary import Boundary, boundary
from theodolite.report.figures import finish
from theodolite.report.parts import add_key
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 82, "r": 24, "t": 20, "b": 58}
_MOST_POINTS = 4000
_MOST_BARS = 40
# Log-odds at which a softmax is written, and the largest drawn: float64 cannot hold a probability nearer to 1.
_LARGEST_ODDS = 36.0
_NARROWEST = 3.0


def drawn_images(found: Boundary) -> np.ndarray:
    """Images to draw, nearest flip first: all, or 4,000 spread evenly over them with every mistake among them."""
    order = found.order
    if len(order) <= _MOST_POINTS:
        return order
    kept = np.zeros(len(order), bool)
    kept[np.unique(np.linspace(0, len(order) - 1, _MOST_POINTS // 2).astype(int))] = True
    mistakes = np.flatnonzero(found.mistake[order])
    kept[mistakes[: _MOST_POINTS // 2]] = True
    return order[kept]


def comparable(found: Boundary) -> np.ndarray:
    """Images with a flip point and a softmax."""
    return found.found & (np.zeros(len(found.own), bool) if found.log_odds is None else ~np.isnan(found.log_odds))


def distance_title(found: Boundary) -> str:
    """The distance as an axis names it."""
    return f"distance to the flip point ({found.norm}, input units)"


def trust_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Softmax of each answer against the distance to its flip point, mistakes marked.

    x in input units; y on a scale of log-odds (nats), named by the probability they mean.
    After Yousefzadeh and O'Leary 2019, Figure 3, which has a linear scale of softmax.
    """
    found = boundary(dataset)
    if not comparable(found).any() or found.log_odds is None:
        return None
    rows = drawn_images(found)
    rows = rows[comparable(found)[rows]]
    height = np.clip(found.log_odds, -_LARGEST_ODDS, _LARGEST_ODDS)
    figure = go.Figure()
    wrong = found.mistake[rows]
    name = "right answers" if found.label is not None else "answers"
    for label, some, marker in (
        (
            name,
            rows[~wrong],
            {"size": 8, "symbol": "circle-open", "color": theme.categories[0], "line": {"width": 1.6}},
        ),
        ("mistakes", rows[wrong], {"size": 10, "symbol": "x", "color": theme.categories[1]}),
    ):
        if len(some):
            figure.add_scatter(
                x=found.distance[some].tolist(),
                y=height[some].tolist(),
                name=label,
                mode="markers",
                customdata=[int(image) for image in some],
                marker={"opacity": 0.9, **marker},
                hoverinfo="none",
            )
    _add_here(figure, theme)
    _add_uncertainty(figure, dataset, theme)
    finish(figure, theme)
    low, high = _odds_range(height[rows])
    ticks, texts = _odds_ticks(low, high)
    figure.update_layout(
        xaxis={"title": {"text": distance_title(found)}, "rangemode": "tozero"},
        yaxis={
            "title": {"text": "softmax of the answer (log-odds scale)"},
            "range": [low, high],
            "tickvals": ticks,
            "ticktext": texts,
        },
        margin={**_MARGIN, "t": 44},
        height=420,
        hovermode="closest",
    )
    marks = [("○", theme.categories[0], "right answers"), ("✖", theme.categories[1], "mistakes")]
    add_key(figure, marks if found.label is not None else [])
    return figure


def _add_here(figure: go.Figure, theme: Theme) -> None:
    """An empty trace that the page's script moves to the chosen image."""
    figure.add_scatter(
        x=[],
        y=[],
        name="here",
        mode="markers",
        marker={"size": 16, "symbol": "circle-open", "color": theme.warning, "line": {"width": 2.5}},
        hoverinfo="skip",
    )


def _add_uncertainty(figure: go.Figure, dataset: xr.Dataset, theme: Theme) -> None:
    stated = float(dataset.attrs.get("uncertainty", math.nan)) if "ambiguous" in dataset else math.nan
    if math.isfinite(stated) and stated > 0:
        figure.add_vrect(x0=0, x1=stated, fillcolor=theme.hatch, opacity=0.3, line_width=0, layer="below")


def _odds_range(height: np.ndarray) -> tuple[float, float]:
    """The log-odds drawn: wide enough for a few ticks however alike the answers are."""
    low, high = float(height.min()), float(height.max())
    pad = max(0.05 * (high - low), (_NARROWEST - (high - low)) / 2)
    return low - pad, high + pad


def _odds_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    percent = [1, 2, 5, 10, 20, 30, 50, 70, 80, 90, 95, 98, 99, 99.5]
    values = [math.log(value / (100 - value)) for value in percent]
    texts = [f"{value:g}%" for value in percent]
    for nines in range(3, 16):
        values.append(nines * words.LN10 + math.log1p(-(10.0**-nines)))
        texts.append("99.9%" if nines == 3 else f"1 − {words.power('10', -nines)}")
    shown = [k for k, value in enumerate(values) if low <= value <= high]
    apart: list[int] = []
    for k in shown:
        if not apart or values[k] - values[apart[-1]] >= (high - low) / 14:
            apart.append(k)
    return [values[k] for k in apart], [texts[k] for k in apart]


def bracket_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Of every image the interval that the true distance must lie in: proven below, found above; nearest first.

    x counts images; y in input units. Exact distances have no bar; where no flip was found the bar is open above.
    """
    found = boundary(dataset)
    rows = drawn_images(found)
    known = found.found[rows]
    if not known.any():
        return None
    place = np.arange(1, len(rows) + 1)
    bounded = np.isfinite(found.lower[rows])
    top = 1.06 * float(max(found.distance[rows][known].max(), found.lower[rows][bounded].max(initial=0.0)))
    high = np.where(known, found.distance[rows], top)
    low = np.minimum(found.lower[rows], top)
    figure = go.Figure()
    lines = [value for k in range(len(rows)) if high[k] > low[k] for value in (place[k], place[k], None)]
    levels = [value for k in range(len(rows)) if high[k] > low[k] for value in (low[k], high[k], None)]
    width = float(np.clip(620 / len(rows), 1.0, 9.0))
    figure.add_scatter(
        x=lines,
        y=levels,
        name="between proven and found",
        mode="lines",
        line={"color": theme.band, "width": width},
        hoverinfo="skip",
    )
    some = low > 0
    size = float(np.clip(500 / len(rows), 3.0, 8.0))
    for name, shown, values, symbol, colour in (
        ("proven: no flip point lies nearer", some, low, "line-ew-open", theme.muted),
        ("found", known, high, "circle", theme.accent),
        ("none found", ~known, high, "triangle-up-open", theme.warning),
    ):
        if shown.any():
            figure.add_scatter(
                x=place[shown].tolist(),
                y=values[shown].tolist(),
                name=name,
                mode="markers",
                customdata=[int(image) for image in rows[shown]],
                marker={"size": size, "symbol": symbol, "color": colour, "line": {"width": 1.4, "color": colour}},
                hoverinfo="none",
            )
    _add_here(figure, theme)
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "images, nearest flip first"}, "range": [0, len(rows) + 1]},
        yaxis={"title": {"text": f"distance ({found.norm}, input units)"}, "range": [0, 1.03 * top]},
        margin={**_MARGIN, "t": 44},
        height=380,
        hovermode="closest",
    )
    marks = [("●", theme.accent, "found"), ("–", theme.muted, "proven")]
    add_key(figure, marks + ([] if known.all() else [("△", theme.warning, "none found")]))
    return figure


def features_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure:
    """In which share of the images each feature changes, for inputs that are no pictures; the 40 most at most."""
    share = np.asarray(dataset["feature_changed"].values, float).ravel()
    rows = np.arange(len(share))
    if len(share) > _MOST_BARS:
        rows = np.sort(np.argsort(-share, kind="stable")[:_MOST_BARS])
    figure = go.Figure(
        go.Bar(
            x=[str(row) for row in rows],
            y=(100 * share[rows]).tolist(),
            marker={"color": theme.accent},
            hovertemplate="feature %{x}: changes in %{y:.3g}% of the images<extra></extra>",
        )
    )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "feature, counted from 0"}, "type": "category"},
        yaxis={"title": {"text": "images in which it changes (%)"}, "range": [0, 104]},
        margin=_MARGIN,
        height=300,
    )
    return figure
