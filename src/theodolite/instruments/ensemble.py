"""Does an ensemble know where the single network is overconfident? Members trained alike, compared and calibrated.

``Ensemble().measure({name: network, ...}, inputs, labels)`` compares the members on the inputs as given, with noise, on
adversarial examples of the first member, on flip points, and at the levels of a density survey. Sources:
Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles"; methods: docs/ensembles.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.ensemble_findings import to_dataset
from theodolite.instruments.ensemble_sampler import EnsembleSampler
from theodolite.instruments.ensemble_task import EnsembleTask, prepare
from theodolite.network import Network
from theodolite.run import Budget, Outcome

EFFORTS = {"quick": 240, "regular": 400, "thorough": 710}  # passes a flip point, about
CHECKPOINT = "ensemble.checkpoint.pt"
CITATIONS = (
    "Lakshminarayanan, Pritzel, Blundell (2017). Simple and Scalable Predictive Uncertainty Estimation using Deep "
    "Ensembles. NeurIPS.",
    "Szegedy et al. (2013). Intriguing properties of neural networks.",
    "Komati (2022), review of Intriguing properties of neural networks.",
    "Kumar, Liang, Ma (2019). Verified Uncertainty Calibration. NeurIPS.",
    "Newcombe (2006). Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2. "
    "Statistics in Medicine 25.",
)


@final
@dataclass(frozen=True)
class Ensemble:
    """Settings of a survey of an ensemble; ``measure`` runs it.

    ``noise``: standard deviations, and ``distortion``: of amplified adversarial examples, both as shares of the extent
    of a coordinate (of a box from 0 to 1 the same as input units). ``effort`` of the searches for flip points:
    "quick", "regular" or "thorough". ``bins`` of the calibration error. ``resamples`` of the bootstrap. An answer is
    ``sure`` above this probability, and doubted by the ensemble where its mean gives it less than ``doubt``.
    ``budget``: conditions not reached within it are said to be so. Raises UserError for anything else.
    """

    seed: int = 0
    noise: tuple[float, ...] = (0.1, 0.3)
    distortion: tuple[float, ...] = (0.1,)
    effort: str = "quick"
    bins: int = 15
    resamples: int = 1000
    sure: float = 0.99
    doubt: float = 0.9
    budget: str = "5 min"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        if self.effort not in EFFORTS:
            raise UserError("effort", f"one of {', '.join(EFFORTS)}", repr(self.effort), "choose one")
        for name in ("noise", "distortion"):
            sizes = getattr(self, name)
            if not isinstance(sizes, tuple) or any(not (math.isfinite(size) and size > 0) for size in sizes):
                raise UserError(name, "finite numbers above 0", repr(sizes), "for example (0.1, 0.3)")
            if len(set(sizes)) < len(sizes):
                raise UserError(name, "different numbers", repr(sizes), "name each once")
        if self.bins < 2:
            raise UserError("bins", "2 or more", str(self.bins), "leave it out for 15")
        if self.resamples < 100:
            raise UserError("resamples", "100 or more", str(self.resamples), "leave it out for 1000")
        if not 0 < self.doubt <= self.sure < 1:
            got = f"doubt {self.doubt:g} and sure {self.sure:g}"
            raise UserError("sure", "probabilities with 0 < doubt <= sure < 1", got, "leave them out for 0.9 and 0.99")

    def measure(
        self,
        networks: Mapping[str, Network],
        inputs: Tensor,
        labels: Tensor | None,
        *,
        density: xarray.Dataset | xarray.DataTree | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Compare the members on ``inputs (image, *shape)`` of classes ``labels (image,)``; the ensemble dataset of
        docs/architecture.md.

        The first of ``networks`` is the single network that the ensemble is asked about. ``density``: the result of
        `Density` of one of its outputs, whose representatives are looked at level by level. ``directory``: where
        checkpoints and the result are saved; with ``resume`` a run there is continued.

        Raises UserError before any work for fewer than two networks, networks of other inputs or classes, labels that
        are missing or wrong, a density survey of another network, and a directory that will not do.
        """
        task = prepare(self, networks, inputs, labels, density)
        run = surveying.Run.begun(
            "ensemble",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.units,
            progress=progress,
        )
        sampler = EnsembleSampler(self, task)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        dataset = to_dataset(
            self,
            task,
            sampler.conditions,
            sampler.examined(outcome.state),
            self._attributes(task, outcome, command),
        )
        run.keep(dataset)
        return dataset

    def plan(
        self,
        networks: Mapping[str, Network],
        inputs: Tensor,
        labels: Tensor | None,
        density: xarray.Dataset | xarray.DataTree | None = None,
    ) -> str:
        """What ``measure`` would do, in words; searches nothing."""
        task = prepare(self, networks, inputs, labels, density)
        conditions = EnsembleSampler(self, task).conditions
        n_levels = 0 if task.levels is None else len(task.levels.point)
        return "\n".join(
            [
                f"Ensemble of {len(task.members.names)}: {', '.join(task.members.names)}",
                f"Conditions, of {len(task.points):,} inputs each: {', '.join(one.name for one in conditions)}",
                f"Representatives of a density survey: {n_levels:,}",
                f"Budget: {Budget.parse(self.budget)}; about {self.search_passes(networks, inputs):,} forward and "
                "backward passes are needed",
            ]
        )

    def search_passes(self, networks: Mapping[str, Network], inputs: Tensor) -> int:
        """Forward and backward passes of a single network that the searches take, about."""
        return EFFORTS[self.effort] * len(inputs) * (1 + len(networks))

    def _attributes(self, task: EnsembleTask, outcome: Outcome, command: str) -> dict[str, str | int | float]:
        network, members = task.network, task.members
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        attributes = surveying.attributes_of(
            settings,
            surveying.Surveyed(
                observable="all outputs",
                observable_sentence="the members' probabilities of every class, and their mean",
                space=network.space,
                model_name=", ".join(members.names),
                model_hash=surveying.hash_of(members.networks),
            ),
            outcome,
            name="ensemble",
            method=f"mean of {len(members.names)} networks; boundary walk, effort {self.effort}",
            citations=CITATIONS,
            command=command,
        )
        levels = {} if task.levels is None else {"levels_observable": task.levels.observable}
        return {**attributes, **levels, "sure": self.sure, "doubt": self.doubt}
