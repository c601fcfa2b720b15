"""The figures of an ensemble: reliability, uncertainty by condition, uncertainty by level of a density survey."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import ensemble as numbers
from theodolite.report.figures import finish
from theodolite.report.parts import add_key
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 70, "r": 24, "t": 44, "b": 58}
_MOST_DRAWN = 400  # inputs a strip


def reliability_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Accuracy against confidence in bins, on the inputs as given: the single network and the ensemble.

    Both axes are shares; bars are 95% intervals, the size of a mark grows with the inputs in its bin.
    """
    counts = np.asarray(dataset["bin_count"].values, float)[0]
    if not counts.sum():
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"color": theme.muted, "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )  # fmt: skip
    subjects = [(0, numbers.single(dataset), theme.categories[1], "square-open", -0.004)]
    subjects.append((-1, "ensemble", theme.categories[0], "circle", 0.004))
    for subject, name, colour, symbol, shift in subjects:
        count = counts[subject]
        filled = count > 0
        value, low, high = (
            np.asarray(dataset[part].values, float)[0, subject][filled]
            for part in ("bin_accuracy", "bin_accuracy_low", "bin_accuracy_high")
        )
        confidence = np.asarray(dataset["bin_confidence"].values, float)[0, subject][filled]
        figure.add_scatter(
            x=(confidence + shift).tolist(),
            y=value.tolist(),
            name=name,
            mode="markers",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (high - value).tolist(),
                "arrayminus": (value - low).tolist(),
                "thickness": 1.4,
                "width": 3,
                "color": colour,
            },
            marker={
                "symbol": symbol,
                "color": colour,
                "size": (6 + 12 * np.sqrt(count[filled] / count.max())).tolist(),
                "line": {"width": 2, "color": colour},
            },
            customdata=count[filled].tolist(),
            hovertemplate=f"{name}: %{{customdata}} inputs, confidence %{{x:.3f}}, accuracy %{{y:.3f}}<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={"title": {"text": "probability of the answer (mean of the bin)"}, "range": [0, 1.02]},
        yaxis={"title": {"text": "share of right answers"}, "range": [0, 1.03]},
        margin=_MARGIN,
        height=420,
        hovermode="closest",
    )
    add_key(figure, [("□", theme.categories[1], numbers.single(dataset)), ("●", theme.categories[0], "ensemble")])
    return figure


def strip_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Of every condition a strip: the entropy and the mutual information of each input (nats), with their means.

    Lines across are means with 95% intervals; at most 400 inputs a strip are drawn.
    """
    names = [str(name) for name in dataset["condition"].values]
    series = [
        ("entropy", "predictive_entropy", "predictive entropy", theme.categories[0], -0.2),
        ("mutual information", "mutual_information", "mutual information", theme.categories[1], 0.2),
    ]
    if not any(np.isfinite(dataset[variable].values).any() for _, variable, *_ in series):
        return None
    figure = go.Figure()
    for title, variable, quantity, colour, shift in series:
        table = np.asarray(dataset[variable].values, float)
        row = numbers.place(dataset, "quantity", quantity)
        across: list[float] = []
        along: list[float] = []
        for number, values in enumerate(table):
            known = values[np.isfinite(values)]
            drawn = (
                known[np.linspace(0, len(known) - 1, min(len(known), _MOST_DRAWN)).astype(int)] if len(known) else known
            )
            # Spread by rank and not by chance, so that a page is the same twice.
            spread = 0.15 * (2 * ((np.arange(len(drawn)) * 0.6180339887) % 1) - 1)
            across += (number + shift + spread).tolist()
            along += drawn.tolist()
        figure.add_scatter(
            x=across,
            y=along,
            mode="markers",
            name=title,
            hoverinfo="skip",
            marker={"size": 4, "color": colour, "opacity": 0.4},
        )
        estimates = np.array([numbers.triple(dataset, "quantity_mean", number, row) for number in range(len(names))])
        figure.add_scatter(
            x=(np.arange(len(names)) + shift).tolist(),
            y=estimates[:, 0].tolist(),
            mode="markers",
            name=f"mean {title}",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (estimates[:, 2] - estimates[:, 0]).tolist(),
                "arrayminus": (estimates[:, 0] - estimates[:, 1]).tolist(),
                "thickness": 2,
                "width": 5,
                "color": theme.ink,
            },
            marker={"symbol": "line-ew", "size": 22, "line": {"width": 2.6, "color": theme.ink}},
            hovertemplate=f"mean {title}: %{{y:.3f}} nats<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={
            "tickvals": list(range(len(names))),
            "ticktext": [_broken(name) for name in names],
            "range": [-0.5, len(names) - 0.5],
            "title": {"text": ""},
        },
        yaxis={"title": {"text": "nats"}, "rangemode": "tozero"},
        margin={**_MARGIN, "b": 74},
        height=420,
        hovermode="closest",
    )
    add_key(
        figure,
        [
            ("●", theme.categories[0], "entropy of the ensemble"),
            ("●", theme.categories[1], "mutual information"),
            ("—", theme.ink, "mean, 95% interval"),
        ],
    )
    return figure


def _broken(name: str) -> str:
    """A condition in short lines, so that neighbours do not meet."""
    lines, line = [], ""
    for word in name.split():
        if line and len(line) + len(word) > 11:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])


def levels_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """By level of the density survey: above, the share that the single network is sure of and the share of these that
    the ensemble doubts; below, the entropy and the mutual information, all with 95% intervals.

    x in units of the surveyed output; shares from 0 to 1; entropies in nats.
    """
    if not numbers.has_levels(dataset):
        return None
    seen = np.asarray(dataset["level_count"].values) > 0
    level = np.asarray(dataset["level"].values, float)[seen]
    figure = go.Figure()
    for name, variable, colour, dash in (
        ("sure", "level_sure_share", theme.muted, "dash"),
        ("doubted", "level_doubted_share", theme.warning, "solid"),
    ):
        parts = [np.asarray(dataset[f"{variable}{end}"].values, float)[seen] for end in ("", "_low", "_high")]
        _banded(figure, level, parts, name, colour, dash, "y")
    for name, quantity, colour in (
        ("entropy", "predictive entropy", theme.categories[0]),
        ("mutual information", "mutual information", theme.categories[1]),
    ):
        column = numbers.place(dataset, "quantity", quantity)
        parts = [
            np.asarray(dataset[f"level_quantity_mean{end}"].values, float)[seen, column]
            for end in ("", "_low", "_high")
        ]
        _banded(figure, level, parts, name, colour, "solid", "y2")
    # The axis must be there to be styled.
    figure.update_layout(yaxis2={"anchor": "x"})
    finish(figure, theme)
    observable = str(dataset.attrs.get("levels_observable", "")) or "the surveyed output"
    figure.update_layout(
        xaxis={"title": {"text": f"output: {observable} of {numbers.single(dataset)}"}, "anchor": "y2"},
        yaxis={"title": {"text": "share"}, "domain": [0.56, 1.0], "range": [-0.03, 1.05]},
        yaxis2={"title": {"text": "nats"}, "domain": [0.0, 0.46], "rangemode": "tozero"},
        margin=_MARGIN,
        height=470,
    )
    marks = [("- -", theme.muted, f"{numbers.single(dataset)} is sure"), ("—", theme.warning, "of these, doubted")]
    marks += [("—", theme.categories[0], "entropy"), ("—", theme.categories[1], "mutual information")]
    add_key(figure, marks)
    return figure


def _banded(
    figure: go.Figure, x: np.ndarray, parts: list[np.ndarray], name: str, colour: str, dash: str, axis: str
) -> None:
    """A line with its interval as a band; gaps where nothing is known."""
    value, low, high = parts
    known = np.isfinite(value)
    for run in _runs(known):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        figure.add_scatter(
            x=[*x[run], *x[run][::-1]],
            y=[*high[run], *low[run][::-1]],
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},0.16)",
            line={"width": 0},
            mode="lines",
            name=f"{name}, interval",
            hoverinfo="skip",
            yaxis=axis,
        )
    figure.add_scatter(
        x=x.tolist(),
        y=[float(one) if np.isfinite(one) else None for one in value],
        mode="lines",
        name=name,
        line={"color": colour, "dash": dash, "width": 2},
        yaxis=axis,
        hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
    )


def _runs(known: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    return [slice(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
