"""How to move: draw new values for part of a point, and say how likely the way there and back are.

``masked`` proposals redraw every coordinate of a random mask, drawn independently of the point, from its full
conditional under the linearised field; the mask is cut into tiles that cannot feel each other, so that each may
be accepted alone. With one tile this is the plain many-pixel proposal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS_AT_ONCE = 1024  # coordinates whose level probabilities are held at once: 1 MB for 256 levels, in cache


@dataclass(frozen=True)
class Tiling:
    """Tiles of a grid of positions: ``label`` ``(walker, position)`` numbers the tile that owns a position's term,
    ``active`` ``(walker, position)`` marks the positions whose coordinates may change, ``n_tiles`` bounds labels."""

    label: Tensor
    active: Tensor
    n_tiles: int


def draw_tiling(side: Tensor, radius: int, grid: tuple[int, int], generator: torch.Generator) -> Tiling:
    """Square tiles of ``side`` ``(walker,)`` with gaps of 2 ``radius`` at a random offset.

    A changed position reaches terms within ``radius``, so terms of a tile (side + 2 radius wide, label) feel only
    that tile's own positions. A side of the whole grid or more means one tile without gaps.
    """
    rows, columns = grid
    n = len(side)
    position = torch.arange(rows * columns)
    whole = side >= max(rows, columns)
    period = torch.where(whole, max(rows, columns) + 1, side + 2 * radius)[:, None]
    offset = (torch.rand((n, 2), generator=generator) * period).long()
    offset = torch.where(whole[:, None], torch.zeros_like(offset), offset)
    y = (position // columns)[None] + offset[:, :1]
    x = (position % columns)[None] + offset[:, 1:]
    per_row = int((max(rows, columns) + period.min() - 1) // period.min()) + 1
    label = (y // period) * per_row + x // period
    margin = torch.where(whole, 0, radius)[:, None]
    inside_y = (y % period >= margin) & (y % period < margin + torch.where(whole, period[:, 0], side)[:, None])
    inside_x = (x % period >= margin) & (x % period < margin + torch.where(whole, period[:, 0], side)[:, None])
    return Tiling(label, inside_y & inside_x, per_row * per_row)


@dataclass(frozen=True)
class Redraw:
    """New levels for masked coordinates: flat index arrays ``walker``, ``coordinate``, the ``new`` level, the
    ``old`` one, and ``log_forward``, the ln of the probability of each draw."""

    walker: Tensor
    coordinate: Tensor
    old: Tensor
    new: Tensor
    log_forward: Tensor


def redraw(
    mask: Tensor, level: Tensor, slope: Tensor, gradient: Tensor, table: Tensor, generator: torch.Generator
) -> Redraw:
    """Draw every masked coordinate from softmax over v of slope * gradient_p . table[v].

    ``mask`` and ``level`` are ``(walker, coordinate)``, ``slope`` ``(walker,)``, ``gradient``
    ``(walker, coordinate, m)``, ``table`` ``(levels, m)``.
    """
    walker, coordinate = mask.nonzero(as_tuple=True)
    uniform = torch.rand(len(walker), generator=generator)
    old = level[walker, coordinate]
    new = torch.empty_like(old)
    log_forward = torch.empty(len(walker))
    for rows in torch.arange(len(walker)).split(_ROWS_AT_ONCE):
        score = _scores(walker[rows], coordinate[rows], slope, gradient, table)
        weight = (score - score.amax(1, keepdim=True)).exp_()
        cumulative = weight.cumsum(1)
        total = cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, uniform[rows, None] * total, right=True)
        drawn = drawn.clamp_(max=table.shape[0] - 1)
        new[rows] = drawn[:, 0]
        log_forward[rows] = (weight.gather(1, drawn) / total).log()[:, 0]
    return Redraw(walker, coordinate, old, new, log_forward)


def log_reverse(move: Redraw, slope: Tensor, gradient: Tensor, table: Tensor) -> Tensor:
    """ln of the probability of drawing ``move.old`` with the slope and gradient at the new points."""
    result = torch.empty(len(move.walker))
    for rows in torch.arange(len(move.walker)).split(_ROWS_AT_ONCE):
        score = _scores(move.walker[rows], move.coordinate[rows], slope, gradient, table)
        chosen = score.gather(1, move.old[rows, None])[:, 0]
        result[rows] = chosen - torch.logsumexp(score, 1)
    return result


def redraw_uniformly(mask: Tensor, level: Tensor, levels: int, generator: torch.Generator) -> Redraw:
    """Gradient-free: every masked coordinate uniformly among the ``levels - 1`` other levels."""
    walker, coordinate = mask.nonzero(as_tuple=True)
    old = level[walker, coordinate]
    step = torch.randint(1, levels, old.shape, generator=generator)
    return Redraw(walker, coordinate, old, (old + step) % levels, torch.zeros(len(walker), dtype=torch.float64))


def _scores(walker: Tensor, coordinate: Tensor, slope: Tensor, gradient: Tensor, table: Tensor) -> Tensor:
    """Single precision is enough: the same function proposes and is weighed, so that rounding shifts no balance."""
    return (gradient[walker, coordinate].float() * slope[walker, None].float()) @ table.float().T
