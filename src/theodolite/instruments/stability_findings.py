"""What a survey of stability found, as a labelled dataset: examples, distortions, transfer, and the verdict.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.instruments import transfer as transfers
from theodolite.instruments.stability_task import StabilityTask
from theodolite.instruments.surveying import check_variables
from theodolite.instruments.transfer import Examples, Interval, Transfer, distortion, mean_interval, share_interval
from theodolite.instruments.verdict import Check, Judgement
from theodolite.result import validate
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.stability import Stability
    from theodolite.instruments.stability_sampler import Attacked

ENOUGH_INPUTS = 30  # counted in an entry: with fewer, an interval of a share can be wider than 0.36
_NOISE_SEED = 1  # beside the survey's own, so that noise is not drawn as targets are
_ALREADY_WRONG = "not attacked: the network gives another class than the label already"
_NO_LABEL = "not attacked: no label was given"
_NO_OUTPUT = "not attacked: the network's outputs are not finite here"
_NOT_REACHED = "not attacked: the budget was spent before"
_REACHED = "amplified examples reach their distortion"

Variables = dict[str, tuple]


def to_dataset(
    settings: Stability,
    task: StabilityTask,
    found: Attacked,
    tried: Tensor,
    attributes: Mapping[str, str | int | float],
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    change = found.point - task.points
    n_networks = len(task.networks)
    length = torch.where(found.found, change.norm(dim=2), torch.inf).masked_fill(~tried, torch.nan)
    generator = np.random.default_rng(settings.seed)
    means = [
        mean_interval((length[k][found.found[k]] / task.points.shape[1] ** 0.5).numpy(), settings.resamples, generator)
        for k in range(n_networks)
    ]
    rows = example_rows(settings, task, found, means)
    spread = [
        mean_interval(distortion(row.point - task.points)[row.known].numpy(), settings.resamples, generator)
        for row in rows
    ]
    told = transfers.transfer(rows, task.exact, task.labels, task.right)
    judgement = judge(task, found, tried, rows, told)
    points = tuple(f"point_{axis}" for axis in range(len(task.networks[0].space.shape)))
    shape = task.networks[0].space.shape
    variables: Variables = {
        "input": (("image", *points), _stored(task)),
        "label": (("image",), task.labels.numpy()),
        "class_name": (("class",), np.array(task.class_names)),
        "network_hash": (("network",), np.array([network.hash for network in task.networks])),
        "predicted_class": (("network", "image"), _predicted(task.output).numpy()),
        "example": (("network", "image", *points), found.point.reshape(n_networks, -1, *shape).numpy()),
        "example_class": (("network", "image"), _example_classes(task, found, tried).numpy()),
        "asked_class": (("network", "image"), task.asked.numpy()),
        "distortion": (("network", "image"), (length / task.points.shape[1] ** 0.5).numpy()),
        "distance": (("network", "image"), length.numpy()),
        "residual": (("network", "image"), found.residual.numpy()),
        "constant": (("network", "image"), found.constant.numpy()),
        "units": (("network", "image"), found.units.numpy()),
        "outcome": (("network", "image"), np.array(outcomes(task, found, tried))),
        **_network_variables(task, means),
        **_row_variables(rows, spread, told),
        **check_variables(judgement.checks),
        "verdict": ((), judgement.word),
        "verdict_sentence": ((), judgement.sentence),
    }
    coordinates = {
        "network": ("network", np.array(task.names)),
        "row": ("row", np.array([row_name(row, task.names) for row in rows])),
    }
    return validate(xarray.Dataset(variables, coords=coordinates, attrs=dict(attributes)))


def example_rows(
    settings: Stability, task: StabilityTask, found: Attacked, means: Sequence[Interval]
) -> list[Examples]:
    """Minimal examples of each network, the same amplified, and noise: the rows of the paper's tables."""
    networks = range(len(task.networks))
    rows = [Examples(transfers.MINIMAL, k, np.nan, found.point[k], found.found[k]) for k in networks]
    for stated in task.amplify:
        for k in networks:
            point = torch.where(found.found[k, :, None], found.point[k], torch.nan)
            point, reached = transfers.amplified(task.points, point, stated, task.low, task.high)
            n_unreached = int((found.found[k] & ~reached).sum())
            rows.append(Examples(transfers.AMPLIFIED, k, stated, point, reached, n_unreached))
    generator = torch.Generator().manual_seed(settings.seed + _NOISE_SEED)
    for deviation in _deviations(task, means) if task.noise is None else task.noise:
        point = transfers.noisy(task.points, deviation, task.low, task.high, generator)
        rows.append(Examples(transfers.NOISE, -1, deviation, point, task.labels >= 0))
    return rows


def _deviations(task: StabilityTask, means: Sequence[Interval]) -> list[float]:
    """The networks' mean distortion, so that noise is as strong as examples are, and the amplified ones."""
    known = [mean.value for mean in means if np.isfinite(mean.value) and mean.value > 0]
    return [*([float(np.mean(known))] if known else []), *task.amplify]


def row_name(row: Examples, names: Sequence[str]) -> str:
    """A row as its coordinate names it."""
    if row.kind == transfers.NOISE:
        return f"Gaussian noise {row.stated:.3g}"
    made = f"made for {names[row.made_for]}"
    return made if row.kind == transfers.MINIMAL else f"{made}, amplified to {row.stated:.3g}"


def outcomes(task: StabilityTask, found: Attacked, tried: Tensor) -> list[list[str]]:
    """ "found", or why not, in words, ``(network, image)``."""
    finite = task.output.isfinite().all(2)
    return [
        [
            _outcome(
                int(task.labels[image]),
                bool(finite[k, image]),
                bool(task.right[k, image]),
                bool(tried[k, image]),
                bool(found.found[k, image]),
                float(found.residual[k, image]),
            )
            for image in range(len(task.labels))
        ]
        for k in range(len(task.networks))
    ]


def _outcome(label: int, finite: bool, right: bool, tried: bool, found: bool, residual: float) -> str:
    if label < 0:
        return _NO_LABEL
    if not finite:
        return _NO_OUTPUT
    if not right:
        return _ALREADY_WRONG
    if not tried:
        return _NOT_REACHED
    return "found" if found else f"not found: the best point fails by {-residual:.3g} logits"


def _predicted(output: Tensor) -> Tensor:
    return torch.where(output.isfinite().all(2), output.argmax(2), -1)


def _example_classes(task: StabilityTask, found: Attacked, tried: Tensor) -> Tensor:
    """The class asked for, or, where any will do, the other class with the largest output at the example."""
    classes = torch.full(tried.shape, -1)
    for k, exact in enumerate(task.exact):
        rows = found.found[k].nonzero()[:, 0]
        if len(rows):
            output = exact.value(found.point[k, rows])
            largest = output.scatter(1, task.labels[rows, None], -torch.inf).argmax(1)
            classes[k, rows] = torch.where(task.asked[k, rows] >= 0, task.asked[k, rows], largest)
    return classes


def _stored(task: StabilityTask) -> np.ndarray:
    """The inputs in the least type that holds them."""
    space, inputs = task.networks[0].space, task.inputs
    if not isinstance(space, DiscreteSpace) or inputs.is_floating_point():
        return inputs.numpy() if inputs.is_floating_point() else inputs.double().numpy()
    return inputs.numpy().astype(np.int8 if space.levels <= 128 else np.int16)


def _network_variables(task: StabilityTask, means: Sequence[Interval]) -> Variables:
    labelled = task.labels >= 0
    wrong = (~task.right & labelled).sum(1).tolist()
    error = [share_interval(count, int(labelled.sum())) for count in wrong]
    return {
        **_intervals("test_error", "network", error),
        **_intervals("mean_distortion", "network", means),
    }


def _row_variables(rows: Sequence[Examples], spread: Sequence[Interval], told: Transfer) -> Variables:
    return {
        "row_kind": (("row",), np.array([row.kind for row in rows])),
        "made_for": (("row",), np.array([row.made_for for row in rows])),
        "stated_distortion": (("row",), np.array([row.stated for row in rows])),
        **_intervals("row_distortion", "row", spread),
        "row_count": (("row",), np.array([int(row.known.sum()) for row in rows])),
        "row_unreached": (("row",), np.array([row.n_unreached for row in rows])),
        "transfer": (("row", "network"), told.share),
        "transfer_low": (("row", "network"), told.low),
        "transfer_high": (("row", "network"), told.high),
        "transfer_count": (("row", "network"), told.count),
        "fooled": (("row", "network", "image"), told.wrong.astype(np.int8)),
    }


def _intervals(name: str, dim: str, intervals: Sequence[Interval]) -> Variables:
    table = np.array(intervals, dtype=np.float64).reshape(-1, 3)
    return {name + end: ((dim,), table[:, k]) for k, end in enumerate(("", "_low", "_high"))}


def judge(task: StabilityTask, found: Attacked, tried: Tensor, rows: Sequence[Examples], told: Transfer) -> Judgement:
    """The checks; "complete" where all that spoil the table hold, else "incomplete"."""
    n_wanted, n_tried, n_found = (int(part.sum()) for part in (task.right, tried, found.found))
    minimal = [k for k, row in enumerate(rows) if row.kind == transfers.MINIMAL]
    own = [(int(told.fooled[k, rows[k].made_for]), int(told.count[k, rows[k].made_for])) for k in minimal]
    n_fooled, n_own = (sum(column) for column in zip(*own, strict=True))
    inside = ((found.point >= task.low) & (found.point <= task.high)).all(2)
    n_outside = int((found.found & ~inside).sum())
    least = int(told.count.min())
    unreached = Counter({row_name(row, task.names): row.n_unreached for row in rows if row.n_unreached})
    n_unreached, most = sum(unreached.values()), unreached.most_common(1)
    checks = (
        _check(
            "every network attacked on every input it has right",
            n_wanted - n_tried,
            "0 left",
            f"{n_wanted - n_tried:,} of {n_wanted:,} attacks were left when the budget was spent",
            n_tried == n_wanted > 0,
        ),
        _check(
            "every attack succeeds",
            n_found,
            f"{n_tried:,} attacks",
            f"{n_found:,} of {n_tried:,} attacks found an example",
            n_found == n_tried,
        ),
        _check(
            "each network is fooled by its own examples",
            n_fooled,
            f"{n_own:,} examples",
            f"{n_fooled:,} of {n_own:,} examples fool the network they were made for (100% by construction)",
            n_fooled == n_own,
        ),
        _check(
            "examples lie in the input space",
            n_outside,
            "0 outside",
            f"{n_outside:,} of {n_found:,} examples lie outside",
            n_outside == 0,
        ),
        _check(
            "enough inputs for the intervals",
            least,
            f">= {ENOUGH_INPUTS}",
            f"the entry of the table counted on the fewest inputs has {least:,}",
            least >= ENOUGH_INPUTS,
        ),
        _check(
            _REACHED,
            n_unreached,
            "0 left out",
            f"{n_unreached:,} left out, since the edge of the space comes first"
            + (f"; most of the row {most[0][0]!r}: {most[0][1]:,}" if most else ""),
            n_unreached == 0,
        ),
    )
    # What the space does not allow is left out of its row and counted; the rest of the table stands.
    failed = [check for check in checks if not bool(np.all(check.passed)) and check.name != _REACHED]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.sentence}" for check in failed)
        return Judgement(checks, "incomplete", f"Incomplete: {reasons}.")
    networks = "1 network" if len(task.names) == 1 else f"{len(task.names)} networks"
    return Judgement(
        checks,
        "complete",
        f"Complete: every attack on {networks} found an example ({n_found:,} in all), and every entry of the table is "
        f"counted on {least:,} inputs or more.",
    )


def _check(name: str, value: float, limit: str, sentence: str, passed: bool) -> Check:
    return Check(name, float(value), limit, sentence, np.array(passed))
