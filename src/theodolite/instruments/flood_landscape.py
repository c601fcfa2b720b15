"""A map of a field of one or two real coordinates: all of it evaluated on a grid, and the grid flooded.

The truth to compare other methods with on surfaces that can be drawn: no minimum wider than the grid's spacing is
missed. Barriers are those of paths along the grid, pinned between its points, so they are upper bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments import landscape_checks
from theodolite.instruments.continuous_landscape import CITATIONS
from theodolite.instruments.landscape_findings import LandscapeFindings
from theodolite.instruments.tree_paths import barriers_of_passes
from theodolite.search.real_paths import pin_barrier
from theodolite.search.surface_flood import SurfaceFlood, surface_flood
from theodolite.space import Box

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_SIDE = 2001  # points along each axis of a surface
_LINE = 20_001  # points of a field of one coordinate
_POINTS_A_STEP = 500_000


@dataclass(frozen=True)
class FloodState:
    """The values of the first grid points, row by row."""

    values: Tensor


@final
class FloodLandscape:
    """Evaluates the grid, some rows a step; raises UserError for fields of more than two coordinates or no box."""

    def __init__(self, settings: Landscape, field: Field) -> None:
        if not isinstance(field.space, Box) or field.space.n_coordinates > 2:
            got = f"{field.name!r} over {field.space.describe()}"
            raise UserError("method", "a field over a Box of one or two coordinates for 'flood'", got, "use 'network'")
        self.settings, self.field, self.space = settings, field, field.space
        self.shape = (1, _LINE) if field.space.n_coordinates == 1 else (_SIDE, _SIDE)

    def plan(self) -> str:
        return f"flood, the field evaluated on a grid of {' x '.join(str(n) for n in self.shape if n > 1)} points"

    def init(self, generator: torch.Generator) -> FloodState:
        return FloodState(torch.empty(0, dtype=torch.float64))

    def step(self, state: FloodState, generator: torch.Generator) -> tuple[FloodState, dict[str, Any]]:
        done = len(state.values)
        index = np.arange(done, min(done + _POINTS_A_STEP, self.shape[0] * self.shape[1]))
        values = self.field.value(torch.from_numpy(self._points(index)))
        return FloodState(torch.cat([state.values, values])), {"stage": "grid", "points": done + len(index)}

    def stop(self, state: FloodState, info: Mapping[str, Any]) -> str | None:
        return "Every grid point was evaluated." if len(state.values) == self.shape[0] * self.shape[1] else None

    def _points(self, index: np.ndarray) -> np.ndarray:
        """Points ``(n, *shape)`` of the grid by index; the row is the last coordinate of two."""
        low, high, side = self.space.low, self.space.high, self.shape[1]
        column = low + (high - low) * (index % side) / (side - 1)
        if self.shape[0] == 1:
            return column.reshape(-1, *self.space.shape)
        row = low + (high - low) * (index // side) / (side - 1)
        return np.stack([column, row], 1).reshape(-1, *self.space.shape)

    def findings(self, state: FloodState, generator: torch.Generator) -> LandscapeFindings:
        total = self.shape[0] * self.shape[1]
        values = np.full(total, np.inf)
        values[: len(state.values)] = state.values.numpy()
        flood = surface_flood(values.reshape(self.shape), diagonal=True)
        routes = _routes(values, self.shape[1], flood)
        n = len(flood.energy)
        ends = np.array([route[0] for route in routes], np.int64).reshape(-1, 2)
        paths = [self._points(route[1]) for route in routes]
        level = np.array([float(pin_barrier(self.field, torch.from_numpy(path)[None]).energy[0]) for path in paths])
        listed = min(n, self.settings.n_minima)
        barriers = barriers_of_passes(
            flood.energy,
            ends[:, 0],
            ends[:, 1],
            level,
            listed,
            lambda index: paths[index],
            lambda points: self.field.value(torch.from_numpy(points)).numpy(),
        )
        whole = landscape_checks.whole_grid(len(state.values), total)
        what = f"{listed} of {landscape_checks.counted(n)} on a grid of {total:,} points"
        return LandscapeFindings(
            method="flood",
            point=self._points(flood.row[:listed] * self.shape[1] + flood.column[:listed]),
            energy=flood.energy[:listed],
            barriers=barriers,
            judgement=landscape_checks.judged(whole, barriers, what, proven_list=False),
            citations=CITATIONS,
        )


def _routes(values: np.ndarray, side: int, flood: SurfaceFlood) -> list[tuple[tuple[int, int], np.ndarray]]:
    """For each pass of a flood the two minima its steepest descents end in, and the grid points between them.

    Which minima of the two pools these are does not matter to the barriers: the pools are joined at that level.
    """
    minimum = flood.row * side + flood.column
    number = {int(index): k for k, index in enumerate(minimum)}
    pool = np.arange(len(minimum))

    def root(k: int) -> int:
        while pool[k] != k:
            k = int(pool[k])
        return k

    routes = []
    for row, column in zip(flood.pass_row, flood.pass_column, strict=True):
        top = int(row * side + column)
        ways = [_descended(values, side, start) for start in _beside(values, side, top) if values[start] <= values[top]]
        first = ways[0]
        for other in ways[1:]:
            ends = number.get(first[-1]), number.get(other[-1])
            if ends[0] is not None and ends[1] is not None and root(ends[0]) != root(ends[1]):
                pool[root(ends[1])] = root(ends[0])
                routes.append(((ends[0], ends[1]), np.array([*first[::-1], top, *other])))
    return routes


def _beside(values: np.ndarray, side: int, place: int) -> list[int]:
    row, column = divmod(place, side)
    rows = range(max(row - 1, 0), min(row + 2, len(values) // side))
    columns = range(max(column - 1, 0), min(column + 2, side))
    return [r * side + c for r in rows for c in columns if r * side + c != place]


def _descended(values: np.ndarray, side: int, place: int) -> list[int]:
    way = [place]
    while True:
        lowest = min(_beside(values, side, way[-1]), key=lambda k: values[k])
        if values[lowest] >= values[way[-1]]:
            return way
        way.append(lowest)
