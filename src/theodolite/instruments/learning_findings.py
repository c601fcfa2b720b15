"""What was learned, as a labelled dataset: traces of the learning, the runs that judge it, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.instruments.learning_sampler import LearningSampler, LearningState
from theodolite.instruments.learning_task import LearningTask
from theodolite.instruments.learning_verdict import judge
from theodolite.instruments.surveying import check_variables
from theodolite.learning.agreement import STATISTICS, agreement, energies, share_interval
from theodolite.learning.diagnostics import oscillation
from theodolite.learning.examination import Examination, examine
from theodolite.learning.maximum_likelihood import TRACES
from theodolite.learning.model import EnergyModel
from theodolite.learning.plane import box_of, compare, plane_density
from theodolite.result import validate
from theodolite.run import Outcome

if TYPE_CHECKING:
    from theodolite.instruments.learning import Learning

N_EXAMPLES = 24  # images kept of every row
_POINTS = 400  # of them where they have one or two coordinates, and are drawn as dots
_EXAMPLE_SEED = 2  # beside the run's own
_QUANTILES = (0.1, 0.9)  # of the chains' energies along the long runs

DATA, HELD_OUT = "data", "held out"
LONG = {"data": "long run from data", "noise": "long run from noise"}

Variables = dict[str, tuple]


@dataclass(frozen=True)
class _Row:
    """``point (n, *shape)`` of one row of the dataset."""

    name: str
    sentence: str
    point: Tensor


def to_dataset(
    settings: Learning,
    task: LearningTask,
    sampler: LearningSampler,
    outcome: Outcome,
    model: EnergyModel,
    attributes: Mapping[str, str | int | float],
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    state: LearningState = outcome.state
    generator = torch.Generator().manual_seed(settings.seed + _EXAMPLE_SEED)
    rows = _rows(settings, task, sampler, state, generator)
    examined = None
    if state.judged is not None:
        examined = examine(model.energy, sampler.reference, sampler.long_runs, state.judged, generator)
    verdict = judge(examined, state.learner.diverged)
    variables: Variables = {
        **_traces(state),
        **_plane(task, model),
        **_row_variables(sampler, rows, model, generator),
        **_statistics(sampler, rows, model, examined, generator),
        **_trace_energies(sampler, state, [row.name for row in rows]),
        **check_variables(verdict.checks),
        "verdict": ((), verdict.word),
        "verdict_sentence": ((), verdict.sentence),
    }
    coordinates = {"run": ("run", np.array([row.name for row in rows]))}
    return validate(xarray.Dataset(variables, coordinates, attrs={**attributes, "advice": verdict.advice}))


def _traces(state: LearningState) -> Variables:
    """What was measured in every update, and how that is correlated."""
    trace = dict(zip(TRACES, state.learner.traces.numpy().T, strict=True))
    found = oscillation(trace["energy_difference"], trace["langevin_gradient"])
    return {
        **{name: (("update",), values.copy()) for name, values in trace.items()},
        "optimiser": (("update",), trace["optimiser"].astype(np.int64)),
        "energy_difference_mean": ((), found.mean),
        "energy_difference_error": ((), found.error),
        "energy_difference_correlation": (("lag",), found.difference),
        "langevin_gradient_correlation": (("lag",), found.gradient),
        "signed_lag": (("signed_lag",), found.signed_lag),
        "cross_correlation": (("signed_lag",), found.cross),
        "correlation_error": ((), found.bartlett),
        "oscillation": ((), found.word),
    }


def _plane(task: LearningTask, model: EnergyModel) -> Variables:
    """The exact density of an energy of one or two real coordinates; none of more."""
    if task.data.mean.numel() > 2 or task.data.levels is not None:
        return {}
    box = box_of(task.data.point.flatten(1))
    if task.truth is None:
        density = plane_density(model.energy, *box)
        compared: Variables = {}
    else:
        known = compare(model.energy, task.truth, *box)
        density = known.density
        compared = {
            "true_log_density": (("axis_0", "axis_1"), known.true_log_density),
            "divergence": ((), known.divergence),
            "divergence_error": ((), known.divergence_error),
            "reverse_divergence": ((), known.reverse_divergence),
            "reverse_divergence_error": ((), known.reverse_divergence_error),
            "mode_mass": (("mode",), known.mode_mass),
            "true_mode_mass": (("mode",), known.true_mode_mass),
        }
    return {
        "plane_0": (("axis_0",), density.axis_0),
        "plane_1": (("axis_1",), density.axis_1),
        "log_density": (("axis_0", "axis_1"), density.log_density),
        "plane_outcome": ((), density.outcome),
        "log_partition": ((), density.log_normalisation),
        "log_partition_error": ((), density.log_normalisation_error),
        **compared,
    }


# ---------------------------------------------------------------------- rows of points


def _rows(
    settings: Learning, task: LearningTask, sampler: LearningSampler, state: LearningState, generator: torch.Generator
) -> list[_Row]:
    reference = sampler.reference
    n = min(settings.long_chains, len(task.images))
    noise = f"with noise of deviation {settings.data_noise:g}"
    rows = [_Row(DATA, f"images learned from, {noise}", _some(reference.noisy, n, generator))]
    if reference.held_out is not None:
        rows.append(_Row(HELD_OUT, f"images not learned from, {noise}", _some(reference.held_out, n, generator)))
    rows.append(_Row("short run", _short_sentence(settings), sampler.short_run(state, n)))
    if state.judged is not None:
        steps = min(state.judged.done * sampler.long_runs.block, sampler.long_runs.steps)
        after = f"after {steps:,} {_steps_word(settings)}"
        rows += [
            _Row(LONG["data"], f"chains from noisy images {after}", state.judged.data.point),
            _Row(LONG["noise"], f"chains from noise, cooled, {after}", state.judged.noise.point),
        ]
    return rows


def _some(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return points[torch.randperm(len(points), generator=generator)[:n]]


def _steps_word(settings: Learning) -> str:
    return "sweeps" if settings.dynamics == "gibbs" else "steps"


def _short_sentence(settings: Learning) -> str:
    moved = f"{settings.steps} {_steps_word(settings)} of {settings.dynamics}"
    if settings.initialisation == "persistent":
        return f"chains that learning kept, {moved} after their last update"
    return f"chains from {settings.initialisation} after {moved}, as in an update"


def _row_variables(
    sampler: LearningSampler, rows: list[_Row], model: EnergyModel, generator: torch.Generator
) -> Variables:
    classes = sampler.reference.classes
    most = max(len(row.point) for row in rows)
    energy = np.full((len(rows), most), np.nan)
    n_examples = N_EXAMPLES if math.prod(model.frame.image_shape) > 2 else min(_POINTS, most)
    image = np.full((len(rows), n_examples, *model.frame.image_shape), np.nan, dtype=np.float32)
    share = np.full((len(rows), len(classes.names), 3), np.nan)
    for place, row in enumerate(rows):
        energy[place, : len(row.point)] = energies(model.energy, row.point)
        # A model's frame gives images in the units they came in, noise and all.
        shown = model.images(_some(row.point, n_examples, generator)).numpy()
        image[place, : len(shown)] = shown
        if bool(row.point.isfinite().all()):
            told = classes.of(sampler.reference.features(row.point))
            for one, count in enumerate(np.bincount(told, minlength=len(classes.names))):
                share[place, one] = (count / len(told), *share_interval(int(count), len(told)))
    axes = tuple(f"image_{axis}" for axis in range(image.ndim - 2))
    return {
        "run_energy": (("run", "chain"), energy),
        "run_sentence": (("run",), np.array([row.sentence for row in rows])),
        "run_image": (("run", "example", *axes), image),
        "class_name": (("class",), np.array(classes.names)),
        "run_class_share": (("run", "class"), share[..., 0]),
        "run_class_share_low": (("run", "class"), share[..., 1]),
        "run_class_share_high": (("run", "class"), share[..., 2]),
    }


def _statistics(
    sampler: LearningSampler,
    rows: list[_Row],
    model: EnergyModel,
    examined: Examination | None,
    generator: torch.Generator,
) -> Variables:
    """Each row against the noisy training data; none of the data against themselves."""
    table = np.full((len(rows), len(STATISTICS), 3), np.nan)
    known = {} if examined is None else {LONG[name]: found for name, found in examined.runs.items()}
    for place, row in enumerate(rows):
        if row.name in (HELD_OUT, "short run") and bool(row.point.isfinite().all()):
            known[row.name] = agreement(model.energy, sampler.reference, row.point[:, None], generator)
        if row.name in known:
            found = [known[row.name].statistics[name] for name in STATISTICS]
            table[place] = [(one.value, one.low, one.high) for one in found]
    return {
        "statistic_name": (("statistic",), np.array(STATISTICS)),
        "statistic": (("run", "statistic"), table[..., 0]),
        "statistic_low": (("run", "statistic"), table[..., 1]),
        "statistic_high": (("run", "statistic"), table[..., 2]),
    }


def _trace_energies(sampler: LearningSampler, state: LearningState, names: list[str]) -> Variables:
    """Energies along the long runs; none where there were none."""
    if state.judged is None:
        return {}
    runs = {LONG["data"]: state.judged.data, LONG["noise"]: state.judged.noise}
    block, steps = sampler.long_runs.block, sampler.long_runs.steps
    step = np.minimum(np.arange(1, state.judged.done + 1) * block, steps)
    table = np.full((len(names), len(step), 3), np.nan)
    for name, run in runs.items():
        trace = run.trace().double().numpy()
        low, high = np.quantile(trace, _QUANTILES, axis=0)
        table[names.index(name)] = np.stack((trace.mean(0), low, high), 1)
    return {
        "trace_step": (("step",), step),
        "trace_energy": (("run", "step"), table[..., 0]),
        "trace_energy_low": (("run", "step"), table[..., 1]),
        "trace_energy_high": (("run", "step"), table[..., 2]),
    }
