"""Levels of the output: bins with round edges, and where the data's own outputs fall."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.sampling.metropolis import as_sampled
from theodolite.space import DiscreteSpace

_LEVELS_WANTED = 120
_NOISE_DRAWS = 64


def level_edges(low: float, high: float, width: float | None, spacing: float | None) -> np.ndarray:
    """Edges of equal bins that cover [low, high], at round numbers.

    With a ``spacing`` (outputs are its integer multiples) a bin holds whole multiples and no output lies on an
    edge. A width of None gives about 120 levels of 1, 2 or 5 times a power of ten.
    """
    if width is None:
        width = _round_width((high - low) / _LEVELS_WANTED)
        if spacing is not None:
            width = spacing * max(1, round(width / spacing))
    shift = 0.5 * spacing if spacing is not None else 0.0
    first = math.floor((low + shift) / width + 1e-9)
    last = math.floor((high + shift) / width + 1e-9) + 1
    return np.arange(first, last + 1) * width - shift


def _round_width(width: float) -> float:
    if width <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return power * min((1, 2, 5, 10), key=lambda m: abs(math.log(m * power / width)))


def data_outputs(field: Field, data: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Outputs of every named set; raises FieldError for points outside the space. Not counted as evaluations."""
    before = field.evaluations
    outputs = {name: field.value(points).numpy() for name, points in data.items()}
    field.evaluations = before
    return outputs


def histograms(outputs: Mapping[str, np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Counts ``(data_set, level)``."""
    return np.array([np.histogram(values, edges)[0] for values in outputs.values()], dtype=np.int64)


def rarity(outputs: Mapping[str, np.ndarray], edges: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Median over each set of ln(inputs in the input's level) - ln(inputs of the set in it); NaN where unknown."""
    counts = histograms(outputs, edges)
    result = []
    for (_, values), count in zip(outputs.items(), counts, strict=True):
        level = np.digitize(values, edges) - 1
        level = level[(level >= 0) & (level < len(log_density))]
        nats = log_density[level] - np.log(np.maximum(count[level], 1))
        nats = nats[np.isfinite(nats)]
        result.append(float(np.median(nats)) if len(nats) else np.nan)
    return np.array(result)


def noise_distances(field: Field, data: Mapping[str, Tensor], generator: torch.Generator) -> np.ndarray:
    """Between uniform noise and each set, ``(data_set, 2)``: the mean over pairs of sqrt(mean squared difference)
    and of the mean squared difference, values of discrete spaces scaled to [0, 1].

    Liu et al. 2023, appendix D: its 0.3121 (to class 0) and 0.3236 (to class 1) are mean squared differences.
    """
    space = field.space
    scale = 1.0 / (space.levels - 1) if isinstance(space, DiscreteSpace) else 1.0

    def flat(points: Tensor) -> Tensor:
        return as_sampled(space, points).double().flatten(1) * scale

    noise = flat(space.draw(_NOISE_DRAWS, generator))
    rows = []
    for points in data.values():
        squared = torch.cdist(noise, flat(points)).square() / noise.shape[1]
        rows.append([float(squared.sqrt().mean()), float(squared.mean())])
    return np.array(rows)
