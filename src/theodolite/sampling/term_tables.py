"""Values of consecutive inputs of a sum of local terms, at a fraction of the price of evaluating each input.

A term near the border of a small grid reads few coordinates: its values over all settings of these are listed once
and looked up. The other terms are evaluated, alone, from hidden values that are put together: the field's first
stage is affine, so that the low and the high digits of an index contribute independently to what it gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.field import Field, Terms
from theodolite.sampling.multicanonical import discrete_space

_LARGEST_TABLE = 2**20  # 8 MiB: larger tables leave the processor's caches and are slow to fill
_HIDDEN_BYTES = 2**22  # larger blocks leave the caches; smaller ones wait for the threads more than they compute
_LEAST_USES = 4  # look-ups an entry must serve, on average, to be worth its evaluation

Position = tuple[int, int]


@final
class TermTables:
    """The values of a field with local ``terms`` that have a ``window``, by index (coordinate 0 the least
    significant digit). ``batch``: most inputs evaluated at once. The tables are filled here, and not counted as
    evaluations: each value counts one, whether it is evaluated whole or in part.
    """

    def __init__(self, field: Field, batch: int) -> None:
        self._field = field
        self._terms: Terms = field.require("terms")
        evaluated, groups = plan(self._terms, discrete_space(field).levels, field.space.n_coordinates)
        self._evaluated = _rectangle(evaluated)
        # glibc gives freed memory back, and mapping it anew for every block costs a third of the time; it learns from
        # the largest array freed how much to keep.
        torch.empty(4 * _HIDDEN_BYTES, dtype=torch.uint8)
        before = field.evaluations
        self._digits = _Superposition(field, tuple(range(field.space.n_coordinates)), batch)
        self._tables = [self._fill(window, positions, batch) for window, positions in groups.items()]
        field.evaluations = before

    def values(self, start: int, stop: int) -> Tensor:
        """Values ``(stop - start,)`` float64 of the inputs from index ``start`` on."""
        before = self._field.evaluations
        value = torch.full((stop - start,), self._terms.constant, dtype=torch.float64)
        for table in self._tables:
            value += table.values[self._digits.patterns(start, stop, table.strides)]
        if self._evaluated is not None:
            value += self._sums(self._digits, start, stop, self._evaluated)
        self._field.evaluations = before + stop - start
        return value

    def _fill(self, window: tuple[int, ...], positions: list[Position], batch: int) -> _Table:
        levels = discrete_space(self._field).levels
        count = levels ** len(window)
        rows, columns = _rectangle(positions) or (slice(0, 0), slice(0, 0))
        chosen = [(r - rows.start) * (columns.stop - columns.start) + c - columns.start for r, c in positions]
        digits = _Superposition(self._field, window, batch)
        strides = torch.zeros(self._field.space.n_coordinates, dtype=torch.int64)
        strides[list(window)] = levels ** torch.arange(len(window))
        return _Table(self._sums(digits, 0, count, (rows, columns), chosen), strides)

    def _sums(
        self,
        digits: _Superposition,
        start: int,
        stop: int,
        rectangle: tuple[slice, slice],
        chosen: list[int] | slice = slice(None),
    ) -> Tensor:
        parts = [
            self._field.window_terms(affine, *rectangle)[:, chosen].sum(1) for affine in digits.affine(start, stop)
        ]
        return torch.cat(parts)


@dataclass(frozen=True)
class _Table:
    """``values[sum of digit * stride]``: strides ``(n_coordinates,)``, 0 for a coordinate that is not read."""

    values: Tensor
    strides: Tensor


class _Superposition:
    """All settings of some coordinates, the others at level 0, by index: the first coordinate is the least
    significant digit. What the field's affine stage gives for one is that of its low digits plus that of its high.
    """

    def __init__(self, field: Field, coordinates: tuple[int, ...], batch: int) -> None:
        self._levels = discrete_space(field).levels
        self._coordinates = torch.tensor(coordinates)
        self._n_coordinates = field.space.n_coordinates
        self._table: Tensor = field.require("level_differences").table
        self._affine_stage = field.require("terms").window.affine
        self._zero = self._affine(torch.zeros(1, self._n_coordinates, dtype=torch.int64))
        fitting = _HIDDEN_BYTES // (self._zero.numel() * self._zero.element_size())
        n_low = max(1, int(math.log(max(1, min(batch, fitting)), self._levels) + 1e-9))
        self._low_coordinates, self._high_coordinates = self._coordinates[:n_low], self._coordinates[n_low:]
        self._size = self._levels ** len(self._low_coordinates)
        self._low_digits = self._settings(torch.arange(self._size), self._low_coordinates)
        self._low = self._affine(self._low_digits)

    def affine(self, start: int, stop: int) -> Iterator[Tensor]:
        """The affine stage of the settings from index ``start`` on, ``(batch, ...)`` at a time."""
        blocks = torch.arange(start // self._size, (stop - 1) // self._size + 1)
        # The hidden values of all high digits at once could fill the memory.
        for some in blocks.split(64):
            high = self._affine(self._settings(some, self._high_coordinates)) - self._zero
            for number, difference in zip(some.tolist(), high, strict=True):
                first = number * self._size
                yield self._low[max(start - first, 0) : min(stop - first, self._size)] + difference

    def patterns(self, start: int, stop: int, strides: Tensor) -> Tensor:
        """Sums of digit * stride ``(stop - start,)`` int64, for strides ``(n_coordinates,)``."""
        index = torch.arange(start, stop)
        block = index // self._size
        blocks = torch.arange(start // self._size, (stop - 1) // self._size + 1)
        low = (self._low_digits * strides).sum(1)
        high = (self._settings(blocks, self._high_coordinates) * strides).sum(1)
        return low[index - block * self._size] + high[block - blocks[0]]

    def _settings(self, index: Tensor, coordinates: Tensor) -> Tensor:
        """Levels ``(index, n_coordinates)`` whose digits at ``coordinates`` are those of ``index``."""
        level = torch.zeros(len(index), self._n_coordinates, dtype=torch.int64)
        level[:, coordinates] = (index[:, None] // self._levels ** torch.arange(len(coordinates))) % self._levels
        return level

    def _affine(self, level: Tensor) -> Tensor:
        with torch.no_grad():
            return self._affine_stage(self._table[level])


def plan(terms: Terms, levels: int, n_coordinates: int) -> tuple[list[Position], dict[tuple[int, ...], list[Position]]]:
    """Positions to evaluate for every input, and positions to look up by the coordinates that their table reads.

    A window inside a larger one shares its table.
    """
    rows, columns = terms.grid
    largest = min(_LARGEST_TABLE, levels**n_coordinates // _LEAST_USES)
    windows = {
        (row, column): _window(terms, n_coordinates, row, column) for row in range(rows) for column in range(columns)
    }
    rest = _rectangle([position for position, window in windows.items() if levels ** len(window) > largest])
    inside = set()
    if rest is not None:
        inside = {(r, c) for r in range(rest[0].start, rest[0].stop) for c in range(rest[1].start, rest[1].stop)}
    groups: dict[tuple[int, ...], list[Position]] = {}
    for position in sorted(windows.keys() - inside, key=lambda position: -len(windows[position])):
        window = windows[position]
        home = next((wider for wider in groups if set(window) <= set(wider)), window)
        groups.setdefault(home, []).append(position)
    return sorted(inside), groups


def _window(terms: Terms, n_coordinates: int, row: int, column: int) -> tuple[int, ...]:
    """The coordinates, ascending, that the term at a position reads."""
    rows, columns = terms.grid
    area = rows * columns
    inside = [
        r * columns + c
        for r in range(max(0, row - terms.radius), min(rows, row + terms.radius + 1))
        for c in range(max(0, column - terms.radius), min(columns, column + terms.radius + 1))
    ]
    return tuple(channel * area + site for channel in range(n_coordinates // area) for site in inside)


def _rectangle(positions: list[Position]) -> tuple[slice, slice] | None:
    """The smallest rectangle that holds the positions; None for none."""
    if not positions:
        return None
    rows, columns = [r for r, _ in positions], [c for _, c in positions]
    return slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1)
