"""From an example of a class back along its segment to just behind the boundary of the class, in double precision.

Source: the Illinois form of regula falsi, Dowell and Jarratt, BIT 11, 168 (1971), which keeps a success at one end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theodolite.outputs import Outputs

_N_PULLS = 12
_AIM = 1e-5  # lead of the class that is aimed at, as a share of the largest output: single precision still sees it
_PUSHES = (1.0, 1.0001, 1.001, 1.01, 1.1)  # how far out an example is looked for that double precision refuses


def margins(output: Tensor, target: Tensor) -> Tensor:
    """By how much the class ``target (row,)`` leads in outputs ``(row, n_outputs)``; -inf where not a number."""
    own = output.gather(1, target[:, None])
    return (own[:, 0] - output.scatter(1, target[:, None], -torch.inf).amax(1)).nan_to_num(-torch.inf, torch.inf)


def pull_back(exact: Outputs, target: Tensor, x0: Tensor, margin: Tensor, point: Tensor, units: Tensor) -> Tensor:
    """The points ``(row, n)`` between ``x0 (row, n)``, where ``target (row,)`` leads by ``margin (row,)`` < 0, and
    ``point (row, n)``, where it leads by next to nothing; NaN where it does not lead at ``point`` nor just beyond it.

    All in float64, inside the box of ``exact``. Adds forward passes to ``units (row,)``.
    """
    way = point - x0
    inner, inner_margin = torch.zeros_like(margin), margin.clone()
    outer, outer_margin = torch.full_like(margin, torch.nan), torch.zeros_like(margin)
    aim, won_last = torch.zeros_like(margin), torch.full_like(margin, -1.0)

    def at(rows: Tensor, place: Tensor) -> Tensor:
        return (x0[rows] + place[:, None] * way[rows]).clamp(exact.low, exact.high)

    for push in _PUSHES:
        rows = outer.isnan().nonzero()[:, 0]
        if len(rows) == 0:
            break
        output = exact.value(at(rows, torch.full_like(margin[rows], push)))
        units[rows] += 1
        lead = margins(output, target[rows])
        won = lead > 0
        outer[rows[won]], outer_margin[rows[won]] = push, lead[won]
        aim[rows[won]] = _AIM * output.abs().amax(1)[won]
        inner[rows[~won]], inner_margin[rows[~won]] = push, lead[~won]
    pretended = outer_margin.clone()
    rows = outer.isfinite().nonzero()[:, 0]
    for _ in range(_N_PULLS):
        rows = rows[outer_margin[rows] > 2 * aim[rows]]
        if len(rows) == 0:
            break
        near, far = inner_margin[rows] - aim[rows], pretended[rows] - aim[rows]
        share = near / (near - far)
        share = torch.where(share.isfinite(), share, 0.5).clamp(1e-3, 1 - 1e-3)
        place = inner[rows] + share * (outer - inner)[rows]
        lead = margins(exact.value(at(rows, place)), target[rows])
        units[rows] += 1
        won = lead > 0
        # The end that stays twice in a row pretends to be nearer its root, else secants would never move it.
        stays = torch.where(won_last[rows] == won.double(), 0.5, 1.0)
        inner_margin[rows] = torch.where(won, stays * inner_margin[rows], lead)
        pretended[rows] = torch.where(won, lead, stays * pretended[rows])
        inner[rows] = torch.where(won, inner[rows], place)
        outer[rows] = torch.where(won, place, outer[rows])
        outer_margin[rows] = torch.where(won, lead, outer_margin[rows])
        won_last[rows] = won.double()
    return at(torch.arange(len(x0)), outer)
