"""The exact tree of a field whose values are all known: every minimum, every basin, the lowest pass of every pair.

Every state drains along its steepest descent (ties: the same move every time), a plateau with an exit into the nearest
one; a plateau without is one minimum. The lowest pass of two neighbouring basins is the least, over all edges between
them, of the edge's higher end; the min-max closure of these passes gives the true barriers, since every path between
two minima changes basins on such edges and every edge is reached by descents (watershed of a weighted graph: Cousty,
Bertrand, Najman and Couprie, IEEE Trans. Pattern Anal. 31, 1362 (2009)). The tree is that of Hill, Nijkamp and Zhu
2019, 'Building a Telescope to Look Into High-Dimensional Image Spaces', section 5.1, without sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theodolite.errors import UserError
from theodolite.search import watershed_kernels as kernels
from theodolite.search.enumerated_values import in_parts, levels_of_index
from theodolite.search.passes import bottlenecks, minimum_spanning_passes
from theodolite.search.state_moves import StateMoves

__all__ = ["Watershed", "watershed"]


@dataclass(frozen=True, eq=False)
class Watershed:
    """Minima and passes of ``n`` coordinates of ``n_levels`` levels.

    Minima, rising in energy: ``minimum_level`` ``(K, n)`` is one state of each, the smallest index of its plateau (of
    a mirrored pair found by the mirror quotient, the smallest with the last spin up, and its mirror image);
    ``energy`` ``(K,)`` in the field's unit; ``basin_size`` ``(K,)`` states that drain there.

    Passes, rising in level: ``first`` < ``second`` ``(m,)`` are minima, ``level`` ``(m,)`` the pass's energy;
    ``state`` ``(m, n)`` drains to ``first``, and with coordinate ``coordinate`` ``(m,)`` changed to ``new_level``
    ``(m,)`` to ``second``. They are the lowest of every pair of neighbouring basins, up to the highest barrier of all:
    a pair without one has a lower detour. ``complete`` is False where there were more than fit, and only those of
    the minimum bottleneck spanning tree are here (the barriers are the same).
    """

    n_levels: int
    minimum_level: np.ndarray
    energy: np.ndarray
    basin_size: np.ndarray
    first: np.ndarray
    second: np.ndarray
    level: np.ndarray
    state: np.ndarray
    coordinate: np.ndarray
    new_level: np.ndarray
    complete: bool
    _descent: np.ndarray = field(repr=False)
    _moves: StateMoves = field(repr=False)

    def barrier(self, memory_limit: int = 1 << 30) -> np.ndarray:
        """True barriers ``(K, K)`` between all minima; the diagonal is their energy.

        Raises UserError where the matrix takes more than ``memory_limit`` bytes.
        """
        n_minima = len(self.energy)
        if 8 * n_minima**2 > memory_limit:
            raise UserError(
                "memory_limit",
                f"at least {8 * n_minima**2 / 2**30:.3g} GiB for the barriers of {n_minima} minima",
                f"{memory_limit / 2**30:.3g} GiB",
                "raise it, or use the passes themselves: search.passes.minimum_spanning_passes",
            )
        return bottlenecks(n_minima, self.first, self.second, self.level, self.energy)

    def path(self, number: int) -> np.ndarray:
        """States ``(steps, n)`` of a pass: from minimum ``first`` up to ``state``, over it and down to ``second``.

        Consecutive states differ in one coordinate; the highest energy is the pass's level.
        """
        start = self._moves.index(self.state[number])
        other = self.state[number].copy()
        other[self.coordinate[number]] = self.new_level[number]
        up, down = self._descend(int(start)), self._descend(int(self._moves.index(other)))
        return levels_of_index(np.array(up[::-1] + down), self._moves.n, self.n_levels)

    def basin_of(self, level: np.ndarray) -> np.ndarray:
        """Numbers ``(batch,)`` of the minima that states ``(batch, n)`` of levels drain to."""
        index = self._moves.index(level)
        while (draining := (move := self._move(index)) != self._root).any():
            index[draining] = self._moves.follow(index[draining], move[draining])[0]
        minimum = self._moves.index(self.minimum_level)
        order = np.argsort(minimum)
        return order[np.searchsorted(minimum[order], index)]

    def _descend(self, index: int) -> list[int]:
        states = [index]
        while (move := self._move(np.array(states[-1]))) != self._root:
            states.append(int(self._moves.follow(np.array(states[-1]), move)[0]))
        return states

    def _move(self, index: np.ndarray) -> np.ndarray:
        return self._descent[self._moves.enumerated(index)].astype(np.int64)

    @property
    def _root(self) -> int:
        return int(np.iinfo(self._descent.dtype).max) - 1


def watershed(
    values: np.ndarray,
    n: int,
    levels: int = 2,
    *,
    neighbourhood: str = "any",
    mirror: bool = False,
    pass_limit: int = 1 << 23,
) -> Watershed:
    """Exact minima and passes of the values ``(levels**n,)`` of all states by index (`enumerated_values.all_values`).

    A step changes one coordinate to any level (``neighbourhood`` "any") or to the next one ("adjacent"). Energies are
    equal where their numbers are; a connected set of equal energies is one minimum. ``mirror``: E(s) = E(-s), which
    is checked; half the states are enumerated, or given: the ``(2**(n - 1),)`` values of states whose last spin is up.
    Above ``pass_limit`` pairs of neighbouring basins only the passes that matter to barriers are kept. Memory beside
    the values: 3 bytes a state (up to 6 where there are many coordinates or minima), 24 bytes a state on a plateau
    and 48 bytes a pass and core.

    Raises UserError, before any work: values of another length or not finite, an unknown neighbourhood, fewer than two
    levels, or a mirror that the values do not have.
    """
    given = _checked(values, n, levels, neighbourhood, mirror)
    if mirror:
        half = given[-(1 << (n - 1)) :]
        moves = StateMoves(n, levels, neighbourhood, True)
        basins = _basins(half, moves)
        if not basins.self_mirrored:
            return _tree(half, moves, basins, pass_limit)
        # A minimum that is its own mirror image has no place in the quotient.
        given = np.concatenate([half[::-1], half])
    moves = StateMoves(n, levels, neighbourhood, False)
    return _tree(given, moves, _basins(given, moves), pass_limit)


# ---------------------------------------------------------------------- basins


@dataclass(frozen=True)
class _Basins:
    """``descent`` and ``label`` of every enumerated state, the ``roots`` of the minima, and whether one of them is
    its own mirror image. A label is the root's number, under the mirror quotient twice that plus a parity."""

    descent: np.ndarray
    label: np.ndarray
    roots: np.ndarray
    self_mirrored: bool


def _basins(values: np.ndarray, moves: StateMoves) -> _Basins:
    kind = _smallest_kind(moves.n_moves + 2)
    flat = int(np.iinfo(kind).max)
    descent = np.empty(moves.n_states, kind)
    common = (moves.neighbour, moves.data)

    def descend(start: int, stop: int) -> None:
        kernels.steepest(values, *common, moves.n_moves, descent, flat, start, stop)

    def descend_blocks(start: int, stop: int) -> None:
        n_bits = moves.n - 1 if moves.mirror else moves.n
        kernels.steepest_spins(values, n_bits, moves.mirror, descent, flat, start, stop)

    if moves.n_levels == 2 and moves.n_states >= 1 << kernels.BLOCK_BITS:
        in_parts(descend_blocks, moves.n_states >> kernels.BLOCK_BITS)
    else:
        in_parts(descend, moves.n_states)
    flat_states = np.flatnonzero(descent == flat)
    roots, members = kernels.settle_plateaus(values, *common, moves.n_moves, descent, flat, flat_states)

    images = 2 if moves.mirror else 1
    label_kind = _smallest_kind(images * len(roots) + 1)
    unknown = int(np.iinfo(label_kind).max)
    label = np.full(moves.n_states, unknown, label_kind)
    label[roots] = images * np.arange(len(roots))

    def follow(start: int, stop: int) -> None:
        kernels.label_basins(*common, moves.crossing, descent, label, unknown, start, stop)

    in_parts(follow, moves.n_states)
    self_mirrored = moves.mirror and kernels.own_mirror_image(values, moves.data, moves.crossing, label, members)
    return _Basins(descent, label, roots, bool(self_mirrored))


# ---------------------------------------------------------------------- passes


def _tree(values: np.ndarray, moves: StateMoves, basins: _Basins, pass_limit: int) -> Watershed:
    images = 2 if moves.mirror else 1
    n_labels = images * len(basins.roots)
    root, image = np.divmod(np.arange(n_labels), images)
    index = moves.represented(basins.roots[root], image)
    energy = values[basins.roots[root]]
    order = np.lexsort((index, energy))
    number = np.empty(n_labels, np.int64)
    number[order] = np.arange(n_labels)

    code, complete = _lowest_passes(values, moves, basins, n_labels, pass_limit)
    state, move = np.divmod(np.tile(code, images), moves.n_moves)
    image = np.repeat(np.arange(images), len(code))
    other = moves.enumerated_neighbour(state, move)
    near = basins.label[state].astype(np.int64) ^ image
    far = basins.label[other].astype(np.int64) ^ image ^ (move == moves.crossing)
    # Both images of a pass between a minimum and its own mirror image are passes of the same pair: one is enough.
    kept = (near // images != far // images) | (image == 0)
    state, move, image, other, near, far = (some[kept] for some in (state, move, image, other, near, far))
    level = np.maximum(values[state], values[other])
    first, second = number[near], number[far]
    begin = moves.represented(state, image)
    end, coordinate, new_level = moves.follow(begin, move)
    swapped = first > second
    old_level = begin // moves.strides[coordinate] % moves.n_levels
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    begin, new_level = np.where(swapped, end, begin), np.where(swapped, old_level, new_level)
    rising = np.lexsort((second, first, level))
    sizes = _basin_sizes(basins.label, n_labels).reshape(-1, images).sum(1)
    return Watershed(
        n_levels=moves.n_levels,
        minimum_level=levels_of_index(index[order], moves.n, moves.n_levels),
        energy=energy[order],
        basin_size=np.repeat(sizes, images)[order],
        first=first[rising],
        second=second[rising],
        level=level[rising],
        state=levels_of_index(begin[rising], moves.n, moves.n_levels),
        coordinate=coordinate[rising],
        new_level=new_level[rising],
        complete=complete,
        _descent=basins.descent,
        _moves=moves,
    )


@dataclass
class _Table:
    """The open-addressed table of `watershed_kernels.lowest_passes`."""

    keys: np.ndarray
    levels: np.ndarray
    codes: np.ndarray
    used: int = 0

    @classmethod
    def empty(cls, capacity: int) -> _Table:
        return cls(np.full(capacity, -1), np.empty(capacity), np.empty(capacity, np.int64))

    def filled(self, other: _Table) -> _Table:
        self.used = kernels.refill(other.keys, other.levels, other.codes, self.keys, self.levels, self.codes, self.used)
        return self


def _lowest_passes(
    values: np.ndarray, moves: StateMoves, basins: _Basins, n_labels: int, pass_limit: int
) -> tuple[np.ndarray, bool]:
    """Codes (enumerated state * n_moves + move) of the lowest pass of every pair, and whether none was left out.

    The lowest states first, up to a ceiling that is raised until the passes connect all minima: most states of a
    rugged landscape lie far above its highest barrier, and are never looked at.
    """
    largest = 1 << (2 * max(pass_limit, 4 * (n_labels + moves.n_moves)) - 1).bit_length()
    found, complete, above = _Table.empty(1 << 10), True, -np.inf
    for ceiling in _ceilings(values):

        def search(start: int, stop: int, above: float = above, ceiling: float = ceiling) -> tuple[_Table, bool]:
            table, whole, position = _Table.empty(min(1 << 10, largest)), True, start
            while True:
                position, table.used = kernels.lowest_passes(
                    values, above, ceiling, moves.neighbour, moves.data, moves.n_moves, moves.crossing, basins.label,
                    n_labels, position, stop, table.keys, table.levels, table.codes, table.used,
                )  # fmt: skip
                if position == stop:
                    return table, whole
                capacity = min(4 * len(table.keys), largest)
                if len(table.keys) == largest:
                    whole = False
                    table = _spanning(table, n_labels, moves.mirror)
                table = _Table.empty(capacity).filled(table)

        tables, parts_complete = zip(*in_parts(search, moves.n_states), strict=True)
        merged = _Table.empty(1 << (2 * (found.used + sum(table.used for table in tables))).bit_length())
        for table in (found, *tables):
            merged.filled(table)
        complete, above = complete and all(parts_complete), ceiling
        found = merged if complete else _spanning(merged, n_labels, moves.mirror)
        spanning = _spanning_entries(found, n_labels, moves.mirror)
        if len(spanning) == n_labels - 1:
            break
    needed = found.levels <= found.levels[spanning].max(initial=-np.inf)
    return found.codes[needed & (found.keys >= 0)], complete


def _ceilings(values: np.ndarray) -> list[float]:
    """Levels below which about 1/16, 1/4 and all of the states lie."""
    highest = float(values.max())
    if len(values) < 1 << 12:
        return [highest]
    some = values[np.linspace(0, len(values) - 1, 1 << 12).astype(np.int64)]
    return [*np.quantile(some, [1 / 16, 1 / 4]).tolist(), highest]


def _spanning_entries(table: _Table, n_labels: int, mirror: bool) -> np.ndarray:
    """The entries that the minimum bottleneck spanning tree needs, of both images under a mirror; rising in level."""
    held = np.flatnonzero(table.keys >= 0)
    low, high = np.divmod(table.keys[held], n_labels)
    if mirror:
        low, high, held = np.append(low, low ^ 1), np.append(high, high ^ 1), np.append(held, held)
    return held[minimum_spanning_passes(n_labels, low, high, table.levels[held])]


def _spanning(table: _Table, n_labels: int, mirror: bool) -> _Table:
    chosen = np.unique(_spanning_entries(table, n_labels, mirror))
    return _Table(table.keys[chosen], table.levels[chosen], table.codes[chosen], len(chosen))


def _basin_sizes(label: np.ndarray, n_labels: int) -> np.ndarray:
    sizes = np.zeros(n_labels, np.int64)
    for start in range(0, len(label), 1 << 20):  # bincount copies to 8 bytes a state
        sizes += np.bincount(label[start : start + (1 << 20)], minlength=n_labels)
    return sizes


def _smallest_kind(n_values: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type of unsigned numbers that holds ``n_values`` and the marks above them."""
    return np.uint8 if n_values <= 1 << 8 else np.uint16 if n_values <= 1 << 16 else np.uint32


def _checked(values: np.ndarray, n: int, levels: int, neighbourhood: str, mirror: bool) -> np.ndarray:
    if neighbourhood not in ("any", "adjacent"):
        raise UserError("neighbourhood", '"any" or "adjacent"', repr(neighbourhood), "choose one of the two")
    if n < 1 or levels < 2:
        raise UserError("levels", "at least 2 levels of at least 1 coordinate", f"{levels} of {n}", "see the space")
    if mirror and levels != 2:
        raise UserError("mirror", "2 levels", str(levels), "leave mirror out: only spins have a mirror image")
    given = np.ascontiguousarray(values, dtype=np.float64)
    lengths = [levels**n, levels ** (n - 1)] if mirror else [levels**n]
    if given.ndim != 1 or len(given) not in lengths:
        raise UserError("values", f"({lengths[0]},) values", f"shape {given.shape}", "give one value a state, by index")
    if not np.isfinite(given).all():
        raise UserError("values", "finite values", "a NaN or an infinity", "bound the field's value")
    if mirror and len(given) == lengths[0]:
        half = len(given) // 2
        difference = float(np.abs(given[half:] - given[half - 1 :: -1]).max())
        if not difference <= 1e-12 * max(1.0, float(np.abs(given).max())):
            raise UserError(
                "mirror", "E(s) = E(-s)", f"a difference of {difference:.3g}", "leave mirror out: enumerate all states"
            )
    return given
