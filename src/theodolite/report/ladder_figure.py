"""Do ladders from different starts tell the same story? The figure beside the verdict."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report.figures import finish
from theodolite.report.themes import LIGHT, Theme


def agreement_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Do ladders from different starts agree, and do rungs exchange and fluctuate as they should?

    Top: each ladder's mean output less the average over ladders, in standard deviations of the output on
    the rung. Middle: variance / (d mean / d lambda), 1 in equilibrium. Bottom: accepted exchanges with the
    next rung. None where the method had no rungs.
    """
    if "rung_mean" not in dataset or "rung_variance" not in dataset:
        return None
    mean = np.asarray(dataset["rung_mean"].transpose("ladder", "rung").values, float)
    spread = np.sqrt(np.nanmean(np.asarray(dataset["rung_variance"].transpose("ladder", "rung").values, float), axis=0))
    x = np.nanmean(mean, axis=0)
    starts = ladder_names(dataset)
    figure = go.Figure()
    with np.errstate(divide="ignore", invalid="ignore"):
        departures = (mean - x) / spread
    symbols = ["circle", "square-open", "triangle-up", "diamond-open", "x"]
    colours = [theme.accent, theme.categories[1], theme.muted, theme.warning]
    for index, (start, row) in enumerate(zip(starts, departures, strict=True)):
        figure.add_scatter(
            x=x,
            y=row,
            mode="markers",
            name=f"from {start}",
            marker={"symbol": symbols[index % 5], "size": 6, "color": colours[index % 4]},
            hovertemplate="%{y:+.2f} standard deviations<extra>from " + start.replace("<", "‹") + "</extra>",
        )
    panels = [
        ("fluctuation_ratio", "yaxis2", "variance / slope"),
        ("swap_rate", "yaxis3", "exchanges"),
    ]
    for name, axis, _ in panels:
        if name in dataset:
            figure.add_scatter(
                x=x,
                y=np.asarray(dataset[name].values, float),
                yaxis="y" + axis[5:],
                mode="markers",
                showlegend=False,
                marker={"size": 5, "color": theme.accent},
                hovertemplate="%{y:.2f}<extra></extra>",
            )
    far = max(0.6, float(np.nanmax(np.abs(departures), initial=0.0)) * 1.1)
    ratio = np.asarray(dataset["fluctuation_ratio"].values, float) if "fluctuation_ratio" in dataset else np.ones(1)
    figure.update_layout(
        yaxis={
            "domain": [0.56, 1.0],
            "range": [-far, far],
            "title": {"text": "departure (std. dev.)"},
        },
        yaxis2={
            "domain": [0.29, 0.50],
            "range": [min(0.7, float(np.nanmin(ratio)) - 0.05), max(1.35, float(np.nanmax(ratio)) + 0.05)],
            "nticks": 4,
            "title": {"text": panels[0][2]},
        },
        yaxis3={"domain": [0.0, 0.23], "range": [0, 1], "nticks": 4, "title": {"text": panels[1][2]}},
        xaxis={"anchor": "y3", "title": {"text": "mean output on the rung"}},
        height=520,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    )
    for axis, low, high in (("y", -0.5, 0.5), ("y2", 0.8, 1.25), ("y3", 0.2, 1.0)):
        figure.add_shape(
            type="rect", xref="paper", x0=0, x1=1, yref=axis, y0=low, y1=high,
            fillcolor=theme.band, opacity=0.45, line={"width": 0}, layer="below",
        )  # fmt: skip
    finish(figure, theme)
    figure.update_layout(margin={"l": 78, "r": 20, "t": 40, "b": 52}, showlegend=True)
    return figure


def ladder_names(dataset: xr.Dataset) -> list[str]:
    """What each ladder started from, in words."""
    count = int(dataset.sizes.get("ladder", 0))
    if "ladder_start" in dataset:
        return [str(name) for name in np.atleast_1d(dataset["ladder_start"].values)]
    return [f"ladder {index + 1}" for index in range(count)]
