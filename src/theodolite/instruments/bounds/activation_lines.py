"""Lines above and below an activation over an interval of its argument.

Any slope gives a proven line, because its intercept is the exact extremum of f(x) - slope x over the interval; only
the choice of slopes is a matter of taste. Slopes as in Zhang et al. 2018, 'Efficient Neural Network Robustness
Certification with General Activation Functions': the least gap in the middle of the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from theodolite.instruments.bounds.layer_nodes import Activation

UNIT_ROUNDING = 2.0**-53
_TANGENT_STEPS = 24
_KINDS = ("erf", "tanh", "sigmoid")


@final
@dataclass(frozen=True)
class Lines:
    """slope_low x + intercept_low <= f(x) <= slope_high x + intercept_high, each ``(margin, size)``; rounded outward,
    and so that the same holds for f evaluated in float64."""

    slope_low: Tensor
    intercept_low: Tensor
    slope_high: Tensor
    intercept_high: Tensor

    def select(self, index: Tensor) -> Lines:
        """The margins of ``index``."""
        return Lines(
            self.slope_low[index], self.intercept_low[index], self.slope_high[index], self.intercept_high[index]
        )


def lines(activation: Activation, low: Tensor, high: Tensor) -> Lines:
    """Lines of an activation whose arguments lie in [low, high], both ``(margin, size)``; infinite where unknown."""
    if activation.kind == "piecewise":
        return _piecewise(activation.slope.expand_as(low), low, high)
    below, above = _smooth_slope(activation.kind, low, high, upper=False), _smooth_slope(activation.kind, low, high)
    return _with_intercepts(activation, below, above, low, high)


def values(activation: Activation, x: Tensor) -> Tensor:
    """f(x) for arguments ``(margin, size)``."""
    return activation.apply([x.reshape(-1, *activation.shape)]).reshape(x.shape)


def _piecewise(slope: Tensor, low: Tensor, high: Tensor) -> Lines:
    positive, negative = low >= 0, high <= 0
    mixed = ~(positive | negative)
    secant = torch.where(mixed, (high - slope * low) / (high - low), torch.ones_like(low))
    one_sided = torch.where(high > -low, torch.ones_like(low), slope)
    convex = slope <= 1
    certain = torch.where(positive, torch.ones_like(low), slope)
    below = torch.where(mixed, torch.where(convex, one_sided, secant), certain)
    above = torch.where(mixed, torch.where(convex, secant, one_sided), certain)
    zero = torch.zeros_like(low)

    def intercepts(line: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (slope - line) * low, (1 - line) * high
        return torch.minimum(torch.minimum(left, right), zero), torch.maximum(torch.maximum(left, right), zero)

    margin = 8 * UNIT_ROUNDING * (below.abs() + above.abs() + slope.abs() + 1) * torch.maximum(low.abs(), high.abs())
    least = torch.where(mixed, intercepts(below)[0] - margin, zero)
    most = torch.where(mixed, intercepts(above)[1] + margin, zero)
    return Lines(below, least, above, most)


def _with_intercepts(activation: Activation, below: Tensor, above: Tensor, low: Tensor, high: Tensor) -> Lines:
    def extrema(line: Tensor) -> tuple[Tensor, Tensor]:
        critical = _critical(activation.kind, line)
        places = [low, high, (-critical).clamp(low, high), critical.clamp(low, high)]
        gaps = torch.stack([values(activation, x) - line * x for x in places])
        return gaps.amin(0), gaps.amax(0)

    size = 1 + (below.abs() + above.abs()) * torch.maximum(low.abs(), high.abs())
    margin = 32 * UNIT_ROUNDING * size
    return Lines(below, extrema(below)[0] - margin, above, extrema(above)[1] + margin)


def _smooth_slope(kind: str, low: Tensor, high: Tensor, *, upper: bool = True) -> Tensor:
    """Slope of the least line above (below: the same, mirrored) at the middle of the interval."""
    if not upper:
        return _smooth_slope(kind, -high, -low)
    slope = torch.empty_like(low)
    above_slopes(_KINDS.index(kind), low.reshape(-1).numpy(), high.reshape(-1).numpy(), slope.reshape(-1).numpy())
    return slope


@njit(nogil=True)
def above_slopes(kind: int, low: np.ndarray, high: np.ndarray, slope: np.ndarray) -> None:
    """For odd S-shapes f, the slope at the middle of each interval of the least concave function above f there.

    That is the tangent through (low, f(low)) up to where it touches f, found by bisection, and f from there on.
    """
    for j in range(len(low)):
        a, b = low[j], high[j]
        start, rise = _odd(kind, a), _odd(kind, b) - _odd(kind, a)
        far = max(b, 0.0)
        if b <= a:
            slope[j] = _derivative(kind, a)
        elif b <= 0.0 or (a < 0.0 and _derivative(kind, far) * (far - a) > rise):
            slope[j] = rise / (b - a)
        else:
            near = max(a, 0.0)
            for _ in range(_TANGENT_STEPS if a < 0.0 else 0):
                middle = (near + far) / 2
                if _derivative(kind, middle) * (middle - a) > _odd(kind, middle) - start:
                    near = middle
                else:
                    far = middle
            slope[j] = _derivative(kind, max(near, (a + b) / 2))


@njit(nogil=True)
def _odd(kind, x):
    if kind == 0:
        return math.erf(x)
    return math.tanh(x) if kind == 1 else 0.5 * math.tanh(0.5 * x)


@njit(nogil=True)
def _derivative(kind, x):
    if kind == 0:
        return 1.1283791670955126 * math.exp(-x * x)
    if kind == 1:
        return 1.0 - math.tanh(x) ** 2
    return 0.25 * (1.0 - math.tanh(0.5 * x) ** 2)


def _critical(kind: str, slope: Tensor) -> Tensor:
    """The x >= 0 with f'(x) = slope; where there is none, 0 or a large number."""
    if kind == "erf":
        return (-torch.log(slope * (math.sqrt(math.pi) / 2))).clamp(min=0.0).sqrt()
    if kind == "tanh":
        return torch.log((1 + (1 - slope).clamp(min=0.0).sqrt()) / slope.sqrt())
    half = 0.5 + (0.25 - slope).clamp(min=0.0).sqrt()
    return torch.log(half * half / slope).clamp(min=0.0)
