"""Closest points where two given classes tie and every other class stays strictly below.

Source: Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods', equations 1-3
for classes i and j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.flips import Flips
from theodolite.search.pair_polish import STRICTLY_BELOW
from theodolite.search.pair_solver import RETRY, checked_region, effort_of, nearest_ties
from theodolite.search.pair_starts import nearest_references
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region


@final
@dataclass
class PairTable:
    """``point (image, class, n)`` float64, ``distance``, ``residual`` ``(image, class)`` of the pairs of each image's
    own class with the others; NaN for the own class, distance inf where none was found. ``units (image,)`` int64."""

    point: Tensor
    distance: Tensor
    residual: Tensor
    units: Tensor


def pair_flips(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    region: Region | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    effort: str = "regular",
    generator: torch.Generator,
    strictly_below: float = STRICTLY_BELOW,
) -> Flips:
    """For each row of ``inputs (row, n)`` the closest point found where classes ``first`` and ``second`` ``(row,)``
    tie and all others are lower by at least ``strictly_below``, in L2.

    At the point, in the double precision of ``exact``, z_second - z_first is in [0, 1e-9], and it lies in the region
    (None: the hull) exactly. ``reference``: points ``(m, n)`` and the network's classes of them ``(m,)``, from which
    searches start too; without them searches start from the input and points around it only. Rows whose outputs are
    not finite, or for which nothing was found, have distance inf.

    Raises:
        UserError: shapes that do not fit, classes that are none or the same, another norm than L2, unknown effort.
    """
    settings = effort_of(effort)
    region = checked_region(region, outputs, inputs)
    _check_classes(outputs, len(inputs), first, second)
    reference = checked_reference(reference, outputs)
    ties = class_ties(outputs, first, second[:, None], torch.arange(len(inputs)), len(inputs))

    def from_input(some: Ties, x0: Tensor, local: torch.Generator) -> tuple[Tensor, Tensor]:
        return segments_to_classes(some, x0, reference, settings.n_references, local if settings.random else None)

    inputs = inputs.double()
    found = nearest_ties(ties, exact, inputs, region, from_input, settings, generator, strictly_below=strictly_below)
    lost = (~torch.isfinite(found.distance)).nonzero()[:, 0]
    if len(lost) and effort != "quick":

        def between(some: Ties, x0: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
            return _between_classes(some, x0, reference, RETRY.n_references)

        again = nearest_ties(
            ties.select(lost),
            exact,
            inputs[lost],
            region.select(lost),
            between,
            RETRY,
            generator,
            strictly_below=strictly_below,
        )
        found.put(lost, again)
    target = torch.where(torch.isfinite(found.distance), second.long(), -1)
    return Flips(found.point, found.distance, target, found.residual, ties.units)


def class_ties(outputs: Outputs, base: Tensor, tied: Tensor, problem: Tensor, n_problems: int) -> Ties:
    """Classes ``tied (row, m)`` against class ``base (row,)``, all others below."""
    return Ties(
        outputs,
        problem,
        base.long(),
        tied.long(),
        torch.zeros(len(base), dtype=torch.float64),
        torch.ones(len(base), dtype=torch.float64),
        torch.zeros(n_problems, dtype=torch.int64),
    )


def checked_reference(reference: tuple[Tensor, Tensor] | None, outputs: Outputs) -> tuple[Tensor, Tensor] | None:
    """The reference in the outputs' precision. Raises UserError where it is not points and a class of each."""
    if reference is None:
        return None
    points, classes = reference
    if points.ndim != 2 or points.shape[1] != outputs.n_coordinates or classes.shape != (len(points),):
        raise UserError(
            "reference",
            f"points (m, {outputs.n_coordinates}) and classes (m,)",
            f"{tuple(points.shape)} and {tuple(classes.shape)}",
            "flatten each point",
        )
    return points.to(outputs.dtype), classes.long()


def all_pairs(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    *,
    region: Region | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    effort: str = "regular",
    generator: torch.Generator,
    strictly_below: float = STRICTLY_BELOW,
) -> PairTable:
    """`pair_flips` of ``own (image,)`` with every other class, for ``inputs (image, n)``.

    The gradients at an input are the only ones that its pairs have in common, about a hundredth of the cost.
    """
    n_images, n_classes = len(inputs), outputs.n_outputs
    region = checked_region(region, outputs, inputs)
    image = torch.arange(n_images).repeat_interleave(n_classes)
    second = torch.arange(n_classes).repeat(n_images)
    pairs = (second != own[image]).nonzero()[:, 0]
    image = image[pairs]
    flips = pair_flips(
        outputs,
        exact,
        inputs[image],
        own[image],
        second[pairs],
        region=region.select(image),
        reference=reference,
        effort=effort,
        generator=generator,
        strictly_below=strictly_below,
    )
    table = PairTable(
        torch.full((n_images, n_classes, inputs.shape[1]), torch.nan, dtype=torch.float64),
        torch.full((n_images, n_classes), torch.nan, dtype=torch.float64),
        torch.full((n_images, n_classes), torch.nan, dtype=torch.float64),
        torch.zeros(n_images, dtype=torch.int64).index_add(0, image, flips.units),
    )
    table.point[image, second[pairs]] = flips.point
    table.distance[image, second[pairs]] = flips.distance
    table.residual[image, second[pairs]] = flips.residual
    return table


def segments_to_classes(
    ties: Ties,
    x0: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    n_references: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Segments ``(row, s, n)`` from the inputs to reference points of the classes that are behind there, NaN where
    there are fewer; with a generator some at random."""
    if reference is None or n_references == 0:
        empty = x0.new_zeros((len(x0), 0, x0.shape[1]))
        return empty, empty
    points, classes = reference
    gaps = ties.gaps(ties.outputs_at(x0))
    wanted = torch.where(gaps < 0, ties.tied, ties.base[:, None])
    ends = []
    for column in wanted.unbind(1):
        allowed = classes[None] == column[:, None]
        index = nearest_references(x0, points, allowed, -(-n_references // ties.n_tied), generator)
        ends.append(torch.where((index >= 0)[:, :, None], points[index.clamp(min=0)], torch.nan))
    end = torch.cat(ends, 1)
    return x0[:, None].expand_as(end), end


def _between_classes(
    ties: Ties, x0: Tensor, reference: tuple[Tensor, Tensor] | None, n_segments: int
) -> tuple[Tensor, Tensor]:
    """Segments between the nearest reference points of both classes, every near one with every other."""
    if reference is None:
        empty = x0.new_zeros((len(x0), 0, x0.shape[1]))
        return empty, empty
    points, classes = reference
    side = math.ceil(math.sqrt(n_segments))
    ends = []
    for wanted in (ties.base, ties.tied[:, 0]):
        index = nearest_references(x0, points, classes[None] == wanted[:, None], side)
        ends.append(torch.where((index >= 0)[:, :, None], points[index.clamp(min=0)], torch.nan))
    first, second = ends
    n_first, n_second = first.shape[1], second.shape[1]
    return first.repeat_interleave(n_second, 1), second.repeat(1, n_first, 1)


def _check_classes(outputs: Outputs, n_rows: int, first: Tensor, second: Tensor) -> None:
    for argument, classes in (("first", first), ("second", second)):
        if classes.shape != (n_rows,) or bool(((classes < 0) | (classes >= outputs.n_outputs)).any()):
            raise UserError(
                argument,
                f"a class of 0..{outputs.n_outputs - 1} for each of {n_rows} inputs",
                f"shape {tuple(classes.shape)}, {classes.unique().tolist()[:10]}",
                "count the classes from 0",
            )
    if bool((first == second).any()):
        raise UserError("second", "another class than first", "the same", "a class always ties with itself")
