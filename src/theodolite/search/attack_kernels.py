"""What the attack of `adversarial` does to one row after another: weigh its distortion, keep what it met, change its c.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.1. As in `box_kernels`, a row passes
through memory once; as tensors of all rows it would ten times. ``share`` is the penalty's gradient per change.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Sums may be taken in any order; infinities keep their meaning.
_FAST = {"reassoc", "contract"}


@njit(cache=True, fastmath=_FAST)
def weigh_rows(
    image,
    points,
    x0,
    constant,
    squared,
    value,
    gradient,
    margin,
    length,
    nearest,
    nearest_distance,
    best,
    best_margin,
):
    """To ``value (k,)`` and ``gradient (k, n)`` of the loss at ``points (k, n)`` of the images ``image (k,)`` add those
    of the penalty, weighed with ``constant`` of the image; write ``length (k,)`` of the change.

    Keeps, an image each, the ``nearest`` success, and until there is one the point of the ``best_margin``.
    """
    zero = points.dtype.type(0)
    for k in range(len(image)):
        j = image[k]
        x, start, slope = points[k], x0[j], gradient[k]
        square = zero
        for i in range(len(x)):
            change = x[i] - start[i]
            square += change * change
        distance = np.sqrt(float(square))
        length[k] = distance
        if squared:
            value[k] += constant[j] * distance * distance
            share = 2.0 * constant[j]
        else:
            value[k] += constant[j] * distance
            share = constant[j] / distance if distance > 0 else 0.0
        weight = points.dtype.type(share)
        for i in range(len(x)):
            slope[i] += weight * (x[i] - start[i])
        if margin[k] > 0 and distance < nearest_distance[j]:
            nearest_distance[j] = distance
            for i in range(len(x)):
                nearest[j, i] = x[i]
        if margin[k] > best_margin[j] and np.isinf(nearest_distance[j]):
            best_margin[j] = margin[k]
            for i in range(len(x)):
                best[j, i] = x[i]


@njit(cache=True, fastmath=_FAST)
def turn_rows(rows, image, won, back, before, after, x0, point, gradient, anchor, anchor_gradient):
    """Give the rows ``rows (k,)``, of the images ``image (k,)``, another c: their penalty's share of the change was
    ``before (k,)`` and becomes ``after (k,)``.

    Rows that have ``won`` leave their point, and the gradient of the loss alone, as the anchor of the image; those that
    go ``back`` go on from it.
    """
    for k in range(len(rows)):
        r, j = rows[k], image[k]
        old, new = x0.dtype.type(before[k]), x0.dtype.type(after[k])
        x, slope, start, held, pull = point[r], gradient[r], x0[j], anchor[j], anchor_gradient[j]
        if back[k]:
            for i in range(len(x)):
                x[i] = held[i]
                slope[i] = pull[i] + new * (held[i] - start[i])
            continue
        if won[k]:
            for i in range(len(x)):
                held[i] = x[i]
                pull[i] = slope[i] - old * (x[i] - start[i])
        for i in range(len(x)):
            slope[i] += (new - old) * (x[i] - start[i])
