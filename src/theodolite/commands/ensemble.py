"""`theodolite ensemble`: which networks make the ensemble, on which inputs of the data it is asked, and the density
survey whose levels are looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import final

import xarray
from rich.console import Console
from torch import Tensor

from theodolite import result
from theodolite.commands.arguments import EnsembleCommand
from theodolite.commands.classifier import check_images
from theodolite.commands.networks import (
    Named,
    NetworksJob,
    check_networks,
    choose_labelled,
    load_networks,
    networks_of,
)
from theodolite.errors import UserError
from theodolite.instruments import ensemble_task
from theodolite.instruments.ensemble import Ensemble

_ZOO = "zoo:"


def check(settings: EnsembleCommand) -> None:
    """Raise `UserError` for flags that no ensemble can be surveyed with."""
    check_networks(_as_networks(settings))
    check_images(settings.images)
    _instrument_of(settings)
    _survey_at(settings.density)


def prepare(settings: EnsembleCommand, console: Console, folder: Path | None) -> EnsembleJob:
    """The networks and the inputs that the flags name; raises `UserError` for flags that do not fit these."""
    named = load_networks(_as_networks(settings), settings.seed, console, folder)
    inputs, labels = choose_labelled(named, settings.data_set, settings.images, settings.seed)
    density = _survey_at(settings.density)
    ensemble_task.prepare(_instrument_of(settings), networks_of(named), inputs, labels, density)
    return EnsembleJob(settings, named, inputs, labels, density)


@final
class EnsembleJob(NetworksJob):
    """A survey of the networks together by `Ensemble`."""

    def __init__(
        self,
        settings: EnsembleCommand,
        named: Sequence[Named],
        inputs: Tensor,
        labels: Tensor,
        density: xarray.DataTree | None,
    ) -> None:
        super().__init__(named, inputs, labels)
        self._settings, self._density = settings, density

    def plan(self) -> str:
        return _instrument_of(self._settings).plan(self.networks, self._inputs, self._labels, self._density)

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        return _instrument_of(self._settings).measure(
            self.networks,
            self._inputs,
            self._labels,
            density=self._density,
            directory=folder,
            resume=resume,
            command=line,
        )


def _as_networks(settings: EnsembleCommand) -> EnsembleCommand:
    """The same settings with --model and --members written as --networks."""
    if settings.model is None:
        return settings
    if settings.networks is not None:
        raise UserError("model", "--networks or --model", "both", "leave one of them out")
    if not settings.model.startswith(_ZOO):
        got = settings.model
        raise UserError("model", "a network of the zoo, trained --members times", got, "name others by --networks")
    if settings.members < 2:
        raise UserError("members", "2 or more", str(settings.members), "leave it out for 5")
    names = (f"member{number}" for number in range(1, settings.members + 1))
    return dataclasses.replace(settings, networks=",".join(f"{name}={settings.model}" for name in names))


def _instrument_of(settings: EnsembleCommand) -> Ensemble:
    shared = {entry.name for entry in dataclasses.fields(Ensemble)} & {e.name for e in dataclasses.fields(settings)}
    given = {name: getattr(settings, name) for name in shared}
    sizes = {name: _numbers(name, given[name]) for name in ("noise", "distortion")}
    return Ensemble(**{**given, **sizes})


def _numbers(argument: str, text: str) -> tuple[float, ...]:
    """ "0.1,0.3" -> (0.1, 0.3); "none" -> ()."""
    if text.strip() == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(argument, "numbers with commas between, or none", repr(text), "for example 0.1,0.3") from None


def _survey_at(folder: Path | None) -> xarray.DataTree | None:
    return None if folder is None else result.open_survey(folder)
