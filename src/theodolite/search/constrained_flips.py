"""The closest flip points that keep a user's constraints, or the flip points that violate them least.

Source of the question: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods",
section 2 and appendix E.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theodolite.outputs import Outputs
from theodolite.search.closest_flips import closest_flips
from theodolite.search.constraint_rules import Rules
from theodolite.search.constraints import Constraints
from theodolite.search.flips import FLIP_TOLERANCE, Flips, no_flips
from theodolite.search.margins import Margins
from theodolite.search.polish import polish
from theodolite.search.regions import Region, hull
from theodolite.search.whole_features import WHOLE_SEARCHES, nearest_flips, whole_flips
from theodolite.search.whole_moves import rounded

_N_DESCENTS = 40  # steps of the descent on the margin within the region, where no flip was found
_N_PROJECTIONS = 6  # of the input on the boundary linearised near its flip point
_N_RETURNS = 3  # times the least violated point is sought from the region's own point nearest to the last


def constrained_flips(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    constraints: Constraints,
    *,
    target: Tensor | None = None,
    norm: str = "L2",
    reference: tuple[Tensor, Tensor] | None = None,
    starts: Tensor | None = None,
    effort: str = "regular",
    generator: torch.Generator,
) -> tuple[Flips, Tensor]:
    """As `closest_flips`, with every point keeping the constraints: bounds and whole numbers exactly, equalities to
    1e-9 of the sum of their terms' sizes. Beside the flips, ``violation (image,)``: 0 for what was found.

    An image without a feasible flip point (its constraints contradict each other, or no point within them flips, as
    far as was found) has distance inf; its ``point`` is then the flip point of least violation found, ``violation``
    the largest of its violations in input units (a whole number's: the distance to the next), NaN where no point
    flips at all.

    Where whole features alone lead across, or where the constraints alone move the input to the far side, the point
    lies beyond the boundary, not on it, and its ``residual`` may exceed 1e-9.

    Raises UserError for constraints that contradict each other whatever the input, and as `closest_flips`.
    """
    rules = constraints.rules(outputs.low, outputs.high, outputs.shape)
    x0 = inputs.to(torch.float64)
    flips = no_flips(len(x0), x0.shape[1])
    aim = torch.full_like(own, -1) if target is None else target
    leads = Margins(exact, torch.arange(len(x0)), own, aim, flips.units)
    margin = leads.value(x0)
    sound = torch.isfinite(margin) & (margin >= -FLIP_TOLERANCE)
    rows = (sound & rules.possible(x0)).nonzero()[:, 0]
    relaxed = flips.point.clone()
    if len(rows):
        here = Margins(exact, torch.arange(len(rows)), own[rows], aim[rows], torch.zeros_like(rows))
        region = rules.region(x0[rows], norm)
        given = None if starts is None else starts[rows]
        found = _relaxed(outputs, here, region, x0[rows], reference, given, effort, generator)
        relaxed[rows] = found.point
        if rules.discrete:
            point, distance = whole_flips(
                exact, x0[rows], own[rows], aim[rows], rules, norm, found.point, WHOLE_SEARCHES[effort], found.units,
                generator,
            )  # fmt: skip
            found = _on_the_boundary(outputs, here, rules, region, x0[rows], point, distance, found.units, generator)
        found.distance[rules.violation(x0[rows], found.point) > 0] = torch.inf
        flips.units[rows] += found.units
        kept = found.found.nonzero()[:, 0]
        _put(flips, rows[kept], found.point[kept], -found.residual[kept], found.distance[kept], here.select(kept))
    violation = torch.zeros(len(x0), dtype=torch.float64)
    failed = (~flips.found & sound).nonzero()[:, 0]
    if len(failed):
        here = leads.select(failed)
        flips.point[failed], violation[failed] = _least_violated(
            outputs, here, rules, x0[failed], relaxed[failed], generator
        )
        met = torch.isfinite(flips.point[failed]).all(1)
        flips.target[failed] = torch.where(met, here.other(exact.value(flips.point[failed])), -1)
    return flips, violation


def _relaxed(
    outputs: Outputs,
    here: Margins,
    region: Region,
    x0: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    starts: Tensor | None,
    effort: str,
    generator: torch.Generator,
) -> Flips:
    """Closest flips of the region, whole numbers aside; where constraints alone move an input across, that point."""
    start = region.project(x0, x0.new_zeros((len(x0), 1, x0.shape[1])), x0.new_zeros((len(x0), 1)))
    flips = no_flips(len(x0), x0.shape[1])
    here = Margins(here.outputs, here.image, here.own, here.target, flips.units)
    margin = here.value(start)
    outside = ~region.contains(x0, 1e-12)
    moved = (outside & (margin <= 0)).nonzero()[:, 0]
    _put(flips, moved, start[moved], margin[moved], region.distance(x0, start)[moved], here.select(moved))
    rows = (~flips.found).nonzero()[:, 0]
    if len(rows):
        found = closest_flips(
            outputs, here.outputs, x0[rows], here.own[rows], target=here.target[rows], region=region.select(rows),
            reference=reference, starts=None if starts is None else starts[rows], effort=effort, generator=generator,
        )  # fmt: skip
        _copy(flips, rows, found)
    lost = (~flips.found & (margin > 0)).nonzero()[:, 0]
    if len(lost):
        _search_deeper(outputs, here, flips, region, x0, lost, effort, generator)
    rest = flips.found.clone()
    rest[moved] = False
    rows = rest.nonzero()[:, 0]
    if len(rows):
        _come_nearer(here, flips, region, x0, rows)
    return flips


def _search_deeper(
    outputs: Outputs,
    leads: Margins,
    flips: Flips,
    region: Region,
    x0: Tensor,
    lost: Tensor,
    effort: str,
    generator: torch.Generator,
) -> None:
    """Where no start met the far side: descend on the margin within the region, and walk from where it is negative."""
    deep, value = _deepest(leads.select(lost), region.select(lost), region.select(lost).nearest(x0[lost], x0[lost]))
    there = (value <= 0).nonzero()[:, 0]
    if not len(there):
        return
    rows = lost[there]
    found = closest_flips(
        outputs, leads.outputs, x0[rows], leads.own[rows], target=leads.target[rows], region=region.select(rows),
        starts=deep[there, None], effort=effort, generator=generator,
    )  # fmt: skip
    _copy(flips, rows, found)


def _come_nearer(leads: Margins, flips: Flips, region: Region, x0: Tensor, rows: Tensor) -> None:
    """Projections from the flips of ``rows``: walks measure from the region's point nearest to an input outside it."""
    here, part, origin = leads.select(rows), region.select(rows), x0[rows]
    point, distance = nearest_flips(here, part, origin, flips.point[rows], _N_PROJECTIONS)
    nearer = (distance < flips.distance[rows] * (1 - 1e-9)).nonzero()[:, 0]
    if not len(nearer):
        return
    rows, part, origin, here = rows[nearer], part.select(nearer), origin[nearer], here.select(nearer)
    polished = polish(here, part, part.nearest(origin, origin), point[nearer])
    distance = part.distance(origin, polished.point)
    better = (polished.met & (distance < flips.distance[rows])).nonzero()[:, 0]
    _put(flips, rows[better], polished.point[better], polished.margin[better], distance[better], here.select(better))


def _on_the_boundary(
    outputs: Outputs,
    here: Margins,
    rules: Rules,
    region: Region,
    x0: Tensor,
    point: Tensor,
    distance: Tensor,
    units: Tensor,
    generator: torch.Generator,
) -> Flips:
    """Whole points as flips; with the whole features held, the others move to their own closest flip."""
    flips = no_flips(len(x0), x0.shape[1])
    flips.units += units
    here = Margins(here.outputs, here.image, here.own, here.target, flips.units)
    rows = torch.isfinite(distance).nonzero()[:, 0]
    if not len(rows):
        return flips
    part = here.select(rows)
    _put(flips, rows, point[rows], part.value(point[rows]), distance[rows], part)
    held = rules.whole
    free = Region(
        torch.where(held, point, region.low), torch.where(held, point, region.high),
        region.norm, region.matrix, region.offset,
    ).select(rows)  # fmt: skip
    origin = free.nearest(x0[rows], x0[rows])
    # Where the others need not move, the whole features lead across alone.
    still = ((free.low < free.high).any(1) & (part.value(origin) > 0)).nonzero()[:, 0]
    rows, free, origin, part = rows[still], free.select(still), origin[still], part.select(still)
    if not len(rows):
        return flips
    polished = polish(part, free, origin, point[rows])
    walked = closest_flips(
        outputs, here.outputs, origin, part.own, target=part.target, region=free,
        starts=point[rows, None], effort="quick", generator=generator,
    )  # fmt: skip
    flips.units[rows] += walked.units
    for candidate, met in ((polished.point, polished.met), (walked.point, walked.found)):
        length = free.distance(x0[rows], candidate)
        kept = met & (rules.violation(x0[rows], candidate) == 0)
        # A point on the boundary is worth a rounding error of distance.
        kept &= length <= flips.distance[rows] * (1 + 1e-7)
        chosen = kept.nonzero()[:, 0]
        if len(chosen):
            margin = part.select(chosen).value(candidate[chosen])
            _put(flips, rows[chosen], candidate[chosen], margin, length[chosen], part.select(chosen))
    return flips


def _least_violated(
    outputs: Outputs, here: Margins, rules: Rules, x0: Tensor, relaxed: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flip points ``(row, n)`` that violate the rules least, and by how much: near the region in Linf, since that is
    how violations are measured. NaN where nothing flips."""
    region = rules.region(x0)
    best = relaxed.clone()
    least = rules.violation(x0, relaxed)
    least = torch.where(torch.isfinite(best).all(1), least, torch.inf)
    base, margin = _base(here, rules, region, x0, region.nearest(x0, x0))
    for _ in range(_N_RETURNS):
        found = closest_flips(
            outputs, here.outputs, base, here.own, target=here.target, region=hull(outputs, len(x0), "Linf"),
            effort="quick", generator=generator,
        )  # fmt: skip
        here.units.index_add_(0, here.image, found.units)
        crossed = margin <= 0
        candidate = torch.where(crossed[:, None], base, found.point)
        usable = torch.isfinite(candidate).all(1)
        violation = torch.where(usable, rules.violation(x0, candidate), torch.inf)
        nearer = violation < least
        best, least = torch.where(nearer[:, None], candidate, best), torch.where(nearer, violation, least)
        base, margin = _base(here, rules, region, x0, torch.where(usable[:, None], candidate, base))
    return best, torch.where(torch.isfinite(least), least, torch.nan)


def _base(here: Margins, rules: Rules, region: Region, x0: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the region near ``x (row, n)`` from which the boundary is not far, and their margins."""
    if rules.discrete:
        whole = rounded(rules, region, x0, region.nearest(x0, x), away=False)
        return whole, here.value(whole)
    return _deepest(here, region, region.nearest(x0, x))


def _deepest(leads: Margins, region: Region, x: Tensor) -> tuple[Tensor, Tensor]:
    """Projected descent on the margin: the lowest points met ``(row, n)`` and their margins; two units a step."""
    value, gradient = leads.value_and_gradient(x)
    best, least = x.clone(), value.clone()
    extent = (region.high - region.low).nan_to_num(1.0, posinf=1.0).norm(dim=1).clamp(min=1e-12)
    step = 0.25 * extent
    for _ in range(_N_DESCENTS):
        norm = gradient.norm(dim=1).clamp(min=1e-300)
        trial = region.nearest(x, x - (step / norm)[:, None] * gradient)
        new_value, new_gradient = leads.value_and_gradient(trial)
        lower = new_value < value
        x = torch.where(lower[:, None], trial, x)
        value, gradient = torch.where(lower, new_value, value), torch.where(lower[:, None], new_gradient, gradient)
        step = torch.where(lower, 1.5 * step, 0.5 * step)
        better = value < least
        best, least = torch.where(better[:, None], x, best), torch.where(better, value, least)
    return best, least


def _put(flips: Flips, rows: Tensor, point: Tensor, margin: Tensor, distance: Tensor, margins: Margins) -> None:
    """Enter points of ``rows``, with the class of their far side."""
    if not len(rows):
        return
    flips.point[rows], flips.distance[rows], flips.residual[rows] = point, distance, -margin
    flips.target[rows] = margins.other(margins.outputs.value(point))


def _copy(flips: Flips, rows: Tensor, found: Flips) -> None:
    """Enter a search for ``rows``, whatever it found."""
    flips.point[rows], flips.distance[rows], flips.residual[rows] = found.point, found.distance, found.residual
    flips.target[rows] = found.target
    flips.units[rows] += found.units
