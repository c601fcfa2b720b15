"""The easy network that the paper's homotopy begins with, for which the input itself is a flip point.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", Algorithm 1
(erf) and Algorithm F2 (ReLU).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from theodolite.instruments.feed_forward import STEEPEST, FeedForward


def easy_network(
    layers: FeedForward, x: Tensor, first: int, second: int, gradient_bound: float, strictly_below: float
) -> FeedForward:
    """``layers`` with tunings and last bias changed so that gradients flow at ``x (n,)`` and the classes ``first`` and
    ``second`` tie there, all others at least ``strictly_below`` under them: Algorithms 1 and F2.

    ``gradient_bound``: tau. In erf networks every neuron's derivative in c / sigma is then at least tau, and in c at
    most 1 (the paper's text says "at least tau" of both). Negative sides of ReLUs get the slope tau, or keep a larger
    one. The softened outputs are what line 13 changes as little as possible.
    """
    y, tunings = x, []
    for weight, bias, tuning in zip(layers.weight, layers.bias, layers.tuning, strict=False):
        c = weight @ y + bias
        tuned = _widths(c, gradient_bound) if layers.kind == "erf" else _slopes(c, tuning, gradient_bound)
        tunings.append(tuned)
        y = layers.activation(c, tuned)
    output = layers.weight[-1] @ y + layers.bias[-1]
    change = least_tie(output, first, second, strictly_below)
    return replace(layers, tuning=tuple(tunings), bias=(*layers.bias[:-1], layers.bias[-1] + change))


def least_tie(output: Tensor, first: int, second: int, strictly_below: float) -> Tensor:
    """The shortest change ``(K,)`` of logits ``(K,)`` after which two tie and the others are ``strictly_below`` them.

    The quadratic program of line 13, solved exactly: at a common height t of the two, the others come down to
    t - strictly_below, so the squared length is convex and piecewise quadratic in t, least at the mean of the two and
    of those that come down.
    """
    others = torch.ones(len(output), dtype=torch.bool)
    others[[first, second]] = False
    rivals = (output[others] + strictly_below).sort(descending=True).values.tolist()
    total, count = float(output[first] + output[second]), 2
    for rival in rivals:
        if rival <= total / count:
            break
        total, count = total + rival, count + 1
    height = total / count
    tied = torch.minimum(output, torch.full_like(output, height - strictly_below))
    tied[[first, second]] = height
    return tied - output


def _widths(c: Tensor, gradient_bound: float) -> Tensor:
    """Lines 1 and 4 to 10: one sigma for the layer, or one for every neuron where its range is too wide for that."""
    gamma = math.sqrt(math.log(STEEPEST / gradient_bound))
    width = max(STEEPEST, float(c.abs().max()) / gamma)
    if width <= STEEPEST / gradient_bound:
        return torch.full_like(c, width)
    return (c.abs() / gamma).clamp(min=STEEPEST)


def _slopes(c: Tensor, slope: Tensor, gradient_bound: float) -> Tensor:
    """Algorithm F2, lines 4 to 6."""
    return slope.clamp(min=gradient_bound) if bool((c < 0).any()) else slope
