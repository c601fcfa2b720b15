"""The value of every point of a small discrete space, by index: what exact landscapes are made from.

A point's index is its levels read as digits, coordinate 0 the least significant. Spins with pair couplings are summed
in blocks (each value from a handful of additions, so that nothing drifts); a field with exact single-site changes is
walked in reflected Gray code (Knuth, The Art of Computer Programming 4A, 7.2.1.1, algorithm H), re-anchored at every
block; any other field is evaluated in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba import njit

from theodolite.errors import FieldError, UserError
from theodolite.field import Field, FlipCosts, SingleSite
from theodolite.space import DiscreteSpace

__all__ = ["all_values", "in_parts", "levels_of_index"]

_LOW_BITS = 12
_BLOCKS = 16  # of 2^12 values: what is worked on stays in the processor's cache
_WALK = 1024  # values of a Gray walk from one anchor: rounding has no room to add up
_CHECKED = 64  # points compared with the field itself
_ROUNDING = 1e-12


def all_values(field: Field, memory_limit: int = 4 << 30, *, half: bool = False) -> np.ndarray:
    """Values ``(levels**n,)`` float64 of all points of a discrete field by index, in the field's unit.

    Taken from the field's ``table``, else computed from ``flip_costs`` or ``single_site`` on all cores, else
    evaluated in batches. Where the field has a ``level_spacing``, values are exact multiples of it, so that equal
    energies are equal numbers. ``half``: only the ``(2**(n - 1),)`` points whose last spin is up, the upper half of
    the indices; enough for a field with E(s) = E(-s), which is checked.

    Raises UserError, before any work: the space is not discrete, the values take more than ``memory_limit`` bytes,
    or a half is asked of more than two levels or of a field that is not symmetric. Raises FieldError: the exact
    changes disagree with the field's values by more than 1e-12 of their scale.
    """
    space = _discrete(field)
    n_free = space.n_coordinates - 1 if half else space.n_coordinates
    n_values = space.levels**n_free
    if half and (space.levels != 2 or n_free < 1):
        raise UserError("half", "at least 2 coordinates of 2 levels", space.describe(), "leave half out")
    if 8 * n_values > memory_limit:
        raise UserError(
            "field",
            f"values within the memory limit of {memory_limit / 2**30:.3g} GiB",
            f"{float(n_values):.4g} points of {space.describe()}, which take {n_values / 2**27:.4g} GiB",
            "raise memory_limit, or use a method that does not enumerate",
        )
    first_index = n_values if half else 0
    if half:
        _refuse_asymmetric(field)
    if field.table is not None:
        values = field.table.reshape(-1)[first_index:].double().numpy().copy()
        if len(values) != n_values:
            raise FieldError("table", f"{n_values} values", str(len(values)), "give one value a point, by index")
        return values
    if field.flip_costs is not None:
        values = _from_flip_costs(field.flip_costs, half)
    elif field.single_site is not None:
        values = _from_single_site(field, field.single_site, first_index, n_values)
    else:
        return _on_spacing(field, _by_evaluation(field, np.arange(first_index, first_index + n_values)))
    _refuse_disagreement(field, values, first_index)
    return _on_spacing(field, values)


def levels_of_index(index: np.ndarray, n: int, n_levels: int) -> np.ndarray:
    """Levels ``(..., n)`` of points by index ``(...)``; uint8, or int64 above 256 levels."""
    kind = np.uint8 if n_levels <= 256 else np.int64
    index = np.asarray(index, dtype=np.int64)
    levels = np.empty((*index.shape, n), dtype=kind)
    for coordinate in range(n):
        levels[..., coordinate] = index // n_levels**coordinate % n_levels
    return levels


def in_parts(work: Callable[[int, int], object], n_items: int) -> list:
    """What ``work(start, stop)`` returns for consecutive parts of 0..n_items, one a core, run in threads.

    ``work`` calls kernels compiled with ``nogil``: unlike ``prange`` that costs no compilation time.
    """
    n_parts = max(1, min(numba.get_num_threads(), n_items))
    edges = [n_items * part // n_parts for part in range(n_parts + 1)]
    if n_parts == 1:
        return [work(0, n_items)]
    with ThreadPoolExecutor(n_parts) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))


# ---------------------------------------------------------------------- the three ways


def _from_flip_costs(costs: FlipCosts, half: bool) -> np.ndarray:
    """E = E(high spins) + E(low spins) - sum over low spins of s_i L_i(high spins), a block of low spins at a time.

    The last sum is split into two short tables, so that a value is three additions.
    """
    n = len(costs.external)
    n_free = n - 1 if half or (costs.mirrored and n > 1) else n
    n_low = min(n_free, _LOW_BITS)
    narrow = n_low // 2
    couplings = costs.couplings
    low = _all_spins(n_low)
    inner = -0.5 * ((low @ couplings[:n_low, :n_low]) * low).sum(1).reshape(-1, 1 << narrow)
    upper = np.empty((1 << (n_free - n_low), *inner.shape))

    def fill(start: int, stop: int) -> None:
        for first in range(start, stop, _BLOCKS):
            block = np.arange(first, min(first + _BLOCKS, stop))
            high = np.ones((len(block), n - n_low))  # spins that are not free are up
            high[:, : n_free - n_low] = 2.0 * levels_of_index(block, n_free - n_low, 2) - 1.0
            local = costs.external[:n_low] + high @ couplings[n_low:, :n_low]
            outer = costs.constant - (high * (0.5 * high @ couplings[n_low:, n_low:] + costs.external[n_low:])).sum(1)
            near = -local[:, :narrow] @ _all_spins(narrow).T
            far = outer[:, None] - local[:, narrow:] @ _all_spins(n_low - narrow).T
            part = upper[block[0] : block[-1] + 1]
            np.add(near[:, None, :], inner, out=part)
            np.add(part, far[:, :, None], out=part)

    in_parts(fill, len(upper))
    values = upper.reshape(-1)
    return values if half or n_free == n else np.concatenate([values[::-1], values])


def _all_spins(n: int) -> np.ndarray:
    """``(2**n, n)`` spins -1 and +1 of every state."""
    return 2.0 * levels_of_index(np.arange(1 << n), n, 2) - 1.0


def _from_single_site(field: Field, changes: SingleSite, first_index: int, n_values: int) -> np.ndarray:
    space = _discrete(field)
    n_walked = 1
    while n_walked < space.n_coordinates and space.levels ** (n_walked + 1) <= min(_WALK, n_values):
        n_walked += 1
    block = space.levels**n_walked
    anchor = np.arange(first_index, first_index + n_values, block)
    anchor_value = _by_evaluation(field, anchor)
    levels = levels_of_index(anchor, space.n_coordinates, space.levels).astype(np.int64)
    values = np.empty(n_values)

    def walk(start: int, stop: int) -> None:
        _walk_blocks(changes.change, changes.data, space.levels, n_walked, levels, anchor_value, start, stop, values)

    walk(0, 1)  # compiles the caller's kernel once, before the threads
    in_parts(walk, len(anchor))
    return values


def _by_evaluation(field: Field, index: np.ndarray) -> np.ndarray:
    space = _discrete(field)
    values = np.empty(len(index))
    for start in range(0, len(index), 1 << 16):
        part = index[start : start + (1 << 16)]
        levels = torch.from_numpy(levels_of_index(part, space.n_coordinates, space.levels).astype(np.int64))
        points = space.from_levels(levels).reshape(len(part), *space.shape)
        values[start : start + len(part)] = field.value(points).numpy()
    return values


# ---------------------------------------------------------------------- checks


def _discrete(field: Field) -> DiscreteSpace:
    if not isinstance(field.space, DiscreteSpace):
        raise UserError(
            "field", "a field over a discrete space", field.space.describe(), "use a method for real spaces"
        )
    return field.space


def _spread_out(n_items: int) -> np.ndarray:
    """Up to 64 of 0..n_items - 1, the ends among them, without a pattern in their digits."""
    return np.unique(np.linspace(0, n_items - 1, min(_CHECKED, n_items)).astype(np.int64))


def _refuse_asymmetric(field: Field) -> None:
    symmetric = field.flip_costs.mirrored if field.flip_costs is not None else None
    if symmetric is None:
        n_points = 1 << field.space.n_coordinates
        index = _spread_out(n_points)
        value, mirrored = (_by_evaluation(field, some) for some in (index, n_points - 1 - index))
        symmetric = bool(np.abs(value - mirrored).max() <= _ROUNDING * max(1.0, np.abs(value).max()))
    if not symmetric:
        raise UserError("half", "a field with E(s) = E(-s)", repr(field.name), "enumerate all states: leave half out")


def _refuse_disagreement(field: Field, values: np.ndarray, first_index: int) -> None:
    some = _spread_out(len(values))
    direct = _by_evaluation(field, first_index + some)
    difference = float(np.abs(values[some] - direct).max())
    if not difference <= _ROUNDING * max(1.0, float(np.abs(direct).max())):
        raise FieldError(
            "field",
            "exact changes that agree with its values to 1e-12",
            f"a difference of {difference:.3g} in {field.name!r}",
            "evaluate the field in float64, or correct its single-site changes",
        )


def _on_spacing(field: Field, values: np.ndarray) -> np.ndarray:
    if field.level_spacing is not None:
        np.divide(values, field.level_spacing, out=values)
        np.rint(values, out=values)
        np.multiply(values, field.level_spacing, out=values)
    return values


@njit(nogil=True)
def _walk_blocks(
    change: Callable[..., float],
    data: tuple,
    n_levels: int,
    n_walked: int,
    anchor_level: np.ndarray,
    anchor_value: np.ndarray,
    start: int,
    stop: int,
    values: np.ndarray,
) -> None:
    """Blocks ``start``..``stop`` of ``n_levels**n_walked`` values from their anchors, one change a step."""
    block_size = n_levels**n_walked
    direction, focus = np.ones(n_walked, np.int64), np.arange(n_walked + 1)
    for block in range(start, stop):
        levels = anchor_level[block].copy()
        direction[:] = 1
        for site in range(n_walked + 1):
            focus[site] = site
        index, value = block * block_size, anchor_value[block]
        values[index] = value
        for _ in range(block_size - 1):
            site = focus[0]
            focus[0] = 0
            new_level = levels[site] + direction[site]
            value += change(levels, site, new_level, data)
            levels[site] = new_level
            index += direction[site] * n_levels**site
            values[index] = value
            if new_level == 0 or new_level == n_levels - 1:
                direction[site] = -direction[site]
                focus[site] = focus[site + 1]
                focus[site + 1] = site + 1
