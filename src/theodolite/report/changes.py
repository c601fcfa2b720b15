"""Signed changes as pictures and as bars: each magnified by a round number that is stated beside it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theodolite.report import words
from theodolite.report.sheets import Sheet, sheet

_ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
# Grey 128 is no change, 255 and 1 are plus and minus the largest: `changes.js` reads them back by the same rule.
_LOWEST, _HIGHEST = -128 / 127, 1.0


@dataclass(frozen=True)
class ChangeSheet:
    """Tiles of signed grey: value = (grey - 128) / 127 x ``scale`` of its tile, in input units."""

    sheet: Sheet
    scale: np.ndarray
    factor: np.ndarray

    def plain(self) -> dict[str, Any]:
        """As the page's script reads it."""
        scale = [float(f"{value:.6g}") for value in self.scale]
        return self.sheet.plain() | {"scale": scale, "factor": self.factor.tolist()}


def change_sheet(changes: np.ndarray, spread: float) -> ChangeSheet | None:
    """Draw changes ``(n, *shape)`` of inputs whose values span `spread`; NaN is drawn as no change."""
    if not len(changes):
        return None
    values = np.nan_to_num(np.asarray(changes, float))
    scale = np.abs(values).reshape(len(values), -1).max(axis=1)
    divisor = np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (values.ndim - 1))
    drawn = sheet(values / divisor, _LOWEST, _HIGHEST)
    return ChangeSheet(drawn, scale, np.array([magnification(float(one), spread) for one in scale])) if drawn else None


def magnification(largest: float, spread: float) -> float:
    """The largest round number that keeps the magnified change within the spread of the inputs; 1 for no change."""
    if not (largest > 0 and spread > 0 and math.isfinite(spread / largest)):
        return 1.0
    ratio = spread / largest * (1 + 1e-9)
    decade = 10.0 ** math.floor(math.log10(ratio))
    return max(step * decade for step in _ROUND if step * decade <= ratio)


def bars(change: np.ndarray, start: np.ndarray | None, most: int) -> list[list[Any]]:
    """The largest changes of a list of features: [feature, change, in words, before and after in words], largest first.

    `start` holds the values before; without it the last text is empty.
    """
    flat = np.asarray(change, float).ravel()
    before = None if start is None else np.asarray(start, float).ravel()
    size = np.abs(np.nan_to_num(flat))
    rows = np.argsort(-size, kind="stable")[:most]
    found = []
    for row in (int(row) for row in rows if size[row] > 0):
        sign = "+" if flat[row] > 0 else ""
        said = (
            f"{words.number(float(before[row]))} → {words.number(float(before[row] + flat[row]))}"
            if before is not None
            else ""
        )
        found.append([row, float(f"{flat[row]:.4g}"), sign + words.number(float(flat[row])), said])
    return found
