"""The nearest point of a region beyond one linearised boundary where no dual gives it: L1 and Linf with equalities.

Both are linear programs, solved by HiGHS (Huangfu and Hall, Math. Programming Computation 10, 119 (2018)).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from theodolite.search.regions import Region

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def project_beyond(region: Region, x0: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """As ``region.project`` for one cut ``normal (row, n)`` . y <= ``offset (row,)``, exact in every norm, to the
    1e-10 of the solver; a row's program takes milliseconds to tens of them."""
    y = region.project(x0, normal[:, None], offset[:, None])
    if region.norm == "L2" or region.matrix is None or region.offset is None:
        return y
    solve = _least_sum if region.norm == "L1" else _least_largest
    matrix = region.matrix.double().numpy()
    for row in range(len(x0)):
        low, high, equal = (part[row].double().numpy() for part in (region.low, region.high, region.offset))
        free = low < high
        held = np.where(free, 0.0, low)
        cut = normal[row].double().numpy()
        if not free.any() or not np.isfinite(cut).all():
            continue
        found = solve(
            x0[row].double().numpy()[free],
            low[free],
            high[free],
            np.vstack([cut[free]]),
            np.array([float(offset[row]) - cut @ held]),
            matrix[:, free],
            equal - matrix @ held,
        )
        if found is not None:
            y[row, torch.from_numpy(free)] = torch.from_numpy(found).to(y.dtype)
    return region.nearest(x0, y)


def _least_sum(
    x0: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    cut: np.ndarray,
    bound: np.ndarray,
    matrix: np.ndarray,
    equal: np.ndarray,
) -> np.ndarray | None:
    """y = x0 + rise - fall with the least sum of both."""
    rise = np.stack([np.maximum(low - x0, 0.0), np.maximum(high - x0, 0.0)], 1)
    fall = np.stack([np.maximum(x0 - high, 0.0), np.maximum(x0 - low, 0.0)], 1)
    found = linprog(
        np.ones(2 * len(x0)),
        A_ub=np.hstack([cut, -cut]),
        b_ub=bound - cut @ x0,
        A_eq=np.hstack([matrix, -matrix]),
        b_eq=equal - matrix @ x0,
        bounds=np.vstack([rise, fall]),
        method="highs",
        options=_OPTIONS,
    )
    return x0 + found.x[: len(x0)] - found.x[len(x0) :] if found.status == 0 else None


def _least_largest(
    x0: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    cut: np.ndarray,
    bound: np.ndarray,
    matrix: np.ndarray,
    equal: np.ndarray,
) -> np.ndarray | None:
    """y and t with |y - x0| <= t in every coordinate, t the least."""
    eye, column = sparse.eye_array(len(x0)), -np.ones((len(x0), 1))
    rows = sparse.vstack(
        [
            sparse.hstack([sparse.coo_array(cut), sparse.coo_array((1, 1))]),
            sparse.hstack([eye, column]),
            sparse.hstack([-eye, column]),
        ]
    )
    found = linprog(
        np.append(np.zeros(len(x0)), 1.0),
        A_ub=rows.tocsr(),
        b_ub=np.concatenate([bound, x0, -x0]),
        A_eq=np.hstack([matrix, np.zeros((len(matrix), 1))]),
        b_eq=equal,
        bounds=np.vstack([np.stack([low, high], 1), [0.0, np.inf]]),
        method="highs",
        options=_OPTIONS,
    )
    return found.x[:-1] if found.status == 0 else None
