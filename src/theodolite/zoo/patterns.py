"""Spots and stripes: two synthesised textures, for those that Hill, Nijkamp and Zhu 2019 (section 5.3, figure 20) cut
from photographs. Every image is a window anywhere in an endless sheet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PATTERNS = ("spots", "stripes")
# In pixels of a window of 16: about two periods a window, as in the paper's figure.
_PERIOD = 7.0
_SPREAD = 0.1  # of periods between windows
_TILT = 0.25  # standard deviation of the direction of stripes, radians
_SPOT = 0.28  # radius of a spot, periods
_SHARPNESS = 4.0


def stripes(n: int, size: int, generator: torch.Generator) -> Tensor:
    """``(n, 1, size, size)`` float32 from -1 to 1: stripes nearly upright, at any phase."""
    rows, columns = _pixels(size)
    angle = _TILT * torch.randn((n, 1, 1), generator=generator)
    across = (columns * angle.cos() + rows * angle.sin()) / _periods(n, size, generator)
    phase = torch.rand((n, 1, 1), generator=generator)
    return torch.tanh(_SHARPNESS * torch.sin(2 * math.pi * (across + phase)))[:, None]


def spots(n: int, size: int, generator: torch.Generator) -> Tensor:
    """``(n, 1, size, size)`` float32 from -1 to 1: bright discs on a lattice of triangles, anywhere in it."""
    rows, columns = _pixels(size)
    period = _periods(n, size, generator)
    shift = torch.rand((n, 2, 1, 1), generator=generator)
    nearest = torch.full((n, size, size), math.inf)
    # A lattice of triangles is two of rectangles, the second half a cell on both ways.
    for start in (0.0, 0.5):
        across = _from_nearest(columns / period + shift[:, 0] + start)
        along = math.sqrt(3) * _from_nearest(rows / (math.sqrt(3) * period) + shift[:, 1] + start)
        nearest = torch.minimum(nearest, (across.square() + along.square()).sqrt())
    return torch.tanh(2 * _SHARPNESS * (_SPOT - nearest) / _SPOT)[:, None]


def _pixels(size: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return rows.float(), columns.float()


def _periods(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Pixels of a period in each window ``(n, 1, 1)``."""
    return _PERIOD * size / 16 * (1 + _SPREAD * (2 * torch.rand((n, 1, 1), generator=generator) - 1))


def _from_nearest(position: Tensor) -> Tensor:
    return position - position.round()
