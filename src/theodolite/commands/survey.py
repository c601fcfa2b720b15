"""Every survey command alike: predictions, survey, report; or, as a dry run, what would be done and how long it would
take.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from rich.console import Console

from theodolite.commands import boundary, ensemble, field_survey, learn, lipschitz, stability, survey_folder, units
from theodolite.commands.arguments import Survey
from theodolite.commands.configuration import COMMANDS
from theodolite.commands.job import Job
from theodolite.errors import UserError
from theodolite.report.page import write_report

_MODULES: dict[str, ModuleType] = {
    "density": field_survey,
    "landscape": field_survey,
    "boundary": boundary,
    "stability": stability,
    "lipschitz": lipschitz,
    "units": units,
    "ensemble": ensemble,
    "learn": learn,
}


def run(settings: Survey, line: str) -> None:
    """Survey what `settings` name into a new folder; nothing is written before all flags and the data are
    checked.
    """
    console = Console(highlight=False)
    _MODULES[command_name(settings)].check(settings)
    if settings.dry_run:
        job = prepare(settings, console, None)
        job.show(console)
        console.print(job.plan(), markup=False)
        console.print("Dry run: nothing was written.")
        return
    survey_folder.check_free(settings.out, settings.overwrite)
    job = prepare(settings, console, None)
    job.show(console)
    survey_folder.create(settings.out, settings.overwrite)
    survey_folder.write_settings(command_name(settings), settings, settings.out, job.model_hash)
    job.save(settings.out)
    survey(job, settings.out, line, resume=False, console=console)


def command_name(settings: Survey) -> str:
    """The word on the command line for these settings."""
    return next(name for name, kind in COMMANDS.items() if isinstance(settings, kind))


def prepare(settings: Survey, console: Console, folder: Path | None) -> Job:
    """What the settings name, loaded and checked; see `job`."""
    return _MODULES[command_name(settings)].prepare(settings, console, folder)


def survey(job: Job, folder: Path, line: str, *, resume: bool, console: Console) -> None:
    """Measure (or go on measuring) into `folder`, write the report and say what was found."""
    found = job.measure(folder, line, resume=resume)
    page = write_report(found, folder / survey_folder.REPORT)
    console.print(str(found["verdict_sentence"].item()), markup=False, soft_wrap=True)
    for sentence in (f"Report: {page}", *job.next_steps(folder)):
        console.print(sentence, markup=False, soft_wrap=True)


def check_unchanged(job: Job, recorded: str | None, folder: Path) -> None:
    """Raise `UserError` where the model is not the one that the survey in `folder` began with."""
    if recorded is not None and job.model_hash != recorded:
        got = f"hash {job.model_hash[:12]} for {recorded[:12]}"
        raise UserError("model", f"the model that the survey in {folder} began with", got, "restore it, or survey anew")
