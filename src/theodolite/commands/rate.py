"""How fast a field is evaluated here, from a few batches: what a dry run's estimate of time rests on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from theodolite.errors import MissingCapability
from theodolite.field import Field
from theodolite.space import DiscreteSpace

PATIENCE = 1.0


@dataclass(frozen=True)
class Rate:
    """Evaluations (rows) a second, of the value alone and with the gradient (None where there is none)."""

    value: float
    gradient: float | None


def measure_rate(field: Field, seed: int = 0) -> Rate:
    """Time batches of random inputs for about a second each way, after one batch that is not counted."""
    x = field.space.draw(min(64, field.batch_size), torch.Generator().manual_seed(seed))
    if field.level_differences is not None and isinstance(field.space, DiscreteSpace):
        points, with_gradient = field.space.to_levels(x), field.level_gradient
    else:
        points, with_gradient = x, field.value_and_gradient
    try:
        gradient = _rows_a_second(lambda: with_gradient(points), len(x))
    except MissingCapability:
        gradient = None
    return Rate(_rows_a_second(lambda: field.value(x), len(x)), gradient)


def _rows_a_second(evaluate: Callable[[], object], rows: int) -> float:
    evaluate()
    begun, batches = time.perf_counter(), 0
    while batches == 0 or time.perf_counter() - begun < PATIENCE:
        evaluate()
        batches += 1
    return batches * rows / (time.perf_counter() - begun)
