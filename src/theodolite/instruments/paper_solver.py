"""F of the flip-point paper, equation 6: the closest flip point of one network between two classes, from a start.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", equations 1 to
5: the two classes tie and all others are below, within the constraints. The off-the-shelf solver is scipy's SLSQP
(Kraft 1988, "A software package for sequential quadratic programming"); the other is what `pair_flips` is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from theodolite.instruments.feed_forward import FeedForward
from theodolite.outputs import Outputs
from theodolite.search import pair_search
from theodolite.search.pair_flips import class_ties
from theodolite.search.pair_polish import polish
from theodolite.search.regions import Region

_SLOTS = 3  # other outputs that a step keeps below
_MET = 1e-6  # logits and equalities: a point this near counts as feasible on the way


@final
@dataclass(frozen=True)
class Problem:
    """``x (n,)`` float64, the classes ``first`` and ``second`` that tie, all others ``strictly_below`` them, and the
    ``region`` (one row) that holds the answer."""

    x: Tensor
    first: int
    second: int
    region: Region
    strictly_below: float
    max_iterations: int


@final
@dataclass(frozen=True)
class Solved:
    """``point (n,)`` within the box, ``feasible`` up to 1e-6, and ``units``: forward and backward passes."""

    point: Tensor
    feasible: bool
    units: int


def solve_slsqp(layers: FeedForward, problem: Problem, start: Tensor) -> Solved:
    """min |y - x|^2 / 2 under equations 3 to 5 by sequential quadratic programming, from ``start (n,)``."""
    low, high = problem.region.low[0].numpy(), problem.region.high[0].numpy()
    x = problem.x.numpy()
    lead = _leads(layers.n_outputs, problem.first, problem.second)
    seen = _Seen(layers)
    constraints: list[dict[str, Any]] = [
        {
            "type": "eq",
            "fun": lambda y: lead[:1] @ seen.at(y)[0],
            "jac": lambda y: lead[:1] @ seen.at(y)[1],
        }
    ]
    if len(lead) > 1:
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda y: lead[1:] @ seen.at(y)[0] - problem.strictly_below,
                "jac": lambda y: lead[1:] @ seen.at(y)[1],
            }
        )
    if problem.region.matrix is not None and problem.region.offset is not None:
        matrix, offset = problem.region.matrix.numpy(), problem.region.offset[0].numpy()
        constraints.append({"type": "eq", "fun": lambda y: matrix @ y - offset, "jac": lambda y: matrix})
    found = minimize(
        lambda y: 0.5 * float((y - x) @ (y - x)),
        np.clip(start.numpy(), low, high),
        jac=lambda y: y - x,
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints=constraints,
        options={"maxiter": problem.max_iterations, "ftol": 1e-12},
    )
    # A step of the solver may not be finite; the start is then all that is left.
    end = found.x if np.isfinite(found.x).all() else start.numpy()
    return _judged(layers, problem, torch.from_numpy(np.clip(end, low, high)), seen.units)


def solve_own(layers: FeedForward, problem: Problem, start: Tensor) -> Solved:
    """The same problem by this package's sequential quadratic programming for ties, from ``start (n,)``."""
    outputs = Outputs(
        layers.value,
        tuple(problem.x.shape),
        problem.region.low[0],
        problem.region.high[0],
        layers.n_outputs,
        dtype=torch.float64,
    )
    first, second, row = torch.tensor([problem.first]), torch.tensor([[problem.second]]), torch.zeros(1).long()
    ties, x0 = class_ties(outputs, first, second, row, 1), problem.x[None]
    state = pair_search.begin(ties, x0, problem.region, start[None], _SLOTS)
    pair_search.advance(ties, x0, problem.region, state, problem.max_iterations)
    banked = bool(torch.isfinite(state.best_distance[0]))
    point = state.best_point if banked else state.point
    exact = polish(ties, x0, problem.region, point, problem.strictly_below).point
    point = exact if bool(torch.isfinite(exact).all()) else point
    return _judged(layers, problem, point[0], int(ties.units.sum()))


def _judged(layers: FeedForward, problem: Problem, point: Tensor, units: int) -> Solved:
    lead = torch.from_numpy(_leads(layers.n_outputs, problem.first, problem.second)) @ layers.value(point[None])[0]
    feasible = bool(lead[0].abs() <= _MET) and bool((lead[1:] >= 0).all())
    return Solved(point, feasible and bool(problem.region.contains(point[None], _MET)), units + 1)


def _leads(n_outputs: int, first: int, second: int) -> np.ndarray:
    """Rows over the outputs: the first class less the second, then less each other."""
    others = [second, *(k for k in range(n_outputs) if k not in (first, second))]
    rows = np.zeros((len(others), n_outputs))
    rows[:, first] = 1.0
    rows[np.arange(len(others)), others] = -1.0
    return rows


class _Seen:
    """Outputs and Jacobian at the point asked for last, since the solver asks for each of them by itself."""

    def __init__(self, layers: FeedForward) -> None:
        self._layers = layers
        self._point = np.full(layers.weight[0].shape[1], np.nan)
        self._known = (np.empty(0), np.empty(0))
        self.units = 0

    def at(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not np.array_equal(y, self._point):
            output, jacobian = self._layers.value_and_jacobian(torch.from_numpy(y.astype(np.float64)))
            self._point, self._known = y.copy(), (output.numpy(), jacobian.numpy())
            self.units += 1 + self._layers.n_outputs
        return self._known
