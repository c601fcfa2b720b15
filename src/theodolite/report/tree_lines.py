"""The lines of a tree of basins: what is drawn where, as the coordinates of plotly traces (None ends a line)."""

from typing import Any

import numpy as np

from theodolite.report.tree_layout import Trunks


def trunk_lines(ends: Trunks, place: np.ndarray, chosen: np.ndarray) -> tuple[list[Any], list[Any]]:
    """Upright from each minimum to where it ends, then across to the trunk it joins; None between."""
    x: list[Any] = []
    y: list[Any] = []
    for k in chosen.tolist():
        x += [float(place[k])]
        y += [float(ends.energy[k])]
        if ends.joins[k] >= 0:
            x += [float(place[k]), float(place[ends.joins[k]])]
            y += [float(ends.upper[k])] * 2
        else:
            x += [float(place[k])]
            y += [root_top(ends, k)]
        x.append(None)
        y.append(None)
    return x, y


def root_top(ends: Trunks, root: int) -> float:
    """The highest merge on a trunk that ends on no other."""
    onto = ends.upper[ends.joins == root]
    return float(onto.max(initial=ends.energy[root]))


def band_lines(ends: Trunks, place: np.ndarray, chosen: np.ndarray) -> tuple[list[Any], list[Any]]:
    """A rectangle a merge, from its lower to its upper bound, between the two trunks."""
    x: list[Any] = []
    y: list[Any] = []
    for k in chosen.tolist():
        one, other = float(place[k]), float(place[ends.joins[k]])
        low, high = float(ends.lower[k]), float(ends.upper[k])
        x += [one, other, other, one, one, None]
        y += [low, low, high, high, low, None]
    return x, y


def stub_lines(ends: Trunks, place: np.ndarray, top: float) -> tuple[list[Any], list[Any]]:
    """Above the last merge of each connected part, up to the top of the figure."""
    x: list[Any] = []
    y: list[Any] = []
    for k in np.flatnonzero(ends.joins < 0).tolist():
        if np.isfinite(place[k]):
            x += [float(place[k]), float(place[k]), None]
            y += [root_top(ends, k), top, None]
    return x, y


def upright_lines(ends: Trunks, place: np.ndarray) -> tuple[list[Any], list[Any]]:
    """The trunks alone."""
    x: list[Any] = []
    y: list[Any] = []
    for k in range(len(ends.energy)):
        top = float(ends.upper[k]) if ends.joins[k] >= 0 else root_top(ends, k)
        x += [float(place[k]), float(place[k]), None]
        y += [float(ends.energy[k]), top, None]
    return x, y


def crossbar_lines(ends: Trunks, place: np.ndarray, chosen: np.ndarray) -> tuple[list[Any], list[Any]]:
    """The level lines of merges alone."""
    x: list[Any] = []
    y: list[Any] = []
    for k in chosen.tolist():
        x += [float(place[k]), float(place[ends.joins[k]]), None]
        y += [float(ends.upper[k])] * 2 + [None]
    return x, y
