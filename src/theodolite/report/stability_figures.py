"""The figures of stability: how far each network can be pushed, and what fools a network that was not made for it."""

from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import words
from theodolite.report.figures import finish
from theodolite.report.parts import add_key
from theodolite.report.stability import Stability, percent, stability
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 78, "r": 24, "t": 44, "b": 58}
_TICKS = list(range(0, 101, 20))
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def network_colours(n: int, theme: Theme) -> list[str]:
    """A colour a network, told apart in greyscale too."""
    if n <= 2:
        return list(theme.categories[:n])
    return [
        str(colour) for colour in plotly.colors.sample_colorscale("Viridis", list(np.linspace(*theme.sequential, n)))
    ]


def distortion_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Of each network the share of its right answers that a distortion up to x fools; x in input units.

    The curve is the distribution of the distortions; where an attack failed it ends below 100%. The dot is the mean.
    """
    found = stability(dataset)
    if not found.found.any():
        return None
    figure = go.Figure()
    colours = network_colours(len(found.names), theme)
    for k, name in enumerate(found.names):
        tried = found.distortion[k][~np.isnan(found.distortion[k])]
        known = np.sort(tried[np.isfinite(tried)])
        if not len(known):
            continue
        share = 100 * np.arange(len(known) + 1) / len(tried)
        end = float(found.distortion[found.found].max())
        line = {"color": colours[k], "width": 2.2, "dash": _DASHES[k % len(_DASHES)], "shape": "hv"}
        figure.add_scatter(
            x=[0.0, *known.tolist(), end],
            y=[*share.tolist(), float(share[-1])],
            name=name,
            mode="lines",
            line=line,
            hovertemplate=f"{name}: %{{y:.3g}}% fooled within %{{x:.3g}}<extra></extra>",
        )
        mean = float(found.mean[k, 0])
        height = float(share[np.searchsorted(known, mean, side="right")])
        figure.add_scatter(
            x=[mean],
            y=[height],
            mode="markers",
            marker={"size": 9, "color": colours[k], "line": {"width": 1.5, "color": theme.paper}},
            hovertemplate=f"{name}: mean {words.number(mean)}<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "distortion (root mean square change, input units)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "right answers fooled (%)"}, "range": [0, 103]},
        margin=_MARGIN,
        height=380,
        hovermode="closest",
    )
    _headed(figure, [("—", colour, name) for colour, name in zip(colours, found.names, strict=True)], 8)
    return figure


def _headed(figure: go.Figure, marks: list[tuple[str, str, str]], lift: int, a_line: int = 4) -> None:
    """The key of the marks, and room for it."""
    n_lines = add_key(figure, marks, lift, a_line)
    figure.update_layout(margin={"t": lift + 36 + 18 * (n_lines - 1)})


def noise_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Of each network the share of right answers that examples made for the others fool, beside noise, with intervals.

    A panel a strength: minimal examples beside the first noise row, amplified ones beside noise of their distortion.
    """
    found = stability(dataset)
    panels = noise_panels(found)
    if not panels:
        return None
    figure = go.Figure()
    n = len(found.names)
    place = np.arange(n)[::-1].astype(float)
    width = 1 / len(panels)
    for panel, (title, examples, noise) in enumerate(panels):
        axis = "x" if panel == 0 else f"x{panel + 1}"
        for rows, colour, symbol, name, shift in (
            (examples, theme.categories[0], "circle", "examples made for another network", 0.14),
            (noise, theme.categories[1], "x", "Gaussian noise", -0.22),
        ):
            marks = [(row, k) for row in rows for k in range(n) if found.made_for[row] != k and found.count[row, k]]
            if not marks:
                continue
            at = tuple(np.array(part) for part in zip(*marks, strict=True))
            rank = np.array([list(rows).index(row) for row, _ in marks])
            lift = shift + (0.0 if len(rows) < 2 else 0.22 * (0.5 - rank / (len(rows) - 1)))
            share, low, high = (100 * table[at] for table in (found.share, found.low, found.high))
            figure.add_scatter(
                x=share.tolist(),
                y=(place[at[1]] + lift).tolist(),
                xaxis=axis,
                name=name,
                mode="markers",
                marker={"size": 8, "color": colour, "symbol": symbol},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (high - share).tolist(),
                    "arrayminus": (share - low).tolist(),
                    "color": colour,
                    "thickness": 1.2,
                    "width": 0,
                },
                text=[
                    f"{found.row_words(row)}, tested on {found.names[k]}: {percent(found.share[row, k])}"
                    for row, k in marks
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        figure.add_annotation(
            text=title,
            xref=f"{axis} domain",
            yref="paper",
            x=0,
            y=1,
            yshift=6,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"color": theme.muted},
        )
    layout: dict[str, Any] = {}
    for panel in range(len(panels)):
        left = panel * width + (0.02 if panel else 0.0)
        layout["xaxis" if panel == 0 else f"xaxis{panel + 1}"] = {
            "domain": [left, (panel + 1) * width - (0.02 if panel + 1 < len(panels) else 0.0)],
            "title": {"text": "fooled (%)"},
            "range": [-2, 104],
            "anchor": "y",
            "tickvals": _TICKS,
            "ticktext": [str(tick) for tick in _TICKS],
        }
    figure.update_layout(layout)
    finish(figure, theme)
    longest = max(len(name) for name in found.names)
    figure.update_layout(
        yaxis={"tickvals": place.tolist(), "ticktext": found.names, "range": [-0.6, n - 0.4]},
        margin={**_MARGIN, "l": min(220, 24 + 8 * longest), "t": 66},
        height=150 + 62 * n,
        hovermode="closest",
    )
    blue, orange = theme.categories
    _headed(figure, [("●", blue, "examples made for another network"), ("✖", orange, "Gaussian noise")], 28, 1)
    return figure


def noise_panels(found: Stability) -> list[tuple[str, list[int], list[int]]]:
    """Title, rows of examples and rows of noise of each panel; none where nothing can be compared."""
    noise = found.rows("noise")
    if not len(noise):
        return []
    panels = []
    if len(found.rows("minimal")):
        title = f"as made; noise {words.tidy(float(found.stated[noise[0]]))}"
        panels.append((title, found.rows("minimal").tolist(), [int(noise[0])]))
    for stated in dict.fromkeys(found.stated[found.rows("amplified")].tolist()):
        beside = found.rows("noise", stated).tolist()
        if beside and len(panels) < 2:
            panels.append((f"both {words.tidy(stated)}", found.rows("amplified", stated).tolist(), beside))
    return panels
