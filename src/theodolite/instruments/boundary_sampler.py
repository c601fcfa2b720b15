"""The steps of a survey of a boundary: a block of images each, closest flips first, then pairs, meetings and proofs.

Blocks depend on the task alone and every one starts from a generator of its own, so that neither interruptions nor
budgets change what a block finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, final

import torch
from torch import Tensor

from theodolite.instruments import boundary_proofs
from theodolite.instruments.boundary_checks import EXACT_SHARE
from theodolite.instruments.boundary_proofs import Bounds, no_bounds
from theodolite.instruments.boundary_task import BoundaryTask
from theodolite.instruments.homotopy import homotopy_starts
from theodolite.run import Meter
from theodolite.search.closest_flips import closest_flips
from theodolite.search.constrained_flips import constrained_flips
from theodolite.search.flips import Flips, nearer, no_flips
from theodolite.search.meeting_points import Meetings, meeting_points
from theodolite.search.pair_flips import pair_flips

if TYPE_CHECKING:
    from theodolite.instruments.boundary import Boundary

_PAIRS_A_STEP = 3  # times the images of a block
_PROOFS_A_STEP = 4  # images: a proof can take seconds
_HASTE = 2.0  # times its share of the time left that an image's proof may take: many take less


@dataclass(frozen=True)
class BoundaryState:
    """What each step so far found; ``step`` of the schedule comes next. ``identity``: of the task they belong to.

    ``flips``, ``violation``, ``meetings``, ``bounds``, ``second_bounds``, ``pair_bounds``: a part a block of images;
    ``pairs``: a part a block of pairs.
    """

    step: int
    flips: tuple[Flips, ...] = ()
    violation: tuple[Tensor, ...] = ()
    pairs: tuple[Flips, ...] = ()
    meetings: tuple[Meetings, ...] = ()
    bounds: tuple[Bounds, ...] = ()
    second_bounds: tuple[Bounds, ...] = ()
    pair_bounds: tuple[Bounds, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Found:
    """All that is known, a row an image of the task: ``flips`` (the nearest known, ties of pairs among them),
    ``violation (image,)``, ``searched (image,)`` bool; ``pairs`` a row a pair of ``task.pairs``; ``meetings``;
    ``bounds``; ``unreached``: stage -> images or pairs that the budget left out."""

    flips: Flips
    violation: Tensor
    searched: Tensor
    pairs: Flips
    meetings: Meetings | None
    bounds: Bounds
    unreached: Mapping[str, int]


@final
@dataclass(frozen=True)
class BoundarySampler:
    """Works through the task's usable images under the settings; ``meter`` tells the time that is left for proofs."""

    settings: Boundary
    task: BoundaryTask
    meter: Meter

    def init(self, generator: torch.Generator) -> BoundaryState:
        return BoundaryState(0, identity=self.task.identity)

    def step(self, state: BoundaryState, generator: torch.Generator) -> tuple[BoundaryState, dict[str, Any]]:
        schedule = self._schedule
        if state.step >= len(schedule):
            return state, {}
        stage, rows = schedule[state.step]
        # Not the run's generator: what a block finds must not depend on the blocks before it.
        source = torch.Generator().manual_seed(self.settings.seed)
        found = _STAGES[stage](self, state, rows, source)
        state = replace(found, step=state.step + 1)
        return state, {"stage": stage, "step": f"{state.step} of {len(schedule)}"}

    def stop(self, state: BoundaryState, info: Mapping[str, Any]) -> str | None:
        return "Every input was searched." if state.step >= len(self._schedule) else None

    @cached_property
    def _schedule(self) -> list[tuple[str, Tensor]]:
        """Stages and their rows: indices of images, or of pairs."""
        images = self.task.usable.nonzero()[:, 0]
        block = self.task.block
        parts = [("flips", rows) for rows in images.split(block)]
        parts += [("pairs", rows) for rows in torch.arange(len(self.task.pairs[0])).split(_PAIRS_A_STEP * block)]
        if self.settings.meeting:
            parts += [("meetings", rows) for rows in images.split(block)]
        if self.settings.certificate != "none":
            parts += [("bounds", rows) for rows in images.split(_PROOFS_A_STEP)]
        if self.settings.certificate in ("auto", "cap"):
            parts += [("second_bounds", rows) for rows in images.split(_PROOFS_A_STEP)]
        if self.settings.certificate not in ("none", "exact") and len(self.task.pairs[0]):
            parts += [("pair_bounds", rows) for rows in images.split(_PROOFS_A_STEP)]
        return [(stage, rows) for stage, rows in parts if len(rows)]

    # ------------------------------------------------------------------ stages

    def _flips(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        task, settings = self.task, self.settings
        points, own = task.points[rows], task.own[rows]
        violation = torch.zeros(len(rows), dtype=torch.float64)
        starts, spent = self._starts(rows)
        if settings.constraints is not None and task.rules is not None:
            flips, violation = constrained_flips(
                task.outputs,
                task.exact,
                points,
                own,
                settings.constraints,
                norm=settings.norm,
                reference=task.reference,
                starts=starts,
                effort=settings.effort,
                generator=source,
            )
        else:
            flips = closest_flips(
                task.outputs,
                task.exact,
                points,
                own,
                region=task.region(rows),
                reference=task.reference,
                starts=starts,
                effort=settings.effort,
                generator=source,
            )
        flips = replace(flips, units=flips.units + spent)
        return replace(state, flips=(*state.flips, flips), violation=(*state.violation, violation))

    def _starts(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Starts from less steep networks, where they are wanted, and the passes spent on them ``(image,)``."""
        task = self.task
        if not task.homotopy:
            return None, torch.zeros(len(rows), dtype=torch.int64)
        found = homotopy_starts(task.network, task.points[rows], task.own[rows], region=task.region(rows))
        task.outputs.n_units += int(found.units.sum())
        return found.point, found.units

    def _pairs(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        task = self.task
        image, other = (part[rows] for part in task.pairs)
        flips = pair_flips(
            task.outputs,
            task.exact,
            task.points[image],
            task.own[image],
            other,
            region=task.region(image),
            reference=task.reference,
            effort=self.settings.effort,
            generator=source,
        )
        return replace(state, pairs=(*state.pairs, flips))

    def _meetings(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        task = self.task
        found = meeting_points(
            task.outputs,
            task.exact,
            task.points[rows],
            task.own[rows],
            n_classes=self.settings.meeting,
            region=task.region(rows),
            reference=task.reference,
            effort=self.settings.effort,
            generator=source,
        )
        return replace(state, meetings=(*state.meetings, found))

    def _bounds(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        found = self._proven(rows, self._upper(state)[rows].amin(1), state.bounds)
        return replace(state, bounds=(*state.bounds, found))

    def _second_bounds(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        """Proofs that their share of the time cut short, with what others left of theirs; none without a clock."""
        upper = self._upper(state).amin(1)
        known = torch.zeros(len(upper), dtype=torch.float64)
        known[self.task.usable] = torch.cat([part.lower for part in state.bounds])
        timed = self.meter.budget.seconds is not None
        short = self.task.usable & (known < EXACT_SHARE * upper) & timed
        n_left = int(short[rows[0] :].sum())
        found = no_bounds(len(rows), self.task.n_classes)
        place = short[rows].nonzero()[:, 0]
        if len(place):
            seconds = self._share_of_time(len(place), n_left)
            again = boundary_proofs.certify(
                self.task, rows[place], upper[rows[place]], self.settings.certificate, seconds
            )
            found.lower[place], found.by_class[place] = again.lower, again.by_class
        return replace(state, second_bounds=(*state.second_bounds, found))

    def _pair_bounds(self, state: BoundaryState, rows: Tensor, source: torch.Generator) -> BoundaryState:
        """Each class apart, as far as its own flip point: last, since classes far away take the longest."""
        found = self._proven(rows, self._upper(state)[rows], state.pair_bounds)
        return replace(state, pair_bounds=(*state.pair_bounds, found))

    def _proven(self, rows: Tensor, upper: Tensor, before: Sequence[Bounds]) -> Bounds:
        """Bounds of the next images, in their share of the time that those ``before`` them have left."""
        n_left = self.task.n_usable - sum(len(part.lower) for part in before)
        seconds = self._share_of_time(len(rows), n_left)
        return boundary_proofs.certify(self.task, rows, upper, self.settings.certificate, seconds)

    def _upper(self, state: BoundaryState) -> Tensor:
        """``(image, class)``: the nearest flip point known, or, of a pair, its own."""
        nowhere = torch.full((len(self.task.own),), torch.inf, dtype=torch.float64)
        images, (image, other) = self.task.usable.nonzero()[:, 0], self.task.pairs
        nearest = nowhere.index_copy(0, images, torch.cat([part.distance for part in state.flips]))
        tied = nowhere[:, None].repeat(1, self.task.n_classes)
        if state.pairs:
            tied[image, other] = torch.cat([part.distance for part in state.pairs])
        wanted = torch.zeros_like(tied, dtype=torch.bool)
        wanted[image, other] = True
        nearest = torch.minimum(nearest, tied.amin(1))
        return torch.where(wanted, tied, nearest[:, None])

    def _share_of_time(self, n_images: int, n_left: int) -> float | None:
        """Seconds for the proof of each of the next images, so that none is left without; None: what they take."""
        if self.meter.budget.seconds is None:
            return None
        left = max(0.0, self.meter.budget.seconds - self.meter.seconds)
        return left * min(_HASTE / n_left, 1 / n_images)

    # ------------------------------------------------------------------ what is known

    def found(self, state: BoundaryState) -> Found:
        """Everything so far, a row an image of the task; what was not reached is so marked."""
        images = self.task.usable.nonzero()[:, 0]
        n_images, n_coordinates = self.task.points.shape
        n_searched = sum(len(part.distance) for part in state.flips)
        searched = torch.zeros(n_images, dtype=torch.bool)
        searched[images[:n_searched]] = True
        violation = torch.zeros(n_images, dtype=torch.float64)
        if state.violation:
            violation[images[:n_searched]] = torch.cat(state.violation)
        meetings = None
        if self.settings.meeting:
            meetings = _placed(_no_meetings(n_images, n_coordinates, self.settings.meeting), state.meetings, images)
        bounds = self._every_bound(state)
        unreached: Counter[str] = Counter()
        for stage, rows in self._schedule[state.step :]:
            unreached[stage] += len(rows)
        return Found(self._nearest(state), violation, searched, self._every_pair(state), meetings, bounds, unreached)

    def _every_pair(self, state: BoundaryState) -> Flips:
        """A row a pair of the task."""
        n_pairs = len(self.task.pairs[0])
        return _placed(no_flips(n_pairs, self.task.points.shape[1]), state.pairs, torch.arange(n_pairs))

    def _every_bound(self, state: BoundaryState) -> Bounds:
        """A row an image of the task."""
        images = self.task.usable.nonzero()[:, 0]
        nothing = no_bounds(len(self.task.own), self.task.n_classes)
        if not state.bounds:
            return nothing
        rows = images[: sum(len(part.lower) for part in state.bounds)]
        method = list(nothing.method)
        for row, words in zip(rows.tolist(), (words for part in state.bounds for words in part.method), strict=True):
            method[row] = words
        lower = nothing.lower.index_copy(0, rows, torch.cat([part.lower for part in state.bounds]))
        by_class = nothing.by_class.index_copy(0, rows, torch.cat([part.by_class for part in state.bounds]))
        for parts in (state.second_bounds, state.pair_bounds):
            again = rows[: sum(len(part.lower) for part in parts)]
            if len(again):
                lower[again] = torch.maximum(lower[again], torch.cat([part.lower for part in parts]))
                by_class[again] = torch.maximum(by_class[again], torch.cat([part.by_class for part in parts]))
        return Bounds(lower, by_class, tuple(method))

    def _nearest(self, state: BoundaryState) -> Flips:
        """A row an image of the task: a tie with one class, all others below, is a flip point too, as are those that
        proofs meet."""
        n_images, n_coordinates = self.task.points.shape
        flips = _placed(no_flips(n_images, n_coordinates), state.flips, self.task.usable.nonzero()[:, 0])
        pairs, (images, classes) = self._every_pair(state), self.task.pairs
        units = flips.units.index_add(0, images, pairs.units)
        for other in range(self.task.n_classes):
            rows = ((classes == other) & pairs.found).nonzero()[:, 0]
            better = nearer(flips.select(images[rows]), pairs.select(rows))
            flips = _placed(flips, (better,), images[rows])
        met = [part.flips for part in state.bounds if part.flips is not None]
        if met:
            flips = nearer(flips, _placed(no_flips(n_images, n_coordinates), met, self.task.usable.nonzero()[:, 0]))
        return replace(flips, units=units)


_STAGES = {
    "flips": BoundarySampler._flips,
    "pairs": BoundarySampler._pairs,
    "meetings": BoundarySampler._meetings,
    "bounds": BoundarySampler._bounds,
    "second_bounds": BoundarySampler._second_bounds,
    "pair_bounds": BoundarySampler._pair_bounds,
}


def _no_meetings(n_images: int, n_coordinates: int, n_classes: int) -> Meetings:
    nowhere = torch.full((n_images,), torch.inf, dtype=torch.float64)
    return Meetings(
        torch.full((n_images, n_coordinates), torch.nan, dtype=torch.float64),
        nowhere,
        torch.full((n_images, n_classes), -1),
        torch.full_like(nowhere, torch.nan),
        torch.zeros(n_images, dtype=torch.int64),
    )


Rows = TypeVar("Rows", Flips, Meetings)


def _placed(whole: Rows, parts: Sequence[Rows], rows: Tensor) -> Rows:
    """``whole`` with the parts, one after another, in its ``rows``, as far as they reach."""
    changed = {}
    for name in (entry.name for entry in fields(whole)) if parts else ():
        values = torch.cat([getattr(part, name) for part in parts])
        changed[name] = getattr(whole, name).index_copy(0, rows[: len(values)], values)
    return replace(whole, **changed)
