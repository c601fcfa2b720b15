"""How steep activations are that no lines bound: GELU, SiLU, Mish, softplus, ELU and their kind, anywhere and over an
interval.

A derivative that is monotone between known turning points is largest at an end of the interval or at one of these:
- GELU (Hendrycks and Gimpel 2016): f'' = phi(x) (2 - x^2), so that f' turns at -sqrt 2 and sqrt 2.
- GELU by tanh, f = x s(2u), u = k (x + a x^3): f'' has the sign of p - q for x > 0, p = 2 + 6ax^2 / (1 + 3ax^2) and
  q = 2xu' tanh u. (ln q)' >= 1/x + 6ax / (1 + 3ax^2) > (ln p)', so that q overtakes p once; f'' is even.
- SiLU, f = x s(x): f'' = s (1 - s) (2 - x tanh(x / 2)), and x tanh(x / 2) rises for x > 0 and is even.
- Softplus, log-sigmoid, ELU, CELU, SELU and the piecewise ones: monotone, or on either side of their kinks.
Mish, f = x T with T = tanh(softplus(x)) = n / (n + 2), n = e^x (e^x + 2): f' = T + x T' by intervals of T, which rises,
and of T' = 4 e^x (e^x + 1) / (e^2x + 2 e^x + 2)^2. Its greatest slope is below 1.09: shown by the same intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

_OUTWARD = 2.0**-44  # relative and absolute: the functions that slopes are computed by, and their arguments
_BEYOND = 300.0  # where every derivative here has reached its limit, and no exponential overflows
_SMALL_JUMP = 1e-6
_TANH_FACTOR, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715  # Hendrycks and Gimpel 2016, 'Gaussian Error Linear Units'
_TANH_TURN = 1.4185040087908283  # of GELU by tanh
_SILU_TURN = 2.3993572805154675
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
_MISH_GREATEST = 1.09

Slopes = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True)
class Curve:
    """An activation ``value`` of every number alone. ``greatest``: no two points have a larger slope; ``within(low,
    high)``: none in [low, high] have, float64; both proven. ``jump``: of the values, away from a function with these
    slopes; softplus is cut off by a straight line."""

    name: str
    value: Callable[[Tensor], Tensor]
    greatest: float
    within: Slopes
    jump: float = 0.0


def curve_of(layer: nn.Module) -> Curve | None:
    """The curve of an activation module; None for another module, and for settings that nothing is known of."""
    slopes, jump = _slopes_of(layer), 0.0
    if slopes is None:
        return None
    if isinstance(layer, nn.Softplus):
        jump = math.log1p(math.exp(-layer.threshold)) / abs(layer.beta)
        if jump > _SMALL_JUMP:
            return None
    outward = _moved(slopes)
    everywhere = torch.tensor([math.inf], dtype=torch.float64)
    return Curve(type(layer).__name__, _copied(layer), float(outward(-everywhere, everywhere)), outward, jump)


def curve_of_function(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Curve | None:
    """The curve of ``name(x, *arguments, **keywords)`` of torch; None where there is none."""
    if name not in _FUNCTIONS:
        return None
    module, names = _FUNCTIONS[name]
    given = dict(zip(names, arguments, strict=False)) | {_CLAMP.get(k, k): v for k, v in keywords.items()}
    settings = {k: v for k, v in given.items() if k != "inplace" and v is not None}
    if not set(settings) <= set(names) or not all(isinstance(value, int | float | str) for value in settings.values()):
        return None
    if name in _CLAMPS:
        settings = {"min_val": -math.inf, "max_val": math.inf} | settings
        if not settings["min_val"] < settings["max_val"]:
            return None
    return curve_of(module(**settings))


_CLAMP = {"min": "min_val", "max": "max_val"}
_CLAMPS = ("clamp", "clip", "clamp_", "clip_")
_FUNCTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "gelu": (nn.GELU, ("approximate",)),
    "silu": (nn.SiLU, ()),
    "mish": (nn.Mish, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "logsigmoid": (nn.LogSigmoid, ()),
    "log_sigmoid": (nn.LogSigmoid, ()),
    "elu": (nn.ELU, ("alpha",)),
    "celu": (nn.CELU, ("alpha",)),
    "selu": (nn.SELU, ()),
    "hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    **dict.fromkeys(_CLAMPS, (nn.Hardtanh, ("min_val", "max_val"))),
    "relu6": (nn.ReLU6, ()),
    "hardsigmoid": (nn.Hardsigmoid, ()),
    "hardswish": (nn.Hardswish, ()),
    "softsign": (nn.Softsign, ()),
    "tanhshrink": (nn.Tanhshrink, ()),
    "softshrink": (nn.Softshrink, ("lambd",)),
}


def _slopes_of(layer: nn.Module) -> Slopes | None:
    """Of the derivative's absolute value over intervals, before rounding."""
    if isinstance(layer, nn.GELU):
        if layer.approximate == "tanh":
            return _between_turns(_gelu_by_tanh, _TANH_TURN)
        return _between_turns(_gelu, math.sqrt(2)) if layer.approximate == "none" else None
    if isinstance(layer, nn.ELU):
        return _rising(1.0, abs(layer.alpha), 1.0)
    if isinstance(layer, nn.CELU):
        return _rising(1.0, 1.0, 1 / layer.alpha) if layer.alpha > 0 else None
    if isinstance(layer, nn.Softplus):
        return _softplus(layer.beta, layer.threshold) if layer.beta else None
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        least, most = layer.min_val, layer.max_val
        return lambda low, high: ((high >= least) & (low <= most)).double()
    if isinstance(layer, nn.Softshrink):
        width = layer.lambd
        return lambda low, high: ((high >= width) | (low <= -width)).double()
    return _FIXED.get(type(layer))


def _between_turns(derivative: Callable[[Tensor], Tensor], turn: float) -> Slopes:
    """Of a derivative that is monotone from -infinity to -``turn``, to ``turn`` and to infinity."""

    def slopes(low: Tensor, high: Tensor) -> Tensor:
        found = torch.maximum(*(derivative(end.clamp(-_BEYOND, _BEYOND)).abs() for end in (low, high)))
        for place in (-turn, turn):
            # Between the turn and what is computed of it the derivative is flat.
            there = derivative(torch.tensor(place, dtype=torch.float64)).abs()
            found = torch.where((low <= place) & (place <= high), torch.maximum(found, there), found)
        return found

    return slopes


def _rising(right: float, left: float, rate: float) -> Slopes:
    """``right`` for x > 0, ``left`` e^(rate x) below."""

    def slopes(low: Tensor, high: Tensor) -> Tensor:
        below = torch.where(low < 0, left * torch.exp(rate * high.clamp(max=0)), 0.0)
        return torch.maximum(below, torch.where(high >= 0, right, 0.0))

    return slopes


def _softplus(beta: float, threshold: float) -> Slopes:
    """Rising from 0 to 1, and 1 where torch draws a straight line."""

    def slopes(low: Tensor, high: Tensor) -> Tensor:
        farthest = torch.maximum(beta * low, beta * high)
        return torch.where(farthest >= threshold, 1.0, torch.sigmoid(farthest))

    return slopes


def _gelu(x: Tensor) -> Tensor:
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return torch.special.erfc(-x / math.sqrt(2)) / 2 + x * density


def _gelu_by_tanh(x: Tensor) -> Tensor:
    u = (_TANH_FACTOR * (x + _TANH_CUBE * x**3)).clamp(-_BEYOND, _BEYOND)
    steep = _TANH_FACTOR * (1 + 3 * _TANH_CUBE * x.square())
    return torch.sigmoid(2 * u) + x * steep / (2 * torch.cosh(u).square())


def _silu(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


def _mish(low: Tensor, high: Tensor) -> Tensor:
    low, high = low.clamp(-_BEYOND, _BEYOND), high.clamp(-_BEYOND, _BEYOND)
    start, end = torch.exp(low), torch.exp(high)
    share_low, share_high = (n / (n + 2) for n in (start * (start + 2), end * (end + 2)))
    # Divided through by e^(2x), which alone might overflow.
    root_low, root_high = start + 2 + 2 / start, end + 2 + 2 / end
    most = 4 * (end + 1) * (end / start) / start / root_low.square()
    least = 4 * (start + 1) * (start / end) / end / root_high.square()
    above = share_high + high * torch.where(high > 0, most, least)
    under = share_low + low * torch.where(low < 0, most, least)
    return torch.maximum(above, -under).nan_to_num(torch.inf).clamp(max=_MISH_GREATEST)


def _hard_swish(low: Tensor, high: Tensor) -> Tensor:
    """(2x + 3) / 6 between -3 and 3, then 1; 0 before."""
    first, last = low.clamp(-3, 3), high.clamp(-3, 3)
    inner = torch.maximum((2 * first + 3).abs(), (2 * last + 3).abs()) / 6
    inner = torch.where((high >= -3) & (low <= 3), inner, 0.0)
    return torch.maximum(inner, (high >= 3).double())


def _soft_sign(low: Tensor, high: Tensor) -> Tensor:
    return 1 / (1 + torch.maximum(low, -high).clamp(min=0)).square()


_FIXED: dict[type[nn.Module], Slopes] = {
    nn.SiLU: _between_turns(_silu, _SILU_TURN),
    nn.Mish: _mish,
    nn.SELU: _rising(_SELU_SCALE, _SELU_SCALE * _SELU_ALPHA, 1.0),
    nn.LogSigmoid: lambda low, high: torch.sigmoid(-low),
    nn.Hardsigmoid: lambda low, high: torch.where((high >= -3) & (low <= 3), 1 / 6, 0.0).double(),
    nn.Hardswish: _hard_swish,
    nn.Softsign: _soft_sign,
    nn.Tanhshrink: lambda low, high: torch.tanh(torch.maximum(-low, high)).square(),
}


def _moved(slopes: Slopes) -> Slopes:
    return lambda low, high: slopes(low, high) * (1 + _OUTWARD) + _OUTWARD


def _copied(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Without ``inplace``, which would change the value of another node."""
    return lambda x: layer(x.clone()) if getattr(layer, "inplace", False) else layer(x)
