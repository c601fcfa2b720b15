"""Nearest ties by sequential quadratic programming with an l1 penalty and a proximal term, every row by itself.

Each step linearises what must tie and what must stay below at the current point v, in units of length (divided by the
norm of its gradient), and minimises

    |y - x0|^2 / 2 + price * sum |violation| + proximity / 2 * |y - v|^2

over the region; proximity falls where the model predicts well and rises where it does not. Sources: Fletcher,
Practical Methods of Optimization, 2nd ed., sections 12.4 and 14.4 (l1 penalty, second-order correction); Yousefzadeh
and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods', equations 1-3, for the problem.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from theodolite.search.pair_quadratic import Cuts, cheapest
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region

_FIRST_PROXIMITY = 0.3
_FIRST_PRICE = 5.0  # in lengths of the change: at the solution of one smooth tie the multiplier is that length
_CHEAPEST = 4.0  # times the multipliers: dearer violations only shorten the steps along a curved boundary
_DEAREST = 1e4
_FARTHEST = 1e5  # proximity at which a row stands still
_ACCEPTED = 0.02  # share of the predicted decrease that a step must bring
_CORRECTED = 0.7  # below this share a second-order correction is tried
_FEASIBLE = 1e-4  # violation that is taken for a tie, as a share of the distance
_CONVERGED = 3e-5  # decrease of the squared distance, as its share, that is not worth a step
_REACH = 2.0  # steps within which an output below may come up


@final
@dataclass
class Search:
    """Rows on their way: points, outputs and gradients there, the model's settings, and the nearest tie of each.

    ``other (row, s)``: outputs linearised beside the tied ones, -1 for none. ``held (row,)``: nothing more to gain.
    ``best_point``, ``best_distance``: the nearest point whose violation is negligible; inf: none yet.
    """

    point: Tensor
    output: Tensor
    other: Tensor
    gradient: Tensor
    length: Tensor
    price: Tensor
    proximity: Tensor
    multiplier: Tensor
    reach: Tensor
    held: Tensor
    best_point: Tensor
    best_distance: Tensor

    def select(self, index: Tensor) -> Search:
        """The rows of ``index``."""
        return Search(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def put(self, index: Tensor, part: Search) -> None:
        """Replace the rows of ``index``."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(part, field.name)


def begin(
    ties: Ties, inputs: Tensor, region: Region, point: Tensor, n_slots: int, within: Tensor | None = None
) -> Search:
    """Searches from ``point (row, n)`` for the ties nearest to ``inputs (row, n)``; all in the outputs' precision.

    ``within (row,)``: a length within which there is a tie, where known; it bounds what small gradients promise.
    """
    n_rows = len(point)
    slots = min(n_slots, max(ties.outputs.n_outputs - ties.n_tied - 1, 0))
    state = Search(
        point=point.clone(),
        output=point.new_zeros((n_rows, ties.outputs.n_outputs)),
        other=torch.full((n_rows, slots), -1),
        gradient=point.new_zeros((n_rows, ties.n_tied + slots, point.shape[1])),
        length=(point - inputs).norm(dim=1),
        price=point.new_zeros(n_rows),
        proximity=torch.full_like(point[:, 0], _FIRST_PROXIMITY),
        multiplier=point.new_zeros((n_rows, ties.n_tied + slots + _n_equalities(region))),
        reach=torch.full_like(point[:, 0], torch.inf),
        held=torch.zeros(n_rows, dtype=torch.bool),
        best_point=point.clone(),
        best_distance=torch.full_like(point[:, 0], torch.inf),
    )
    state.output = ties.outputs_at(point)
    state.other = _near_others(ties, state, state.output, state.reach)
    state.output, state.gradient = ties.rows_at(point, state.other)
    scale = _scales(ties, state)
    first_order = (_violations(ties, state.output) / scale).amax(1)
    if within is not None:
        first_order = torch.minimum(first_order, within)
    state.price = _FIRST_PRICE * torch.maximum(state.length, first_order)
    _bank(ties, inputs, state, state.point, state.output, scale)
    bad = ~(torch.isfinite(state.gradient).all((1, 2)) & torch.isfinite(state.output).all(1))
    state.held |= bad | ~(state.price > 0)
    return state


def advance(ties: Ties, inputs: Tensor, region: Region, state: Search, n_steps: int) -> None:
    """Up to ``n_steps`` steps of every row that is not held, in place."""
    for _ in range(n_steps):
        rows = (~state.held).nonzero()[:, 0]
        if len(rows) == 0:
            return
        part = state.select(rows)
        _step(ties.select(rows), inputs[rows], region.select(rows), part)
        state.put(rows, part)


def promise(ties: Ties, state: Search) -> Tensor:
    """``(row,)`` the distance a row may be expected to end at: rows are kept in its order."""
    violation = _misses(ties, state.output, _scales(ties, state))
    promised = torch.minimum(state.length + _FIRST_PRICE * violation, state.best_distance)
    return torch.where(torch.isfinite(promised), promised, torch.inf)


def _step(ties: Ties, inputs: Tensor, region: Region, state: Search) -> None:
    center = (inputs + state.proximity[:, None] * state.point) / (1 + state.proximity[:, None])
    scale = _scales(ties, state)
    cuts = _cuts(ties, region, state, scale, state.point, state.output)
    trial, multiplier = cheapest(center, cuts, region.low, region.high, state.multiplier)
    before = _merit(ties, inputs, state.price, scale, state.point, state.output)
    predicted = before - _model(ties, inputs, region, state, scale, cuts, trial)
    output = ties.outputs_at(trial)
    gained = before - _merit(ties, inputs, state.price, scale, trial, output)
    _bank(ties, inputs, state, trial, output, scale)

    correct = ~(gained >= _CORRECTED * predicted) & torch.isfinite(output).all(1) & (predicted > 0)
    rows = correct.nonzero()[:, 0]
    if len(rows):
        part, some, where = state.select(rows), ties.select(rows), region.select(rows)
        second = _corrected(some, where, part, center[rows], scale[rows], trial[rows], output[rows], multiplier[rows])
        second_output = some.outputs_at(second)
        second_gain = before[rows] - _merit(some, inputs[rows], part.price, scale[rows], second, second_output)
        _bank(some, inputs[rows], part, second, second_output, scale[rows])
        state.best_point[rows], state.best_distance[rows] = part.best_point, part.best_distance
        better = second_gain > torch.nan_to_num(gained[rows], nan=-torch.inf)
        rows = rows[better]
        trial[rows], output[rows], gained[rows] = second[better], second_output[better], second_gain[better]

    ratio = torch.where(predicted > 0, gained / predicted, 0.0).nan_to_num(nan=-1.0, posinf=1.0, neginf=-1.0)
    moved = ratio > _ACCEPTED
    feasible = _misses(ties, state.output, scale) <= _negligible(inputs, state.length)
    _adapt(state, region, cuts, multiplier, predicted, ratio, moved, feasible)
    _move(ties, inputs, state, trial, output, moved)


def _corrected(
    ties: Ties,
    region: Region,
    state: Search,
    center: Tensor,
    scale: Tensor,
    trial: Tensor,
    output: Tensor,
    multiplier: Tensor,
) -> Tensor:
    """The step once more with the outputs found at its end: Fletcher's second-order correction."""
    bent = _cuts(ties, region, state, scale, trial, output)
    return cheapest(center, bent, region.low, region.high, multiplier)[0]


def _adapt(
    state: Search,
    region: Region,
    cuts: Cuts,
    multiplier: Tensor,
    predicted: Tensor,
    ratio: Tensor,
    moved: Tensor,
    feasible: Tensor,
) -> None:
    """Price and proximity for the next step, and which rows have nothing more to gain."""
    n_priced = multiplier.shape[1] - _n_equalities(region)
    bound, paid = cuts.most[:, :n_priced], multiplier[:, :n_priced].abs()
    binding = ((paid >= 0.999 * bound) & (bound > 0)).any(1)
    little = predicted <= _CONVERGED * state.length.square() / 2
    state.held |= little & (feasible | ~binding)
    state.multiplier = torch.where(moved[:, None], multiplier, state.multiplier)
    dearer = binding & (moved | little)
    cheaper = moved & feasible & (state.price > _CHEAPEST * paid.amax(1) * (1 + state.proximity))
    state.price = torch.where(dearer, 1.7, torch.where(cheaper, 0.6, 1.0)) * state.price
    state.held |= state.price > _DEAREST * torch.maximum(state.length, state.reach)
    factor = torch.where(ratio > 0.6, 0.25, torch.where(ratio < 0.25, 2.0, 1.0))
    state.proximity = (state.proximity * torch.where(moved, factor, 4.0)).clamp(min=1e-3)
    state.held |= state.proximity > _FARTHEST


def _move(ties: Ties, inputs: Tensor, state: Search, trial: Tensor, output: Tensor, moved: Tensor) -> None:
    move = (trial - state.point).norm(dim=1)
    state.reach = torch.where(moved, move, state.reach)
    rows = moved.nonzero()[:, 0]
    if len(rows) == 0:
        return
    part, some = state.select(rows), ties.select(rows)
    near = _near_others(some, part, output[rows], _REACH * move[rows])
    n_tied, n_slots = ties.n_tied, near.shape[1]
    # A multiplier follows its output to the new slot.
    same = (near[:, :, None] == part.other[:, None, :]) & (near >= 0)[:, :, None]
    carried = (same * part.multiplier[:, None, n_tied : n_tied + n_slots]).sum(2)
    part.multiplier[:, n_tied : n_tied + n_slots] = carried
    part.point, part.other = trial[rows], near
    part.output, part.gradient = some.rows_at(part.point, near)
    part.length = (part.point - inputs[rows]).norm(dim=1)
    part.held |= ~torch.isfinite(part.gradient).all((1, 2))
    state.put(rows, part)


def _near_others(ties: Ties, state: Search, output: Tensor, reach: Tensor) -> Tensor:
    """The outputs ``(row, s)`` that may come up to the base within ``reach``, the highest first, then -1."""
    n_slots = state.other.shape[1]
    excess, other = ties.excesses(output).topk(n_slots, dim=1)
    steepness = state.gradient[:, : ties.n_tied].norm(dim=2).amax(1)
    within = torch.where(torch.isfinite(reach), reach * steepness, torch.inf)
    return torch.where((excess > -within[:, None]) & (excess > -torch.inf), other, -1)


def _scales(ties: Ties, state: Search) -> Tensor:
    """Outputs per unit of length ``(row, m + n_outputs)``, of gaps and others, where no gradient is known that of
    the gaps."""
    norm = state.gradient.norm(dim=2)
    tied, other = norm[:, : ties.n_tied], norm[:, ties.n_tied :]
    usual = tied.mean(1, keepdim=True)
    scale = torch.cat((tied, usual.expand(-1, ties.outputs.n_outputs + 1)), 1)
    other = torch.maximum(other, usual)  # an output that hardly moves here may move much elsewhere
    place = torch.where(state.other >= 0, ties.n_tied + state.other, ties.n_tied + ties.outputs.n_outputs)
    scale = scale.scatter(1, place, other)[:, :-1]
    return scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5)


def _violations(ties: Ties, output: Tensor) -> Tensor:
    """``(row, m + n_outputs)``: by how much gaps and others miss, never negative."""
    return torch.cat((ties.gaps(output).abs(), ties.excesses(output).clamp(min=0.0)), 1)


def _misses(ties: Ties, output: Tensor, scale: Tensor) -> Tensor:
    """``(row,)`` the violations as lengths, added up."""
    return (_violations(ties, output) / scale).sum(1)


def _negligible(inputs: Tensor, distance: Tensor) -> Tensor:
    """``(row,)`` the violation that the polish will mend: never less than what rounding makes of a point."""
    return _FEASIBLE * distance + 4.0 * torch.finfo(inputs.dtype).eps * inputs.norm(dim=1)


def _merit(ties: Ties, inputs: Tensor, price: Tensor, scale: Tensor, point: Tensor, output: Tensor) -> Tensor:
    return (point - inputs).square().sum(1) / 2 + price * _misses(ties, output, scale)


def _model(
    ties: Ties, inputs: Tensor, region: Region, state: Search, scale: Tensor, cuts: Cuts, trial: Tensor
) -> Tensor:
    """The merit as the linearisation sees it; outputs without a slot stay where they are."""
    n_cuts = cuts.normal.shape[1] - _n_equalities(region)
    miss = torch.bmm(cuts.normal[:, :n_cuts], trial[:, :, None])[:, :, 0] - cuts.offset[:, :n_cuts]
    miss = torch.where(cuts.least[:, :n_cuts] < 0, miss.abs(), miss.clamp(min=0.0))
    miss = torch.where(cuts.most[:, :n_cuts] > 0, miss, 0.0).sum(1)
    unmodelled = ties.excesses(state.output).clamp(min=0.0) / scale[:, ties.n_tied :]
    unmodelled = torch.cat((unmodelled, unmodelled.new_zeros((len(unmodelled), 1))), 1)
    unmodelled = unmodelled.scatter(1, torch.where(state.other >= 0, state.other, unmodelled.shape[1] - 1), 0.0)
    return (trial - inputs).square().sum(1) / 2 + state.price * (miss + unmodelled.sum(1))


def _cuts(ties: Ties, region: Region, state: Search, scale: Tensor, point: Tensor, output: Tensor) -> Cuts:
    """The gradients of the state's point through the outputs at ``point``, in units of length."""
    n_tied, missing = ties.n_tied, state.other < 0
    norm = torch.cat((scale[:, :n_tied], scale[:, n_tied:].gather(1, state.other.clamp(min=0))), 1)
    normal = state.gradient / norm[:, :, None]
    excess = ties.excesses(output).gather(1, state.other.clamp(min=0))
    miss = torch.cat((ties.gaps(output), excess.masked_fill(missing, 0.0)), 1) / norm
    offset = torch.bmm(normal, point[:, :, None])[:, :, 0] - miss
    most = (state.price / (1 + state.proximity))[:, None].expand_as(offset).clone()
    most[:, n_tied:] = most[:, n_tied:].masked_fill(missing, 0.0)
    least = torch.cat((-most[:, :n_tied], torch.zeros_like(most[:, n_tied:])), 1)
    return with_equalities(Cuts(normal, offset, least, most), region)


def with_equalities(cuts: Cuts, region: Region) -> Cuts:
    """The cuts and the region's own equalities, which have no price."""
    if region.matrix is None or region.offset is None:
        return cuts
    norm = region.matrix.norm(dim=1)
    norm = torch.where(norm > 0, norm, 1.0)
    normal = (region.matrix / norm[:, None]).expand(len(cuts.normal), -1, -1)
    free = torch.full_like(region.offset, torch.inf)
    return Cuts(
        torch.cat((cuts.normal, normal), 1),
        torch.cat((cuts.offset, region.offset / norm), 1),
        torch.cat((cuts.least, -free), 1),
        torch.cat((cuts.most, free), 1),
    )


def _n_equalities(region: Region) -> int:
    return 0 if region.matrix is None else len(region.matrix)


def _bank(ties: Ties, inputs: Tensor, state: Search, point: Tensor, output: Tensor, scale: Tensor) -> None:
    distance = (point - inputs).norm(dim=1)
    good = _misses(ties, output, scale) <= _negligible(inputs, distance)
    good &= distance < state.best_distance
    state.best_point = torch.where(good[:, None], point, state.best_point)
    state.best_distance = torch.where(good, distance, state.best_distance)
