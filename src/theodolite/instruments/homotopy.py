"""Starts for the boundary walk from a homotopy: flip points of a softened network, followed back to the network itself.

All activations are softened at once (`softening`) and sharpened geometrically; at every stage the flip point of the
last one is brought to the boundary and walked a few steps towards the input. Where activations are so steep that
gradients vanish, this finds boundaries that descents and steps from the data miss. Source of the idea: Yousefzadeh and
O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", section 3.3; the paper's own algorithms
are in `paper_homotopy`.

Measured on digits: with error functions of a 12-layer network made 1/0.3 as steep, distances are two thirds of those
that other starts lead to, for 300 passes an image (8 stages, 470 passes: 2% less); for sigmoids and tanh it helps on
some inputs; for ReLU networks no case was found where it helps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.softening import Softening, softened
from theodolite.network import Network
from theodolite.search.boundary_starts import newton_starts, onto_boundary
from theodolite.search.boundary_walk import Walk, start_walk, walk
from theodolite.search.margins import Margins
from theodolite.search.regions import Region, hull

_WALK = Walk(n_cuts=1)  # cuts of a network that is about to change are worth nothing


@final
@dataclass(frozen=True)
class Homotopy:
    """``n_stages`` from activations ``width`` times as wide (and negative slopes raised by ``slope``) to the network
    itself, by equal factors of the width; ``n_steps`` of the walk a stage, ``n_last_steps`` in the last.

    A path an image for each of ``leads``: there the output of the own class is shifted so that its lead at the input
    begins with this share of what the softened network gives it, and the shift is taken back in equal parts; 1 shifts
    nothing. Raises UserError for settings out of their ranges.
    """

    n_stages: int = 5
    width: float = 8.0
    slope: float = 0.1
    leads: tuple[float, ...] = (0.02, 1.0)
    n_steps: int = 5
    n_last_steps: int = 4
    n_newton_steps: int = 6
    n_secant_steps: int = 3

    def __post_init__(self) -> None:
        for name in ("n_stages", "n_steps", "n_last_steps", "n_newton_steps", "n_secant_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(name, "a whole number of at least 1", repr(value), "leave it out")
        if not (math.isfinite(self.width) and self.width > 1):
            raise UserError("width", "a finite number above 1", repr(self.width), "8 was the best that was tried")
        if not 0 <= self.slope <= 1:
            raise UserError("slope", "a number in [0, 1]", repr(self.slope), "leave it out")
        if not self.leads or not all(0 < lead <= 1 for lead in self.leads):
            raise UserError("leads", "shares in (0, 1]", repr(self.leads), "leave it out")


@final
@dataclass(frozen=True)
class HomotopyStarts:
    """``point (image, s, n)`` a point a path, ``distance (image, s)`` to the input in the region's norm, inf where the
    path did not end on the far side; ``units (image,)`` int64 forward and backward passes."""

    point: Tensor
    distance: Tensor
    units: Tensor


def homotopy_starts(
    network: Network,
    inputs: Tensor,
    own: Tensor,
    *,
    target: Tensor | None = None,
    region: Region | None = None,
    homotopy: Homotopy | None = None,
) -> HomotopyStarts:
    """Points near the boundary of ``network`` to give `closest_flips` as ``starts``, from any of its activations.

    ``inputs (image, n)`` flat, in input units; ``own (image,)`` their classes; ``target (image,)``: -1 or None for any;
    ``region``: None for the hull of the space, in L2. Activations are those of the module, the preprocessing and the
    embedding. Raises UserError for inputs of another shape.
    """
    settings = homotopy or Homotopy()
    plain = network.all_outputs()
    if inputs.ndim != 2 or inputs.shape[1] != plain.n_coordinates or len(own) != len(inputs):
        expected = f"inputs (image, {plain.n_coordinates}) and a class each"
        raise UserError("inputs", expected, f"{tuple(inputs.shape)} and {len(own)} classes", "flatten each input")
    softening = Softening()
    outputs = softened(plain, softening)
    region = (hull(plain, len(inputs)) if region is None else region).to(plain.dtype)
    x0 = region.nearest(inputs.to(plain.dtype), inputs.to(plain.dtype))
    n_paths = len(settings.leads)
    everything = torch.arange(len(x0))
    any_class = torch.full_like(own, -1)
    inputs_rows = Margins(outputs, everything, own, any_class if target is None else target, torch.zeros_like(own))
    image = everything.repeat_interleave(n_paths)
    rows, region, origin = inputs_rows.select(image), region.select(image), x0[image]
    leads = torch.tensor(settings.leads, dtype=plain.dtype).repeat(len(x0))
    x, distance = origin, torch.full((len(origin),), torch.inf, dtype=plain.dtype)
    for stage in range(settings.n_stages + 1):
        share = stage / settings.n_stages
        softening.width = settings.width ** (1 - share)
        softening.slope = settings.slope * (softening.width - 1) / (settings.width - 1)
        margin = inputs_rows.value(x0)[image]
        rows.handicap = (1 - share) * (margin - leads * margin.abs())
        x, distance = _stage(settings, rows, region, origin, x, last=stage == settings.n_stages)
    points, distances = x.reshape(len(x0), n_paths, -1), distance.reshape(len(x0), n_paths)
    return HomotopyStarts(points, distances, inputs_rows.units)


def _stage(
    settings: Homotopy, rows: Margins, region: Region, x0: Tensor, x: Tensor, *, last: bool
) -> tuple[Tensor, Tensor]:
    """The flip points of this stage ``(row, n)`` and their distances ``(row,)``, from those of the last."""
    anywhere = torch.full((len(x),), torch.inf, dtype=x.dtype)
    x = newton_starts(rows, region, x, anywhere, settings.n_newton_steps)
    x = onto_boundary(rows, x0, x, settings.n_secant_steps)
    state = start_walk(_WALK, rows, region, x0, x)
    state = walk(_WALK, rows, region, x0, state, settings.n_last_steps if last else settings.n_steps)
    found = torch.isfinite(state.best_distance)
    return torch.where(found[:, None], state.best_point, state.point), state.best_distance
