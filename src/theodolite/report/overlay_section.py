"""The section that lays two landscapes of one field over each other."""

from functools import partial
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from theodolite.disconnectivity import compare
from theodolite.report import landscape
from theodolite.report.overlay_figure import matching, overlay_figure
from theodolite.report.parts import figure_pair, plain
from theodolite.report.themes import Theme


def overlay_section(one: xr.Dataset, other: xr.Dataset, names: tuple[str, str], key: str) -> dict[str, Any] | None:
    """Words, figure and numbers of the comparison; None where the two surveys are of different spaces."""
    if str(one.attrs.get("space", "")) != str(other.attrs.get("space", "")):
        return None
    pairs = matching(one, other)
    first, second = landscape.basins(one), landscape.basins(other)
    answers = compare(first.tree, second.tree, pairs)
    agreeing, testable = int((answers == 1).sum()), int((answers >= 0).sum())
    headline = _headline(agreeing, testable, names)
    shared = (
        f"{len(pairs):,} of {len(first.energy):,} basins of “{names[0]}” are among the {len(second.energy):,} "
        f"of “{names[1]}”."
    )
    columns = {
        "merge": list(range(1, len(answers) + 1)),
        "upper_bound": plain(first.tree[:, 2]),
        "agrees": [{1: "yes", 0: "no", -1: "not in both"}[int(answer)] for answer in answers],
    }
    draw = partial(_drawn, other=other)
    return {
        "key": key,
        "instrument": "overlay",
        "question": "Do two surveys agree",
        "template": "overlay.html.j2",
        "scripts": [],
        "styles": [],
        "headline": headline,
        "shared": shared,
        "names": names,
        "drawn": {"overlay": figure_pair(draw, one, f"Two trees overlaid. {headline}. {shared}", columns)},
        "script": {},
    }


def _headline(agreeing: int, testable: int, names: tuple[str, str]) -> str:
    if testable == 0:
        return f"“{names[0]}” and “{names[1]}” share too few basins to be compared"
    if agreeing == testable:
        return f"Both surveys join the basins they share in the same order: {testable} of {testable} barriers agree"
    return f"{agreeing} of {testable} barriers between shared basins agree in both surveys"


def _drawn(one: xr.Dataset, theme: Theme, other: xr.Dataset) -> go.Figure:
    return overlay_figure(one, other, theme)
