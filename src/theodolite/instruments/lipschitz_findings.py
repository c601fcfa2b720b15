"""What a survey of slopes found, as a labelled dataset, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.instruments.bounds.layer_steps import erf_bound
from theodolite.instruments.bounds.operator_norms import sums_norms
from theodolite.instruments.lipschitz_task import LipschitzTask
from theodolite.instruments.surveying import check_variables
from theodolite.instruments.verdict import Check, Judgement
from theodolite.result import validate

if TYPE_CHECKING:
    from theodolite.instruments.lipschitz import Lipschitz
    from theodolite.instruments.lipschitz_sampler import LipschitzSampler, LipschitzState

_SETTLED = 1e-4  # residual, relative, from which an estimate of a norm is not to be trusted
_CLOSE = 1.05

Variables = dict[str, tuple]


def to_dataset(
    settings: Lipschitz,
    task: LipschitzTask,
    sampler: LipschitzSampler,
    state: LipschitzState,
    attributes: Mapping[str, str | int | float],
) -> xarray.Dataset:
    """The dataset of docs/architecture.md, validated against the schema."""
    rows = task.layers.rows
    whole = sampler.whole(state)
    judgement = judge(task, sampler, state, whole)
    axes = tuple(f"point_{axis}" for axis in range(len(task.network.space.shape)))
    shape = task.network.space.shape
    variables: Variables = {
        "layer": (("layer",), np.array([row.name for row in rows])),
        "kind": (("layer",), np.array([row.kind for row in rows])),
        "shape": (("layer",), np.array([row.shape for row in rows])),
        "lipschitz_upper_bound": (("layer",), state.bound.numpy()),
        "proof": (("layer",), np.array(state.proof)),
        "operator_norm": (("layer",), state.norm.numpy()),
        "operator_norm_residual": (("layer",), state.residual.numpy()),
        "measured_slope": (("layer",), state.slope.numpy()),
        "frame_lower_bound": (("layer",), state.frame.numpy()),
        "frame_proof": (("layer",), np.array(state.frame_proof)),
        "smallest_singular_value": (("layer",), state.smallest.numpy()),
        "network_upper_bound": ((), whole),
        "network_slope": ((), state.network_slope),
        "network_pair": (("pair_side", *axes), state.network_pair.reshape(2, *shape).numpy()),
        "erf_upper_bound": ((), _erf(task)),
        **_local(settings, task, state, axes),
        **check_variables(judgement.checks),
        "verdict": ((), judgement.word),
        "verdict_sentence": ((), judgement.sentence),
    }
    return validate(xarray.Dataset(variables, attrs=dict(attributes)))


def _erf(task: LipschitzTask) -> float:
    graph = task.layers.graph
    if graph is None:
        return math.nan
    nodes = {step.index: graph.node(step.index) for step in task.layers.steps}
    rows = {index: sums_norms(node)[1] for index, node in nodes.items() if isinstance(node, Affine)}
    return erf_bound(task.layers.steps, rows)


def _local(settings: Lipschitz, task: LipschitzTask, state: LipschitzState, axes: tuple[str, ...]) -> Variables:
    if task.centre is None or task.inputs is None or not settings.radius:
        return {}
    missing = len(task.centre) - sum(len(part) for part in state.local_bound)
    table = (missing, len(settings.radius))
    # What was not reached has the bound that holds everywhere.
    everywhere = torch.full(table, torch.nan, dtype=torch.float64)
    return {
        "input": (("image", *axes), _stored(task.inputs)),
        "radius": (("radius",), np.array(settings.radius, dtype=np.float64)),
        "local_upper_bound": (("image", "radius"), torch.cat([*state.local_bound, everywhere]).numpy()),
        "local_slope": (("image", "radius"), torch.cat([*state.local_slope, everywhere]).numpy()),
    }


def _stored(inputs: Tensor) -> np.ndarray:
    return inputs.numpy() if inputs.is_floating_point() else inputs.to(torch.int16).numpy()


# ---------------------------------------------------------------------- the verdict


def judge(task: LipschitzTask, sampler: LipschitzSampler, state: LipschitzState, whole: float) -> Judgement:
    """ "proven" where every layer has a finite bound, no budget cut it short and no pair contradicts it; else "in
    part"."""
    rows = task.layers.rows
    bounded = state.bound.isfinite()
    left = sampler.left(state, "layer")
    unseen = len(sampler.schedule[state.step :]) - left
    above = int((state.slope > state.bound).sum()) + int(state.network_slope > whole)
    above += sum(int((s > b).sum()) for s, b in zip(state.local_slope, state.local_bound, strict=True))
    below = int((state.norm > state.bound * (1 + 1e-12)).sum())
    residual = state.residual[state.residual.isfinite()]
    unsettled = float(residual.max()) if len(residual) else 0.0
    ratio = state.bound / state.norm
    ratio = ratio[ratio.isfinite() & bounded]
    widest = float(ratio.max()) if len(ratio) else math.nan
    unknown = [row.name for row, known in zip(rows, bounded.tolist(), strict=True) if not known]
    named = f": none for {', '.join(unknown[:5])}{' and others' if len(unknown) > 5 else ''}" if unknown else ""
    checks = (
        _check(
            "every layer bounded",
            int(bounded.sum()),
            f"{len(rows):,} layers",
            f"{int(bounded.sum()):,} of {len(rows):,} layers have a finite bound{named}",
            bool(bounded.all()),
        ),
        _check(
            "every layer looked at", left, "0 left", f"{left:,} layers have a bound by sums of weights alone", not left
        ),
        _check(
            "every pair searched", unseen, "0 left", f"{unseen:,} searches were left when the budget ended", not unseen
        ),
        _check("no slope above its bound", above, "0 above", f"{above:,} measured slopes exceed a bound", not above),
        _check("no norm above its bound", below, "0 above", f"{below:,} estimated norms exceed a bound", not below),
        _check(
            "norms settled",
            unsettled,
            f"<= {_SETTLED:g}",
            "largest residual of an estimated norm, relative",
            unsettled <= _SETTLED,
        ),
        _check(
            "bounds close to the norms",
            widest,
            f"<= {_CLOSE:g}",
            "largest ratio of a layer's bound to its estimated norm",
            not widest > _CLOSE,
        ),
    )
    return Judgement(checks, *_verdict(task, checks, state, whole))


# What may fail in a proof that holds.
_MAY_FAIL = ("norms settled", "bounds close to the norms", "every pair searched")


def _verdict(task: LipschitzTask, checks: tuple[Check, ...], state: LipschitzState, whole: float) -> tuple[str, str]:
    failed = [check for check in checks if not bool(np.all(check.passed)) and check.name not in _MAY_FAIL]
    seen = (
        ""
        if math.isnan(state.network_slope)
        else f"; the steepest pair found differs by {_rounded(state.network_slope, -1)}"
    )
    told = (
        f"outputs differ by at most {_rounded(whole, 1)} for each unit of distance between inputs ({task.norm}){seen}"
    )
    if not failed and math.isfinite(whole):
        return "proven", f"Proven: {told}."
    reasons = "; ".join(check.sentence for check in failed) or "the bound of the whole network is infinite"
    return "in part", f"Proven in part: {reasons}{seen}."


def _rounded(value: float, direction: int) -> str:
    """Four digits, up (1) or down (-1), so that what is said is proven too."""
    text = f"{value:.4g}"
    if not math.isfinite(value) or (float(text) - value) * direction >= 0:
        return text
    return f"{float(text) + direction * 10.0 ** (math.floor(math.log10(abs(value))) - 3):.4g}"


def _check(name: str, value: float, limit: str, sentence: str, passed: bool) -> Check:
    return Check(name, float(value), limit, sentence, np.array(passed))
