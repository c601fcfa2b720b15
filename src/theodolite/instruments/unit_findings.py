"""What a survey of units found, as a labelled dataset: top sets, how alike they are, the test, steadiness.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.instruments.surveying import check_variables
from theodolite.instruments.unit_comparison import AGAINST, Claim, Comparison, claim, compare, principal
from theodolite.instruments.unit_sampler import MEASURES, UnitState
from theodolite.instruments.unit_stability import Steadiness, steadiness
from theodolite.instruments.unit_statistics import Alike, Estimate, alike, random_directions, top_inputs
from theodolite.instruments.unit_task import SCALINGS, UnitTask
from theodolite.result import validate
from theodolite.search.flips import Flips, no_flips
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.units import Units

_STATISTICS_SEED = 1  # beside the survey's own, so that these draws are not those of the random bases
_N_SHOWN = 12  # inputs of each direction that are kept to be seen

Variables = dict[str, tuple]


@dataclass(frozen=True)
class Listed:
    """Directions with what excites them: ``direction (direction, unit)`` over all units, ``image`` and ``value
    (direction, rank)``, ``alike`` at every k."""

    direction: Tensor
    image: Tensor
    value: Tensor
    alike: Alike


def to_dataset(
    settings: Units, task: UnitTask, state: UnitState, attributes: Mapping[str, str | int | float]
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    generator = torch.Generator().manual_seed(settings.seed + _STATISTICS_SEED)
    n_living = task.turned.n_units
    random = _listed(task, random_directions(settings.n_random, n_living, generator))
    leading = principal(task, SCALINGS[0])
    both = 2 * -(-settings.n_random // 2)  # whole pairs of signs
    components = _listed(task, leading.direction[:both])
    comparison = compare(task, state, settings.permutations, generator)
    flips = _joined(state, task)
    steady = steadiness(task, flips, generator)
    judged = claim(task, comparison, state, settings.permutations, int(flips.found.sum()))
    shown = _shown(task, random, components)
    points = tuple(f"point_{axis}" for axis in range(len(task.network.space.shape)))
    variables: Variables = {
        "top": (("top",), np.array(task.top)),
        "label": (("image",), task.label.numpy()),
        "given_image": (("image",), task.kept.numpy()),
        "class_name": (("class",), np.array(task.class_names)),
        "class_count": (("class",), torch.bincount(task.label, minlength=len(task.class_names)).numpy()),
        "shown_image": (("shown",), shown.numpy()),
        "shown_input": (("shown", *points), _stored(task, shown)),
        **_units(task, comparison),
        **_directions("random", random),
        **_directions("principal", components),
        "principal_explained": (("principal",), leading.explained[:both].numpy()),
        **_test(task, state, comparison),
        **_steady(task, steady, points),
        **check_variables(judged.checks),
        "claim": ((), judged.word),
        "verdict": ((), "complete" if judged.complete else "incomplete"),
        "verdict_sentence": ((), _verdict_sentence(judged)),
    }
    return validate(xarray.Dataset(variables, attrs=dict(attributes)))


def _verdict_sentence(judged: Claim) -> str:
    return judged.sentence if judged.complete else f"{judged.sentence} Incomplete: the budget was spent before the end."


def _listed(task: UnitTask, direction: Tensor) -> Listed:
    """``direction (direction, living unit)``."""
    projection = task.turned.project(direction)
    image = top_inputs(projection, max(task.top))
    whole = torch.zeros((len(direction), len(task.living)), dtype=torch.float64)
    whole[:, task.living] = direction
    return Listed(whole, image, projection.gather(1, image), alike(task.label[image], task.top))


def _units(task: UnitTask, comparison: Comparison) -> Variables:
    image, known = task.most_exciting, task.resolved
    units = comparison.units
    return {
        "unit_image": (("unit", "rank"), image.numpy()),
        "unit_value": (("unit", "rank"), task.natural.gather(1, image).numpy()),
        "unit_spread": (("unit",), task.spread.numpy()),
        "unit_living": (("unit",), task.living.long().numpy()),
        "unit_purity": (("unit", "top"), torch.where(known, units.purity, torch.nan).numpy()),
        "unit_entropy": (("unit", "top"), torch.where(known, units.entropy, torch.nan).numpy()),
        "unit_class": (("unit", "top"), torch.where(known, units.label, -1).numpy()),
    }


def _directions(name: str, listed: Listed) -> Variables:
    return {
        f"{name}_direction": ((name, "unit"), listed.direction.numpy()),
        f"{name}_image": ((name, "rank"), listed.image.numpy()),
        f"{name}_value": ((name, "rank"), listed.value.numpy()),
        f"{name}_purity": ((name, "top"), listed.alike.purity.numpy()),
        f"{name}_entropy": ((name, "top"), listed.alike.entropy.numpy()),
        f"{name}_class": ((name, "top"), listed.alike.label.numpy()),
    }


def _test(task: UnitTask, state: UnitState, comparison: Comparison) -> Variables:
    of = ("against", "measure", "top")
    share = state.size_count.double() / state.size_count.sum(2, keepdim=True).clamp(min=1)
    return {
        "against": (("against",), np.array(AGAINST)),
        "measure": (("measure",), np.array(MEASURES)),
        "scaling": (("scaling",), np.array(SCALINGS)),
        "basis_mean": (("basis", "scaling", "measure", "top"), state.mean.numpy()),
        "random_size_share": (("scaling", "top", "size"), share.numpy()),
        "p_value": (of, comparison.p_value.either.numpy()),
        "p_value_more": (of, comparison.p_value.more.numpy()),
        "p_value_less": (of, comparison.p_value.less.numpy()),
        "difference": (of, comparison.difference.numpy()),
        **_estimate("standardised_difference", of, comparison.standardised),
        **_estimate("exceeds", ("against", "top"), comparison.exceeds),
    }


def _steady(task: UnitTask, steady: Steadiness, points: tuple[str, ...]) -> Variables:
    flips = steady.flips
    shape = (len(flips.distance), *task.network.space.shape)
    return {
        "flip_image": (("flip",), task.flipped[: len(flips.distance)].numpy()),
        "flip_point": (("flip", *points), flips.point.reshape(shape).numpy()),
        "flip_distance": (("flip",), flips.distance.numpy()),
        **_estimate("unit_change", ("unit",), steady.change),
        **_estimate("unit_noise_change", ("unit",), steady.noise),
        **_estimate("unit_leaving", ("unit",), steady.leaving),
        "unit_leaving_count": (("unit",), steady.n_tried.numpy()),
    }


def _estimate(name: str, dims: tuple[str, ...], estimate: Estimate) -> Variables:
    return {
        name: (dims, estimate.value.numpy()),
        f"{name}_low": (dims, estimate.low.numpy()),
        f"{name}_high": (dims, estimate.high.numpy()),
    }


def _joined(state: UnitState, task: UnitTask) -> Flips:
    """A row an input searched so far."""
    if not state.flips:
        return no_flips(0, task.inputs[0].numel())
    names = ("point", "distance", "target", "residual", "units")
    return Flips(*(torch.cat([getattr(part, name) for part in state.flips]) for name in names))


def _shown(task: UnitTask, *listed: Listed) -> Tensor:
    """Inputs among the first dozen of any direction listed."""
    parts = [task.most_exciting, *(part.image for part in listed)]
    return torch.cat([part[:, :_N_SHOWN].flatten() for part in parts]).unique()


def _stored(task: UnitTask, rows: Tensor) -> np.ndarray:
    """Inputs in the least type that holds them."""
    space, inputs = task.network.space, task.inputs[rows]
    if not isinstance(space, DiscreteSpace) or inputs.is_floating_point():
        return inputs.numpy() if inputs.is_floating_point() else inputs.double().numpy()
    return inputs.numpy().astype(np.int8 if space.levels <= 128 else np.int16)
