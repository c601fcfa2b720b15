"""What a density survey found, whatever the method, and how it becomes a labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.field import Field
from theodolite.instruments import levels
from theodolite.instruments.surveying import check_variables
from theodolite.instruments.verdict import Check
from theodolite.result import validate

N_REPRESENTATIVES = 24  # inputs kept of every level


@dataclass(frozen=True)
class Findings:
    """``edges`` ``(level + 1,)``; ``log_density`` (NaN: not reached, -inf: proven empty), ``error``, ``converged``
    and ``n_samples`` ``(level,)``; ``representative`` ``(level, sample, *point)`` with outputs
    ``representative_output`` ``(level, sample)`` (NaN: no sample); ``variables``: the method's own, name to
    (dims, values)."""

    method: str
    edges: np.ndarray
    log_density: np.ndarray
    error: np.ndarray
    converged: np.ndarray
    n_samples: np.ndarray
    representative: np.ndarray
    representative_output: np.ndarray
    word: str
    sentence: str
    checks: Sequence[Check]
    citations: Sequence[str]
    variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)


def to_dataset(
    found: Findings,
    survey_field: Field,
    data: Mapping[str, Tensor],
    outputs: Mapping[str, np.ndarray],
    generator: torch.Generator,
    attributes: Mapping[str, str | int | float],
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    point_dims = tuple(f"point_{axis}" for axis in range(len(survey_field.space.shape)))
    variables: dict[str, tuple] = {
        "level_edges": (("level_edge",), found.edges),
        "log_density_of_states": (("level",), found.log_density),
        "log_density_error": (("level",), found.error),
        "level_converged": (("level",), found.converged),
        "n_samples": (("level",), found.n_samples),
        "representative": (("level", "sample", *point_dims), found.representative),
        "representative_output": (("level", "sample"), found.representative_output),
        **check_variables(found.checks),
        "verdict": ((), found.word),
        "verdict_sentence": ((), found.sentence),
        **found.variables,
    }
    coordinates: dict[str, tuple] = {"level": (("level",), 0.5 * (found.edges[1:] + found.edges[:-1]))}
    if data:
        distance = levels.noise_distances(survey_field, data, generator)
        coordinates["data_set"] = (("data_set",), np.array(list(data)))
        variables["data_histogram"] = (("data_set", "level"), levels.histograms(outputs, found.edges))
        variables["data_rarity"] = (("data_set",), levels.rarity(outputs, found.edges, found.log_density))
        variables["noise_distance"] = (("data_set",), distance[:, 0])
        variables["noise_squared_distance"] = (("data_set",), distance[:, 1])
    return validate(xarray.Dataset(variables, coordinates, dict(attributes)))


def choose_representatives(
    point: np.ndarray,
    output: np.ndarray,
    log_weight: np.ndarray,
    edges: np.ndarray,
    n: int,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``n`` of the candidates in each level, without repetition, drawn in proportion to their weights.

    ``point`` ``(candidate, *point)``, ``output`` and ``log_weight`` ``(candidate,)``. Drawing without replacement
    by the largest ln weight + Gumbel noise (Efraimidis and Spirakis 2006). Equal points count once.
    """
    n_levels = len(edges) - 1
    chosen = np.zeros((n_levels, n, *point.shape[1:]), dtype=point.dtype)
    chosen_output = np.full((n_levels, n), np.nan)
    uniform = torch.rand(len(output), generator=generator, dtype=torch.float64).numpy()
    key = log_weight - np.log(-np.log(np.clip(uniform, 1e-300, 1 - 1e-16)))
    level = np.digitize(output, edges) - 1
    for index in range(n_levels):
        candidates = np.flatnonzero((level == index) & np.isfinite(key))
        seen: set[bytes] = set()
        for candidate in candidates[np.argsort(-key[candidates])]:
            signature = point[candidate].tobytes()
            if signature in seen:
                continue
            chosen[index, len(seen)] = point[candidate]
            chosen_output[index, len(seen)] = output[candidate]
            seen.add(signature)
            if len(seen) == n:
                break
    return chosen, chosen_output
