"""What a survey of a boundary found, as a labelled dataset: flip points, bounds, and what they tell.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", sections 4-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.instruments import flip_statistics
from theodolite.instruments.boundary_checks import NOWHERE, ON_BOUNDARY, judge, verified
from theodolite.instruments.boundary_task import BoundaryTask
from theodolite.instruments.surveying import check_variables
from theodolite.result import validate
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.boundary import Boundary
    from theodolite.instruments.boundary_sampler import Found

_N_COMPONENTS = 3
_STATISTICS_SEED = 1  # beside the survey's own, so that bootstrap draws are not those of a search

Variables = dict[str, tuple]


def to_dataset(
    settings: Boundary, task: BoundaryTask, found: Found, attributes: Mapping[str, str | int | float]
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    outcome = outcomes(task, found)
    output = task.output.numpy()
    own = task.own.numpy()
    probability, margin = _confidence(task)
    bounds = found.bounds
    judgement = judge(task, verified(task, found.flips), found, outcome)
    points = tuple(f"point_{axis}" for axis in range(len(task.network.space.shape)))
    variables: Variables = {
        "input": (("image", *points), _stored(task)),
        "output": (("image", "class"), output),
        "predicted_class": (("image",), own),
        "probability": (("image",), probability),
        "flip_point": (("image", *points), _shaped(found.flips.point, task)),
        "distance": (("image",), found.flips.distance.numpy()),
        "distance_lower_bound": (("image",), bounds.lower.numpy()),
        "certificate": (("image",), np.array(bounds.method)),
        "target_class": (("image",), found.flips.target.numpy()),
        "residual": (("image",), found.flips.residual.numpy()),
        "units": (("image",), found.flips.units.numpy()),
        "outcome": (("image",), np.array(outcome)),
        "violation": (("image",), found.violation.numpy()),
        **_pair_variables(task, found, points),
        **_meeting_variables(task, found, points),
        **_told(settings, task, found, {"softmax": probability, "margin": margin}, points),
        **check_variables(judgement.checks),
        "verdict": ((), judgement.word),
        "verdict_sentence": ((), judgement.sentence),
    }
    if task.labels is not None:
        variables["label"] = (("image",), task.labels.numpy())
    variables["class_name"] = (("class",), np.array(task.class_names))
    return validate(xarray.Dataset(variables, attrs=dict(attributes)))


def outcomes(task: BoundaryTask, found: Found) -> list[str]:
    """ "found", or why not, in words, an image each."""
    words = []
    possible = torch.ones(len(task.own), dtype=torch.bool)
    if task.rules is not None:
        possible = task.rules.possible(task.points)
    for refusal, searched, known, distance, allowed, violation, bound in zip(
        task.refusal,
        found.searched.tolist(),
        found.flips.found.tolist(),
        found.flips.distance.tolist(),
        possible.tolist(),
        found.violation.tolist(),
        found.bounds.lower.tolist(),
        strict=True,
    ):
        if refusal:
            words.append(refusal)
        elif not searched:
            words.append("not searched: the budget was spent before")
        elif known:
            words.append(ON_BOUNDARY if distance == 0 else "found")
        elif bound == math.inf:
            words.append(NOWHERE)
        elif not allowed:
            words.append("not found: no point satisfies the constraints of this input")
        elif violation > 0:
            words.append(f"not found: the nearest flip point breaks the constraints by {violation:.3g}")
        else:
            words.append("not found: no search met another class")
    return words


def _confidence(task: BoundaryTask) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of the predicted class and its lead over the next, ``(image,)`` each; NaN where there is no class."""
    highest = task.output.topk(2, 1).values
    margin = torch.where(task.own >= 0, highest[:, 0] - highest[:, 1], torch.nan)
    probability = torch.where(task.own >= 0, task.output.softmax(1).amax(1), torch.nan)
    return probability.numpy(), margin.numpy()


def _stored(task: BoundaryTask) -> np.ndarray:
    """The inputs in the least type that holds them."""
    space, inputs = task.network.space, task.inputs
    if not isinstance(space, DiscreteSpace) or inputs.is_floating_point():
        return inputs.numpy() if inputs.is_floating_point() else inputs.double().numpy()
    return inputs.numpy().astype(np.int8 if space.levels <= 128 else np.int16)


def _shaped(point: Tensor, task: BoundaryTask) -> np.ndarray:
    return point.reshape(*point.shape[:-1], *task.network.space.shape).numpy()


def by_class(task: BoundaryTask, value: Tensor, unknown: float) -> Tensor:
    """``value (pair, ...)`` of the pairs asked for as ``(image, class, ...)``, ``unknown`` elsewhere."""
    table = torch.full((len(task.own), task.n_classes, *value.shape[1:]), unknown, dtype=value.dtype)
    table[task.pairs] = value
    return table


def pair_distances(task: BoundaryTask, found: Found) -> Tensor:
    """``(image, class)``: inf where no flip was found or searched, NaN for the predicted class."""
    distance = by_class(task, found.pairs.distance, torch.inf)
    rows = (task.own >= 0).nonzero()[:, 0]
    distance[rows, task.own[rows]] = torch.nan
    return distance


def _pair_variables(task: BoundaryTask, found: Found, points: tuple[str, ...]) -> Variables:
    if not len(task.pairs[0]):
        return {}
    known = pair_distances(task, found)
    wanted = by_class(task, torch.ones(len(task.pairs[0])), 0.0) > 0
    lower = torch.where(wanted, found.bounds.by_class, 0.0)
    return {
        "pair_flip_point": (("image", "class", *points), _shaped(by_class(task, found.pairs.point, torch.nan), task)),
        "pair_distance": (("image", "class"), known.numpy()),
        "pair_residual": (("image", "class"), by_class(task, found.pairs.residual, torch.nan).numpy()),
        "pair_lower_bound": (("image", "class"), lower.numpy()),
    }


def _meeting_variables(task: BoundaryTask, found: Found, points: tuple[str, ...]) -> Variables:
    if found.meetings is None:
        return {}
    return {
        "meeting_point": (("image", *points), _shaped(found.meetings.point, task)),
        "meeting_distance": (("image",), found.meetings.distance.numpy()),
        "meeting_class": (("image", "rank"), found.meetings.classes.numpy()),
    }


def _told(
    settings: Boundary,
    task: BoundaryTask,
    found: Found,
    confidence: Mapping[str, np.ndarray],
    points: tuple[str, ...],
) -> Variables:
    """Trust, directions, features, ambiguity and suspicious labels."""
    known = found.flips.found.numpy()
    own, distance = task.own.numpy(), found.flips.distance.numpy()
    change = (found.flips.point - task.points).numpy()[known]
    shape = task.network.space.shape
    told = flip_statistics.directions(change, own[known], task.n_classes, _N_COMPONENTS)
    share = flip_statistics.changed_share(change, task.change_threshold)
    variables: Variables = {
        "direction_mean": (("class", *points), told.mean.reshape(-1, *shape)),
        "direction_component": (
            ("class", "component", *points),
            told.component.reshape(task.n_classes, _N_COMPONENTS, *shape),
        ),
        "direction_explained": (("class", "component"), told.explained),
        "feature_changed": (points, share.reshape(shape)),
    }
    if settings.uncertainty is not None:
        within = flip_statistics.ambiguous(distance, settings.uncertainty)
        variables["ambiguous"] = (("image",), within.astype(np.int64))
    if task.labels is None:
        return variables
    label = task.labels.numpy()
    judged = known & (label >= 0)
    scores = {"distance": distance, **confidence}
    generator = torch.Generator().manual_seed(settings.seed + _STATISTICS_SEED)
    trust = flip_statistics.trust(
        {name: score[judged] for name, score in scores.items()}, (own != label)[judged], generator
    )
    variables |= {
        "score": (("score",), np.array(trust.score)),
        "auroc": (("score",), trust.auroc),
        "auroc_low": (("score",), trust.low),
        "auroc_high": (("score",), trust.high),
        "auroc_lead": (("score",), trust.lead),
        "auroc_lead_low": (("score",), trust.lead_low),
        "auroc_lead_high": (("score",), trust.lead_high),
        "suspicious_image": (("suspect",), flip_statistics.suspicious(distance, own, label)),
    }
    if len(task.pairs[0]):
        rank = flip_statistics.true_class_rank(pair_distances(task, found).numpy(), own, label)
        variables["true_class_rank"] = (("image",), rank)
    return variables
