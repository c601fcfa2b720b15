"""The least change of an input that brings one output to a value.

Source: Yousefzadeh and O'Leary 2019, 'Deep Learning Interpretation: Flip Points and Homotopy Methods', appendix E.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.flips import Flips
from theodolite.search.pair_solver import checked_region, effort_of, nearest_ties
from theodolite.search.pair_starts import nearest_references
from theodolite.search.pair_ties import Ties
from theodolite.search.regions import Region


def level_points(
    outputs: Outputs,
    exact: Outputs,
    inputs: Tensor,
    index: Tensor,
    value: Tensor,
    *,
    region: Region | None = None,
    reference: Tensor | None = None,
    effort: str = "regular",
    generator: torch.Generator,
) -> Flips:
    """For each row of ``inputs (row, n)`` the closest point found, in L2, where output ``index (row,)`` reaches
    ``value (row,)``; the other outputs are free.

    At the point, in the double precision of ``exact``, the output has passed the value by ``residual`` in [0, 1e-9],
    seen from the input, and it lies in the region (None: the hull) exactly. ``target`` is the index. ``reference``:
    points ``(m, n)`` to search towards too; their outputs are computed once, and not counted to any row's ``units``.

    Raises:
        UserError: shapes that do not fit, no such output, a value that is not finite, another norm than L2, unknown
            effort.
    """
    settings = effort_of(effort)
    region = checked_region(region, outputs, inputs)
    _check(outputs, len(inputs), index, value, reference)
    inputs, value = inputs.double(), value.double()
    units = torch.ones(len(inputs), dtype=torch.int64)
    start = exact.value(inputs).gather(1, index[:, None])[:, 0]
    side = torch.where(value < start, -1.0, 1.0).double()
    ties = Ties(outputs, torch.arange(len(inputs)), torch.full_like(index, -1), index[:, None], value, side, units)
    points = None if reference is None else reference.to(outputs.dtype)
    levels = None if points is None else outputs.value(points)

    def segments(some: Ties, x0: Tensor, local: torch.Generator) -> tuple[Tensor, Tensor]:
        if points is None or levels is None:
            empty = x0.new_zeros((len(x0), 0, x0.shape[1]))
            return empty, empty
        beyond = some.side[:, None] * (levels[:, some.tied[:, 0]].T.double() - some.value[:, None]) >= 0
        near = nearest_references(x0, points, beyond, settings.n_references, local if settings.random else None)
        end = torch.where((near >= 0)[:, :, None], points[near.clamp(min=0)], torch.nan)
        return x0[:, None].expand_as(end), end

    found = nearest_ties(ties, exact, inputs, region, segments, settings, generator)
    target = torch.where(torch.isfinite(found.distance), index, -1)
    return Flips(found.point, found.distance, target, found.residual, units)


def _check(outputs: Outputs, n_rows: int, index: Tensor, value: Tensor, reference: Tensor | None) -> None:
    if index.shape != (n_rows,) or bool(((index < 0) | (index >= outputs.n_outputs)).any()):
        raise UserError(
            "index",
            f"an output of 0..{outputs.n_outputs - 1} for each of {n_rows} inputs",
            f"shape {tuple(index.shape)}, {index.unique().tolist()[:10]}",
            "count the outputs from 0",
        )
    if value.shape != (n_rows,) or not bool(torch.isfinite(value).all()):
        raise UserError(
            "value", f"a finite number for each of {n_rows} inputs", f"shape {tuple(value.shape)}", "repeat one number"
        )
    if reference is not None and (reference.ndim != 2 or reference.shape[1] != outputs.n_coordinates):
        raise UserError(
            "reference", f"points (m, {outputs.n_coordinates})", f"{tuple(reference.shape)}", "flatten each point"
        )
