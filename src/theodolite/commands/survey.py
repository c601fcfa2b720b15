"""`theodolite density`, `landscape` and `boundary`: predictions, survey, report; or, as a dry run, what would be done
and how long it would take.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import xarray
from rich.console import Console

from theodolite.commands import boundary, predictions, survey_folder
from theodolite.commands.arguments import BoundaryCommand, DensityCommand, LandscapeCommand, Survey
from theodolite.commands.configuration import COMMANDS
from theodolite.commands.latent_subject import in_latent_space
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import Loaded, load, save_zoo_weights
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.boundary import Boundary
from theodolite.instruments.density import Density
from theodolite.instruments.landscape import Landscape
from theodolite.report.page import write_report
from theodolite.run import Budget, duration


def run(settings: Survey, line: str) -> None:
    """Survey what `settings` name into a new folder; nothing is written before all flags and the data are
    checked.
    """
    console = Console(highlight=False)
    instrument_of(settings)
    if settings.dry_run:
        loaded = load_subject(settings, console)
        predictions.show(loaded, settings.seed, console)
        console.print(f"Space: {loaded.field.space.describe()}\n{_plan(settings, loaded)}", markup=False)
        console.print("Dry run: nothing was written.")
        return
    survey_folder.check_free(settings.out, settings.overwrite)
    loaded = load_subject(settings, console)
    predictions.show(loaded, settings.seed, console)
    survey_folder.create(settings.out, settings.overwrite)
    survey_folder.write_settings(command_name(settings), settings, settings.out, loaded.field.model_hash)
    save_zoo_weights(settings, loaded, settings.out / survey_folder.WEIGHTS)
    survey(settings, loaded, settings.out, line, resume=False, console=console)


def command_name(settings: Survey) -> str:
    """The word on the command line for these settings."""
    return next(name for name, kind in COMMANDS.items() if isinstance(settings, kind))


def load_subject(settings: Survey, console: Console, weights: Path | None = None) -> Loaded:
    """What is surveyed, in the input space or in the latent space of the generator that the settings name."""
    if isinstance(settings, BoundaryCommand):
        loaded = load(boundary.subject_of(settings), settings.seed, console, weights)
        boundary.check(settings, loaded)
        return loaded
    loaded = load(settings, settings.seed, console, weights)
    return in_latent_space(settings, loaded) if isinstance(settings, LandscapeCommand) else loaded


def instrument_of(settings: Survey) -> Density | Landscape | Boundary:
    """The instrument that the flags describe; raises `UserError` for a budget or method that there is not."""
    return boundary.instrument_of(settings) if isinstance(settings, BoundaryCommand) else _of_a_field(settings)


def _of_a_field(settings: DensityCommand | LandscapeCommand) -> Density | Landscape:
    kind = Landscape if isinstance(settings, LandscapeCommand) else Density
    shared = {entry.name for entry in dataclasses.fields(kind)} & {entry.name for entry in dataclasses.fields(settings)}
    return kind(**{name: getattr(settings, name) for name in shared})


def survey(settings: Survey, loaded: Loaded, folder: Path, line: str, *, resume: bool, console: Console) -> None:
    """Measure (or go on measuring) into `folder`, write the report and say what was found."""
    found = _measure(settings, loaded, folder, line, resume=resume)
    page = write_report(found, folder / survey_folder.REPORT)
    console.print(str(found["verdict_sentence"].item()), markup=False, soft_wrap=True)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)


def _measure(settings: Survey, loaded: Loaded, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
    if isinstance(settings, BoundaryCommand):
        return boundary.measure(settings, loaded, folder, line, resume=resume)
    instrument = _of_a_field(settings)
    data = loaded.by_class(settings.seed) or None
    passed = {"directory": folder, "resume": resume, "command": line}
    if isinstance(instrument, Landscape):
        return instrument.measure(loaded.field, data, label=loaded.namer, **passed)
    return instrument.measure(loaded.field, data, **passed)


def _plan(settings: Survey, loaded: Loaded) -> str:
    """What would be done and how long it would take, in words."""
    if isinstance(settings, BoundaryCommand):
        return boundary.plan(settings, loaded)
    rate = measure_rate(loaded.field, settings.seed)
    budget = Budget.parse(settings.budget)
    speed = rate.gradient or rate.value
    if budget.evaluations is not None:
        estimate = f"{budget.evaluations:,} evaluations, at most {duration(budget.evaluations / speed)}"
    else:
        estimate = f"{budget}, about {speed * (budget.seconds or 0):,.0f} evaluations"
    slope = "no gradient" if rate.gradient is None else f"{rate.gradient:,.0f} a second with the gradient"
    return "\n".join(
        [
            _of_a_field(settings).plan(loaded.field),
            f"Measured here: {rate.value:,.0f} evaluations a second, {slope}.",
            f"Estimate at that speed: {estimate}.",
        ]
    )


def field_unchanged(field: Field, recorded: str | None, folder: Path) -> None:
    """Raise `UserError` where the model is not the one that the survey in `folder` began with."""
    if recorded is not None and field.model_hash != recorded:
        got = f"hash {field.model_hash[:12]} for {recorded[:12]}"
        raise UserError("model", f"the model that the survey in {folder} began with", got, "restore it, or survey anew")
