"""The exact change of a value when one coordinate changes, for every field that has it or a table to look it up in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from theodolite.field import Field, FlipCosts, SingleSite
from theodolite.space import DiscreteSpace

ROUNDING = 1e-12  # relative, of changes computed in float64


def compiled_change(field: Field) -> SingleSite | None:
    """The field's ``single_site``, or one that looks its ``table`` up; None where it has neither."""
    if field.single_site is not None or field.table is None or not isinstance(field.space, DiscreteSpace):
        return field.single_site
    strides = field.space.levels ** np.arange(field.space.n_coordinates, dtype=np.int64)
    return SingleSite(change=table_change, data=(field.table.numpy(), strides))


def spin_rounding(costs: FlipCosts) -> float:
    """The largest gain of a flip that may be rounding, in units of the energy."""
    return ROUNDING * max(1.0, float((np.abs(costs.couplings).sum(1) + np.abs(costs.external)).max()))


@njit
def table_change(levels: Any, site: int, new_level: int, data: Any) -> float:
    """Change of a tabulated field: two look-ups at the indices before and after."""
    table, strides = data
    index = 0
    for p in range(len(levels)):
        index += strides[p] * np.int64(levels[p])
    moved = index + strides[site] * (np.int64(new_level) - np.int64(levels[site]))
    return np.float64(table[moved]) - np.float64(table[index])
