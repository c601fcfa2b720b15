"""L-BFGS inside a box for a batch of independent problems, every row with its own line search and history.

Sources: the two-loop recursion of Nocedal, Math. Comp. 35, 773 (1980), on the free coordinates alone, as the subspace
of Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16, 1190 (1995); the projected line search of Bertsekas, SIAM J.
Control Optim. 20, 221 (1982). What is done to a row is in `box_kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.search.box_kernels import LIMITS, Limits, aim_rows, judge_rows, restart_rows

__all__ = ["BoxMinima", "BoxRows", "BoxSettings", "box_minimise", "finite_rows", "projected"]

_IDLE = 0.5  # share of rows that are done before the others are packed together


@final
@dataclass(frozen=True)
class BoxSettings:
    """A row is done where the Euclidean norm of its gradient, without what pushes out of the box, is at most
    ``gradient_tolerance``, or after ``max_iterations`` steps. ``history``: pairs of a move and its change of gradient
    that make the model of the curvature. No step is longer than ``largest_step`` (Euclidean, input units).

    Raises UserError for numbers that are not positive.
    """

    max_iterations: int = 500
    gradient_tolerance: float = 1e-6
    history: int = 10
    largest_step: float = math.inf

    def __post_init__(self) -> None:
        for argument in ("max_iterations", "gradient_tolerance", "history", "largest_step"):
            number = getattr(self, argument)
            if not number > 0:
                raise UserError(argument, "a positive number", repr(number), "leave it out for the default")


@final
@dataclass(frozen=True)
class BoxMinima:
    """Where each row ended: ``point`` ``(row, n)``, ``value`` ``(row,)`` float64.

    ``gradient_norm`` ``(row,)``: the Euclidean norm of the gradient without what pushes out of the box. ``converged``
    ``(row,)`` bool: it is at most the tolerance. ``iterations`` ``(row,)``: steps taken. A row that starts where the
    function is not finite has value and gradient_norm inf, converged False and iterations 0.
    """

    point: Tensor
    value: Tensor
    gradient_norm: Tensor
    converged: Tensor
    iterations: Tensor


Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def box_minimise(
    function: Function,
    start: Tensor,
    low: Tensor | float,
    high: Tensor | float,
    settings: BoxSettings | None = None,
    *,
    visit: Callable[[Tensor, Tensor], None] | None = None,
) -> BoxMinima:
    """Local minima of ``function`` downhill from ``start`` ``(row, n)``, float32 or float64, within ``low`` and
    ``high``: numbers or ``(n,)``, infinite where there is no wall.

    ``function(points (k, n), rows (k,)) -> values (k,), gradients (k, n)``, where ``rows`` says which problem each
    point belongs to; what is not finite there counts as a step too long. ``visit(points, rows)`` sees every point on
    the way. Rows never influence each other, and those that are done leave the batch.

    Raises UserError for starts of a wrong shape or type or outside the box.
    """
    settings = settings or BoxSettings()
    low, high = _checked(start, low, high)
    n = len(start)
    point, value = start.detach().clone(), torch.full((n,), math.inf, dtype=torch.float64)
    norm, iterations = value.clone(), torch.zeros(n, dtype=torch.long)
    converged = torch.zeros(n, dtype=torch.bool)
    if n:
        everything = torch.arange(n)
        rows = BoxRows(point.clone(), low, high, settings.history, settings.largest_step)
        rows.begin(*finite_rows(*function(point, everything)))
        if visit is not None:
            visit(point, everything)
        while True:
            met = rows.gradient_norm <= settings.gradient_tolerance
            done = rows.active & (met | rows.stuck | (rows.iterations >= settings.max_iterations))
            if bool(done.any()):
                row = rows.row[done]
                point[row], value[row], iterations[row] = rows.point[done], rows.value[done], rows.iterations[done]
                finite = rows.value[done].isfinite()
                norm[row] = torch.where(finite, rows.gradient_norm[done].double(), math.inf)
                converged[row] = met[done] & finite
                rows.rest(done)
            if len(rows.row) == 0:
                break
            here, trial = rows.trial()
            accepted = rows.judge(here, *finite_rows(*function(trial, rows.row[here])))
            if visit is not None:
                visit(trial[accepted], rows.row[here[accepted]])
    return BoxMinima(point, value, norm, converged, iterations)


def projected(gradient: Tensor, point: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``gradient`` without the coordinates in which going downhill would leave [low, high]."""
    blocked = ((point <= low) & (gradient > 0)) | ((point >= high) & (gradient < 0))
    return gradient.masked_fill(blocked, 0.0)


def finite_rows(value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """``value`` ``(row,)`` in float64 and ``gradient`` ``(row, n)``; inf and 0 where not all of a row is finite."""
    # A sum shows whether anything in a row is not finite, in one pass.
    good = value.isfinite() & gradient.sum(1).isfinite()
    if bool(good.all()):
        return value.double(), gradient
    return value.double().masked_fill(~good, math.inf), gradient.masked_fill(~good[:, None], 0.0)


def _checked(start: Tensor, low: Tensor | float, high: Tensor | float) -> tuple[Tensor, Tensor]:
    if start.ndim != 2 or str(start.dtype).removeprefix("torch.") not in LIMITS:
        got = f"{tuple(start.shape)} of {start.dtype}"
        raise UserError("start", "points (row, n) of float32 or float64", got, "flatten each point")
    walls = []
    for name, wall in (("low", low), ("high", high)):
        wall = torch.as_tensor(wall, dtype=start.dtype)
        if wall.ndim > 1 or (wall.ndim == 1 and len(wall) != start.shape[1]):
            raise UserError(name, f"a number or ({start.shape[1]},)", str(tuple(wall.shape)), "give one wall for all")
        walls.append(wall.expand(start.shape[1]))
    inside = ((start >= walls[0]) & (start <= walls[1])).all(1)
    if not bool(inside.all()):
        got = f"row {int((~inside).nonzero()[0])} outside"
        raise UserError("start", "points in the box", got, "clamp the starts to it")
    return walls[0], walls[1]


@final
class BoxRows:
    """Rows still on their way: every tensor has the row as axis 0. For loops that change a row's function on its way;
    others call `box_minimise`.

    ``row`` names each row, ``active`` is False where it is done and waits to be packed away; ``point``, ``value``,
    ``gradient``, ``gradient_norm`` (of the free coordinates), ``iterations``, and ``stuck`` where no step leads down.
    """

    def __init__(self, point: Tensor, low: Tensor, high: Tensor, history: int, largest_step: float = math.inf) -> None:
        n, dim = point.shape
        self._walls = (low.contiguous(), high.contiguous())
        self._limits = Limits(history, float(largest_step), *LIMITS[str(point.numpy().dtype)])
        self.row = torch.arange(n)
        self.active = torch.ones(n, dtype=torch.bool)
        self.point = point
        self.value = torch.zeros(n, dtype=torch.float64)
        self.gradient = torch.zeros_like(point)
        self.gradient_norm = torch.zeros(n, dtype=torch.float64)
        self.iterations = torch.zeros(n, dtype=torch.long)
        self.stuck = torch.zeros(n, dtype=torch.bool)
        self._lost = torch.ones(n, dtype=torch.bool)  # a line search is to begin
        self._pairs = point.new_zeros(n, 2 * history, dim)  # a ring of moves, then one of changes of the gradient
        self._n_pairs = torch.zeros(n, dtype=torch.long)  # ever written
        self._retries = torch.zeros(n, dtype=torch.long)
        self._step = torch.ones(n, dtype=torch.float64)
        self._direction = torch.zeros_like(point)
        self._trial = point.clone()

    def begin(self, value: Tensor, gradient: Tensor) -> None:
        """Take the function's values ``(row,)`` (inf: not finite there) and gradients ``(row, n)`` at the starts."""
        self.value.copy_(value)
        self.gradient.copy_(gradient)
        self.stuck.copy_(~value.isfinite())
        self.gradient_norm.copy_(projected(self.gradient, self.point, *self._walls).norm(dim=1))

    def rest(self, done: Tensor) -> None:
        """Rows ``(row,)`` bool are done: they leave, some of them when more are."""
        self.active &= ~done
        idle = len(self.row) - int(self.active.sum())
        if idle > _IDLE * len(self.row):
            kept = self.active.nonzero()[:, 0]
            for name, tensor in list(vars(self).items()):
                if isinstance(tensor, Tensor):
                    setattr(self, name, tensor[kept])

    def trial(self) -> tuple[Tensor, Tensor]:
        """The active rows ``(k,)``, as indices into the others' tensors, and the points ``(k, n)`` to evaluate."""
        here = self.active.nonzero()[:, 0]
        aim_rows(here.numpy(), *self._arrays())
        return here, self._trial[here]

    def judge(self, here: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Accept or shorten the steps of the rows ``here (k,)``; returns which of them moved ``(k,)`` bool."""
        accepted = torch.zeros(len(here), dtype=torch.bool)
        new_value, new_gradient = value.double().numpy(), gradient.to(self.point.dtype).contiguous().numpy()
        judge_rows(here.numpy(), new_value, new_gradient, accepted.numpy(), *self._arrays())
        return accepted

    def restart(self, rows: Tensor, value: Tensor, stiffening: Tensor) -> None:
        """The function of ``rows`` ``(k,)`` has changed by ``stiffening / 2 |x - anything|^2`` (``(k,)``; NaN: by
        something else, and the history is forgotten): they go on from their ``point`` and ``gradient``, which the
        caller has rewritten in place, with the ``value`` ``(k,)`` there.

        What the history says of the curvature is corrected exactly.
        """
        self.value[rows] = value.double()
        self.iterations[rows] = 0
        self._retries[rows] = 0
        self.stuck[rows] = False
        self._lost[rows] = True
        self._n_pairs[rows[~stiffening.isfinite()]] = 0
        tensors = (self.point, self.gradient, self.gradient_norm, self._pairs, self._n_pairs, *self._walls)
        restart_rows(rows.numpy(), stiffening.nan_to_num(0.0).numpy(), *(tensor.numpy() for tensor in tensors))

    def _arrays(self) -> tuple[object, ...]:
        tensors = (
            self.point,
            self.value,
            self.gradient,
            self.gradient_norm,
            self.iterations,
            self.stuck,
            self._lost,
            self._pairs,
            self._n_pairs,
            self._retries,
            self._step,
            self._direction,
            self._trial,
        )
        return (*(tensor.numpy() for tensor in tensors), *(wall.numpy() for wall in self._walls), self._limits)
