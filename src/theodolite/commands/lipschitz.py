"""`theodolite lipschitz`: whose layers are bounded, and which inputs are looked around."""

from __future__ import annotations

from pathlib import Path
from typing import final

import xarray
from rich.console import Console
from torch import Tensor

from theodolite.commands.arguments import LipschitzCommand
from theodolite.commands.classifier import check_images, choose_inputs, load_classifier
from theodolite.commands.job import LoadedJob
from theodolite.commands.subject import Loaded
from theodolite.errors import UserError
from theodolite.instruments import lipschitz_task
from theodolite.instruments.lipschitz import Lipschitz
from theodolite.network import Network


def check(settings: LipschitzCommand) -> None:
    """Raise `UserError` for flags that no slopes can be surveyed with."""
    check_images(settings.images)
    _instrument_of(settings)


def prepare(settings: LipschitzCommand, console: Console, folder: Path | None) -> LipschitzJob:
    """The network and the inputs that the flags name; raises `UserError` for flags that do not fit these."""
    loaded = load_classifier(settings, settings.seed, console, folder)
    network, inputs = loaded.network, None
    if network is None:
        raise UserError("model", "a network", "none", "for example --model pkg.mod:factory")
    if loaded.sets:
        inputs = choose_inputs(loaded, settings.data_set, settings.images, settings.seed).inputs
    lipschitz_task.prepare(_instrument_of(settings), network, inputs)
    return LipschitzJob(settings, loaded, network, inputs)


@final
class LipschitzJob(LoadedJob):
    """A survey of one network by `Lipschitz`."""

    def __init__(self, settings: LipschitzCommand, loaded: Loaded, network: Network, inputs: Tensor | None) -> None:
        super().__init__(settings, settings.seed, loaded)
        self._settings, self._network, self._inputs = settings, network, inputs

    def plan(self) -> str:
        return _instrument_of(self._settings).plan(self._network, self._inputs)

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        return _instrument_of(self._settings).measure(
            self._network, self._inputs, directory=folder, resume=resume, command=line
        )


def _instrument_of(settings: LipschitzCommand) -> Lipschitz:
    return Lipschitz(settings.seed, settings.norm, _radii(settings.radius), settings.budget)


def _radii(text: str | None) -> tuple[float, ...]:
    """ ".1,.5" -> (0.1, 0.5)."""
    try:
        return tuple(float(part) for part in (text or "").replace(",", " ").split())
    except ValueError as error:
        raise UserError("radius", "distances above 0", repr(text), "for example --radius 0.1,0.5") from error
