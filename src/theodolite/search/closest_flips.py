"""The closest points where a network's answer flips: walks from several starts, halved in number as they go.

The question is that of Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods",
eq. 1-3. Starts compete as in sequential halving (Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in
Multi-Armed Bandits"); each is a `boundary_walk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.boundary_starts import easiest_classes, newton_starts, onto_boundary, reference_starts
from theodolite.search.boundary_walk import Walk, WalkState, start_walk, walk
from theodolite.search.flips import FLIP_TOLERANCE, Flips, no_flips
from theodolite.search.margins import Margins
from theodolite.search.polish import polish
from theodolite.search.regions import Region, hull


@final
@dataclass(frozen=True)
class Effort:
    """Starts an image and how they compete: the ``n_classes`` easiest classes, by Newton's method; of the
    ``n_references`` nearest reference points the ``n_kept_references`` best; then rounds of (rows kept, steps), and
    ``n_exact_steps`` of the best in float64."""

    n_classes: int
    n_references: int
    n_kept_references: int
    rounds: tuple[tuple[int, int], ...]
    n_newton_steps: int = 8
    n_secant_steps: int = 2
    n_exact_steps: int = 3
    walk: Walk = Walk()


EFFORTS = {
    "quick": Effort(4, 6, 2, ((6, 4), (2, 6), (1, 8))),
    "regular": Effort(6, 8, 4, ((10, 3), (5, 5), (2, 6), (1, 8))),
    "thorough": Effort(9, 20, 12, ((21, 3), (8, 5), (3, 7), (1, 10))),
}
_MOST_REFERENCES = 2**16
_N_BANKED = 4  # points an image the polish may fall back on
_SAME = 1e-8  # points closer than this, relatively, are not worth another polish
_LONGEST_MOVE = 0.35  # of a Newton step, as a share of the distance to the nearest reference start


def closest_flips(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    *,
    target: Tensor | None = None,
    region: Region | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    starts: Tensor | None = None,
    effort: str = "regular",
    generator: torch.Generator,
) -> Flips:
    """For every input the closest point found where class ``own`` stops leading.

    ``outputs`` in the precision of the search, ``exact`` the same in float64, with which every answer is made and
    checked; ``inputs (image, n)`` in input units; ``own (image,)`` the class ``exact`` gives them; ``target (image,)``
    the class to flip to, -1 or None for any (classes other than these two then do not matter); ``region``: None for
    the hull of the space, in L2; ``reference``: points ``(m, n)`` and the network's classes ``(m,)`` of them, to start
    from (of more than 65,536 as many drawn by ``generator``); ``starts (image, s, n)``: further starts.

    An input on the boundary (margin in [-1e-9, 0]) is its own flip point. Not found: where the own class does not
    lead, where outputs are not finite, where no point on the far side was met, or none to 1e-9. Raises UserError for
    wrong shapes, classes, precisions or efforts.
    """
    settings = _checked(outputs, exact, inputs, own, target, reference, starts, effort)
    if reference is not None and len(reference[0]) > _MOST_REFERENCES:
        drawn = torch.randperm(len(reference[0]), generator=generator)[:_MOST_REFERENCES]
        reference = reference[0][drawn], reference[1][drawn]
    target = torch.full_like(own, -1) if target is None else target
    region = hull(outputs, len(inputs)) if region is None else region.to(torch.float64)
    flips = no_flips(len(inputs), inputs.shape[1])
    if len(inputs) == 0:
        return flips
    x0 = inputs.to(torch.float64)
    everything = torch.arange(len(x0))
    there = Margins(exact, everything, own, target, flips.units)
    margin = there.value(x0)
    _settle(flips, there, region, x0, x0, margin)
    rows = (margin > 0).nonzero()[:, 0]
    if len(rows):
        search = Margins(outputs, rows, own[rows], target[rows], flips.units)
        given = None if starts is None else starts[rows]
        inside = region.select(rows)
        points, distance = _search(settings, search, inside, x0[rows], reference, given)
        here = there.select(rows)
        _polish_all(flips, here, inside, x0[rows], points.double(), distance.double())
        _refine(settings, flips, here, inside, x0[rows])
    return flips


def _search(
    settings: Effort,
    search: Margins,
    region: Region,
    x0: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    given: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Points ``(image, k, n)`` at or just beyond the boundary and the distances ``(image, k)`` at which they promise
    to meet it, least first; inf for what is no such point."""
    region = region.to(search.outputs.dtype)
    x0 = region.nearest(x0.to(region.low.dtype), x0.to(region.low.dtype))
    x = _starts(settings, search, region, x0, reference, given)
    n_images, n_rows, n = x.shape
    image = torch.arange(n_images).repeat_interleave(n_rows)
    rows, inside, origin = search.select(image), region.select(image), x0[image]
    x = onto_boundary(rows, origin, x.reshape(-1, n), settings.n_secant_steps)
    state = start_walk(settings.walk, rows, inside, origin, x)
    bank = _banked((x0[:, None, :].expand(-1, 0, -1), x0[:, :0]), state)
    for n_kept, n_steps in settings.rounds:
        chosen = _leading(state, n_images, n_kept)
        rows, inside, origin, state = rows.select(chosen), inside.select(chosen), origin[chosen], state.select(chosen)
        state = walk(settings.walk, rows, inside, origin, state, n_steps)
        bank = _banked(bank, state)
    return bank


def _starts(
    settings: Effort,
    search: Margins,
    region: Region,
    x0: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    given: Tensor | None,
) -> Tensor:
    """``(image, s, n)``, the input itself where a start is missing."""
    n_images, n = x0.shape
    targeted = bool((search.target >= 0).all())
    starts = []
    largest_move = x0.new_full((n_images,), torch.inf)
    if reference is not None and settings.n_kept_references and len(reference[0]):
        # One class leaves the places of the others to more reference points.
        n_kept = settings.n_kept_references + (settings.n_classes - 1 if targeted else 0)
        known = reference_starts(search, region, x0, reference, settings.n_references, n_kept)
        largest_move = _LONGEST_MOVE * (known - x0[:, None]).norm(dim=2).nan_to_num(torch.inf).amin(1)
        starts.append(known)
    if given is not None:
        image = torch.arange(n_images).repeat_interleave(given.shape[1])
        flat = given.to(x0.dtype).reshape(-1, n)
        starts.append(region.select(image).nearest(x0[image], flat).reshape(given.shape))
    classes, first = search.target[:, None], x0[:, None]
    if not targeted:
        easiest, beyond = easiest_classes(search, region, x0, settings.n_classes)
        open_target = classes < 0
        classes = torch.where(open_target, easiest, classes)
        first = torch.where(open_target[:, :, None], beyond, first)
    image = torch.arange(n_images).repeat_interleave(classes.shape[1])
    towards = search.select(image)
    towards.target = classes.reshape(-1)
    x = newton_starts(
        towards,
        region.select(image),
        x0[image],
        largest_move[image],
        settings.n_newton_steps,
        first=None if targeted else first.reshape(-1, n),
    )
    starts.append(x.reshape(n_images, -1, n))
    found = torch.cat(starts, 1)
    return torch.where(torch.isfinite(found).all(2, keepdim=True), found, x0[:, None])


def _leading(state: WalkState, n_images: int, n_kept: int) -> Tensor:
    """The rows of each image with the nearest boundary ahead; those that never saw the far side come last."""
    rank = torch.where(torch.isfinite(state.best_distance), state.estimate, torch.inf).nan_to_num(torch.inf)
    rank = rank.reshape(n_images, -1)
    first = rank.argsort(dim=1, stable=True)[:, :n_kept]
    return (first + torch.arange(n_images)[:, None] * rank.shape[1]).reshape(-1)


def _banked(bank: tuple[Tensor, Tensor], state: WalkState) -> tuple[Tensor, Tensor]:
    """The few most promising of the points banked so far, those where the rows stand, and the best they saw."""
    points, distance = bank
    n_images, _, n = points.shape
    points = torch.cat((points, state.point.reshape(n_images, -1, n), state.best_point.reshape(n_images, -1, n)), 1)
    distance = torch.cat(
        (distance, state.estimate.reshape(n_images, -1), state.best_distance.reshape(n_images, -1)), 1
    ).nan_to_num(torch.inf)
    ordered, order = distance.sort(dim=1, stable=True)
    again = torch.cat((torch.zeros_like(ordered[:, :1], dtype=torch.bool), ordered[:, 1:] == ordered[:, :-1]), 1)
    distance = distance.masked_fill(again.gather(1, order.argsort(1)), torch.inf)  # a row that stood still
    first = distance.argsort(dim=1, stable=True)[:, :_N_BANKED]
    return points.gather(1, first[:, :, None].expand(-1, -1, n)), distance.gather(1, first)


def _polish_all(flips: Flips, there: Margins, region: Region, x0: Tensor, points: Tensor, distance: Tensor) -> None:
    """Move the points ``(row, k, n)`` onto the boundary, those that promise less than what is found already."""
    origin = region.nearest(x0, x0)
    for column in range(points.shape[1]):
        promising = distance[:, column] < (1 - _SAME) * flips.distance[there.image]
        todo = promising.nonzero()[:, 0]
        if len(todo) == 0:
            continue
        here, inside = there.select(todo), region.select(todo)
        polished = polish(here, inside, origin[todo], inside.nearest(origin[todo], points[todo, column]))
        _settle(flips, here, inside, x0[todo], polished.point, polished.margin)


def _refine(settings: Effort, flips: Flips, there: Margins, region: Region, x0: Tensor) -> None:
    """Walk on in float64 from what is found, or from Newton's method where it was too near for single precision."""
    origin = region.nearest(x0, x0)
    x = flips.point[there.image]
    lost = (~flips.found[there.image]).nonzero()[:, 0]
    if len(lost):
        anywhere = x0.new_full((len(lost),), torch.inf)
        x[lost] = newton_starts(there.select(lost), region.select(lost), origin[lost], anywhere, 3)
    state = walk(
        settings.walk,
        there,
        region,
        origin,
        start_walk(settings.walk, there, region, origin, x),
        settings.n_exact_steps,
    )
    points, distance = _banked((x0[:, None].expand(-1, 0, -1), x0[:, :0]), state)
    _polish_all(flips, there, region, x0, points, distance)


def _settle(flips: Flips, there: Margins, region: Region, x0: Tensor, point: Tensor, margin: Tensor) -> None:
    """Enter the rows whose point is on the far side to the tolerance and nearer than what is found already."""
    met = (margin <= 0) & (margin >= -FLIP_TOLERANCE)
    distance = region.distance(x0, point)
    met &= ((point >= region.low) & (point <= region.high)).all(1) & (distance < flips.distance[there.image])
    met = met.nonzero()[:, 0]
    if len(met) == 0:
        return
    image = there.image[met]
    flips.point[image] = point[met]
    flips.distance[image] = distance[met]
    flips.residual[image] = -margin[met]
    flips.target[image] = there.select(met).target_at(point[met])


def _checked(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    target: Tensor | None,
    reference: tuple[Tensor, Tensor] | None,
    starts: Tensor | None,
    effort: str,
) -> Effort:
    n, n_images = outputs.n_coordinates, len(inputs)
    if effort not in EFFORTS:
        raise UserError("effort", ", ".join(EFFORTS), repr(effort), "regular is a good choice")
    if exact.dtype != torch.float64:
        raise UserError("exact", "outputs in float64", str(exact.dtype), "make them by all_outputs(torch.float64)")
    if outputs.n_outputs < 2:
        raise UserError("outputs", "two classes or more", str(outputs.n_outputs), "a single number has no classes")
    shapes = [("inputs", inputs, (n_images, n)), ("own", own, (n_images,))]
    if target is not None:
        shapes.append(("target", target, (n_images,)))
    if starts is not None:
        shapes.append(("starts", starts, (n_images, starts.shape[1] if starts.ndim > 1 else 0, n)))
    if reference is not None:
        shapes += [
            ("reference", reference[0], (len(reference[0]), n)),
            ("reference", reference[1], (len(reference[0]),)),
        ]
    for name, tensor, shape in shapes:
        if tuple(tensor.shape) != shape:
            raise UserError(name, f"shape {shape}", str(tuple(tensor.shape)), "one row an image, points flattened")
    if n_images and not bool(((own >= 0) & (own < outputs.n_outputs)).all()):
        raise UserError("own", f"classes 0 to {outputs.n_outputs - 1}", str(own.tolist()), "give the predicted class")
    if target is not None and bool(((target >= outputs.n_outputs) | (target == own)).any()):
        raise UserError("target", "another class than own, or -1", str(target.tolist()), "leave it out for any class")
    return EFFORTS[effort]
