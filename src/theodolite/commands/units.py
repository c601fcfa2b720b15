"""`theodolite units`: which layer's units are surveyed, by which inputs of the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import final

import xarray
from rich.console import Console

from theodolite.commands.arguments import UnitsCommand
from theodolite.commands.classifier import Chosen, check_images, choose_inputs, load_classifier
from theodolite.commands.job import LoadedJob
from theodolite.commands.subject import Loaded
from theodolite.errors import UserError
from theodolite.instruments import unit_task
from theodolite.instruments.units import Units


def check(settings: UnitsCommand) -> None:
    """Raise `UserError` for flags that no units can be surveyed with."""
    check_images(settings.images)
    _instrument_of(settings)


def prepare(settings: UnitsCommand, console: Console, folder: Path | None) -> UnitsJob:
    """The network and the inputs that the flags name; raises `UserError` for flags that do not fit these."""
    loaded = load_classifier(settings, settings.seed, console, folder)
    chosen = choose_inputs(loaded, settings.data_set, settings.images, settings.seed)
    unit_task.prepare(_instrument_of(settings), chosen.network, chosen.inputs, chosen.labels)
    return UnitsJob(settings, loaded, chosen)


@final
class UnitsJob(LoadedJob):
    """A survey of one layer by `Units`."""

    def __init__(self, settings: UnitsCommand, loaded: Loaded, chosen: Chosen) -> None:
        super().__init__(settings, settings.seed, loaded)
        self._settings, self._chosen = settings, chosen

    def plan(self) -> str:
        chosen = self._chosen
        return _instrument_of(self._settings).plan(chosen.network, chosen.inputs, chosen.labels)

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        chosen = self._chosen
        return _instrument_of(self._settings).measure(
            chosen.network, chosen.inputs, chosen.labels, directory=folder, resume=resume, command=line
        )


def _instrument_of(settings: UnitsCommand) -> Units:
    shared = {entry.name for entry in dataclasses.fields(Units)} - {"top"}
    return Units(**{name: getattr(settings, name) for name in shared}, top=_sizes(settings.top))


def _sizes(text: str) -> tuple[int, ...]:
    """ "10,30" -> (10, 30)."""
    parts = str(text).replace(",", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError("top", "sizes of sets, whole numbers", repr(text), "for example --top 10,30")
    return tuple(map(int, parts))
