"""Closest points where three or more classes tie and every other class stays strictly below.

Source: the tie of Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods',
equation 3, of more than two classes. Which classes meet nearest is guessed from the linearised outputs at the input and
at the nearest pair flips, and the most promising sets are searched.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.pair_flips import checked_reference, class_ties, pair_flips, segments_to_classes
from theodolite.search.pair_polish import STRICTLY_BELOW
from theodolite.search.pair_solver import TiePoints, checked_region, effort_of, nearest_ties
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region

_N_CLASSES = 7  # of which sets are made: the nearest by their linearised distance
_N_PAIRS = 3  # pair flips that are looked from
_N_SETS = {"quick": 3, "regular": 5, "thorough": 12}


@final
@dataclass
class Meetings:
    """``point (image, n)`` float64 (NaN: none found), ``distance (image,)`` (inf), ``classes (image, n_classes)`` int64
    rising (-1), ``residual (image,)`` largest difference of their outputs, ``units (image,)`` int64 passes spent."""

    point: Tensor
    distance: Tensor
    classes: Tensor
    residual: Tensor
    units: Tensor


def meeting_points(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    *,
    n_classes: int = 3,
    region: Region | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    effort: str = "regular",
    generator: torch.Generator,
    strictly_below: float = STRICTLY_BELOW,
) -> Meetings:
    """For each row of ``inputs (image, n)``, of class ``own (image,)``, the closest point found where some
    ``n_classes`` classes tie, to 1e-9 in the double precision of ``exact``, and all others are lower by at least
    ``strictly_below``, in L2. The own class need not be among them. Arguments as of `pair_flips`.

    Raises:
        UserError: as `pair_flips`; fewer than 2 or more than all classes.
    """
    settings = effort_of(effort)
    region = checked_region(region, outputs, inputs)
    reference = checked_reference(reference, outputs)
    if not 2 <= n_classes <= outputs.n_outputs:
        raise UserError(
            "n_classes", f"2 to {outputs.n_outputs} of the network's classes", repr(n_classes), "3 is a corner"
        )
    n_images, inputs = len(inputs), inputs.double()
    units = torch.zeros(n_images, dtype=torch.int64)
    sets = _promising_sets(outputs, exact, inputs, own, n_classes, region, reference, _N_SETS[effort], units, generator)
    n_sets = sets.shape[1]
    image = torch.arange(n_images).repeat_interleave(n_sets)
    flat = sets.flatten(0, 1)
    ties = class_ties(outputs, flat[:, 0], flat[:, 1:], image, n_images)
    ties.units = units

    def segments(some: Ties, x0: Tensor, local: torch.Generator) -> tuple[Tensor, Tensor]:
        return segments_to_classes(some, x0, reference, settings.n_references, local if settings.random else None)

    found = nearest_ties(
        ties, exact, inputs[image], region.select(image), segments, settings, generator, strictly_below=strictly_below
    )
    return _nearest_of(found, flat, n_images, units)


def _nearest_of(found: TiePoints, sets: Tensor, n_images: int, units: Tensor) -> Meetings:
    distance, best = found.distance.reshape(n_images, -1).min(1)
    row = torch.arange(n_images) * (len(sets) // max(n_images, 1)) + best
    classes = torch.where(torch.isfinite(distance)[:, None], sets[row].sort(1).values, -1)
    return Meetings(found.point[row], distance, classes, found.residual[row], units)


def _promising_sets(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    own: Tensor,
    n_classes: int,
    region: Region,
    reference: tuple[Tensor, Tensor] | None,
    n_sets: int,
    units: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Sets ``(image, s, n_classes)`` of classes, those that seem to meet nearest first."""
    x0 = inputs.to(outputs.dtype)
    output, gradient = _all_gradients(outputs, x0, units)
    near = _nearest_classes(output, gradient, own, max(_N_CLASSES, n_classes))
    choices = torch.tensor(list(itertools.combinations(range(near.shape[1]), n_classes)))
    sets = near[:, choices]
    promised = _first_order(x0, x0, output, gradient, sets)
    for second in near[:, 1 : 1 + _N_PAIRS].unbind(1):
        flips = pair_flips(
            outputs,
            exact,
            inputs,
            own,
            second,
            region=region,
            reference=reference,
            effort="quick",
            generator=generator,
        )
        units += flips.units
        at = torch.where(flips.found[:, None], flips.point, inputs).to(outputs.dtype)
        output, gradient = _all_gradients(outputs, at, units)
        seen = _first_order(x0, at, output, gradient, sets)
        # Where the outputs bend, what is seen from the boundary counts.
        promised = torch.where(flips.found[:, None], torch.minimum(promised, seen), promised)
    order = promised.topk(min(n_sets, promised.shape[1]), dim=1, largest=False).indices
    return sets.gather(1, order[:, :, None].expand(-1, -1, n_classes))


def _all_gradients(outputs: Outputs, x: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    eye = torch.eye(outputs.n_outputs, dtype=outputs.dtype)
    units += 1 + outputs.n_outputs
    return outputs.rows(x, lambda z, index: eye.expand(len(z), -1, -1))


def _nearest_classes(output: Tensor, gradient: Tensor, own: Tensor, n_classes: int) -> Tensor:
    """``(image, c)``: the own class, then those whose linearised tie with it is nearest."""
    image = torch.arange(len(own))
    behind = (output[image, own][:, None] - output).abs()
    steepness = (gradient[image, own][:, None] - gradient).norm(dim=2)
    length = (behind / steepness.clamp(min=torch.finfo(output.dtype).tiny)).nan_to_num(nan=torch.inf)
    length = length.scatter(1, own[:, None], -1.0)
    return length.topk(min(n_classes, length.shape[1]), dim=1, largest=False).indices


def _first_order(x0: Tensor, x: Tensor, output: Tensor, gradient: Tensor, sets: Tensor) -> Tensor:
    """``(image, set)`` the distance from x0 at which the outputs of each set tie, linearised at x; longer by what
    other classes lead there. The box is left out of account."""
    image = torch.arange(len(x))[:, None, None]
    outputs_at_x0 = output + torch.einsum("ikn,in->ik", gradient, x0 - x)
    inner = torch.einsum("ikn,iln->ikl", gradient, gradient)
    base, tied = sets[:, :, :1], sets[:, :, 1:]
    gap = outputs_at_x0[image, tied] - outputs_at_x0[image, base]

    def products(first: Tensor, second: Tensor) -> Tensor:
        return inner[image[..., None], first[..., :, None], second[..., None, :]]

    system = products(tied, tied) - products(tied, base) - products(base, tied) + products(base, base)
    ridge = 1e-6 * system.diagonal(dim1=2, dim2=3).sum(2) + torch.finfo(x.dtype).tiny
    system = system + ridge[..., None, None] * torch.eye(tied.shape[2], dtype=x.dtype)
    weight = torch.linalg.solve_ex(system, gap[..., None])[0][..., 0]
    length = (weight * gap).sum(2).clamp(min=0.0).sqrt()
    # Outputs of all classes at the linearised meeting.
    along = inner[image, :, tied] - inner[image, :, base]
    there = outputs_at_x0[:, None] - torch.einsum("ism,ismk->isk", weight, along)
    lead = (there.amax(2) - there.gather(2, base)[:, :, 0]).clamp(min=0.0)
    steepness = inner.diagonal(dim1=1, dim2=2).amax(1).sqrt()[:, None].clamp(min=torch.finfo(x.dtype).tiny)
    return (length + lead / steepness).nan_to_num(nan=torch.inf)
