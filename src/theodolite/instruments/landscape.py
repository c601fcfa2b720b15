"""Where are the basins, and how high the barriers between them? A map of the minima of a field.

``Landscape().measure(field)`` gives the minima, an interval for the barrier between every two of them, the tree
they form and paths that can be played back. Sources: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces"; Hill 2020 (PhD thesis, UCLA), chapters 4-5; methods: docs/landscape.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import xarray
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments import surveying
from theodolite.instruments.adelm import VARIANTS
from theodolite.instruments.barriers import DISCRETE, REAL
from theodolite.instruments.landscape_findings import Label, LandscapeFindings, to_dataset
from theodolite.instruments.landscape_methods import LandscapeSampler, make_sampler
from theodolite.instruments.landscape_pictures import Picture, check_picture
from theodolite.instruments.proposals import Propose, from_space_and_data
from theodolite.run import Budget, Outcome

METHODS = ("auto", "exact", "network", "adelm", "flood")
NORMS = ("L1", "L2")
CHECKPOINT = "landscape.checkpoint.pt"


@final
@dataclass(frozen=True)
class Landscape:
    """Settings of a map; ``measure`` runs it.

    ``method``: "exact" enumerates every state of a discrete field of up to 2^26 states, and certifies the tree of the
    ``n_minima`` lowest minima of spins with pair couplings; "network" finds minima and the lowest paths between them,
    barriers bounded from above; "adelm" groups minima into the basins that are metastable at ``temperature`` and
    magnetisation ``alpha`` (Hill et al. 2019, Algorithm 3); "flood" evaluates a field of one or two real coordinates
    on a grid; "auto" is exact where that is possible, network elsewhere.

    ``temperature`` in units of the field and ``alpha`` in 1/distance: None tunes them. ``norm`` of the distance: "L1"
    (default on discrete spaces) or "L2". ``improvement_limit`` M in iterations, ``resolution`` delta in input
    units (None: 0 on discrete spaces, a quarter of the median distance between minima on real ones).
    ``proposals``: minima searches of "adelm" and "network". ``neighbourhood``: "any" other level of a coordinate,
    or the "adjacent" ones. ``memory``: GiB that exact methods may use. ``minima`` of "adelm": by "descent", or by
    "sampling": where a chain at the temperature stands, for energies whose minima are not typical (Hill 2020, section
    5.2.3; needs a temperature). ``barriers`` of "adelm": a method of `barriers.pair_barriers` (None: "beam" on
    discrete spaces, "string" on real ones). ``phase_temperatures`` of "adelm": that many temperatures around the one
    used, at which the phase diagram of the two lowest basins is drawn (0: none). Raises UserError for anything else.
    """

    seed: int = 0
    method: str = "auto"
    budget: str = "2 min"
    n_minima: int = 500
    neighbourhood: str = "any"
    memory: float = 4.0
    temperature: float | None = None
    alpha: float | None = None
    norm: str | None = None
    improvement_limit: int = 100
    resolution: float | None = None
    proposals: int = 500
    variant: str = "faithful"
    minima: str = "descent"
    barriers: str | None = None
    phase_temperatures: int = 0

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        _choice("method", self.method, METHODS)
        _choice("neighbourhood", self.neighbourhood, ("any", "adjacent"))
        _choice("variant", self.variant, VARIANTS)
        _choice("minima", self.minima, ("descent", "sampling"))
        if self.barriers is not None:
            _choice("barriers", self.barriers, tuple(dict.fromkeys(DISCRETE + REAL)))
        if self.minima == "sampling" and (self.method != "adelm" or self.temperature is None):
            raise UserError("minima", "method='adelm' and a temperature for 'sampling'", "neither or one", "give both")
        if self.norm is not None:
            _choice("norm", self.norm, NORMS)
        for name in ("memory", "temperature", "alpha"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(name, "a finite number above 0", str(value), "leave it out to have it chosen")
        if self.resolution is not None and not (math.isfinite(self.resolution) and self.resolution >= 0):
            raise UserError(
                "resolution", "a distance of at least 0", str(self.resolution), "0 asks for the target itself"
            )
        for name, least in (("n_minima", 2), ("improvement_limit", 1), ("proposals", 2), ("phase_temperatures", 0)):
            if getattr(self, name) < least:
                raise UserError(name, f"at least {least}", str(getattr(self, name)), "leave it out for the default")

    def measure(
        self,
        field: Field,
        data: Tensor | Mapping[str, Tensor] | None = None,
        *,
        label: Label | None = None,
        propose: Propose | None = None,
        picture: Picture | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        command: str = "",
    ) -> xarray.Dataset:
        """Map ``field``; the landscape dataset of docs/architecture.md.

        ``data``: points ``(n, *shape)`` or named sets of them, from which minima are searched beside random
        points. ``propose(n, generator)`` gives starts instead, and the latent vectors they come from or None
        (`proposals.from_generator`). ``label`` names points: ``(n, *shape)`` -> n words. ``picture`` maps points
        to images ``(n, *image_shape)``, where points are latent vectors or other coordinates. ``directory``: where
        checkpoints and the result are saved; with ``resume`` a run there is continued. Raises UserError and
        FieldError before any work for what will not do; a map that is not complete is a verdict, not an exception.
        """
        starts = _pooled(field, data)
        field.check(surveying.trial_generator())
        if picture is not None:
            check_picture(picture, field.space)
        run = surveying.Run.begun(
            "landscape",
            CHECKPOINT,
            directory,
            resume=resume,
            budget=self.budget,
            evaluations=lambda: field.evaluations,
            progress=progress,
        )
        sampler = make_sampler(self, field, propose or from_space_and_data(field, starts))
        outcome = run.of(sampler, torch.Generator().manual_seed(self.seed), sampler.stop)
        found = sampler.findings(outcome.state, torch.Generator().manual_seed(self.seed))
        dataset = to_dataset(found, field.space, label, self._attributes(field, found, outcome, command), picture)
        run.keep(dataset)
        return dataset

    def plan(self, field: Field) -> str:
        """What ``measure`` would do, in words; evaluates a trial batch only."""
        field.check(surveying.trial_generator())
        sampler: LandscapeSampler = make_sampler(self, field, from_space_and_data(field, None))
        return f"Method: {sampler.plan()} (asked for: {self.method})\nBudget: {Budget.parse(self.budget)}"

    def _attributes(
        self, field: Field, found: LandscapeFindings, outcome: Outcome, command: str
    ) -> dict[str, str | int | float]:
        return surveying.attributes(
            self,
            field,
            outcome,
            name="landscape",
            method=found.method,
            observable_sentence=field.name,
            citations=found.citations,
            command=command,
        )


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(name, f"one of {', '.join(allowed)}", repr(value), "choose one")


def _pooled(field: Field, data: Tensor | Mapping[str, Tensor] | None) -> Tensor | None:
    sets = surveying.named_sets(field, data)
    for name, points in sets.items():
        if not bool(field.space.contains(points).all()):
            wanted = f"points of {field.space.describe()}"
            raise UserError(f"data {name!r}", wanted, "values outside it", "rescale them")
    return torch.cat(list(sets.values())) if sets else None
