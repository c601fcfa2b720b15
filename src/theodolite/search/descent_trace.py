"""The states on the way of a steepest descent: the halves of a path over a pass between discrete minima."""

from __future__ import annotations

import numpy as np
import torch

from theodolite.field import Field
from theodolite.search.descent import Neighbourhood, steepest_change_of


def trace_descent(field: Field, point: np.ndarray, neighbourhood: Neighbourhood = "any") -> np.ndarray:
    """States ``(steps, *shape)`` from ``point`` (*shape) down to the minimum of its basin, both included.

    Every state is the steepest change of the one before, as in `descent.descend`.
    """
    states = [torch.as_tensor(point)[None]]
    while (lower := steepest_change_of(field, states[-1], neighbourhood)) is not None:
        states.append(lower)
    return torch.cat(states).numpy()


def path_over(field: Field, state: np.ndarray, other: np.ndarray, neighbourhood: Neighbourhood = "any") -> np.ndarray:
    """The path ``(steps, *shape)`` of a pass between the neighbouring states ``state`` and ``other`` (*shape): up from
    the minimum below the one, over the step, and down to the minimum below the other."""
    here, there = trace_descent(field, state, neighbourhood), trace_descent(field, other, neighbourhood)
    return np.concatenate([here[::-1], there])
