"""What every section of the page is made of: figures in both themes, numbers for a CSV file, the table of checks."""

import html
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.errors import UserError
from theodolite.report import figures, words
from theodolite.report.themes import DARK, LIGHT

_PASSED = {1: ("passed", "✓"), 0: ("failed", "✗"), -1: ("not tested", "○")}


def figure_pair(
    draw: Callable[..., go.Figure | None], source: Any, alt: str, columns: dict[str, list[Any]]
) -> dict[str, Any]:
    """A figure as the page carries it: light, dark, the changes for a phone, its words and its numbers."""
    light, dark = draw(source, LIGHT), draw(source, DARK)
    if light is None or dark is None:
        raise UserError("dataset", "the variables of the figure", "none of them", "draw it only where they are")
    return {
        "light": _plain_figure(light),
        "dark": _plain_figure(dark),
        "narrow": figures.narrow_layout(light),
        "height": light.layout.height,
        "alt": alt,
        "columns": columns,
    }


def _plain_figure(figure: go.Figure) -> dict[str, Any]:
    return json.loads(figure.to_json(validate=False) or "{}")


def error_bars(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, thickness: float = 1.0, width: float = 0.0
) -> dict[str, Any]:
    """Plotly's `error_y` from intervals; none is drawn where an end is not known."""
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(high - value).tolist(),
        "arrayminus": np.nan_to_num(value - low).tolist(),
        "color": colour,
        "thickness": thickness,
        "width": width,
    }


def add_key(figure: go.Figure, marks: list[tuple[str, str, str]], lift: int = 8, a_line: int | None = None) -> int:
    """What the ``marks`` (sign, colour, name) are, above the axes, ``a_line`` of them in a line; how many lines.

    Text, since plotly may lay a legend over the data.
    """
    parts = [f'<span style="color:{colour}">{mark}</span> {html.escape(name)}' for mark, colour, name in marks]
    size = a_line or max(len(parts), 1)
    lines = ["   ".join(parts[k : k + size]) for k in range(0, len(parts), size)]
    if lines:
        figure.add_annotation(
            text="<br>".join(lines),
            align="left",
            xref="paper",
            yref="paper",
            x=0,
            y=1,
            yshift=lift,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
    return len(lines)


def common(dataset: xr.Dataset, key: str, question: str) -> dict[str, Any]:
    """What the page asks of every section: `key` makes its ids unique."""
    return {
        "key": key,
        "instrument": str(dataset.attrs["instrument"]),
        "question": question,
        "verdict": str(dataset["verdict"].values),
        "verdict_sentence": str(dataset["verdict_sentence"].values),
        "unconverged": "",
        "method": str(dataset.attrs.get("method", "")),
        "checks": checks(dataset),
        "sets": [],
    }


def plain(values: np.ndarray) -> list[float | str | None]:
    """Numbers that JSON and CSV can hold: NaN and inf are empty, -inf (proven empty) is a word."""
    return [float(v) if math.isfinite(v) else ("-inf" if v == -math.inf else None) for v in values]


def checks(dataset: xr.Dataset) -> list[dict[str, str]]:
    """The verdict's checks, a row each; empty where none was recorded."""
    if "check_name" not in dataset:
        return []
    return [
        {
            "name": str(name).replace("_", " "),
            "sentence": str(sentence),
            "value": words.tidy(float(value)),
            "limit": str(limit),
            "result": _PASSED[int(passed)][0],
            "mark": _PASSED[int(passed)][1],
        }
        for name, sentence, value, limit, passed in zip(
            dataset["check_name"].values,
            dataset["check_sentence"].values,
            np.asarray(dataset["check_value"].values, float),
            dataset["check_limit"].values,
            dataset["check_passed"].values,
            strict=True,
        )
    ]
