"""`theodolite boundary`: which inputs of the data are looked at, from which others searches start, and what they are
put to.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import final

import torch
import xarray
from rich.console import Console
from torch import Tensor

from theodolite.commands.arguments import BoundaryCommand
from theodolite.commands.classifier import Chosen, check_images, choose_inputs, load_classifier
from theodolite.commands.job import LoadedJob
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import Loaded
from theodolite.instruments import boundary_task
from theodolite.instruments.boundary import Boundary
from theodolite.run import duration
from theodolite.search.constraints import parse_constraints

_MOST_REFERENCES = 10_000  # points that searches may start from


def check(settings: BoundaryCommand) -> None:
    """Raise `UserError` for flags that no boundary can be surveyed with."""
    check_images(settings.images)
    _instrument_of(settings)


def prepare(settings: BoundaryCommand, console: Console, folder: Path | None) -> BoundaryJob:
    """The network and the inputs that the flags name; raises `UserError` for flags that do not fit these."""
    loaded = load_classifier(settings, settings.seed, console, folder)
    chosen = choose_inputs(loaded, settings.data_set, settings.images, settings.seed)
    boundary_task.prepare(_instrument_of(settings), chosen.network, chosen.inputs, chosen.labels, None)
    return BoundaryJob(settings, loaded, chosen)


@final
class BoundaryJob(LoadedJob):
    """A survey of the chosen inputs by `Boundary`."""

    def __init__(self, settings: BoundaryCommand, loaded: Loaded, chosen: Chosen) -> None:
        super().__init__(settings, settings.seed, loaded)
        self._settings, self._chosen = settings, chosen
        self._reference = _reference(loaded, chosen, settings.seed)

    def plan(self) -> str:
        chosen, instrument = self._chosen, _instrument_of(self._settings)
        rate = measure_rate(self._loaded.field, self._settings.seed)
        # A row with its gradient is a forward and a backward pass.
        passes = 2 * (rate.gradient or rate.value)
        seconds = instrument.search_passes(chosen.network, chosen.inputs) / passes
        reference = 0 if self._reference is None else len(self._reference)
        return "\n".join(
            [
                instrument.plan(chosen.network, chosen.inputs),
                f"Reference points: {reference:,}",
                f"Search at the speed measured here: about {duration(max(1.0, seconds))}, certificates apart",
            ]
        )

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        chosen = self._chosen
        return _instrument_of(self._settings).measure(
            chosen.network,
            chosen.inputs,
            chosen.labels,
            reference=self._reference,
            directory=folder,
            resume=resume,
            command=line,
        )


def _instrument_of(settings: BoundaryCommand) -> Boundary:
    shared = {entry.name for entry in dataclasses.fields(Boundary)} - {"constraints"}
    constraints = None if settings.constraints is None else parse_constraints(settings.constraints)
    return Boundary(**{name: getattr(settings, name) for name in shared}, constraints=constraints)


def _reference(loaded: Loaded, chosen: Chosen, seed: int) -> Tensor | None:
    """Points that searches may start from: the training data, or what was not drawn."""
    reference = loaded.sets["train"][0] if "train" in loaded.sets and chosen.set_name != "train" else chosen.others
    if len(reference) > _MOST_REFERENCES:
        some = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))
        reference = reference[some[:_MOST_REFERENCES]]
    return reference if len(reference) else None
