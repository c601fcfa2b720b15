"""Where does the network's answer flip? For every input the closest point where it does, and how close one can be.

``Boundary().measure(network, inputs, labels)`` gives the closest flip points, proven lower bounds of their distances,
and what they tell: whom to trust, in which directions answers flip, which labels are suspicious. Source: Yousefzadeh
and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods"; methods: docs/boundary.md.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.boundary_findings import to_dataset
from theodolite.instruments.boundary_sampler import BoundarySampler
from theodolite.instruments.boundary_task import BoundaryTask, parse_pairs, prepare
from theodolite.network import Network
from theodolite.run import Budget, Outcome
from theodolite.search.constraints import Constraints
from theodolite.search.regions import NORMS

EFFORTS = {"quick": 240, "regular": 400, "thorough": 710}  # forward and backward passes an image, about
CERTIFICATES = ("auto", "none", "lipschitz", "crown", "cap", "exact")
HOMOTOPY = ("auto", "on", "off")
CHECKPOINT = "boundary.checkpoint.pt"
CITATIONS = ("Yousefzadeh, O'Leary (2019). Deep Learning Interpretation: Flip Points and Homotopy Methods.",)
_PAIR_UNITS = 1000  # passes a pair of classes, about


@final
@dataclass(frozen=True)
class Boundary:
    """Settings of a survey of the boundary; ``measure`` runs it.

    ``effort`` of the search: "quick", "regular" or "thorough". ``norm`` of distances: "L2", "L1" or "Linf".
    ``targets``: "closest" (any class), "all" (beside it the closest tie with each other class, all others below), or
    pairs "3:5,4:9" (from predicted class 3 to 5, from 4 to 9). ``certificate`` of the lower bounds: "none",
    "lipschitz", "crown", "cap" (CROWN over the cap a nearer flip point must lie in), "exact" (small ReLU networks:
    branch and bound in L2, integer programs in Linf) or "auto". ``constraints``: what flip points may change.
    ``meeting``: number of classes, 3 or more, whose nearest meeting point is searched; 0: none. ``uncertainty`` of the
    measured inputs, in input units: flip points within it make an answer ambiguous. ``homotopy``: starts from networks
    made less steep, "on", "off", or where activations saturate ("auto"; constrained searches do without). ``budget``:
    what is not reached within it is said to be so. Raises UserError for anything else.
    """

    seed: int = 0
    effort: str = "regular"
    norm: str = "L2"
    targets: str = "closest"
    certificate: str = "auto"
    constraints: Constraints | None = None
    meeting: int = 0
    uncertainty: float | None = None
    homotopy: str = "auto"
    budget: str = "10 min"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        for name, allowed in (
            ("effort", tuple(EFFORTS)),
            ("norm", NORMS),
            ("certificate", CERTIFICATES),
            ("homotopy", HOMOTOPY),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(name, f"one of {', '.join(allowed)}", repr(value), "choose one")
        if self.targets not in ("closest", "all"):
            parse_pairs(self.targets)
        if self.constraints is not None and not isinstance(self.constraints, Constraints):
            got = type(self.constraints).__name__
            raise UserError("constraints", "Constraints", got, "make them: theodolite.Constraints(fixed=[0, 1])")
        if self.meeting != 0 and self.meeting < 3:
            raise UserError("meeting", "0, or 3 or more classes", str(self.meeting), "two classes are a flip point")
        if self.uncertainty is not None and not (math.isfinite(self.uncertainty) and self.uncertainty > 0):
            raise UserError(
                "uncertainty", "a finite distance above 0", str(self.uncertainty), "leave it out where unknown"
            )
        if self.norm == "L1" and self.certificate == "exact":
            raise UserError("certificate", "another than exact in L1", "exact", "use cap, or measure in L2 or Linf")
        if self.norm != "L2" and (self.targets != "closest" or self.meeting):
            raise UserError("norm", "L2 for pairs of classes and meeting points", self.norm, "use targets='closest'")

    def measure(
        self,
        network: Network,
        inputs: Tensor,
        labels: Tensor | None = None,
        *,
        reference: Tensor | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Find the closest flip points of ``inputs (image, *shape)``; the boundary dataset of docs/architecture.md.

        Inputs are points of the space's continuous hull, distances in their units. ``labels (image,)``: true classes,
        -1 where unknown. ``reference (m, *shape)``: other points, such as training data, from which searches may
        start. ``directory``: where checkpoints and the result are saved; with ``resume`` a run there is continued, of
        the same network, inputs, labels, reference and settings (budget and uncertainty may be others).

        An input that will not do (outside the space, not finite, no finite output) or that no flip point is found for
        is a row whose ``outcome`` says why. Raises UserError before any work for shapes, labels, settings or a
        directory that will not do, and for a run begun with others.
        """
        task = prepare(self, network, inputs, labels, reference)
        run = surveying.Run.begun(
            "boundary",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.units,
            progress=progress,
        )
        run.check_same(task.identity, "the network, inputs, labels, reference and settings")
        sampler = BoundarySampler(self, task, run.meter)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        dataset = to_dataset(self, task, sampler.found(outcome.state), self._attributes(task, outcome, command))
        run.keep(dataset)
        return dataset

    def plan(self, network: Network, inputs: Tensor) -> str:
        """What ``measure`` would do, in words; searches nothing."""
        task = prepare(self, network, inputs, None, None)
        lines = [
            f"Search: {task.n_usable:,} of {len(task.own):,} inputs, effort {self.effort}, norm {self.norm}",
            f"Pairs of classes: {len(task.pairs[0]):,}",
            f"Certificate: {self.certificate}",
            f"Constraints: {self.constraint_words}",
            f"Budget: {Budget.parse(self.budget)}; about {self._passes(task):,} forward and backward passes are needed",
        ]
        return "\n".join(lines)

    def search_passes(self, network: Network, inputs: Tensor) -> int:
        """Forward and backward passes that the search takes, about."""
        return self._passes(prepare(self, network, inputs, None, None))

    def _passes(self, task: BoundaryTask) -> int:
        n_meetings = task.n_usable if self.meeting else 0
        return EFFORTS[self.effort] * task.n_usable + _PAIR_UNITS * (len(task.pairs[0]) + n_meetings)

    @property
    def constraint_words(self) -> str:
        """The constraints in words."""
        return "none" if self.constraints is None else self.constraints.describe()

    def _attributes(self, task: BoundaryTask, outcome: Outcome, command: str) -> dict[str, str | int | float]:
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        if self.constraints is not None:
            settings["constraints"] = self.constraint_words
        network = task.network
        attributes = surveying.attributes_of(
            settings,
            surveying.Surveyed(
                observable="all outputs",
                observable_sentence="the class with the largest output",
                space=network.space,
                model_name=network.name,
                model_hash=network.hash,
            ),
            outcome,
            name="boundary",
            method=f"boundary walk, effort {self.effort}; certificate {self.certificate}",
            citations=CITATIONS,
            command=command,
        )
        attributes |= {
            "norm": self.norm,
            "constraints": self.constraint_words,
            "change_threshold": task.change_threshold,
            "reference": 0 if task.reference is None else len(task.reference[0]),
        }
        if self.uncertainty is not None:
            attributes["uncertainty"] = self.uncertainty
        return attributes
