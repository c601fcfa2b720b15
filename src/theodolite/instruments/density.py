"""How many inputs lie at each output? The density of states of a field over its whole input space.

``Density().measure(field)`` gives ln of the number of inputs in every level of the output, absolute, with an error
and a verdict. Source: Liu et al. 2023, "Gradient-based Wang-Landau Algorithm" (ICML); methods: docs/methods.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments import flat, ladder_estimate, levels, surveying
from theodolite.instruments.findings import Findings, to_dataset
from theodolite.instruments.ladder import LadderSampler
from theodolite.run import Budget, Outcome
from theodolite.sampling.metropolis import choose_mover
from theodolite.space import DiscreteSpace, Latent

METHODS = ("auto", "ladder", "enumerate", "uniform", "wang-landau", "multicanonical", "gwl")
STARTS = ("noise", "zeros", "ones", "data")
CHECKPOINT = "checkpoint.pt"
_ENUMERABLE = 2**26  # inputs that "auto" may enumerate, budget permitting
_ENUMERATE_SHARE = 0.5  # of the budget
_LEARNING_SHARE = 1 / 6  # of the evaluations: Wang-Landau before its fixed-weight run
_COMPILED_RATE = 5e6  # trial moves a second of the compiled kernels, to plan a budget given in seconds


@final
@dataclass(frozen=True)
class Density:
    """Settings of a survey; ``measure`` runs it.

    ``method``: "auto" enumerates where that is affordable, takes Wang-Landau with a multicanonical run on small
    discrete fields with compiled moves, and the ladder otherwise. ``budget``: "5 min", "60 s", "4e6 evaluations".
    ``level_width`` in units of the observable (None: about 120 levels). ``low`` and ``high``: outputs to reach
    (None: until nothing moves). ``starts``: kinds of start of the ladders, of "noise", "zeros", "ones", "data".
    ``target_error``: standard error in nats that ends a ladder early. Raises UserError for anything else.
    """

    seed: int = 0
    method: str = "auto"
    budget: str = "5 min"
    level_width: float | None = None
    low: float | None = None
    high: float | None = None
    starts: tuple[str, ...] | None = None
    target_error: float = 1.0

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        if self.method not in METHODS:
            raise UserError("method", f"one of {', '.join(METHODS)}", repr(self.method), "choose one")
        if self.level_width is not None and not self.level_width > 0:
            raise UserError("level_width", "a width above 0", str(self.level_width), "leave it out to have one chosen")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise UserError("low, high", "low < high", f"{self.low}, {self.high}", "swap them")
        unknown = [start for start in self.starts or () if start not in STARTS]
        if unknown or self.starts == ():
            raise UserError("starts", f"some of {', '.join(STARTS)}", repr(self.starts), "leave it out for all")
        if not self.target_error > 0:
            raise UserError("target_error", "nats above 0", str(self.target_error), "1.0 is the default")

    def measure(
        self,
        field: Field,
        data: Tensor | Mapping[str, Tensor] | None = None,
        *,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Survey ``field``; the dataset of docs/architecture.md.

        ``data``: points ``(n, *shape)``, or named sets of them, shown beside the density and used as starts.
        ``directory``: where checkpoints and the result are saved; with ``resume`` a run there is continued (one that
        ended is returned as it is). Raises UserError and FieldError before any work for a field, data or directory
        that will not do; not converging is a verdict, not an exception.
        """
        sets = surveying.named_sets(field, data)
        field.check(surveying.trial_generator())
        outputs = levels.data_outputs(field, sets)
        method = self._resolved_method(field)
        generator = torch.Generator().manual_seed(self.seed)
        run = surveying.Run.begun(
            "density",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: field.evaluations,
            progress=progress,
        )
        if method == "ladder":
            found, outcome = self._ladder(field, sets, outputs, run, generator)
        else:
            found, outcome = self._flat(field, method, sets, outputs, run, generator)
        dataset = to_dataset(found, field, sets, outputs, generator, self._attributes(field, found, outcome, command))
        run.keep(dataset)
        return dataset

    def plan(self, field: Field) -> str:
        """What ``measure`` would do, in words; evaluates a trial batch only."""
        field.check(surveying.trial_generator())
        method = self._resolved_method(field)
        lines = [f"Method: {method} (asked for: {self.method})", f"Budget: {Budget.parse(self.budget)}"]
        if method == "ladder":
            mover = choose_mover(field, surveying.trial_generator())
            tiles = " in independent tiles" if field.terms is not None else ""
            lines.append(
                f"Moves: {type(mover).__name__}{tiles}; starts: {', '.join(self._starts({}))} and data if given"
            )
            low = "the lowest output" if self.low is None else f"{self.low:g}"
            high = "the highest" if self.high is None else f"{self.high:g}"
            lines.append(f"Range: from {low} to {high} that can be reached")
        elif method == "enumerate":
            lines.append(f"Evaluations: all {math.exp(field.space.log_volume):,.0f} inputs")
        return "\n".join(lines)

    # ------------------------------------------------------------------ methods

    def _ladder(self, field, sets, outputs, run, generator) -> tuple[Findings, Outcome]:
        trial = surveying.trial_generator()
        pooled = torch.cat(list(sets.values())) if sets else None
        mover = choose_mover(field, trial)
        sampler = LadderSampler(field, mover, run.meter, self._starts(sets), pooled, self.low, self.high)
        stop = ladder_estimate.StopRule(sampler, self.level_width, self.target_error)
        outcome = run.of(sampler, generator, stop)
        analysis = torch.Generator().manual_seed(self.seed)
        found = ladder_estimate.findings(sampler, outcome.state, outputs, self.level_width, analysis)
        return found, outcome

    def _flat(self, field, method, sets, outputs, run, generator) -> tuple[Findings, Outcome]:
        pooled = torch.cat(list(sets.values())) if sets else None
        budget = run.meter.budget
        compiled = field.single_site is not None or field.table is not None
        rate = _COMPILED_RATE if compiled else _measured_rate(field)
        evaluations = budget.evaluations or int(rate * (budget.seconds or 0.0))
        sampler = flat.make_sampler(
            field,
            method,
            self.level_width or _trial_width(field, outputs),
            max(1, int(_LEARNING_SHARE * evaluations)),
            pooled,
            self.low,
            self.high,
        )
        outcome = run.of(sampler, generator, sampler.stop)
        return flat.findings(sampler, outcome.state, torch.Generator().manual_seed(self.seed)), outcome

    def _starts(self, sets: Mapping[str, Tensor]) -> tuple[str, ...]:
        if self.starts is not None:
            if "data" in self.starts and not sets:
                raise UserError("starts", "data for starts from data", "none", "pass data=..., or leave out 'data'")
            return self.starts
        return ("noise", "zeros", "data") if sets else ("noise", "zeros", "ones")

    def _resolved_method(self, field: Field) -> str:
        """The method "auto" stands for; raises UserError where the one asked for cannot run on this space."""
        discrete = isinstance(field.space, DiscreteSpace)
        if self.method in ("enumerate", "wang-landau", "multicanonical", "gwl") and not discrete:
            raise UserError("method", "ladder or uniform on a real space", self.method, "choose one of these")
        if self.method == "gwl":
            field.require("level_differences")
        if self.method != "auto":
            return self.method
        if discrete and field.space.log_volume <= math.log(_ENUMERABLE) + 1e-9:
            count = math.exp(field.space.log_volume)
            budget = Budget.parse(self.budget)
            rate = 1.0 if budget.seconds is None else _measured_rate(field)
            affordable = budget.evaluations if budget.seconds is None else budget.seconds * rate
            if count <= _ENUMERATE_SHARE * float(affordable or 0.0):
                return "enumerate"
        if field.table is not None or (field.single_site is not None and field.level_spacing is not None):
            small = field.space.n_coordinates * getattr(field.space, "levels", 2) <= 4096
            return "wang-landau" if small else "ladder"
        return "ladder"

    def _attributes(
        self, field: Field, found: Findings, outcome: Outcome, command: str
    ) -> dict[str, str | int | float]:
        return surveying.attributes(
            self,
            field,
            outcome,
            name="density",
            method=found.method,
            observable_sentence=observable_sentence(field),
            citations=found.citations,
            command=command,
        )


def observable_sentence(field: Field) -> str:
    """The observable in plain words, for axes and captions."""
    kind, *index = field.name.split(":")
    words = {
        "logit": "logit of class {}",
        "log_odds": "log-odds of class {} against all others",
        "margin": "logit of class {} less that of class {}",
        "log_sum_exp": "ln of the sum of exp(logits)",
        "energy": "energy, - ln of the sum of exp(logits)",
        "unit": "activation of unit {1} of layer {0}",
    }
    return words[kind].format(*index) if kind in words and (index or "{" not in words[kind]) else field.name


def _measured_rate(field: Field) -> float:
    """Evaluations a second, from a few batches; only ever used to plan."""
    import time

    before = field.evaluations
    x = field.space.draw(2 * field.batch_size, surveying.trial_generator())
    field.value(x)
    started = time.perf_counter()
    field.value(x)
    seconds = time.perf_counter() - started
    field.evaluations = before
    return len(x) / max(seconds, 1e-9)


def _trial_width(field: Field, outputs: Mapping[str, np.ndarray]) -> float:
    """A level width from what noise and data give; the level spacing where the field has one."""
    if field.level_spacing is not None:
        return field.level_spacing
    before = field.evaluations
    noise = field.value(field.space.draw(256, surveying.trial_generator())).numpy()
    field.evaluations = before
    everything = np.concatenate([noise, *outputs.values()])
    scale = 1.0 if isinstance(field.space, Latent) else 2.0
    edges = levels.level_edges(float(everything.min()), float(everything.max()), None, None)
    return float(scale * (edges[1] - edges[0]))
