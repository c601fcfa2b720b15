"""`theodolite density` and `landscape`: surveys of one observable of a network, or of a system with a known answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import final

import torch
import xarray
from rich.console import Console
from torch import Tensor

from theodolite.commands.arguments import DensityCommand, LandscapeCommand
from theodolite.commands.job import LoadedJob, kept_weights
from theodolite.commands.latent_subject import in_latent_space
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import Loaded, load
from theodolite.instruments.density import Density
from theodolite.instruments.landscape import Landscape
from theodolite.instruments.proposals import Propose, from_reference
from theodolite.run import Budget, duration


def check(settings: DensityCommand | LandscapeCommand) -> None:
    """Raise `UserError` for a budget, method or other setting that there is not."""
    _instrument_of(settings)


def prepare(settings: DensityCommand | LandscapeCommand, console: Console, folder: Path | None) -> FieldJob:
    """What is surveyed, in the input space or in the latent space of the generator that the settings name."""
    loaded = load(settings, settings.seed, console, kept_weights(folder))
    if isinstance(settings, LandscapeCommand):
        loaded = in_latent_space(settings, loaded)
    return FieldJob(settings, loaded)


@final
class FieldJob(LoadedJob):
    """A survey of the loaded field by `Density` or `Landscape`."""

    def __init__(self, settings: DensityCommand | LandscapeCommand, loaded: Loaded) -> None:
        super().__init__(settings, settings.seed, loaded)
        self._settings = settings
        self._instrument = _instrument_of(settings)

    def plan(self) -> str:
        rate = measure_rate(self._loaded.field, self._settings.seed)
        budget = Budget.parse(self._settings.budget)
        speed = rate.gradient or rate.value
        if budget.evaluations is not None:
            estimate = f"{budget.evaluations:,} evaluations, at most {duration(budget.evaluations / speed)}"
        else:
            estimate = f"{budget}, about {speed * (budget.seconds or 0):,.0f} evaluations"
        slope = "no gradient" if rate.gradient is None else f"{rate.gradient:,.0f} a second with the gradient"
        return "\n".join(
            [
                self._instrument.plan(self._loaded.field),
                f"Measured here: {rate.value:,.0f} evaluations a second, {slope}.",
                f"Estimate at that speed: {estimate}.",
            ]
        )

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        loaded = self._loaded
        data = loaded.by_class(self._settings.seed) or None
        passed = {"directory": folder, "resume": resume, "command": line}
        if isinstance(self._instrument, Landscape):
            return self._instrument.measure(
                loaded.field, data, label=loaded.namer, propose=self._starts(data), picture=loaded.picture, **passed
            )
        return self._instrument.measure(loaded.field, data, **passed)

    def _starts(self, data: dict[str, Tensor] | None) -> Propose | None:
        """Of a learned energy, whose space is far larger than where its density lies; None: the instrument's own."""
        learned = self._loaded.learned
        if learned is None:
            return None
        return from_reference(learned.model, torch.cat(list(data.values())) if data else None)


def _instrument_of(settings: DensityCommand | LandscapeCommand) -> Density | Landscape:
    kind = Landscape if isinstance(settings, LandscapeCommand) else Density
    shared = {entry.name for entry in dataclasses.fields(kind)} & {entry.name for entry in dataclasses.fields(settings)}
    return kind(**{name: getattr(settings, name) for name in shared})
