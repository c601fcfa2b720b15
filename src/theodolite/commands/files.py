"""`theodolite report`, `compare` and `export`: what is made of finished surveys."""

from __future__ import annotations

from pathlib import Path

from theodolite import result
from theodolite.commands.arguments import CompareCommand, ExportCommand, ReportCommand
from theodolite.commands.survey_folder import REPORT
from theodolite.errors import UserError
from theodolite.report.page import write_report


def report(settings: ReportCommand) -> None:
    """Write the page. The folder's own report.html is made again; another file that exists is left alone."""
    folder = settings.directory.parent if settings.directory.name == result.STORE else settings.directory
    file = folder / REPORT if settings.out is None else settings.out
    if settings.out is not None:
        _refuse_existing(file, settings.overwrite)
    survey = result.open_survey(settings.directory)
    print(f"Report: {write_report(survey, file)}")


def compare(settings: CompareCommand) -> None:
    """Write the page of two surveys; a file that exists is left alone."""
    _refuse_existing(settings.out, settings.overwrite)
    print(f"Report: {write_report([settings.first, settings.second], settings.out)}")


def export(settings: ExportCommand) -> None:
    """Write one NetCDF file."""
    print(f"Exported: {result.export(settings.directory, settings.file)}")


def _refuse_existing(file: Path, overwrite: bool) -> None:
    if file.exists() and not overwrite:
        raise UserError("out", "a new file", f"{file}, which exists", "choose another --out, or add --overwrite")
