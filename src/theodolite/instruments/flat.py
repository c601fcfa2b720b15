"""Surveys by counting and by flat histograms: enumerate, uniform, wang-landau, multicanonical, gwl.

All have ``init``, ``step`` and ``estimate`` over fixed bins; this file gives them a gallery of representative inputs
and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.instruments.findings import N_REPRESENTATIVES, Findings, choose_representatives
from theodolite.instruments.verdict import Check
from theodolite.sampling.enumerate import Enumeration
from theodolite.sampling.gradient_wang_landau import GradientWangLandau
from theodolite.sampling.metropolis import as_points, as_sampled
from theodolite.sampling.multicanonical import FlatHistogramEstimate
from theodolite.sampling.uniform import Uniform
from theodolite.sampling.wang_landau import WangLandau

_CANDIDATES = 20_000
_PAPER = (
    "Liu, You, Li, Shang (2023). Gradient-based Wang-Landau Algorithm: A Novel Sampler for Output Distribution of "
    "Neural Networks over the Input Space. ICML, PMLR 202."
)
_CITATIONS = {
    "enumerate": (_PAPER,),
    "uniform": (_PAPER, "Wilson (1927). Probable inference. J. Am. Stat. Assoc. 22, 209-212."),
    "wang-landau": (
        _PAPER,
        "Wang, Landau (2001). Efficient, multiple-range random walk algorithm to calculate the density of states. "
        "Phys. Rev. Lett. 86, 2050.",
        "Belardinelli, Pereyra (2007). Fast algorithm to calculate density of states. Phys. Rev. E 75, 046701.",
        "Berg, Neuhaus (1992). Multicanonical ensemble. Phys. Rev. Lett. 68, 9.",
    ),
    "gwl": (
        _PAPER,
        "Grathwohl, Swersky, Hashemi, Duvenaud, Maddison (2021). Oops I Took a Gradient: Scalable Sampling for "
        "Discrete Distributions. ICML.",
    ),
}
_CITATIONS["multicanonical"] = _CITATIONS["wang-landau"]


@dataclass(frozen=True)
class FlatSurvey:
    """The sampler's own state, and candidates for the gallery: ``point`` ``(candidate, *sampled)``, ``output``
    ``(candidate,)``, one taken of every ``interval`` steps."""

    inner: Any
    point: Tensor
    output: Tensor
    interval: int
    n_steps: int


@dataclass(frozen=True)
class FlatSampler:
    """``method`` names the sampler; ``seen(inner)`` gives points it stands on and their outputs."""

    field: Field
    method: str
    sampler: Any
    seen: Callable[[Any], tuple[Tensor, Tensor]]

    def init(self, generator: torch.Generator) -> FlatSurvey:
        empty = as_sampled(self.field.space, self.field.space.draw(0, generator))
        return FlatSurvey(self.sampler.init(generator), empty, torch.empty(0, dtype=torch.float64), 1, 0)

    def step(self, state: FlatSurvey, generator: torch.Generator) -> tuple[FlatSurvey, dict[str, Any]]:
        inner, info = self.sampler.step(state.inner, generator)
        state = replace(state, inner=inner, n_steps=state.n_steps + 1)
        if state.n_steps % state.interval == 0:
            point, output = self.seen(inner)
            point, output = torch.cat([state.point, point]), torch.cat([state.output, output])
            interval = state.interval
            if len(output) > _CANDIDATES:
                point, output, interval = point[1::2], output[1::2], 2 * interval
            state = replace(state, point=point, output=output, interval=interval)
        return state, {"stage": self.method, **info}

    def stop(self, state: FlatSurvey, info: Any) -> str | None:
        if isinstance(self.sampler, Enumeration) and self.sampler.finished(state.inner):
            return "Every input was evaluated."
        return None


def make_sampler(
    field: Field,
    method: str,
    bin_width: float,
    learning_evaluations: int | None,
    data: Tensor | None,
    low: float | None,
    high: float | None,
) -> FlatSampler:
    """The sampler of that name; "multicanonical" is Wang-Landau learning for a third as long."""
    if method == "enumerate":
        every = Enumeration(field, bin_width, batch=field.batch_size, n_representatives=N_REPRESENTATIVES)
        return FlatSampler(field, method, every, lambda _: _none(field))
    if method == "uniform":
        return FlatSampler(field, method, Uniform(field, bin_width, batch=field.batch_size), lambda _: _none(field))
    if method == "gwl":
        lowest = -300.0 if low is None else low
        highest = 100.0 if high is None else high
        gwl = GradientWangLandau(field, data, lowest, highest, bin_width)
        return FlatSampler(field, method, gwl, lambda inner: (inner.level.reshape(1, -1), _one(inner.value)))
    learning = learning_evaluations
    if method == "multicanonical" and learning is not None:
        learning = max(1, learning // 3)
    compiled = field.single_site is not None or field.table is not None
    walkers = 16 if compiled else 4
    walker = WangLandau(field, learning, bin_width, n_walkers=walkers)
    return FlatSampler(
        field,
        method,
        walker,
        lambda inner: (torch.as_tensor(inner.levels.astype(np.int64)), torch.as_tensor(inner.values.copy())),
    )


def findings(sampler: FlatSampler, state: FlatSurvey, generator: torch.Generator) -> Findings:
    """The estimate with its verdict and gallery."""
    field = sampler.field
    found: FlatHistogramEstimate = sampler.sampler.estimate(state.inner)
    point, output = state.point, state.output
    if sampler.method == "enumerate":
        point, output = sampler.sampler.representatives(state.inner)
    elif sampler.method == "uniform":
        point = as_sampled(field.space, field.space.draw(_CANDIDATES, generator))
        output = field.value(as_points(field.space, point))
    chosen, chosen_output = choose_representatives(
        point.numpy(), output.numpy(), np.zeros(len(output)), found.level_edges, N_REPRESENTATIVES, generator
    )
    points = as_points(field.space, torch.as_tensor(chosen).flatten(0, 1)).numpy()
    word, sentence, checks = _judge(sampler, state, found)
    reached = found.visited | np.isneginf(found.log_density_of_states)
    return Findings(
        method=sampler.method,
        edges=found.level_edges,
        log_density=found.log_density_of_states,
        error=np.where(np.isfinite(found.log_density_error), found.log_density_error, np.nan),
        converged=reached & (word != "not converged"),
        n_samples=found.n_samples,
        representative=points.reshape(*chosen.shape[:2], *field.space.shape),
        representative_output=chosen_output,
        word=word,
        sentence=sentence,
        checks=checks,
        citations=_CITATIONS[sampler.method],
    )


def _judge(sampler: FlatSampler, state: FlatSurvey, found: FlatHistogramEstimate) -> tuple[str, str, tuple[Check, ...]]:
    if sampler.method == "enumerate":
        if sampler.sampler.finished(state.inner):
            return "exact", "Exact: every input was evaluated.", ()
        done = found.n_samples.sum() / np.exp(sampler.field.space.log_volume)
        return "not converged", f"Not converged: only {done:.1%} of the inputs were evaluated.", ()
    checks = [_counting(sampler.field, found)]
    if sampler.method == "uniform":
        sentence = "Converged on the levels that random inputs reach; nothing is known of the others."
        return "converged", sentence, tuple(checks)
    known = found.visited & np.isfinite(found.log_density_of_states)
    error = found.log_density_error[known]
    checks.append(
        Check(
            "levels have an error",
            float(np.isfinite(error).mean()) if len(error) else 0.0,
            "1",
            "share of the visited levels whose error could be estimated from independent walkers",
            np.isfinite(error) if len(error) else np.zeros(1, dtype=bool),
        )
    )
    checks.append(
        Check(
            "histogram covers the range",
            float(found.n_samples[known].min() / max(found.n_samples[known].mean(), 1e-300)) if len(error) else 0.0,
            ">= 0.1",
            "fewest samples of a visited level over the mean: a flat histogram has 1",
            np.array([len(error) > 0 and found.n_samples[known].min() >= 0.1 * found.n_samples[known].mean()]),
        )
    )
    checks.append(
        Check(
            "the whole space was covered",
            float(found.absolute),
            "1",
            "no trial was refused for an output outside the range, so that the levels add up to all inputs",
            np.array([found.absolute]),
        )
    )
    failed = [check.name for check in checks if check.passed is not None and not check.passed.all()]
    if failed:
        return "not converged", f"Not converged: {', '.join(failed)} failed.", tuple(checks)
    return "converged", "Converged: every check that could be run holds, on the levels reached.", tuple(checks)


def _counting(field: Field, found: FlatHistogramEstimate) -> Check:
    known = np.isfinite(found.log_density_of_states)
    density = found.log_density_of_states[known]
    extent = float(density.max() - density.min()) if len(density) else 0.0
    return Check(
        "counts are possible",
        extent,
        f"<= {field.space.log_volume:.6g} nats",
        "range of ln(number of inputs): no level holds more than all inputs or fewer than one",
        np.array([extent <= field.space.log_volume + 1e-6]),
    )


def _none(field: Field) -> tuple[Tensor, Tensor]:
    empty = as_sampled(field.space, field.space.draw(0, torch.Generator()))
    return empty, torch.empty(0, dtype=torch.float64)


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)
