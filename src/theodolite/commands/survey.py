"""`theodolite density` and `theodolite landscape`: predictions, survey, report; or, as a dry run, what would be
done and how long it would take.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from theodolite.commands import predictions, survey_folder
from theodolite.commands.arguments import LandscapeCommand, SurveyCommand
from theodolite.commands.configuration import COMMANDS
from theodolite.commands.latent_subject import in_latent_space
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import Loaded, load, save_zoo_weights
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.density import Density
from theodolite.instruments.landscape import Landscape
from theodolite.report.page import write_report
from theodolite.run import Budget, duration


def run(settings: SurveyCommand, line: str) -> None:
    """Survey what `settings` name into a new folder; nothing is written before all flags and the data are
    checked.
    """
    console = Console(highlight=False)
    instrument = instrument_of(settings)
    if settings.dry_run:
        loaded = load_subject(settings, console)
        predictions.show(loaded, settings.seed, console)
        _print_plan(instrument, settings, loaded.field, console)
        return
    survey_folder.check_free(settings.out, settings.overwrite)
    loaded = load_subject(settings, console)
    predictions.show(loaded, settings.seed, console)
    survey_folder.create(settings.out, settings.overwrite)
    survey_folder.write_settings(command_name(settings), settings, settings.out, loaded.field.model_hash)
    save_zoo_weights(settings, loaded, settings.out / survey_folder.WEIGHTS)
    survey(settings, loaded, settings.out, line, resume=False, console=console)


def command_name(settings: SurveyCommand) -> str:
    """The word on the command line for these settings."""
    return next(name for name, kind in COMMANDS.items() if isinstance(settings, kind))


def load_subject(settings: SurveyCommand, console: Console, weights: Path | None = None) -> Loaded:
    """What is surveyed, in the input space or in the latent space of the generator that the settings name."""
    loaded = load(settings, settings.seed, console, weights)
    return in_latent_space(settings, loaded) if isinstance(settings, LandscapeCommand) else loaded


def instrument_of(settings: SurveyCommand) -> Density | Landscape:
    """The instrument that the flags describe; raises `UserError` for a budget or method that there is not."""
    kind = Landscape if isinstance(settings, LandscapeCommand) else Density
    shared = {entry.name for entry in dataclasses.fields(kind)} & {entry.name for entry in dataclasses.fields(settings)}
    return kind(**{name: getattr(settings, name) for name in shared})


def survey(settings: SurveyCommand, loaded: Loaded, folder: Path, line: str, *, resume: bool, console: Console) -> None:
    """Measure (or go on measuring) into `folder`, write the report and say what was found."""
    instrument = instrument_of(settings)
    data = loaded.by_class(settings.seed) or None
    if isinstance(instrument, Landscape):
        found = instrument.measure(
            loaded.field,
            data,
            label=loaded.namer,
            directory=folder,
            resume=resume,
            command=line,
        )
    else:
        found = instrument.measure(loaded.field, data, directory=folder, resume=resume, command=line)
    page = write_report(found, folder / survey_folder.REPORT)
    console.print(str(found["verdict_sentence"].item()), markup=False, soft_wrap=True)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)


def _print_plan(instrument: Density | Landscape, settings: SurveyCommand, field: Field, console: Console) -> None:
    console.print(f"Space: {field.space.describe()}", markup=False)
    console.print(instrument.plan(field), markup=False)
    rate = measure_rate(field, settings.seed)
    budget = Budget.parse(settings.budget)
    speed = rate.gradient or rate.value
    if budget.evaluations is not None:
        estimate = f"{budget.evaluations:,} evaluations, at most {duration(budget.evaluations / speed)}"
    else:
        estimate = f"{budget}, about {speed * (budget.seconds or 0):,.0f} evaluations"
    slope = "no gradient" if rate.gradient is None else f"{rate.gradient:,.0f} a second with the gradient"
    console.print(f"Measured here: {rate.value:,.0f} evaluations a second, {slope}.")
    console.print(f"Estimate at that speed: {estimate}. Dry run: nothing was written.")


def field_unchanged(field: Field, recorded: str | None, folder: Path) -> None:
    """Raise `UserError` where the model is not the one that the survey in `folder` began with."""
    if recorded is not None and field.model_hash != recorded:
        got = f"hash {field.model_hash[:12]} for {recorded[:12]}"
        raise UserError("model", f"the model that the survey in {folder} began with", got, "restore it, or survey anew")
