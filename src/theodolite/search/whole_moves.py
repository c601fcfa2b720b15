"""From a relaxed flip point to whole numbers: rounding, moving until the class flips, moving back while it stays
flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.search.constraint_rules import EQUALITY_TOLERANCE, Rules
from theodolite.search.margins import Margins
from theodolite.search.regions import Region

_MOST_EXCHANGED = 64  # features of a sum whose pairs are all listed for exchanges
_OFFSETS = (1, 5, 29, 101)  # of more features, the partners of each in the list
_TRIED = 16  # best moves of each kind that are combined and tried


@final
@dataclass(frozen=True, eq=False)
class WholeMoves:
    """Steps of one between whole numbers that keep every equality: ``first (move,)`` changes by ``first_step``,
    ``second`` by ``second_step`` (0: nothing)."""

    rules: Rules
    first: Tensor
    first_step: Tensor
    second: Tensor
    second_step: Tensor

    def outcome(self, v: Tensor, x0: Tensor, region: Region, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``(row, move)`` the linearised change of the margin and the change of the (squared, in L1 plain) distance;
        both inf where a move leaves the region."""
        margin = gradient[:, self.first] * self.first_step + gradient[:, self.second] * self.second_step
        cost = torch.zeros_like(margin)
        allowed = torch.ones_like(margin, dtype=torch.bool)
        for feature, step in ((self.first, self.first_step), (self.second, self.second_step)):
            before = (v - x0)[:, feature]
            after = before + step
            cost += after.abs() - before.abs() if region.norm == "L1" else after.square() - before.square()
            moved = v[:, feature] + step
            allowed &= (moved >= region.low[:, feature]) & (moved <= region.high[:, feature])
        return margin.masked_fill(~allowed, torch.inf), cost.masked_fill(~allowed, torch.inf)

    def apply(self, v: Tensor, chosen: Tensor) -> Tensor:
        """``v (row, n)`` after each move as often as ``chosen (row, move)`` says."""
        amount = chosen.to(v.dtype)
        return v.index_add(1, self.first, amount * self.first_step).index_add(1, self.second, amount * self.second_step)


def whole_moves(rules: Rules) -> WholeMoves:
    """Every whole feature by one up or down; those in sums by exchanging one between two of equal weights."""
    free = (rules.whole & rules.movable & (rules.low < rules.high)).nonzero()[:, 0]
    weights = torch.zeros((0, len(rules.low)), dtype=torch.float64) if rules.matrix is None else rules.matrix
    columns = weights[:, free]
    alone = free[~columns.any(0)]
    first, step = alone.repeat(2), torch.cat([torch.ones(len(alone)), -torch.ones(len(alone))])
    pairs = [torch.zeros((0, 2), dtype=torch.long)]
    tied = columns.any(0)
    if bool(tied.any()):
        bound = free[tied]
        _, kind = torch.unique(columns[:, tied], dim=1, return_inverse=True)
        for one in range(int(kind.max()) + 1):
            members = bound[kind == one]
            if len(members) <= _MOST_EXCHANGED:
                pairs.append(torch.cartesian_prod(members, members))
                continue
            near = torch.cat([torch.stack([members, members.roll(offset)], 1) for offset in _OFFSETS])
            pairs += [near, near.flip(1)]
    exchanged = torch.cat(pairs)
    exchanged = exchanged[exchanged[:, 0] != exchanged[:, 1]]
    ones = torch.ones(len(exchanged))
    return WholeMoves(
        rules,
        torch.cat([first, exchanged[:, 0]]),
        torch.cat([step, ones]).double(),
        torch.cat([first, exchanged[:, 1]]),
        torch.cat([torch.zeros(len(first)), -ones]).double(),
    )


def rounded(rules: Rules, region: Region, x0: Tensor, y: Tensor, *, away: bool) -> Tensor:
    """``y (row, n)`` with whole numbers in its whole features: the nearest, or (``away``) those farther from ``x0``;
    sums of whole features repaired one by one, nearest to ``y`` first."""
    nearest = y.round()
    if away:
        beyond = torch.where(y >= x0, (y - 1e-9).ceil(), (y + 1e-9).floor())
        nearest = torch.where((y - x0).abs() > 1e-9, beyond, nearest)
    v = torch.where(rules.whole, nearest.clamp(region.low, region.high), y)
    if region.matrix is None or region.offset is None:
        return v
    loose = rules.movable & (rules.low < rules.high) & ~rules.whole
    sums = ~region.matrix[:, loose].any(1)
    matrix, offset = region.matrix[sums], region.offset[:, sums]
    features = (rules.whole & matrix.any(0)).nonzero()[:, 0]
    if not len(features):
        return v
    feature, step = features.repeat(2), torch.ones(2 * len(features), dtype=torch.float64)
    step[len(features) :] = -1.0
    for _ in range(len(features)):
        gap = v @ matrix.T - offset
        after = (gap[:, None] + matrix.T[feature] * step[:, None]).square().sum(2)
        moved = v[:, feature] + step
        outside = (moved < region.low[:, feature]) | (moved > region.high[:, feature])
        before = gap.square().sum(1, keepdim=True)
        better = ~outside & (after < before * (1 - 1e-9))
        if not bool(better.any()):
            break
        # Least gap first; among equals the one nearest to y.
        strain = (moved - y[:, feature]).abs()
        worth = after + 1e-3 * strain * before / (1 + strain)
        best = worth.masked_fill(~better, torch.inf).argmin(1, keepdim=True)
        change = step[best] * better.any(1, keepdim=True)
        v = v.scatter_add(1, feature[best], change)
    return v


def keeps_equalities(region: Region, y: Tensor) -> Tensor:
    """``(row,)`` bool, to 1e-9 of the terms' sizes."""
    if region.matrix is None or region.offset is None:
        return torch.ones(len(y), dtype=torch.bool)
    size = y.abs() @ region.matrix.abs().T + region.offset.abs()
    return ((y @ region.matrix.T - region.offset).abs() <= EQUALITY_TOLERANCE * size).all(1)


def until_flipped(
    moves: WholeMoves, margins: Margins, region: Region, x0: Tensor, v: Tensor, n_rounds: int
) -> tuple[Tensor, Tensor]:
    """``v (row, n)`` moved over the boundary by the moves that cost least distance a unit of margin, and the margins
    ``(row,)`` there; some stay positive."""
    margin = torch.full((len(v),), torch.inf, dtype=torch.float64)
    rows = torch.arange(len(v))
    v = v.clone()
    for _ in range(n_rounds):
        value, gradient = margins.select(rows).value_and_gradient(v[rows])
        margin[rows] = value
        still = value > 0
        rows, value, gradient = rows[still], value[still], gradient[still]
        if not len(rows):
            return v, margin
        part = region.select(rows)
        change, cost = moves.outcome(v[rows], x0[rows], part, gradient)
        worth = torch.where(change < 0, -change / cost.clamp(min=1e-12), -torch.inf)
        chosen = _leading(moves, worth, -change, 1.05 * value)
        v[rows] = moves.apply(v[rows], chosen)
    value = margins.select(rows).value(v[rows])
    return v, margin.index_copy(0, rows, value)


def moved_back(
    moves: WholeMoves, margins: Margins, region: Region, x0: Tensor, v: Tensor, n_rounds: int
) -> tuple[Tensor, Tensor]:
    """``v (row, n)`` on the far side, moved towards ``x0`` by many moves at once while it stays there, and the
    margins ``(row,)``."""
    value, gradient = margins.value_and_gradient(v)
    limit = torch.full((len(v),), len(moves.first), dtype=torch.long)
    for _ in range(n_rounds):
        change, cost = moves.outcome(v, x0, region, gradient)
        worth = torch.where(cost < 0, change / cost, -torch.inf)
        order = torch.where(cost < 0, worth.nan_to_num(-torch.inf), -torch.inf)
        chosen = _leading(moves, order, change.clamp(min=0.0), -0.9 * value, limit, within=True)
        going = chosen.any(1)
        if not bool(going.any()):
            break
        trial = moves.apply(v, chosen)
        new_value, new_gradient = margins.value_and_gradient(trial)
        kept = going & (new_value <= 0)
        v = torch.where(kept[:, None], trial, v)
        value = torch.where(kept, new_value, value)
        gradient = torch.where(kept[:, None], new_gradient, gradient)
        limit = torch.where(going & ~kept, chosen.sum(1) // 2, limit)
    return v, value


def improved(
    moves: WholeMoves, margins: Margins, region: Region, x0: Tensor, v: Tensor, n_rounds: int
) -> tuple[Tensor, Tensor]:
    """``v (row, n)`` on the far side after the best single move or pair of moves that comes nearer and stays there,
    again and again; and the margins ``(row,)``."""
    v = v.clone()
    margin = margins.value(v)
    rows = (margin <= 0).nonzero()[:, 0]
    for _ in range(n_rounds if len(moves.first) else 0):
        if not len(rows):
            break
        part, here, start = region.select(rows), v[rows], x0[rows]
        _, gradient = margins.select(rows).value_and_gradient(here)
        trials = _trials(moves, part, start, here, gradient, margin[rows])
        n_trials = trials.shape[1]
        image = rows.repeat_interleave(n_trials)
        flat = trials.reshape(len(rows) * n_trials, -1)
        value = margins.select(image).value(flat).reshape(len(rows), n_trials)
        distance = region.select(image).distance(x0[image], flat).reshape(len(rows), n_trials)
        usable = (value <= 0) & (distance < part.distance(start, here)[:, None] * (1 - 1e-12))
        best = distance.masked_fill(~usable, torch.inf).argmin(1)
        better = usable.any(1)
        row = torch.arange(len(rows))
        v[rows[better]] = trials[row, best][better]
        margin[rows[better]] = value[row, best][better]
        rows = rows[better]
    return v, margin


def _trials(moves: WholeMoves, region: Region, x0: Tensor, v: Tensor, gradient: Tensor, margin: Tensor) -> Tensor:
    """``(row, trial, n)``: single moves nearer to x0, and such a move with one that wins margin back."""
    change, cost = moves.outcome(v, x0, region, gradient)
    n_kept = min(_TRIED, len(moves.first))
    slack = (-margin)[:, None]
    nearer = torch.where(cost < 0, cost + (cost < 0) * (change > slack) * 1e-3 * cost.abs(), torch.inf)
    towards = torch.where(cost < 0, change / (-cost), torch.inf)
    wins = torch.where(change < 0, cost / (-change), torch.inf)
    lists = [ranking.topk(n_kept, 1, largest=False).indices for ranking in (nearer, towards)]
    singles = torch.cat(lists, 1)
    back = wins.topk(n_kept, 1, largest=False).indices
    one = torch.cat([singles, singles.repeat_interleave(n_kept, 1)], 1)
    other = torch.cat([torch.full_like(singles, -1), back.repeat(1, singles.shape[1])], 1)
    twice = other >= 0
    safe = other.clamp(min=0)
    total = change.gather(1, one) + twice * change.gather(1, safe)
    shift = cost.gather(1, one) + twice * cost.gather(1, safe)
    # Nearer by the linearised margin first; what needs luck last.
    order = torch.where(shift < 0, torch.where(total <= slack, shift, (total - slack).abs()), torch.inf)
    chosen = order.nan_to_num(torch.inf).topk(min(2 * _TRIED, order.shape[1]), 1, largest=False).indices
    first, second = one.gather(1, chosen), safe.gather(1, chosen)
    double = twice.gather(1, chosen)
    trials = v[:, None].expand(-1, chosen.shape[1], -1).clone()
    for index, used in ((first, torch.ones_like(double)), (second, double)):
        for feature, step in ((moves.first, moves.first_step), (moves.second, moves.second_step)):
            trials.scatter_add_(2, feature[index][:, :, None], (step[index] * used)[:, :, None])
    # Two moves of one feature may leave the box together.
    inside = ((trials >= region.low[:, None]) & (trials <= region.high[:, None])).all(2)
    return torch.where(inside[:, :, None], trials, v[:, None])


def _leading(
    moves: WholeMoves,
    worth: Tensor,
    amount: Tensor,
    wanted: Tensor,
    limit: Tensor | None = None,
    *,
    within: bool = False,
) -> Tensor:
    """``(row, move)`` bool: the most worthy moves until their ``amount`` reaches (``within``: stays below) what is
    wanted; single steps of different features together, an exchange alone."""
    order = worth.argsort(dim=1, descending=True, stable=True)
    usable = torch.isfinite(worth.gather(1, order)) | (worth.gather(1, order) == torch.inf)
    sizes = torch.where(usable, amount.gather(1, order), 0.0)
    total = sizes.cumsum(1)
    taken = total <= wanted[:, None] if within else (total - sizes) < wanted[:, None]
    rank = torch.arange(order.shape[1])
    exchange = (moves.second_step != 0)[order]
    taken &= usable & ((rank == 0) | (exchange.cumsum(1) == 0))
    if limit is not None:
        taken &= rank < limit[:, None]
    return torch.zeros_like(taken).scatter(1, order, taken)
