"""How steep can the network be? For every layer and the whole a proven bound, and the steepest pair that was found.

``Lipschitz().measure(network)`` gives the table of frame bounds of Szegedy et al. 2013, "Intriguing properties of
neural networks", section 4.3 (Komati 2022, review, Table 5), proven for layers as they are applied, with one more
column: the largest slope between real pairs. Methods: docs/lipschitz.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.bounds.layer_steps import is_erf_chain
from theodolite.instruments.bounds.operator_norms import checked_norm
from theodolite.instruments.lipschitz_findings import to_dataset
from theodolite.instruments.lipschitz_sampler import LipschitzSampler
from theodolite.instruments.lipschitz_task import prepare
from theodolite.network import Network
from theodolite.run import Budget

CHECKPOINT = "lipschitz.checkpoint.pt"
CITATIONS = (
    "Szegedy et al. (2013). Intriguing properties of neural networks.",
    "Sedghi, Gupta, Long (2019). The Singular Values of Convolutional Layers.",
    "Rump (2006). Verification of Positive Definiteness. BIT Numerical Mathematics 46.",
)
ERF_CITATION = "Yousefzadeh, O'Leary (2019). Deep Learning Interpretation: Flip Points and Homotopy Methods."


@final
@dataclass(frozen=True)
class Lipschitz:
    """Settings of a survey of slopes; ``measure`` runs it.

    ``norm`` of changes of inputs, of outputs and of all between: "L2", "L1" or "Linf". ``radius``: of balls around
    inputs, in input units, within which slopes are bounded too. ``budget``: what is not reached within it is said to
    be so; bounds by sums of weights are always there. Raises UserError for anything else.
    """

    seed: int = 0
    norm: str = "L2"
    radius: tuple[float, ...] = ()
    budget: str = "60 s"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        checked_norm(self.norm)
        radius: Any = self.radius
        given = tuple(radius) if isinstance(radius, Iterable) else (radius,)
        if not all(isinstance(r, int | float) and math.isfinite(r) and r > 0 for r in given):
            raise UserError("radius", "finite distances above 0", repr(radius), "give them in input units")
        object.__setattr__(self, "radius", tuple(float(r) for r in given))

    def measure(
        self,
        network: Network,
        inputs: Tensor | None = None,
        *,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Bound every layer and the whole; the lipschitz dataset of docs/architecture.md.

        ``inputs (image, *shape)``: points of the space's continuous hull from which searches for steep pairs start
        and around which slopes are bounded within each ``radius``; without them pairs start from random points.
        ``directory``: where checkpoints and the result are saved; with ``resume`` a run there is continued.

        A layer that nothing is known of is a row with the bound inf and the reason in ``proof``. Raises UserError
        before any work for inputs, settings or a directory that will not do.
        """
        task = prepare(self, network, inputs)
        run = surveying.Run.begun(
            "lipschitz",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.passes.n,
            progress=progress,
        )
        sampler = LipschitzSampler(self, task)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        attributes = surveying.attributes_of(
            {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
            | {"radius": list(self.radius)},
            surveying.Surveyed(
                observable="all outputs",
                observable_sentence="all outputs together",
                space=network.space,
                model_name=network.name,
                model_hash=network.hash,
            ),
            outcome,
            name="lipschitz",
            method="singular values, Cholesky factorisations and tori above; ascent of pairs below",
            citations=(*CITATIONS, ERF_CITATION) if is_erf_chain(task.layers.steps) else CITATIONS,
            command=command,
        )
        dataset = to_dataset(self, task, sampler, outcome.state, {**attributes, "norm": self.norm})
        run.keep(dataset)
        return dataset

    def plan(self, network: Network, inputs: Tensor | None = None) -> str:
        """What ``measure`` would do, in words; bounds nothing."""
        task = prepare(self, network, inputs)
        rows = task.layers.rows
        unknown = [row.name for row in rows if row.graph is None]
        lines = [
            f"Layers: {len(rows):,}, norm {self.norm}",
            f"Unknown: {', '.join(unknown) if unknown else 'none'}",
            f"Balls: {0 if inputs is None else len(inputs):,} inputs, radii "
            + (", ".join(f"{r:g}" for r in self.radius) or "none"),
            f"Budget: {Budget.parse(self.budget)}",
        ]
        return "\n".join(lines)
