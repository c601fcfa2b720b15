"""The steps of learning: blocks of updates of score matching, then of maximum likelihood, then blocks of the long runs.

A block is far shorter than a checkpoint's interval, and its updates are pure functions of the state, so that a run cut
short and gone on with equals one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from theodolite.instruments.learning_task import LearningTask
from theodolite.learning import long_runs, optimiser
from theodolite.learning.long_runs import LongRuns, LongRunState
from theodolite.learning.maximum_likelihood import LearnerState
from theodolite.learning.model import EnergyModel
from theodolite.learning.reference import Reference

if TYPE_CHECKING:
    from theodolite.instruments.learning import Learning

BLOCK = 20  # updates of a step: weights are looked at, and good ones kept, between blocks
_REFERENCE_SEED = 1  # beside the run's own, so that judging draws nothing from what learning draws
# Chains cooled for half of the steps still came down in the third quarter, and drift is what is then seen.
_COOLING = 0.3
_BLOCKS, _LONGEST_BLOCK = 40, 50  # of long runs
_LEAST_CLUSTERS, _MOST_CLUSTERS, _CHAINS_A_CLUSTER = 10, 40, 25
_DONE = "Learning and its long runs are done."


@final
@dataclass(frozen=True)
class LearningState:
    """``learner``: the weights and all they were learned with; ``judged``: the long runs, None before they begin;
    ``identity``: of the task that they belong to."""

    identity: str
    learner: LearnerState
    judged: LongRunState | None = None


@final
@dataclass(frozen=True)
class LearningSampler:
    """Works through the phases of the task under the settings."""

    settings: Learning
    task: LearningTask

    def init(self, generator: torch.Generator) -> LearningState:
        return LearningState(self.task.identity, self.task.likelihood.init(generator))

    def step(self, state: LearningState, generator: torch.Generator) -> tuple[LearningState, dict[str, Any]]:
        learner = state.learner
        if learner.diverged:
            return state, {"phase": "diverged"}
        if learner.warm_updates < self.settings.warm_updates:
            return self._matched(state, generator)
        if learner.updates < self.settings.updates:
            return self._learned(state, generator)
        return self._judged(state, generator) if self.settings.long_steps else (state, {"phase": "done"})

    def stop(self, state: LearningState, info: Mapping[str, Any]) -> str | None:
        learner = state.learner
        if learner.diverged:
            return f"Diverged. {learner.diverged}; the weights of update {learner.good_at:,} are kept."
        trained = learner.warm_updates >= self.settings.warm_updates and learner.updates >= self.settings.updates
        if not trained:
            return None
        if not self.settings.long_steps:
            return _DONE
        judged = state.judged
        return _DONE if judged is not None and long_runs.finished(self.long_runs, judged) else None

    def model(self, state: LearningState) -> EnergyModel:
        """What was learned so far: the running average of the weights, the last good one where learning diverged."""
        self._put(state)
        model = copy.deepcopy(self.task.model)
        return model.eval().requires_grad_(False)

    def short_run(self, state: LearningState, n: int) -> Tensor:
        """``n`` points ``(n, *shape)`` as an update's chains end, of the model; fewer where the bank is smaller."""
        self._put(state)
        generator = torch.Generator().manual_seed(self.settings.seed + _REFERENCE_SEED)
        return self.task.likelihood.short_run(state.learner, n, generator)

    @cached_property
    def long_runs(self) -> LongRuns:
        chains = min(self.settings.long_chains, len(self.task.images))
        steps = max(1, self.settings.long_steps)
        # Judging needs energies at some forty times, also of few steps (in the plane) or sweeps.
        block = max(1, min(_LONGEST_BLOCK, steps // _BLOCKS))
        return LongRuns(steps=steps, chains=chains, cooling_share=_COOLING, block=block)

    @cached_property
    def reference(self) -> Reference:
        """The noisy data that runs are compared with."""
        task = self.task
        held_out = None if task.held_out is None else task.model.points(task.held_out).to(task.data.point.dtype)
        labels = None if task.labels is None else task.labels.unique(return_inverse=True)[1]
        generator = torch.Generator().manual_seed(self.settings.seed + _REFERENCE_SEED)
        return Reference.of(
            task.data.point,
            task.data.noise,
            generator,
            labels=labels,
            class_names=task.class_names,
            held_out=held_out,
            n_clusters=self._clusters,
            levels=task.data.levels,
        )

    @property
    def _clusters(self) -> int:
        """Where there are no labels. In one or two coordinates a density can be blurred along a line of equal energy,
        which finer cells see, as long as each is expected to hold enough chains."""
        if self.task.data.mean.numel() > 2:
            return _LEAST_CLUSTERS
        return max(_LEAST_CLUSTERS, min(_MOST_CLUSTERS, self.long_runs.chains // _CHAINS_A_CLUSTER))

    # ------------------------------------------------------------------ phases

    def _matched(self, state: LearningState, generator: torch.Generator) -> tuple[LearningState, dict[str, Any]]:
        before = state.learner
        learner = self.task.matching.step(before, generator, BLOCK)
        self.task.counter.rows += self.task.matching.evaluations(learner.warm_updates - before.warm_updates)
        info = {
            "phase": "score matching",
            "update": f"{learner.warm_updates:,} of {self.settings.warm_updates:,}",
            "loss": float(learner.warm_traces[-BLOCK:].mean()),
        }
        return replace(state, learner=learner), info

    def _learned(self, state: LearningState, generator: torch.Generator) -> tuple[LearningState, dict[str, Any]]:
        before = state.learner
        learner = self.task.likelihood.step(before, generator, BLOCK)
        self.task.counter.rows += self.task.likelihood.evaluations(learner.updates - before.updates)
        recent = learner.traces[-BLOCK:]
        info = {
            "phase": "maximum likelihood",
            "update": f"{learner.updates:,} of {self.settings.updates:,}",
            "energy difference": float(recent[:, 0].mean()),
            "Langevin gradient": float(recent[:, 1].mean()),
        }
        return replace(state, learner=learner), info

    def _judged(self, state: LearningState, generator: torch.Generator) -> tuple[LearningState, dict[str, Any]]:
        self._put(state)
        energy = self.task.model.energy
        judged = state.judged
        before = 0 if judged is None else judged.evaluations
        if judged is None:
            points = self.reference.spread(self.long_runs.chains, generator)
            judged = long_runs.init(energy, points, self.long_runs, generator, self._long_step(state))
        judged = long_runs.step(energy, self.long_runs, judged, generator)
        self.task.counter.rows += judged.evaluations - before
        made = min(judged.done * self.long_runs.block, self.long_runs.steps)
        info = {
            "phase": "long runs",
            "step": f"{made:,} of {self.long_runs.steps:,}",
            "energy from data": float(judged.data.value.mean()),
            "from noise": float(judged.noise.value.mean()),
        }
        return replace(state, judged=judged), info

    def _long_step(self, state: LearningState) -> float | None:
        """Where learning moved its chains by corrected steps, theirs; else long runs find one of their own."""
        return state.learner.step_size if self.settings.dynamics == "mala" else None

    def _put(self, state: LearningState) -> None:
        learner = state.learner
        _, good = learner.good
        optimiser.put(self.task.model.energy, good if learner.diverged else learner.average)
        if self.task.model.generator is not None and learner.partner is not None:
            optimiser.put(self.task.model.generator, learner.partner.weights)
