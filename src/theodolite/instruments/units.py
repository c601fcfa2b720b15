"""Do single units mean more than other directions? What excites each, how alike that is, and whether it survives.

``Units(layer="fc1").measure(network, inputs, labels)`` gives the inputs that most excite every unit, random and
principal directions, tests whether the units' are more alike, and how far flip points move each unit. Source: Szegedy
et al. 2013, "Intriguing properties of neural networks", section 3, as reviewed by Komati 2022; methods: docs/units.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.unit_activations import POSITIONS
from theodolite.instruments.unit_findings import to_dataset
from theodolite.instruments.unit_sampler import UnitSampler
from theodolite.instruments.unit_task import UnitTask, prepare
from theodolite.network import Network
from theodolite.run import Budget, Outcome

CHECKPOINT = "units.checkpoint.pt"
CITATIONS = (
    "Szegedy, Zaremba, Sutskever, Bruna, Erhan, Goodfellow, Fergus (2013). Intriguing properties of neural networks.",
    "Komati (2022). A review of Intriguing properties of neural networks.",
    "Langsrud (2005). Rotation tests.",
)


@final
@dataclass(frozen=True)
class Units:
    """Settings of a survey of a layer's units; ``measure`` runs it.

    ``layer``: its name in the module (``named_modules``). ``top``: sizes of the sets of most exciting inputs; the
    first decides the claim, the others are told beside it. ``n_random``: random directions, and leading principal
    ones, that are listed with their inputs. ``permutations``: random bases of the test. ``positions`` of a
    convolution: what a channel says to an input is the "maximum" or the "mean" over positions, or "each" position is a
    unit. ``flips``: how many inputs' closest flip points are searched for the units' steadiness; 0: none. ``budget``:
    what is not reached within it is said to be so. Raises UserError for anything else.
    """

    layer: str | None = None
    seed: int = 0
    top: tuple[int, ...] = (10, 30)
    n_random: int = 20
    permutations: int = 999
    positions: str = "maximum"
    flips: int = 60
    budget: str = "5 min"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        top = (self.top,) if isinstance(self.top, int) else self.top
        whole = isinstance(top, Iterable) and all(isinstance(k, int) and not isinstance(k, bool) for k in top)
        if not whole or not tuple(top) or min(top) < 2 or len(set(top)) < len(tuple(top)):
            raise UserError("top", "different whole numbers of at least 2", repr(self.top), "for example (10, 30)")
        object.__setattr__(self, "top", tuple(top))
        for name, least in (("n_random", 1), ("permutations", 1), ("flips", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(name, f"a whole number of at least {least}", repr(value), "leave it out")
        if self.positions not in POSITIONS:
            raise UserError("positions", f"one of {', '.join(POSITIONS)}", repr(self.positions), "choose one")

    def measure(
        self,
        network: Network,
        inputs: Tensor,
        labels: Tensor | None = None,
        *,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Survey the units by ``inputs (image, *shape)``; the units dataset of docs/architecture.md.

        ``labels (image,)``: classes from 0, -1 where unknown (such inputs are left out); None: the network's own
        predictions take their place, and the result says so. ``directory``: where checkpoints and the result are
        saved; with ``resume`` a run there is continued.

        Raises UserError before any work for a layer that is not there or gives no vector or plane an input, shapes,
        labels, sets larger than there are inputs, inputs of one class alone, or a directory that will not do.
        """
        task = prepare(self, network, inputs, labels)
        run = surveying.Run.begun(
            "units",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: task.evaluations,
            progress=progress,
        )
        sampler = UnitSampler(self, task)
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        dataset = to_dataset(self, task, outcome.state, self._attributes(task, outcome, command))
        run.keep(dataset)
        return dataset

    def plan(self, network: Network, inputs: Tensor, labels: Tensor | None = None) -> str:
        """What ``measure`` would do, in words; reads the layer once."""
        task = prepare(self, network, inputs, labels)
        sets = ", ".join(map(str, task.top))
        lines = [
            f"Layer: {self.layer}, {task.activations.n_units:,} units, {int(task.living.sum()):,} of which vary",
            f"Inputs: {len(task.inputs):,} of {len(task.class_names):,} classes; top sets of {sets}",
            f"Random bases: {self.permutations:,}; flip points: {len(task.flipped):,}",
            f"Budget: {Budget.parse(self.budget)}",
        ]
        return "\n".join(lines)

    def _attributes(self, task: UnitTask, outcome: Outcome, command: str) -> dict[str, str | int | float]:
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        network = task.network
        attributes = surveying.attributes_of(
            settings,
            surveying.Surveyed(
                observable=f"units of {self.layer}",
                observable_sentence=f"the activations of layer {self.layer}",
                space=network.space,
                model_name=network.name,
                model_hash=network.hash,
            ),
            outcome,
            name="units",
            method=f"top sets of {', '.join(map(str, task.top))} inputs; {self.permutations:,} random bases",
            citations=CITATIONS,
            command=command,
        )
        return attributes | {
            "layer": str(self.layer),
            "positions": self.positions if task.activations.plane else "",
            "labels": "given" if task.labels_given else "predicted by the network",
        }
